"""The timer of one job: its next fire time and its next attempt, kept right however clocks are changed."""

import time
from collections.abc import Sequence

from loader.daemon.alarms import Alarm
from loader.daemon.due_times import DueTimes, Timed
from loader.process import ticks

BACK = 2.0  # seconds that the clock may be set back before new times are computed
DRIFT = 0.2  # seconds that two clocks may drift apart before new times are computed


class JobTimer:
    """Rings at the fire times of a schedule, by the job's clock, and at the job's next attempt, after its pause.

    `now` is the time by the job's clock; alarms follow this machine's, which is `shift` seconds ahead of it.
    """

    def __init__(self, timed: Timed, now: float, alarm: Alarm, retry: Alarm) -> None:
        self._alarm = alarm
        self._retry = retry
        self._retry_at = 0.0  # in ticks
        self.follow(timed, now)

    @property
    def fire(self) -> float:
        """The next fire time, by the job's clock."""
        return self._times.fire

    @property
    def retry_at(self) -> float | None:
        """When the next attempt begins, by this machine's clock; None: there is none."""
        return self._retry.at

    def follow(self, timed: Timed, now: float) -> None:
        """Ring at the times of this schedule from now on."""
        self.timed = timed
        self._times = DueTimes(timed, now)
        self._seen, self._shift = now, time.time() - now
        self._set()

    def take(self, now: float) -> Sequence[int]:
        """The due times since the last call, once the alarm has rung; the next one is set."""
        due = self._times.take(now)
        self._set()
        return due

    def set_right(self, now: float, *, was_set: bool) -> bool:
        """Follow the clocks, of which this machine's `was_set`; returns whether anything rings at another time now."""
        shift = time.time() - now
        if went_back := now < self._seen - BACK:
            self._times.start_after(now)
        self._seen = now
        if not (was_set or went_back or abs(shift - self._shift) > DRIFT):
            return False
        self._shift = shift
        self._set()
        if self._retry.at is not None:
            self._retry.set(time.time() + max(0.0, self._retry_at - ticks()))
        return True

    def try_again(self, pause: float) -> None:
        """Ring for the next attempt after a pause, however clocks are changed until then."""
        self._retry_at = ticks() + pause
        self._retry.set(time.time() + pause)

    def forget_retry(self) -> None:
        """Cancel the next attempt."""
        self._retry.cancel()

    def cancel(self) -> None:
        """Stop ringing."""
        self._alarm.cancel()
        self._retry.cancel()

    def _set(self) -> None:
        self._alarm.set(self._times.fire + self._shift)
