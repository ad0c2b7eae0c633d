"""The due times of a schedule: those that have come, the next one, and when its run begins. No clock of its own."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import takewhile
from typing import Protocol

from loader.config.cron import Timing, next_times, times


class Timed(Timing, Protocol):
    """A schedule as it is configured."""

    @property
    def jitter(self) -> int | None:
        """Maximum seconds of random delay of a run."""


class DueTimes:
    """The next due time of a job, in whole seconds since 1970, and its fire time, which jitter moves."""

    def __init__(self, timed: Timed, now: float) -> None:
        self._timed = timed
        self.next = 0
        self.fire = 0.0
        self.start_after(now)

    def start_after(self, now: float) -> None:
        """Advance to the first due time after a moment."""
        coming = [time.timestamp() for time in next_times(self._timed, datetime.fromtimestamp(now, UTC), 2)]
        self.next = int(coming[0])
        most = min(self._timed.jitter or 0, coming[-1] - self.next)
        self.fire = self.next + random.uniform(0, most * 0.99)  # noqa: S311  # not for secrets

    def take(self, now: float) -> Sequence[int]:
        """The due times since the last call, and the next one in any case; advances to the first after them."""
        first, now = self.next, max(now, self.next)
        if self._timed.every:
            due: Sequence[int] = range(first, int(now) + 1, self._timed.every)
        else:
            later = takewhile(
                lambda time: time.timestamp() <= now, times(self._timed, datetime.fromtimestamp(first, UTC))
            )
            due = [first, *(int(time.timestamp()) for time in later)]
        self.start_after(now)
        return due
