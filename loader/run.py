"""A run: one execution of a job, from its plan to its last chunk; and what can be seen of a job without one."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from loader import increment
from loader.config import Config
from loader.crew import WORKERS, Crew, Listener, Options
from loader.errors import Done, Exit, LoaderError, PlanError, StartOver, Stopped
from loader.load import PATIENCE, persist, transfer
from loader.model import ChunkLoaded, ChunkOwed, Node, Noted, Run, Status, Table
from loader.plan import Plan, key_of, make_plan, peek, quote
from loader.settings import Job
from loader.settings import Target as TargetSettings
from loader.slots import slot_of
from loader.source import Source
from loader.target import Target
from loader.throttle import Throttle
from loader.writer import Sink

PREVIEW_ROWS = 5
REJECTS_KEPT = 1000  # rejects that a run remembers; all are counted
STARTS = 3  # how often a run begins, where its table or its target is changed under it

Found = tuple[bytes, int, Node, int | None, dict[bytes, bytes] | None]

__all__ = ["WORKERS", "Options", "preview", "read_back", "run_job"]


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, and the commands it makes of the first rows."""

    plan: Plan
    table: Table
    commands: list[tuple[Node, list[bytes]]]
    changed: Plan | None = None  # of a later run that reads what was changed
    index: str | None = None  # that finds what was changed


def new_id() -> str:
    """The id of a run."""
    return uuid4().hex[:12]


def run_job(settings: Config, job: Job, options: Options, listener: Listener, name: str = "") -> Run:
    """Load one job, in a run of that id, or a new one.

    Never raises for what a person can mend: the run says how it ended, and with which exit code.
    """
    run = Run(job=job.name, id=name or new_id(), dry_run=options.dry_run)
    started = time.monotonic()
    try:
        for start in range(STARTS):
            try:
                load(settings, job, options, listener, run, again=start > 0)
                break
            except StartOver as change:
                if start == STARTS - 1:
                    raise
                listener.notify(Noted(f"the run starts over: {change}"))
                run = Run(
                    job=job.name,
                    id=run.id,
                    dry_run=options.dry_run,
                    began=run.began,
                    starts=run.starts + 1,
                    waits=run.waits,
                )
                options = replace(options, restart=True)
    except Done as done:
        run.elsewhere, run.exit_code, run.error = True, done.exit_code, str(done)
    except Stopped as stop:
        run.status, run.exit_code, run.error = Status.STOPPED, stop.exit_code, str(stop)
    except LoaderError as error:
        run.status, run.exit_code, run.error = Status.FAILED, error.exit_code, str(error)
    except (OSError, MemoryError) as error:  # of this machine: no more file descriptors or memory
        run.status, run.exit_code, run.error = Status.FAILED, Exit.FAILED, str(error) or type(error).__name__
    else:
        if run.rejected or run.error:
            run.status, run.exit_code = Status.REJECTS, Exit.REJECTS
    run.seconds = time.monotonic() - started
    return run


def load(settings: Config, job: Job, options: Options, listener: Listener, run: Run, *, again: bool) -> None:
    """Load a job from its plan to its last chunk, and count it into the run."""
    with prepare(settings, job, options, run.id, again=again) as crew:
        listener.expect(crew.plan.expected, crew.throttle)
        for note in crew.notes:
            listener.notify(Noted(note))
        run.resumed, run.full = crew.resumed, crew.is_full
        run.rejected, run.rejects = crew.earlier  # a row that is not in Redis stays told of until it is
        run.read = run.rejected
        try:
            for event in crew.events(listener):
                add(run, event)
        finally:
            run.chunks = run.chunks_done + crew.owed
            for reason, seconds in crew.throttle.waited().items():
                run.waits[reason] = run.waits.get(reason, 0.0) + seconds
        run.deleted += crew.erased
        run.prunes = crew.prunes
        run.error = crew.evicted() or None
    if run.read != run.written + run.unchanged + run.rejected:
        raise LoaderError(
            f"rows do not add up: {run.read} read, {run.written} written,"
            f" {run.unchanged} unchanged, {run.rejected} rejected"
        )


def add(run: Run, event: ChunkLoaded | ChunkOwed) -> None:
    """Count a chunk into its run, or out of it."""
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
    """Count a chunk out of its run: it will be loaded once more."""
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


def prepare(settings: Config, job: Job, options: Options, run: str = "", *, again: bool = False) -> "Crew":
    """Connect to both sides and plan; an unreachable server is tried for `PATIENCE` seconds.

    With the id of a run it begins, and the job is locked for it unless nothing is to be written. Where it begins
    `again`, it has the patience of its job, and a table that is not there may be on its way back.
    """
    throttle = Throttle(options.rate, options.halt)
    patience = job.deadline if again else PATIENCE

    def look() -> tuple[Source, Table, Plan]:
        source = Source(settings.source)
        try:
            return source, *read_plan(source, job, options)
        except BaseException as error:
            source.close()
            if isinstance(error, PlanError):
                error.transient &= again
            raise

    source, table, plan = persist(look, patience, throttle)
    try:
        target = persist(lambda: _connected(settings.target), patience, throttle)
    except BaseException:
        source.close()
        raise
    crew = Crew(settings, plan, table, source, target, options, throttle)
    if run:
        try:
            persist(crew.begin if options.dry_run else lambda: crew.take_up(run), patience, throttle)
        except BaseException:
            crew.close()
            raise
    return crew


def _connected(settings: TargetSettings) -> Target:
    target = Target(settings)
    try:
        target.refresh(force=True)
    except LoaderError:
        target.close()
        raise
    return target


def read_plan(source: Source, job: Job, options: Options) -> tuple[Table, Plan]:
    """Look at the table, or at what the query gives, and fit the job to it; MySQL has accepted the statement then."""
    table = source.table(job.table) if job.table else source.result(peek(str(job.query), 0), job.name)
    plan = make_plan(job, table, where=options.where, key_range=options.key_range, shard=options.shard)
    source.result(plan.first(0), job.name)
    if (
        job.table and job.fields is None
    ):  # columns that the account may not read are hidden from it, and would be missed
        source.result(f"SELECT * FROM {quote(job.table)} LIMIT 0", job.name)
    return table, plan


def preview(settings: Config, job: Job) -> Preview:
    """What a sync would do: the plan, and the commands of the first rows, with their nodes."""
    with prepare(settings, job, Options()) as crew, Source(settings.source) as source:
        sink = Sink(crew.target, keep=True)
        transfer(crew.plan, crew.plan.first(PREVIEW_ROWS), source, sink, crew.throttle)
        if not job.incremental:
            return Preview(crew.plan, crew.table, sink.kept)
        changed, index = increment.example(crew.plan, crew.table, source)
        told = increment.warnings(job, changed.walk[0])
        plan = replace(crew.plan, warnings=(*crew.plan.warnings, *told))
        return Preview(plan, crew.table, sink.kept, changed, index)


def read_back(settings: Config, job: Job, keys: Sequence[str]) -> Iterator[Found]:
    """The hashes of a job's keys as they are in Redis: key, slot, node, seconds to live, fields (None: no such key)."""
    with prepare(settings, job, Options()) as crew:
        for text in keys:
            key = key_of(crew.plan, crew.table, text)
            node, flat = crew.target.ask(key, "HGETALL", key)
            _, ttl = crew.target.ask(key, "TTL", key)
            fields = dict(zip(flat[::2], flat[1::2], strict=True)) or None
            yield key, slot_of(key), node, ttl if ttl >= 0 else None, fields
