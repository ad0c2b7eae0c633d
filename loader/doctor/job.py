"""What `doctor` looks at for one job: its table, its keys, whether its rows fit, its state, when it runs."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from loader.config.cron import next_times
from loader.config.load import Config
from loader.config.models import JobConfig
from loader.doctor.findings import Check, Finding, examine, fail, ok, skip, warn
from loader.doctor.mysql import MysqlProbe
from loader.doctor.redis import RedisProbe, mebibytes
from loader.errors import Exit, LoaderError, SourceError, StateError
from loader.model import SKEW, Column, Node, Table
from loader.mysql.chunk_key import walk_fix, walkless
from loader.mysql.keys import KeyMatcher
from loader.mysql.plan import Plan
from loader.mysql.sql import quote
from loader.pipeline import incremental as increment
from loader.pipeline.job_context import read_plan
from loader.pipeline.load_guard import bytes_needed, sample
from loader.pipeline.options import Options
from loader.pipeline.throttle import Throttle
from loader.report.documents import shown
from loader.state.baseline import Baselines
from loader.state.checkpoint import StateStore
from loader.state.claim import Claims, claim_of
from loader.state.digests import Digests
from loader.state.history import History
from loader.state.holders import check_fence, holders
from loader.state.rejects import Rejects
from loader.wire.slots import slot_of
from loader.words import counted

SIDE = "job"
SCANNED = 1000  # keys that SCAN looks at in one command
SCANS = 2  # of a master: one from anywhere, one that goes on, or starts over at the end
NAMED = 3  # keys that a finding names
TIMES = 3  # next runs that are shown
GONE = -2  # what TTL says of a key that is not there
SPARE = 1.25  # what a limit of memory should be, as a multiple of what will be in use


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job that fits its table."""

    settings: Config
    job: JobConfig
    mysql: MysqlProbe
    table: Table
    plan: Plan

    @property
    def address(self) -> str:
        """The table as SQL names it anywhere."""
        return f"{quote(self.settings.source.database)}.{quote(self.table.name)}"

    def alter(self, change: str) -> str:
        """The SQL that alters the table; MariaDB has to be told that its history stays."""
        keep = "SET STATEMENT system_versioning_alter_history = KEEP FOR " if self.table.has_history else ""
        return f"{keep}ALTER TABLE {self.address} {change};"


@dataclass(slots=True)
class JobOnRedis:
    """A job that fits its table, and the Redis it writes to."""

    planned: PlannedJob
    redis: RedisProbe
    _rows: list[list[bytes]] | None = field(default=None)
    _keys: dict[Node, list[bytes]] | None = field(default=None)

    @property
    def rows(self) -> list[list[bytes]]:
        """The commands of the first rows."""
        if self._rows is None:
            self._rows = sample(self.planned.plan, self.planned.mysql.source, self.redis.target, Throttle())
        return self._rows

    @property
    def keys(self) -> dict[Node, list[bytes]]:
        """Keys of the job, a sample: those of the first rows, and some of each master."""
        if self._keys is None:
            target, found = self.redis.target, defaultdict[Node, set[bytes]](set)
            for words in self.rows:
                found[target.slots.node_of(slot_of(words[1]))].add(words[1])
            lookup = KeyMatcher(self.planned.plan, self.planned.table, self.planned.settings.longer(self.planned.job))
            for node in target.slots.nodes if lookup.is_certain else ():  # else other keys look like the job's
                found[node].update(key for key in _scanned(self, node, lookup.pattern) if lookup.owns(key))
            self._keys = {node: sorted(each) for node, each in found.items()}
        return self._keys


@dataclass(frozen=True, slots=True)
class JobState:
    """A job, and the Redis that its state is in."""

    settings: Config
    job: JobConfig
    redis: RedisProbe


