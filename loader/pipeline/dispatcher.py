"""The loop of a run: gives chunks to the workers, and keeps account of the results."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

from loader.errors import LoaderError, StartOver, Stopped
from loader.model import Chunk, ChunkLoaded, ChunkOwed, Notice
from loader.mysql.chunker import chunk_ranges
from loader.net.limit import until
from loader.pipeline import incremental
from loader.pipeline.account import ChunkAccount
from loader.pipeline.changed_only import ChangedOnlyWorker
from loader.pipeline.events import RunListener
from loader.pipeline.job_context import JobContext
from loader.pipeline.ledger import SHARED
from loader.pipeline.load_guard import LoadGuard
from loader.pipeline.lost_chunks import LostChunks
from loader.pipeline.options import Options
from loader.pipeline.retry import Event, retry_transient
from loader.pipeline.run_state import RunState
from loader.pipeline.signals import signals_heard
from loader.pipeline.throttle import Throttle
from loader.pipeline.worker import ChunkWorker
from loader.pipeline.workers import Executor, WorkerPool
from loader.state.foreseen import questions

LEAVE = 10.0  # seconds that workers have to end when a run is stopped
GIVE_UP = 1.0  # and when it has failed: one that waits for a silent server is abandoned
SAVE = 1.5  # seconds for the checkpoint of a run that has ended
LOOK_EVERY = 1.0  # seconds between two checks of MySQL's load


class Dispatcher:
    """Gives a run's chunks to its workers, and keeps account of them.

    A run that writes holds the job's lock, and replicas acknowledge each of its chunks. A run with `Options.resume`
    keeps a checkpoint.
    """

    def __init__(self, context: JobContext, state: RunState, options: Options) -> None:
        self._context = context
        self._state = state
        self._options = options
        self._throttle = context.throttle
        self._account = ChunkAccount()
        self._pool = self._executor()
        self._lost = LostChunks(context, state, self._account, self._pool.give)
        self._withdrawn: set[int] = set()  # chunks that no worker may begin any more
        self._stop: Stopped | None = None  # what a signal asked for
        self._guard = LoadGuard(context.source_config, context.fetch, options.max_load, options.max_lag)
        self._looked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, at their next buffer."""
        self._end_workers(LEAVE)
        self._guard.close()

    @property
    def owed(self) -> int:
        """Chunks that are known and not loaded."""
        return self._account.left

    def take_up(self, run: str) -> None:
        """Lock the job, unless this is a dry run, and begin with the state of earlier runs."""
        if self._options.dry_run:
            self._state.begin()
            return
        shard, moved = self._options.shard, self._options.restart
        asked = questions(
            self._context.plan.job.name,
            shard,
            is_scheduled=self._options.slot is not None,
            resumes=self._options.resume,
        )
        try:
            self._context.lock(run, shard, self._pool.report, moved=moved, foresees=asked)
            self._account.begin(self._state.take_up(run))
        finally:
            self._context.target.foreseen.clear()
        self._lost.begin()

    def events(self, listener: RunListener) -> Iterator[ChunkLoaded | ChunkOwed]:
        """Load chunk after chunk, up to one ahead of each worker; yield each once it is in Redis, or no longer is.

        A signal is heard between two steps, so that a chunk is always either owed or loaded.
        """
        count = self._worker_count(listener)
        self._look_at_load()
        self._pool.start(count)
        with signals_heard(self._stop_by_signal):
            try:
                yield from self._loaded(listener)
                self._state.finish(self._account.ledger.marks())
            except StartOver:
                raise
            except LoaderError as error:
                end = self._stop or error
                self._end_workers(LEAVE if isinstance(end, Stopped) else GIVE_UP)
                yield from self._late()
                yield from self._lost.find_doubtful()
                try:
                    with until(time.monotonic() + SAVE):
                        self._save(SAVE, Throttle())
                except LoaderError as failure:
                    raise type(end)(f"{end}; the checkpoint is older: {failure}", kind=end.kind) from end
                raise end from None

    def _worker_count(self, listener: RunListener) -> int:
        """The number of workers: as many as MySQL allows connections for; those of Dask are counted as they come."""
        if self._options.dask:
            return self._options.workers
        wanted = self._options.workers if self._state.plan.walk else 1
        count = self._context.lanes(wanted)
        if count < wanted:
            listener.notify(
                Notice(f"{count} of {wanted} workers: the account may have {count + 1} connections to MySQL")
            )
        return count

    def _stop_by_signal(self, stop: Stopped) -> None:
        """Stop the run, from a signal handler: a worker that waits before a retry stops waiting.

        While the main thread waits for MySQL to find a bound, there is no next step, and it is interrupted.
        """
        self._stop = stop
        self._throttle.stop()
        if self._context.scouting:
            raise stop
        self._pool.report(stop)

    def _loaded(self, listener: RunListener) -> Iterator[ChunkLoaded | ChunkOwed]:
        account, chunks = self._account, self._chunks()
        while True:
            is_halting = self._heed_halt()
            while not is_halting and len(account.owed) < self._pool.room and (chunk := next(chunks, None)):
                account.owe(chunk)
                self._pool.give(chunk)
            if not account.owed:
                yield from self._lost.confirm(listener)
            if not account.owed:
                return
            event = self._next_event()
            listener.notify(event)
            if isinstance(event, ChunkLoaded):
                account.add(event)
                yield event
                self._list_rejects(event)
                if self._context.is_doubtful(event.grant):
                    yield from self._lost.owe_again([event], listener, SHARED)
                if account.left or not account.ended:  # else the run is about to end, or to fail and save it
                    self._save(self._context.plan.job.deadline, self._throttle)
                self._pool.settle()
            yield from self._lost.find(listener)

    def _heed_halt(self) -> bool:
        """Once the run is asked to halt, begin no further chunk, and stop when those under way are done.

        Returns whether it is asked to, and some are under way.
        """
        if not self._options.halt.asked:
            return False
        self._withdrawn |= self._pool.withdraw()
        if self._withdrawn >= self._account.owed.keys() or self._options.halt.now:
            raise Stopped("stopped with the daemon")
        return True

    def _late(self) -> Iterator[ChunkLoaded | ChunkOwed]:
        """The chunks that were loaded when the workers ended, and that nobody had looked at yet."""
        for event in self._pool.rest():
            if isinstance(event, ChunkLoaded):
                self._account.add(event)
                yield event
                with suppress(LoaderError), self._context.leaving():  # counted, and found by the next whole run
                    self._list_rejects(event)
                if self._context.is_doubtful(event.grant):
                    yield from self._lost.strike([event])

    def _end_workers(self, patience: float) -> None:
        """End the workers; if one does not end, what it has sent may be carried out later, and the fence stays."""
        self._context.target.fences.abandoned |= not self._pool.end(patience)

    def _executor(self) -> Executor:
        """The threads that load the chunks, of this process or of a Dask cluster."""
        if self._options.dask is None:
            return WorkerPool(self._worker, self._throttle)
        from loader.pipeline.dask import DaskPool  # noqa: PLC0415  # half a second, and a package of its own

        return DaskPool(self._context, self._state, self._options)

    def _worker(self, number: int) -> ChunkWorker:
        plan, target, markers = self._state.plan, self._context.target, self._state.masters.markers
        way = self._context.source_config, plan, target, self._throttle
        pool = self._context.pool
        if markers is None:
            return ChunkWorker(*way, pool=pool, dry_run=True)
        if self._state.changes:
            return ChangedOnlyWorker(self._state.changes, *way, markers.field(number), pool)
        erase = incremental.erasing(plan, self._context.lookup, target, self._throttle)
        return ChunkWorker(*way, pool=pool, marking=markers.field(number), erase=erase)

    def _next_event(self) -> Event | None:
        """The next event; None after a second without one. A signal, and what ended a worker, is raised."""
        self._look_at_load()
        return self._pool.next_event(LOOK_EVERY)

    def _look_at_load(self) -> None:
        """Make the workers wait while MySQL has too much to do, or its replica is too far behind."""
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        self._throttle.busy = self._guard.busy()

    def _chunks(self) -> Iterator[Chunk]:
        """The chunks to load: first those that a checkpoint owes, then the rest of the table."""
        account, plan, fetch = self._account, self._state.plan, self._context.fetch
        yield from account.backlog()
        rows = self._options.chunk_rows or plan.job.chunk_rows
        if self._state.changes:
            yield from self._state.changes.chunks(rows, fetch, self._context.with_retry)
        elif not account.ended:
            for chunk in chunk_ranges(plan, rows, fetch, after=account.after, number=account.number):
                account.plan(chunk)
                yield chunk

    def _list_rejects(self, event: ChunkLoaded) -> None:
        """List the rows of a chunk that could not be written."""
        if event.rejects and not self._options.dry_run:
            self._context.with_retry(lambda: self._state.rejects.add(event.rejects, self._state.attempt))

    def _save(self, patience: float, throttle: Throttle) -> None:
        """Save the checkpoint, unless the lock has expired and it may be another run's."""
        markers = self._state.masters.markers
        if not markers or not self._options.resume or self._throttle.lapsed():
            return
        if saved := self._account.checkpoint(markers.keys):
            retry_transient(lambda: self._state.store.save(saved), patience, throttle)
