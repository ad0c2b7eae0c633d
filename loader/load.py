"""The whole way: a chunk's row packets from MySQL through the encoder to the nodes, acknowledged; again if it failed.

`load_chunk` is the way itself; everything else here decides which chunk is next and what to do when one fails.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar
from uuid import uuid4

from loader.config import Config
from loader.encoder import Encoder
from loader.errors import Exit, LoaderError, SourceError, Stopped
from loader.model import Chunk, ChunkLoaded, KeyValues, Node, Run, Status, Table, Waiting
from loader.plan import Plan, checked, key_of, make_plan, peek
from loader.settings import Job
from loader.settings import Source as SourceSettings
from loader.settings import Target as TargetSettings
from loader.slots import slot_of
from loader.source import Source
from loader.target import Target
from loader.writer import Sink, Writer

DEADLINE = 120.0  # seconds without a loaded chunk before a run gives up: longer than any failover
PATIENCE = 2.0  # seconds of trying to connect before anything was loaded: a person is waiting
PAUSE_FIRST, PAUSE_MOST = 0.1, 5.0  # seconds between two attempts, doubling
PREVIEW_ROWS = 5
REJECTS_KEPT = 1000  # rejects that a run remembers; all are counted

Event = ChunkLoaded | Waiting
Notify = Callable[[Event], None]
Found = tuple[bytes, int, Node, int | None, dict[bytes, bytes] | None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What one run does differently from the job's config."""

    where: str | None = None
    key_range: str | None = None
    chunk_rows: int | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, and the commands it makes of the first rows."""

    plan: Plan
    table: Table
    commands: list[tuple[Node, list[bytes]]]


class Listener(Protocol):
    """Who is told of a run's events while it goes."""

    def expect(self, rows: int | None) -> None:
        """Take note of how many rows are to come, by MySQL's estimate."""

    def notify(self, event: Event) -> None:
        """Take note of an event."""


def _connected(settings: TargetSettings) -> Target:
    target = Target(settings)
    try:
        target.refresh(force=True)
    except LoaderError:
        target.close()
        raise
    return target


def run_job(settings: Config, job: Job, options: Options, listener: Listener) -> Run:
    """Load one job; never raises for what a person can mend: the run says how it ended, and with which exit code."""
    run = Run(job=job.name, id=uuid4().hex[:12], dry_run=options.dry_run)
    started = time.monotonic()
    try:
        with prepare(settings, job, options) as loading:
            listener.expect(loading.plan.rows_estimate)
            for event in loading.events(listener.notify):
                add(run, event)
        if run.read != run.written + run.unchanged + run.rejected:
            raise LoaderError(f"rows do not add up: {run.read} read, {run.written} written, {run.rejected} rejected")  # noqa: TRY301
    except Stopped as stop:
        run.status, run.exit_code, run.error = Status.STOPPED, stop.exit_code, str(stop)
    except LoaderError as error:
        run.status, run.exit_code, run.error = Status.FAILED, error.exit_code, str(error)
    else:
        if run.rejected:
            run.status, run.exit_code = Status.REJECTS, Exit.REJECTS
    run.seconds = time.monotonic() - started
    return run


def add(run: Run, event: ChunkLoaded) -> None:
    """Count a chunk into its run."""
    run.read += event.read
    run.written += event.written
    run.rejected += len(event.rejects)
    run.rejects += event.rejects[: REJECTS_KEPT - len(run.rejects)]
    run.bytes += event.bytes
    run.chunks += 1
    run.chunks_done += 1
    run.chunks_retried += event.retried
    for node, rows in event.nodes.items():
        run.nodes[node] = run.nodes.get(node, 0) + rows


def prepare(settings: Config, job: Job, options: Options) -> "Loading":
    """Connect to both sides and plan; an unreachable server is tried for `PATIENCE` seconds."""
    source = persist(lambda: Source(settings.source), PATIENCE)
    try:
        table, plan = read_plan(source, job, options)
        target = persist(lambda: _connected(settings.target), PATIENCE)
    except BaseException:
        source.close()
        raise
    return Loading(settings, plan, table, source, target, options)


def preview(settings: Config, job: Job) -> Preview:
    """What a sync would do: the plan, and the commands of the first rows, with their nodes."""
    loading = prepare(settings, job, Options())
    with loading, Source(settings.source) as source:
        sink = Sink(loading.target, keep=True)
        _pass(loading.plan, loading.plan.first(PREVIEW_ROWS), source, sink)
        return Preview(loading.plan, loading.table, sink.kept)


def read_back(settings: Config, job: Job, keys: Sequence[str]) -> Iterator[Found]:
    """The hashes of a job's keys as they are in Redis: key, slot, node, seconds to live, fields (None: no such key)."""
    with prepare(settings, job, Options()) as loading:
        for text in keys:
            key = key_of(loading.plan, loading.table, text)
            node, flat = loading.target.ask(key, "HGETALL", key)
            _, ttl = loading.target.ask(key, "TTL", key)
            fields = dict(zip(flat[::2], flat[1::2], strict=True)) or None
            yield key, slot_of(key), node, ttl if ttl >= 0 else None, fields


