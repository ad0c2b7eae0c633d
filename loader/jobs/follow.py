"""Following jobs: all rows once, if need be, from a position of the binlog that was taken before; then each change.

A position without its pass over all rows is stored as owed: whoever comes next makes the pass first.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial, reduce

from loader.config.load import Config
from loader.config.models import FollowConfig, JobConfig
from loader.errors import ConfigError, Kind, LoaderError, PositionLost, Stopped
from loader.jobs import prune as prune_module
from loader.jobs.execute import execute
from loader.jobs.full_pass import FIRST, Begin, facts_differ, first_position, key_of, why_all
from loader.jobs.prune import MAX_DELETE, Pruned
from loader.model import Notice, Run
from loader.mysql.binlog import BinlogStream
from loader.mysql.binlog_origin import earlier, origin
from loader.mysql.connection import Connection
from loader.mysql.dump import Position, Replica, replica_of, replica_with
from loader.mysql.followed_key import FollowedKey
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
from loader.state.checkpoint import StateStore
from loader.state.holders import holders, wanted_locks
from loader.state.lock import ASK_EVERY
from loader.state.markers import Markers
from loader.state.position import FollowedPosition, Positions

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


@dataclass(frozen=True, slots=True)
class _Ready:
    """A job that is open and locked, with the position up to which all its rows are in Redis."""

    context: JobContext
    position: FollowedPosition
    key: FollowedKey


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

        A job that another run wants to write is let go, and followed again once that run is over: until then, not all
        has caught up.
        """
        while not self._stopped:
            with ExitStack() as stack:
                try:
                    ready = self._ready(stack, may_wait=self.is_following or not until_caught_up)
                    if not ready:
                        self._await_lent()
                        continue
                except Stopped:
                    break
                contexts = [each.context for each in ready]
                follower, followed = self._begin(ready, self._guard(contexts[0], stack))
                is_whole = len(ready) == len(self._jobs)
                try:
                    is_over = follower.run(
                        partial(self._is_changing, contexts), until_caught_up=until_caught_up and is_whole
                    )
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

    def _ready(self, stack: ExitStack, *, may_wait: bool) -> list[_Ready]:
        """The jobs that can be followed now; one that a run has is left to it, but for a start at which none is left.

        As long as the rows of one have to be read, none is locked: that may take hours, and others may want them.
        """
        while True:
            ready, due, refused = list[_Ready](), list[JobConfig](), dict[str, LoaderError]()
            for job in self._jobs:
                with _noting(refused, job.name, may_wait=may_wait):
                    context = stack.enter_context(self._open(job))
                    stored, key = Positions(context.target, job.name).read(), key_of(context)
                    if why_all(context, stored, key, self._begins[job.name]) or stored is None:
                        due.append(job)
                    else:
                        ready.append(_Ready(context, stored, key))
            if refused and not (ready or due or self.is_following):
                raise next(iter(refused.values()))
            for name in refused.keys() - self._lent:
                self._tell(name, f"not followed for now: {refused[name]}")
            self._lent = set(refused)
            if not due:
                return ready
            stack.close()
            for job in due:
                with _noting({}, job.name, may_wait=may_wait):
                    self._make_pass(job)

    def _guard(self, context: JobContext, stack: ExitStack) -> LoadGuard:
        """What says whether MySQL has too much to do."""
        options = self._options
        guard = LoadGuard(context.source_config, context.fetch, options.max_load, options.max_lag)
        stack.callback(guard.close)
        return guard

    def _begin(self, ready: Sequence[_Ready], guard: LoadGuard) -> tuple[Follower, list[FollowedJob]]:
        """Make what follows the jobs, from the earliest of their positions."""
        ask = ready[0].context.on_side_connection
        lock_reads = all(_settings(job).lock_reads for job in self._jobs)
        now = ask(partial(origin, lock_reads=lock_reads))
        followed = [FollowedJob(each.context, each.position, each.key, now.barrier.lock) for each in ready]
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
            if self._stopped:
                return True
            if not targets:
                targets.append(RedisClient(self._settings.target, again=True))
            try:
                return self._is_free(targets[0], wanted_locks(targets[0], self._lent))
            except LoaderError:
                targets.pop().close()
                raise

        try:
            while not retry_transient(is_free, self._jobs[0].deadline, Throttle()):
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
            stored, key = positions.read(), key_of(context)
            why, begin = why_all(context, stored, key, self._begins[job.name]), self._begins[job.name]
            if not why:
                return
            if begin is Begin.START:
                stored = None
            is_resumed = stored and stored.owed and stored.is_taken and not facts_differ(context, stored, key)
            if not is_resumed:
                lock_reads = _settings(job).lock_reads
                now = context.on_side_connection(partial(origin, lock_reads=lock_reads))
                stored = replace(first_position(now, context, key, why), seen=positions.now())
                self._try_reading(now.position, stored.run)
                StateStore(context.target, job.name).void()  # what was read before the position does not count
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


@contextmanager
def _noting(refused: dict[str, LoaderError], job: str, *, may_wait: bool) -> Iterator[None]:
    """Note who has the lock of a job, if it may be waited for."""
    try:
        yield
    except LoaderError as error:
        if error.kind is not Kind.LOCKED or not may_wait:
            raise
        refused[job] = error


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


def _failure(run: Run) -> LoaderError:
    return LoaderError(f"job {run.job!r}: {run.outcome.error}", kind=run.outcome.kind)
