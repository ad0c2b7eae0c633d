"""The commands that load rows: sync, backfill.

Modules are imported inside the commands, so that `loader --help` and completion stay quick.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from loader.cli.command_line import resuming
from loader.cli.common import Common, note, of_job, reporter, say, tally, tell, wholes, worst
from loader.cli.options import (
    Apart,
    Every,
    Format,
    JobArgument,
    JobNames,
    MaxDelete,
    Output,
    Progress,
    ReadOptions,
    ShareOptions,
    Show,
    grouped,
    load_limit,
    option,
    percent,
    shard_numbers,
)
from loader.errors import ConfigError

if TYPE_CHECKING:
    from loader.config.load import Config
    from loader.config.models import JobConfig
    from loader.model import Run
    from loader.pipeline.options import Options
    from loader.report.parts import Parts


@grouped
def sync(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    every: Every = False,
    reading: ReadOptions,
    resume: Annotated[bool, option("--resume", help="Keep a checkpoint, and resume from one that fits.")] = False,
    restart: Annotated[bool, option("--restart", help="Keep a checkpoint, but forget an earlier one.")] = False,
    sharing: ShareOptions,
    full: Annotated[bool, option("--full", help="Read and write everything, not only changes.")] = False,
    prune: Annotated[bool, option("--prune", help="Then delete hashes whose row is gone.")] = False,
    max_delete: MaxDelete = "5%",
    progress: Progress = Show.AUTO,
    parts: Apart = False,
    output: Output = Format.TEXT,
) -> None:
    """Write the rows of jobs to Redis now."""
    from loader.pipeline.pool import Pool

    config, named = context.obj.chosen(jobs, every=every)
    if prune:
        _check_prune(config, named, sharing)
    options = replace(_options(reading, sharing, resume=resume or restart, restart=restart, full=full), pool=Pool())
    most = percent(max_delete) if prune else None
    if len(named) > 1 and progress in {Show.AUTO, Show.BAR}:
        progress = Show.LOG  # a terminal has one bar
    run = lambda job, options: _run(config, job, options, progress, context.obj, prune=most)  # noqa: E731
    _run_all(config, named, options, run, _Results(named, wholes(named, jobs, apart=parts), output, context.obj))


@grouped
def backfill(
    context: typer.Context,
    job: JobArgument,
    *,
    reading: ReadOptions,
    restart: Annotated[
        bool, option("--restart/--resume", help="Forget an earlier checkpoint, or resume from it.")
    ] = False,
    sharing: ShareOptions,
    dask: Annotated[
        str | None, option("--dask", metavar="ADDRESS", help="Load with the workers of this Dask scheduler.")
    ] = None,
    progress: Progress = Show.AUTO,
    parts: Apart = False,
    output: Output = Format.TEXT,
) -> None:
    """Write a whole table once; run it again to resume."""
    config, named = context.obj.chosen([job])
    options = _options(reading, sharing, resume=True, restart=restart)
    if dask:
        options = _with_dask(options, dask, context.obj, most=reading.workers)
    run = lambda each, options: _run(config, each, options, progress, context.obj)  # noqa: E731
    _run_all(config, named, options, run, _Results(named, wholes(named, [job], apart=parts), output, context.obj))


def _options(
    reading: ReadOptions, sharing: ShareOptions, *, resume: bool, restart: bool, full: bool = False
) -> "Options":
    """The options of a run; one that writes nothing leaves no checkpoint."""
    from loader.pipeline.options import WORKERS, Options

    return Options(
        where=reading.where,
        key_range=reading.key_range,
        workers=reading.workers or WORKERS,
        chunk_rows=reading.chunk_rows,
        dry_run=reading.dry_run,
        resume=resume and not reading.dry_run,
        restart=restart,
        shard=shard_numbers(sharing.shard),
        rate=sharing.rate,
        max_load=load_limit(sharing.max_load),
        max_lag=sharing.max_lag,
        full=full,
    )


def _with_dask(options: "Options", address: str, shown: Common, *, most: int | None) -> "Options":
    """The options of a run by at most so many threads of a Dask cluster; a `ConfigError` for those it cannot have."""
    import importlib.util
    from pathlib import Path

    from loader.config.files import files_of
    from loader.pipeline.options import UNLIMITED, DaskCluster

    for given, flag, why in (
        (options.dry_run, "--dry-run", "it writes nothing, and needs no cluster"),
        (options.shard, "--shard", "Dask divides the table among its workers already"),
        (options.rate, "--rate", "its workers do not know of each other: start fewer, or give --max-load"),
    ):
        if given:
            raise ConfigError(f"--dask and {flag} exclude each other: {why}")
    if importlib.util.find_spec("distributed") is None:
        raise ConfigError("--dask needs the package distributed: pip install '.[dask]'  # in a clone")
    files = tuple(str(Path(file).absolute()) for file in files_of(shown.files))
    return replace(options, dask=DaskCluster(address, files), workers=most or UNLIMITED)


def _check_prune(config: "Config", jobs: "Sequence[JobConfig]", sharing: ShareOptions) -> None:
    """Refuse `--prune` if hashes may belong to another shard or another job."""
    from loader.jobs.session import refuse_shared

    if sharing.shard:
        raise ConfigError("--prune looks at all hashes of a job: prune after all shards have finished")
    for job in jobs:
        refuse_shared(config, job)


def _run_all(
    config: "Config",
    jobs: "Sequence[JobConfig]",
    options: "Options",
    run_one: "Callable[[JobConfig, Options], Run]",
    results: "_Results",
) -> NoReturn:
    """Run jobs within one budget of workers, until a signal; the exit code is the worst of theirs."""
    from loader.jobs.together import at_once, run_together
    from loader.outcome import Status

    codes, is_unfinished = [], False
    count = at_once(config, jobs, options)
    runs = run_together(jobs, options, count, run_one) if count > 1 else (run_one(job, options) for job in jobs)
    for run in runs:
        if run.status is Status.FAILED:
            run.outcome = replace(run.outcome, error=of_job(run.job, str(run.error), several=len(jobs) > 1))
        results.add(run)
        codes.append(run.exit_code)
        is_unfinished |= options.resume and not run.outcome.is_success and bool(run.chunks_done or run.resumed)
        if run.outcome.is_stop and count == 1:
            break
    results.close()
    if is_unfinished:
        note(f"to resume: {resuming(sys.argv[1:])}", whole=True)
    raise typer.Exit(worst(codes))


def _run(
    config: "Config", job: "JobConfig", options: "Options", progress: Show, shown: Common, *, prune: float | None = None
) -> "Run":
    from loader.jobs.execute import execute

    with reporter(job, progress, shown) as listener:
        return execute(config, job, options, listener, prune=prune)


class _Results:
    """Prints the runs of jobs as they end; those of parts as one once all have ended, but their errors at once."""

    def __init__(self, jobs: "Sequence[JobConfig]", whole: "Mapping[str, str]", output: Format, shown: Common) -> None:
        from loader.report.parts import Gathered

        self._gathered = Gathered["Run"]([job.name for job in jobs], whole)
        self._whole = whole
        self._output = output
        self._shown = shown

    def add(self, run: "Run") -> None:
        """Print a run, or keep it until the other parts of its job have ended."""
        if run.job in self._whole:
            self._tell_error(run)
        for each in self._gathered.add(run.job, run.status.value, run):
            self._tell(*each)

    def close(self) -> None:
        """Print the rest after a signal, and how several jobs did."""
        for each in self._gathered.rest():
            self._tell(*each)
        tally(self._gathered.ends, self._gathered.jobs, self._output, self._shown)

    def _tell(self, job: str, runs: "Sequence[Run]", parts: "Parts | None") -> None:
        from loader.outcome import Status
        from loader.report.documents import run_document
        from loader.report.parts import run_of
        from loader.report.text import run_text

        run, screen = run_of(job, runs) if parts else runs[0], self._shown.screen
        if self._output is Format.JSON:
            tell(run_document(run, parts))
        elif parts or run.status is not Status.FAILED:
            say(run_text(run, parts, screen), screen)
        if not parts:
            self._tell_error(run)

    def _tell_error(self, run: "Run") -> None:
        from loader.outcome import Status

        if run.status is Status.FAILED and run.id not in self._shown.told:
            note(f"error: {run.error}")
