"""Following the binlog: it says which keys changed, MySQL says what their rows are now.

One thread reads the binlog and gathers keys. Whoever runs the follower reads their rows again, once they are visible,
and writes them: so keys gather for as long as the writing before takes, and a row that changes all the time is written
once in that time. A position is stored once all before it is acknowledged.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Protocol, TypeVar

from loader.errors import LoaderError, PositionLost, ServerReplaced, SourceError, StartOver
from loader.model import FollowBegan, FollowEnded, FollowEvent, Notice
from loader.mysql.barrier import Committed
from loader.mysql.binlog import (
    BinlogStream,
    BinlogValue,
    Changes,
    Heartbeat,
    ReadAgain,
    TablesChanged,
    TransactionEnd,
)
from loader.mysql.binlog_held import LargeTransactions
from loader.mysql.binlog_origin import Origin, is_past
from loader.mysql.binlog_statements import TableName
from loader.mysql.connection import Connection
from loader.mysql.dump import Position, Replica
from loader.pipeline.binlog_lag import BinlogLag
from loader.pipeline.followed_job import FollowedJob
from loader.pipeline.follower_state import FollowerState
from loader.pipeline.pending import Gathered, PendingKeys
from loader.pipeline.retry import pause_after
from loader.pipeline.throttle import STEP
from loader.process import start_thread
from loader.wire.table_map import FollowedTable, TableMap
from loader.words import counted

IDLE = 0.5  # seconds without keys after which the rest is seen to
SAVE_EVERY = 0.25  # seconds between two positions that are stored
LOOK_EVERY = 5.0  # seconds between two looks at the markers and the tables
TELL_EVERY = 1.0  # seconds between two reports of how far it is
ASK_EVERY = 0.5  # seconds between two questions whether others want to write
LOAD_EVERY = 1.0  # seconds between two looks at what MySQL has to do
JOIN = 5.0  # seconds that the reader has to end
LAST_TRIES = 2  # to store the position once it is told to stop: connections may be dead since an outage


T = TypeVar("T")


class PassOwed(LoaderError):
    """All rows of some jobs have to be read before they can be followed on."""

    def __init__(self, why: str, jobs: Sequence[str]) -> None:
        super().__init__(why)
        self.jobs = jobs


class FollowListener(Protocol):
    """Who is told of what is followed."""

    def notify(self, event: FollowEvent) -> None:
        """Take note of where it begins and ends, once a second how far it is, and what a person should know."""


class _Times:
    """When something was done last that is done now and then; `first` is due at once."""

    def __init__(self, first: str) -> None:
        self._began = time.monotonic()
        self._done = {first: float("-inf")}

    def is_due(self, what: str, seconds: float) -> bool:
        """Whether so many seconds have passed since this was due."""
        now = time.monotonic()
        if now - self._done.get(what, self._began) < seconds:
            return False
        self._done[what] = now
        return True

    def make_due(self, what: str) -> None:
        """Have it due at once."""
        self._done[what] = float("-inf")


class Follower:
    """Follows the tables of some jobs from one position, over one stream; the jobs are open and locked.

    While `busy` gives a reason, no rows are read, and so the binlog is not either once enough keys wait.

    At the position of `now`, where the binlog ended a moment ago, it has caught up: before, MySQL sends heartbeats too,
    while it looks for the first transaction that was not followed.
    """

    def __init__(
        self,
        jobs: Sequence[FollowedJob],
        start: Position,
        now: Origin,
        replica: Replica,
        listener: FollowListener,
        busy: Callable[[], str] = str,
    ) -> None:
        self._state = FollowerState(jobs, BinlogLag(start), min(job.position.current for job in jobs))
        self._jobs = jobs
        self._by_table: dict[TableName, list[FollowedJob]] = {}
        for job in jobs:
            self._by_table.setdefault(job.table, []).append(job)
        self._settings = jobs[0].context.source_config
        self._resume = start
        self._large: LargeTransactions = {}
        self._server = now.server
        self._goal = now.position
        self._is_past_goal = is_past(start, now.position)
        self._replica = replica
        self._barrier = now.barrier
        self._listener = listener
        self._busy = busy
        self._pending = PendingKeys()
        self._source: Connection | None = None
        self._stopped = False
        self._times = _Times("load")

    def run(self, is_changing: Callable[[], bool], *, until_caught_up: bool = False) -> bool:
        """Follow until `stop`, or until all is in Redis up to the goal; false if the jobs have to be opened again.

        `is_changing` is asked now and then whether they have to.
        Raises `PassOwed` if all rows of a job have to be read again first, a `LoaderError` for what does not pass.
        """
        _check_server(self._jobs, self._server, self._settings.endpoint)
        self._persist(self._open)
        place = self._resume.gtids or f"{self._resume.file}:{self._resume.offset}"
        self._listener.notify(FollowBegan(tuple(job.name for job in self._jobs), place))
        reader = start_thread(self._read)
        try:
            is_changed = self._follow(is_changing, until_caught_up=until_caught_up)
            self._persist(partial(self._carry, Gathered(), is_last=True), LAST_TRIES)
            self._listener.notify(FollowEnded(self._jobs[0].position.text, self._state.progress(self._source)))
        except ServerReplaced as error:
            self._persist(self._state.save, LAST_TRIES)  # the other one may lack what is in Redis
            self._listener.notify(Notice(f"the binlog is read again: {error}"))
            is_changed = True
        except PositionLost:
            with suppress(LoaderError):
                self._state.save()  # for the same reason, should it be tried again
            raise
        finally:
            self._stopped = True
            self._pending.close()
            reader.join(JOIN)
            self._drop()
        return not is_changed

    def _follow(self, is_changing: Callable[[], bool], *, until_caught_up: bool) -> bool:
        """Follow until it is time to end; whether because the jobs have to change."""
        is_changed = False
        try:
            while not (self._stopped or is_changed):
                is_all_read, is_past_goal = self._state.is_all_read, self._is_past_goal
                gathered, is_all_taken = self._take_keys()
                self._persist(partial(self._carry, gathered))
                is_all_read = is_all_read and is_all_taken
                is_end = until_caught_up and is_past_goal and is_all_taken
                self._see(is_all_read=is_end or (is_all_read and not gathered.keys))
                if is_end:
                    break
                is_changed = self._times.is_due("asked", ASK_EVERY) and self._persist(is_changing)
        except LoaderError as error:
            if not (self._stopped and error.transient):
                raise  # else the position stays before what was under way
        return is_changed

    def _take_keys(self) -> tuple[Gathered, bool]:
        """What was gathered, unless MySQL has too much to do; whether nothing was left."""
        if self._times.is_due("load", LOAD_EVERY):
            self._state.held = self._persist(self._busy)
        if not self._state.held:
            return self._pending.take(IDLE), True
        self._sleep(STEP)
        return Gathered(), self._pending.is_empty

    def _open(self) -> None:
        for job in self._jobs:
            job.open()

    def _carry(self, gathered: Gathered, *, is_last: bool = False) -> None:
        """Bring over what was gathered, advance the position, and see to the rest."""
        if gathered.keys:
            self._flush(gathered)
        if gathered.resume:
            self._state.advance(gathered.end or gathered.resume, gathered.committed)
            for job in self._jobs:
                job.advance(gathered.resume, gathered.committed)
        if self._times.is_due("looked", LOOK_EVERY) or any(job.has_moved or job.is_doubtful for job in self._jobs):
            self._look()
        if is_last or self._times.is_due("saved", SAVE_EVERY):
            self._state.save()

    @property
    def lag(self) -> float:
        """Seconds since the last commit that is in Redis; 0 if all is."""
        return self._state.lag

    @property
    def lag_bytes(self) -> int | None:
        """How much of the binlog was not in Redis a moment ago; None if nobody knows."""
        return self._state.behind.bytes

    def _see(self, *, is_all_read: bool) -> None:
        """Note whether all is in Redis; tell once a second how far it is, and when that turns."""
        has_turned = self._state.turn(is_caught_up=is_all_read)
        if self._times.is_due("told", TELL_EVERY) or has_turned:
            self._listener.notify(self._state.progress(self._source))

    def stop(self) -> None:
        """Have `run` end once what is under way is acknowledged and its position stored; safe in a signal handler."""
        self._stopped = True

    def _read(self) -> None:
        """What the reader does: read the binlog, and again from where it was while that fails in passing."""
        failures = 0
        while not self._stopped:
            try:
                with self._stream() as stream:
                    while not (self._stopped or stream.is_over):
                        for value in stream.read():
                            failures = 0
                            self._take(value)
            except LoaderError as error:
                self._pending.drop_open()
                if not error.transient:
                    self._pending.fail(error)
                    return
                self._state.is_all_read = False
                before, self._state.unread = self._state.unread, str(error)
                if not self._stopped and before != self._state.unread:  # an outage is told once
                    self._listener.notify(Notice(f"the binlog is read again: {error}"))
                failures += 1
                self._sleep(pause_after(failures))
            except BaseException as error:  # noqa: BLE001  # it is raised where keys are taken
                self._pending.fail(error)
                return

    def _stream(self) -> BinlogStream:
        tables = {table: partial(_key_columns, jobs) for table, jobs in self._by_table.items()}
        return BinlogStream(Connection(self._settings), self._resume, self._replica, tables, self._large)

    def _take(self, value: BinlogValue) -> None:
        self._state.unread = ""
        match value:
            case Changes():
                table = value.followed.table
                for job in self._by_table[table.schema, table.table]:
                    job.changes += len(value.keys)
                self._state.is_all_read = False
                self._pending.add(value)
            case TransactionEnd():
                self._resume = value.resume or self._resume
                self._pending.end(value)
                self._is_past_goal = self._is_past_goal or is_past(value.told, self._goal)
            case TablesChanged(tables, _, moves_rows):
                if moves_rows:
                    raise _moved(value, [job.name for table in tables for job in self._by_table[table]])
                self._times.make_due("looked")
            case ReadAgain():
                self._state.is_all_read = False
            case Heartbeat(place):
                self._state.heard = place
                self._state.is_all_read = self._is_past_goal

    def _flush(self, gathered: Gathered) -> None:
        """Read the rows of these keys again and write them, once their transactions are visible."""
        source = self._source = self._source or Connection(self._settings)
        if gathered.end:
            self._barrier.wait(source, Committed(tuple(gathered.gtids), gathered.end.file, gathered.end.offset))
        for job in self._jobs:
            if written := [(table, keys) for table, keys in gathered.keys.items() if _is_of(table, job)]:
                with owing(job):
                    job.flush(written, source)

    def _look(self) -> None:
        source = self._source = self._source or Connection(self._settings)
        for job in self._jobs:
            with owing(job):
                job.check(source)
                again = job.restore(source)
            if again:
                told = f"job {job.name}: {counted(again, 'key')} written again: a master lost them"
                self._listener.notify(Notice(told))

    def _persist(self, action: Callable[[], T], tries: int = 1) -> T:
        """Do something, and again for as long as it fails in passing: meanwhile the binlog keeps what changes.

        Once it is told to stop, it tries no more often than `tries`.
        """
        failures = 0
        while True:
            try:
                done = action()
            except LoaderError as error:
                if not error.transient or (self._stopped and failures + 1 >= tries):
                    raise
                self._pending.check()  # what is waited for may never come
                before, self._state.unwritten = self._state.unwritten, str(error)
                if isinstance(error, SourceError):
                    self._drop()
                self._see(is_all_read=False)
                if not failures:
                    self._listener.notify(Notice(f"waiting: {error}"))
                if before != self._state.unwritten:
                    with suppress(LoaderError):
                        self._state.save()
                self._drop()
                failures += 1
                self._sleep(pause_after(failures))
                with suppress(LoaderError):
                    for job in self._jobs:
                        job.context.target.refresh(force=True)
            else:
                self._state.unwritten = ""
                return done

    def _drop(self) -> None:
        """Drop the connections over which rows are read and written."""
        if self._source:
            self._source.close()
            self._source = None
        for job in self._jobs:
            job.close()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopped and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))


@contextmanager
def owing(*jobs: FollowedJob) -> Iterator[None]:
    """Have a plan or a target that was changed mean that all rows of these jobs have to be read."""
    try:
        yield
    except StartOver as error:
        raise PassOwed(str(error), [job.name for job in jobs]) from error


def _is_of(table: FollowedTable, job: FollowedJob) -> bool:
    return (table.table.schema, table.table.table) == job.table


def _moved(changed: TablesChanged, jobs: Sequence[str]) -> PassOwed:
    names = ", ".join(table for _, table in changed.tables)
    return PassOwed(f"{changed.statement} of {names}: rows may have come or gone that the binlog does not name", jobs)


def _check_server(jobs: Sequence[FollowedJob], server: str, address: str) -> None:
    """Raise `PositionLost` if a file of another server's binlog is all that a position says."""
    for position in (job.position for job in jobs):
        if position.gtids is None and position.server != server:
            raise PositionLost(
                f"mysql {address}: cannot be followed from where it was: that is a file of {position.server}, and this"
                f" is {server}"
            )


def _key_columns(jobs: Sequence[FollowedJob], table: TableMap) -> tuple[int, ...]:
    """The columns of the keys of all jobs of a table."""
    with owing(*jobs):
        return tuple(sorted({column for job in jobs for column in job.key_columns(table)}))
