"""Following jobs: all rows once, if need be, from a position of the binlog that was taken before; then each change.

A position without its pass over all rows is stored as owed: whoever comes next makes the pass first.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from functools import partial, reduce

from loader.config.load import Config
from loader.config.models import FollowConfig, JobConfig
from loader.errors import ConfigError, Kind, LoaderError, PositionLost, Stopped
from loader.jobs import prune as prune_module
from loader.jobs.execute import execute
from loader.jobs.prune import MAX_DELETE, Pruned
from loader.model import Notice, Run
from loader.mysql.binlog import BinlogStream
from loader.mysql.binlog_origin import Origin, earlier, origin
from loader.mysql.connection import Connection
from loader.mysql.dump import Position, Replica, replica_of, replica_with
from loader.mysql.followed_key import FollowedKey, followed_key
from loader.mysql.key_text import check_column, zone_of
from loader.pipeline.events import RunListener
from loader.pipeline.follow import Follower, PassOwed
from loader.pipeline.followed_job import FollowedJob
from loader.pipeline.job_context import JobContext, open_job
from loader.pipeline.load_guard import LoadGuard
from loader.pipeline.options import Options
from loader.pipeline.retry import retry_transient
from loader.pipeline.run import new_id
from loader.pipeline.throttle import StopRequest, Throttle
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.state.baseline import Baselines
from loader.state.checkpoint import difference
from loader.state.holders import holders, wanted_locks
from loader.state.lock import ASK_EVERY
from loader.state.markers import Markers, lacking
from loader.state.position import FollowedPosition, Positions

FIRST = "it was not followed before"
Listen = Callable[[JobConfig], RunListener]


@dataclass(frozen=True, slots=True)
class Followed:
    """How far a job was followed when it ended."""

    job: str
    position: FollowedPosition
    lag: float  # seconds between a commit and its row in Redis, at the end
    lag_bytes: int | None  # of the binlog that are not in Redis then; None if nobody knows
    changes: int
    keys: int  # of which rows were read: a change of a row that was to be read anyway adds none
    written: int
    deleted: int


class Begin(StrEnum):
    """From where a job is followed, whatever was followed before."""

    START = "start"  # all rows are read
    NOW = "now"  # a sync reads those that have changed since the last one


class Following:
    """Jobs of one source that are followed over one stream, until `stop`."""

    def __init__(
        self,
        settings: Config,
        jobs: Sequence[JobConfig],
        listen: Listen,
        begin: Begin | None = None,
        options: Options | None = None,
    ) -> None:
        check_all(jobs)
        self._settings = settings
        self._jobs = jobs
        self._listen = listen
        self._begins: dict[str, Begin | None] = dict.fromkeys((job.name for job in jobs), begin)
        self._follower: Follower | None = None
        self._stopped = False
        self._halt = StopRequest()
        self._options = replace(options or Options(), halt=self._halt)
        self._lent: set[str] = set()  # jobs that were let go for another run

    def stop(self) -> None:
        """Have it end, with what is under way acknowledged and its position stored; safe in a signal handler."""
        self._stopped = self._halt.asked = True
        if self._follower:
            self._follower.stop()

    @property
    def is_following(self) -> bool:
        """Whether all rows are in Redis, and the binlog is read."""
        return self._follower is not None

    def run(self, *, until_caught_up: bool = False) -> list[Followed]:
        """Follow until `stop`; how far each job came.

        A job that another run wants to write is let go, and followed again once that run is over.
        """
        while not self._stopped:
            with ExitStack() as stack:
                try:
                    contexts = [context for job in self._jobs if (context := self._context(job, stack))]
                    if not contexts:
                        self._await_lent()
                        continue
                except Stopped:
                    break
                follower, followed = self._begin(contexts, self._guard(contexts[0], stack))
                try:
                    is_over = follower.run(partial(self._is_changing, contexts), until_caught_up=until_caught_up)
                except PassOwed as owed:
                    _owe(followed, str(owed), owed.jobs)
                except PositionLost as lost:
                    if not all(_settings(job).on_lost_position == "backfill" for job in self._jobs):
                        raise
                    _owe(followed, str(lost), [each.name for each in followed])
                else:
                    if is_over:
                        lag = follower.lag, follower.lag_bytes
                        return [Followed(each.name, each.position, *lag, *each.counts) for each in followed]
        return []

    def _context(self, job: JobConfig, stack: ExitStack) -> JobContext | None:
        """A job, open and locked, with all its rows in Redis; None while a run has it for which it was let go."""
        try:
            self._make_pass(job)
            context = stack.enter_context(self._open(job))
        except LoaderError as error:
            if error.kind is Kind.LOCKED and job.name in self._lent:
                return None
            raise
        self._lent.discard(job.name)
        return context

    def _guard(self, context: JobContext, stack: ExitStack) -> LoadGuard:
        """What says whether MySQL has too much to do."""
        options = self._options
        guard = LoadGuard(context.source_config, context.fetch, options.max_load, options.max_lag)
        stack.callback(guard.close)
        return guard

    def _begin(self, contexts: Sequence[JobContext], guard: LoadGuard) -> tuple[Follower, list[FollowedJob]]:
        """Make what follows the jobs, from the earliest of their positions."""
        ask = contexts[0].on_side_connection
        lock_reads = all(_settings(job).lock_reads for job in self._jobs)
        now = ask(partial(origin, lock_reads=lock_reads))
        followed = [
            FollowedJob(context, _position_of(context), _key_of(context), now.barrier.lock) for context in contexts
        ]
        starts = [each.start for each in followed]
        start = ask(lambda source: reduce(partial(earlier, source), starts))
        replica = self._replica(followed[0].position.run)
        follower = Follower(followed, start, now, replica, self._listen(self._jobs[0]), guard.busy)
        self._follower = follower
        if self._stopped:
            follower.stop()
        return follower, followed

    def _is_changing(self, contexts: Sequence[JobContext]) -> bool:
        """Whether a run wants one of the jobs, or is over for which one was let go."""
        target = contexts[0].target
        wanted = wanted_locks(target, [job.name for job in self._jobs])
        asked_for = {context.plan.job.name for context in contexts} & wanted
        self._lent |= asked_for
        return bool(asked_for) or self._is_free(target, wanted)

    def _is_free(self, target: RedisClient, wanted: frozenset[str]) -> bool:
        """Whether a run is over for which a job was let go, and no other wants the job."""
        return any(not holders(target, name) for name in self._lent - wanted)

    def _await_lent(self) -> None:
        """Wait until a run is over for which a job was let go: MySQL is asked nothing meanwhile."""
        targets = list[RedisClient]()

        def is_free() -> bool:
            if not targets:
                targets.append(RedisClient(self._settings.target, again=True))
            try:
                return self._is_free(targets[0], wanted_locks(targets[0], self._lent))
            except LoaderError:
                targets.pop().close()
                raise

        try:
            while not (self._stopped or retry_transient(is_free, self._jobs[0].deadline, Throttle(halt=self._halt))):
                time.sleep(ASK_EVERY)
        finally:
            for target in targets:
                target.close()

    def _tell(self, name: str, text: str) -> None:
        job = next(job for job in self._jobs if job.name == name)
        self._listen(job).notify(Notice(text))

    def _open(self, job: JobConfig) -> JobContext:
        """The job, locked."""
        context = open_job(self._settings, job, Options(), again=self.is_following)
        try:
            context.with_retry(lambda: context.lock(new_id(), yields=True))
        except BaseException:
            context.close()
            raise
        return context

    def _try_reading(self, position: Position, run: str) -> None:
        """Raise now what would come once all rows are read: that the account lacks a right, for example."""
        source = self._settings.source_of(self._jobs[0])
        with BinlogStream(Connection(source), position, self._replica(run), {}) as stream:
            stream.read()

    def _replica(self, run: str) -> Replica:
        """As whom the binlog is asked for: the same each time, and no other follower's."""
        ids = [number for job in self._jobs if (number := _settings(job).server_id)]
        return replica_with(ids[0]) if ids else replica_of(run)

    def _prune(self, job: JobConfig) -> None:
        """Delete hashes whose row went without a change in the binlog, as far as `loader prune` would."""
        pruned = Pruned(job.name)
        prune_module.prune(self._settings, job, pruned, max_delete=MAX_DELETE)
        if pruned.refused:
            self._tell(job.name, pruned.refused)

    def _make_pass(self, job: JobConfig) -> None:
        """Bring all rows of a job over, from a position taken before, unless the stored one vouches for them."""
        with self._open(job) as context:
            positions = Positions(context.target, job.name)
            stored, key = positions.read(), _key_of(context)
            why, begin = _why_all(context, positions, stored, key), self._begins[job.name]
            if begin is Begin.START:
                why, stored = "--from start asks for it", None
            elif begin is Begin.NOW:
                _check_begin(context, why, stored)
            if not why:
                return
            is_resumed = stored and stored.owed and stored.is_taken and not _facts_differ(context, stored, key)
            if not is_resumed:
                lock_reads = _settings(job).lock_reads
                now = context.on_side_connection(partial(origin, lock_reads=lock_reads))
                stored = replace(_first(now, _facts(context, key), why), seen=positions.now())
                self._try_reading(now.position, stored.run)
                positions.keep(stored)
            assert stored
        options = replace(self._options, follows=True)
        if begin is not Begin.NOW:
            options = replace(options, resume=True, restart=not is_resumed)
            self._tell(job.name, f"all rows are read: {why}")
        run = execute(self._settings, job, options, self._listen(job))
        if run.outcome.is_stop:
            raise Stopped(str(run.outcome.error))
        if not run.outcome.is_success:
            raise _failure(run)
        if stored.owed != FIRST:
            self._prune(job)
        with self._open(job) as context:
            positions = Positions(context.target, job.name)
            if positions.read() != stored:
                raise LoaderError(f"job {job.name!r}: its position was changed while all rows were read: run it again")
            markers = Markers(context.target, positions.marker, stored.run, passing=False)
            markers.leave()
            positions.keep(stored.settled(markers.keys, positions.now()))
        self._begins[job.name] = None


