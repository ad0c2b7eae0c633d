"""The two sides of a job, open for work on single rows and hashes outside a run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, TypeVar

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.errors import ConfigError, LoaderError
from loader.model import ChunkLoaded
from loader.mysql.connection import Connection
from loader.mysql.plan import Plan
from loader.pipeline.job_context import LEAVE, WELL, JobContext, open_job, passing
from loader.pipeline.key_filter import KeyFilterWriter
from loader.pipeline.ledger import SHARED, Ledger
from loader.pipeline.options import Options
from loader.pipeline.pool import Pool
from loader.pipeline.retry import retry_transient
from loader.pipeline.transfer import transfer
from loader.state.baseline import Baselines
from loader.state.checkpoint import StateStore
from loader.state.markers import GONE, LOST, Field, Markers, lacking

T = TypeVar("T")


class JobSession:
    """The two sides of a job, open; transient failures are retried on new connections, within the job's deadline.

    With the id of a `run`, the job is locked for it: only one run may write its hashes at a time. A session that is
    part of a run, `within` its context, shares the lock of that run. Sessions with the same `pool` hand on connections.
    One that goes on with what another has begun, on the same job, waits `again` for a server that is away meanwhile.
    """

    def __init__(
        self,
        settings: Config,
        job: JobConfig,
        run: str = "",
        within: JobContext | None = None,
        pool: Pool | None = None,
        *,
        again: bool = False,
    ) -> None:
        self._settings = settings
        options = Options(pool=pool) if pool else Options()
        self._context = open_job(settings, job, options, again=again, beside=within.target if within else None)
        self._markers: Markers | None = None
        self._marking: Field | None = None
        self._ledger = Ledger[ChunkLoaded]()
        try:
            if within:
                self._context.share(within)
            elif run:
                self._context.with_retry(lambda: self._context.lock(run))
            if run:
                self._markers = StateStore(self._context.target, job.name, resumes=False).markers(run)
                self._context.with_retry(self._markers.leave)
                self._marking = self._markers.field(0)
            self.lookup = self._context.lookup()
            self._context.lanes(1)
        except BaseException:
            self._context.close()
            raise
        self.plan = self._context.plan
        self.target = self._context.target
        self.throttle = self._context.throttle
        self.fetch = self._context.fetch
        self._source: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.rest()
        with passing(), self._context.leaving(LEAVE if kind else WELL):  # a marker that stays does no harm
            if self._markers and not self.throttle.lapsed():
                self._markers.forget()
        self._context.close(well=kind is None)

    def rest(self) -> None:
        """Leave MySQL until it is needed again."""
        if self._source:
            self._context.pool.leave_source(self._source)
            self._source = None
        self._context.rest()

    def with_retry(self, attempt: Callable[[], T]) -> T:
        """Do something, retrying transient failures."""
        failures = 0

        def once() -> T:
            nonlocal failures
            self.throttle.admit()
            if failures:
                self.throttle.confirm()
            self.target.refresh(force=failures > 0)
            self.throttle.attempt(again=failures > 0)
            failures += 1
            return attempt()

        return retry_transient(once, self.plan.job.deadline, self.throttle)

    def check(self) -> None:
        """Make sure that everything written is still there; a `LoaderError` if a master has lost some of it."""
        if not self._markers:
            return
        self._context.with_retry(self.throttle.confirm)
        seen = self._context.with_retry(self._markers.read)
        if None in seen.values():
            raise LoaderError(f"{GONE}: repeat the command")
        if lacking(seen, self._ledger.marks()):
            raise LoaderError(f"{LOST}: repeat the command")
        if self._context.take_doubt() is not None:
            raise LoaderError(f"{SHARED}: repeat the command")

    def transfer(self, writer: Any, statement: str, plan: Plan | None = None) -> Any:
        """Send the rows of a statement, by default of the job's plan, to a writer, once; returns the encoder."""
        return self.on_source(lambda source: transfer(plan or self.plan, statement, source, writer, self.throttle))

    def on_source(self, action: Callable[[Connection], T]) -> T:
        """Do something on the connection to MySQL, once; a failure drops the connection."""
        self._source = self._source or self._context.pool.source(self._context.source_config)
        try:
            return action(self._source)
        except BaseException:
            self._source.close()
            self._source = None
            raise

    @contextmanager
    def writing(self, grant: int, keys: Sequence[bytes] = ()) -> Iterator[KeyFilterWriter]:
        """A writer for the rows of keys, and for single commands, while the lock is held without a break.

        At the end it waits until replicas have the acknowledged writes.
        """
        writer = KeyFilterWriter(self.target, keys, self._marking, partial(self.throttle.hold, grant))
        try:
            yield writer
            kept = writer.await_replicas()
            self.throttle.hold(grant)
            self._ledger.vouch(kept.marks)
        finally:
            writer.close()


def void_baseline(session: JobSession) -> None:
    """Make the next run write everything: it would mistake the hashes changed here for those that the last run left.

    This does not apply to an incremental job, which makes no such assumption.
    """
    if session.plan.job.incremental is None:
        baselines = Baselines(session.target, session.plan.job.name)
        session.with_retry(baselines.void)


def refuse_shared(settings: Config, job: JobConfig) -> None:
    """Raise a `ConfigError` if another job writes the same hashes: the two cannot be told apart from outside."""
    if other := settings.sharing(job):
        raise ConfigError(
            f"jobs {job.name!r} and {other.name!r} write under the same prefix {job.prefix!r}: which of them a hash"
            " or a field belongs to cannot be told; give each a prefix of its own"
        )
