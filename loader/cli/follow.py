"""`loader follow`: keep hashes equal to rows, change by change."""

import signal
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loader.cli.common import note, say, worst
from loader.cli.options import Every, Format, JobNames, MaxLag, MaxLoad, Output, Progress, Show, load_limit, option
from loader.errors import ConfigError, Exit

if TYPE_CHECKING:
    from loader.config.models import JobConfig
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
    from loader.jobs.follow import Begin
    from loader.jobs.streams import Streams
    from loader.pipeline.options import Options
    from loader.report.documents import dump
    from loader.report.follow import followed_document, followed_text
    from loader.report.follow_progress import FollowReporter
    from loader.report.log import Log

    config, named = context.obj.chosen(jobs, every=every)
    if not named:
        raise ConfigError("name jobs or give --all")
    reporters: dict[str, FollowReporter] = {}

    def listen(job: "JobConfig") -> "FollowReporter":
        if job.name not in reporters:
            shown = context.obj
            style = Log(shown.log_format, shown.log_level, shown.color)
            reporters[job.name] = FollowReporter(job.name, progress.value, style)
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
    for followed in ended:
        say(dump(followed_document(followed)) if output is Format.JSON else followed_text(followed))
    if following.errors:
        raise typer.Exit(worst([getattr(error, "exit_code", Exit.FAILED) for error in following.errors]))
