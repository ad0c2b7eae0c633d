"""A run: one execution of a job, from its plan to its last chunk, by several workers, resumable."""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self
from uuid import uuid4

from loader.config import Config
from loader.errors import ConfigError, Exit, LoaderError, Stopped, TargetError
from loader.load import DEADLINE, Event, Lane, persist, transfer
from loader.model import Chunk, ChunkLoaded, Node, Run, Status, Table
from loader.plan import Plan, key_of, make_plan, peek, quote
from loader.settings import Job
from loader.settings import Target as TargetSettings
from loader.slots import SLOTS, slot_of
from loader.source import Source
from loader.state import Checkpoint, State, difference
from loader.target import Target
from loader.throttle import Throttle
from loader.walk import walk
from loader.writer import Sink

WORKERS = 2  # read and sent in parallel; more bring nothing while MySQL and Redis have the work, see benchmarks/
PATIENCE = 2.0  # seconds of trying to connect before anything was loaded: a person is waiting
LEAVE = 10.0  # seconds that workers have to end when a run is stopped
LOOK_EVERY = 1.0  # seconds between two looks at MySQL's load
PREVIEW_ROWS = 5
SAMPLE_ROWS = 200
OVERHEAD = 110  # bytes that a small hash takes beside its key, names and values: 107 measured, Redis 7.0 with jemalloc
REJECTS_KEPT = 1000  # rejects that a run remembers; all are counted

Found = tuple[bytes, int, Node, int | None, dict[bytes, bytes] | None]


@dataclass(frozen=True, slots=True)
class Options:
    """What one run does differently from the job's config.

    `resume` makes the run leave a checkpoint and go on from one; `restart` forgets it first; `max_load` is a status
    variable of MySQL and the value above which the run waits; `rate` is in rows a second; `shard` (I, N) keeps the
    rows whose key's checksum leaves I - 1 when divided by N.
    """

    where: str | None = None
    key_range: str | None = None
    chunk_rows: int | None = None
    dry_run: bool = False
    workers: int = WORKERS
    resume: bool = False
    restart: bool = False
    shard: tuple[int, int] | None = None
    rate: int | None = None
    max_load: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, and the commands it makes of the first rows."""

    plan: Plan
    table: Table
    commands: list[tuple[Node, list[bytes]]]


class Listener(Protocol):
    """Who is told of a run while it goes."""

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Take note of how many rows are to come, by MySQL's estimate, and of what says why workers wait."""

    def notify(self, event: Event | None) -> None:
        """Take note of an event, or that a second passed without one."""


def run_job(settings: Config, job: Job, options: Options, listener: Listener) -> Run:
    """Load one job; never raises for what a person can mend: the run says how it ended, and with which exit code."""
    run = Run(job=job.name, id=uuid4().hex[:12], dry_run=options.dry_run)
    started = time.monotonic()
    try:
        with prepare(settings, job, options, run.id) as crew:
            listener.expect(crew.plan.rows_estimate, crew.throttle)
            run.resumed = crew.resumed
            for event in crew.events(listener):
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


def prepare(settings: Config, job: Job, options: Options, run: str = "") -> "Crew":
    """Connect to both sides and plan; an unreachable server is tried for `PATIENCE` seconds."""
    throttle = Throttle(options.rate)
    source = persist(lambda: Source(settings.source), PATIENCE, throttle)
    try:
        table, plan = read_plan(source, job, options)
        target = persist(lambda: _connected(settings.target), PATIENCE, throttle)
    except BaseException:
        source.close()
        raise
    crew = Crew(settings, plan, table, source, target, options, throttle)
    if options.resume:
        try:
            crew.take_up(run)
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
        return Preview(crew.plan, crew.table, sink.kept)


def read_back(settings: Config, job: Job, keys: Sequence[str]) -> Iterator[Found]:
    """The hashes of a job's keys as they are in Redis: key, slot, node, seconds to live, fields (None: no such key)."""
    with prepare(settings, job, Options()) as crew:
        for text in keys:
            key = key_of(crew.plan, crew.table, text)
            node, flat = crew.target.ask(key, "HGETALL", key)
            _, ttl = crew.target.ask(key, "TTL", key)
            fields = dict(zip(flat[::2], flat[1::2], strict=True)) or None
            yield key, slot_of(key), node, ttl if ttl >= 0 else None, fields


