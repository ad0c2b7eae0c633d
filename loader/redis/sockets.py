"""Sockets to all nodes at the same time: bytes out and bytes in, without knowing their meaning.

A worker has one `NodePool`; its user says how many bytes a link awaits (`least`), consumes arriving bytes (`take`), and
is asked before bytes are given to a socket (`guard`).
"""

import fcntl
import selectors
import socket
import ssl
import sys
import termios
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from loader.errors import TargetError
from loader.model import Node
from loader.net.limit import allowed
from loader.redis.client import RedisClient
from loader.wire import resp

WINDOW = 2  # batches in flight per node: one being processed, one waiting in its socket
RECEIVE = 64 * 1024  # bytes of replies read at a time: 13,000 rows written
TICK = 0.5  # seconds after which waiting for a silent node is reported
NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class NodeConnection:
    """One socket to one node: a queue of bytes to send, and a queue of awaited replies, the oldest first."""

    __slots__ = (
        "_mark",
        "_queued",
        "awaited",
        "connection",
        "events",
        "moved",
        "name",
        "node",
        "socket",
        "tail",
        "unsent",
    )

    def __init__(self, node: Node, target: RedisClient) -> None:
        self.node = node
        self.connection, self.socket, self.name = target.open(node)
        self.socket.settimeout(0)
        self.unsent: deque[memoryview] = deque()
        self.awaited: deque[Any] = deque()
        self.tail: bytes | bytearray = b""  # of an incomplete reply
        self.moved = time.monotonic()
        self.events = 0
        self._mark = 1
        self._queued = 0  # bytes that the node had not taken yet

    def send(self) -> None:
        """Give the socket as many bytes as it takes."""
        while self.unsent:
            data = self.unsent[0]
            try:
                sent = self.socket.send(data)
            except NOT_NOW:
                return
            self.moved = time.monotonic()
            if sent < len(data):
                self.unsent[0] = data[sent:]
            else:
                self.unsent.popleft()

    @property
    def is_idle(self) -> bool:
        """Whether all replies have come, so that another writer may use the connection."""
        return not (self.awaited or self.unsent or self.tail)

    def look(self) -> None:
        """Check whether the node receives the bytes: on a slow line the kernel may hold them for long."""
        word = fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        queued = int.from_bytes(word, sys.byteorder)
        if queued < self._queued:
            self.moved = time.monotonic()
        self._queued = queued

    def wake_at(self, least: int) -> None:
        """Make the socket count as readable only when this many bytes can be there.

        A node answers every few kilobytes of commands; waking up for each answer took half of the client's time. Unix
        sockets do not support this and are woken up; under TLS the awaited bytes are not those of the socket.
        """
        if least != self._mark and not isinstance(self.socket, ssl.SSLSocket):
            self._mark = least
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)

    def receive(self) -> Iterator[bytes]:
        """The bytes that have arrived."""
        while True:
            try:
                data = self.socket.recv(RECEIVE)
            except NOT_NOW:
                return
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self.moved = time.monotonic()
            yield data
            if len(data) < RECEIVE and not isinstance(self.socket, ssl.SSLSocket):  # TLS returns one record at a time
                return

    def ask(self, commands: Sequence[list[bytes]]) -> None:
        """Send some commands while nothing else is in flight."""
        self.wake_at(1)
        self.unsent.append(memoryview(b"".join(map(resp.pack, commands))))
        self.send()

    def answers(self, count: int, patience: float) -> list[bytes] | None:
        """The reply lines to this many commands; None if they have not arrived within this many seconds."""
        ends = time.monotonic() + patience
        try:
            while self.tail.count(b"\n") < count:
                if (left := ends - time.monotonic()) <= 0:
                    return None
                self.socket.settimeout(left)
                part = self.socket.recv(RECEIVE)
                if not part:
                    raise ConnectionResetError("the server closed the connection")
                self.tail += part
        except TimeoutError:
            return None
        finally:
            self.socket.settimeout(0)
        lines, self.tail = bytes(self.tail).splitlines(), b""
        return lines


