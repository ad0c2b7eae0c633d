"""One connection to each node for single commands, which all threads of a client share."""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from loader.errors import TargetError
from loader.model import Node
from loader.net.limit import allowed
from loader.redis.connections import exchange, receive, send
from loader.redis.driver import Connection, exceptions
from loader.redis.fences import Fences
from loader.redis.key_reader import Words

DRIVER = (exceptions.RedisError, OSError, MemoryError)  # what redis-py raises, see `failure_of`


class Opener(Protocol):
    """Opens connections to nodes, see `RedisClient`."""

    patience: float
    fences: Fences

    def connect(self, node: Node) -> Connection:
        """A fresh connection to a node."""

    def error(self, error: Exception | str, node: Node, since: float | None = None) -> TargetError:
        """The loader's error for a driver's exception."""


class Singles:
    """The single-command connections of a client; a connection that fails is fenced.

    So a command that arrives late does not undo a newer one.
    """

    def __init__(self, client: Opener, opened: dict[Node, Connection]) -> None:
        self.opened = opened
        self._client = client
        self._turns: dict[Node, threading.RLock] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections to all nodes."""
        for connection in list(self.opened.values()):
            connection.disconnect()
        self.opened.clear()

    def ask(self, node: Node, commands: Sequence[Words]) -> list[Any]:
        """The replies to pipelined commands at one node; an error reply is an exception in the list."""
        with self.turn(node):
            connection, began = self._connection(node), time.monotonic()
            try:
                return exchange(connection, commands, self._patience(commands))
            except DRIVER as error:
                self._drop(node, fenced=True)
                raise self._client.error(error, node, began) from error
            except BaseException:  # a signal: the replies that are still to come must not answer another command
                self._drop(node, fenced=True)
                raise

    def ask_each(self, commands: Mapping[Node, Sequence[Words]]) -> dict[Node, list[Any]]:
        """The same at several nodes, all of which have their commands before the first reply is awaited."""
        if len(commands) < 2:
            return {node: self.ask(node, words) for node, words in commands.items()}
        with ExitStack() as turns:
            for node in sorted(commands):  # in one order: threads that want the same nodes do not block each other
                turns.enter_context(self.turn(node))
            connections = {node: self._connection(node) for node in commands}
            awaited: list[Node] = []
            replies: dict[Node, list[Any]] = {}
            node, began = min(commands), time.monotonic()
            try:
                for node, words in commands.items():
                    awaited.append(node)
                    send(connections[node], words, self._patience(words))
                for node, words in commands.items():
                    replies[node] = receive(connections[node], words)
                    awaited.remove(node)
            except DRIVER as error:
                raise self._client.error(error, node, began) from error
            finally:
                for each in awaited:
                    self._drop(each, fenced=True)
            return replies

    @contextmanager
    def turn(self, node: Node) -> Iterator[None]:
        """Use a node's connection exclusively; a transient error if another thread keeps it for too long."""
        lock, patience, began = self._turn_of(node), allowed(self._client.patience), time.monotonic()
        if not lock.acquire(timeout=patience):
            late = TimeoutError(f"no reply to what was asked before for {patience:.0f} s")
            raise self._client.error(late, node, began)
        try:
            yield
        finally:
            lock.release()

    def _connection(self, node: Node) -> Connection:
        if self._client.fences.is_due(node):
            self._drop(node)  # a new connection first stops commands of a failed one
        connection = self.opened.get(node)
        if connection is None:
            connection = self.opened[node] = self._client.connect(node)
        return connection

    def _drop(self, node: Node, *, fenced: bool = False) -> None:
        connection = self.opened.pop(node, None)
        if connection is not None:
            if fenced:
                self._client.fences.add(node, str(connection.client_name))
            connection.disconnect()

    def _turn_of(self, node: Node) -> threading.RLock:
        """One lock per node, so that waiting for a silent one does not block the others."""
        with self._lock:
            return self._turns.setdefault(node, threading.RLock())

    def _patience(self, commands: Iterable[Words]) -> float:
        """Seconds that a node has to answer, beside those that it is told to wait."""
        told = sum(int(words[2]) / 1000 for words in commands if words[0] in {"WAIT", b"WAIT"})
        return allowed(self._client.patience) + told
