"""The commands that load rows: sync, backfill.

Modules are imported inside the commands, so that `loader --help` and completion stay quick.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from loader.cli.common import (
    Common,
    Every,
    Format,
    JobArgument,
    JobNames,
    MaxDelete,
    Output,
    Progress,
    Show,
    chosen,
    note,
    of_job,
    reporter,
    say,
    share,
    worst,
)
from loader.errors import ConfigError

if TYPE_CHECKING:
    from loader.config.load import Config
    from loader.config.models import JobConfig
    from loader.model import Run
    from loader.pipeline.options import Options


def _shard(text: str | None) -> str | None:
    if text is not None and not _parsed(text, r"([1-9]\d*)/([1-9]\d*)", lambda i, n: i <= n):
        raise typer.BadParameter("write I/N, the Ith of N shards: 1/4")
    return text


def _max_load(text: str | None) -> str | None:
    if text is not None and not _parsed(text, r"([A-Za-z_]+)=(\d+)"):
        raise typer.BadParameter("write a status variable of MySQL and its limit: Threads_running=25")
    return text


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
    typer.Option(metavar="SQL", envvar="LOADER_WHERE", show_envvar=False, help="Load only rows that satisfy this."),
]
Range = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="LO:HI",
        envvar="LOADER_RANGE",
        show_envvar=False,
        help="Load only keys from LO to HI (inclusive).",
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
        help="Maximum rows per chunk; default 50,000 or the job's.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        envvar="LOADER_SHARD",
        show_envvar=False,
        callback=_shard,
        help="Load only the Ith of N parts, by key checksum.",
    ),
]
Rate = Annotated[
    int | None,
    typer.Option(
        metavar="ROWS/S", min=1, envvar="LOADER_RATE", show_envvar=False, help="Maximum rows per second, in all."
    ),
]
MaxLoad = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=N",
        envvar="LOADER_MAX_LOAD",
        show_envvar=False,
        callback=_max_load,
        help="Wait while a MySQL status variable is above N.",
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
            help="Keep a checkpoint, and resume from one that fits.",
        ),
    ] = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            envvar="LOADER_RESTART",
            show_envvar=False,
            help="Keep a checkpoint, but forget an earlier one.",
        ),
    ] = False,
    shard: Shard = None,
    rate: Rate = None,
    max_load: MaxLoad = None,
    max_lag: MaxLag = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            envvar="LOADER_FULL",
            show_envvar=False,
            help="Read and write everything, not only changes.",
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", envvar="LOADER_PRUNE", show_envvar=False, help="Then delete hashes whose row is gone."),
    ] = False,
    max_delete: MaxDelete = "5%",
    progress: Progress = Show.AUTO,
    output: Output = Format.TEXT,
) -> None:
    """Write the rows of jobs to Redis now."""
    from loader.pipeline.options import WORKERS, Options

    config = context.obj.config()
    named = chosen(config, jobs, every=every)
    if prune:
        from loader.jobs.session import refuse_shared

        if shard:
            raise ConfigError("--prune looks at all hashes of a job: prune after all shards have finished")
        for job in named:
            refuse_shared(config, job)
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
        full=full,
    )

    most = share(max_delete) if prune else None
    _run_all(named, lambda job: _run(config, job, options, progress, context.obj, prune=most), output)


def backfill(
    context: typer.Context,
    job: JobArgument,
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
            help="Forget an earlier checkpoint, or resume from it.",
        ),
    ] = False,
    shard: Shard = None,
    rate: Rate = None,
    max_load: MaxLoad = None,
    max_lag: MaxLag = None,
    progress: Progress = Show.AUTO,
    output: Output = Format.TEXT,
) -> None:
    """Write a whole table once; run it again to resume."""
    from loader.pipeline.options import WORKERS, Options

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


def _numbers(shard: str | None) -> tuple[int, int] | None:
    part, _, parts = (shard or "").partition("/")
    return (int(part), int(parts)) if parts else None


def _limit(max_load: str | None) -> tuple[str, int] | None:
    name, _, most = (max_load or "").partition("=")
    return (name, int(most)) if most else None


def _run_all(
    jobs: "Sequence[JobConfig]",
    run_one: "Callable[[JobConfig], Run]",
    output: Format,
) -> NoReturn:
    """Run jobs one after the other, until a signal; the exit code is the worst of theirs."""
    from loader.outcome import Status

    codes = []
    for job in jobs:
        run = run_one(job)
        if run.status is Status.FAILED:
            run.outcome = replace(run.outcome, error=of_job(run.job, str(run.error), several=len(jobs) > 1))
        _tell(run, output)
        codes.append(run.exit_code)
        if run.outcome.is_stop:
            break
    raise typer.Exit(worst(codes))


def _run(
    config: "Config", job: "JobConfig", options: "Options", progress: Show, shown: Common, *, prune: float | None = None
) -> "Run":
    from loader.jobs.execute import execute

    with reporter(job, progress, shown) as listener:
        return execute(config, job, options, listener, prune=prune)


def _tell(run: "Run", output: Format) -> None:
    from loader.outcome import Status
    from loader.report.documents import dump, run_document, run_text

    if output is Format.JSON:
        say(dump(run_document(run)))
    elif run.status is not Status.FAILED:
        say(run_text(run))
    if run.status is Status.FAILED:
        note(f"error: {run.error}")
