"""A run's crew: the workers, the walk along the key ahead of them, and what is loaded and still owed."""

import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Self

from loader.errors import LoaderError, StartOver, Stopped
from loader.model import Chunk, ChunkLoaded, ChunkOwed, Notice
from loader.mysql.chunker import chunk_ranges
from loader.net.limit import until
from loader.pipeline import incremental
from loader.pipeline.changed_only import ChangedOnlyWorker
from loader.pipeline.events import RunListener
from loader.pipeline.job_context import JobContext
from loader.pipeline.ledger import SHARED, Ledger
from loader.pipeline.load_guard import LoadGuard
from loader.pipeline.options import Options
from loader.pipeline.retry import FRESH, Event, retry_transient
from loader.pipeline.run_state import RunState
from loader.pipeline.throttle import Throttle
from loader.pipeline.worker import ChunkWorker
from loader.process import start_thread
from loader.redis.topology import REFRESH
from loader.redis.writer import REPLICA_WAIT
from loader.state.checkpoint import Checkpoint
from loader.state.markers import LOST
from loader.wire.slots import SlotMap
from loader.words import counted

LEAVE = 10.0  # seconds that workers have to end when a run is stopped
GIVE_UP = 1.0  # and when it has failed: one that waits for a silent server is left to itself
SAVE = 1.5  # seconds that the checkpoint of a run that has ended has
LOOK_EVERY = 1.0  # seconds between two looks at MySQL's load
UNKNOWN = "not all of its replicas have what it has of {}, which is lost where such a one takes over"


