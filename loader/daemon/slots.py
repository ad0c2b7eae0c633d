"""The outcome of scheduled times, and the listeners that are told."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from loader.config.cron import Timing
from loader.model import Run


class Timed(Timing, Protocol):
    """A schedule as it is configured."""

    @property
    def jitter(self) -> int | None:
        """Maximum seconds of random delay of a run."""


class Reason(StrEnum):
    """Why a slot had no run here."""

    ELSEWHERE = "elsewhere"  # another daemon has run the job for it
    RUNNING = "running"  # the previous run, here or elsewhere, had not ended, or waited for a place
    COALESCED = "coalesced"  # it passed while the process or the machine was asleep or too slow
    PAUSED = "paused"  # the job is paused
    STOPPING = "stopping"  # the daemon is stopping, or the job was removed from the config


class SlotListener(Protocol):
    """A listener for slots and runs; called from several threads, under the schedule's lock: be quick."""

    def started(self, job: str, slot: int, late: float) -> None:
        """A run begins, `late` seconds after its slot; each is followed by `ended`."""

    def ended(self, run: Run, slot: int) -> None:
        """A run ended; with exit code 5 it did nothing, see `Run.elsewhere`."""

    def skipped(self, job: str, slot: int, reason: Reason, count: int) -> None:
        """This many slots, of which this is the first, are settled without a run."""

    def rescheduled(self, job: str, due: float | None) -> None:
        """The job's next start, in seconds since 1970, jitter included; None: never."""

    def crashed(self, job: str, slot: int, error: BaseException) -> None:
        """A run failed with a bug in the program; `ended` follows."""


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """Counts of a job's slots by outcome: `due` is the sum of the others and of an open one; `again` counts retries."""

    due: int = 0
    run: int = 0
    elsewhere: int = 0
    running: int = 0
    coalesced: int = 0
    paused: int = 0
    stopping: int = 0
    again: int = 0

    def plus(self, **counts: int) -> "SlotCounts":
        """The same with the named counts increased."""
        return replace(self, **{name: getattr(self, name) + count for name, count in counts.items()})
