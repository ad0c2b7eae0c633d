"""The outcome of due times, and the listeners that are told."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from loader.model import Run
from loader.outcome import Reason
from loader.records import dataclass

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DueCounts:
    """Counts of a job's due times by outcome: `due` is the sum of the others and an open one; `again` is retries."""

    due: int = 0
    run: int = 0
    elsewhere: int = 0
    running: int = 0
    coalesced: int = 0
    paused: int = 0
    stopping: int = 0
    again: int = 0

    def plus(self, **counts: int) -> "DueCounts":
        """The same with the named counts increased."""
        return replace(self, **{name: getattr(self, name) + count for name, count in counts.items()})


class ScheduleListener(Protocol):
    """A listener for due times and their runs; called from several threads, under the schedule's lock: be quick."""

    def started(self, job: str, due: int, late: float) -> None:
        """A run begins, `late` seconds after its due time; each is followed by `ended`."""

    def ended(self, run: Run, due: int) -> None:
        """A run ended, or found its job locked, done or paused by someone else, see `Outcome.is_taken`."""

    def skipped(self, job: str, due: int, reason: Reason, count: int) -> None:
        """`count` due times, of which this is the first, are settled without a run."""

    def rescheduled(self, job: str, fire: float | None) -> None:
        """The job's next start, in seconds since 1970, jitter included; None: never."""

    def crashed(self, job: str, due: int, error: BaseException) -> None:
        """A run failed with a bug in the program; `ended` follows."""


class ScheduleListeners:
    """Several listeners as one; a fault of one of them does not keep a job from its times."""

    def __init__(self, each: Sequence[ScheduleListener]) -> None:
        self._each = tuple(each)

    def started(self, job: str, due: int, late: float) -> None:
        """Tell each that a run begins."""
        for listener in self._each:
            with _harmless(job, "started"):
                listener.started(job, due, late)

    def ended(self, run: Run, due: int) -> None:
        """Tell each that a run ended."""
        for listener in self._each:
            with _harmless(run.job, "ended"):
                listener.ended(run, due)

    def skipped(self, job: str, due: int, reason: Reason, count: int) -> None:
        """Tell each that due times are settled without a run."""
        for listener in self._each:
            with _harmless(job, "skipped"):
                listener.skipped(job, due, reason, count)

    def rescheduled(self, job: str, fire: float | None) -> None:
        """Tell each when a job begins next."""
        for listener in self._each:
            with _harmless(job, "rescheduled"):
                listener.rescheduled(job, fire)

    def crashed(self, job: str, due: int, error: BaseException) -> None:
        """Tell each of a fault of the program."""
        for listener in self._each:
            with _harmless(job, "crashed"):
                listener.crashed(job, due, error)


@contextmanager
def _harmless(job: str, what: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # nobody reads stderr any more
        return
    except Exception:
        LOG.exception("a listener failed to take note that %s was %s", job, what)
