"""The record of a run's chunks that are in Redis, and of the evidence for them: numbers that masters have recorded."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from loader.errors import StartOver
from loader.model import ChunkLoaded, Mark
from loader.state.markers import LOST, lacking

SHARED = "the lock was lost for a while, and another run may have had it"
REMEMBERED = 10_000  # chunks and rejects of chunks that can be written again one by one: about 10 MB

Greatest = dict[tuple[str, str], int]  # the greatest number of each field of each marker


class Ledger:
    """The loaded chunks: the newest one by one, older ones only as the evidence for all of them."""

    def __init__(self) -> None:
        self._newest: deque[tuple[float, ChunkLoaded]] = deque()  # and when it was reported
        self._older: Greatest = {}  # evidence for all before
        self._all: Greatest = {}  # evidence for both
        self._weight = 0  # of the newest: chunks and rejects
        self._forgotten = float("-inf")  # when the last of those before was reported

    def add(self, event: ChunkLoaded) -> None:
        """Count a chunk."""
        self._newest.append((time.monotonic(), event))
        self._weight += _weight(event)
        _raise(self._all, event.marks)
        while self._weight > REMEMBERED and len(self._newest) > 1:
            self._forgotten, oldest = self._newest.popleft()
            self._weight -= _weight(oldest)
            _raise(self._older, oldest.marks)

    def vouch(self, marks: Iterable[Mark]) -> None:
        """Make these marks vouch for writes that cannot be repeated one by one."""
        listed = list(marks)
        _raise(self._older, listed)
        _raise(self._all, listed)

    def marks(self) -> Iterator[Mark]:
        """All evidence for the counted chunks."""
        return _marks(self._all)

    def by_marker(self) -> dict[str, dict[str, int]]:
        """The same, by marker and field."""
        found: dict[str, dict[str, int]] = {}
        for key, field, number in self.marks():
            found.setdefault(key, {})[field] = number
        return found

    def since(self, moment: float) -> list[ChunkLoaded]:
        """The chunks reported since a moment of the monotonic clock; `StartOver` if not all are known."""
        if self._forgotten >= moment:
            raise StartOver(SHARED)
        return [event for heard, event in self._newest if heard >= moment]

    def lost(self, seen: Mapping[str, Mapping[str, int] | None]) -> list[ChunkLoaded]:
        """The chunks that a master has lost, judging by the markers; `StartOver` if that is unknown."""
        if lacking(seen, _marks(self._older)):
            raise StartOver(LOST)
        return [event for _, event in self._newest if lacking(seen, event.marks)]

    def strike(self, numbers: Iterable[int]) -> None:
        """Remove chunks from the count, by their numbers."""
        gone = frozenset(numbers)
        self._newest = deque(entry for entry in self._newest if entry[1].chunk.number not in gone)
        self._weight = sum(_weight(event) for _, event in self._newest)
        self._all = {**self._older}
        for _, event in self._newest:
            _raise(self._all, event.marks)


def _weight(event: ChunkLoaded) -> int:
    return 1 + len(event.rejects)


def _raise(greatest: Greatest, marks: Iterable[Mark]) -> None:
    for key, field, number in marks:
        greatest[key, field] = max(number, greatest.get((key, field), 0))


def _marks(greatest: Greatest) -> Iterator[Mark]:
    return ((key, field, number) for (key, field), number in greatest.items())
