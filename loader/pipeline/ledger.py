"""The record of a run's writes that are in Redis, and of the evidence for them: numbers that masters have recorded."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from loader.errors import StartOver
from loader.model import Mark
from loader.state.markers import LOST, lacking

SHARED = "the lock was lost for a while, and another run may have had it"
REMEMBERED = 10_000  # chunks and rejects of chunks that can be written again one by one: about 10 MB

Greatest = dict[tuple[str, str], int]  # the greatest number of each field of each marker


class Recorded(Protocol):
    """Writes that are acknowledged: the marks that vouch for them, and how much memory they take, in any unit."""

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What has to stand in the markers as long as no master has lost them."""

    @property
    def weight(self) -> int:
        """Their part of what is remembered at most."""


T = TypeVar("T", bound=Recorded)


class Ledger(Generic[T]):
    """The newest writes one by one, up to `most` in weight; older ones only as the evidence for all of them."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._newest: deque[tuple[float, T]] = deque()  # and when it was reported
        self._older: Greatest = {}  # evidence for all before
        self._all: Greatest = {}  # evidence for both
        self._weight = 0  # of the newest
        self._forgotten = float("-inf")  # when the last of those before was reported

    def add(self, event: T) -> None:
        """Count writes."""
        self._newest.append((time.monotonic(), event))
        self._weight += event.weight
        _raise(self._all, event.marks)
        while self._weight > self._most and len(self._newest) > 1:
            self._forgotten, oldest = self._newest.popleft()
            self._weight -= oldest.weight
            _raise(self._older, oldest.marks)

    def vouch(self, marks: Iterable[Mark]) -> None:
        """Make these marks vouch for writes that cannot be repeated one by one."""
        listed = list(marks)
        _raise(self._older, listed)
        _raise(self._all, listed)

    def marks(self) -> Iterator[Mark]:
        """All evidence for the counted writes."""
        return _marks(self._all)

    def by_marker(self) -> dict[str, dict[str, int]]:
        """The same, by marker and field."""
        found: dict[str, dict[str, int]] = {}
        for key, field, number in self.marks():
            found.setdefault(key, {})[field] = number
        return found

    def since(self, moment: float) -> list[T]:
        """The writes reported since a moment of the monotonic clock; `StartOver` if not all are known."""
        if self._forgotten >= moment:
            raise StartOver(SHARED)
        return [event for heard, event in self._newest if heard >= moment]

    def lost(self, seen: Mapping[str, Mapping[str, int] | None]) -> list[T]:
        """The writes that a master has lost, judging by the markers; `StartOver` if that is unknown."""
        if lacking(seen, _marks(self._older)):
            raise StartOver(LOST)
        return [event for _, event in self._newest if lacking(seen, event.marks)]

    def strike(self, is_gone: Callable[[T], bool]) -> None:
        """Remove writes from the count."""
        self._newest = deque(entry for entry in self._newest if not is_gone(entry[1]))
        self._weight = sum(event.weight for _, event in self._newest)
        self._all = {**self._older}
        for _, event in self._newest:
            _raise(self._all, event.marks)


def _raise(greatest: Greatest, marks: Iterable[Mark]) -> None:
    for key, field, number in marks:
        greatest[key, field] = max(number, greatest.get((key, field), 0))


def _marks(greatest: Greatest) -> Iterator[Mark]:
    return ((key, field, number) for (key, field), number in greatest.items())
