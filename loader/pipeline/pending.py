"""The keys of changed rows between the binlog's reader, which gathers them, and who reads their rows again."""

import threading
import time
from dataclasses import field

from loader.mysql.barrier import file_number
from loader.mysql.binlog import Changes, TransactionEnd
from loader.mysql.dump import Position
from loader.records import dataclass
from loader.wire.row_images import Keys
from loader.wire.table_map import FollowedTable

MOST = 50_000  # keys that wait at most: then the binlog is not read, and the server keeps it
TOGETHER = 1000  # keys from which on nothing is waited for: more make no statement cheaper
WINDOW = 0.005  # seconds that keys gather at least: a row that changes all the time is written once in them


@dataclass(slots=True)
class Gathered:
    """What the binlog told since the last time: keys by table, and the transactions that changed them.

    `end` is what has to be visible before the rows are read, `resume` from where the binlog is read on once they are
    written; None if no transaction ended. `committed` is when the last one was, in seconds since 1970.
    """

    keys: dict[FollowedTable, Keys] = field(default_factory=dict)
    gtids: list[str] = field(default_factory=list)
    end: Position | None = None
    resume: Position | None = None
    committed: int = 0


class PendingKeys:
    """Gathers the keys of ended transactions until they are taken; a row that changes again has its key there once."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._gathered = Gathered()
        self._open: list[Changes] = []  # of transactions that have not ended
        self._count = 0
        self._first = 0.0  # when the oldest key came, on the monotonic clock
        self._failure: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()

    def add(self, changes: Changes) -> None:
        """Take keys, which count once their transaction ends."""
        self._open.append(changes)

    def end(self, end: TransactionEnd) -> None:
        """Transactions ended; waits while too many keys are there."""
        with self._changed:
            into = self._gathered
            if not self._count:
                self._first = time.monotonic()
            for changes in self._open:
                keys = into.keys.setdefault(changes.followed, {})
                before = len(keys)
                keys.update(changes.keys)
                self._count += len(keys) - before
            self._open.clear()
            if end.end.gtids:
                into.gtids.append(end.end.gtids)
            if into.end is None or _place(into.end) < _place(end.end):
                into.end = end.end  # parts of a large transaction are visible from its end on, which is not the next
            if end.resume:
                into.resume, into.committed = end.resume, end.time
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._count < self._most or self._closed)

    @property
    def is_empty(self) -> bool:
        """Whether all keys of ended transactions were taken."""
        return not self._count

    def drop_open(self) -> None:
        """Forget keys of transactions that have not ended: the stream is read again from before them."""
        self._open.clear()

    def fail(self, error: BaseException) -> None:
        """Have whoever takes keys raise this, once all that was gathered is taken."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what whoever takes keys would get at last."""
        if self._failure:
            raise self._failure

    def take(self, wait: float) -> Gathered:
        """What was gathered, after at most `wait` seconds without any; keys have gathered for `WINDOW` then."""
        with self._changed:
            self._changed.wait_for(lambda: self._count or self._failure or self._closed, wait)
            if self._count and not self._closed:
                rest = self._first + WINDOW - time.monotonic()
                self._changed.wait_for(lambda: self._count >= TOGETHER or self._closed, max(0.0, rest))
            gathered, self._gathered = self._gathered, Gathered()
            self._count = 0
            self._changed.notify_all()
            if self._failure and not gathered.keys:
                raise self._failure
            return gathered

    def close(self) -> None:
        """Have nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _place(position: Position) -> tuple[int, int]:
    return file_number(position.file), position.offset
