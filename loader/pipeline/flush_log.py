"""What was written lately, by the numbers that masters have noted behind it: what a master loses is written again."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loader.errors import StartOver
from loader.model import Mark
from loader.pipeline.ledger import SHARED
from loader.state.markers import LOST, lacking
from loader.wire.row_images import Keys
from loader.wire.table_map import FollowedTable

REMEMBERED = 200_000  # keys that can be written again one by one: some 20 MB

Written = tuple[FollowedTable, Keys]


@dataclass(frozen=True, slots=True)
class _Flush:
    at: float  # when it was acknowledged, on the monotonic clock
    marks: tuple[Mark, ...]
    written: tuple[Written, ...]


class FlushLog:
    """The newest writes key by key; of those before, only what vouches for them all."""

    def __init__(self, marks: Iterable[Mark] = ()) -> None:
        self._newest: deque[_Flush] = deque()
        self._older: dict[tuple[str, str], int] = {}
        self._all: dict[tuple[str, str], int] = {}
        self._keys = 0
        self._forgotten = float("-inf")  # when the last of those before was acknowledged
        self.vouch(marks)

    def add(self, written: Iterable[Written], marks: tuple[Mark, ...]) -> None:
        """Note what was written and acknowledged."""
        flush = _Flush(time.monotonic(), marks, tuple(written))
        self._newest.append(flush)
        self._keys += _count(flush)
        _raise(self._all, marks)
        while self._keys > REMEMBERED and len(self._newest) > 1:
            oldest = self._newest.popleft()
            self._keys -= _count(oldest)
            self._forgotten = oldest.at
            _raise(self._older, oldest.marks)

    def vouch(self, marks: Iterable[Mark]) -> None:
        """Have these marks vouch for all that was written before."""
        listed = list(marks)
        _raise(self._older, listed)
        _raise(self._all, listed)

    def by_marker(self) -> dict[str, dict[str, int]]:
        """What has to stand in the markers as long as nothing is lost: numbers by marker and field."""
        found: dict[str, dict[str, int]] = {}
        for (key, name), number in self._all.items():
            found.setdefault(key, {})[name] = number
        return found

    def lost(self, seen: Mapping[str, Mapping[str, int] | None]) -> list[Written]:
        """Take out what a master has lost, by what stands in the markers; `StartOver` if that is not known."""
        if any(there is None for there in seen.values()) or lacking(seen, _marks(self._older)):
            raise StartOver(LOST)
        return self._take([flush for flush in self._newest if lacking(seen, flush.marks)])

    def since(self, moment: float) -> list[Written]:
        """Take out what was written since a moment of the monotonic clock; `StartOver` if not all is known."""
        if self._forgotten >= moment:
            raise StartOver(SHARED)
        return self._take([flush for flush in self._newest if flush.at >= moment])

    def _take(self, flushes: list[_Flush]) -> list[Written]:
        if flushes:
            out = set(map(id, flushes))
            self._newest = deque(flush for flush in self._newest if id(flush) not in out)
            self._keys = sum(map(_count, self._newest))
            self._all = {**self._older}
            for flush in self._newest:
                _raise(self._all, flush.marks)
        return [written for flush in flushes for written in flush.written]


def _count(flush: _Flush) -> int:
    return 1 + sum(len(keys) for _, keys in flush.written)


def _raise(greatest: dict[tuple[str, str], int], marks: Iterable[Mark]) -> None:
    for key, name, number in marks:
        greatest[key, name] = max(number, greatest.get((key, name), 0))


def _marks(greatest: Mapping[tuple[str, str], int]) -> Iterable[Mark]:
    return ((key, name, number) for (key, name), number in greatest.items())