def read_plan(source: Source, job: Job, options: Options) -> tuple[Table, Plan]:
    """Look at the table, or at what the query gives, and fit the job to it; MySQL has accepted the statement then."""
    table = source.table(job.table) if job.table else source.result(peek(str(job.query), 0), job.name)
    plan = make_plan(job, table, where=options.where, key_range=options.key_range)
    source.result(plan.first(0), job.name)
    return table, plan


class Loading:
    """A run's connections: one `Source` that walks the key ahead, and a lane from MySQL to Redis."""

    def __init__(
        self,
        settings: Config,
        plan: Plan,
        table: Table,
        source: Source,
        target: Target,
        options: Options,
    ) -> None:
        self.plan = plan
        self.table = table
        self.target = target
        self._settings = settings
        self._scout: Source | None = source
        self._rows = options.chunk_rows or plan.job.chunk_rows
        self._lane = Lane(settings.source, plan, target, dry_run=options.dry_run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lane.close()
        if self._scout:
            self._scout.close()
        self.target.close()

    def events(self, notify: Notify) -> Iterator[ChunkLoaded]:
        """Load chunk after chunk, trying each again while its failure is one that passes."""
        for chunk in self._chunks(notify):
            event = persist(lambda chunk=chunk: self._lane.load(chunk), DEADLINE, chunk, notify)  # type: ignore[misc]
            notify(event)
            yield event

    def _chunks(self, notify: Notify) -> Iterator[Chunk]:
        """Walk the key, a chunk at a time: the next one is looked for when the last one is loaded."""
        number, after = 1, None
        while True:
            chunk = Chunk(number, after)
            upto = persist(lambda chunk=chunk: self._bound(chunk.after), DEADLINE, chunk, notify)  # type: ignore[misc]
            yield Chunk(number, after, upto)
            if upto is None:
                return
            number, after = number + 1, upto

    def _bound(self, after: KeyValues | None) -> KeyValues | None:
        if not self.plan.walk:
            return None
        if self._scout is None:
            self._scout = Source(self._settings.source)
        try:
            found = self._scout.fetch(self.plan.bound(after, self._rows))
        except LoaderError:
            self._scout.close()
            self._scout = None
            raise
        return checked(found[0]) if found else None


class Lane:
    """One worker's way from MySQL to Redis; connections that failed are dropped, and made anew."""

    def __init__(self, settings: SourceSettings, plan: Plan, target: Target, *, dry_run: bool = False) -> None:
        self._settings = settings
        self._plan = plan
        self._target = target
        self._source: Source | None = None
        self._writer: Writer | Sink | None = None
        self._dry_run = dry_run
        self._failures = 0

    def load(self, chunk: Chunk) -> ChunkLoaded:
        """Load a chunk; a failure leaves it to be loaded again, whole."""
        try:
            if self._writer is None:
                self._target.refresh(force=bool(self._failures))
                self._writer = Sink(self._target) if self._dry_run else Writer(self._target)
            self._source = self._source or Source(self._settings)
            self._target.refresh()
            event = load_chunk(chunk, self._plan, self._source, self._writer)
        except BaseException:
            self._failures += 1
            self.close()
            raise
        failures, self._failures = self._failures, 0
        return replace(event, retried=failures) if failures else event

    def close(self) -> None:
        """Drop the connections."""
        if self._writer:
            self._writer.close()
        if self._source:
            self._source.close()
        self._source = self._writer = None


def load_chunk(chunk: Chunk, plan: Plan, source: Source, writer: Writer | Sink) -> ChunkLoaded:
    """Read a chunk's rows, encode them per slot owner, send them, and wait until each is acknowledged or refused."""
    started = time.monotonic()
    encoder = _pass(plan, plan.select(chunk), source, writer)
    acks = writer.drain()
    return ChunkLoaded(
        chunk=chunk,
        read=encoder.rows,
        written=sum(acks.rows.values()),
        rejects=(*encoder.rejects, *acks.rejects),
        nodes=acks.rows,
        bytes=acks.bytes,
        seconds=time.monotonic() - started,
    )


def _pass(plan: Plan, statement: str, source: Source, writer: Writer | Sink) -> Encoder:
    """Take the rows of a statement from the source through the encoder to the writer."""
    slots = writer.begin()
    encoder = Encoder(plan.layout, slots.owners, len(slots.nodes))
    with source.stream(statement) as stream:
        if plan.names and stream.names != plan.names:
            raise SourceError(f"job {plan.job.name!r}: the query's columns have changed: {', '.join(stream.names)}")
        while not encoder.ended:
            stream.fill(encoder.wanted)
            while (position := encoder.feed(stream.buffer, stream.start, stream.end)) > stream.start:
                stream.start = position
                for node in encoder.ready():
                    writer.send(node, encoder.take(node))
        stream.finish()
    for node in encoder.ready(least=1):
        writer.send(node, encoder.take(node))
    return encoder


def persist(action: Callable[[], T], patience: float, chunk: Chunk | None = None, notify: Notify | None = None) -> T:
    """Do it, and again after a growing pause while it fails in passing, for `patience` seconds."""
    give_up = time.monotonic() + patience
    attempt = 0
    while True:
        try:
            return action()
        except LoaderError as error:
            pause = min(PAUSE_MOST, PAUSE_FIRST * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311  # not for secrets
            attempt += 1
            if not error.transient or time.monotonic() + pause > give_up:
                raise
            if notify and chunk:
                notify(Waiting(chunk, attempt, pause, str(error)))
        time.sleep(pause)
