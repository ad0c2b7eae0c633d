"""What became of the times that a schedule names, and who is told."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from loader.config.cron import Timing
from loader.model import Run


class Timed(Timing, Protocol):
    """A schedule as it is configured."""

    @property
    def jitter(self) -> int | None:
        """Up to how many seconds later a run begins."""


class Reason(StrEnum):
    """Why a slot had no run here."""

    ELSEWHERE = "elsewhere"  # another daemon has run the job for it
    RUNNING = "running"  # the run before, here or elsewhere, had not ended, or waited for a place
    COALESCED = "coalesced"  # it passed while the process, or the machine, was asleep or too slow
    PAUSED = "paused"  # the job is paused
    STOPPING = "stopping"  # the daemon is stopping, or the job was taken out of the config


class SlotListener(Protocol):
    """Who is told of slots and runs; called from several threads, under the schedule's lock: be quick."""

    def started(self, job: str, slot: int, late: float) -> None:
        """A run begins, `late` seconds after its slot; each is followed by `ended`."""

    def ended(self, run: Run, slot: int) -> None:
        """A run ended, or found its job locked, done or paused by someone else, see `Outcome.is_taken`."""

    def skipped(self, job: str, slot: int, reason: Reason, count: int) -> None:
        """So many slots, of which this is the first, are settled without a run."""

    def rescheduled(self, job: str, due: float | None) -> None:
        """When a job begins next, in seconds since 1970, jitter included; None: never."""

    def crashed(self, job: str, slot: int, error: BaseException) -> None:
        """A run ended in a fault of the program; `ended` follows."""


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """What became of a job's slots: `due` is the sum of the others and of one that is open; `again` counts retries."""

    due: int = 0
    run: int = 0
    elsewhere: int = 0
    running: int = 0
    coalesced: int = 0
    paused: int = 0
    stopping: int = 0
    again: int = 0

    def plus(self, **counts: int) -> "SlotCounts":
        """The same with more of what is named."""
        return replace(self, **{name: getattr(self, name) + count for name, count in counts.items()})