def checked(settings: Config, job: JobConfig, mysql: MysqlProbe | None, redis: RedisProbe | None) -> Iterator[Finding]:
    """All that can be seen of a job, where MySQL and Redis were reached or only one of them."""
    planned: PlannedJob | None = None
    why = "there is no connection to MySQL"
    if mysql:
        found = _plan(settings, job, mysql)
        planned = found if isinstance(found, PlannedJob) else None
        finding = _table(found) if isinstance(found, PlannedJob) else found
        yield replace(finding, check=f"{SIDE}.table", job=job.name)
        why = "the table cannot be read as the job says"
    else:
        yield from skip(SIDE, ["table"], why, job.name)
    if planned:
        yield from examine(SIDE, PLANNED, planned, job.name)
    else:
        yield from skip(SIDE, PLANNED, why, job.name)
    if planned and redis:
        yield from examine(SIDE, FACING, JobOnRedis(planned, redis), job.name)
    else:
        yield from skip(SIDE, FACING, why if not planned else "there is no connection to Redis", job.name)
    if redis:
        yield from examine(SIDE, KEPT, JobState(settings, job, redis), job.name)
    else:
        yield from skip(SIDE, KEPT, "there is no connection to Redis", job.name)
    yield from examine(SIDE, ALONE, job, job.name)


# the table


def _plan(settings: Config, job: JobConfig, mysql: MysqlProbe) -> PlannedJob | Finding:
    """The job fitted to its table, or why it does not fit."""
    database = quote(settings.source.database)
    try:
        return PlannedJob(settings, job, mysql, *read_plan(mysql.source, job, Options()))
    except SourceError as error:
        of = f"{database}.{quote(job.table)}" if job.table else f"{database}.*"
        grant = f"GRANT SELECT ON {of} TO {mysql.account};" if error.exit_code == Exit.CONFIG else None
        return fail(str(error), f"{error.fix};" if error.fix else grant)
    except LoaderError as error:
        return fail(str(error), f"SHOW TABLES FROM {database};" if error.transient else f"see jobs.{job.name}")


def _table(planned: PlannedJob) -> Finding:
    estimate = planned.table.rows_estimate
    rows = "" if estimate is None else f", about {counted(estimate, 'row')}"
    return ok(f"{planned.job.table or 'the query'}: {counted(len(planned.table.columns), 'column')}{rows}")


def _key(planned: PlannedJob) -> Iterator[Finding]:
    """Whether each row has a key of its own, and the table can be walked in chunks."""
    plan, table = planned.plan, planned.table
    others, passes = (plan.warnings, ()) if plan.walk else (plan.warnings[:-1], plan.warnings[-1:])
    for warning in others:
        if warning == plan.joint.warning:
            yield _apart(planned, warning)
        elif table.primary_key:
            yield warn(warning, _better_key(planned, table.primary_key))
        else:
            yield warn(warning, _add_key(planned))
    for warning in passes:
        yield warn(warning, _walk_fix(planned))
    if not plan.warnings:
        along = ", ".join(column.name for column in plan.walk)
        yield ok(f"unique; read in chunks of {counted(planned.job.chunk_rows, 'row')} along {along}")


def _apart(planned: PlannedJob, warning: str) -> Finding:
    """What has the columns of a key be told apart: another sign between them, or the fewest in hexadecimal."""
    if key := _better_key(planned, planned.plan.key_columns):
        return warn(warning, key)
    names = " and ".join(f"HEX({quote(name)})" for name in planned.plan.joint.to_hex())
    return warn(f"{warning}; a query that selects {names} for the key does not")


def _better_key(planned: PlannedJob, names: Sequence[str]) -> str | None:
    """A key of these columns that no two rows share; None where no sign keeps them apart."""
    columns = [column for name in names if (column := planned.table.column(name))]
    separator = planned.plan.joint.separator(columns)
    own = None if separator is None else separator.join(f"{{{column.name}}}" for column in columns)
    return own and f'key: "{planned.job.prefix}{own}"'


def _add_key(planned: PlannedJob) -> str | None:
    if planned.job.query or planned.table.primary_key or planned.table.is_view:
        return None
    if planned.table.withheld:
        return _grant(planned)
    columns = ", ".join(map(quote, planned.plan.key_columns))
    return planned.alter(f"ADD PRIMARY KEY ({columns})")


def _grant(planned: PlannedJob) -> str:
    return f"GRANT SELECT ON {planned.address} TO {planned.mysql.account};"


