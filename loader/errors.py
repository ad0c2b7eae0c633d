"""Errors by culprit, and the exit codes.

One base class and one subclass per culprit. A message names the thing, what was seen and what to do; the cause stays
attached (`raise … from`). A driver's own exceptions never leave the package that imports it.
"""

import errno
from collections.abc import Mapping
from enum import Enum, IntEnum, auto

LOCAL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Exit(IntEnum):
    """The exit codes, one table for all commands."""

    OK = 0
    FAILED = 1
    CONFIG = 2
    REJECTS = 3
    UNREACHABLE = 4
    LOCKED = 5
    SIGINT = 130
    SIGTERM = 143


class Retry(Enum):
    """How long a failed attempt is repeated, on new connections."""

    NEVER = auto()
    BRIEFLY = auto()  # it passes within a moment, or not by waiting
    UNTIL_DEADLINE = auto()  # the job's
    WHILE_SETTLING = auto()  # the cluster finds out which nodes are gone, however short the deadline is


class Kind(Enum):
    """What went wrong; the exit code and the retries follow from it, see `RULES`."""

    REJECTS = auto()  # rows could not be written, or what was written may not be in Redis any more
    CONFIG = auto()  # the config, an option or the environment is wrong
    FOREIGN = auto()  # the job's name belongs to another config in its target
    MISSING = auto()  # a table does not exist: a wrong name, or a tool that is about to rename it back
    ACCESS = auto()  # a server refuses the account, its password or its rights
    REFUSED = auto()  # a server cannot be used as it is configured
    LIMITED = auto()  # others use all that the account may have
    UNAVAILABLE = auto()  # a server cannot be reached, restarts, or ended the connection
    UNSETTLED = auto()  # a server answers, but cannot do it now: full, busy, changed in between, or talking nonsense
    VANISHED = auto()  # a table was there and is gone, maybe for the moment in which a tool swaps it
    UNREPLICATED = auto()  # no replica acknowledged a write that must survive a failover
    FAULT = auto()  # anything else; no retry helps
    LOCKED = auto()  # another run holds the lock
    DONE = auto()  # it was done already, by another daemon or before
    PAUSED = auto()  # the job's schedule is paused
    INTERRUPTED = auto()  # by SIGINT
    TERMINATED = auto()  # by SIGTERM

    @property
    def exit_code(self) -> Exit:
        """The exit code of a command that ends with it."""
        return RULES[self][0]

    @property
    def retry(self) -> Retry:
        """How long it is retried."""
        return RULES[self][1]

    @property
    def is_refusal(self) -> bool:
        """Whether a person has to change the config, the account or the server first."""
        return self in REFUSALS

    @property
    def is_unreachable(self) -> bool:
        """Whether a server, or enough of its replicas, did not answer."""
        return self in UNREACHABLE

    @property
    def is_taken(self) -> bool:
        """Whether someone else does the work, has done it, or has paused it."""
        return self in TAKEN

    @property
    def is_stop(self) -> bool:
        """Whether a signal asked for the end."""
        return self in STOPS


RULES: Mapping[Kind, tuple[Exit, Retry]] = {
    Kind.REJECTS: (Exit.REJECTS, Retry.NEVER),
    Kind.CONFIG: (Exit.CONFIG, Retry.NEVER),
    Kind.FOREIGN: (Exit.CONFIG, Retry.NEVER),
    Kind.MISSING: (Exit.CONFIG, Retry.UNTIL_DEADLINE),
    Kind.ACCESS: (Exit.CONFIG, Retry.NEVER),
    Kind.REFUSED: (Exit.CONFIG, Retry.NEVER),
    Kind.LIMITED: (Exit.CONFIG, Retry.BRIEFLY),
    Kind.UNAVAILABLE: (Exit.UNREACHABLE, Retry.UNTIL_DEADLINE),
    Kind.UNSETTLED: (Exit.FAILED, Retry.UNTIL_DEADLINE),
    Kind.VANISHED: (Exit.FAILED, Retry.UNTIL_DEADLINE),
    Kind.UNREPLICATED: (Exit.UNREACHABLE, Retry.WHILE_SETTLING),
    Kind.FAULT: (Exit.FAILED, Retry.NEVER),
    Kind.LOCKED: (Exit.LOCKED, Retry.NEVER),
    Kind.DONE: (Exit.LOCKED, Retry.NEVER),
    Kind.PAUSED: (Exit.LOCKED, Retry.NEVER),
    Kind.INTERRUPTED: (Exit.SIGINT, Retry.NEVER),
    Kind.TERMINATED: (Exit.SIGTERM, Retry.NEVER),
}
REFUSALS = frozenset({Kind.CONFIG, Kind.FOREIGN, Kind.MISSING, Kind.ACCESS, Kind.REFUSED, Kind.LIMITED})
UNREACHABLE = frozenset({Kind.UNAVAILABLE, Kind.UNREPLICATED})
TAKEN = frozenset({Kind.LOCKED, Kind.DONE, Kind.PAUSED})
STOPS = frozenset({Kind.INTERRUPTED, Kind.TERMINATED})


