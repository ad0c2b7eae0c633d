"""The command line: words from a person in, one room called, the result printed, an exit code out.

Modules are imported inside the commands, so that `loader --help` and completion stay quick.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from loader.errors import ConfigError, Exit, LoaderError, Stopped

if TYPE_CHECKING:
    from loader.config import Config
    from loader.model import Run
    from loader.run import Options
    from loader.settings import Job

app = typer.Typer(
    help="Keeps Redis hashes equal to MySQL rows.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    epilog="Options are also environment variables: --workers 4 is LOADER_WORKERS=4.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
lab_app = typer.Typer(
    help="A throwaway MySQL and a six-node Redis Cluster on this machine.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(lab_app, name="lab")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Format(StrEnum):
    """What a result looks like."""

    TEXT = "text"
    JSON = "json"


class LogFormat(StrEnum):
    """What a log line looks like."""

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
        """Read the config; its warnings go to stderr."""
        from loader.config import load_config

        config = load_config(self.files)
        for warning in config.warnings:
            note(f"warning: {warning}")
        return config


Output = Annotated[
    Format, typer.Option("--output", "-o", envvar="LOADER_OUTPUT", show_envvar=False, help="Form of the result.")
]
Every = Annotated[bool, typer.Option("--all", envvar="LOADER_ALL", show_envvar=False, help="All jobs of the config.")]
JobNames = Annotated[list[str] | None, typer.Argument(metavar="JOB", show_default=False, help="Jobs of the config.")]


def main() -> NoReturn:
    """Run the command line and exit with the code of the contract, never with a traceback for a person's mistake."""
    code = 0
    try:
        for number in SIGNALS:
            signal.signal(number, _stop)
        for stream in (sys.stdout, sys.stderr):  # in the locale C too, values are shown as they are
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        app()
    except LoaderError as error:
        text = str(error)
        note(text if ": error: " in text else f"error: {text}")
        code = int(error.exit_code)
    except (OSError, MemoryError) as error:  # of this machine: no more file descriptors, threads or memory
        note(f"error: {error or type(error).__name__}")
        code = int(Exit.FAILED)
    sys.exit(code)


def _stop(number: int, _: object) -> None:
    """End at the next safe moment; a second signal ends at once."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    name = signal.Signals(number).name
    raise Stopped(f"stopped by {name}", exit_code=Exit.SIGINT if name == "SIGINT" else Exit.SIGTERM)


def note(text: str) -> None:
    """Say something on stderr, where results do not go, and where nobody may be listening."""
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def say(text: str) -> None:
    """Print a result; that nobody reads it, as in `loader … | head -0`, does not end a run."""
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(wanted: bool) -> None:
    if wanted:
        from loader.encoder import COMPILED

        say(f"loader {version('mysql-redis-loader')}, {'compiled' if COMPILED else 'plain Python'} encoder")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    *,
    config: Annotated[
        list[Path] | None,
        typer.Option("--config", "-c", metavar="FILE", help="Config file; again for more, the later wins."),
    ] = None,
    log_format: Annotated[
        LogFormat,
        typer.Option(envvar="LOADER_LOG_FORMAT", show_envvar=False, help="auto, console or json.", metavar="FORM"),
    ] = LogFormat.AUTO,
    log_level: Annotated[
        LogLevel,
        typer.Option(
            envvar="LOADER_LOG_LEVEL", show_envvar=False, help="debug, info, warning or error.", metavar="LEVEL"
        ),
    ] = LogLevel.INFO,
    no_color: Annotated[
        bool, typer.Option("--no-color", envvar="LOADER_NO_COLOR", show_envvar=False, help="As NO_COLOR.")
    ] = False,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Keep Redis hashes equal to MySQL rows."""
    color = not no_color and not os.environ.get("NO_COLOR") and sys.stderr.isatty()
    context.obj = Common(tuple(config or ()), log_format.value, log_level.value, color)