def _walk_fix(planned: PlannedJob) -> str | None:
    if planned.job.query or planned.table.is_view:
        return None
    if planned.table.withheld:
        return _grant(planned)
    fix = walk_fix(planned.table, planned.plan.key_columns)
    return fix and planned.alter(fix)


def _incremental(planned: PlannedJob) -> Iterator[Finding]:
    """Whether the column of an incremental job tells what was changed, and has an index."""
    incremental = planned.job.incremental
    if incremental is None:
        return
    column = planned.table.column(incremental.column)
    if column is None or column.type not in increment.STAMPS:
        seen = "there is no such column" if column is None else f"it is a {column.full_type}, no DATETIME or TIMESTAMP"
        add = planned.alter(f"ADD {_stamp('updated_at', 'datetime(6)')}, ADD INDEX (`updated_at`)")
        yield fail(f"column {incremental.column}: {seen}", add)
        return
    if not planned.plan.walk:
        yield fail(f"{walkless(planned.table)}, as an incremental sync has to", _walk_fix(planned))
    yield _index(planned, column, forced=incremental.force)
    change = planned.alter(f"MODIFY {_stamp(column.name, column.full_type)}")
    if column.nullable:
        yield warn(f"column {column.name} may be NULL, and a row without a time is seen by full syncs alone", change)
    if not _is_set_anew(planned, column):
        yield warn(f"column {column.name} is not set by MySQL when a row is updated: every writer has to", change)
    if not planned.job.soft_delete and not planned.job.full_every:
        yield warn("a row that is deleted leaves its hash until a prune", "full_every: 1d")


def _index(planned: PlannedJob, column: Column, *, forced: bool) -> Finding:
    if named := increment.index_of(planned.table, column.name):
        return ok(f"column {column.name}, a {column.full_type}, with the index {named}")
    why, fix = increment.unserved(planned.table, column.name, planned.address)
    seen = f"{why}: every sync reads the whole table"
    return warn(f"{seen}, as force allows", fix) if forced else fail(seen, fix)


def _is_set_anew(planned: PlannedJob, column: Column) -> bool:
    """Whether MySQL itself sets a column with each update of a row."""
    found = planned.mysql.source.fetch(
        "SELECT CONCAT_WS(' ', extra, generation_expression) FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name = %s AND column_name = %s",
        [planned.table.name, column.name],
    )
    told = str(found[0][0] if found else "").lower()
    return "on update" in told or told.endswith("row start")


def _stamp(name: str, full_type: str) -> str:
    """The definition of a column that MySQL sets whenever a row changes."""
    _, bracket, digits = full_type.partition("(")
    now = f"CURRENT_TIMESTAMP{bracket}{digits}"
    return f"{quote(name)} {full_type} NOT NULL DEFAULT {now} ON UPDATE {now}"


# the rows in Redis


def _size(facing: JobOnRedis) -> Iterator[Finding]:
    """Whether the rows that are not in Redis yet fit below maxmemory."""
    needed = bytes_needed(facing.planned.plan, facing.rows, facing.redis.target)
    if not needed:
        yield ok(
            "there are no rows" if not facing.rows else "not estimated: MySQL does not know how many rows will come"
        )
        return
    full: dict[Node, int] = {}  # what would be in use, where it is more than there is
    rooms: dict[Node, int] = {}
    for node, need in needed.items():
        info = facing.redis.infos.get(node, {})
        most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
        rooms[node] = max(0, most - used)
        if most and used + need > most:
            full[node] = used + need
    if not full:
        yield ok(f"about {mebibytes(max(needed.values()))} MiB more on each master; there is room")
        return
    worst = max(full, key=lambda node: needed[node] - rooms[node])
    others = f", and {counted(len(full) - 1, 'more node')} lack{'s' * (len(full) == 2)} room" if len(full) > 1 else ""
    seen = f"{worst} needs about {mebibytes(needed[worst])} MiB more, and has {mebibytes(rooms[worst])} left{others}"
    fix = facing.redis.cli("CONFIG", "SET", "maxmemory", f"{-int(-max(full.values()) * SPARE // (1 << 20))}mb")
    evicts = facing.redis.infos[worst].get("maxmemory_policy", "noeviction").startswith("allkeys")
    yield warn(f"{seen}: keys will be thrown away", fix) if evicts else fail(seen, fix)


