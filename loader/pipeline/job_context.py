"""The open resources of a job: its table and plan, Redis, its lock, and a connection to MySQL beside the workers'."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Self, TypeVar

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.config.parts import with_primary_key
from loader.config.servers import SourceConfig
from loader.errors import Kind, LoaderError, PlanError, Retry, SourceError
from loader.model import Table
from loader.mysql import catalog
from loader.mysql.connection import Connection
from loader.mysql.errors import more_connections
from loader.mysql.keys import KeyMatcher
from loader.mysql.plan import Plan
from loader.mysql.planner import make_plan, query_of
from loader.mysql.sql import peek
from loader.net.limit import until
from loader.pipeline.options import Options
from loader.pipeline.pool import Pool
from loader.pipeline.retry import BRIEFLY, Notify, ignore, retry_transient
from loader.pipeline.throttle import Throttle
from loader.redis.client import RedisClient
from loader.redis.key_reader import Question
from loader.redis.ready_made import listpack_of
from loader.redis.servers import expiring
from loader.state.baseline import Baselines
from loader.state.claim import Claims, claim_of
from loader.state.holders import locked
from loader.state.lock import Lock, under_way

LEAVE = 1.0  # seconds for clean-up in Redis after a failed run: state that a silent node misses expires by itself
WELL = 5.0  # and after a good one, whose servers have always answered
EACH = 0.5  # the least seconds for each clean-up step
LOOKS = 5  # at keys that expire, until no lock of this process comes or goes meanwhile
SCOUT_TIME = 600  # seconds in which MySQL must find a chunk's bound, which may require a table scan

T = TypeVar("T")


class JobContext:
    """The open resources of a job; `plan` takes all of its rows that the options allow.

    `scouting` says that MySQL is being waited for beside the workers.
    """

    def __init__(
        self,
        settings: Config,
        plan: Plan,
        table: Table,
        source: Connection,
        target: RedisClient,
        throttle: Throttle,
        pool: Pool,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.plan = plan
        self.table = table
        self.target = target
        self.throttle = throttle
        self.known_fields: frozenset[str] = frozenset()  # of hashes, as runs have noted them
        self.claims = Claims(target, plan.job.name)
        self.scouting = False
        self._scout: Connection | None = source
        self._held: Lock | None = None
        self._lender: JobContext | None = None  # the owner of the lock, who releases it
        self._over: float | None = None  # until when the end of the run is recorded in Redis, on the monotonic clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(well=kind is None)

    def close(self, *, well: bool = False) -> None:
        """Release the lock, and close all connections."""
        self.target.guard = lambda: None
        released = False
        with passing(), self.leaving(WELL if well else LEAVE):  # a lock expires by itself
            if self._lender:
                self.target.fences.leave_to(self._lender.target.fences)
            else:
                released = self._held is None or self._let_go(self._held)
        if self._held:
            if not self._lender:
                self._held.end()
            self.target.guard = self.throttle.check
        self.rest()
        self.pool.leave_target(self.target, well=well and released)

    @contextmanager
    def leaving(self, most: float = LEAVE) -> Iterator[None]:
        """Clean up in Redis after the run, within the time for all clean-up, and `most` for this step."""
        now = time.monotonic()
        self._over = self._over or now + max(most, LEAVE)
        with until(max(now + EACH, min(self._over, now + most))):
            yield

    def _let_go(self, held: Lock) -> bool:
        """Release the lock; if it was shared, the evidence for the current content may be wrong.

        Returns whether nothing of the run is left behind.
        """
        if not held.grant():  # it was never this run's, or the answer was lost
            return held.drop(self.target)
        if held.release(self.target):
            return True
        try:
            held.confirm()
        except LoaderError as error:
            if error.transient:
                held.leave()
                raise
        if held.shared and (self.plan.job.incremental or self.plan.job.changed_only):
            Baselines(self.target, self.plan.job.name).void(under_way=True)
        return held.drop(self.target)

    def lock(
        self,
        run: str,
        shard: tuple[int, int] | None = None,
        lost: Callable[[LoaderError], None] = lambda _: None,
        *,
        moved: bool = False,
        yields: bool = False,
        foresees: Sequence[Question] = (),
    ) -> None:
        """Lock the job for a run; a `LoaderError` with exit code 5 names the holder. `lost` is called if it is lost.

        The replies to questions that it `foresees` are kept, until the caller forgets them. A run that `yields` has to
        release the lock as soon as another run wants it, see `holders.wanted_locks`.

        If the answer is lost, the lock may still be held: the same run asks again, and releases it at the end. Under
        the lock it is checked that the job's name does not belong to another config, unless the job has `moved`.
        """
        if self._held is None:
            self._held = Lock(self.settings.target, self.plan.job.name, run, shard, yields=yields)
        if self.throttle.lock is not self._held:
            self._held.take(self.target)
            self._heed(self._held)
            self._held.keep(lost)
        job = self.plan.job
        if foresees:
            self.target.foresee(foresees)
        if not moved:
            self.claims.check(claim_of(self.source_config, job))

    def share(self, other: "JobContext") -> None:
        """Work under the lock of another context, which opened this one `beside` its own, and releases it."""
        self._held, self._lender = other.held, other
        other.rest()
        self.target.fences.shut_out(self._held.strangers)
        self._heed(self._held)

    @property
    def source_config(self) -> SourceConfig:
        """The source of the job, with the database of its table."""
        return self.settings.source_of(self.plan.job)

    @property
    def held(self) -> Lock:
        """The job's lock, which a run has taken."""
        assert self._held
        return self._held

    def _heed(self, held: Lock) -> None:
        """Write only while a lock is held."""
        self.throttle.lock = held
        self.target.guard = self.throttle.check

    @property
    def shared(self) -> bool:
        """Whether another run has the job's lock, or may have had it while this one counted it as its own."""
        return self._held is not None and self._held.shared

    def take_doubt(self) -> float | None:
        """Since when another run may have held the job's lock too, on the monotonic clock; cleared by the call."""
        return self._held.take_doubt() if self._held else None

    def is_doubtful(self, grant: int) -> bool:
        """Whether another run may have had the job's lock since the grant of this number."""
        return bool(self._held and self._held.is_doubtful(grant))

    def lookup(self) -> KeyMatcher:
        """The way back from a key that belongs to the job and to no other."""
        return KeyMatcher(self.plan, self.table, self.settings.longer(self.plan.job))

    def with_retry(self, action: Callable[[], T]) -> T:
        """Do something, retrying transient failures; if the job is locked, only while it is."""
        failures = 0

        def attempt() -> T:
            nonlocal failures
            self.target.guard()
            if failures:  # another node may own the slot by now
                self.target.refresh(force=True)
            failures += 1
            return action()

        return retry_transient(attempt, self.plan.job.deadline, self.throttle)

    def lanes(self, wanted: int) -> int:
        """How many connections to MySQL beside its own this may use, of those wanted.

        Raises a `SourceError` if the account may not have a second one.
        """
        most = self.on_side_connection(lambda source: source.most_connections())
        if most == 1:
            source = self.source_config
            raise SourceError(
                f"mysql {source.address}: the account may have 1 connection at a time (max_user_connections), but this"
                f" takes {1 + wanted}, or at least 2: {more_connections(source.user or '', 1 + wanted)}",
                kind=Kind.REFUSED,
            )
        return wanted if most is None else min(wanted, most - 1)

    def rest(self) -> None:
        """Leave MySQL until it is needed again."""
        if self._scout:
            self.pool.leave_source(self._scout)
            self._scout = None

    def on_side_connection(self, action: Callable[[Connection], T]) -> T:
        """Do something on the connection beside the workers', retrying transient failures."""

        def attempt() -> T:
            if self._scout is None:
                self._scout = self.pool.source(self.source_config, SCOUT_TIME)
            try:
                return action(self._scout)
            except LoaderError:
                self._scout.close()
                self._scout = None
                raise

        self.scouting = True
        try:
            return self.with_retry(attempt)
        finally:
            self.scouting = False

    def fetch(self, sql: str, args: Sequence[str] | None = None) -> list[tuple[str | None, ...]]:
        """Rows of a small result, retried while MySQL is temporarily unreachable."""
        return self.on_side_connection(lambda source: source.fetch(sql, args))


