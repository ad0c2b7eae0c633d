"""This daemon's record of its jobs, for the status page: runs, chunks, rows per minute, due times. No I/O.

It listens to the schedule, and has a listener for each run. The runs of other processes come from the history. Any
thread may tell and ask.
"""

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field

from loader.model import Chunk, ChunkLoaded, ChunkOwed, FollowBegan, Run, RunBegan, RunEnded, RunEvent, Waiting
from loader.outcome import Reason
from loader.pipeline.throttle import Throttle
from loader.records import dataclass
from loader.state.history import KEPT, RunRecord, entry_of
from loader.web.failures import Failures, after
from loader.web.views import CELLS, MINUTES, Cell, CellState, Grid, Progress, Unfollowed

LATELY = 10.0  # seconds over which the rate of a run in progress is measured
LEAST = 10.0  # seconds of the current minute below which its rate would jump
REMEMBERED = 2 * KEPT  # runs of a job whose rows are counted, so that no run still in the history is counted twice


class RunTracker:
    """Records events of each job."""

    def __init__(self) -> None:
        self.since = time.time()  # in seconds since 1970
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._due: dict[str, float] = {}
        self._nodes: Counter[str] = Counter()

    def listen(self, job: str) -> "TrackingListener":
        """A listener for one run of a job."""
        return TrackingListener(self, job)

    def keep(self, jobs: Collection[str]) -> None:
        """Forget all jobs except these."""
        with self._lock:
            for name in self._jobs.keys() - set(jobs):
                del self._jobs[name]

    def learn(self, job: str, entries: Sequence[RunRecord]) -> None:
        """Count the rows of runs from the history, newest first, unless known, into the minutes they took."""
        with self._lock:
            heard = self._of(job)
            for entry in reversed(entries):
                if entry.run not in heard.runs:
                    heard.remember(entry.run)
                    heard.spread(entry)
                    heard.failures = after(heard.failures, entry)

    def due(self, job: str) -> float | None:
        """When the schedule next starts the job, jitter included; None: never."""
        with self._lock:
            return self._due.get(job)

    def rates(self, job: str, now: float) -> tuple[float, ...]:
        """Rows per second in each of the last minutes, oldest first."""
        with self._lock:
            return _rates(self._of(job).minutes, now)

    def rates_together(self, jobs: Collection[str], now: float) -> tuple[float, ...]:
        """The rates of several jobs in sum."""
        with self._lock:
            minutes: Counter[int] = Counter()
            for job in jobs:
                minutes.update(self._of(job).minutes)
        return _rates(minutes, now)

    def progress(self, job: str) -> Progress | None:
        """The progress of the job's run in progress here; None if there is none."""
        with self._lock:
            going = self._of(job).going
            return going.progress(time.monotonic()) if going else None

    def failures(self, job: str) -> Failures | None:
        """The job's failures since it last ended well, as far as they are known."""
        with self._lock:
            return self._of(job).failures

    def unfollowed(self, jobs: Iterable[str], why: str) -> None:
        """Note that jobs which are to be followed here are not, and why; empty: somebody else does."""
        with self._lock:
            for job in jobs:
                heard = self._of(job)
                since = heard.unfollowed.since if heard.unfollowed else time.time()
                heard.unfollowed = Unfollowed(since, why) if why else None

    def why_unfollowed(self, job: str) -> Unfollowed | None:
        """Why a job is not followed here, though it is to be; None if it is."""
        with self._lock:
            return self._of(job).unfollowed

    def grid(self, job: str) -> Grid | None:
        """The chunks of the job's run in progress here, or of its last one; None if there was none."""
        with self._lock:
            return self._of(job).chunks.grid()

    def written(self) -> dict[str, int]:
        """Rows written by runs here, by node."""
        with self._lock:
            return dict(self._nodes)

    def started(self, job: str, slot: int, late: float) -> None:
        """A run of a slot begins; its own listener gets the details."""

    def ended(self, run: Run, slot: int) -> None:
        """A run of a slot is over; its own listener got the details."""

    def skipped(self, job: str, slot: int, reason: Reason, count: int) -> None:
        """Slots go without a run here."""

    def crashed(self, job: str, slot: int, error: BaseException) -> None:
        """A run failed with a bug in this program; its own listener was told of its end."""

    def rescheduled(self, job: str, due: float | None) -> None:
        """The next run of a job is due; None: never."""
        with self._lock:
            if due is None:
                self._due.pop(job, None)
            else:
                self._due[job] = due

    def note(self, job: str, event: RunEvent | None, listener: "TrackingListener") -> None:
        """Note an event of a run, or its rows so far."""
        with self._lock:
            heard = self._of(job)
            if isinstance(event, RunBegan):
                heard.going = listener.going = _Going(event.run)
                heard.remember(event.run)
            elif isinstance(event, RunEnded):
                if heard.going is listener.going:
                    heard.going = None
                if not event.run.did_nothing:
                    heard.failures = after(heard.failures, entry_of(event.run))
                    if heard.chunks.run == event.run.id:
                        heard.chunks.end(event.run)
            elif isinstance(event, FollowBegan):
                for name in event.jobs:
                    self._of(name).unfollowed = None
            elif listener.going:
                self._count(heard, listener.going, event)

    def expect(self, job: str, rows: int | None, throttle: Throttle, listener: "TrackingListener") -> None:
        """Note that a run begins to load, or starts over."""
        with self._lock:
            if listener.going:
                listener.going.expect(rows, throttle)
                self._of(job).chunks = _Chunks(listener.going.run)

    def _count(self, heard: "_Job", going: "_Going", event: RunEvent | None) -> None:
        if isinstance(event, Waiting):
            going.waits = event.reason
            if event.chunk:
                heard.chunks.wait(event.chunk)
        elif isinstance(event, ChunkLoaded):
            going.load(event)
            heard.chunks.load(event)
            heard.minutes[int(time.time() // 60)] += event.read
            heard.forget(time.time())
            self._nodes.update(event.nodes)
        elif isinstance(event, ChunkOwed):
            going.take_back(event.event)
            heard.chunks.owe(event.event)
        going.look(time.monotonic())

    def _of(self, job: str) -> "_Job":
        return self._jobs.get(job) or self._jobs.setdefault(job, _Job())


class TrackingListener:
    """Records the events of one run."""

    def __init__(self, record: RunTracker, job: str) -> None:
        self.going: _Going | None = None
        self._record = record
        self._job = job

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Note how many rows are expected, and the object that says why workers wait."""
        self._record.expect(self._job, rows, throttle, self)

    def notify(self, event: RunEvent | None) -> None:
        """Note an event, or that a second passed without one."""
        self._record.note(self._job, event, self)


class _Going:
    """A run in progress."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.waits = ""
        self._began = time.time()
        self._expected: int | None = None
        self._throttle = Throttle()
        self._loads = False
        self._rows = self._chunks = 0
        self._looks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        self._expected, self._throttle, self._loads = rows, throttle, True
        self._rows = self._chunks = 0
        self.waits = ""
        self._looks = deque([(time.monotonic(), 0)])

    def load(self, event: ChunkLoaded) -> None:
        self._rows += event.read
        self._chunks += 1
        self.waits = ""

    def take_back(self, event: ChunkLoaded) -> None:
        self._rows -= event.read
        self._chunks -= 1

    @property
    def rows(self) -> int:
        """Rows so far, including those of unfinished chunks."""
        return max(self._rows, self._throttle.rows)

    def look(self, now: float) -> None:
        """Note how many rows there are."""
        if now - self._looks[-1][0] >= 0.5:
            self._looks.append((now, self.rows))
        while len(self._looks) > 2 and now - self._looks[1][0] > LATELY:
            self._looks.popleft()

    def progress(self, now: float) -> Progress:
        """The current state as a value."""
        rows, (then, before) = self.rows, self._looks[0]
        rate = max(0.0, (rows - before) / max(now - then, 1e-3))
        left = max(0, self._expected - rows) if self._expected else None
        return Progress(
            run=self.run,
            began=self._began,
            rows=rows,
            expected=self._expected,
            rate=rate,
            eta=left / rate if left and rate else None,
            chunks=self._chunks,
            waits=self._throttle.why(self.waits),
            loads=self._loads,
        )


@dataclass(slots=True)
class _Cell:
    loaded: int = 0
    retried: bool = False
    waiting: bool = False
    rows: int = 0
    rejects: int = 0
    seconds: float = 0.0

    def add(self, other: "_Cell") -> None:
        self.loaded += other.loaded
        self.retried |= other.retried
        self.waiting |= other.waiting
        self.rows += other.rows
        self.rejects += other.rejects
        self.seconds += other.seconds

    def state(self, chunks: int) -> CellState:
        """The combined state of some chunks."""
        if self.waiting:
            return CellState.WAITING
        if self.loaded < chunks:
            return CellState.OWED
        return CellState.REJECTS if self.rejects else CellState.RETRIED if self.retried else CellState.LOADED


class _Chunks:
    """The chunks of one run, several per cell once there are many."""

    def __init__(self, run: str = "") -> None:
        self.run = run
        self._each = 1  # chunks per cell
        self._cells: dict[int, _Cell] = {}
        self._last = 0  # the greatest number seen
        self._ended = False
        self._whole = False  # it ended well: chunks not seen here were loaded by an earlier run

    def load(self, event: ChunkLoaded) -> None:
        cell = self._cell(event.chunk)
        cell.waiting = False
        rejects, retried = len(event.rejects), event.retried > 0
        cell.add(_Cell(loaded=1, retried=retried, rows=event.read, rejects=rejects, seconds=event.seconds))

    def owe(self, event: ChunkLoaded) -> None:
        rows, rejects = -event.read, -len(event.rejects)
        self._cell(event.chunk).add(_Cell(loaded=-1, retried=True, rows=rows, rejects=rejects, seconds=-event.seconds))

    def wait(self, chunk: Chunk) -> None:
        self._cell(chunk).waiting = True

    def end(self, run: Run) -> None:
        """The run is over; chunks that it owes were never loaded."""
        self._ended, self._whole = True, run.resumed and run.outcome.is_success
        if not run.resumed:
            self._reach(run.chunks)
        for cell in self._cells.values():
            cell.waiting = False

    def grid(self) -> Grid | None:
        """The current state as a value; None if no chunk was seen."""
        if not self._cells:
            return None
        cells = []
        for index in range(min(self._cells), (self._last - 1) // self._each + 1):
            first = index * self._each + 1
            last = min(first + self._each - 1, self._last)
            cell = self._cells.get(index, _Cell())
            state = cell.state(0 if self._whole else last + 1 - first)
            cells.append(Cell(first, last, state, cell.rows, cell.rejects, cell.seconds))
        return Grid(self.run, self._ended, self._last if self._ended else None, tuple(cells))

    def _cell(self, chunk: Chunk) -> _Cell:
        self._reach(chunk.number)
        return self._cells.setdefault((chunk.number - 1) // self._each, _Cell())

    def _reach(self, number: int) -> None:
        """Make room for chunks up to a number."""
        self._last = max(self._last, number)
        while (self._last - 1) // self._each >= CELLS:
            self._each *= 2
            merged: dict[int, _Cell] = {}
            for index, cell in self._cells.items():
                merged.setdefault(index // 2, _Cell()).add(cell)
            self._cells = merged


@dataclass(slots=True)
class _Job:
    """The record of one job."""

    going: _Going | None = None
    chunks: _Chunks = field(default_factory=_Chunks)
    minutes: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))  # rows, by minutes since 1970
    failures: Failures | None = None
    unfollowed: Unfollowed | None = None
    runs: dict[str, None] = field(default_factory=dict)  # runs whose rows are counted, the latest last

    def remember(self, run: str) -> None:
        """Note that the rows of a run are counted."""
        self.runs[run] = None
        while len(self.runs) > REMEMBERED:
            del self.runs[next(iter(self.runs))]

    def spread(self, entry: RunRecord) -> None:
        """Count the rows of a run into the minutes that it took."""
        rows, now = entry.rows.get("read", 0), time.time()
        took = entry.ended - entry.began
        if took <= 0:  # a clock was changed meanwhile
            self.minutes[int(entry.ended // 60)] += rows
        for minute in range(int(max(entry.began, now - 60 * MINUTES) // 60), int(min(entry.ended, now) // 60) + 1):
            share = min(entry.ended, 60 * minute + 60) - max(entry.began, 60 * minute)
            self.minutes[minute] += rows * max(0.0, share) / took if took > 0 else 0
        self.forget(now)

    def forget(self, now: float) -> None:
        """Forget the minutes that are too old."""
        last = int(now // 60)
        if len(self.minutes) > MINUTES:
            for minute in [minute for minute in self.minutes if minute <= last - MINUTES]:
                del self.minutes[minute]


def _rates(minutes: Mapping[int, float], now: float) -> tuple[float, ...]:
    """Rows per second in each of the last minutes; `minutes` are rows by minutes since 1970."""
    last = int(now // 60)
    if not minutes:
        return (0.0,) * MINUTES
    passed = max(LEAST, now - last * 60)
    return (
        *[minutes.get(minute, 0) / 60 for minute in range(last + 1 - MINUTES, last)],
        minutes.get(last, 0) / passed,
    )
