"""The loaded chunks that some replicas lack: lost if such a replica takes over."""

import time
from collections.abc import Collection, Iterator

from loader.model import ChunkLoaded


class Exposure:
    """The chunks that each master has without all of its replicas, until the WAIT of a later chunk covers them."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[int, float]] = {}  # numbers of chunks, and since when

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def __contains__(self, node: str) -> bool:
        return node in self._nodes

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._nodes))

    def count(self, node: str) -> int:
        """How many chunks of a master its replicas lack."""
        return len(self._nodes.get(node, ()))

    def add(self, event: ChunkLoaded) -> None:
        """Count a chunk; it covers those that were loaded before it began, on masters whose replicas have it."""
        for node in self._nodes.keys() & event.nodes.keys() - event.exposed:
            left = {number: since for number, since in self._nodes.pop(node).items() if since > event.began}
            if left:
                self._nodes[node] = left
        for node in event.exposed:
            self._nodes.setdefault(node, {})[event.chunk.number] = time.monotonic()

    def strike(self, numbers: Collection[int]) -> None:
        """Remove chunks from the count, by their numbers."""
        for node, chunks in list(self._nodes.items()):
            self._nodes[node] = {number: since for number, since in chunks.items() if number not in numbers}
            if not self._nodes[node]:
                del self._nodes[node]

    def cover(self, node: str) -> None:
        """Remove all chunks of a master from the count: its replicas have all its writes."""
        self._nodes.pop(node, None)
