"""`loader follow`: keep hashes equal to rows, change by change."""

import signal
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loader.cli.common import note, say, tell, worst
from loader.cli.options import Every, Format, JobNames, MaxLag, MaxLoad, Output, Progress, Show, load_limit, option
from loader.errors import ConfigError, Exit, LoaderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loader.config.models import JobConfig
    from loader.jobs.follow import Followed
    from loader.report.follow_progress import FollowReporter


def follow(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    every: Every = False,
    begin: Annotated[
        Literal["start", "now"] | None,
        option("--from", help="start: read all rows; now: sync what changed since the last sync; else go on."),
    ] = None,
    until_caught_up: Annotated[
        bool, option("--until-caught-up", help="End as soon as all changes so far are in Redis.")
    ] = False,
    max_load: MaxLoad = None,
    max_lag: MaxLag = None,
    progress: Progress = Show.AUTO,
    output: Output = Format.TEXT,
) -> None:
    """Keep up with the binlog, change by change."""
    from loader.jobs.full_pass import Begin
    from loader.jobs.streams import Streams
    from loader.pipeline.options import Options
    from loader.report.follow_progress import FollowReporter

    config, named = context.obj.chosen(jobs, every=every)
    if not named:
        raise ConfigError("name jobs or give --all")
    reporters: dict[str, FollowReporter] = {}

    def listen(job: "JobConfig") -> "FollowReporter":
        if job.name not in reporters:
            reporters[job.name] = FollowReporter(job.name, progress.value, context.obj.log)
        return reporters[job.name]

    options = Options(max_load=load_limit(max_load), max_lag=max_lag)
    following = Streams(
        config, named, listen, Begin(begin) if begin else None, options, lambda error: note(f"error: {error}")
    )

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        following.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        ended = following.run(until_caught_up=until_caught_up)
    finally:
        for reporter in reporters.values():
            reporter.close()
    _tell(ended, following.errors, output)


def _tell(ended: "Sequence[Followed]", errors: "Sequence[LoaderError | OSError]", output: Format) -> None:
    """Print how far jobs were followed; exit with the code of the errors, if there are any."""
    from loader.report.documents import error_document
    from loader.report.follow import followed_document, followed_text

    codes = [getattr(error, "exit_code", Exit.FAILED) for error in errors]
    for followed in ended:
        if output is Format.JSON:
            tell(followed_document(followed))
        else:
            say(followed_text(followed))
    if output is Format.JSON:
        for error, code in zip(errors, codes, strict=True):
            tell(error_document(str(error), code))
    if codes:
        raise typer.Exit(worst(codes))
