"""Sockets to all nodes at the same time: bytes out, bytes in, and no word of what they say.

A worker has one `NodePool`, whose user says what a link awaits (`least`), takes what has come (`take`), and is asked
before bytes are given to a socket (`guard`).
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

WINDOW = 2  # batches in flight per node: one being worked on, one waiting in its socket
RECEIVE = 64 * 1024  # bytes of replies taken at a time: 13,000 rows written
TICK = 0.5  # seconds after which who waits for a silent node may say so
NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class NodeConnection:
    """One socket to one node: a queue of bytes to send, and a queue of what is awaited, the oldest first."""

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
        self.tail: bytes | bytearray = b""  # of a reply that is not all there
        self.moved = time.monotonic()
        self.events = 0
        self._mark = 1
        self._queued = 0  # bytes that the node had not taken yet

    def send(self) -> None:
        """Give the socket as much as it takes."""
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

    def look(self) -> None:
        """See whether the node takes what was sent: over a slow line the kernel has it longer than a node may sleep."""
        word = fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        queued = int.from_bytes(word, sys.byteorder)
        if queued < self._queued:
            self.moved = time.monotonic()
        self._queued = queued

    def wake_at(self, least: int) -> None:
        """Have the socket count as readable only when so many bytes can be there.

        A node answers every few kilobytes of commands; waking up for each answer took half of the client's time. Unix
        sockets do not know of it and are woken up; under TLS the bytes that are awaited are not those of the socket.
        """
        if least != self._mark and not isinstance(self.socket, ssl.SSLSocket):
            self._mark = least
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)

    def receive(self) -> Iterator[bytes]:
        """What has come."""
        while True:
            try:
                data = self.socket.recv(RECEIVE)
            except NOT_NOW:
                return
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self.moved = time.monotonic()
            yield data
            if len(data) < RECEIVE and not isinstance(self.socket, ssl.SSLSocket):  # TLS gives a record at a time
                return

    def ask(self, commands: Sequence[list[bytes]]) -> None:
        """Send some commands while nothing else is under way."""
        self.wake_at(1)
        self.unsent.append(memoryview(b"".join(map(resp.pack, commands))))
        self.send()

    def answers(self, count: int, patience: float) -> list[bytes] | None:
        """The lines that so many commands are replied with; None where they have not come within so many seconds."""
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

    `least` says how many bytes a link awaits at least, `take` is given what has come. After a `TargetError` it is of
    no more use: `close` it.
    """

    def __init__(
        self, target: RedisClient, least: Callable[[NodeConnection], int], take: Callable[[NodeConnection, bytes], None]
    ) -> None:
        self.guard: Callable[[], None] = lambda: None  # raises where nothing may be sent any more
        self._target = target
        self._least = least
        self._take = take
        self._links: dict[Node, NodeConnection] = {}
        self._selector = selectors.DefaultSelector()

    def __iter__(self) -> Iterator[NodeConnection]:
        return iter(self._links.values())

    @property
    def busy(self) -> bool:
        """Whether anything is awaited."""
        return any(link.awaited for link in self)

    def to(self, node: Node) -> NodeConnection:
        """The link to a node."""
        self.guard()
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = NodeConnection(node, self._target)
        return link

    def queue(self, link: NodeConnection, data: Any, awaited: object) -> None:
        """Have bytes sent, and await what they are answered with."""
        if not link.awaited:
            link.moved = time.monotonic()
        link.awaited.append(awaited)
        link.unsent.append(memoryview(data))

    def make_room(self, link: NodeConnection, tell: Callable[[Node, float], None] = lambda *_: None) -> None:
        """Wait while `WINDOW` batches are under way to a node; `tell` hears for how long by now."""
        started = time.monotonic()
        while len(link.awaited) >= WINDOW:
            self.turn()
            tell(link.node, time.monotonic() - started)

    def send(self) -> None:
        """Give all sockets as much as they take."""
        for link in self:
            if link.unsent:
                self._move(link, receive=False)

    def turn(self) -> None:
        """Send and receive where a link can go on, or `TICK` seconds pass; who is silent for too long is an error."""
        for link in self:
            self._register(link)
        for key, _ in self._selector.select(min(TICK, self._target.patience)):
            self._move(key.data)
        now = time.monotonic()
        for link in self:
            if link.awaited and now - link.moved > TICK:
                link.look()
            if link.awaited and now - link.moved > (patience := allowed(self._target.patience, link.moved)):
                self._move(link)  # what has come so far is too little to be woken up for
                if now > link.moved:
                    silence = TimeoutError(f"no reply for {patience:.3g} s")
                    raise self._target.error(silence, link.node, link.moved)

    def slowest(self) -> NodeConnection | None:
        """The link that has been silent for the longest of those that await something."""
        return min((link for link in self if link.awaited), key=lambda link: link.moved, default=None)

    def numbers(
        self,
        commands: Mapping[Node, Sequence[list[bytes]]],
        patience: float,
        tell: Callable[[Node, float], None] = lambda *_: None,
    ) -> Iterator[tuple[Node, list[int | str]]]:
        """The numbers that nodes reply to commands, asked all at the same time; an error reply is its text.

        `tell` hears of a node that is waited for, and for how long by now. Nothing else may be awaited.
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
        """Leave all nodes; the server is made to forget what is under way before it is written to again."""
        for link in self:
            if link.awaited:
                self._target.fences.add(link.node, link.name)
            link.connection.disconnect()
        self._links.clear()
        self._selector.close()

    def _failed(self, link: NodeConnection, error: Exception, since: float | None = None) -> TargetError:
        """An error whose commands may be carried out all the same, later: the link has to be fenced."""
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
            with suppress(OSError):  # what it has said before it has closed the connection
                for data in link.receive():
                    self._take(link, data)
            raise self._target.error(error, link.node) from error

    def _register(self, link: NodeConnection) -> None:
        """Have the selector watch a link for what it waits for, which is nothing where nothing is under way."""
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