class NodePool:
    """A link to each node that was needed so far; serves one worker.

    `least` says how many bytes a link awaits at least, `take` gets the arriving bytes. After a `TargetError` it is no
    longer usable: `close` it.
    """

    def __init__(
        self, target: RedisClient, least: Callable[[NodeConnection], int], take: Callable[[NodeConnection, bytes], None]
    ) -> None:
        self.guard: Callable[[], None] = lambda: None  # raises if nothing may be sent any more
        self._target = target
        self._least = least
        self._take = take
        self._links: dict[Node, NodeConnection] = {}
        self._selector = selectors.DefaultSelector()

    def __iter__(self) -> Iterator[NodeConnection]:
        return iter(self._links.values())

    @property
    def busy(self) -> bool:
        """Whether any reply is awaited."""
        return any(link.awaited for link in self)

    def to(self, node: Node) -> NodeConnection:
        """The link to a node."""
        self.guard()
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = NodeConnection(node, self._target)
        return link

    def queue(self, link: NodeConnection, data: Any, awaited: object) -> None:
        """Queue bytes to send, and await the replies to them."""
        if not link.awaited:
            link.moved = time.monotonic()
        link.awaited.append(awaited)
        link.unsent.append(memoryview(data))

    def make_room(self, link: NodeConnection, tell: Callable[[Node, float], None] = lambda *_: None) -> None:
        """Wait while `WINDOW` batches are in flight to a node; `tell` is told how long it has waited."""
        started = time.monotonic()
        while len(link.awaited) >= WINDOW:
            self.turn()
            tell(link.node, time.monotonic() - started)

    def send(self) -> None:
        """Give all sockets as many bytes as they take."""
        for link in self:
            if link.unsent:
                self._move(link, receive=False)

    def turn(self) -> None:
        """Send and receive on ready links, or wait `TICK` seconds; a node that is silent for too long is an error."""
        for link in self:
            self._register(link)
        for key, _ in self._selector.select(min(TICK, self._target.patience)):
            self._move(key.data)
        now = time.monotonic()
        for link in self:
            if link.awaited and now - link.moved > TICK:
                link.look()
            if link.awaited and now - link.moved > (patience := allowed(self._target.patience, link.moved)):
                self._move(link)  # too few bytes have arrived to be woken up for
                if now > link.moved:
                    silence = TimeoutError(f"no reply for {patience:.3g} s")
                    raise self._target.error(silence, link.node, link.moved)

    def slowest(self) -> NodeConnection | None:
        """The link that has been silent the longest among those that await something."""
        return min((link for link in self if link.awaited), key=lambda link: link.moved, default=None)

    def numbers(
        self,
        commands: Mapping[Node, Sequence[list[bytes]]],
        patience: float,
        tell: Callable[[Node, float], None] = lambda *_: None,
    ) -> Iterator[tuple[Node, list[int | str]]]:
        """The numbers that nodes reply to commands, all asked at the same time; an error reply is its text.

        `tell` is told of a node that is waited for, and for how long. Nothing else may be in flight.
        """
        links = [(self.to(node), words) for node, words in commands.items()]
        started = time.monotonic()
        self.guard()
        for link, words in links:
            try:
                link.ask(words)
            except OSError as error:
                raise self._failed(link, error) from error
        for link, words in links:
            try:
                while (lines := link.answers(len(words), TICK)) is None:
                    waited = time.monotonic() - started
                    if waited > patience:
                        raise self._failed(link, TimeoutError(f"no reply for {patience:.3g} s"), started)
                    tell(link.node, waited)
            except OSError as error:
                raise self._failed(link, error) from error
            yield link.node, [self._number(link, line) for line in lines]

    def close(self) -> None:
        """Close all connections; the servers must forget bytes in flight before they are written to again."""
        for link in self:
            if link.awaited:
                self._target.fences.add(link.node, link.name)
            if link.is_idle:
                link.wake_at(1)
                self._target.spares.put(link.node, link.connection)
            else:
                link.connection.disconnect()
        self._links.clear()
        self._selector.close()

    def _failed(self, link: NodeConnection, error: Exception, since: float | None = None) -> TargetError:
        """An error after which the commands may still be executed later: the link has to be fenced."""
        link.awaited.append(error)
        return self._target.error(error, link.node, since)

    def _number(self, link: NodeConnection, line: bytes) -> int | str:
        text = line.decode(errors="replace")
        if line.startswith(b"-"):
            return text[1:]
        if not (line.startswith(b":") and line[1:].isdigit()):
            raise self._failed(link, ConnectionError(f"an unexpected reply: {text}"))
        return int(text[1:])

    def _move(self, link: NodeConnection, *, receive: bool = True) -> None:
        if link.unsent:
            self.guard()
        try:
            link.send()
            if receive:
                for data in link.receive():
                    self._take(link, data)
        except OSError as error:
            with suppress(OSError):  # bytes it sent before it closed the connection
                for data in link.receive():
                    self._take(link, data)
            raise self._target.error(error, link.node) from error

    def _register(self, link: NodeConnection) -> None:
        """Let the selector watch a link for what it waits for: nothing if nothing is in flight."""
        link.wake_at(self._least(link) if link.awaited else 1)
        events = (selectors.EVENT_READ if link.awaited else 0) | (selectors.EVENT_WRITE if link.unsent else 0)
        if events == link.events:
            return
        if not link.events:
            self._selector.register(link.socket, events, link)
        elif not events:
            self._selector.unregister(link.socket)
        else:
            self._selector.modify(link.socket, events, link)
        link.events = events