@contextmanager
def passing() -> Iterator[None]:
    """Ignore a transient failure: the run is over."""
    try:
        yield
    except LoaderError as error:
        if not error.transient:
            raise


def patience(job: JobConfig, *, again: bool = False) -> float:
    """Seconds of retrying before the first row: a person waits, unless the run begins `again` and has its job's."""
    return job.deadline if again else BRIEFLY


def open_job(
    settings: Config,
    job: JobConfig,
    options: Options,
    *,
    again: bool = False,
    beside: RedisClient | None = None,
    notify: Notify = ignore,
) -> JobContext:
    """Connect to both sides and plan; an unreachable server is retried for `patience` seconds.

    If a run begins `again`, a missing table may be on its way back. Redis is reached `beside` another target, see
    `RedisClient`. `notify` is told why that takes long.
    """
    throttle = Throttle(options.rate, options.halt)

    def look() -> tuple[Connection, Table, Plan]:
        source = options.pool.source(settings.source_of(job))
        try:
            return source, *read_plan(source, job, options)
        except BaseException as error:
            source.close()
            if isinstance(error, PlanError) and not again:
                error.retry = Retry.NEVER
            raise

    most = patience(job, again=again)
    source, table, plan = retry_transient(look, most, throttle, notify=notify, bearing=job.deadline)
    try:
        reach = partial(_reached, settings, plan, options.pool, beside)
        target, plan = retry_transient(reach, most, throttle, notify=notify, bearing=job.deadline)
    except BaseException:
        source.close()
        raise
    return JobContext(settings, plan, table, source, target, throttle, options.pool)


