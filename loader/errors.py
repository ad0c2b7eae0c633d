"""Errors by culprit, and the exit codes.

One base class and one subclass per culprit. A message names the thing, what was seen and what to do; the cause stays
attached (`raise … from`). A driver's own exceptions never leave the package that imports it.
"""

import errno
from enum import IntEnum

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


class LoaderError(Exception):
    """Something a person can act on; `exit_code` is what the program ends with.

    `transient` says that the same chunk may succeed when it is tried again on new connections.
    """

    exit_code = Exit.FAILED
    settles = False  # passes by itself, once the cluster has found out which nodes are gone
    node = ""  # of Redis, where it is one's fault
    fix = ""  # the fix, where someone has to do just this
    brief = False  # passes within a moment, or by nothing that is waited for
    waited = 0.0  # seconds that a server was silent before this was raised

    def __init__(self, message: str, *, transient: bool = False, exit_code: Exit | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        if exit_code is not None:
            self.exit_code = exit_code
        elif transient:
            self.exit_code = Exit.UNREACHABLE


class ConfigError(LoaderError):
    """The config, an option or the environment is wrong."""

    exit_code = Exit.CONFIG


class Foreign(ConfigError):
    """The name of a job is another config's in its target."""


class PlanError(LoaderError):
    """The job does not fit the table: a name is missing, a key cannot be made."""

    exit_code = Exit.CONFIG
    gone = False  # there is no such table: a fault of the config, or of whoever took it away


class SourceError(LoaderError):
    """MySQL refused or went away."""


class TargetError(LoaderError):
    """Redis refused or went away."""


class StateError(TargetError):
    """A key of the loader's own in Redis holds what this program did not write; `command` removes it."""

    exit_code = Exit.CONFIG

    def __init__(self, key: str, what: str, fix: str, command: str) -> None:
        super().__init__(f"{what}: {fix}")
        self.key = key
        self.what = what
        self.command = command


class LabError(LoaderError):
    """The local lab cannot do what was asked."""


class StartOver(LoaderError):
    """What a run has planned or written so far is of no more use: the table or the target was changed under it."""


class Done(LoaderError):
    """What a schedule asks for was done already, by another daemon or before."""

    exit_code = Exit.LOCKED


class Paused(LoaderError):
    """Someone has paused the schedule of a job."""

    exit_code = Exit.LOCKED


class Stopped(LoaderError):
    """A signal asked the run to end."""


def text_of(error: OSError | MemoryError) -> str:
    """What an error of this machine says: that of memory has no words."""
    return str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)


def is_local(error: BaseException | None) -> bool:
    """Whether an error came of this machine having no more file descriptors or memory, which no retry helps."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in LOCAL):
            return True
        error = error.__cause__ or error.__context__
    return False