def _types(facing: JobOnRedis) -> Iterator[Finding]:
    """Whether keys of the job hold something else than a hash, in a sample."""
    wrong = [(node, key, kind) for node, each in facing.keys.items() for key, kind in _kinds(facing, node, each)]
    if not wrong:
        count = sum(map(len, facing.keys.values()))
        yield ok(f"no key of {count:,} looked at holds anything but a hash")
        return
    named = ", ".join(f"{shown(key)} holds a {kind}" for _, key, kind in wrong[:NAMED])
    more = f" and {len(wrong) - NAMED:,} more" if len(wrong) > NAMED else ""
    node = wrong[0][0]
    here = [key.decode(errors="surrogateescape") for of, key, _ in wrong if of == node][:NAMED]
    yield fail(
        f"{named}{more}: their rows would be rejected; unless someone needs them, delete them",
        facing.redis.cli("UNLINK", here[0], node=node),
    )


def _ttl(facing: JobOnRedis) -> Iterator[Finding]:
    """Whether hashes of the job expire though they are not to, or do not though they are, in a sample."""
    job, odd, seen = facing.planned.job, 0, 0
    layout = facing.planned.plan.layout
    most = 0 if layout.ttl is None else layout.ttl + layout.ttl_jitter
    for node, keys in facing.keys.items():
        lives = facing.redis.target.commands(node, [["TTL", key] for key in keys]) if keys else []
        there = [seconds for seconds in lives if isinstance(seconds, int) and seconds != GONE]
        seen += len(there)
        odd += sum(seconds > most or (seconds < 0) == bool(most) for seconds in there)
    fix = f"loader sync {job.name}" + " --full" * bool(job.incremental or job.changed_only)
    if not odd:
        yield ok(f"no hash of {seen:,} looked at " + ("lives for longer than the ttl" if most else "expires"))
    elif most:
        yield warn(
            f"{odd:,} of {counted(seen, 'hash')} looked at never expire, or later than the ttl of the job says", fix
        )
    else:
        yield warn(f"{odd:,} of {counted(seen, 'hash')} looked at will expire, though the job has no ttl", fix)


