"""This daemon's account of schedules that it does not keep. No I/O; it listens to the schedule."""

import threading
import time
from collections.abc import Mapping

from loader.config.load import Config
from loader.jobs.pace import Pace, intervals
from loader.model import Run
from loader.outcome import Reason

SETTLED = 5.0  # seconds that jobs are behind before it is told: a pause of the machine is soon made up for
QUIET = 60.0  # seconds that all schedules are kept before it is told again
LATELY = 0.3  # weight of the latest run in the usual duration


class Backlog:
    """The jobs that are behind their schedule: a due time of theirs came while the one before was not done.

    They are so until a due time is done before the next one comes.
    """

    def __init__(self, config: Config) -> None:
        self._lock = threading.Lock()
        self._missed: dict[str, int] = {}  # the last due time of each job behind that had no run
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._since: float | None = None  # when jobs fell behind, on the monotonic clock
        self._kept = float("-inf")  # when the last job had caught up
        self._told = False
        self._cpu = (time.monotonic(), time.process_time())
        self._busy = 0.0
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Keep account of the jobs of this config."""
        with self._lock:
            self._every: Mapping[str, int] = intervals(config.jobs)
            self._scheduled = frozenset(name for name, job in config.jobs.items() if job.schedule)
            self._places = config.daemon.jobs_at_once
            for known in (self._missed, self._took, self._began):
                for name in known.keys() - self._scheduled:
                    del known[name]

    @property
    def behind(self) -> frozenset[str]:
        """The jobs that are behind."""
        with self._lock:
            return frozenset(self._missed)

    def pace(self) -> Pace:
        """The state of all schedules."""
        with self._lock:
            self._measure()
            missed, took = frozenset(self._missed), dict(self._took)
            return Pace(missed, len(self._scheduled), took, self._every, self._places, self._busy)

    def news(self) -> str:
        """What is to be told now, once: that schedules are not kept."""
        with self._lock:
            now = time.monotonic()
            if not self._missed:
                if self._told and now - self._kept > QUIET:
                    self._told = False
                return ""
            if self._told or self._since is None or now - self._since < SETTLED:
                return ""
            self._told = True
        return str(self.pace())

    def started(self, job: str, due: int, late: float) -> None:
        """A run begins."""
        del due, late
        with self._lock:
            self._began[job] = time.monotonic()

    def ended(self, run: Run, due: int) -> None:
        """A run ended: if no due time came meanwhile, the job has caught up."""
        with self._lock:
            began = self._began.pop(run.job, None)
            if began is not None and not run.did_nothing:
                took = time.monotonic() - began
                self._took[run.job] = took * LATELY + self._took.get(run.job, took) * (1 - LATELY)
            if due > self._missed.get(run.job, due):
                del self._missed[run.job]
                if not self._missed:
                    self._since, self._kept = None, time.monotonic()

    def skipped(self, job: str, due: int, reason: Reason, count: int) -> None:
        """Due times are settled without a run."""
        del count
        if reason not in {Reason.RUNNING, Reason.COALESCED} or job not in self._scheduled:
            return
        with self._lock:
            self._missed[job] = due
            self._since = self._since or time.monotonic()

    def rescheduled(self, job: str, fire: float | None) -> None:
        """The next start of a job is known."""
        if fire is None:
            with self._lock:
                self._missed.pop(job, None)

    def crashed(self, job: str, due: int, error: BaseException) -> None:
        """A run failed with a bug in the program; `ended` follows."""

    def _measure(self) -> None:
        """Measure the CPU time of this process, over a few seconds."""
        now, used = time.monotonic(), time.process_time()
        then, before = self._cpu
        if now - then > SETTLED:
            self._busy = (used - before) / (now - then)
            self._cpu = now, used