@app.command()
def check(context: typer.Context) -> None:
    """Validate the config, offline."""
    config = context.obj.config()
    names = ", ".join(config.jobs)
    say(f"ok: {len(config.jobs)} job{'s' if len(config.jobs) > 1 else ''}: {names}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of the config."""
    import json

    from loader.config import json_schema

    say(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command()
def plan(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    every: Every = False,
) -> None:
    """Show what a sync would do; nothing is written."""
    from loader.report import plan_text
    from loader.run import preview

    config = context.obj.config()
    for number, job in enumerate(_chosen(config, jobs, every=every)):
        shown = preview(config, job)
        say(("\n" if number else "") + plan_text(shown))
        for warning in shown.plan.warnings:
            note(f"warning: {warning}")


def _shard(text: str | None) -> str | None:
    if text is not None and not _parsed(text, r"([1-9]\d*)/([1-9]\d*)", lambda i, n: i <= n):
        raise typer.BadParameter("write I/N, the Ith of N shards: 1/4")
    return text


def _max_load(text: str | None) -> str | None:
    if text is not None and not _parsed(text, r"([A-Za-z_]+)=(\d+)"):
        raise typer.BadParameter("write a status variable of MySQL and its limit: Threads_running=25")
    return text


def _parsed(text: str, pattern: str, valid: "Callable[[int, int], bool] | None" = None) -> tuple[str, str] | None:
    import re

    match = re.fullmatch(pattern, text)
    if match is None or (valid and not valid(int(match[1]), int(match[2]))):
        return None
    return match[1], match[2]


DryRun = Annotated[
    bool,
    typer.Option("--dry-run", "-n", envvar="LOADER_DRY_RUN", show_envvar=False, help="Read and encode, send nothing."),
]
Where = Annotated[
    str | None,
    typer.Option(metavar="SQL", envvar="LOADER_WHERE", show_envvar=False, help="Only rows that satisfy this."),
]
Range = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="LO:HI",
        envvar="LOADER_RANGE",
        show_envvar=False,
        help="Only keys from LO to HI, both included.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=64,
        metavar="N",
        envvar="LOADER_WORKERS",
        show_envvar=False,
        help="Chunks loaded at the same time; default 2.",
    ),
]
ChunkRows = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=10_000_000,
        metavar="N",
        envvar="LOADER_CHUNK_ROWS",
        show_envvar=False,
        help="Rows in a chunk at most; default 50,000 or the job's.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        envvar="LOADER_SHARD",
        show_envvar=False,
        callback=_shard,
        help="Only the Ith of N parts, by key checksum.",
    ),
]
Rate = Annotated[
    int | None,
    typer.Option(
        metavar="ROWS/S", min=1, envvar="LOADER_RATE", show_envvar=False, help="Rows a second at most, in all."
    ),
]
MaxLoad = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=N",
        envvar="LOADER_MAX_LOAD",
        show_envvar=False,
        callback=_max_load,
        help="Wait while a MySQL status is above N.",
    ),
]
MaxLag = Annotated[
    int | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        envvar="LOADER_MAX_LAG",
        show_envvar=False,
        help="Wait while source.replica is further behind.",
    ),
]
Progress = Annotated[Show, typer.Option(envvar="LOADER_PROGRESS", show_envvar=False, help="How progress is shown.")]


