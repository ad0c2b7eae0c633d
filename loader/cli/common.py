"""Shared by all commands: the global options, the choice of jobs, and the output of results and messages."""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loader.config.parsers import JOB_NAME, plain
from loader.errors import ConfigError, Exit, LoaderError

if TYPE_CHECKING:
    from loader.config.load import Config
    from loader.config.models import JobConfig
    from loader.report.progress import Reporter


FAILURE = 2  # how severe all other exit codes are
SEVERITY: "Mapping[int, int]" = {Exit.OK: 0, Exit.REJECTS: 1, Exit.SIGINT: 3, Exit.SIGTERM: 3}


class Format(StrEnum):
    """Format of a result."""

    TEXT = "text"
    JSON = "json"


class LogFormat(StrEnum):
    """Format of a log line."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least serious log line shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Show(StrEnum):
    """How progress is shown."""

    AUTO = "auto"
    BAR = "bar"
    LOG = "log"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Common:
    """The options before the command."""

    files: tuple[Path, ...]
    log_format: str
    log_level: str
    color: bool

    def config(self) -> "Config":
        """Read the config; print its warnings on stderr."""
        from loader.config.load import load_config

        config = load_config(self.files)
        for warning in config.warnings:
            note(f"warning: {warning}")
        return config


def job_names(context: typer.Context) -> list[str]:
    """The jobs of the config that would be used, for completion; empty if it is broken.

    They are as written in the files: no server is contacted, and only the names are validated, because shells evaluate
    them.
    """
    from loader.config.files import files_of, read_document

    with suppress(LoaderError, OSError):
        files = files_of(context.find_root().params.get("config") or ())
        jobs = read_document(files, os.environ).values.get("jobs")
        return [name for name in jobs if re.fullmatch(JOB_NAME, name)] if isinstance(jobs, dict) else []
    return []


Output = Annotated[
    Format, typer.Option("--output", "-o", envvar="LOADER_OUTPUT", show_envvar=False, help="Format of the result.")
]
Every = Annotated[bool, typer.Option("--all", envvar="LOADER_ALL", show_envvar=False, help="All jobs of the config.")]
Progress = Annotated[Show, typer.Option(envvar="LOADER_PROGRESS", show_envvar=False, help="How progress is shown.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job of the config.", autocompletion=job_names)]
JobNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="JOB", show_default=False, help="Jobs of the config.", autocompletion=job_names),
]


def _percent(text: str) -> str:
    if not re.fullmatch(r"\d{1,3}(\.\d+)?%?", text) or share(text) > 100:
        raise typer.BadParameter("write a share of the hashes, from 0% to 100%: 5%")
    return text


def share(text: str) -> float:
    """The number in a share that was typed: 5% or 5."""
    return float(text.removesuffix("%"))


MaxDelete = Annotated[
    str,
    typer.Option(
        "--max-delete",
        metavar="PERCENT",
        envvar="LOADER_MAX_DELETE",
        show_envvar=False,
        callback=_percent,
        help="Refuse to delete a larger share of the hashes.",
    ),
]


def note(text: str) -> None:
    """Print a message on stderr, even if nobody is listening."""
    with suppress(OSError):
        print(plain(text), file=sys.stderr, flush=True)  # noqa: T201


def say(text: str, *, colored: bool = False) -> None:
    """Print a result; a closed pipe, as in `loader … | head -0`, does not end a run."""
    try:
        print(text if colored else plain(text), flush=True)  # noqa: T201
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def of_job(job: str, error: str, *, several: bool) -> str:
    """An error's text, with its job's name if there are several jobs and the text does not name it."""
    return f"job {job!r}: {error}" if several and f"job {job!r}" not in error else error


def chosen(config: "Config", names: Sequence[str] | None, *, every: bool = False) -> list["JobConfig"]:
    """The jobs that were named, or all; unknown names raise an error with a suggestion."""
    from difflib import get_close_matches

    if every and names:
        raise ConfigError("name jobs or give --all, not both")
    if every:
        return list(config.jobs.values())
    if not names:
        raise ConfigError("name the jobs, or give --all: there " + _there(list(config.jobs)))
    for name in names:
        if name not in config.jobs:
            close = get_close_matches(name, config.jobs, 1)
            hint = f"did you mean {close[0]!r}?" if close else "there " + _there(list(config.jobs))
            raise ConfigError(f"no job {name!r} in the config: {hint}")
    return [config.jobs[name] for name in dict.fromkeys(names)]


def _there(names: list[str]) -> str:
    return ("is " if len(names) == 1 else "are ") + ", ".join(names)


def worst(codes: Sequence[int]) -> int:
    """The exit code of several jobs: the signal's, else the first failure's, else that of rejected rows, else 0."""
    return max(codes, key=lambda code: SEVERITY.get(code, FAILURE))


@contextmanager
def reporter(job: "JobConfig", progress: Show, shown: Common, doing: str = "loading") -> "Iterator[Reporter]":
    """Show the progress of a job while the block runs."""
    from loader.report.progress import Log, Reporter

    shows = Reporter(job.name, progress.value, Log(shown.log_format, shown.log_level, shown.color), doing)
    try:
        yield shows
    finally:
        shows.close()
