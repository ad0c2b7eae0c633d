"""APScheduler as the clock: passes due jobs to a schedule, which has its own places and threads."""

import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from apscheduler.executors.base import BaseExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from loader.config.cron import next_times, times
from loader.daemon.slots import Timed


class SlotTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """The next slot of a job, and when its run begins."""

    def __init__(self, timed: Timed, now: float) -> None:
        self._timed = timed
        self.slot = 0
        self.fire = 0.0
        self.shift = 0.0  # seconds by which this machine's clock, which APScheduler follows, is ahead
        self.set(now)

    def set(self, now: float) -> None:
        """Advance to the first slot after a moment."""
        coming = [time.timestamp() for time in next_times(self._timed, datetime.fromtimestamp(now, UTC), 2)]
        self.slot = int(coming[0])
        most = min(self._timed.jitter or 0, coming[-1] - self.slot)
        self.fire = self.slot + random.uniform(0, most * 0.99)  # noqa: S311  # not for secrets

    def due(self, now: float) -> Sequence[int]:
        """The slots that came since the last call; advances to the next."""
        first, now = self.slot, max(now, self.slot)
        if self._timed.every:
            slots: Sequence[int] = range(first, int(now) + 1, self._timed.every)
        else:
            later = takewhile(
                lambda slot: slot.timestamp() <= now, times(self._timed, datetime.fromtimestamp(first, UTC))
            )
            slots = [first, *(int(slot.timestamp()) for slot in later)]
        self.set(now)
        return slots

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:  # noqa: ARG002
        """Called by APScheduler before and after it passes on a due job."""
        if previous is not None and previous.timestamp() >= self.here - 1e-3:
            return None
        return datetime.fromtimestamp(self.here, UTC)

    @property
    def here(self) -> float:
        """When a run begins, by this machine's clock."""
        return self.fire + self.shift


class HandOver(BaseExecutor):  # type: ignore[misc]  # APScheduler has no types
    """Passes due jobs to the schedule, which has its own places and threads."""

    def __init__(self, due: Callable[[str], None]) -> None:
        super().__init__()
        self._due = due

    def submit_job(self, job: Any, run_times: object) -> None:  # noqa: ARG002
        """Called by APScheduler when a job is due."""
        self._due(job.id)

    def _do_submit_job(self, job: Any, run_times: object) -> None:
        raise NotImplementedError  # `submit_job` is the only method needed


class Scheduler(BackgroundScheduler):  # type: ignore[misc]  # APScheduler has no types
    """The scheduler, which also records when its thread last ran."""

    turned = 0.0

    def __init__(self, lock: Any, **options: object) -> None:
        self._shared = lock
        super().__init__(**options)

    def _create_lock(self) -> Any:
        """One lock for all: APScheduler calls the schedule while holding it, and the schedule holds it in its calls."""
        return self._shared

    def _process_jobs(self) -> float | None:
        wait: float | None = super()._process_jobs()
        self.turned = time.monotonic()
        return wait