@app.command()
def sync(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    every: Every = False,
    dry_run: DryRun = False,
    where: Where = None,
    key_range: Range = None,
    workers: Workers = None,
    chunk_rows: ChunkRows = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            envvar="LOADER_RESUME",
            show_envvar=False,
            help="Keep a checkpoint, and go on from one that fits.",
        ),
    ] = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            envvar="LOADER_RESTART",
            show_envvar=False,
            help="Keep a checkpoint, forgetting an earlier one.",
        ),
    ] = False,
    shard: Shard = None,
    rate: Rate = None,
    max_load: MaxLoad = None,
    max_lag: MaxLag = None,
    progress: Progress = Show.AUTO,
    output: Output = Format.TEXT,
) -> None:
    """Write the rows of jobs to Redis, now."""
    from loader.run import WORKERS, Options

    config = context.obj.config()
    options = Options(
        where=where,
        key_range=key_range,
        workers=workers or WORKERS,
        chunk_rows=chunk_rows,
        dry_run=dry_run,
        resume=(resume or restart) and not dry_run,
        restart=restart,
        shard=_numbers(shard),
        rate=rate,
        max_load=_limit(max_load),
        max_lag=max_lag,
    )
    _run_all(context, config, _chosen(config, jobs, every=every), options, progress, output)


@app.command()
def backfill(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job of the config.")],
    *,
    dry_run: DryRun = False,
    where: Where = None,
    key_range: Range = None,
    workers: Workers = None,
    chunk_rows: ChunkRows = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart/--resume",
            envvar="LOADER_RESTART",
            show_envvar=False,
            help="Forget an earlier checkpoint, or go on from it.",
        ),
    ] = False,
    shard: Shard = None,
    rate: Rate = None,
    max_load: MaxLoad = None,
    max_lag: MaxLag = None,
    progress: Progress = Show.AUTO,
    output: Output = Format.TEXT,
) -> None:
    """Write a whole table, once; if killed, type it again."""
    from loader.run import WORKERS, Options

    config = context.obj.config()
    options = Options(
        where=where,
        key_range=key_range,
        workers=workers or WORKERS,
        chunk_rows=chunk_rows,
        dry_run=dry_run,
        resume=not dry_run,
        restart=restart,
        shard=_numbers(shard),
        rate=rate,
        max_load=_limit(max_load),
        max_lag=max_lag,
    )
    _run_all(context, config, _chosen(config, [job]), options, progress, output)


def _numbers(shard: str | None) -> tuple[int, int] | None:
    part, _, parts = (shard or "").partition("/")
    return (int(part), int(parts)) if parts else None


def _limit(max_load: str | None) -> tuple[str, int] | None:
    name, _, most = (max_load or "").partition("=")
    return (name, int(most)) if most else None


def _run_all(
    context: typer.Context,
    config: "Config",
    jobs: "Sequence[Job]",
    options: "Options",
    progress: Show,
    output: Format,
) -> NoReturn:
    """Run jobs one after the other; the exit code is the first failure's, else that of rejected rows, else 0."""
    codes = []
    for job in jobs:
        run = _run(config, job, options, progress, context.obj)
        _tell(run, output)
        codes.append(run.exit_code)
        if run.exit_code in {Exit.SIGINT, Exit.SIGTERM}:
            break
    if codes[-1] in {Exit.SIGINT, Exit.SIGTERM}:
        raise typer.Exit(codes[-1])
    raise typer.Exit(next((code for code in codes if code not in {Exit.OK, Exit.REJECTS}), max(codes)))


def _run(config: "Config", job: "Job", options: "Options", progress: Show, shown: Common) -> "Run":
    from loader.progress import Log, Reporter
    from loader.run import run_job

    reporter = Reporter(job.name, progress.value, Log(shown.log_format, shown.log_level, shown.color))
    try:
        return run_job(config, job, options, reporter)
    finally:
        reporter.close()


def _tell(run: "Run", output: Format) -> None:
    from loader.report import dump, run_document, run_text

    if output is Format.JSON:
        say(dump(run_document(run)))
    elif run.status != "failed":
        say(run_text(run))
    if run.status == "failed":
        note(f"error: {run.error}")


