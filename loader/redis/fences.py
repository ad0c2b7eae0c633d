"""Fences: before anything else is sent to a server, it closes the connections that must not write any more."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any

from loader.model import Node
from loader.redis.connections import exchange
from loader.redis.errors import UNKNOWN, error_text


class Fences:
    """The connections that each node must close first: those of this client that failed, and all of other clients.

    `abandoned` says that a thread still sends, and may have commands in flight.
    """

    def __init__(self) -> None:
        self.abandoned = False
        self.unkillable: set[Node] = set()  # nodes that do not know CLIENT KILL
        self._failed: dict[Node, list[str]] = {}  # names of connections that may have commands in flight
        self._strangers: frozenset[str] = frozenset()  # the beginning of the names of other clients' connections
        self._shut: dict[Node, frozenset[str]] = {}  # those of them that a node has closed
        self._lock = threading.Lock()

    def add(self, node: Node, name: str) -> None:
        """Make a node close a connection of this client, by its name, before anything else is sent to it."""
        with self._lock:
            self._failed.setdefault(node, []).append(name)

    def failed(self, node: Node) -> list[str]:
        """Names of connections that failed, and that a node has not closed yet."""
        return list(self._failed.get(node, ()))

    def shut_out(self, names: Iterable[str]) -> None:
        """Make every node close all connections of other clients, by their `name`, before anything is sent to it."""
        self._strangers |= frozenset(names)

    def has_shut_out(self, names: Iterable[str], nodes: Iterable[Node]) -> bool:
        """Whether all these nodes have closed the connections of those clients."""
        wanted = frozenset(names)
        return all(wanted <= self._shut.get(node, frozenset()) for node in nodes)

    def leave_to(self, other: "Fences") -> None:
        """Pass to another client the commands of this one that may still be executed."""
        other.abandoned |= self.abandoned
        for node, names in self._failed.items():
            for name in names:
                other.add(node, name)

    def is_settled(self, nodes: Iterable[Node]) -> bool:
        """Whether none of these nodes may still execute a command of this client that failed."""
        return not self.abandoned and not any(self._failed.get(node) for node in nodes)

    @property
    def is_unused(self) -> bool:
        """Whether no connection had to be closed so far, of this client or another."""
        return not (self.abandoned or self._strangers or self._failed)

    def is_due(self, node: Node) -> bool:
        """Whether a node has connections to close."""
        return bool(self._failed.get(node)) or not self._strangers <= self._shut.get(node, frozenset())

    def close_at(self, node: Node, connection: Any, patience: float) -> None:
        """Make a node close them, over a connection to it: their commands were executed by then, or never are.

        Raises the driver's exception of a reply that is an error.
        """
        own, strangers = self.failed(node), self._strangers
        theirs = tuple(f"{name}-" for name in strangers)
        (listing,) = exchange(connection, [("CLIENT", "LIST")], patience)
        clients = [] if isinstance(listing, Exception) else [dict(_pairs(line)) for line in listing.splitlines()]
        named = [(each.get(b"id", b""), each.get(b"name", b"").decode(errors="replace")) for each in clients]
        doomed = [ident for ident, name in named if name in own or name.startswith(theirs)]
        replies = exchange(connection, [("CLIENT", "KILL", "ID", ident) for ident in doomed], patience)
        for reply in (listing, *replies):
            if not isinstance(reply, Exception) or "No such client" in str(reply):
                continue
            if not error_text(reply).startswith(UNKNOWN):
                raise reply
            self.unkillable.add(node)
        with self._lock:
            self._failed[node] = [name for name in self._failed.get(node, ()) if name not in own]
        self._shut[node] = self._shut.get(node, frozenset()) | strangers


def _pairs(line: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The words `name=value` of a line."""
    for word in line.split():
        name, _, value = word.partition(b"=")
        yield name, value