def _owe(jobs: Sequence[FollowedJob], why: str, names: Sequence[str]) -> None:
    """Note of some of the jobs that all their rows have to be read."""
    for each in jobs:
        if each.name in names:
            each.owe(why)


def _settings(job: JobConfig) -> FollowConfig:
    return job.follow or FollowConfig()


def check(job: JobConfig) -> None:
    """Raise a `ConfigError` if a job cannot be followed."""
    if job.query is not None and not job.follow:
        raise ConfigError(
            f"job {job.name!r} is a query: name the table whose rows make its keys: write follow: {{table: …}}"
        )


def check_all(jobs: Sequence[JobConfig]) -> None:
    """Raise a `ConfigError` if jobs cannot be followed over one stream."""
    for job in jobs:
        check(job)
    ids = {number: job.name for job in jobs if (number := _settings(job).server_id)}
    if len(ids) > 1:
        (one, first), (other, second), *_ = ids.items()
        raise ConfigError(
            f"jobs {first!r} and {second!r} are followed over one stream, which has one server_id, not {one} and"
            f" {other}: give them the same follow.server_id, or leave it out"
        )


def _check_begin(context: JobContext, why: str, stored: FollowedPosition | None) -> None:
    """Raise a `ConfigError` if nothing vouches for the hashes that are there, so that all rows have to be read."""
    name = context.plan.job.name
    if not why:
        raise ConfigError(f"job {name!r} was followed before, and goes on from there: leave out --from now")
    baseline = Baselines(context.target, name).read()
    if stored is not None or baseline is None or baseline.void:
        raise ConfigError(
            f"job {name!r}: --from now: no sync vouches for the hashes that are there: give the job `incremental` or"
            " `changed_only` and sync it, or leave out --from now, and all rows are read"
        )


