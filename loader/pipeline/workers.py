"""The threads of a run: each loads one chunk after another, and all report to one queue."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from loader.errors import LoaderError, Stopped
from loader.model import Chunk
from loader.pipeline.retry import Event
from loader.pipeline.throttle import Throttle
from loader.pipeline.worker import ChunkWorker
from loader.process import Work, start_thread


class Executor(Protocol):
    """Loads chunks and reports to one queue: `WorkerPool`, or the workers of a Dask cluster."""

    @property
    def room(self) -> int:
        """How many chunks may be owed at the same time."""

    def start(self, count: int) -> None:
        """Load at most this many chunks at the same time."""

    def give(self, chunk: Chunk) -> None:
        """Queue a chunk for the next free worker."""

    def withdraw(self) -> set[int]:
        """Take back the chunks that no worker has begun; their numbers."""

    def settle(self) -> None:
        """Note that a chunk is in the checkpoint, or need not be."""

    def report(self, event: Event | BaseException) -> None:
        """Put an event, or an error that ends the run, into the queue; from any thread or signal handler."""

    def next_event(self, seconds: float) -> Event | None:
        """The next event; None after this many seconds without one. A reported error is raised."""

    def rest(self) -> Iterator[Event]:
        """The events that nobody has read yet, without errors."""

    def end(self, patience: float) -> bool:
        """Stop the workers at their next buffer, within this many seconds; return whether all have ended."""


class WorkerPool:
    """Worker threads, the chunks that wait for one, and the events that have not been read yet.

    `make` makes the worker of a number. After each chunk a worker waits until one chunk is `settled`, that is, in the
    checkpoint: so a kill repeats at most one chunk per worker.
    """

    def __init__(self, make: Callable[[int], ChunkWorker], throttle: Throttle) -> None:
        self._make = make
        self._throttle = throttle
        self._threads: list[Work] = []
        self._most = self._given = 0
        self._waiting: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._reported: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._settled = threading.Semaphore(0)

    @property
    def room(self) -> int:
        """How many chunks may be owed at the same time: for each worker one that it loads, and one that waits."""
        return 2 * self._most

    def start(self, count: int) -> None:
        """Allow this many workers; each starts once there is a chunk more than those before it have been given."""
        self._most = count

    def give(self, chunk: Chunk) -> None:
        """Queue a chunk for the next free worker."""
        self._given += 1
        self._waiting.put(chunk)
        if len(self._threads) < min(self._most, self._given):
            self._threads.append(start_thread(self._work, len(self._threads)))

    def withdraw(self) -> set[int]:
        """Take back the chunks that no worker has begun; their numbers."""
        numbers = set()
        with suppress(queue.Empty):
            while chunk := self._waiting.get_nowait():
                numbers.add(chunk.number)
        return numbers

    def settle(self) -> None:
        """Let a worker begin one more chunk: another one is in the checkpoint, or need not be."""
        self._settled.release()

    def report(self, event: Event | BaseException) -> None:
        """Put an event, or an error that ends the run, into the queue; from any thread or signal handler."""
        self._reported.put(event)

    def next_event(self, seconds: float) -> Event | None:
        """The next event; None after this many seconds without one. A reported error is raised."""
        try:
            event = self._reported.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(event, BaseException):
            raise event
        return event

    def rest(self) -> Iterator[Event]:
        """The events that nobody has read yet, without errors."""
        while not self._reported.empty():
            event = self._reported.get()
            if not isinstance(event, BaseException):
                yield event

    def end(self, patience: float) -> bool:
        """Stop the workers at their next buffer, within this many seconds; return whether all have ended.

        The second time there is nothing left to wait for.
        """
        self._throttle.stop()
        for _ in self._threads:
            self._waiting.put(None)
            self.settle()
        end = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0, end - time.monotonic()))
        ended = not any(thread.is_alive() for thread in self._threads)
        self._threads = []
        return ended

    def _work(self, number: int) -> None:
        """Load chunks in one thread until there is a None instead of one, or an error."""
        worker = self._make(number)
        try:
            while chunk := self._waiting.get():
                self.report(worker.load(chunk, self.report))
                self._settled.acquire()
            worker.leave()
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits
            if isinstance(error, LoaderError) and not isinstance(error, Stopped):
                self._throttle.failure = error
            self.report(error)
        finally:
            worker.close()
