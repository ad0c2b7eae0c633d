"""The workers of a Dask cluster in place of threads: each chunk is a task, and reports what became of it."""

import logging
import pickle
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from secrets import token_hex
from typing import Any

import distributed

from loader.errors import ConfigError, Kind, LoaderError, SourceError, StartOver
from loader.model import Chunk, Waiting
from loader.mysql.errors import more_connections
from loader.pipeline.dask_worker import (
    PACKAGE,
    TOPIC,
    Again,
    Failed,
    Loaded,
    Outcome,
    Task,
    Work,
    end,
    facts_of_target,
    unlike,
)
from loader.pipeline.job_context import JobContext
from loader.pipeline.options import Options
from loader.pipeline.retry import FRESH, Event
from loader.pipeline.run_state import RunState
from loader.process import start_thread
from loader.words import counted

CONNECT = 5.0  # seconds in which the scheduler must answer
LOOK_EVERY = 1.0  # seconds between two looks at which workers there are
AHEAD = 2  # chunks for each thread of the cluster: one being loaded, one waiting beside it
SILENT = ("distributed", "distributed.client", "tornado.application", "asyncio")  # loggers that print tracebacks


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
        self._address = options.dask.address
        self._version = metadata.version(PACKAGE)
        self._id = token_hex(6)
        self._most = 0  # chunks at the same time
        self._threads = 0
        self._looked = 0.0
        self._alone: float | None = None  # since when there is no worker
        self._is_told = False  # whether anyone was told of that
        self._waiting: deque[tuple[Chunk, int]] = deque()  # chunks that Dask does not have yet, and their tries
        self._flights: dict[Any, _Flight] = {}  # by their future
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()  # futures, events and errors
        self._late: list[Event] = []
        self._work: tuple[tuple[str, ...], bytes] | None = None
        self._ended: bool | None = None
        self._client = _connected(self._address)
        try:
            self._check_versions()
            self._client.subscribe_topic(TOPIC, self._hear)
        except BaseException:
            self._client.close(CONNECT)
            raise

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
        return self._event(report) if isinstance(report, distributed.Future) else report

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
            if self._client.status == "running":
                self._waiting.clear()
                _ask_workers(self._client, patience, end, self._id)
                self._await_rest(until)
                self._ended = not self._flights
            with suppress(Exception):  # Dask's own: nothing is left to do there
                self._client.close(CONNECT)
        return self._ended

    def _await_rest(self, until: float) -> None:
        """Wait for the chunks under way."""
        while self._flights and (left := until - time.monotonic()) > 0:
            with suppress(queue.Empty, LoaderError):
                report = self._done.get(timeout=left)
                if isinstance(report, distributed.Future) and (event := self._event(report)):
                    self._late.append(event)

    def _event(self, future: Any) -> Event | None:
        """The event of a chunk that Dask is done with; None if it was given to a worker again."""
        flight = self._flights.pop(future)
        outcome = self._outcome(future, flight)
        future.release()
        if isinstance(outcome, Loaded):
            self._context.target.fences.abandoned |= not outcome.settled
            retried = outcome.event.retried + flight.tries - 1
            return replace(outcome.event, began=flight.began, grant=flight.grant, retried=retried)
        if isinstance(outcome, Failed):
            if outcome.starts_over:
                raise StartOver(outcome.reason)
            raise LoaderError(outcome.reason, kind=outcome.kind)
        self._again(flight, outcome)
        return None

    def _again(self, flight: _Flight, outcome: Again) -> None:
        """Give a chunk to a worker again."""
        if flight.tries >= FRESH:
            raise LoaderError(f"{outcome.reason}, as {FRESH} times before for chunk {flight.chunk.number}")
        if (markers := self._state.masters.markers) and (node := outcome.node):
            self._context.with_retry(lambda: markers.move(node))
        self._waiting.append((flight.chunk, flight.tries + 1))
        self._submit()

    def _outcome(self, future: Any, flight: _Flight) -> Outcome:
        """The outcome of a task; a `LoaderError` if Dask has none."""
        try:
            outcome: Outcome = future.result()
        except (CancelledError, OSError) as error:
            raise self._gone() from error
        except distributed.KilledWorker as error:
            raise LoaderError(
                f"chunk {flight.chunk.number} was under way at {counted(error.allowed_failures + 1, 'dask worker')}"
                f" that died, the last at {error.last_worker.address}: see why they did"
            ) from error
        except LoaderError:
            raise
        except Exception as error:
            self._check_versions()
            raise LoaderError(f"a dask worker failed: unexpected {type(error).__name__}") from error
        if isinstance(outcome, Failed) and outcome.kind is Kind.LOCKED:
            self._context.with_retry(self._context.throttle.confirm)
            if self._context.throttle.grant() != flight.grant:
                return Again(outcome.reason)
            return Failed(f"{outcome.reason}: its config names another Redis than this one's", Kind.REFUSED)
        return outcome

    def _submit(self) -> None:
        """Give Dask the chunks that wait for it, unless MySQL is too busy."""
        while self._waiting and len(self._flights) < self.room and not self._context.throttle.busy:
            chunk, tries = self._waiting.popleft()
            flight = _Flight(chunk, self._context.throttle.grant(), time.monotonic(), tries)
            task = pickle.dumps(Task(self._version, self._id, self._packed(), chunk))
            job = self._state.plan.job.name
            key = job, f"{job} {chunk.number}{self._total(chunk.number)}", token_hex(6)
            try:
                future = self._client.submit(pickle.loads, task, key=key, pure=False)
            except RuntimeError as error:  # it is closed
                raise self._gone() from error
            self._flights[future] = flight
            future.add_done_callback(self._done.put)

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

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """Note that a chunk waits, in Dask's own thread."""
        told = event[1]
        if told.get("run") != self._id:
            return
        chunk = next((each.chunk for each in list(self._flights.values()) if each.chunk.number == told["number"]), None)
        if chunk:
            self.report(Waiting(chunk, told["attempt"], told["seconds"], told["reason"], told["node"]))

    def _look(self) -> None:
        """See which workers there are; fail once there has been none for as long as the job retries."""
        self._looked = time.monotonic()
        if self._client.status != "running":
            raise self._gone()
        try:
            self._threads = sum(self._client.nthreads().values())
        except (OSError, RuntimeError, CancelledError) as error:
            raise self._gone() from error
        if self._threads:
            self._alone = None
            return
        none = f"the Dask scheduler at {self._address} has no workers: start some with `dask worker {self._address}`"
        owed = next((flight.chunk for flight in self._flights.values()), self._waiting[0][0] if self._waiting else None)
        if self._alone is None:
            self._alone, self._is_told = self._looked, False
        if owed and not self._is_told:
            self._is_told = True
            self.report(Waiting(owed, 1, LOOK_EVERY, none))
        if self._looked - self._alone > self._state.plan.job.deadline:
            raise LoaderError(none, kind=Kind.UNAVAILABLE)

    def _gone(self) -> LoaderError:
        return LoaderError(f"the Dask scheduler at {self._address} is gone", kind=Kind.UNAVAILABLE)

    def _check_versions(self) -> None:
        """Raise a `ConfigError` if a worker has another loader, or none."""
        for address, version in _ask_workers(self._client, CONNECT, metadata.version, PACKAGE).items():
            if isinstance(version, metadata.PackageNotFoundError):
                raise ConfigError(f"dask worker {address}: {unlike('no version', self._version)}")
            if isinstance(version, str) and version != self._version:
                raise ConfigError(f"dask worker {address}: {unlike(version, self._version)}")