@app.command()
def get(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job of the config.")],
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY", help="Primary keys (a,b where composite), or whole keys.")
    ],
    *,
    output: Output = Format.TEXT,
) -> None:
    """Read hashes back, with the slot and the node that holds them."""
    from loader.report import dump, hash_document, hash_text
    from loader.run import read_back

    config = context.obj.config()
    missing = False
    for found in read_back(config, _chosen(config, [job])[0], keys):
        say(dump(hash_document(*found)) if output is Format.JSON else hash_text(*found))
        missing |= found[-1] is None
    raise typer.Exit(Exit.FAILED if missing else Exit.OK)


@app.command()
def cluster(context: typer.Context, *, output: Output = Format.TEXT) -> None:
    """Show masters, slots, keys and replicas."""
    from loader.report import cluster_text, dump
    from loader.target import Target, describe_cluster

    with Target(context.obj.config().target) as target:
        document = describe_cluster(target)
    say(dump(document) if output is Format.JSON else cluster_text(document))
    raise typer.Exit(Exit.OK if document["state"] == "ok" else Exit.FAILED)


def _chosen(config: "Config", names: Sequence[str] | None, *, every: bool = False) -> list["Job"]:
    """The jobs that were named, or all; a name that is none is an error with the nearest one."""
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


Directory = Annotated[
    Path,
    typer.Option("--dir", envvar="LOADER_LAB_DIR", show_envvar=False, help="Where the lab keeps its servers' files."),
]
Name = Annotated[str, typer.Argument(metavar="NODE", help="n1, n2, … or mysql.")]


@lab_app.command()
def up(
    *,
    nodes: Annotated[int, typer.Option(min=1, max=100, help="Redis servers.")] = 6,
    replicas: Annotated[int, typer.Option(min=0, max=5, help="Replicas of each master.")] = 1,
    sql: Annotated[list[Path] | None, typer.Option(help="Tables to make; default sql/stu.sql if it is there.")] = None,
    directory: Directory = Path(".lab"),
) -> None:
    """Start the servers, make the cluster, load the tables, write a config."""
    from loader.lab import Lab

    if sql is None:
        sql = [path for path in [Path("sql/stu.sql")] if path.exists()]
    lab = Lab(directory)
    started = lab.up(nodes, replicas, sql)
    say(f"started {', '.join(started)}" if started else "the lab was up already")
    say(f"config: {lab.config}\nstop it with: loader lab down")


@lab_app.command()
def down(*, directory: Directory = Path(".lab")) -> None:
    """Stop the servers and delete their files."""
    from loader.lab import Lab

    say("the lab is gone" if Lab(directory).down() else "there was no lab")


@lab_app.command()
def status(*, directory: Directory = Path(".lab")) -> None:
    """Show the servers."""
    from loader.lab import Lab

    for row in Lab(directory).status():
        state = "up" if row.running else "down"
        of = f" of {row.master}" if row.master else ""
        slots = f", {row.slots} slots" if row.slots else ""
        say(f"{row.name:6}  {state:4}  {row.address:21}  pid {row.pid:<7}  {row.role}{of}{slots}")


@lab_app.command()
def kill(node: Name, *, directory: Directory = Path(".lab")) -> None:
    """Kill a server as a crash would (SIGKILL)."""
    from loader.lab import Lab

    Lab(directory).kill(node)
    say(f"{node} is dead")


@lab_app.command()
def start(node: Name, *, directory: Directory = Path(".lab")) -> None:
    """Start a server that was killed, with the files it had."""
    from loader.lab import Lab

    say(f"{node} is up" if Lab(directory).start(node) else f"{node} was up already")


@lab_app.command("add-replica")
def add_replica(
    node: Annotated[str | None, typer.Argument(metavar="[NODE]", help="A killed node; default a new one.")] = None,
    *,
    master: Annotated[str | None, typer.Option(help="Its master; default the one with the fewest replicas.")] = None,
    wipe: Annotated[bool, typer.Option(help="Empty the node first.")] = False,
    directory: Directory = Path(".lab"),
) -> None:
    """Add a node to the cluster as a replica."""
    from loader.lab import Lab

    say(Lab(directory).add_replica(node, master, wipe=wipe))
