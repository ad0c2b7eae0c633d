"""Open connections that nobody uses: their last user has had all replies, and the next one need not connect."""

import select
import threading
from collections.abc import Iterator
from typing import Any

from loader.model import Node


class Spares:
    """The spare connections of clients that follow one another, by node; from any thread."""

    def __init__(self) -> None:
        self._by_node: dict[Node, list[Any]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def put(self, node: Node, connection: Any) -> None:
        """Keep a connection that awaits nothing; it is closed if the others are."""
        with self._lock:
            if not self._closed:
                self._by_node.setdefault(node, []).append(connection)
                return
        connection.disconnect()

    def take(self, node: Node) -> Any | None:
        """A connection that is still open; None if there is not one."""
        while True:
            with self._lock:
                kept = self._by_node.get(node)
                if not kept:
                    return None
                connection = kept.pop()
            if is_quiet(connection):
                return connection
            connection.disconnect()

    def close(self) -> None:
        """Close them all."""
        for connection in self._drain():
            connection.disconnect()

    def _drain(self) -> Iterator[Any]:
        with self._lock:
            kept, self._by_node, self._closed = self._by_node, {}, True
        for connections in kept.values():
            yield from connections


def is_quiet(connection: Any) -> bool:
    """Whether a connection that awaits nothing is open, and nothing has arrived: not even that it was closed."""
    if connection._sock is None:  # noqa: SLF001
        return False
    poll = select.poll()
    poll.register(connection._sock.made, select.POLLIN)  # noqa: SLF001
    return not poll.poll(0)


def live_ones(connections: dict[Node, Any]) -> dict[Node, Any]:
    """Take over the connections of a client, one for each node, as far as they are still open."""
    live = {}
    while connections:
        node, connection = connections.popitem()
        if is_quiet(connection):
            live[node] = connection
        else:
            connection.disconnect()
    return live
