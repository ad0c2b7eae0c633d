"""A job, carried out: a run, what belongs to it after its last chunk, and its place in the history."""

from loader import history, reconcile
from loader.config import Config
from loader.errors import Exit, LoaderError, Stopped
from loader.listener import Listener
from loader.model import Noted, Run, RunBegan, RunEnded, Status
from loader.options import Options
from loader.run import new_id, run_job
from loader.settings import Job


def execute(settings: Config, job: Job, options: Options, listener: Listener, *, prune: float | None = None) -> Run:
    """Run a job; then, where it ended well, delete hashes without a row, up to `prune` percent of them.

    Without a `prune`, that is left out; but with `full_every`, a full sync finds what increments cannot, deleted rows
    too: it prunes as `loader prune` does, and where that fails or is cut off, the next run does.

    The listener hears of its begin and its end, and the history keeps it, unless it was a dry run or another run held
    the lock. Never raises for what a person can mend: the run says how it ended, and with which exit code.
    """
    name = new_id()
    listener.notify(RunBegan(job.name, name, options.slot))
    began = Run(job=job.name, id=name, dry_run=options.dry_run, slot=options.slot)
    try:
        run = run_job(settings, job, options, listener, name)
        run.slot = options.slot
        if prune is None and run.prunes:
            prune = reconcile.MAX_DELETE
        if prune is not None and not run.dry_run and run.exit_code in {Exit.OK, Exit.REJECTS}:
            _prune(settings, job, run, prune)
    except Exception as error:  # a fault of this program; its text may quote a row
        began.status, began.exit_code, began.error = Status.FAILED, Exit.FAILED, f"unexpected {type(error).__name__}"
        _close(settings, job, options, listener, began)
        raise
    _close(settings, job, options, listener, run)
    return run


def _close(settings: Config, job: Job, options: Options, listener: Listener, run: Run) -> None:
    """Keep a run in the history, and tell of its end."""
    run.refused = run.exit_code == Exit.LOCKED and not run.chunks
    kept = not run.dry_run and not run.refused
    if kept and (missing := history.keep(settings.target, job, run, partial=options.narrowed)):
        listener.notify(Noted(f"the run is not in the history of its job: {missing}"))
    listener.notify(RunEnded(run))


def _prune(settings: Config, job: Job, run: Run, max_delete: float) -> None:
    """Delete what a run has left without a row, and count it into the run."""
    pruned = reconcile.Pruned(job.name)
    try:
        reconcile.prune(settings, job, pruned, max_delete=max_delete, run=run.id)
        if pruned.refused:
            raise LoaderError(pruned.refused)  # noqa: TRY301
    except Stopped as stop:
        run.status, run.exit_code, run.error = Status.STOPPED, stop.exit_code, str(stop)
    except LoaderError as error:
        run.status, run.exit_code, run.error = Status.FAILED, error.exit_code, str(error)
    run.deleted += pruned.deleted
