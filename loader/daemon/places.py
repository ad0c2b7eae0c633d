"""Places: a bounded number of runs at once, each in a thread of its own; tasks that find no free place wait."""

import threading
from collections import deque
from collections.abc import Callable, Collection

from loader.errors import LoaderError
from loader.process import start_thread
from loader.records import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Something that needs a place: `work` runs in the thread, `refuse` is called if this machine has no more."""

    work: Callable[[], None]
    refuse: Callable[[LoaderError], None]


class Places:
    """The places and the tasks that wait for one, first come, first served; all calls but `wait` need `lock` held."""

    def __init__(self, at_once: int, lock: threading.RLock) -> None:
        self.at_once = at_once
        self._lock = lock
        self._waiting: deque[Task] = deque()
        self._running = 0
        self._stopped = False
        self._idle = threading.Event()
        self._idle.set()

    def add(self, task: Task) -> None:
        """Begin a task, or let it wait for a place."""
        self._waiting.append(task)
        self._fill()

    def withdraw(self, task: Task) -> bool:
        """Take back a task that waits for a place; false if it has begun."""
        if task not in self._waiting:
            return False
        self._waiting.remove(task)
        return True

    def stop(self) -> Collection[Task]:
        """Begin no more tasks; those that waited for a place."""
        self._stopped = True
        waiting, self._waiting = self._waiting, deque()
        return waiting

    def wait(self, seconds: float) -> bool:
        """Wait until no task is running, at most this long; whether none is."""
        return self._idle.wait(max(0, seconds))

    def _fill(self) -> None:
        while self._waiting and self._running < self.at_once and not self._stopped:
            task = self._waiting.popleft()
            self._running += 1
            self._idle.clear()
            try:
                start_thread(self._do, task)
            except LoaderError as error:  # this machine has no more threads
                self._running -= 1
                task.refuse(error)
        if not self._running:
            self._idle.set()

    def _do(self, task: Task) -> None:
        try:
            task.work()
        finally:
            with self._lock:
                self._running -= 1
                self._fill()