class WorkerPool:
    """One run's threads, and the account of its chunks.

    A run that writes holds the job's lock, and has replicas acknowledge each chunk; one with `Options.resume` keeps a
    checkpoint.
    """

    def __init__(self, ends: JobContext, basis: RunState, options: Options) -> None:
        self._ends = ends
        self._basis = basis
        self._options = options
        self._throttle = ends.throttle
        self._saved: Checkpoint | None = None  # of a run that writes, saved or not
        self._backlog: deque[Chunk] = deque()  # chunks of the checkpoint that no worker has yet
        self._owed: dict[int, Chunk] = {}  # chunks that workers have, or that wait for one
        self._left: set[int] = set()  # chunks that no worker is to begin any more
        self._ledger = Ledger()
        self._exposed: dict[str, dict[int, float]] = {}  # chunks that replicas lack, by node, since when
        self._repeats = 0  # times that chunks were owed again
        self._slots: SlotMap | None = None  # as they were when the markers were looked at
        self._threads: list[threading.Thread] = []
        self._todo: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._heard: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._counted = threading.Semaphore(0)  # chunks that are in the checkpoint, or need not be
        self._stop: Stopped | None = None  # what a signal asked for
        self._watch = LoadGuard(ends.settings.source, ends.fetch, options.max_load, options.max_lag)
        self._looked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, at their next buffer."""
        self._end()
        self._watch.close()

    @property
    def owed(self) -> int:
        """Chunks that are known and not loaded."""
        return len(self._owed) + len(self._backlog)

    def take_up(self, run: str) -> None:
        """Lock the job, unless nothing is to be written, and begin where the basis says."""
        if self._options.dry_run:
            self._basis.begin()
            return
        self._ends.lock(run, self._options.shard, self._heard.put, moved=self._options.restart)
        self._saved = self._basis.take_up(run)
        self._backlog = deque(self._saved.owed)
        self._ledger.vouch((key, *each) for key, fields in self._saved.marks.items() for each in fields.items())
        self._slots = self._ends.target.slots

    def events(self, listener: RunListener) -> Iterator[ChunkLoaded | ChunkOwed]:
        """Load chunk after chunk, up to one ahead of each worker, and yield each when it is in Redis, or is no more.

        A signal is heard between two steps, so that no chunk is lost between two books.
        """
        wanted = self._options.workers if self._basis.plan.walk else 1
        count = self._ends.lanes(wanted)
        if count < wanted:
            listener.notify(
                Notice(f"{count} of {wanted} workers: the account may have {count + 1} connections to MySQL")
            )
        self._look()
        for number in range(count):
            self._threads.append(start_thread(self._work, number))
        with self._heard_signals():
            try:
                yield from self._loaded(listener, count)
                self._basis.finish(self._ledger.marks())
            except StartOver:
                raise
            except LoaderError as error:
                end = self._stop or error
                self._end(LEAVE if isinstance(end, Stopped) else GIVE_UP)
                yield from self._complete()
                yield from self._doubt()
                try:
                    with until(time.monotonic() + SAVE):
                        self._save(SAVE, Throttle())
                except LoaderError as failure:
                    raise type(end)(f"{end}; the checkpoint is older: {failure}", kind=end.kind) from end
                raise end from None

    def _loaded(self, listener: RunListener, count: int) -> Iterator[ChunkLoaded | ChunkOwed]:
        chunks = self._chunks()
        while True:
            self._heed()
            while len(self._owed) < 2 * count and (chunk := next(chunks, None)):
                self._owed[chunk.number] = chunk
                self._todo.put(chunk)
            if not self._owed:
                yield from self._settle(listener)
            if not self._owed:
                return
            event = self._next_event()
            listener.notify(event)
            if isinstance(event, ChunkLoaded):
                del self._owed[event.chunk.number]
                yield event
                self._ledger.add(event)
                self._expose(event)
                self._list_rejects(event)
                if self._ends.is_doubtful(event.grant):
                    yield from self._owe_again([event], listener, SHARED)
                self._save(self._ends.plan.job.deadline, self._throttle)
                self._counted.release()
            yield from self._find_lost(listener)

    def _heed(self) -> None:
        """Once the run is asked to halt, have no further chunk begun, and stop when those under way are done."""
        if not self._options.halt.asked:
            return
        with suppress(queue.Empty):
            while chunk := self._todo.get_nowait():
                self._left.add(chunk.number)
        if self._left >= self._owed.keys() or self._options.halt.now:
            raise Stopped("stopped, as the daemon is")

    def _expose(self, event: ChunkLoaded) -> None:
        """Remember which masters have a chunk without a replica, until a later chunk's WAIT covers it."""
        for node in self._exposed.keys() & event.nodes.keys() - event.exposed:
            left = {number: since for number, since in self._exposed.pop(node).items() if since > event.began}
            if left:
                self._exposed[node] = left
        for node in event.exposed:
            self._exposed.setdefault(node, {})[event.chunk.number] = time.monotonic()

    def _settle(self, listener: RunListener) -> Iterator[ChunkOwed]:
        """All chunks are counted: see whether they still are there, on all replicas, and under a lock that was held."""
        self._ends.with_retry(self._throttle.confirm)
        yield from self._find_lost(listener, now=True)
        markers, target = self._basis.markers, self._ends.target
        if self._owed or not self._exposed or markers is None:
            return
        for node in target.slots.nodes:
            if str(node) in self._exposed and self._ends.with_retry(lambda: markers.reach_all(node, REPLICA_WAIT)):  # noqa: B023
                del self._exposed[str(node)]
        if self._exposed:
            self._throttle.sleep(REFRESH)
            self._ends.with_retry(lambda: target.refresh(force=True))
            yield from self._find_lost(listener, now=True)
        if not self._owed:
            masters = set(map(str, target.slots.nodes))
            for name in self._exposed.keys() & masters:
                listener.notify(Notice(f"redis {name}: {UNKNOWN.format(counted(len(self._exposed[name]), 'chunk'))}"))

    def _find_lost(self, listener: RunListener, *, now: bool = False) -> Iterator[ChunkOwed]:
        """Have written again what a master has lost, and what another run may have written over.

        Looked for now and then, and when the nodes have changed.
        """
        markers, slots = self._basis.markers, self._ends.target.slots
        if markers is None:
            return
        if (since := self._ends.take_doubt()) is not None:
            yield from self._owe_again(self._ledger.since(since), listener, SHARED)
        if not (now or slots is not self._slots or self._basis.is_time_to_look()):
            return
        yield from self._owe_again(self._ledger.lost(self._basis.find_markers()), listener, LOST)
        if self._slots and slots.parts != self._slots.parts:
            self._ledger.vouch(self._ends.with_retry(markers.note_moves))
        self._slots = slots

    def _owe_again(self, events: Sequence[ChunkLoaded], listener: RunListener, why: str) -> Iterator[ChunkOwed]:
        """Have chunks written again that were counted."""
        if not events:
            return
        self._repeats += 1
        if self._repeats > FRESH:
            told = self._basis.evicted()
            raise LoaderError(f"{why}, and so {FRESH} times before in this run{told and ': '}{told}")
        listener.notify(
            Notice(f"{counted(len(events), 'chunk')} {'are' if len(events) > 1 else 'is'} written again: {why}")
        )
        yield from self._owe(events)
        for event in events:
            if changes := self._basis.changes:
                self._ends.with_retry(partial(changes.mark_dirty, event.chunk.number))
            self._todo.put(event.chunk)

    def _owe(self, events: Sequence[ChunkLoaded]) -> Iterator[ChunkOwed]:
        """Count chunks out."""
        numbers = {event.chunk.number for event in events}
        self._ledger.strike(numbers)
        for node, chunks in list(self._exposed.items()):
            self._exposed[node] = {number: since for number, since in chunks.items() if number not in numbers}
            if not self._exposed[node]:
                del self._exposed[node]
        for event in events:
            self._owed[event.chunk.number] = event.chunk
            if self._saved:
                self._saved = replace(self._saved, rejected=self._saved.rejected - len(event.rejects))
            yield ChunkOwed(event)

    def _doubt(self) -> Iterator[ChunkOwed]:
        """The run fails: what another run may have written over meanwhile is owed by the checkpoint."""
        if (since := self._ends.take_doubt()) is not None:
            yield from self._owe(self._ledger.since(since))

    def _complete(self) -> Iterator[ChunkLoaded | ChunkOwed]:
        """The chunks that were complete when the workers ended, and were not heard of yet."""
        while not self._heard.empty():
            event = self._heard.get()
            if isinstance(event, ChunkLoaded):
                del self._owed[event.chunk.number]
                yield event
                self._ledger.add(event)
                self._expose(event)
                with suppress(LoaderError), self._ends.leaving():  # they are counted, and found by the next whole run
                    self._list_rejects(event)
                if self._ends.is_doubtful(event.grant):
                    yield from self._owe([event])

    @contextmanager
    def _heard_signals(self) -> Iterator[None]:
        """Hear SIGINT and SIGTERM as events; a second one ends the process at once.

        Who waits to try something again stops waiting. While the main thread waits for MySQL to find a bound, there is
        no next step, and it is interrupted.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def hear(number: int, _: object) -> None:
            for each in before:
                signal.signal(each, signal.SIG_DFL)
            stop = Stopped.by(signal.Signals(number).name)
            self._stop = stop
            self._throttle.stop()
            if self._ends.scouting:
                raise stop
            self._heard.put(stop)

        before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, patience: float = LEAVE) -> None:
        """End the workers; the second time there is nothing left to wait for.

        What one that does not end has sent may be carried out later: the fence has to stay.
        """
        self._throttle.stop()
        for _ in self._threads:
            self._todo.put(None)
            self._counted.release()
        end = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0, end - time.monotonic()))
        self._ends.target.abandoned |= any(thread.is_alive() for thread in self._threads)
        self._threads = []

    def _work(self, number: int) -> None:
        """What one worker's thread does.

        It begins no chunk before one is in the checkpoint for it: so a kill repeats one chunk a worker at most.
        """
        worker = self._worker(number)
        try:
            while chunk := self._todo.get():
                self._heard.put(worker.load(chunk, self._heard.put))
                self._counted.acquire()
        except BaseException as error:  # noqa: BLE001  # it is raised where the run waits
            if isinstance(error, LoaderError) and not isinstance(error, Stopped):
                self._throttle.failure = error
            self._heard.put(error)
        finally:
            worker.close()

    def _worker(self, number: int) -> ChunkWorker:
        plan, target, markers = self._basis.plan, self._ends.target, self._basis.markers
        way = self._ends.settings.source, plan, target, self._throttle
        if markers is None:
            return ChunkWorker(*way, dry_run=True)
        if self._basis.changes:
            return ChangedOnlyWorker(self._basis.changes, *way, markers.field(number))
        erase = incremental.erasing(plan, self._ends.lookup(), target, self._throttle)
        return ChunkWorker(*way, marking=markers.field(number), erase=erase)

    def _next_event(self) -> Event | None:
        """The next event; None after a second without one. A signal, and what ended a worker, is raised."""
        self._look()
        try:
            event = self._heard.get(timeout=LOOK_EVERY)
        except queue.Empty:
            event = None
        if isinstance(event, BaseException):
            raise event
        return event

    def _look(self) -> None:
        """Have the workers wait while MySQL has too much to do, or its replica is too far behind."""
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        self._throttle.busy = self._watch.busy()

    def _chunks(self) -> Iterator[Chunk]:
        """The chunks to load: first what a checkpoint owes, then the rest of the table."""
        while self._backlog:
            yield self._backlog.popleft()
        plan, fetch = self._basis.plan, self._ends.fetch
        rows = self._options.chunk_rows or plan.job.chunk_rows
        if self._basis.changes:
            yield from self._basis.changes.chunks(rows, fetch, self._ends.with_retry)
            return
        after, number = None, 1
        if self._saved:
            if self._saved.ended:
                return
            after, number = self._saved.after, self._saved.number
        for chunk in chunk_ranges(plan, rows, fetch, after=after, number=number):
            if self._saved:
                self._saved = replace(self._saved, after=chunk.upto, ended=chunk.upto is None, number=chunk.number + 1)
            yield chunk

    def _list_rejects(self, event: ChunkLoaded) -> None:
        """Keep account of the rows of a chunk that could not be written."""
        if self._saved and event.rejects:
            self._saved = replace(self._saved, rejected=self._saved.rejected + len(event.rejects))
            self._ends.with_retry(lambda: self._basis.rejects.add(event.rejects, self._basis.attempt))

    def _save(self, patience: float, throttle: Throttle) -> None:
        """Have the checkpoint say what is owed now, unless the lock has lapsed and it may be another run's."""
        if self._saved and self._basis.markers and self._options.resume and not self._throttle.lapsed():
            saved = replace(
                self._saved,
                owed=(*self._owed.values(), *self._backlog),
                markers=self._basis.markers.keys,
                marks=self._ledger.by_marker(),
            )
            retry_transient(lambda: self._basis.state.save(saved), patience, throttle)
