"""When jobs run: each at its times, one run of a job at a time, a bounded number of jobs at once. No I/O of its own.

A *slot* is a time that a schedule names, in whole seconds since 1970; jitter moves the start of a run, never its slot.
Every slot that comes is settled once: it was run, or done elsewhere, or skipped for a reason that is told.

APScheduler's thread is the clock. Runs have threads of their own, which end with the process: those of its pool would
keep a process alive whose server hangs.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from apscheduler.jobstores.base import JobLookupError
from apscheduler.triggers.date import DateTrigger

from loader.daemon.scheduler import HandOver, Scheduler, SlotTrigger
from loader.daemon.slots import Reason, SlotCounts, SlotListener, Timed
from loader.errors import Kind, LoaderError
from loader.model import Outcome, Run, Status
from loader.process import start_thread, ticks

BACKOFF, BACKOFF_MOST = 5.0, 300.0  # seconds until a failed run is tried again, doubling
LOOK_AGAIN, LOOK_MOST = 2.0, 8.0  # seconds until a job that another process runs is looked at again, doubling
BACK = 2.0  # seconds that the clock may be set back without new times being reckoned
DRIFT = 0.2  # seconds that two clocks may part before what is to come gets new times

LOG = logging.getLogger(__name__)
logging.getLogger("apscheduler").setLevel(logging.ERROR)  # what else it tells is told here, with job and slot


@dataclass(slots=True, eq=False)
class _Entry:
    """A job of the schedule and where it is."""

    name: str
    timed: Timed
    clock: SlotTrigger
    busy: bool = False  # it runs, or waits for a place
    open: int | None = None  # a slot that is not settled yet
    failures: int = 0  # in a row, for the same slot
    looks: int = 0  # in a row, at a job that another process runs
    again: int = 0  # the slot of the next attempt
    at: float = 0.0  # when that is due, in ticks
    seen: float = 0.0  # what time it was last
    tally: SlotCounts = field(default_factory=SlotCounts)


@dataclass(slots=True, eq=False)
class _Executor:
    """What was begun by hand: it takes a place as a run of a slot does, and has no slot."""

    name: str
    work: Callable[[], object]
    busy: bool = True  # it goes on, or waits for a place
    delays: _Entry | None = None  # whose slot, or next attempt, has come meanwhile


class Schedule:
    """Runs jobs at their times: `work` takes a job's name and a slot, and gives the run, however it ended.

    `clock` says what time it is for a job, in seconds since 1970: best by a clock that all daemons share.
    """

    def __init__(
        self,
        work: Callable[[str, int], Run],
        listeners: Sequence[SlotListener],
        at_once: int,
        clock: Callable[[str], float] = lambda _: time.time(),
    ) -> None:
        self.at_once = at_once
        self._clock = clock
        self._work = work
        self._listeners = tuple(listeners)
        self._lock = threading.RLock()
        self._entries: dict[str, _Entry] = {}
        self._waiting: deque[tuple[_Entry | _Executor, int]] = deque()
        self._by_hand: dict[str, _Executor] = {}
        self._dropped: set[_Entry] = set()  # jobs taken out whose run goes on
        self._running = 0
        self._stopping = False
        self._idle = threading.Event()
        self._idle.set()
        self._own = time.time() - ticks()  # what this machine's clock is set to
        self._scheduler = Scheduler(
            self._lock,
            timezone=UTC,
            executors={"default": HandOver(self._due)},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    def start(self) -> None:
        """Begin to watch the clock."""
        self._scheduler.start()

    @property
    def turned(self) -> float:
        """When the clock's thread has last come round, on the monotonic clock."""
        return self._scheduler.turned

    def tallies(self) -> dict[str, SlotCounts]:
        """What became of each job's slots since the start."""
        with self._lock:
            return {name: entry.tally for name, entry in self._entries.items()}

    def set(self, jobs: Mapping[str, Timed]) -> None:
        """Have these jobs and no others; one whose schedule is the same keeps its times, a run under way goes on."""
        with self._lock:
            for name in self._entries.keys() - jobs.keys():
                self._drop(name)
            for name, timed in jobs.items():
                entry = self._entries.get(name)
                if entry and entry.timed == timed:
                    continue
                now = self._clock(name)
                clock = SlotTrigger(timed, now)
                clock.shift = time.time() - now
                if entry:
                    entry.timed, entry.clock = timed, clock
                else:
                    self._entries[name] = entry = _Entry(name, timed, clock)
                entry.seen = now
                self._scheduler.add_job(_nothing, clock, id=name, replace_existing=True)
                self._tell("rescheduled", name, clock.fire)

    def take_up(self, name: str, slot: int) -> None:
        """Run a job now, for a slot that came before the start and whose run was cut off."""
        with self._lock:
            entry = self._entries.get(name)
            if entry and (name in self._by_hand or not self._is_busy(name)) and entry.open is None:
                self._came(entry, [slot])

    def by_hand(self, name: str, work: Callable[[], object]) -> bool:
        """Have a job's work done once there is a place, whether it has a schedule or not.

        Says whether: not where a run of the job is under way or waits for a place, or runs are begun no more.
        """
        with self._lock:
            if self._stopping or self._is_busy(name):
                return False
            self._by_hand[name] = hands = _Executor(name, work)
            self._waiting.append((hands, 0))
            self._fill()
            return True

    def beat(self) -> None:
        """To be called every second: a clock that was set, or a machine that slept, is noticed."""
        with self._lock:
            own = time.time() - ticks()
            was_set, self._own = abs(own - self._own) > DRIFT, own
            for entry in self._entries.values():
                self._set_right(entry, was_set=was_set)
        self._scheduler.wakeup()

    def _set_right(self, entry: _Entry, *, was_set: bool) -> None:
        """Have a job begin at its times by the job's clock, and its next attempt after its pause."""
        now, clock = self._clock(entry.name), entry.clock
        shift = time.time() - now
        if went_back := now < entry.seen - BACK:
            clock.set(now)
        entry.seen = now
        if not (was_set or went_back or abs(shift - clock.shift) > DRIFT):
            return
        clock.shift = shift
        self._scheduler.modify_job(entry.name, next_run_time=datetime.fromtimestamp(clock.here, UTC))
        if self._scheduler.get_job(_again(entry.name)):
            self._scheduler.modify_job(_again(entry.name), next_run_time=_after(entry.at - ticks()))
        self._tell("rescheduled", entry.name, clock.fire)

    def stop(self) -> None:
        """Begin no more runs."""
        with self._lock:
            self._stopping = True
            self._scheduler.pause()
            for entry, _ in self._waiting:
                entry.busy = False
            self._waiting.clear()
            self._by_hand = {name: hands for name, hands in self._by_hand.items() if hands.busy}
            for entry in self._entries.values():
                if not entry.busy:
                    self._settle(entry, Reason.STOPPING)

    def wait(self, seconds: float) -> bool:
        """Wait so long until no run is under way; says whether none is."""
        return self._idle.wait(max(0, seconds))

    def _drop(self, name: str) -> None:
        entry = self._entries.pop(name)
        for job in (name, _again(name)):
            with suppress(JobLookupError):
                self._scheduler.remove_job(job)
        if (waits := next((pair for pair in self._waiting if pair[0] is entry), None)) is not None:
            self._waiting.remove(waits)
            entry.busy = False
        if entry.busy:
            self._dropped.add(entry)
        else:
            self._settle(entry, Reason.STOPPING)
        self._tell("rescheduled", name, None)

    def _due(self, job: str) -> None:
        """A job's time has come, or its next attempt's; on the clock's thread."""
        with self._lock:
            name = job.removesuffix(AGAIN)
            entry = self._entries.get(name)
            if entry is None or self._stopping:
                return
            if job != name:
                if name in self._by_hand:
                    self._by_hand[name].delays = entry
                elif not entry.busy:
                    self._begin(entry, entry.again)
                return
            slots = entry.clock.due(self._clock(name))
            self._came(entry, slots)
            self._tell("rescheduled", name, entry.clock.fire)

    def _came(self, entry: _Entry, slots: Sequence[int]) -> None:
        """Settle what these slots leave behind, and begin a run for the last of them."""
        slot = slots[-1]
        entry.tally = entry.tally.plus(due=len(slots))
        if len(slots) > 1:
            self._skip(entry, slots[0], Reason.COALESCED, len(slots) - 1)
        hands = self._by_hand.get(entry.name)
        if self._is_busy(entry.name) and not hands:
            self._skip(entry, slot, Reason.RUNNING)
            return
        self._settle(entry, Reason.RUNNING)
        with suppress(JobLookupError):
            self._scheduler.remove_job(_again(entry.name))
        entry.open, entry.failures, entry.looks = slot, 0, 0
        if hands:
            hands.delays, entry.again = entry, slot
        else:
            self._begin(entry, slot)

    def _is_busy(self, name: str) -> bool:
        entry = self._entries.get(name)
        return name in self._by_hand or bool(entry and entry.busy) or any(name == gone.name for gone in self._dropped)

    def _begin(self, entry: _Entry, slot: int) -> None:
        entry.busy = True
        self._waiting.append((entry, slot))
        self._fill()

    def _fill(self) -> None:
        """Give free places to those who wait for one."""
        while self._waiting and self._running < self.at_once and not self._stopping:
            entry, slot = self._waiting.popleft()
            self._running += 1
            self._idle.clear()
            if isinstance(entry, _Executor):
                self._start_by_hand(entry)
                continue
            try:
                start_thread(self._run, entry, slot)
            except LoaderError as error:  # this machine has no more threads
                self._tell("started", entry.name, slot, max(0.0, self._clock(entry.name) - slot))
                self._ended(entry, slot, _failed(entry.name, str(error)))

    def _start_by_hand(self, hands: _Executor) -> None:
        try:
            start_thread(self._run_by_hand, hands)
        except LoaderError:
            LOG.exception("job %s was not begun by hand", hands.name)
            self._leave(hands)

    def _run_by_hand(self, hands: _Executor) -> None:
        """What the thread of one begun by hand does."""
        try:
            hands.work()
        except BaseException:
            LOG.exception("job %s, begun by hand, crashed: please report this", hands.name)
        with self._lock:
            self._leave(hands)
            self._fill()

    def _leave(self, hands: _Executor) -> None:
        """Give the place back."""
        self._running -= 1
        del self._by_hand[hands.name]
        if hands.delays and self._entries.get(hands.name) is hands.delays and not self._stopping:
            self._try_again(hands.delays, hands.delays.again, LOOK_AGAIN)
        if not self._running:
            self._idle.set()

    def _run(self, entry: _Entry, slot: int) -> None:
        """What the thread of a run does."""
        with self._lock:
            self._tell("started", entry.name, slot, max(0.0, self._clock(entry.name) - slot))
        try:
            run = self._work(entry.name, slot)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the other jobs go on
            with self._lock:
                self._tell("crashed", entry.name, slot, error)
            run = _failed(entry.name, f"{type(error).__name__}: {error}")
        with self._lock:
            self._ended(entry, slot, run)

    def _ended(self, entry: _Entry, slot: int, run: Run) -> None:
        """Settle the slot, and say when the job is tried again where it has to be."""
        self._running -= 1
        entry.busy = False
        self._dropped.discard(entry)
        self._tell("ended", run, slot)
        gone = self._stopping or self._entries.get(entry.name) is not entry
        if run.outcome.kind is Kind.DONE:
            self._settle(entry, Reason.ELSEWHERE)
        elif run.outcome.kind is Kind.PAUSED:
            self._settle(entry, Reason.PAUSED)
        elif run.outcome.kind is Kind.LOCKED:
            if gone:
                self._settle(entry, Reason.STOPPING)
            else:
                self._try_again(entry, slot, min(LOOK_MOST, LOOK_AGAIN * 2 ** min(entry.looks, 9)))
                entry.looks += 1
        else:
            entry.tally = entry.tally.plus(again=1) if entry.open is None else entry.tally.plus(run=1)
            entry.open = None
            if run.status is Status.FAILED and not gone:
                least = BACKOFF_MOST if run.outcome.is_refusal else BACKOFF
                self._try_again(entry, slot, min(BACKOFF_MOST, least * 2 ** min(entry.failures, 9)))
                entry.failures += 1
        self._fill()
        if not self._running:
            self._idle.set()

    def _try_again(self, entry: _Entry, slot: int, pause: float) -> None:
        """Have a slot tried again, unless the next comes before."""
        pause *= random.uniform(0.75, 1.25)  # noqa: S311  # not for secrets
        entry.again, entry.at = slot, ticks() + pause
        self._scheduler.add_job(_nothing, DateTrigger(_after(pause)), id=_again(entry.name), replace_existing=True)

    def _settle(self, entry: _Entry, reason: Reason) -> None:
        """Count the open slot, where there is one."""
        if entry.open is not None:
            self._skip(entry, entry.open, reason)
            entry.open = None

    def _skip(self, entry: _Entry, slot: int, reason: Reason, count: int = 1) -> None:
        entry.tally = entry.tally.plus(**{reason.value: count})
        self._tell("skipped", entry.name, slot, reason, count)

    def _tell(self, what: str, *facts: object) -> None:
        """Tell all listeners; a fault of one of them must not keep a job from its times."""
        for listener in self._listeners:
            try:
                getattr(listener, what)(*facts)
            except BrokenPipeError:  # nobody listens on stderr
                continue
            except Exception:
                LOG.exception("a listener failed to take note that %s was %s", facts[0], what)


AGAIN = ":again"  # no name of a job has a colon


def _nothing() -> None:
    """What APScheduler would call; `HandOver` takes its place."""


def _after(pause: float) -> datetime:
    """The moment after so many seconds, by this machine's clock."""
    return datetime.fromtimestamp(time.time() + max(0.0, pause), UTC)


def _again(name: str) -> str:
    return name + AGAIN


def _failed(job: str, error: str) -> Run:
    return Run(job=job, id="", outcome=Outcome(Kind.FAULT, error))
