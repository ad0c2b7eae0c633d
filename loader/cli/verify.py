"""The commands that compare both sides: verify, prune, rejects.

Modules are imported inside the commands, so that `loader --help` and completion stay quick.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from loader.cli.common import Common, note, of_job, reporter, say, tally, tell, wholes, worst
from loader.cli.help import Command, Group
from loader.cli.options import (
    Apart,
    Every,
    Format,
    JobArgument,
    JobNames,
    MaxDelete,
    Output,
    Progress,
    Show,
    option,
    percent,
)
from loader.errors import Exit, LoaderError, Stopped

if TYPE_CHECKING:
    from loader.config.models import JobConfig
    from loader.jobs.rejects import Retried
    from loader.jobs.turns import Turn, Turns
    from loader.report.parts import Parts

T = TypeVar("T")


def verify(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    every: Every = False,
    sample: Annotated[
        int | None, option("--sample", min=1, metavar="N", help="Compare about N rows and N hashes.")
    ] = None,
    repair: Annotated[bool, option("--repair", help="Repair differences; delete at most 5% of the hashes.")] = False,
    show: Annotated[int, option("--show", min=0, metavar="N", help="Show the first N differences.")] = 20,
    progress: Progress = Show.AUTO,
    parts: Apart = False,
    output: Output = Format.TEXT,
) -> None:
    """Compare MySQL and Redis in both directions."""
    from loader.jobs import verify as reconcile
    from loader.jobs.shared_scan import SharedScan
    from loader.jobs.sums import verdict_of
    from loader.report.documents import verify_document
    from loader.report.text import verify_text

    config, named = context.obj.chosen(jobs, every=every)
    scan = SharedScan([job for job in named if not job.is_open]) if len(named) > 1 else None

    def one(job: "JobConfig", turns: "Turns") -> "Turn[tuple[int, str, reconcile.Verdict]]":
        with reporter(job, progress, context.obj, "verifying") as shows:
            verdict = yield from reconcile.verify_in_turn(
                config, job, turns, sample=sample, repair=repair, show=show, heard=shows, scan=scan
            )
        if verdict.refused:
            note(f"warning: {verdict.refused}")
        return (Exit.OK, "ok", verdict) if verdict.is_equal else (Exit.REJECTS, "different", verdict)

    def show_one(name: str, verdicts: "Sequence[reconcile.Verdict]", parts: "Parts | None", error: str) -> None:
        verdict = verdict_of(name, verdicts, show) if parts else verdicts[0] if verdicts else reconcile.Verdict(name)
        if output is Format.JSON:
            tell(verify_document(verdict, parts, error))
        else:
            screen = context.obj.screen
            say(verify_text(verdict, expires=name in expiring, parts=parts, screen=screen), screen)

    expiring = {job.part_of or job.name for job in named if job.ttl is not None}
    _each(context.obj, named, one, show_one, wholes(named, jobs, apart=parts), output)


def prune(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    every: Every = False,
    max_delete: MaxDelete = "5%",
    progress: Progress = Show.AUTO,
    dry_run: Annotated[bool, option("--dry-run", "-n", help="Count, delete nothing.")] = False,
    parts: Apart = False,
    output: Output = Format.TEXT,
) -> None:
    """Delete hashes whose row is gone."""
    from loader.jobs import prune as prune_module
    from loader.jobs.shared_scan import SharedScan
    from loader.jobs.sums import pruned_of
    from loader.report.documents import prune_document
    from loader.report.text import prune_text

    config, named = context.obj.chosen(jobs, every=every)
    scan = SharedScan([job for job in named if not job.is_open]) if len(named) > 1 else None

    def one(job: "JobConfig", turns: "Turns") -> "Turn[tuple[int, str, prune_module.Pruned]]":
        pruned = prune_module.Pruned(job.name, dry_run=dry_run)
        with reporter(job, progress, context.obj, "pruning") as shows:
            yield from prune_module.prune_in_turn(
                config, job, pruned, turns, max_delete=percent(max_delete), scan=scan, heard=shows
            )
        if pruned.refused:
            note(f"{'warning' if dry_run else 'error'}: {pruned.refused}")
        return (Exit.FAILED, "refused", pruned) if pruned.refused and not dry_run else (Exit.OK, "ok", pruned)

    def show_one(name: str, each: "Sequence[prune_module.Pruned]", parts: "Parts | None", error: str) -> None:
        pruned = pruned_of(name, each) if parts else each[0] if each else prune_module.Pruned(name, dry_run=dry_run)
        if output is Format.JSON:
            tell(prune_document(pruned, parts, error))
        else:
            say(prune_text(pruned, parts))

    _each(context.obj, named, one, show_one, wholes(named, jobs, apart=parts), output)


def _each(
    shown: Common,
    jobs: "Sequence[JobConfig]",
    one: "Callable[[JobConfig, Turns], Turn[tuple[int, str, T]]]",
    show: "Callable[[str, Sequence[T], Parts | None, str], None]",
    whole: Mapping[str, str],
    output: Format,
) -> NoReturn:
    """Do the same for each job, in turn, which returns its exit code, state and result, and show the result.

    The failure of one does not stop the others. As JSON it has a document too, from its error and no result; those of
    parts are shown as one.
    """
    from loader.jobs.turns import in_turn
    from loader.report.parts import Gathered

    codes, gathered = list[int](), Gathered[T]([job.name for job in jobs], whole)
    try:
        for job, ended in in_turn(jobs, one):
            result: T | None = None
            code: int
            failure = ""
            if isinstance(ended, Stopped):
                code, end = ended.exit_code, "stopped"
            elif isinstance(ended, LoaderError):
                note(f"error: {of_job(job.name, str(ended), several=len(jobs) > 1)}")
                code, end, failure = ended.exit_code, "failed", str(ended)
            else:
                code, end, result = ended
            codes.append(code)
            for name, results, parts in gathered.add(job.name, end, result):
                if results or (end != "stopped" and (parts or output is Format.JSON)):
                    show(name, results, parts, "" if parts else failure)
    except Stopped:
        for name, results, parts in gathered.rest():
            if results:
                show(name, results, parts, "")
        tally(gathered.ends, gathered.jobs, output, shown)
        raise
    tally(gathered.ends, gathered.jobs, output, shown)
    raise typer.Exit(worst(codes))


rejects = typer.Typer(
    cls=Group,
    help="Show, retry or forget rows that could not be written.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@rejects.command("list", cls=Command)
def rejects_list(
    context: typer.Context,
    job: JobArgument,
    *,
    values: Annotated[bool, option("--values", help="Also show the command of each row, with its values.")] = False,
    output: Output = Format.TEXT,
) -> None:
    """Show the rejected rows of a job: key, time, attempts, reason."""
    from loader.jobs.rejects import commands_of
    from loader.redis.client import RedisClient
    from loader.report.documents import rejects_document
    from loader.report.text import rejects_text
    from loader.state.rejects import Rejects

    config, named = context.obj.one(job)
    with RedisClient(config.target) as target:
        entries = sorted(Rejects(target, named.name).all(), key=lambda entry: (entry.last, entry.key))
    commands = commands_of(config, named, [entry.key for entry in entries]) if values else {}
    if output is Format.JSON:
        tell(rejects_document(named.name, entries, commands))
    else:
        say(rejects_text(named.name, entries, commands))


@rejects.command("retry", cls=Command)
def rejects_retry(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    every: Every = False,
    parts: Apart = False,
    output: Output = Format.TEXT,
) -> None:
    """Load the rejected rows again."""
    from loader.jobs.rejects import Retried
    from loader.jobs.rejects import retry as retry_all
    from loader.jobs.sums import retried_of
    from loader.jobs.turns import at_once
    from loader.report.documents import retry_document
    from loader.report.text import retry_text

    config, named = context.obj.chosen(jobs, every=every)

    def retried(job: "JobConfig") -> "tuple[int, str, Retried]":
        found = retry_all(config, job)
        left = found.rejects or found.nameless
        return (Exit.REJECTS, "rejects", found) if left else (Exit.OK, "ok", found)

    def one(job: "JobConfig", _: "Turns") -> "Turn[tuple[int, str, Retried]]":
        return at_once(lambda: retried(job))

    def show_one(name: str, each: "Sequence[Retried]", parts: "Parts | None", error: str) -> None:
        retried = retried_of(name, each) if parts else each[0] if each else Retried(name)
        if output is Format.JSON:
            tell(retry_document(retried, parts, error))
        else:
            say(retry_text(retried, parts))

    _each(context.obj, named, one, show_one, wholes(named, jobs, apart=parts), output)


@rejects.command("purge", cls=Command)
def rejects_purge(context: typer.Context, job: JobArgument, *, output: Output = Format.TEXT) -> None:
    """Forget the rejected rows."""
    from loader.redis.client import RedisClient
    from loader.report.documents import purge_document
    from loader.state.claim import Claims, claim_of
    from loader.state.rejects import Rejects

    config, named = context.obj.one(job)
    with RedisClient(config.target) as target:
        Claims(target, named.name).check(claim_of(config.source_of(named), named))
        count = Rejects(target, named.name).clear()
    if output is Format.JSON:
        tell(purge_document(named.name, count))
    else:
        say(f"{named.name}: {count:,} forgotten")
