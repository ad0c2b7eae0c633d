"""Alarms: calls at times by this machine's clock. APScheduler keeps the times, and one pool thread makes the calls."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from threading import RLock

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger

HANDED_OVER = 1_000_000  # calls of one alarm that may wait for the pool's thread: one that has no place is lost

logging.getLogger("apscheduler").setLevel(logging.ERROR)  # the schedule logs the rest itself, with job and due time


class AlarmClock:
    """The clock of all alarms; they ring one at a time, with `lock` held, which must also be held to set one."""

    def __init__(self, lock: RLock) -> None:
        self.turned = 0.0  # when it has last shown that it works, on the monotonic clock
        self._lock = lock
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": HANDED_OVER},
        )
        self._numbers = count()
        self._probe = self.alarm(self._turn)

    def start(self) -> None:
        """Start ringing."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop ringing; alarms stay set."""
        self._scheduler.pause()

    def alarm(self, ring: Callable[[], None]) -> "Alarm":
        """A new alarm, not set yet, that calls this."""
        return Alarm(self._scheduler, self._lock, ring, f"alarm-{next(self._numbers)}")

    def probe(self) -> None:
        """Check the time now, which is needed after the machine slept, and note in `turned` that this was done."""
        self._probe.set(time.time())

    def _turn(self) -> None:
        self.turned = time.monotonic()


class Alarm:
    """Calls something once, at the time it was last set to; a call that was already handed over is dropped then."""

    def __init__(self, scheduler: BackgroundScheduler, lock: RLock, ring: Callable[[], None], name: str) -> None:
        self.at: float | None = None  # seconds since 1970 by this machine's clock; None: it is not set
        self._scheduler = scheduler
        self._lock = lock
        self._ring = ring
        self._name = name
        self._number = 0  # of times it was set or cancelled

    def set(self, at: float) -> None:
        """Ring at this time, or at once if it has passed, and at no time set before."""
        self._number += 1
        self.at = at
        when = DateTrigger(datetime.fromtimestamp(at, UTC))
        self._scheduler.add_job(self._call, when, [self._number], id=self._name, replace_existing=True)

    def cancel(self) -> None:
        """Do not ring."""
        self._number += 1
        self.at = None
        with suppress(JobLookupError):
            self._scheduler.remove_job(self._name)

    def _call(self, number: int) -> None:
        with self._lock:
            if number == self._number:
                self.at = None
                self._ring()
