"""The workers of a Dask cluster in place of threads: each chunk is a task, and reports what became of it."""

import pickle
import queue
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

from loader.errors import Kind, LoaderError, SourceError, StartOver
from loader.model import Chunk, Waiting
from loader.mysql.errors import more_connections
from loader.pipeline.dask_client import DaskClient, Done
from loader.pipeline.dask_worker import Again, Failed, Task, Work, facts_of_target
from loader.pipeline.job_context import JobContext
from loader.pipeline.options import Options
from loader.pipeline.retry import FRESH, Event
from loader.pipeline.run_state import RunState
from loader.words import counted

LOOK_EVERY = 1.0  # seconds between two looks at which workers there are
AHEAD = 2  # chunks for each thread of the cluster: one being loaded, one waiting beside it
ELSEWHERE = frozenset({Kind.LIMITED, Kind.UNAVAILABLE, Kind.UNSETTLED})  # of one worker, while others load chunks


@dataclass(slots=True)
class _Flight:
    """A chunk that Dask has: the grant of the lock, and the time, at which it was given; and how often it was."""

    chunk: Chunk
    grant: int
    began: float
    tries: int


class DaskPool:
    """The threads of all workers of a Dask cluster, in place of those of a `WorkerPool`.

    Raises a `LoaderError` with exit code 4 if no scheduler answers, and 2 if a worker has another loader.
    """

    def __init__(self, context: JobContext, state: RunState, options: Options) -> None:
        assert options.dask
        self._context = context
        self._state = state
        self._options = options
        self._id = token_hex(6)
        self._most = 0  # chunks at the same time
        self._threads = 0
        self._looked = 0.0
        self._loaded = float("-inf")  # when a chunk last was
        self._alone: float | None = None  # since when there is no worker, or no answer
        self._is_told = False  # whether anyone was told of that
        self._waiting: deque[tuple[Chunk, int]] = deque()  # chunks that Dask does not have yet, and their tries
        self._flights: dict[Any, _Flight] = {}  # by their future
        self._done: queue.SimpleQueue[Done | Event | BaseException] = queue.SimpleQueue()
        self._late: list[Event] = []
        self._work: tuple[tuple[str, ...], bytes] | None = None
        self._ended: bool | None = None
        self._client = DaskClient(options.dask.address, self._done.put, self._hear)

    @property
    def room(self) -> int:
        """How many chunks may be owed at the same time."""
        return max(1, min(self._most, AHEAD * self._threads))

    def start(self, count: int) -> None:
        """Load at most this many chunks at the same time; a `SourceError` if MySQL allows too few connections."""
        context = self._context
        self._most = count
        self._look()
        context.with_retry(self._state.store.disown)
        if (lanes := context.lanes(self._threads)) < self._threads:
            source, wanted = context.source_config, 1 + self._threads
            raise SourceError(
                f"mysql {source.address}: the account may have {1 + lanes} connections at a time"
                f" (max_user_connections), but the Dask workers have {counted(self._threads, 'thread')}, and this run"
                f" needs one: {more_connections(source.user or '', wanted)}",
                kind=Kind.REFUSED,
            )

    def give(self, chunk: Chunk) -> None:
        """Give a chunk to the next free worker."""
        self._waiting.append((chunk, 1))
        self._submit()

    def withdraw(self) -> set[int]:
        """Take back the chunks that Dask does not have yet; their numbers."""
        numbers = {chunk.number for chunk, _ in self._waiting}
        self._waiting.clear()
        return numbers

    def settle(self) -> None:
        """Nobody waits for a chunk to be in the checkpoint."""

    def report(self, event: Event | BaseException) -> None:
        """Put an event, or an error that ends the run, into the queue; from any thread or signal handler."""
        self._done.put(event)

    def next_event(self, seconds: float) -> Event | None:
        """The next event; None after this many seconds without one. A reported error is raised."""
        if time.monotonic() - self._looked >= LOOK_EVERY:
            self._look()
        self._submit()
        try:
            report = self._done.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(report, BaseException):
            raise report
        return self._event(report.future) if isinstance(report, Done) else report

    def rest(self) -> Iterator[Event]:
        """The events that nobody has read yet, without errors."""
        yield from self._late
        self._late.clear()

    def end(self, patience: float) -> bool:
        """Stop the workers at their next buffer, within this many seconds; return whether all have ended.

        The second time there is nothing left to wait for.
        """
        if self._ended is None:
            self._ended = False
            until = time.monotonic() + patience
            if self._client.is_there:
                self._waiting.clear()
                self._client.end_run(self._id)
                if self._alone is None:
                    self._await_rest(until)
                self._ended = not self._flights
            self._client.close()
        return self._ended

    def _await_rest(self, until: float) -> None:
        """Wait for the chunks under way."""
        while self._flights and (left := until - time.monotonic()) > 0:
            with suppress(queue.Empty, LoaderError):
                report = self._done.get(timeout=left)
                if isinstance(report, Done) and (event := self._event(report.future)):
                    self._late.append(event)

    def _event(self, future: Any) -> Event | None:
        """The event of a chunk that Dask is done with; None if there is nothing to tell."""
        flight = self._flights.pop(future)
        outcome = self._client.outcome(future, f"chunk {flight.chunk.number}")
        if outcome is None:
            self._flights[future] = flight
            self._client.watch(future)
            return None
        self._alone = None
        future.release()
        if isinstance(outcome, Failed):
            outcome = self._judged(outcome, flight)
        if isinstance(outcome, Again):
            return self._again(flight, outcome)
        self._loaded = time.monotonic()
        self._context.target.fences.abandoned |= not outcome.settled
        retried = outcome.event.retried + flight.tries - 1
        return replace(outcome.event, began=flight.began, grant=flight.grant, retried=retried)

    def _judged(self, failed: Failed, flight: _Flight) -> Again:
        """What to do about a failure, unless it ends the run."""
        if failed.starts_over:
            raise StartOver(failed.reason)
        if failed.kind is Kind.LOCKED:
            self._context.with_retry(self._context.throttle.confirm)
            if self._context.throttle.grant() != flight.grant:
                return Again(failed.reason)
            raise LoaderError(f"{failed.reason}: its config names another Redis than this one's", kind=Kind.REFUSED)
        if failed.kind in ELSEWHERE and time.monotonic() - self._loaded <= self._state.plan.job.deadline:
            return Again(failed.reason, passes=True)
        raise LoaderError(failed.reason, kind=failed.kind)

    def _again(self, flight: _Flight, outcome: Again) -> Event | None:
        """Give a chunk to a worker again; the event if a person should know."""
        chunk, moved = flight.chunk, outcome.marker
        if flight.tries >= FRESH and not outcome.passes:
            raise LoaderError(f"{outcome.reason}, as {FRESH} times before for chunk {chunk.number}")
        if (markers := self._state.masters.markers) and moved:
            self._context.with_retry(lambda: markers.retire(moved))
        self._waiting.append((chunk, flight.tries + 1))
        self._submit()
        return Waiting(chunk, flight.tries, 0.0, outcome.reason) if outcome.passes else None

    def _submit(self) -> None:
        """Give Dask the chunks that wait for it, unless MySQL is too busy."""
        while self._waiting and len(self._flights) < self.room and not self._context.throttle.busy:
            chunk, tries = self._waiting.popleft()
            flight = _Flight(chunk, self._context.throttle.grant(), time.monotonic(), tries)
            task = Task(self._client.version, self._id, self._packed(), chunk)
            job = self._state.plan.job.name
            future = self._client.submit(task, job, f"{job} {chunk.number}{self._total(chunk.number)}")
            self._flights[future] = flight

    def _total(self, number: int) -> str:
        """How many chunks there will be, as far as is known, after a stroke."""
        plan = self._state.plan
        if not plan.expected:
            return ""
        return f"/{max(number, -(-plan.expected // (self._options.chunk_rows or plan.job.chunk_rows)))}"

    def _packed(self) -> bytes:
        """All that a worker has to know of the run."""
        context, state, options = self._context, self._state, self._options
        assert state.masters.markers
        assert options.dask
        keys = state.masters.markers.keys
        if self._work is None or self._work[0] != keys:
            work = Work(
                id=self._id,
                token=context.held.token,
                name=context.target.name,
                run=state.masters.markers.run,
                files=options.dask.files,
                where=options.where,
                key_range=options.key_range,
                plan=state.plan,
                facts=state.facts | facts_of_target(context.settings.target),
                marker=state.store.marker,
                markers=keys,
            )
            self._work = keys, pickle.dumps(work)
        return self._work[1]

    def _hear(self, told: dict[str, Any]) -> None:
        """Note that a chunk waits, in Dask's own thread."""
        if told.get("run") != self._id:
            return
        chunk = next((each.chunk for each in list(self._flights.values()) if each.chunk.number == told["number"]), None)
        if chunk:
            self.report(Waiting(chunk, told["attempt"], told["seconds"], told["reason"], told["node"]))

    def _look(self) -> None:
        """See which workers there are; fail once there has been none, or no answer, for as long as the job retries."""
        address, threads = self._client.address, self._client.threads()
        self._looked = time.monotonic()
        self._threads = self._threads if threads is None else threads
        if threads:
            self._alone = None
            return
        none = f"the Dask scheduler at {address} has no workers: start some with `dask worker {address}`"
        why = f"the Dask scheduler at {address} does not answer" if threads is None else none
        owed = next((flight.chunk for flight in self._flights.values()), self._waiting[0][0] if self._waiting else None)
        if self._alone is None:
            self._alone, self._is_told = self._looked, False
        if owed and not self._is_told:
            self._is_told = True
            self.report(Waiting(owed, 1, LOOK_EVERY, why))
        if self._looked - self._alone > self._state.plan.job.deadline:
            raise LoaderError(why, kind=Kind.UNAVAILABLE)
