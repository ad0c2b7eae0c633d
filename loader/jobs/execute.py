"""Executes a job: a run, the work after its last chunk, and its entry in the history."""

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.errors import Kind, LoaderError
from loader.model import Notice, Run, RunBegan, RunEnded
from loader.outcome import Outcome
from loader.pipeline.events import RunListener
from loader.pipeline.job_context import JobContext, passing
from loader.pipeline.options import Options
from loader.pipeline.run import new_id, run_job
from loader.state import history
from loader.state.checkpoint import StateStore
from loader.state.claim import claim_of


def execute(
    settings: Config, job: JobConfig, options: Options, listener: RunListener, *, prune: float | None = None
) -> Run:
    """Run a job; then, if it ended well, delete hashes without a row, up to `prune` percent of them.

    Without `prune`, nothing is deleted; but with `full_every`, a full sync finds deleted rows, which increments cannot:
    it prunes as `loader prune` does, and if that fails or is interrupted, the next run does.

    The listener is told of its begin and its end, and the history keeps it, unless it was a dry run or another run held
    the lock. Never raises for errors that a person can fix: the run has its outcome and exit code.
    """
    name = new_id()
    listener.notify(RunBegan(job.name, name, options.slot))
    began = Run(job=job.name, id=name, dry_run=options.dry_run, slot=options.slot, follows=options.follows)
    try:
        run = run_job(settings, job, options, listener, name, lambda run, ends: _finish(run, ends, prune))
        run.slot, run.follows = options.slot, options.follows
    except Exception as error:  # a bug in this program; its text may contain a row
        began.outcome = Outcome(Kind.FAULT, f"unexpected {type(error).__name__}")
        _close(settings, job, options, listener, began)
        raise
    _close(settings, job, options, listener, run)
    return run


def _close(settings: Config, job: JobConfig, options: Options, listener: RunListener, run: Run) -> None:
    """Keep a run in the history, and report its end."""
    is_kept = not (run.dry_run or run.did_nothing or run.outcome.kind is Kind.FOREIGN)
    if is_kept and (missing := _keep(settings, job, options, run)):
        listener.notify(Notice(f"the run is not in the history of its job: {missing}"))
    listener.notify(RunEnded(run))


def _keep(settings: Config, job: JobConfig, options: Options, run: Run) -> str:
    return history.keep(settings, job, run, partial=options.narrowed, reach=options.pool.reach)


def _finish(run: Run, ends: JobContext, prune: float | None) -> None:
    """Claim the job's name, note its fields, and delete hashes without a row, if requested or due."""
    if run.dry_run:
        return
    settings, job = ends.settings, ends.plan.job
    with passing():  # the next run does it
        ends.claims.take(claim_of(ends.source_config, job))
        if not ends.plan.field_names <= ends.known_fields:
            StateStore(ends.target, job.name).add_fields(ends.plan.field_names)
    if prune is None and not run.prunes:
        return
    from loader.jobs import prune as pruning  # its dozen modules, which most runs do not need

    pruned = pruning.Pruned(job.name)
    most = pruning.MAX_DELETE if prune is None else prune
    try:
        pruning.prune(settings, job, pruned, max_delete=most, within=ends)
    finally:
        run.deleted += pruned.deleted
    if pruned.refused:
        raise LoaderError(pruned.refused)