class LoaderError(Exception):
    """Something a person can act on; its `kind` says how the program ends, and whether another attempt may succeed.

    Code that knows better may change `retry` of a raised one.
    """

    kind = Kind.FAULT
    node = ""  # the Redis node that failed, if one did
    fix = ""  # the command that fixes it, if one does
    waited = 0.0  # seconds that a server was silent before this was raised

    def __init__(self, message: str, *, kind: Kind | None = None) -> None:
        super().__init__(message)
        self.kind = kind or self.kind
        self.retry = self.kind.retry

    @property
    def exit_code(self) -> Exit:
        """The exit code of a command that ends with it."""
        return self.kind.exit_code

    @property
    def transient(self) -> bool:
        """Whether the same attempt may succeed on new connections."""
        return self.retry is not Retry.NEVER


class ConfigError(LoaderError):
    """The config, an option or the environment is wrong."""

    kind = Kind.CONFIG


class Foreign(ConfigError):
    """The name of a job belongs to another config in its target."""

    kind = Kind.FOREIGN


class PlanError(LoaderError):
    """The job does not fit the table: a name is missing, a key cannot be made."""

    kind = Kind.CONFIG


class SourceError(LoaderError):
    """MySQL refused or went away."""


class MalformedEvent(SourceError):
    """An event of the binlog whose bytes do not add up; they may be right when they are sent again."""

    kind = Kind.UNAVAILABLE


class PositionLost(SourceError):
    """The binlog cannot be followed from a position: what changed since is not known, and all rows have to be read."""


class ServerReplaced(SourceError):
    """Another server answers at the source's address: what is known of the one before says nothing of it."""


class TargetError(LoaderError):
    """Redis refused or went away."""


class StateError(TargetError):
    """A key of the loader's own in Redis holds what this program did not write; `command` removes it."""

    kind = Kind.CONFIG

    def __init__(self, key: str, what: str, fix: str, command: str) -> None:
        super().__init__(f"{what}: {fix}")
        self.key = key
        self.what = what
        self.command = command


class LabError(LoaderError):
    """The local lab cannot do what was asked."""


class StartOver(LoaderError):
    """The work of a run is useless now: the table or the target was changed under it."""


class Done(LoaderError):
    """A schedule's slot was done already, by another daemon or before."""

    kind = Kind.DONE


class Paused(LoaderError):
    """The schedule of a job is paused."""

    kind = Kind.PAUSED


class Stopped(LoaderError):
    """A signal asked the run to end."""

    kind = Kind.TERMINATED

    @classmethod
    def by(cls, name: str) -> "Stopped":
        """The exception for a signal, by the signal's name."""
        return cls(f"stopped by {name}", kind=Kind.INTERRUPTED if name == "SIGINT" else Kind.TERMINATED)


def text_of(error: OSError | MemoryError) -> str:
    """The text of an error of this machine, after its file; one of memory has none of its own."""
    if isinstance(error, OSError) and error.strerror:
        return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}"
    return str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)


def is_local(error: BaseException | None) -> bool:
    """Whether an error means that this machine has no file descriptors or memory left, which no retry helps."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in LOCAL):
            return True
        error = error.__cause__ or error.__context__
    return False
