"""One worker of a run: loads one chunk after another from MySQL to Redis, and retries those that fail."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from loader.config.servers import SourceConfig
from loader.errors import LoaderError, SourceError, StartOver, Stopped
from loader.model import Chunk, ChunkLoaded
from loader.mysql.connection import Connection
from loader.mysql.plan import Plan
from loader.pipeline.pool import Pool
from loader.pipeline.retry import Notify, retry_transient
from loader.pipeline.throttle import Throttle
from loader.pipeline.transfer import check_table, load_chunk
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.collector import CollectingWriter
from loader.redis.writer import Marking, PipelineWriter

LOOK_EVERY = 1.0  # seconds between two checks of the table's definition, which takes MySQL 2 ms
Erase = Callable[[Chunk, Connection, PipelineWriter], int]


class ChunkWorker:
    """One worker's way from MySQL to Redis; failed connections are dropped, and replaced.

    `erase` deletes the hashes of a chunk's rows that the job no longer takes, and returns how many. `marking` makes the
    masters record the progress of writing; without it, only the nodes' own acknowledgements are awaited.
    """

    def __init__(
        self,
        settings: SourceConfig,
        plan: Plan,
        target: RedisClient,
        throttle: Throttle,
        *,
        pool: Pool,
        dry_run: bool = False,
        marking: Marking | None = None,
        erase: Erase | None = None,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._plan = plan
        self._target = target
        self._throttle = throttle
        self._dry_run = dry_run
        self._marking = marking
        self._erase = erase
        self._source: Connection | None = None
        self._writer: PipelineWriter | CollectingWriter | None = None
        self._moved = 0.0  # when an attempt last made progress
        self._looked = time.monotonic()  # when the table was checked: it was planned for a moment ago

    def load(self, chunk: Chunk, notify: Notify) -> ChunkLoaded:
        """Load a chunk, retrying all of it while its failures are transient."""
        tries = _Tries()
        attempt = partial(self._try, chunk, tries)
        event = retry_transient(attempt, self._plan.job.deadline, self._throttle, chunk, notify, lambda: self._moved)
        return replace(event, retried=tries.failed) if tries.failed else event

    def _try(self, chunk: Chunk, tries: "_Tries") -> ChunkLoaded:
        """Load a chunk once; if that fails, drop the connections."""
        try:
            return self._load(chunk, tries)
        except Stopped:
            if self._writer:  # all commands are completed, so that no key is left without its TTL
                with suppress(LoaderError):
                    self._writer.drain()
            self.close()
            raise
        except BaseException as error:
            tries.failed += 1
            if self._source:
                self._moved = max(self._moved, self._source.moved)
            self.close()
            if isinstance(error, StartOver):
                self._explain()
            raise

    def _load(self, chunk: Chunk, tries: "_Tries") -> ChunkLoaded:
        """Load a chunk once: from the first row to the last replica, under one grant of the lock."""
        self._throttle.admit()
        if tries.failed:
            self._throttle.confirm()
        grant = self._throttle.grant()
        self._moved = time.monotonic()
        self._connect(grant, again=tries.failed > 0)
        self._throttle.attempt(again=tries.failed > 0)
        event = self._carry(chunk)
        tries.deleted += event.deleted
        event = replace(event, deleted=tries.deleted)
        self._look()
        assert self._writer
        if self._marking:
            kept = self._writer.await_replicas()
            event = replace(event, exposed=frozenset(map(str, kept.exposed)), marks=kept.marks)
        self._throttle.hold(grant)  # commands may have arrived after another run's writes
        return replace(self._settle(event), grant=grant)

    def _carry(self, chunk: Chunk) -> ChunkLoaded:
        """Transfer the rows of a chunk."""
        assert self._source
        assert self._writer
        event = load_chunk(chunk, self._plan, self._source, self._writer, self._throttle)
        if self._erase and isinstance(self._writer, PipelineWriter):
            event = replace(event, deleted=self._erase(chunk, self._source, self._writer))
        return event

    def _settle(self, event: ChunkLoaded) -> ChunkLoaded:
        """Do the remaining work once the rows are acknowledged."""
        return event

    def leave(self) -> None:
        """Hand on the connections: no chunk is under way."""
        if self._source:
            self._pool.leave_source(self._source)
            self._source = None
        self.close()

    def close(self) -> None:
        """Drop the connections."""
        if self._writer:
            self._writer.close()
        if self._source:
            self._source.close()
        self._source = self._writer = None

    def _look(self) -> None:
        """Check from time to time whether the table is still the same."""
        assert self._source
        if time.monotonic() - self._looked >= LOOK_EVERY:
            check_table(self._plan, self._source)
            self._looked = time.monotonic()

    def _explain(self) -> None:
        """Let the table explain a change: a failing statement, or its result, says less."""
        with suppress(SourceError), Connection(self._settings) as source:
            check_table(self._plan, source)

    def _connect(self, grant: int, *, again: bool) -> None:
        self._target.refresh(force=again)
        if self._writer is None:
            writer = (
                CollectingWriter
                if self._dry_run
                else partial(PipelineWriter, spare=self._throttle.spare, marking=self._marking)
            )
            self._writer = writer(self._target)
        self._writer.guard(partial(self._throttle.hold, grant))
        if self._source is None:
            self._source = self._pool.source(self._settings)


@dataclass(slots=True)
class _Tries:
    """The attempts at one chunk so far: how many have failed, and how many hashes all together have deleted."""

    failed: int = 0
    deleted: int = 0
