"""Reading only changed rows: the time from which to read, and rows that the job no longer takes.

Before a run reads the first row, it notes the time up to which all rows are certain to be seen: the watermark. It is
stored with the baseline once everything is loaded, and the next run reads every row stamped then or later, however
late: rows stamped in the future, and rows changed meanwhile, are included, and no row is missed because it is read
twice.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from loader.config.models import IncrementalConfig, JobConfig
from loader.errors import Kind, PlanError
from loader.model import Bar, Chunk, Column, Table
from loader.mysql import transactions
from loader.mysql.chunk_key import BARS, let_in, walkless
from loader.mysql.chunker import chunk_ranges
from loader.mysql.connection import Connection
from loader.mysql.keys import KeyMatcher
from loader.mysql.plan import Plan, changed_since, no_longer
from loader.mysql.sql import as_literal, quote, within
from loader.pipeline.deleter import HashDeleter
from loader.pipeline.throttle import Throttle
from loader.process import clock, elapsed
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.writer import PipelineWriter
from loader.state.baseline import Baseline
from loader.state.stored_json import LATEST, built

STAMPS = ("datetime", "timestamp")
EARLY = 0.95  # of full_every: with a schedule of the same interval, every other run would come too early
NOISE = 2.0  # seconds by which two clocks may drift apart: both are read in whole seconds
HELD = 600  # seconds that a transaction or statement must be open to be reported
ADVANCE = 3  # seconds by which the mark of an idle table advances at least
PART = 20_000  # keys of deleted rows in memory: about 10 MB
MARK = "mark"  # the baseline's additions


@dataclass(frozen=True, slots=True)
class Watermark:
    """The watermark of a run, and the clocks: whole seconds of a TIMESTAMP, or of local time since 1970.

    `at` is the watermark before the lag is subtracted; `newest` is the newest stamp; `limit` is when the oldest open
    transaction or running statement began, at most MySQL's time, which is `now`; `clock` is this machine's.
    """

    at: int
    newest: int
    limit: int
    now: int
    clock: dict[str, str | float]


@dataclass(frozen=True, slots=True)
class Beginning:
    """The start of an incremental run: its plan, its mark (None: no row has a stamp), and the last full read.

    `note` explains a long read that a person may wonder about.
    """

    plan: Plan
    mark: Watermark | None
    full: float
    note: str = ""


def begin(
    plan: Plan, table: Table, source: Connection, baseline: Baseline | None, doubt: str, *, now: float, full: bool
) -> Beginning:
    """Take the mark of a run, and plan it to read only changes, if it can build on a baseline.

    `now` is the time by a clock shared by all machines that run the job, in seconds since 1970.
    """
    stamp = stamp_of(plan.job, table, plan.walk)
    mark = take_mark(source, plan, stamp, now)
    everything = Beginning(plan, mark, now)
    if full or baseline is None or is_due(plan.job, baseline, now):
        return everything
    before = restored(baseline.more)
    if before and mark and before.at > mark.now + NOISE and not set_back(before, mark):
        before = None
    if doubt or before is None:
        unread = f"the watermark in the baseline of job {plan.job.name!r} cannot be read"
        unseen = f"no row had a time in {stamp.name} when the last run began"
        why = doubt or (unread if MARK in baseline.more else unseen)
        return Beginning(plan, mark, now, f"everything is read: {why}")
    if mark is None:
        return everything
    changed = changed_since(plan, stamp, _since(plan.job, stamp, before, mark))
    held = mark.now - mark.limit
    note = f"changes of the last {held // 60} minutes are read again: a transaction or statement of then is still open"
    mark = mark if source.is_read_only() else _advanced(before, mark)
    return Beginning(changed, mark, baseline.full, note if held >= HELD else "")


def kept(mark: Watermark | None) -> dict[str, Any]:
    """A mark as it is stored."""
    return {} if mark is None else {MARK: asdict(mark)}


def restored(more: Mapping[str, Any]) -> Watermark | None:
    """The stored mark; None if there is none."""
    try:
        mark = built(Watermark, more.get(MARK), least=-LATEST, most=LATEST)
    except ValueError:
        return None
    told = isinstance(mark.clock.get("boot"), str) and all(
        isinstance(mark.clock.get(name), int | float) for name in ("uptime", "wall")
    )
    return mark if told else None


def is_due(job: JobConfig, baseline: Baseline, now: float) -> bool:
    """Whether `full_every` requires reading everything again; also if the last full read was in the future."""
    return job.full_every is not None and not 0 <= now - baseline.full < job.full_every * EARLY


def setting(job: JobConfig) -> IncrementalConfig:
    """The `incremental` of a job that has one."""
    assert job.incremental
    return job.incremental


def stamp_of(job: JobConfig, table: Table, walk: tuple[Column, ...]) -> Column:
    """The column that records when a row changed; a `PlanError` if it cannot be used."""
    name = setting(job).column
    column = table.column(name)
    if column is None:
        there = ", ".join(each.name for each in table.columns)
        raise _unfit(job, f"table {table.name!r} has no column {name!r}: there are {there}")
    if column.type not in STAMPS:
        raise _unfit(job, f"column {column.name!r} is {column.full_type}, but must be a DATETIME or TIMESTAMP")
    if not walk:
        raise _unfit(job, walkless(table) + ("" if table.primary_key else ": give it a primary key"))
    if not index_of(table, column.name) and not setting(job).force:
        why, fix = unserved(table, column.name, quote(table.name))
        raise _unfit(job, f"{why}: {fix.rstrip(';')}, or set incremental.force")
    return column


def index_of(table: Table, column: str) -> str | None:
    """The index that finds the changed rows; None if there is none."""
    return next((index for index, first in table.indexes if first.lower() == column.lower()), None)


def unserved(table: Table, column: str, address: str) -> tuple[str, str]:
    """Why no index finds the changed rows, and the SQL that adds one; the address is the table's in SQL."""
    for barred in table.barred:
        if barred.columns[0].lower() == column.lower() and barred.bar is not Bar.PREFIX:
            why = f"index {barred.name!r} begins with column {column!r}, but {BARS[barred.bar]}"
            change = let_in(barred)
            return why, f"ALTER TABLE {address} {change};" if change else _new_index(table, column, address)
    return f"no index begins with column {column!r}", _new_index(table, column, address)


