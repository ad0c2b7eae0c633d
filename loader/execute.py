"""A job, carried out: a run, and what belongs to it after its last chunk."""

from loader import reconcile
from loader.config import Config
from loader.crew import Listener, Options
from loader.errors import Exit, LoaderError, Stopped
from loader.model import Run, Status
from loader.run import run_job
from loader.settings import Job


def execute(settings: Config, job: Job, options: Options, listener: Listener, *, prune: float | None = None) -> Run:
    """Run a job; then, where it ended well, delete hashes without a row, up to `prune` percent of them.

    Without a `prune`, that is left out; but with `full_every`, a full sync finds what increments cannot, deleted rows
    too: it prunes as `loader prune` does.

    Never raises for what a person can mend: the run says how it ended, and with which exit code.
    """
    run = run_job(settings, job, options, listener)
    if prune is None and job.full_every and run.full and not (options.narrowed or options.resume):
        prune = reconcile.MAX_DELETE
    if prune is not None and not run.dry_run and run.exit_code in {Exit.OK, Exit.REJECTS}:
        _prune(settings, job, run, prune)
    return run


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
