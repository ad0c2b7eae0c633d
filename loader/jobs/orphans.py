"""Finds hashes without a row: SCAN reads the keys of each master, and MySQL is queried for their rows."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from loader.jobs import recheck
from loader.jobs.keyspace import Keyspace
from loader.jobs.recheck import Waiting
from loader.jobs.rows import JobRows, OrphanKeys
from loader.mysql.keys import TOGETHER
from loader.records import dataclass

REMEMBERED = 200_000  # keys that are remembered, so that one that SCAN gives twice counts once


class OrphanSearch:
    """A search for the hashes of a job that no row makes: keys without a row are looked up again, a pause apart.

    It may go on in another session of the job.
    """

    def __init__(self, looks: int = recheck.LOOKS) -> None:
        self.waiting = Waiting()
        self._looks = looks
        self._seen: set[int] = set()
        self._slots: Collection[int] = ()
        self._own: list[bytes] | None = []  # those that were found; None if they are too many

    @property
    def kept(self) -> int:
        """How many keys are in memory."""
        return self.waiting.count + len(self._own or ())

    def find(
        self, rows: JobRows, pages: Iterable[Sequence[bytes]], slots: Collection[int] = ()
    ) -> Iterator[OrphanKeys]:
        """Look at keys that may be the job's, those of some slots; yield groups that no row made in any look so far."""
        self._slots = slots
        group: dict[bytes, None] = {}
        for keys in pages:
            group |= dict.fromkeys(keys)
            if len(group) >= TOGETHER:
                part, group = list(group), {}
                for start in range(0, len(part), TOGETHER):
                    yield from self._look(rows, 0, part[start : start + TOGETHER])
            while self.waiting.is_pressing:
                yield from self._look_at_next(rows)
        yield from self._look(rows, 0, list(group))

    def look_again(self, rows: JobRows) -> Iterator[OrphanKeys]:
        """Look once more at all keys that wait, each once its pause is over; yield those that are found by that."""
        for _ in range(len(self.waiting)):
            yield from self._look_at_next(rows)

    def found(self, rows: JobRows, keyspace: Keyspace) -> Iterator[list[bytes]]:
        """The hashes that were found, looked at once more: those that are the job's and have no row, for deletion."""
        if self._own is None:
            again = OrphanSearch(looks=1)
            yield from (orphans.own for orphans in again.find(rows, keyspace.keys_in(self._slots)))
            return
        keyspace.note_moves()
        for start in range(0, len(self._own), TOGETHER):
            part = list(filter(rows.session.lookup.owns, self._own[start : start + TOGETHER]))
            yield rows.orphans(rows.without_row(part)).own

    def _look_at_next(self, rows: JobRows) -> Iterator[OrphanKeys]:
        looked, keys = self.waiting.pop(rows.session.throttle.sleep)
        yield from self._look(rows, looked, list(filter(rows.session.lookup.owns, keys)))  # the table may be another

    def _look(self, rows: JobRows, looked: int, keys: Sequence[bytes]) -> Iterator[OrphanKeys]:
        gone = rows.without_row(keys, counted=looked > 0) if keys else []
        if gone and looked + 1 < self._looks:
            self.waiting.add(looked + 1, gone)
        elif gone := [key for key in gone if hash(key) not in self._seen]:
            self._seen.update(map(hash, gone[: max(0, REMEMBERED - len(self._seen))]))
            orphans = rows.orphans(gone)
            if self._own is not None:
                self._own += orphans.own
                self._own = self._own if len(self._own) <= recheck.PENDING else None
            yield orphans


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
