"""The options that commands share: each stands here once, and is an environment variable too."""

import inspect
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from typing import Annotated, Any

import typer

from loader.config.parsers import JOB_NAME
from loader.errors import LoaderError

INDEX = "JOB_COMPLETION_INDEX"  # of a pod of an Indexed Job, from 0


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


def option(flag: str, *more: str, **details: Any) -> Any:
    """An option that is an environment variable too: `--dry-run` is LOADER_DRY_RUN; `details` are typer's."""
    name = flag.partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return typer.Option(flag, *more, envvar=f"LOADER_{name}", show_envvar=False, **details)


def job_names(context: typer.Context) -> list[str]:
    """The jobs of the config that would be used, for completion; none if it is broken.

    They are as written in the files: no server is asked, and nothing is validated but the names, which shells evaluate.
    """
    from loader.config.files import files_of, read_document

    with suppress(LoaderError, OSError):
        files = files_of(context.find_root().params.get("config") or ())
        jobs = read_document(files, os.environ).values.get("jobs")
        return [name for name in jobs if re.fullmatch(JOB_NAME, name)] if isinstance(jobs, dict) else []
    return []


def percent(text: str) -> float:
    """The number of a percentage as it is typed: 5% or 5."""
    return float(text.removesuffix("%"))


def shard_numbers(text: str | None) -> tuple[int, int] | None:
    """The numbers of a shard as it is typed: I/N."""
    part, _, parts = (text or "").partition("/")
    return (int(part), int(parts)) if parts else None


def load_limit(text: str | None) -> tuple[str, int] | None:
    """The name and the number of a limit as it is typed: NAME=N."""
    name, _, most = (text or "").partition("=")
    return (name, int(most)) if most else None


def _check_percent(text: str) -> str:
    if not re.fullmatch(r"\d{1,3}(\.\d+)?%?", text) or percent(text) > 100:
        raise typer.BadParameter("write a share of the hashes, from 0% to 100%: 5%")
    return text


def _check_shard(text: str | None) -> str | None:
    """The shard as I/N; of `*/N`, I is one more than the index that Kubernetes gives a pod of an Indexed Job."""
    if text is None:
        return None
    if text.startswith("*/"):
        index = os.environ.get(INDEX, "")
        if not index.isdecimal():
            raise typer.BadParameter(f"*/N takes its number from ${INDEX}, which is not set; or write I/N: 1/4")
        text = f"{int(index) + 1}{text[1:]}"
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise typer.BadParameter(f"write I/N, the Ith of N shards: 1/4, not {text}")
    return text


def _check_max_load(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"([A-Za-z_]+)=(\d+)", text):
        raise typer.BadParameter("write a status variable of MySQL and its limit: Threads_running=25")
    return text


JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job of the config.", autocompletion=job_names)]
JobNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="JOB", show_default=False, help="Jobs of the config.", autocompletion=job_names),
]
Output = Annotated[Format, option("--output", "-o", help="Format of the result.")]
Every = Annotated[bool, option("--all", help="All jobs of the config.")]
Progress = Annotated[Show, option("--progress", help="How progress is shown.")]
MaxDelete = Annotated[
    str,
    option(
        "--max-delete",
        metavar="PERCENT",
        callback=_check_percent,
        help="Refuse to delete a larger share of the hashes.",
    ),
]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Which rows are read, and how."""

    dry_run: Annotated[bool, option("--dry-run", "-n", help="Read and encode, send nothing.")] = False
    where: Annotated[str | None, option("--where", metavar="SQL", help="Load only rows that satisfy this.")] = None
    key_range: Annotated[
        str | None, option("--range", metavar="LO:HI", help="Load only keys from LO to HI (inclusive).")
    ] = None
    workers: Annotated[
        int | None, option("--workers", metavar="N", min=1, max=64, help="Chunks loaded at the same time; default 2.")
    ] = None
    chunk_rows: Annotated[
        int | None,
        option(
            "--chunk-rows",
            metavar="N",
            min=1,
            max=10_000_000,
            help="Maximum rows per chunk; default 50,000 or the job's.",
        ),
    ] = None


Apart = Annotated[bool, option("--parts", help="Tell of each part of a job of many tables, not of the job as one.")]
MaxLoad = Annotated[
    str | None,
    option(
        "--max-load", metavar="NAME=N", callback=_check_max_load, help="Wait while a MySQL status variable is above N."
    ),
]
MaxLag = Annotated[
    int | None, option("--max-lag", metavar="SECONDS", min=0, help="Wait while source.replica is further behind.")
]


@dataclass(frozen=True, slots=True)
class ShareOptions:
    """Which share of the work this process takes, and how fast."""

    shard: Annotated[
        str | None,
        option("--shard", metavar="I/N", callback=_check_shard, help="Load only the Ith of N parts, by key checksum."),
    ] = None
    rate: Annotated[int | None, option("--rate", metavar="ROWS/S", min=1, help="Maximum rows per second, in all.")] = (
        None
    )
    max_load: MaxLoad = None
    max_lag: MaxLag = None


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options: a parameter that is a dataclass stands for its fields, in its place."""
    taken = inspect.signature(command).parameters
    groups: dict[str, Any] = {name: each.annotation for name, each in taken.items() if is_dataclass(each.annotation)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in taken.items():
        if name in groups:
            options = inspect.signature(groups[name]).parameters.values()
            parameters += [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in options]
        else:
            parameters.append(parameter)

    @wraps(command)
    def called(**given: Any) -> None:
        made = {
            name: group(**{each.name: given.pop(each.name) for each in fields(group)}) for name, group in groups.items()
        }
        command(**given, **made)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # which typer reads
    return called
