"""The commands that write and compare: sync, backfill, verify, prune, rejects.

Modules are imported inside the commands, so that `loader --help` and completion stay quick.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from loader.errors import Exit, LoaderError
from loader.model import Status
from loader.terminal import Common, Every, Format, JobNames, Output, Show, chosen, note, say

if TYPE_CHECKING:
    from loader.config import Config
    from loader.model import Run
    from loader.progress import Reporter
    from loader.run import Options
    from loader.settings import Job


def _shard(text: str | None) -> str | None:
    if text is not None and not _parsed(text, r"([1-9]\d*)/([1-9]\d*)", lambda i, n: i <= n):
        raise typer.BadParameter("write I/N, the Ith of N shards: 1/4")
    return text


def _max_load(text: str | None) -> str | None:
    if text is not None and not _parsed(text, r"([A-Za-z_]+)=(\d+)"):
        raise typer.BadParameter("write a status variable of MySQL and its limit: Threads_running=25")
    return text


def _percent(text: str) -> str:
    if not re.fullmatch(r"\d{1,3}(\.\d+)?%?", text) or _share(text) > 100:
        raise typer.BadParameter("write a share of the hashes, from 0% to 100%: 5%")
    return text


def _share(text: str) -> float:
    return float(text.removesuffix("%"))


def _parsed(text: str, pattern: str, valid: "Callable[[int, int], bool] | None" = None) -> tuple[str, str] | None:
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
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job of the config.")]
MaxDelete = Annotated[
    str,
    typer.Option(
        "--max-delete",
        metavar="PERCENT",
        envvar="LOADER_MAX_DELETE",
        show_envvar=False,
        callback=_percent,
        help="Delete nothing where more of the hashes have no row.",
    ),
]
Progress = Annotated[Show, typer.Option(envvar="LOADER_PROGRESS", show_envvar=False, help="How progress is shown.")]


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
    prune: Annotated[
        bool,
        typer.Option("--prune", envvar="LOADER_PRUNE", show_envvar=False, help="Then delete hashes whose row is gone."),
    ] = False,
    max_delete: MaxDelete = "5%",
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

    def run_one(job: "Job") -> "Run":
        run = _run(config, job, options, progress, context.obj)
        if prune and not dry_run and run.exit_code in {Exit.OK, Exit.REJECTS}:
            _prune(config, job, run, _share(max_delete))
        return run

    _run_all(chosen(config, jobs, every=every), run_one, output)


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
    _run_all(chosen(config, [job]), lambda named: _run(config, named, options, progress, context.obj), output)


def verify(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    every: Every = False,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", envvar="LOADER_SAMPLE", show_envvar=False, help="Only about N rows and N hashes."
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", envvar="LOADER_REPAIR", show_envvar=False, help="Mend what differs, and only that."),
    ] = False,
    show: Annotated[
        int,
        typer.Option(min=0, metavar="N", envvar="LOADER_SHOW", show_envvar=False, help="Name the first N differences."),
    ] = 20,
    progress: Progress = Show.AUTO,
    output: Output = Format.TEXT,
) -> None:
    """Compare MySQL and Redis, both ways."""
    from loader import reconcile
    from loader.report import dump, verify_document, verify_text

    config = context.obj.config()
    codes = []
    for job in chosen(config, jobs, every=every):
        with _reporter(job, progress, context.obj, "verifying") as reporter:
            verdict = reconcile.verify(config, job, sample=sample, repair=repair, show=show, heard=reporter.count)
        text = verify_text(verdict, expires=job.ttl is not None)
        say(dump(verify_document(verdict)) if output is Format.JSON else text)
        if verdict.refused:
            note(f"warning: {verdict.refused}")
        codes.append(Exit.OK if verdict.is_equal else Exit.REJECTS)
    raise typer.Exit(max(codes))


def prune(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    every: Every = False,
    max_delete: MaxDelete = "5%",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", envvar="LOADER_DRY_RUN", show_envvar=False, help="Count, delete nothing.")
    ] = False,
    output: Output = Format.TEXT,
) -> None:
    """Delete hashes whose row is gone."""
    from loader import reconcile
    from loader.report import dump, prune_document, prune_text

    config = context.obj.config()
    codes = []
    for job in chosen(config, jobs, every=every):
        pruned = reconcile.prune(config, job, max_delete=_share(max_delete), dry_run=dry_run)
        say(dump(prune_document(pruned)) if output is Format.JSON else prune_text(pruned))
        if pruned.refused:
            note(f"error: {pruned.refused}")
        codes.append(Exit.FAILED if pruned.refused else Exit.OK)
    raise typer.Exit(max(codes))


rejects_app = typer.Typer(help="Rows that could not be written.", no_args_is_help=True, rich_markup_mode=None)


@rejects_app.command("list")
def rejects_list(
    context: typer.Context,
    job: JobArgument,
    *,
    values: Annotated[
        bool, typer.Option("--values", help="Show the command of each row too, with its values.")
    ] = False,
    output: Output = Format.TEXT,
) -> None:
    """Show the rejected rows of a job: key, time, attempts, reason."""
    from loader.reconcile import commands_of
    from loader.report import command_text, dump, rejects_document, rejects_text
    from loader.state import Rejects
    from loader.target import Target

    config = context.obj.config()
    named = chosen(config, [job])[0]
    with Target(config.target) as target:
        entries = sorted(Rejects(target, named.name).all(), key=lambda entry: (entry.last, entry.key))
    say(dump(rejects_document(named.name, entries)) if output is Format.JSON else rejects_text(named.name, entries))
    if values:
        for words in commands_of(config, named, [entry.key for entry in entries]):
            say(command_text(words))


@rejects_app.command("retry")
def rejects_retry(context: typer.Context, job: JobArgument, *, output: Output = Format.TEXT) -> None:
    """Load the rejected rows again."""
    from loader import reconcile
    from loader.report import dump, retry_document, retry_text

    config = context.obj.config()
    retried = reconcile.retry(config, chosen(config, [job])[0])
    say(dump(retry_document(retried)) if output is Format.JSON else retry_text(retried))
    raise typer.Exit(Exit.REJECTS if retried.rejects or retried.nameless else Exit.OK)


@rejects_app.command("purge")
def rejects_purge(context: typer.Context, job: JobArgument) -> None:
    """Forget the rejected rows."""
    from loader.state import Rejects
    from loader.target import Target

    config = context.obj.config()
    named = chosen(config, [job])[0]
    with Target(config.target) as target:
        rejects = Rejects(target, named.name)
        count = rejects.remove([entry.key for entry in rejects.all()])
    say(f"{named.name}: {count:,} forgotten")


def _numbers(shard: str | None) -> tuple[int, int] | None:
    part, _, parts = (shard or "").partition("/")
    return (int(part), int(parts)) if parts else None


def _limit(max_load: str | None) -> tuple[str, int] | None:
    name, _, most = (max_load or "").partition("=")
    return (name, int(most)) if most else None


def _run_all(
    jobs: "Sequence[Job]",
    run_one: "Callable[[Job], Run]",
    output: Format,
) -> NoReturn:
    """Run jobs one after the other; the exit code is the first failure's, else that of rejected rows, else 0."""
    codes = []
    for job in jobs:
        run = run_one(job)
        _tell(run, output)
        codes.append(run.exit_code)
        if run.exit_code in {Exit.SIGINT, Exit.SIGTERM}:
            break
    if codes[-1] in {Exit.SIGINT, Exit.SIGTERM}:
        raise typer.Exit(codes[-1])
    raise typer.Exit(next((code for code in codes if code not in {Exit.OK, Exit.REJECTS}), max(codes)))


def _run(config: "Config", job: "Job", options: "Options", progress: Show, shown: Common) -> "Run":
    from loader.run import run_job

    with _reporter(job, progress, shown) as reporter:
        return run_job(config, job, options, reporter)


def _prune(config: "Config", job: "Job", run: "Run", max_delete: float) -> None:
    """Delete what a run has left without a row, and count it into the run."""
    from loader import reconcile

    try:
        pruned = reconcile.prune(config, job, max_delete=max_delete)
        run.deleted = pruned.deleted
        if pruned.refused:
            raise LoaderError(pruned.refused)  # noqa: TRY301
    except LoaderError as error:
        run.status, run.exit_code, run.error = Status.FAILED, error.exit_code, str(error)


@contextmanager
def _reporter(job: "Job", progress: Show, shown: Common, doing: str = "loading") -> "Iterator[Reporter]":
    from loader.progress import Log, Reporter

    reporter = Reporter(job.name, progress.value, Log(shown.log_format, shown.log_level, shown.color), doing)
    try:
        yield reporter
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