class Crew:
    """A run's workers, the connection that walks the key ahead of them, and what was loaded and is still owed."""

    def __init__(
        self,
        settings: Config,
        plan: Plan,
        table: Table,
        source: Source,
        target: Target,
        options: Options,
        throttle: Throttle,
    ) -> None:
        self.plan = plan
        self.table = table
        self.target = target
        self.throttle = throttle
        self.resumed = False
        self._settings = settings
        self._options = options
        self._rows = options.chunk_rows or plan.job.chunk_rows
        self._scout: Source | None = source
        self._state = State(target, plan.job.name)
        self._saved: Checkpoint | None = None
        self._backlog: deque[Chunk] = deque()  # chunks of the checkpoint that no worker has yet
        self._owed: dict[int, Chunk] = {}  # chunks that workers have, or that wait for one
        self._threads: list[threading.Thread] = []
        self._todo: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._heard: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._looked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, at their next buffer, and leave both servers."""
        self._end()
        if self._scout:
            self._scout.close()
        self.target.close()

    def _end(self) -> None:
        self.throttle.stop()
        for _ in self._threads:
            self._todo.put(None)
        end = time.monotonic() + LEAVE
        for thread in self._threads:
            thread.join(max(0, end - time.monotonic()))

    def check_room(self) -> None:
        """Refuse to start where the rows that are not in Redis yet would not fit: half-way is a bad place to learn it.

        The estimate is MySQL's count of rows times what a sample of them takes.
        """
        rooms = self.target.headroom()
        if not rooms or not self.plan.rows_estimate:
            return
        sink = Sink(self.target, keep=True)
        with Source(self._settings.source) as source:
            transfer(self.plan, self.plan.first(SAMPLE_ROWS), source, sink, self.throttle)
        rows = [(node, words) for node, words in sink.kept if words[0] == b"HMSET"]
        new = [words for _, words in rows if not self.target.ask(words[1], "EXISTS", words[1])[1]]
        if not new:
            return
        each = sum(OVERHEAD + sum(map(len, words[1:])) for words in new) / len(rows)
        for node, slots in self.target.slots.counts().items():
            need = int(each * self.plan.rows_estimate * slots / SLOTS)
            if need > rooms.get(node, need):
                raise TargetError(
                    f"redis {node}: about {need:,} bytes are needed and {rooms[node]:,} are left below maxmemory:"
                    " raise maxmemory, add a master, or load fewer fields"
                )

    def take_up(self, run: str) -> None:
        """Go on from the checkpoint, if it fits the plan and the target still has what was loaded; else begin one."""
        facts = self.plan.facts()
        saved = None if self._options.restart else self._state.read()
        if saved:
            changed = difference(saved.facts, facts)
            if changed:
                raise ConfigError(
                    f"job {self.plan.job.name!r} has a checkpoint of another plan: {changed}:"
                    " --restart forgets it and loads everything"
                )
            if not self._state.lost(saved.markers, saved.run):
                self._saved, self.resumed = saved, True
                self._backlog.extend(saved.owed)
                return
        self.check_room()
        self._saved = Checkpoint(run, facts, self._state.mark(run))

    def events(self, listener: Listener) -> Iterator[ChunkLoaded]:
        """Load chunk after chunk, up to one ahead of each worker, and yield each when it is in Redis."""
        count = self._options.workers if self.plan.walk else 1
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()
        try:
            yield from self._loaded(listener, count)
        except Stopped:
            self._end()
            while not self._heard.empty():  # what was complete by then counts
                event = self._heard.get()
                if isinstance(event, ChunkLoaded):
                    self._count(event)
                    yield event
            raise
        self._finish()

    def _loaded(self, listener: Listener, count: int) -> Iterator[ChunkLoaded]:
        chunks = self._chunks()
        while True:
            while len(self._owed) < 2 * count and (chunk := next(chunks, None)):
                self._owed[chunk.number] = chunk
                self._todo.put(chunk)
            if not self._owed:
                break
            event = self._next_event()
            listener.notify(event)
            if isinstance(event, ChunkLoaded):
                self._count(event)
                yield event

    def _work(self) -> None:
        """What one worker's thread does."""
        lane = Lane(
            self._settings.source,
            self.plan,
            self.target,
            self.throttle,
            dry_run=self._options.dry_run,
            durable=self._saved is not None,
        )
        try:
            while chunk := self._todo.get():
                self._heard.put(lane.load(chunk, self._heard.put))
        except BaseException as error:  # noqa: BLE001  # it is raised where the run waits
            self._heard.put(error)
        finally:
            lane.close()

    def _next_event(self) -> Event | None:
        """The next event; None after a second without one. What ended a worker is raised."""
        try:
            event = self._heard.get(timeout=LOOK_EVERY)
        except queue.Empty:
            event = None
        if isinstance(event, BaseException):
            raise event
        self._look()
        return event

    def _look(self) -> None:
        """Have the workers wait while MySQL has too much to do."""
        if not self._options.max_load or time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        name, most = self._options.max_load
        found = self._fetch("SHOW GLOBAL STATUS LIKE %s", [name])
        if not found:
            raise ConfigError(f"--max-load: MySQL has no status variable {name!r}")
        value = int(str(found[0][1]))
        self.throttle.busy = f"--max-load {name}={most}: it is {value}" if value > most else ""

    def _chunks(self) -> Iterator[Chunk]:
        """The chunks to load: first what a checkpoint owes, then the rest of the table."""
        while self._backlog:
            yield self._backlog.popleft()
        after, number = None, 1
        if self._saved:
            if self._saved.ended:
                return
            after, number = self._saved.after, self._saved.number
        for chunk in walk(self.plan, self._rows, self._fetch, after=after, number=number):
            if self._saved:
                self._saved = replace(self._saved, after=chunk.upto, ended=chunk.upto is None, number=chunk.number + 1)
            yield chunk

    def _fetch(self, sql: str, args: Sequence[str] | None = None) -> list[tuple[str | None, ...]]:
        """Rows of a small result, tried again while MySQL is away in passing."""

        def fetch() -> list[tuple[str | None, ...]]:
            if self._scout is None:
                self._scout = Source(self._settings.source)
            try:
                return self._scout.fetch(sql, args)
            except LoaderError:
                self._scout.close()
                self._scout = None
                raise

        return persist(fetch, DEADLINE, self.throttle)

    def _count(self, event: ChunkLoaded) -> None:
        """A chunk is no longer owed, and the checkpoint says so."""
        del self._owed[event.chunk.number]
        if self._saved:
            saved = self._saved = replace(self._saved, owed=(*self._owed.values(), *self._backlog))
            persist(lambda: self._state.save(saved), DEADLINE, Throttle())

    def _finish(self) -> None:
        """Nothing is owed: forget the checkpoint, unless a master was emptied meanwhile."""
        if not self._saved:
            return
        lost = self._state.lost(self._saved.markers, self._saved.run)
        self._state.forget(self._saved)
        if lost:
            raise TargetError(
                f"the target was changed during the run: markers are gone ({', '.join(lost)}); run it again"
            )