def _new_index(table: Table, column: str, address: str) -> str:
    """The SQL for a new index; a MEMORY table would make a hash index by default."""
    name = f"by_{column}"[:64]
    taken = {each.lower() for each in (*(name for name, _ in table.indexes), *(each.name for each in table.barred))}
    while name.lower() in taken:
        name = f"{name[:62]}_2"
    order = " USING BTREE" if any(each.bar is Bar.HASH for each in table.barred) else ""
    return f"CREATE INDEX {quote(name)}{order} ON {address} ({quote(column)});"


def warnings(job: JobConfig, stamp: Column) -> list[str]:
    """Warnings about an incremental job, for people."""
    told = []
    if stamp.nullable:
        told.append(f"column {stamp.name!r} may be NULL: only a full sync finds changed rows without a stamp")
    if not job.soft_delete and not job.full_every:
        told.append("deleted rows keep their hash until a prune: see soft_delete and full_every")
    return told


def example(plan: Plan, table: Table, source: Connection) -> tuple[Plan, str | None]:
    """The plan of a run that would follow one that begins now, and the index that serves it."""
    stamp = stamp_of(plan.job, table, plan.walk)
    mark = take_mark(source, plan, stamp)
    moment = _literal(stamp, mark.at - setting(plan.job).lag if mark else 0)
    return changed_since(plan, stamp, moment), index_of(table, stamp.name)


def take_mark(source: Connection, plan: Plan, stamp: Column, wall: float | None = None) -> Watermark | None:
    """The time up to which all rows are certain to be seen by later reads; None if no row has a stamp.

    That is MySQL's time, or the beginning of the oldest transaction or statement that may still commit a row, or the
    newest stamp so far: an application that writes stamps in another time zone than the session's would otherwise be
    hours behind the watermark. A TIMESTAMP is read as a number: UNIX_TIMESTAMP() has no hour twice.
    """
    ours = clock(wall)
    now = "UNIX_TIMESTAMP()" if stamp.type == "timestamp" else "NOW()"
    newest = (
        f"SELECT {as_literal(stamp)} FROM {quote(plan.job.table or '')}"
        f" WHERE {quote(stamp.name)} <= NOW(6) ORDER BY {quote(stamp.name)} DESC LIMIT 1"
    )
    text, at = source.single(f"SELECT CAST({now} AS CHAR), ({newest})", 2)
    age = transactions.oldest_writer(source)  # asked last: rows committed before are visible when rows are read
    seconds = _seconds(text)
    last = None if at is None else _seconds(at.strip("'"))
    if seconds is None or last is None:
        return None
    limit = seconds - (age or 0)
    return Watermark(min(last, limit), last, limit, seconds, ours)