def _scanned(facing: JobOnRedis, node: Node, pattern: str) -> Iterator[bytes]:
    """Keys of a master that fit a pattern, from anywhere on."""
    cursor = str(random.getrandbits(48))  # where a sample begins is no secret
    for _ in range(SCANS):
        found, keys = facing.redis.target.command(node, "SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED)
        yield from keys
        cursor = found.decode()


def _kinds(facing: JobOnRedis, node: Node, keys: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
    """The keys that hold no hash, and what they hold."""
    replies = facing.redis.target.commands(node, [["TYPE", key] for key in keys]) if keys else []
    for key, reply in zip(keys, replies, strict=True):
        kind = "hash" if isinstance(reply, Exception) else reply.decode()
        if kind not in {"hash", "none"}:
            yield key, kind


# the state


def _readable(check: Check[JobState]) -> Check[JobState]:
    """The same check, which fails where a key of the loader's own is none that this program wrote."""

    def look(kept: JobState) -> list[Finding]:
        try:
            return list(check(kept))
        except StateError as error:
            return [_unreadable(kept, error)]

    return look


def _unreadable(kept: JobState, error: StateError) -> Finding:
    node = kept.redis.target.slots.node_of(slot_of(error.key.encode()))
    own = error.command.startswith("loader ")
    return fail(error.what, error.command if own else kept.redis.cli("DEL", error.key, node=node))


def _state(kept: JobState) -> Iterator[Finding]:
    """Whether what runs and people have left can be read."""
    target, name = kept.redis.target, kept.job.name
    state, history = StateStore(target, name), History(target, name)
    wrong = False
    for read in (
        history.last,
        history.success,
        state.slot,
        state.paused,
        state.fields,
        Baselines(target, name).read,
        Digests(target, name, "").check_entries,
    ):
        try:
            read()
        except StateError as error:
            wrong = True
            yield _unreadable(kept, error)
    if history.odd:
        yield _unreadable(kept, history.odd)
    elif not wrong:
        yield ok("what was left of runs can be read")


@_readable
def _lock(kept: JobState) -> Iterator[Finding]:
    check_fence(kept.redis.target, kept.job.name)
    held = holders(kept.redis.target, kept.job.name)
    for holder in held:
        yield ok(f"held by run {holder.run} (host {holder.host}, pid {holder.pid}) since {holder.since}")
    if not held:
        yield ok("nobody holds it")


@_readable
def _checkpoint(kept: JobState) -> Iterator[Finding]:
    name = kept.job.name
    saved = StateStore(kept.redis.target, name).read()
    if saved is None:
        yield ok("no backfill is unfinished")
    elif holders(kept.redis.target, name):
        yield ok(f"run {saved.run} is under way")
    else:
        owed = counted(len(saved.owed), "chunk")
        more = "" if saved.ended else ", and what follows"
        yield warn(f"run {saved.run} is unfinished and owes {owed}{more}", f"loader backfill {name}")


@_readable
def _rejects(kept: JobState) -> Iterator[Finding]:
    count = sum(1 for _ in Rejects(kept.redis.target, kept.job.name).all())
    if count:
        yield warn(f"{counted(count, 'row')} could not be written", f"loader rejects list {kept.job.name}")
    else:
        yield ok("none are listed")


@_readable
def _name(kept: JobState) -> Iterator[Finding]:
    """Whether the job's name is another config's in this target."""
    refusal = Claims(kept.redis.target, kept.job.name).refusal(claim_of(kept.settings.source, kept.job))
    if refusal:
        yield fail(refusal, f"loader sync {kept.job.name} --restart  # where it has moved")
    else:
        yield ok("no other config's")


def _times(kept: JobState) -> Iterator[Finding]:
    """Whether what was done is in the future, so by a clock that is or was wrong; the loader's own go by Redis's."""
    state = StateStore(kept.redis.target, kept.job.name)
    history = History(kept.redis.target, kept.job.name)
    success = slot = None
    with suppress(StateError):  # which `_state` tells of
        success = history.success()
    with suppress(StateError):
        slot = state.slot()
    now = history.now()
    seen = [f"its last success by {success.ended - now:.0f} s"] if success and success.ended > now + SKEW else []
    if over := (slot or {}).get("ahead"):
        seen.append(f"the last slot that was done by {over - now:.0f} s")
    if seen:
        yield warn(
            f"{' and '.join(seen)} in the future by redis's clock: a clock is or was wrong; neither counts",
            "timedatectl set-ntp true  # where it is wrong",
        )
    else:
        yield ok("nothing was done in the future")


# the config alone


def _prefix(job: JobConfig) -> Iterator[Finding]:
    before, _, inside = job.prefix.partition("{")
    tag, closed, after = inside.partition("}")
    if tag and closed:
        slot = slot_of(job.prefix.encode())
        yield warn(
            f"{job.prefix!r} has a hash tag: all keys are in slot {slot:,}, so on one master",
            f'key: "{before}{tag}{after}…"',
        )
    else:
        yield ok(f"{job.prefix!r}")


def _schedule(job: JobConfig) -> Iterator[Finding]:
    if job.schedule is None:
        return
    times = next_times(job.schedule, datetime.now(UTC), TIMES)
    said = job.schedule.cron or f"every {job.schedule.every} s"
    late = f", each up to {job.schedule.jitter} s later" if job.schedule.jitter else ""
    shows = ", ".join(f"{time:%a %Y-%m-%d %H:%M:%S %Z}" for time in times)
    yield ok(f"{said}: {shows}{late}")


PLANNED: Mapping[str, Check[PlannedJob]] = {"key": _key, "incremental": _incremental}
FACING: Mapping[str, Check[JobOnRedis]] = {"size": _size, "types": _types, "ttl": _ttl}
KEPT: Mapping[str, Check[JobState]] = {
    "name": _name,
    "times": _times,
    "lock": _lock,
    "checkpoint": _checkpoint,
    "rejects": _rejects,
    "state": _state,
}
ALONE: Mapping[str, Check[JobConfig]] = {"prefix": _prefix, "schedule": _schedule}
