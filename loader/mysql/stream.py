"""Data from a server after the login: a socket that is watched for silence, and a result's row packets."""

import io
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from loader.errors import Kind, LoaderError, SourceError
from loader.model import Shape
from loader.mysql.failures import READING
from loader.net import limit
from loader.net.limit import allowed

if TYPE_CHECKING:
    from loader.mysql.connection import Connection

BUFFER = 256 * 1024  # bytes read at a time; larger reads save nothing more
# Seconds of idleness before a keepalive, seconds between keepalives, and unanswered keepalives that end a connection:
# devices that forget idle connections do so after minutes, and MySQL may work that long on a statement.
KEEP_ALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
TICK = 1.0  # seconds between two checks of how long a server has been silent
PROBE = 2.0  # seconds in which a silent server must accept another connection
SLOWEST = 128  # bytes of a small result that may take a second longer: a slower connection counts as broken
HEADER = 4


class PacketBuffer:
    """What a server sends in `buffer[start:end]`, refilled by `fill`; `what` it is, for errors."""

    def __init__(self, source: "Connection", reader: "PacketReader", what: str) -> None:
        self.buffer = bytearray(BUFFER)
        self.start = self.end = 0
        self._source = source
        self._reader = reader
        self._what = what

    def fill(self, wanted: int) -> None:
        """Wait for more bytes; at least `wanted` fit into the buffer. A closed connection is a transient error."""
        rest = self.end - self.start
        if self.start:
            self.buffer[:rest] = self.buffer[self.start : self.end]
            self.start, self.end = 0, rest
        size = max(BUFFER, wanted)
        if len(self.buffer) != size and rest <= size:
            self.buffer = self.buffer[:rest] + bytearray(size - rest)
        with memoryview(self.buffer)[rest:] as free:
            try:
                got = self._reader.readinto1(free)
            except OSError as error:
                raise self._source.failure(error, f"lost while reading {self._what}") from error
        if not got:
            raise SourceError(
                f"mysql {self._source.address}: the server closed the connection while sending {self._what}",
                kind=Kind.UNAVAILABLE,
            )
        self.end += got
        self._source.moved = time.monotonic()


class Stream(PacketBuffer):
    """The row packets of one result.

    Left without `finish`, it drops the connection: draining would read the rest of the table.
    """

    def __init__(self, source: "Connection", cursor: Any, reader: "PacketReader") -> None:
        super().__init__(source, reader, "rows")
        described = cursor.description or ()
        self.names: tuple[str, ...] = tuple(column[0] for column in described)
        self.shape: Shape = tuple((name, kind, size, scale) for name, kind, _, size, _, scale, _ in described)
        self._cursor = cursor
        # Column count, a packet per column, EOF: so PyMySQL expects this number next, and gets it with the closing
        # packet.
        self._sequence = (len(self.names) + 3) % 256
        self._finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            self._hand_back(bytearray(b"\x05\0\0\0\xfe\0\0\0\0"))  # a made-up EOF: PyMySQL ends the result
            self._source.close()

    def finish(self) -> None:
        """Give the packet at `start`, which ends the result, back to PyMySQL; raises its error if it is one."""
        while self.end - self.start < HEADER + int.from_bytes(self.buffer[self.start : self.start + 3], "little"):
            self.fill(0)
        self._finished = True
        try:
            with self._source.asking(READING):
                self._hand_back(self.buffer[self.start : self.end])
        except LoaderError:
            self._cursor._result.unbuffered_active = False  # noqa: SLF001  # else PyMySQL waits for the rest
            self._source.close()
            raise

    def _hand_back(self, packet: bytearray) -> None:
        packet[3] = self._sequence
        self._reader.put_back(packet)
        self._cursor.fetchone()
        self._cursor.close()


class WatchedSocket(io.RawIOBase):
    """The socket after the login: it may be silent for a number of seconds.

    If less is allowed, the server must `live`, as another connection shows.
    """

    def __init__(self, connection: socket.socket, patience: float, lives: Callable[[float], bool]) -> None:
        self.silent = 0.0  # seconds of silence
        self._socket = connection
        self._patience = patience
        self._lives = lives
        self._ends = inf  # of a small result
        self._small = False
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def readable(self) -> bool:
        """Whether it is readable."""
        return True

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self._socket.fileno()

    def readinto(self, free: Any) -> int:
        """Wait for bytes and read them; a `TimeoutError` if the server is silent for too long."""
        if not self._has(0):
            self._wait()
        got = self._socket.recv_into(free)
        if self._small:
            self._check(got)
        return got

    def is_over(self) -> bool:
        """Whether the server has closed the connection, or announced it, while it was idle."""
        if not self._has(0):
            return False
        usual = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):  # the bytes were TLS's own
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(usual)
        return True

    @contextmanager
    def small(self) -> Iterator[None]:
        """Require a result to be complete soon after it has begun: bytes that arrive one by one do not prolong it."""
        self._small, self._ends = True, inf
        try:
            yield
        finally:
            self._small = False

    def _check(self, got: int) -> None:
        now = time.monotonic()
        if self._ends == inf:
            self._ends = now + allowed(self._patience)
        self._ends += got / SLOWEST
        if now > self._ends:
            raise TimeoutError("timed out")

    def _has(self, seconds: float) -> bool:
        pending = self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0
        return bool(pending or self._poll.poll(seconds * 1000))

    def _wait(self) -> None:
        """Wait for the next bytes; a `TimeoutError` if the server has been silent for too long."""
        since = lived = time.monotonic()
        pause = 0.0  # between two checks whether it lives
        while not self._has(min(TICK, allowed(TICK))):
            now, over = time.monotonic(), limit.end()
            most = allowed(self._patience, lived)
            probing = min(PROBE, most / 2)
            in_vain = now - since >= self._patience or now >= over
            if not in_vain and most < self._patience and over == inf and now - lived >= max(pause, most - probing):
                in_vain = not self._lives(probing)
                lived, pause = time.monotonic(), PROBE
            if in_vain:
                self.silent = time.monotonic() - since
                raise TimeoutError("timed out")


class PacketReader:
    """PyMySQL's buffered reader, with a way to put bytes back."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._back = b""
        self._direct = False
        self.close = reader.close

    def read(self, size: int) -> bytes:
        """Read this many bytes, returned ones first."""
        if not self._back:
            data: bytes = self._reader.read(size)
            return data
        data, self._back = self._back[:size], self._back[size:]
        return data

    def readinto1(self, free: memoryview) -> int:
        """Read once: first the bytes in the reader's buffer, far fewer than `free`, then past the reader.

        Its own `readinto1` fills its buffer for a small `free`, and for a larger one waits for more than it holds.
        """
        if self._direct:
            count: int = self._reader.raw.readinto(free)
            return count
        data = self._reader.read1(len(free))
        free[: len(data)] = data
        self._direct = True
        return len(data)

    def put_back(self, data: bytes | bytearray) -> None:
        """Make `read` return these bytes first; the stream is over."""
        self._back = bytes(data)
        self._direct = False


def keep_alive(descriptor: int) -> None:
    """Make the kernel check whether a connection is still alive."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.family != socket.AF_UNIX:
            for option, value in KEEP_ALIVE.items():
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
