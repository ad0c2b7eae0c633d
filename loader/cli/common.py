"""Shared by all commands: the global options, the choice of jobs, and the output of results and messages."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from loader.cli.options import Format, Show
from loader.config.parsers import plain
from loader.errors import ConfigError, Exit
from loader.records import dataclass

if TYPE_CHECKING:
    from loader.config.load import Config
    from loader.config.models import JobConfig
    from loader.report.log import Log
    from loader.report.progress import Reporter
    from loader.report.screen import Screen


FAILURE = 2  # how severe all other exit codes are
SEVERITY: "Mapping[int, int]" = {Exit.OK: 0, Exit.REJECTS: 1, Exit.SIGINT: 3, Exit.SIGTERM: 3}


@dataclass(frozen=True, slots=True)
class Common:
    """The options before the command."""

    files: tuple[Path, ...]
    log_format: str
    log_level: str
    color: bool
    told: set[str] = field(default_factory=set)  # runs whose failure is in the log

    @property
    def log(self) -> "Log":
        """The form of log lines."""
        from loader.report.log import Log

        return Log(self.log_format, self.log_level, self.color and sys.stderr.isatty())

    @property
    def screen(self) -> "Screen":
        """How results are laid out: for the terminal of stdout, or for a pipe."""
        from loader.report.screen import Screen, columns_of

        return Screen(columns_of(sys.stdout), self.color and sys.stdout.isatty())

    def config(self) -> "Config":
        """Read the config; print its warnings on stderr. No server is asked: jobs with `tables` may be open."""
        from loader.config.load import load_config

        return _warned(load_config(self.files))

    def expanded(self) -> "Config":
        """The config with the parts of all jobs, whose tables are looked for; print warnings on stderr."""
        from loader.config.load import load_config
        from loader.jobs.expand import expand

        expansion = expand(load_config(self.files))
        for source, error in expansion.failures.items():
            note(f"warning: {f'source {source}: ' if source else ''}{error}: the tables of its jobs are not known")
        return _warned(expansion.config)

    def chosen(self, names: "Sequence[str] | None", *, every: bool = False) -> "tuple[Config, list[JobConfig]]":
        """The config, and the jobs that were named, or all; a job of many tables stands for its parts."""
        config = self.expanded()
        return config, chosen(config, names, every=every)

    def one(self, name: str) -> "tuple[Config, JobConfig]":
        """The config, and the job, or part of a job, that was named."""
        config, found = self.chosen([name])
        if len(found) > 1:
            raise ConfigError(f"job {name!r} has {len(found):,} parts: name one of them, like {found[0].name!r}")
        return config, found[0]


def _warned(config: "Config") -> "Config":
    for warning in config.warnings:
        note(f"warning: {warning}")
    return config


def note(text: str, *, whole: bool = False) -> None:
    """Print a message on stderr, folded to fit a terminal unless it is to be copied, even if nobody is listening."""
    with suppress(OSError):
        print(plain(text) if whole else _folded(plain(text), sys.stderr), file=sys.stderr, flush=True)  # noqa: T201


def say(text: str, screen: "Screen | None" = None, *, whole: bool = False) -> None:
    """Print a result, folded to fit a terminal unless it is to be copied `whole`.

    A closed pipe, as in `loader … | head -0`, does not end a run.
    """
    text = screen.safe(text) if screen else plain(text)
    try:
        print(text if whole else _folded(text, sys.stdout), flush=True)  # noqa: T201
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise OSError(error.errno, f"the result cannot be written: {error.strerror}", "stdout") from error


def _folded(text: str, stream: TextIO) -> str:
    if not stream.isatty():
        return text
    from loader.report.screen import columns_of, fold

    return fold(text, columns_of(stream))


def tell(document: dict[str, Any]) -> None:
    """Print a JSON document on a line."""
    from loader.report.documents import dump

    say(dump(document), whole=True)


def of_job(job: str, error: str, *, several: bool) -> str:
    """An error's text, with its job's name if there are several jobs and the text does not name it."""
    return f"job {job!r}: {error}" if several and f"job {job!r}" not in error else error


def chosen(config: "Config", names: Sequence[str] | None, *, every: bool = False) -> list["JobConfig"]:
    """The jobs that were named, or all; a job of many tables stands for its parts.

    Unknown names raise an error with a suggestion.
    """
    from difflib import get_close_matches

    if every and names:
        raise ConfigError("name jobs or give --all, not both")
    if every:
        return list(config.jobs.values())
    parts: dict[str, list[JobConfig]] = {}
    for job in config.jobs.values():
        parts.setdefault(job.part_of or job.name, []).append(job)
    if not names:
        raise ConfigError("name the jobs, or give --all: there " + _there(list(parts)))
    found: dict[str, JobConfig] = {}
    for name in names:
        meant = [config.jobs[name]] if name in config.jobs else parts.get(name)
        if meant is None:
            close = get_close_matches(name, parts if "/" not in name else config.jobs, 1)
            hint = f"did you mean {close[0]!r}?" if close else "there " + _there(list(parts))
            raise ConfigError(f"no job {name!r} in the config: {hint}")
        found |= {job.name: job for job in meant}
    return list(found.values())


def _there(names: list[str]) -> str:
    return ("is " if len(names) == 1 else "are ") + ", ".join(names)


def wholes(jobs: Sequence["JobConfig"], names: Sequence[str] | None, *, apart: bool) -> dict[str, str]:
    """The jobs whose parts are told as one, by part; parts that were named are told one by one, and all if `apart`."""
    return {job.name: job.part_of for job in jobs if job.part_of and not apart and (not names or job.part_of in names)}


def tally(results: Sequence[str], jobs: int, output: Format, shown: Common) -> None:
    """Print how several jobs did, for people; those without a result were not begun."""
    if jobs > 1 and output is Format.TEXT:
        from loader.report.text import tally_text

        screen = shown.screen
        say(tally_text(results, jobs, screen), screen)


def worst(codes: Sequence[int]) -> int:
    """The exit code of several jobs: the signal's, else the first failure's, else that of rejected rows, else 0."""
    return max(codes, key=lambda code: SEVERITY.get(code, FAILURE))


@contextmanager
def reporter(job: "JobConfig", progress: Show, shown: Common, doing: str = "loading") -> "Iterator[Reporter]":
    """Show the progress of a job while the block runs."""
    from loader.report.progress import Reporter

    is_watched = sys.stdout.isatty() and sys.stderr.isatty()  # by a person who reads the result
    shows = Reporter(job.name, progress.value, shown.log, doing, concludes=not is_watched)
    try:
        yield shows
    finally:
        shows.close()
        shown.told.update(shows.told)