def _first(now: Origin, facts: Mapping[str, str], why: str) -> FollowedPosition:
    position = now.position
    return FollowedPosition(now.server, position.file, position.offset, position.gtids, dict(facts), new_id(), why)


def _key_of(context: JobContext) -> FollowedKey:
    """The columns of the job's key in the followed table; a `PlanError` if the binlog does not tell their texts."""
    key = context.on_side_connection(lambda source: followed_key(source, context.plan, context.table))
    zone = context.source_config.time_zone
    for column in key.columns:
        check_column(column, zone_of(zone) if zone else None)
    return key


def _position_of(context: JobContext) -> FollowedPosition:
    position = Positions(context.target, context.plan.job.name).read()
    assert position
    return position


def _why_all(context: JobContext, positions: Positions, stored: FollowedPosition | None, key: FollowedKey) -> str:
    """Why all rows have to be read before the job can be followed; empty if its position vouches for them."""
    if stored is None:
        return FIRST
    if stored.owed:
        return stored.owed
    if changed := _facts_differ(context, stored, key):
        return f"the plan was changed: {changed}"
    seen = Markers(context.target, positions.marker, stored.run, stored.markers, passing=False).read()
    if None in seen.values():
        return "the target was emptied, in part or whole: markers are gone"
    if lacking(seen, [(key, *each) for key, fields in stored.marks.items() for each in fields.items()]):
        return "the target has lost writes since"
    return ""


def _facts_differ(context: JobContext, stored: FollowedPosition, key: FollowedKey) -> str | None:
    return difference(stored.facts, _facts(context, key))


def _facts(context: JobContext, key: FollowedKey) -> dict[str, str]:
    return context.plan.facts() | key.facts()


def _failure(run: Run) -> LoaderError:
    return LoaderError(f"job {run.job!r}: {run.outcome.error}", kind=run.outcome.kind)
