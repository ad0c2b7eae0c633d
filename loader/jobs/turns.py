"""Several jobs in turn: while one of them has to wait, others go on, so that a pause of one is a pause of all."""

import heapq
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Generic, Self, TypeVar

from loader.config.models import JobConfig
from loader.errors import Kind, LoaderError, Stopped
from loader.jobs import recheck
from loader.jobs.heard import Heard
from loader.jobs.session import JobSession
from loader.records import dataclass

HELD = 10  # times that a job is tried which another run has locked in the pause

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pause:
    """What work on a job yields to let others go on: when it is `due` again, and how many keys it keeps until then."""

    due: float  # on the monotonic clock
    keys: int = 0


Turn = Generator[Pause, None, T]  # work on a job, with its result


class Turns:
    """What work on a job has to know of the others; a job that is alone waits by itself."""

    def __init__(self, *, shared: bool = False) -> None:
        self.is_shared = shared
        self.away: set[str] = set()  # sources of jobs that failed because a server was away
        self.next_due: Callable[[], float | None] = lambda: None

    @property
    def are_due(self) -> bool:
        """Whether others have waited long enough."""
        due = self.next_due()
        return due is not None and due <= time.monotonic()


ALONE = Turns()


def alone(work: Turn[T]) -> T:
    """Do work on one job to its end; returns its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def at_once(result: Callable[[], T]) -> Turn[T]:
    """Work that does not pause."""
    yield from ()
    return result()


class Visits:
    """The sessions of a job, one after another: while it pauses and others go on none is open, and it is not locked."""

    def __init__(self, job: JobConfig, opened: Callable[..., JobSession], turns: Turns, heard: Heard) -> None:
        self._job = job
        self._opened = opened  # takes `again`, see `JobSession`
        self._turns = turns
        self._heard = heard
        self._session: JobSession | None = None
        self.is_first = True

    def __enter__(self) -> Self:
        self._session = self._opened()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        session, self._session = self._session, None
        if session:
            session.__exit__(kind)

    @property
    def session(self) -> JobSession:
        """The one that is open."""
        assert self._session
        return self._session

    def make_way(self) -> Iterator[Pause]:
        """Let those that are due go on before the work is over; the job stays open and locked."""
        if self._turns.are_due:
            self.session.rest()
            self._heard.rest()
            yield Pause(time.monotonic())

    def pause(self, due: float, keys: int) -> Turn[bool]:
        """Let others go on until it is due, and then open the job again; returns whether the session is a new one.

        A job that is alone stays open: whoever looks again waits until it is due.
        """
        if not self._turns.is_shared:
            return False
        self.session.check()
        self.__exit__(None)
        self._heard.rest()
        yield Pause(due, keys)
        self.is_first = False
        for left in reversed(range(HELD)):
            try:
                self._session = self._opened(again=self._job.origin.source not in self._turns.away)
                break
            except LoaderError as error:
                if error.kind is not Kind.LOCKED or not left:
                    raise
            yield Pause(time.monotonic() + recheck.PAUSE, keys)
        return True


def in_turn(
    jobs: Sequence[JobConfig], begin: Callable[[JobConfig, Turns], Turn[T]]
) -> Iterator[tuple[JobConfig, T | LoaderError]]:
    """Do work on several jobs, and yield how that of each ended, in their order: its result, or why it failed.

    A signal stops all: what has ended is yielded, and `Stopped` for each job whose work had begun, before it is raised.
    """
    works = _InTurn(jobs, begin)
    try:
        while works.are_left:
            try:
                works.go_on()
            except Exception as error:
                works.close()
                yield from works.broken_off(error)
                raise
            yield from works.ended()
    finally:
        works.close()


class _InTurn(Generic[T]):
    """The work on some jobs: that which is due goes on first, then another job begins."""

    def __init__(self, jobs: Sequence[JobConfig], begin: Callable[[JobConfig, Turns], Turn[T]]) -> None:
        self._begin = begin
        self._turns = Turns(shared=len(jobs) > 1)
        self._turns.next_due = lambda: self._waiting[0][0] if self._waiting else None
        self._jobs = list(jobs)
        self._untold = deque(jobs)
        self._fresh = deque(range(len(jobs)))
        self._waiting: list[tuple[float, int, int]] = []  # a heap: due, number of the job, keys that it keeps
        self._kept = 0  # keys, of all of them
        self._works: dict[int, Turn[T]] = {}  # that have begun
        self._ends: dict[str, T | LoaderError] = {}

    @property
    def are_left(self) -> bool:
        """Whether there is work to do."""
        return bool(self._fresh or self._waiting)

    def go_on(self) -> None:
        """Go on with the work on one job, up to its next pause; wait if there is nothing else to do."""
        if self._waiting and (self._turns.are_due or not self._fresh or self._kept > recheck.PENDING):
            due, number, keys = heapq.heappop(self._waiting)
            self._kept -= keys
            time.sleep(max(0.0, due - time.monotonic()))
        else:
            number = self._fresh.popleft()
            self._works[number] = self._begin(self._jobs[number], self._turns)
        job = self._jobs[number]
        try:
            pause = next(self._works[number])
        except StopIteration as end:
            self._ends[job.name] = end.value
        except Stopped:
            raise
        except LoaderError as error:
            if error.kind.is_unreachable:
                self._turns.away.add(job.origin.source)
            self._ends[job.name] = error
        else:
            heapq.heappush(self._waiting, (pause.due, number, pause.keys))
            self._kept += pause.keys
            return
        del self._works[number]

    def ended(self) -> Iterator[tuple[JobConfig, T | LoaderError]]:
        """The ends of the next jobs, up to the first that has none yet."""
        while self._untold and self._untold[0].name in self._ends:
            job = self._untold.popleft()
            yield job, self._ends.pop(job.name)

    def broken_off(self, error: Exception) -> Iterator[tuple[JobConfig, T | LoaderError]]:
        """The ends of all jobs that have one; a signal is the end of the work that had begun."""
        if isinstance(error, Stopped):
            self._ends |= {self._jobs[number].name: error for number in self._works}
        for job in self._untold:
            if job.name in self._ends:
                yield job, self._ends.pop(job.name)

    def close(self) -> None:
        """Stop all work: sessions are closed, locks released."""
        for work in self._works.values():
            with suppress(LoaderError):
                work.close()