def set_back(before: Watermark, now: Watermark) -> int:
    """Seconds by which MySQL's clock, or a local time, was set back between two marks; 0 if it was not."""
    behind = elapsed(before.clock, now.clock) - (now.now - before.now)
    return math.ceil(behind) if behind > NOISE else 0


def _advanced(before: Watermark, now: Watermark) -> Watermark:
    """The mark of a table without new writes: the clock of its stamps has advanced anyway.

    Otherwise every run would read a million rows with one stamp again. Not on a replica: it may have stopped on its
    own, and rows that it lacks have stamps of that time.

    Runs that follow one another closely keep the mark, which is as good: each advance loses a second.
    """
    if now.newest != before.newest or set_back(before, now):
        return now
    passed = int(min(now.now - before.now, elapsed(before.clock, now.clock))) - 1  # of whole seconds
    return before if passed < ADVANCE else replace(now, at=max(now.at, min(now.limit, before.at + passed)))


class Erasing:
    """Deletes the hashes of changed rows that the job does not take, or no longer takes."""

    def __init__(self, gone: Plan, eraser: HashDeleter) -> None:
        self._gone = gone
        self._eraser = eraser

    def __call__(self, chunk: Chunk, source: Connection, writer: PipelineWriter) -> int:
        """Delete those in a chunk's range, except those of a key that another row makes; return how many there were."""
        gone, deleted = self._gone, 0
        if chunk.upto is not None:
            gone = replace(gone, conditions=(*gone.conditions, within(gone.walk, chunk.upto)))
        for part in chunk_ranges(gone, PART, source.fetch, after=chunk.after):
            keys = list(self._eraser.keys(gone, gone.select(part), source))
            deleted += self._eraser.erase(keys, source, writer)[0]
        return deleted


def sweep(
    lookup: KeyMatcher,
    table: Table,
    source: Connection,
    target: RedisClient,
    throttle: Throttle,
    before: Baseline,
    mark: Watermark,
) -> int:
    """Delete, at the end of a full run, the hashes that an increment would have deleted; return how many.

    Reading all rows that the job takes does not find the rows that it took before and no longer takes.
    """
    plan, old = lookup.plan, restored(before.more)
    if before.facts.get("incremental") != setting(plan.job).column:
        return 0
    stamp = stamp_of(plan.job, table, plan.walk)
    moment = _since(plan.job, stamp, old, mark) if old else _literal(stamp, 0)
    erase = erasing(changed_since(plan, stamp, moment), lambda: lookup, target, throttle)
    if erase is None:
        return 0
    writer, grant = PipelineWriter(target), throttle.grant()
    writer.guard(partial(throttle.hold, grant))
    try:
        deleted = erase(Chunk(0), source, writer)
        writer.await_replicas()
        throttle.hold(grant)
    finally:
        writer.close()
    return deleted


def erasing(plan: Plan, lookup: Callable[[], KeyMatcher], target: RedisClient, throttle: Throttle) -> Erasing | None:
    """Deletes the hashes of changed rows that the job does not take; None if it takes all.

    What `lookup` makes decides which keys belong to the job and to no other.
    """
    gone = no_longer(plan)
    return Erasing(gone, HashDeleter(plan.whole or plan, lookup(), target, throttle)) if gone else None


def _unfit(job: JobConfig, why: str) -> PlanError:
    return PlanError(f"job {job.name!r}: incremental: {why}", kind=Kind.CONFIG)


def _seconds(text: str | None) -> int | None:
    """A number or a time as seconds since 1970 by its own clock, without fraction; None if it is not a real date."""
    if text is None:
        return None
    try:
        if ":" in text:
            return int(datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp())
        return int(text.partition(".")[0])
    except ValueError:
        return None


def _since(job: JobConfig, stamp: Column, before: Watermark, now: Watermark) -> str:
    """The time from which on rows may have changed since a mark."""
    return _literal(stamp, before.at - setting(job).lag - set_back(before, now))


def _literal(stamp: Column, seconds: int) -> str:
    if stamp.type == "timestamp":
        return str(max(0, seconds))
    try:
        moment = datetime(1970, 1, 1) + timedelta(seconds=seconds)  # noqa: DTZ001  # by MySQL's clock
    except OverflowError:
        moment = datetime.min  # noqa: DTZ901
    return f"'{moment.isoformat(' ')}'"
