"""One SCAN of all masters for several jobs: each key is handed to the jobs whose prefix it has."""

from collections.abc import Collection, Iterator, Sequence

from loader.config.models import JobConfig
from loader.jobs.keyspace import PAGE, Keyspace
from loader.jobs.session import JobSession
from loader.pipeline.pool import Pool
from loader.wire.codec import SlotChecksums
from loader.wire.slots import slot_of

LISTED = 1_000_000  # keys that are kept one by one, of all jobs together: about 100 MB


class Found:
    """The keys of one job, and those of them that can be reached; of too many only the checksums."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.keys: list[bytes] = []
        self.reached: list[bytes] = []
        self.is_listed = True
        self._sums: SlotChecksums | None = None

    def add(self, key: bytes, *, is_reached: bool) -> None:
        """Add a key."""
        if self._sums:
            self._sums.add([key])
            return
        self.keys.append(key)
        if is_reached:
            self.reached.append(key)

    def stop_listing(self) -> None:
        """Keep only checksums from now on, and forget the keys."""
        if self._sums is None:
            self._sums = self.sums()
            self.keys, self.reached, self.is_listed = [], [], False

    def in_slots(self, session: JobSession, slots: Collection[int]) -> Iterator[list[bytes]]:
        """The session's own keys in some slots that can be reached; for keys that are listed."""
        for start in range(0, len(self.reached), PAGE):
            part = self.reached[start : start + PAGE]
            yield [key for key in part if slot_of(key) in slots and session.lookup.owns(key)]

    def sums(self) -> SlotChecksums:
        """The checksums of all keys, by slot."""
        if self._sums:
            return self._sums
        sums = SlotChecksums()
        sums.add(self.keys)
        return sums


class SharedScan:
    """The keys of several jobs, read when the first of them needs its own.

    A job whose rows are compared later finds other keys in the slots of rows that were added or deleted since, and
    looks those up again. While slots are being moved nothing is shared: each job scans for itself.
    """

    def __init__(self, jobs: Sequence[JobConfig]) -> None:
        self._found: dict[str, Found] = {}
        self._by_size: dict[int, dict[bytes, list[Found]]] = {}
        self._left = LISTED
        self._is_read = self._is_settled = False
        self.pool = Pool()  # of the sessions of these jobs
        for job in jobs:
            found = self._found[job.name] = Found()
            prefix = job.prefix.encode()
            self._by_size.setdefault(len(prefix), {}).setdefault(prefix, []).append(found)

    def of(self, session: JobSession) -> Found | None:
        """The keys of the session's job; None if it has to scan for itself."""
        if not self._is_read:
            self._read(session)
        return self._found.pop(session.plan.job.name, None) if self._is_settled else None

    def _read(self, session: JobSession) -> None:
        self._is_read = True
        keyspace, moved = Keyspace(session, "*"), set[int]()
        for page in keyspace.scan(moved):
            if page is None:  # it starts over
                self._empty()
                continue
            reached = frozenset(page.reached())
            for key in page.keys:
                self._hand_out(key, is_reached=key in reached)
            if self._left < 0:
                for found in self._found.values():
                    found.stop_listing()
        self._is_settled = not moved and not keyspace.moving

    def _hand_out(self, key: bytes, *, is_reached: bool) -> None:
        for size, owners in self._by_size.items():
            for found in owners.get(key[:size], ()):
                found.add(key, is_reached=is_reached)
                self._left -= 1

    def _empty(self) -> None:
        self._left = LISTED
        for found in self._found.values():
            found.clear()