class _Client(distributed.Client):
    """A client that is closed by us alone: one that never connected prints tracebacks when it is collected."""

    def __del__(self) -> None:
        """Leave it as it is."""


def _ask_workers(
    client: distributed.Client, seconds: float, ask: Callable[..., object], *words: object
) -> dict[str, object]:
    """The answers of all workers that give one within this many seconds, by their addresses; errors are answers."""
    answers: dict[str, object] = {}

    def collect() -> None:
        with suppress(Exception):  # the scheduler is gone, which is noticed elsewhere
            answers.update(client.run(ask, *words, on_error="return"))

    start_thread(collect).join(seconds)
    return answers.copy()


def _connected(address: str) -> distributed.Client:
    """A client of the scheduler; raises a `LoaderError` if none answers."""
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    answers: list[distributed.Client | Exception] = []

    def connect() -> None:
        try:
            answers.append(_Client(address, timeout=CONNECT, set_as_default=False))  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  # Dask's own, of many kinds
            answers.append(error)

    start_thread(connect).join(CONNECT + 1)  # it would wait for ever for a server of another kind
    answer = answers[0] if answers else None
    if isinstance(answer, ValueError):
        raise ConfigError(f"--dask {address}: {answer}: write the address of a scheduler, like tcp://host:8786")
    if answer is None or isinstance(answer, Exception):
        raise LoaderError(
            f"no Dask scheduler answers at {address} within {CONNECT:g} s: see --dask, and whether it runs",
            kind=Kind.UNAVAILABLE,
        ) from answer
    return answer
