"""redis-py's connections with two additions: each command has a time limit, and closing leaves no bytes behind."""

import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

from loader.errors import LoaderError
from loader.net.probe import shake_hands
from loader.redis.driver import Connection, SSLConnection, UnixDomainSocketConnection, exceptions
from loader.redis.key_reader import Words
from loader.redis.replies import is_plausible

ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: closing, or dying, drops unsent bytes and resets the connection
FORGET = 20.0  # seconds after which the kernel drops unacknowledged bytes: less than the lock's lifetime
SLOWEST = 128  # bytes of a command or its reply that may take a second longer: a slower connection counts as broken
GROUPS = frozenset({"CLUSTER", "CLIENT"})  # commands whose second word names the subcommand
KINDS_OF = {int: "a number", bytes: "a text", list: "a list", type(None): "nothing"}


class _Time:
    """The time limit for all of a command and its reply, or for logging in; arriving bytes extend it a little."""

    def __init__(self) -> None:
        self._patience = self._ends = inf

    def begin(self, patience: float) -> None:
        """Begin something that has this many seconds."""
        self._patience, self._ends = patience, time.monotonic() + patience

    def add(self, size: int) -> None:
        """Note that bytes have arrived, or are about to be sent."""
        self._ends += size / SLOWEST

    def left(self) -> float:
        """Seconds left to wait for the next bytes."""
        if (left := self._ends - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        return min(left, self._patience)


class _Timed:
    """A socket whose waits all end within the time limit: bytes that arrive one by one do not prolong it."""

    def __init__(self, made: Any, time: _Time) -> None:
        self.made = made
        self._time = time

    def sendall(self, data: bytes) -> None:
        self._time.add(len(data))
        self.made.settimeout(self._time.left())
        self.made.sendall(data)

    def recv(self, size: int) -> bytes:
        self.made.settimeout(self._time.left())
        data: bytes = self.made.recv(size)
        self._time.add(len(data))
        return data

    def recv_into(self, buffer: bytearray) -> int:
        self.made.settimeout(self._time.left())
        got: int = self.made.recv_into(buffer)
        self._time.add(got)
        return got

    def __getattr__(self, name: str) -> Any:
        return getattr(self.made, name)


class _Timing:
    """A connection with a time limit."""

    def __init__(self, **options: Any) -> None:
        self.time = _Time()
        super().__init__(**options)

    def _connect(self) -> Any:
        return _Timed(super()._connect(), self.time)  # type: ignore[misc]


class _Aborting:
    """A TCP connection that leaves no bytes behind.

    Bytes that the kernel sends after a process died or left could overwrite the values of a newer run. A connection
    whose replies have all arrived loses nothing by this.
    """

    def _connect(self) -> Any:
        made = super()._connect()  # type: ignore[misc]
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # only on Linux
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(FORGET * 1000))
        return made


class TcpConnection(_Timing, _Aborting, Connection):
    """A connection without TLS."""


class TlsConnection(_Timing, _Aborting, SSLConnection):
    """A connection with TLS."""

    context: ssl.SSLContext

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        return shake_hands(sock, self.context, self.host, self.port)


class UnixConnection(_Timing, UnixDomainSocketConnection):
    """A connection to a socket of this machine."""


def exchange(connection: Any, commands: Iterable[Iterable[str | bytes | int]], patience: float) -> list[Any]:
    """Replies to pipelined commands, all within this many seconds, plus the time for their bytes.

    A reply that Redis never gives to such a command is an `InvalidResponse`.
    """
    asked = [tuple(words) for words in commands]
    send(connection, asked, patience)
    return receive(connection, asked)


def send(connection: Any, commands: Sequence[Words], patience: float) -> None:
    """Send pipelined commands; from now on their replies have this many seconds."""
    packed = [part for words in commands for part in connection.pack_command(*words)]
    connection.time.begin(patience)
    connection.send_packed_command([b"".join(packed)], check_health=False)


def receive(connection: Any, commands: Sequence[Words]) -> list[Any]:
    """The replies to commands that were sent."""
    replies = []
    for words in commands:
        with sense():
            reply = _response(connection)
        name = " ".join(_word(word) for word in words[: 1 + (_word(words[0]) in GROUPS)])
        if not isinstance(reply, Exception) and not is_plausible(name, reply):
            raise exceptions.InvalidResponse(
                f"{name} is answered with {KINDS_OF.get(type(reply), type(reply).__name__)}"
            )
        replies.append(reply)
    return replies


@contextmanager
def sense() -> Iterator[None]:
    """Raise `InvalidResponse` for replies that redis-py cannot parse."""
    try:
        yield
    except (exceptions.RedisError, OSError, LoaderError, MemoryError):
        raise
    except Exception as error:
        raise exceptions.InvalidResponse(f"an unreadable reply, {type(error).__name__}") from error


def _word(word: str | bytes | int) -> str:
    return word.decode(errors="replace") if isinstance(word, bytes) else str(word)


def _response(connection: Connection) -> Any:
    try:
        return connection.read_response()
    except exceptions.ResponseError as error:
        return error
