"""Finds hashes without a row: SCAN reads the keys of each master, and MySQL is queried for their rows."""

import time
from collections import deque
from collections.abc import Iterator, Sequence

from loader.jobs import recheck
from loader.jobs.keyspace import Keyspace
from loader.jobs.rows import JobRows, OrphanKeys
from loader.mysql.keys import TOGETHER
from loader.records import dataclass

REMEMBERED = 200_000  # keys that are remembered, so that one that SCAN gives twice counts once


def extras(rows: JobRows, keyspace: Keyspace, slots: set[int], looks: int = recheck.LOOKS) -> Iterator[OrphanKeys]:
    """Yield groups of keys that may be the job's, in some slots, and that no row made in any of several looks."""
    waiting: deque[tuple[float, int, list[bytes]]] = deque()
    seen: set[int] = set()
    group: dict[bytes, None] = {}

    def look(looked: int, keys: Sequence[bytes]) -> Iterator[OrphanKeys]:
        gone = rows.without_row(keys, counted=looked > 0) if keys else []
        if gone and looked + 1 < looks:
            waiting.append((time.monotonic() + recheck.PAUSE, looked + 1, gone))
        elif gone := [key for key in gone if hash(key) not in seen]:
            seen.update(map(hash, gone[: max(0, REMEMBERED - len(seen))]))
            yield rows.orphans(gone)

    def look_again() -> Iterator[OrphanKeys]:
        due, looked, keys = waiting.popleft()
        rows.session.throttle.sleep(due - time.monotonic())
        yield from look(looked, keys)

    for keys in keyspace.keys_in(slots):
        group |= dict.fromkeys(keys)
        if len(group) >= TOGETHER:
            part, group = list(group), {}
            for start in range(0, len(part), TOGETHER):
                yield from look(0, part[start : start + TOGETHER])
        while waiting and (waiting[0][0] <= time.monotonic() or len(waiting) * TOGETHER > recheck.PENDING):
            yield from look_again()
    yield from look(0, list(group))
    while waiting:
        yield from look_again()


@dataclass(slots=True)
class Unsure:
    """Hashes without a row that may be someone else's, and are left alone: their number, and the first one."""

    count: int = 0
    first: bytes = b""

    def join(self, other: "Unsure") -> None:
        """Count those of another job too."""
        self.first = self.first or other.first
        self.count += other.count

    def add(self, keys: Sequence[bytes]) -> None:
        """Count some."""
        self.first = self.first or next(iter(keys), b"")
        self.count += len(keys)


def have(count: int) -> str:
    """The verb for this many keys."""
    return "has" if count == 1 else "have"
