"""A run: one execution of a job, from its plan to its last chunk; and a preview of a job without one."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from secrets import token_hex

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.errors import Kind, LoaderError, StartOver, text_of
from loader.model import ChunkLoaded, ChunkOwed, Notice, Run
from loader.outcome import Outcome
from loader.pipeline.dispatcher import Dispatcher
from loader.pipeline.events import RunListener
from loader.pipeline.job_context import JobContext, open_job, patience
from loader.pipeline.options import Options
from loader.pipeline.retry import retry_transient
from loader.pipeline.run_state import RunState
from loader.state import history

REJECTS_KEPT = 1000  # rejects that a run keeps; all are counted
STARTS = 3  # how often a run starts, if its table or its target changes under it

Then = Callable[[Run, JobContext], None]


def new_id() -> str:
    """The id of a run."""
    return token_hex(6)


def run_job(
    settings: Config, job: JobConfig, options: Options, listener: RunListener, name: str = "", then: Then | None = None
) -> Run:
    """Load one job, in a run of that id, or a new one; the work to do `then`, under the same lock, is part of it.

    Never raises for errors that a person can fix: the run has its outcome and exit code.
    """
    run = Run(job=job.name, id=name or new_id(), dry_run=options.dry_run)
    try:
        for start in range(STARTS):
            try:
                load(settings, job, options, listener, run, again=start > 0, then=then)
                break
            except StartOver as change:
                if start == STARTS - 1:
                    raise
                listener.notify(Notice(f"the run starts over: {change}"))
                run = Run(
                    job=job.name,
                    id=run.id,
                    dry_run=options.dry_run,
                    began=run.began,
                    started=run.started,
                    starts=run.starts + 1,
                    waits=run.waits,
                )
                options = replace(options, restart=True)
    except LoaderError as error:
        run.outcome = Outcome(_kind_of(error, settings, job, run), str(error))
    except (OSError, MemoryError) as error:  # of this machine: no file descriptors or memory left
        run.outcome = Outcome(Kind.FAULT, text_of(error))
    else:
        if run.rejected:
            run.outcome = replace(run.outcome, kind=Kind.REJECTS)
    run.seconds = run.seconds or time.monotonic() - run.started
    return run


def _kind_of(error: LoaderError, settings: Config, job: JobConfig, run: Run) -> Kind:
    """The kind of the error that ended a run: if a missing table existed before, the config is right."""
    is_missing = error.kind is Kind.MISSING
    return Kind.VANISHED if is_missing and (run.starts > 1 or history.was_loaded(settings, job)) else error.kind


def load(
    settings: Config,
    job: JobConfig,
    options: Options,
    listener: RunListener,
    run: Run,
    *,
    again: bool,
    then: Then | None = None,
) -> None:
    """Load a job from its plan to its last chunk, count it into the run, and do the work to do then."""
    with open_job(settings, job, options, again=again, notify=listener.notify) as context:
        _transfer(context, options, listener, run, again=again)
        if run.read != run.written + run.unchanged + run.rejected:
            raise LoaderError(
                f"rows do not add up: {run.read} read, {run.written} written,"
                f" {run.unchanged} unchanged, {run.rejected} rejected"
            )
        run.seconds = time.monotonic() - run.started
        if then:
            then(run, context)


def _transfer(context: JobContext, options: Options, listener: RunListener, run: Run, *, again: bool) -> None:
    """Load all chunks, and count them into the run."""
    job = context.plan.job
    with RunState(context, options) as state, Dispatcher(context, state, options) as dispatcher:
        take_up = partial(dispatcher.take_up, run.id)
        try:
            retry_transient(
                take_up,
                patience(job, again=again),
                context.throttle,
                notify=listener.notify,
                settling=job.deadline,
                bearing=job.deadline,
            )
        except LoaderError:
            _tell(state.notes, listener)
            raise
        listener.expect(None if state.resumed else state.plan.expected, context.throttle)  # an estimate of all rows
        _tell(state.notes, listener)
        run.resumed, run.full = state.resumed, state.is_full
        run.rejected, run.rejects = state.earlier  # a row that is not in Redis is reported until it is
        run.read = run.rejected
        try:
            for event in dispatcher.events(listener):
                add(run, event)
                if isinstance(event, ChunkOwed):
                    listener.notify(event)
        finally:
            run.chunks = run.chunks_done + dispatcher.owed
            for reason, seconds in context.throttle.waited().items():
                run.waits[reason] = run.waits.get(reason, 0.0) + seconds
        run.deleted += state.erased
        run.prunes = state.prunes
        if evicted := state.masters.evicted():
            run.outcome = Outcome(Kind.REJECTS, evicted)
        _tell(state.late_notes, listener)


def _tell(notes: Iterable[str], listener: RunListener) -> None:
    for note in notes:
        listener.notify(Notice(note))


def add(run: Run, event: ChunkLoaded | ChunkOwed) -> None:
    """Add a chunk to its run's counts, or subtract it."""
    if isinstance(event, ChunkOwed):
        take_back(run, event.event)
        return
    run.read += event.read
    run.written += event.written
    run.unchanged += event.unchanged
    run.deleted += event.deleted
    run.rejected += len(event.rejects)
    run.rejects += event.rejects[: REJECTS_KEPT - len(run.rejects)]
    run.bytes += event.bytes
    run.chunks_done += 1
    run.chunks_retried += event.retried
    for node, rows in event.nodes.items():
        run.nodes[node] = run.nodes.get(node, 0) + rows


def take_back(run: Run, event: ChunkLoaded) -> None:
    """Subtract a chunk from its run's counts: it will be loaded again."""
    run.read -= event.read
    run.written -= event.written
    run.unchanged -= event.unchanged
    run.deleted -= event.deleted
    run.rejected -= len(event.rejects)
    run.rejects = [reject for reject in run.rejects if reject not in event.rejects]
    run.chunks_done -= 1
    run.chunks_retried += 1
    for node, rows in event.nodes.items():
        run.nodes[node] -= rows
