"""Sockets to all nodes at the same time: bytes out, bytes in, and no word of what they say.

A worker has one `Links`, whose user says what a link awaits (`least`) and takes what has come (`take`).
"""

import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from loader import frames
from loader.errors import TargetError
from loader.model import Node
from loader.target import Target

RECEIVE = 64 * 1024  # bytes of replies taken at a time: 13,000 rows written
NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Link:
    """One socket to one node: a queue of bytes to send, and a queue of what is awaited, the oldest first."""

    __slots__ = ("_mark", "awaited", "client", "connection", "events", "moved", "node", "socket", "tail", "unsent")

    def __init__(self, node: Node, target: Target) -> None:
        self.node = node
        self.connection, self.socket, self.client = target.open(node)
        self.socket.settimeout(0)
        self.unsent: deque[memoryview] = deque()
        self.awaited: deque[Any] = deque()
        self.tail: bytes | bytearray = b""  # of a reply that is not all there
        self.moved = time.monotonic()
        self.events = 0
        self._mark = 1

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

    def ask(self, words: list[bytes]) -> None:
        """Send one command while nothing else is under way."""
        self.wake_at(1)
        self.unsent.append(memoryview(frames.pack(words)))
        self.send()

    def answer(self, patience: float) -> int:
        """The number that one command is replied with."""
        self.socket.settimeout(patience)
        try:
            line = b""
            while not line.endswith(b"\n"):
                part = self.socket.recv(RECEIVE)
                if not part:
                    raise ConnectionResetError("the server closed the connection")
                line += part
        finally:
            self.socket.settimeout(0)
        if not line.startswith(b":"):
            raise ConnectionError(f"an unexpected reply: {line.decode(errors='replace').strip()}")
        return int(line[1:])


class Links:
    """A link to each node that was needed so far; serves one worker.

    `least` says how many bytes a link awaits at least, `take` is given what has come. After a `TargetError` it is of
    no more use: `close` it.
    """

    def __init__(self, target: Target, least: Callable[[Link], int], take: Callable[[Link, bytes], None]) -> None:
        self._target = target
        self._least = least
        self._take = take
        self._links: dict[Node, Link] = {}
        self._selector = selectors.DefaultSelector()

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links.values())

    @property
    def busy(self) -> bool:
        """Whether anything is awaited."""
        return any(link.awaited for link in self)

    def to(self, node: Node) -> Link:
        """The link to a node."""
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = Link(node, self._target)
        return link

    def queue(self, link: Link, data: Any, awaited: object) -> None:
        """Have bytes sent, and await what they are answered with."""
        if not link.awaited:
            link.moved = time.monotonic()
        link.awaited.append(awaited)
        link.unsent.append(memoryview(data))

    def send(self) -> None:
        """Give all sockets as much as they take."""
        for link in self:
            if link.unsent:
                self._move(link, receive=False)

    def turn(self) -> None:
        """Wait until a link can go on, and send and receive there; a node that is silent for too long is an error."""
        for link in self:
            self._register(link)
        for key, _ in self._selector.select(self._target.patience):
            self._move(key.data)
        now = time.monotonic()
        for link in self:
            if link.awaited and now - link.moved > self._target.patience:
                self._move(link)  # what has come so far is too little to be woken up for
                if now > link.moved:
                    patience = f"{self._target.patience:g} s"
                    raise TargetError(f"redis {link.node}: no reply for {patience}", transient=True)

    def numbers(self, nodes: Iterable[Node], words: list[bytes], patience: float) -> Iterator[tuple[Node, int]]:
        """The number that each of these nodes replies to one command, asked all at the same time; nothing is awaited.

        Nodes without a link are left out.
        """
        links = [self._links[node] for node in nodes if node in self._links]
        for link in links:
            try:
                link.ask(words)
            except OSError as error:
                raise self._target.error(error, link.node) from error
        for link in links:
            try:
                yield link.node, link.answer(patience)
            except OSError as error:
                raise self._target.error(error, link.node) from error

    def close(self) -> None:
        """Leave all nodes; the server is made to forget what is under way before it is written to again."""
        for link in self:
            if link.awaited and link.client is not None:
                self._target.fence(link.node, link.client)
            link.connection.disconnect()
        self._links.clear()
        self._selector.close()

    def _move(self, link: Link, *, receive: bool = True) -> None:
        try:
            link.send()
            if receive:
                for data in link.receive():
                    self._take(link, data)
        except OSError as error:
            raise self._target.error(error, link.node) from error

    def _register(self, link: Link) -> None:
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
