"""The status and history commands: status, runs.

Modules are imported inside the commands, so that `loader --help` and completion stay quick.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from loader.cli.common import note, say, tell
from loader.cli.options import Format, JobNames, Output, option
from loader.config.parsers import plain
from loader.errors import Exit, LoaderError, Stopped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loader.config.load import Config
    from loader.config.models import JobConfig
    from loader.report.screen import Screen


def status(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    watch: Annotated[
        bool, option("--watch", help="Refresh every two seconds, jobs that need attention first.")
    ] = False,
    parts: Annotated[bool, option("--parts", help="Show each part of a job of many tables, as for one named.")] = False,
    output: Output = Format.TEXT,
) -> None:
    """Show how jobs are doing: last run, next, age, lag."""
    config, named = context.obj.chosen(jobs, every=not jobs)
    screen: Screen = context.obj.screen
    fold = not (jobs or parts)
    if not watch:
        text, known = _statuses(config, named, output, screen, sort=False, fold=fold)
        say(text, screen, whole=True)
        raise typer.Exit(Exit.OK if known else Exit.FAILED)
    from loader.report.progress import redraw

    def draw() -> str:
        try:
            return _statuses(config, named, output, context.obj.screen, sort=True, fold=fold)[0]
        except Stopped:
            raise
        except LoaderError as error:  # the next attempt may succeed
            return screen.fold(plain(f"error: {error}"))

    try:
        redraw(draw, color=screen.color)
    except Stopped as stop:
        raise typer.Exit(stop.exit_code) from None


def runs(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    last: Annotated[int, option("--last", "-n", min=1, max=1000, metavar="N", help="The newest N runs.")] = 20,
    output: Output = Format.TEXT,
) -> None:
    """Show the history of jobs, newest first."""
    from loader.redis.client import RedisClient
    from loader.report.status import runs_document, runs_text
    from loader.state.history import History

    config, named = context.obj.chosen(jobs, every=not jobs)
    entries = []
    with RedisClient(config.target) as target:
        for job in named:
            history = History(target, job.name)
            entries += history.last(last)
            if history.odd:
                note(f"warning: {history.odd}")
    entries = sorted(entries, key=lambda entry: entry.began, reverse=True)[:last]
    if output is Format.TEXT:
        screen = context.obj.screen
        say(runs_text(entries, screen), screen, whole=True)
        return
    for entry in entries:
        tell(runs_document(entry))


def _statuses(
    config: "Config", jobs: "Sequence[JobConfig]", output: Format, screen: "Screen", *, sort: bool, fold: bool
) -> tuple[str, bool]:
    """The statuses of jobs to show, and whether all of their state could be read.

    `sort` puts those to look at first, `fold` tells the parts of a job as one.
    """
    from loader.jobs.folded import folded
    from loader.jobs.status import attention, job_statuses
    from loader.redis.client import RedisClient
    from loader.report.documents import dump
    from loader.report.status import status_document, status_text

    with RedisClient(config.target) as target:
        found = job_statuses(target, config, jobs)
    known = not any(each.unread for each in found)
    if fold:
        found = folded(found, {job.name: job.part_of for job in jobs})
    if output is Format.JSON:
        return "\n".join(dump(status_document(each)) for each in found), known
    return status_text(sorted(found, key=attention) if sort else found, screen), known