def _reached(settings: Config, plan: Plan, pool: Pool, beside: RedisClient | None) -> tuple[RedisClient, Plan]:
    """The target, and the plan adapted to whether keys expire there."""
    target = RedisClient(settings.target, beside=beside) if beside else pool.target(settings.target)
    try:
        target.refresh(force=True)
        if plan.layout.ttl is None and pool.seen("mortal", target, lambda: _has_mortal(target, settings.jobs)):
            plan = replace(plan, layout=replace(plan.layout, checks_ttl=True))
        if plan.job.write != "hmset":
            plan = _ready_made(plan, target)
    except LoaderError:
        target.close()
        raise
    return target, plan


def _ready_made(plan: Plan, target: RedisClient) -> Plan:
    """The plan with hashes that are written ready-made; with a warning if they cannot be, and need not."""
    try:
        limits = listpack_of(target)
    except LoaderError as error:
        if error.transient:
            raise
        if plan.job.write == "restore":
            error.args = (f"job {plan.job.name!r}: write: restore: {error}; write: hmset does without",)
            raise
        return replace(plan, warnings=(f"rows are written by HMSET: {error}", *plan.warnings))
    return replace(plan, layout=replace(plan.layout, listpack=limits))


def _has_mortal(target: RedisClient, jobs: Collection[str]) -> bool:
    """Whether keys other than the locks of these jobs have a time to live: hashes of a job may be among them."""
    for _ in range(LOOKS):
        own = under_way()
        mortal = expiring(target)
        if not mortal or (mortal == len(own) and own == under_way()):  # those locks alone
            return False
        if mortal > len(jobs):
            return True
    if not 0 < mortal <= len(jobs):
        return mortal > 0
    locks = locked(target, jobs)
    return expiring(target) > len(locks & locked(target, jobs))


def read_plan(source: Connection, job: JobConfig, options: Options) -> tuple[Table, Plan]:
    """Read the table, or the query's result columns, and fit the job to it; MySQL has then accepted the statement."""
    if job.is_open:
        raise PlanError(
            f"job {job.name!r}: mysql {source.address}: no table of {source.database} was found that matches"
            f" {', '.join(job.tables or ())}: change its tables, or run it again if MySQL was away until now"
        )
    table = catalog.table(source, job.table) if job.table else catalog.result(source, peek(query_of(job), 0), job.name)
    try:
        plan = make_plan(job, table, where=options.where, key_range=options.key_range, shard=options.shard)
    except PlanError:
        _check_seen(source, job, table, failed=True)
        raise
    _check_seen(source, job, table, failed=False)
    if options.where is not None:
        catalog.result(source, make_plan(job, table).first(0), job.name)
    if table.withheld or job.query or job.where or options.narrowed or isinstance(job.fields, dict):
        option = "--where" if options.where is not None else ""
        catalog.result(source, plan.first(0), job.name, option)  # columns by their names were accepted with the table
    return table, plan


def _check_seen(source: Connection, job: JobConfig, table: Table, *, failed: bool) -> None:
    """Raise a `SourceError` if MySQL hides columns that a job needs from the account, or if its plan `failed` so."""
    if not table.withheld:
        return
    incremental = [job.incremental.column] if job.incremental else []
    fields = job.fields if isinstance(job.fields, tuple) else ()
    parts = with_primary_key(job.key_parts, table.primary_key) if job.is_placed else job.key_parts
    key = [name for _, name in parts if name] or table.primary_key
    unseen = [name for name in dict.fromkeys([*key, *fields, *incremental]) if table.column(name) is None]
    whole = failed or job.fields is None
    if not unseen and not whole:
        return
    what = f"column{'s' * (len(unseen) > 1)} {', '.join(unseen)}" if unseen else "all columns"
    of = f"of table {table.name!r}{', or there is none' if unseen else ', and does not see the others'}"
    ways = [
        catalog.grant(source, table.name, unseen),
        *(["list in fields those that it may read"] if job.fields is None else []),
    ]
    raise SourceError(
        f"job {job.name!r}: the account may not read {what} {of} ({table.withheld}): {', or '.join(ways)}",
        kind=Kind.REFUSED,
    )
