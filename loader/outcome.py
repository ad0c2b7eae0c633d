"""The outcomes of runs, and the reasons for which scheduled ones never begin."""

from collections.abc import Mapping
from enum import StrEnum

from loader.errors import Exit, Kind
from loader.records import dataclass


class Status(StrEnum):
    """How a run ended."""

    OK = "ok"
    REJECTS = "rejects"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_success(self) -> bool:
        """Whether all rows were loaded, rejected ones aside."""
        return self in {Status.OK, Status.REJECTS}


STATUSES: Mapping[Kind | None, Status] = {
    None: Status.OK,
    Kind.REJECTS: Status.REJECTS,
    Kind.DONE: Status.OK,
    Kind.PAUSED: Status.OK,
    Kind.INTERRUPTED: Status.STOPPED,
    Kind.TERMINATED: Status.STOPPED,
}  # of all other kinds it is FAILED


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a run: `kind` is what went wrong, None if nothing did; `error` describes it for people."""

    kind: Kind | None = None
    error: str | None = None

    @property
    def status(self) -> Status:
        """The status as a single word."""
        return STATUSES.get(self.kind, Status.FAILED)

    @property
    def exit_code(self) -> Exit:
        """The exit code of a command that ends with it."""
        return self.kind.exit_code if self.kind else Exit.OK

    @property
    def is_success(self) -> bool:
        """Whether all rows were loaded, rejected ones aside."""
        return self.kind in {None, Kind.REJECTS}

    @property
    def is_taken(self) -> bool:
        """Whether someone else does the work, has done it, or has paused it."""
        return self.kind is not None and self.kind.is_taken

    @property
    def is_refusal(self) -> bool:
        """Whether a person has to change the config, the account or the server first."""
        return self.kind is not None and self.kind.is_refusal

    @property
    def is_unreachable(self) -> bool:
        """Whether a server, or enough of its replicas, did not answer."""
        return self.kind is not None and self.kind.is_unreachable

    @property
    def is_stop(self) -> bool:
        """Whether a signal ended it."""
        return self.kind is not None and self.kind.is_stop


LOADED = Outcome()
"""Of a run in which nothing went wrong."""


class Reason(StrEnum):
    """Why a due time had no run here."""

    ELSEWHERE = "elsewhere"  # another daemon has run the job for it
    RUNNING = "running"  # the previous run, here or elsewhere, had not ended, or waited for a place
    COALESCED = "coalesced"  # it passed while the process or the machine was asleep or too slow
    PAUSED = "paused"  # the job is paused
    STOPPING = "stopping"  # the daemon is stopping, or the job was removed from the config
