"""The schedule: each job at its times, one run of a job at a time, a bounded number of jobs at once. No I/O of its own.

A *due time* is a time that a schedule names, in whole seconds since 1970; jitter moves the start of its run, the *fire
time*, and never the due time, which states, logs and metrics call the slot. Each due time that comes is settled once:
it was run, or done elsewhere, or skipped for a reason that listeners are told.

Alarms are the clock. Runs have their own threads, which end with the process: those of a pool would keep a process
alive whose server hangs.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial

from loader.daemon.alarms import AlarmClock
from loader.daemon.due_times import Timed
from loader.daemon.listeners import DueCounts, ScheduleListener, ScheduleListeners
from loader.daemon.places import Places, Task
from loader.daemon.timer import DRIFT, JobTimer
from loader.errors import Kind, LoaderError
from loader.model import Run
from loader.outcome import Outcome, Reason, Status
from loader.process import ticks
from loader.records import dataclass

BACKOFF, BACKOFF_MOST = 5.0, 300.0  # seconds until a failed run is retried, doubling
LOOK_AGAIN, LOOK_MOST = 2.0, 8.0  # seconds until a job that another process runs is checked again, doubling
DONE: Mapping[Kind | None, Reason] = {Kind.DONE: Reason.ELSEWHERE, Kind.PAUSED: Reason.PAUSED}
"""Why a due time is settled if its run ended with such a kind, having done nothing."""

LOG = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _ScheduledJob:
    """A job of the schedule and its state."""

    name: str
    timer: JobTimer
    task: Task | None = None  # while it runs, or waits for a place
    open: int | None = None  # a due time that is not settled yet
    failures: int = 0  # in a row, for the same due time
    looks: int = 0  # in a row, at a job that another process runs
    again: int = 0  # the due time of the next attempt
    counts: DueCounts = field(default_factory=DueCounts)


@dataclass(slots=True, eq=False)
class _ManualRun:
    """Work that was started by hand: it takes a place as a run at its due time does."""

    name: str
    task: Task
    delays: _ScheduledJob | None = None  # whose due time, or next attempt, has come since


class Schedule:
    """Runs jobs at their times: `work` takes a job's name and a due time, and returns the run, however it ended.

    `clock` returns the time for a job, in seconds since 1970: best by a clock that all daemons share.
    """

    def __init__(
        self,
        work: Callable[[str, int], Run],
        listeners: Sequence[ScheduleListener],
        at_once: int,
        clock: Callable[[str], float] = lambda _: time.time(),
    ) -> None:
        self._clock = clock
        self._work = work
        self._listeners = ScheduleListeners(listeners)
        self._lock = threading.RLock()
        self._alarms = AlarmClock(self._lock)
        self._places = Places(at_once, self._lock)
        self._entries: dict[str, _ScheduledJob] = {}
        self._by_hand: dict[str, _ManualRun] = {}
        self._dropped: set[_ScheduledJob] = set()  # removed jobs whose run continues
        self._stopping = False
        self._own = time.time() - ticks()  # what this machine's clock is set to

    def start(self) -> None:
        """Start watching the clock."""
        self._alarms.start()
        self.beat()

    @property
    def turned(self) -> float:
        """When the clock has last shown that it works, on the monotonic clock."""
        return self._alarms.turned

    def counts(self) -> dict[str, DueCounts]:
        """Counts of each job's due times by outcome since the start."""
        with self._lock:
            return {name: entry.counts for name, entry in self._entries.items()}

    def set_places(self, at_once: int) -> None:
        """Limit the number of jobs at once, from the next run on."""
        self._places.at_once = at_once

    def set(self, jobs: Mapping[str, Timed]) -> None:
        """Schedule just these jobs; one whose schedule is the same keeps its times, a run in progress continues."""
        with self._lock:
            for name in self._entries.keys() - jobs.keys():
                self._drop(name)
            for name, timed in jobs.items():
                entry, now = self._entries.get(name), self._clock(name)
                if entry and entry.timer.timed == timed:
                    continue
                if entry:
                    entry.timer.follow(timed, now)
                else:
                    rings = (self._alarms.alarm(partial(ring, name)) for ring in (self._due, self._retry))
                    self._entries[name] = entry = _ScheduledJob(name, JobTimer(timed, now, *rings))
                self._listeners.rescheduled(name, entry.timer.fire)

    def take_up(self, name: str, due: int) -> None:
        """Run a job now, for a due time before the start whose run was interrupted."""
        with self._lock:
            entry = self._entries.get(name)
            if entry and (name in self._by_hand or not self._is_busy(name)) and entry.open is None:
                self._came(entry, [due])

    def by_hand(self, name: str, work: Callable[[], object]) -> bool:
        """Do a job's work once there is a place, whether the job has a schedule or not.

        Returns False, and does nothing, if a run of the job is in progress or waits for a place, or the schedule has
        stopped.
        """
        with self._lock:
            if self._stopping or self._is_busy(name):
                return False
            task = Task(partial(self._run_by_hand, name, work), partial(self._refuse_by_hand, name))
            self._by_hand[name] = _ManualRun(name, task)
            self._places.add(task)
            return True

    def beat(self) -> None:
        """Notice a clock that was changed, or a machine that slept; to be called every second."""
        with self._lock:
            own = time.time() - ticks()
            was_set, self._own = abs(own - self._own) > DRIFT, own
            for entry in self._entries.values():
                if entry.timer.set_right(self._clock(entry.name), was_set=was_set):
                    self._listeners.rescheduled(entry.name, entry.timer.fire)
            self._alarms.probe()

    def stop(self) -> None:
        """Begin no more runs."""
        with self._lock:
            self._stopping = True
            self._alarms.stop()
            waiting = self._places.stop()
            self._by_hand = {name: manual for name, manual in self._by_hand.items() if manual.task not in waiting}
            for entry in self._entries.values():
                if entry.task is None or entry.task in waiting:
                    entry.task = None
                    self._settle(entry, Reason.STOPPING)

    def wait(self, seconds: float) -> bool:
        """Wait until no run is in progress, at most this long; return whether none is."""
        return self._places.wait(seconds)

    def _drop(self, name: str) -> None:
        entry = self._entries.pop(name)
        entry.timer.cancel()
        if entry.task and self._places.withdraw(entry.task):
            entry.task = None
        if entry.task:
            self._dropped.add(entry)
        else:
            self._settle(entry, Reason.STOPPING)
        self._listeners.rescheduled(name, None)

    def _due(self, name: str) -> None:
        """The fire time of a job has come."""
        entry = self._entries[name]
        if self._stopping:
            return
        due = entry.timer.take(self._clock(name))
        self._came(entry, due)
        self._listeners.rescheduled(name, entry.timer.fire)

    def _retry(self, name: str) -> None:
        """The time of a job's next attempt has come."""
        entry = self._entries[name]
        if self._stopping:
            return
        if name in self._by_hand:
            self._by_hand[name].delays = entry
        elif not entry.task:
            self._begin(entry, entry.again)

    def _came(self, entry: _ScheduledJob, due: Sequence[int]) -> None:
        """Settle earlier due times, and begin a run for the last of them."""
        last = due[-1]
        entry.counts = entry.counts.plus(due=len(due))
        if len(due) > 1:
            self._skip(entry, due[0], Reason.COALESCED, len(due) - 1)
        manual = self._by_hand.get(entry.name)
        if self._is_busy(entry.name) and not manual:
            self._skip(entry, last, Reason.RUNNING)
            return
        self._settle(entry, Reason.RUNNING)
        entry.timer.forget_retry()
        entry.open, entry.failures, entry.looks = last, 0, 0
        if manual:
            manual.delays, entry.again = entry, last
        else:
            self._begin(entry, last)

    def _is_busy(self, name: str) -> bool:
        entry = self._entries.get(name)
        return name in self._by_hand or bool(entry and entry.task) or any(name == gone.name for gone in self._dropped)

    def _begin(self, entry: _ScheduledJob, due: int) -> None:
        entry.task = Task(partial(self._run, entry, due), partial(self._refuse, entry, due))
        self._places.add(entry.task)

    def _run(self, entry: _ScheduledJob, due: int) -> None:
        """The thread of a run."""
        with self._lock:
            self._listeners.started(entry.name, due, max(0.0, self._clock(entry.name) - due))
        try:
            run = self._work(entry.name, due)
        except BaseException as error:  # noqa: BLE001  # whatever the error, the other jobs go on
            with self._lock:
                self._listeners.crashed(entry.name, due, error)
            run = _failed(entry.name, f"{type(error).__name__}: {error}")
        with self._lock:
            self._ended(entry, due, run)

    def _refuse(self, entry: _ScheduledJob, due: int, error: LoaderError) -> None:
        self._listeners.started(entry.name, due, max(0.0, self._clock(entry.name) - due))
        self._ended(entry, due, _failed(entry.name, str(error)))

    def _ended(self, entry: _ScheduledJob, due: int, run: Run) -> None:
        """Settle the due time, and set the time of the next attempt if one is needed."""
        entry.task = None
        self._dropped.discard(entry)
        self._listeners.ended(run, due)
        is_gone = self._stopping or self._entries.get(entry.name) is not entry
        if reason := DONE.get(run.outcome.kind):
            self._settle(entry, reason)
        elif run.outcome.kind is Kind.LOCKED:
            if is_gone:
                self._settle(entry, Reason.STOPPING)
            else:
                self._try_again(entry, due, min(LOOK_MOST, LOOK_AGAIN * 2 ** min(entry.looks, 9)))
                entry.looks += 1
        else:
            entry.counts = entry.counts.plus(again=1) if entry.open is None else entry.counts.plus(run=1)
            entry.open = None
            if run.status is Status.FAILED and not is_gone:
                least = BACKOFF_MOST if run.outcome.is_refusal else BACKOFF
                self._try_again(entry, due, min(BACKOFF_MOST, least * 2 ** min(entry.failures, 9)))
                entry.failures += 1

    def _run_by_hand(self, name: str, work: Callable[[], object]) -> None:
        """The thread of work that was started by hand."""
        try:
            work()
        except BaseException:
            LOG.exception("job %s, begun by hand, crashed: please report this", name)
        with self._lock:
            self._leave(name)

    def _refuse_by_hand(self, name: str, error: LoaderError) -> None:
        LOG.error("job %s was not begun by hand", name, exc_info=error)
        self._leave(name)

    def _leave(self, name: str) -> None:
        """Resume the schedule of a job after work by hand."""
        entry = self._by_hand.pop(name).delays
        if entry and self._entries.get(name) is entry and not self._stopping:
            self._try_again(entry, entry.again, LOOK_AGAIN)

    def _try_again(self, entry: _ScheduledJob, due: int, pause: float) -> None:
        """Retry a due time after a pause, unless the next comes before."""
        entry.again = due
        entry.timer.try_again(pause * random.uniform(0.75, 1.25))  # noqa: S311  # not for secrets

    def _settle(self, entry: _ScheduledJob, reason: Reason) -> None:
        """Count the open due time, if there is one."""
        if entry.open is not None:
            self._skip(entry, entry.open, reason)
            entry.open = None

    def _skip(self, entry: _ScheduledJob, due: int, reason: Reason, count: int = 1) -> None:
        entry.counts = entry.counts.plus(**{reason.value: count})
        self._listeners.skipped(entry.name, due, reason, count)


def _failed(job: str, error: str) -> Run:
    return Run(job=job, id="", outcome=Outcome(Kind.FAULT, error))
