"""A run's crew: the workers, the connection that walks the key ahead of them, and what is loaded and still owed."""

import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol, Self, TypeVar
from uuid import uuid4

from loader import increment
from loader.baseline import Baselines
from loader.changed import ChangedLane, Changes
from loader.config import Config
from loader.digests import Digests
from loader.errors import ConfigError, Done, Exit, LoaderError, StartOver, Stopped
from loader.load import PATIENCE, Event, Lane, check_table, persist
from loader.lock import Lock
from loader.lookup import Lookup
from loader.model import Chunk, ChunkLoaded, ChunkOwed, News, Node, Noted, Reject, Table
from loader.plan import Plan
from loader.process import start_thread
from loader.source import Source
from loader.state import Checkpoint, Rejects, State, difference
from loader.target import Target
from loader.throttle import Halt, Throttle
from loader.topology import REFRESH
from loader.walk import walk
from loader.watch import Watch, check_room

WORKERS = 2  # read and sent in parallel; more bring nothing while MySQL and Redis have the work, see benchmarks/
LEAVE = 10.0  # seconds that workers have to end when a run is stopped
LOOK_EVERY = 1.0  # seconds between two looks at MySQL's load
AHEAD = 300  # seconds that a slot may be ahead of this machine's clock; one beyond tells of a wrong clock elsewhere
MARKERS_EVERY = 5.0  # seconds between two looks at the markers
SCOUT_PATIENCE = 600  # seconds that MySQL has to find a chunk's bound, which may have to scan a table
REJECTS_TOLD = 100  # rejects of earlier runs that a resumed one names

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What one run does differently from the job's config.

    `resume` makes the run leave a checkpoint and go on from one; `restart` forgets it first; `max_load` is a status
    variable of MySQL and the value above which the run waits; `rate` is in rows a second; `shard` (I, N) keeps the
    rows whose key's checksum leaves I - 1 when divided by N; `max_lag` is in seconds, of the configured replica; `full`
    reads everything where a run would read what was changed.

    `slot` is the time of a schedule that the run is for, in seconds since 1970: it is done once, and a checkpoint of
    another one, or of another plan, is forgotten. `halt` may be asked by another thread to end the run.
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
    max_lag: int | None = None
    full: bool = False
    slot: int | None = None
    halt: Halt = field(default_factory=Halt)

    @property
    def narrowed(self) -> bool:
        """Whether only some of the job's rows are read, by what was typed."""
        return bool(self.where or self.key_range or self.shard)


class Listener(Protocol):
    """Who is told of a run while it goes."""

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Take note of how many rows are to come, by MySQL's estimate, and of what says why workers wait."""

    def notify(self, event: News | None) -> None:
        """Take note of an event, or that a second passed without one."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Several listeners as one."""

    each: tuple[Listener, ...]

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Tell each what is to come."""
        for listener in self.each:
            listener.expect(rows, throttle)

    def notify(self, event: News | None) -> None:
        """Tell each of an event."""
        for listener in self.each:
            listener.notify(event)


class Crew:
    """One run's connections and threads; `earlier` are the rejects of the runs that this one resumes.

    A run that writes holds the job's lock, leaves a marker on every master, and has replicas acknowledge each chunk;
    one with `Options.resume` keeps a checkpoint too.
    """

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
        self.erased = 0  # hashes of rows that are the job's no longer, which no chunk holds
        self.prunes = False  # a prune is due once the run is through
        self.earlier: tuple[int, list[Reject]] = (0, [])
        self.notes: list[str] = []  # what a person should know before the run goes on
        self._settings = settings
        self._options = options
        self._rows = options.chunk_rows or plan.job.chunk_rows
        self._scout: Source | None = source
        self._scouting = False
        self._state = State(target, plan.job.name, options.shard, resumes=options.resume)
        self._rejects = Rejects(target, plan.job.name)
        self._held: Lock | None = None
        self._changes: Changes | None = None  # of a job that writes only what was changed
        self._saved: Checkpoint | None = None  # of a run that writes, saved or not
        self._backlog: deque[Chunk] = deque()  # chunks of the checkpoint that no worker has yet
        self._owed: dict[int, Chunk] = {}  # chunks that workers have, or that wait for one
        self._left: set[int] = set()  # chunks that no worker is to begin any more
        self._threads: list[threading.Thread] = []
        self._todo: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._heard: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._counted = threading.Semaphore(0)  # chunks that are in the checkpoint, or need not be
        self._looked = 0.0
        self._stop: Stopped | None = None  # what a signal asked for
        self._finished = False
        self._exposed: dict[str, list[tuple[float, ChunkLoaded]]] = {}  # chunks that replicas lack, by node, since when
        self._whole = plan
        self._base = Baselines(target, plan.job.name)
        self._start: dict[str, Any] = {}  # what the baseline will say of this run
        self._full = 0.0  # when everything was read last
        self._evicted: dict[Node, int] = {}  # keys that masters had thrown away before the run
        self._lives: dict[Node, str] = {}  # the id that each master got when it was started, before the run
        self._marked = time.monotonic()  # when the markers were looked at last
        self._began = time.time()
        self._watch = Watch(settings.source, self.fetch, options.max_load, options.max_lag)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def owed(self) -> int:
        """Chunks that are known and not loaded."""
        return len(self._owed) + len(self._backlog)

    def close(self) -> None:
        """End the workers, at their next buffer, and leave both servers."""
        self._end()
        with self._passing():  # a marker that stays says nothing
            if self._saved and not self._options.resume and not self._finished and not self.throttle.lapsed():
                self._state.forget(self._saved)
        with self._passing():  # a lock lapses by itself
            if self._held:
                self._held.drop(self.target)
        if self._scout:
            self._scout.close()
        self._watch.close()
        self.target.close()

    @contextmanager
    def _passing(self) -> Iterator[None]:
        """Let a failure that passes be: the run is over."""
        try:
            yield
        except LoaderError as error:
            if not error.transient:
                raise

    def events(self, listener: Listener) -> Iterator[ChunkLoaded | ChunkOwed]:
        """Load chunk after chunk, up to one ahead of each worker, and yield each when it is in Redis, or is no more.

        A signal is heard between two steps, so that no chunk is lost between two books.
        """
        count = self._options.workers if self.plan.walk else 1
        self._look()
        for _ in range(count):
            self._threads.append(start_thread(self._work))
        with self._heard_signals():
            try:
                yield from self._loaded(listener, count)
                self._finish()
            except StartOver:
                raise
            except LoaderError as error:
                self._end()
                yield from self._complete()
                end = self._stop or error
                try:
                    self._save(PATIENCE, Throttle())
                except LoaderError as failure:
                    raise type(end)(f"{end}; the checkpoint is older: {failure}", exit_code=end.exit_code) from end
                raise end from None

    def take_up(self, run: str) -> None:
        """Lock the job, and go on from its checkpoint if it fits the plan and the target still has what was loaded."""
        self.lock(run)
        self._check_slot()
        self._evicted = self.target.evictions()
        self._lives = {node: life for node, (life, _, _) in self.target.lives().items()}
        self.notes = [
            f"redis {node} throws keys away once it is full: its maxmemory-policy is {policy}"
            for node, policy in self.target.evicting().items()
        ]
        facts = self._facts() | ({} if self._options.slot is None else {"slot": str(self._options.slot)})
        saved = self._unfinished(facts) if self._options.resume and not self._options.restart else None
        if saved:
            if lost := self._state.lost(saved.markers, saved.run):
                self.notes.append(f"the target was emptied since the checkpoint: markers are gone ({', '.join(lost)})")
            else:
                told = [Reject(entry.key, entry.reason) for entry in islice(self._rejects.all(), REJECTS_TOLD)]
                self.earlier = (saved.rejected, told)
                self._backlog = deque(saved.owed)
                self._saved, self.resumed = saved, True
                self._start, self._full = {**saved.start}, saved.start.get("began", self._began)
                self._find_changes()
                return
        if self._options.resume:
            check_room(self.plan, self._settings.source, self.target, self.throttle)
            self._state.void()  # else the new markers would vouch for it
        # Marked before what is there is looked at: a master that is emptied in between is noticed by one or the other.
        self._saved = Checkpoint(run, facts, self._state.mark(run))
        self._find_changes()
        self.begin()
        self._saved = replace(self._saved, start=self._start)

    @property
    def is_full(self) -> bool:
        """Whether all rows are read, and not those alone that were changed."""
        return self.plan.whole is None

    def begin(self) -> None:
        """Note where a run of an incremental job begins, and read what was changed alone where that is enough."""
        if not self.plan.job.incremental or self._options.narrowed:
            return
        full = self._options.full or self._options.resume or self._options.restart
        baseline = None if full else self._base.read()
        doubt = self._base.doubt(baseline, self._facts()) if baseline else ""
        begun = self._scouted(
            lambda source: increment.begin(self._whole, self.table, source, baseline, doubt, full=full)
        )
        self.plan, self._full = begun.plan, begun.full
        self._start = {"began": self._began, **increment.kept(begun.mark)}
        self.notes += [begun.note] if begun.note else []
        if not self.is_full and (listed := self._rejects.count()):
            self.notes.append(f"rows rejected earlier are read again by --full or `loader rejects retry`: {listed:,}")

    def _unfinished(self, facts: Mapping[str, str]) -> Checkpoint | None:
        """The checkpoint of an earlier run of the same plan; a `ConfigError` where it is of another.

        A schedule goes on only with what was begun for the same slot: rows that were read for an earlier one are old.
        """
        scheduled = self._options.slot is not None
        try:
            saved = self._state.read()
        except ConfigError as error:
            if not scheduled:
                raise
            self.notes.append(str(error))
            return None
        if saved is None:
            return None
        before = {name: value for name, value in saved.facts.items() if name != "slot" or scheduled}
        changed = difference(before, facts)
        if not changed:
            return saved
        if scheduled:
            self.notes.append(f"begins from the start, for there is a checkpoint of another run: {changed}")
            return None
        raise ConfigError(
            f"job {self.plan.job.name!r} has a checkpoint of another plan: {changed}:"
            " --restart forgets it and loads everything"
        )

    def _check_slot(self) -> None:
        """End where the slot was done, by another daemon or before; asked under the lock, so that it is done once."""
        if self._options.slot is None:
            return
        done = self._state.slot()
        if done and self._options.slot <= done["slot"] <= time.time() + AHEAD:
            when = datetime.fromtimestamp(self._options.slot, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            raise Done(
                f"job {self.plan.job.name!r} was done for {when} by run {done.get('run')} (host {done.get('host')},"
                f" pid {done.get('pid')})"
            )
        self._state.begin_slot(self._options.slot)

    def _find_changes(self) -> None:
        """See what a run that writes only what was changed may leave out; any other writes what it does not know of."""
        job, facts = self.plan.job, self._facts()
        if not job.changed_only or self._options.resume or self._options.narrowed:
            if job.incremental is None:
                self._base.void()
            if not job.changed_only:
                Digests(self.target, job.name, "").clear()
            return
        baseline = self._base.read()
        doubt = self._base.doubt(baseline, facts) if baseline else ""
        if self._options.full:
            doubt = "--full asks for it"
        self._changes = Changes(self.target, self.plan, self._lookup(), uuid4().hex[:12])
        base = baseline.more.get("digests") if baseline and not doubt else None
        if not self._changes.open(facts, base, self._settings.jobs) or doubt:
            doubt = doubt or "no run that ended well vouches for what is there"
            self.notes.append(f"all rows are written: {doubt}; `loader prune` finds hashes whose rows went meanwhile")

    def lock(self, run: str) -> None:
        """Lock the job for a run; a `LoaderError` with exit code 5 names who has it.

        Where the answer is lost, the lock may be held all the same: the same one asks again, and lets it go at the end.
        """
        if self._held is None:
            self._held = Lock(self._settings.target, self.plan.job.name, run, self._options.shard)
        if self.throttle.lapsed == self._held.lapsed:
            return
        self._held.take(self.target)
        self.throttle.lapsed, self.throttle.grant = self._held.lapsed, self._held.grant
        self._held.keep(self._heard.put)

    def _facts(self) -> dict[str, str]:
        source = self._settings.source
        return self.plan.facts() | {
            "source": f"{source.unix_socket or f'{source.host}:{source.port}'}/{source.database}",
            "time zone": str(source.time_zone),
        }

    def _loaded(self, listener: Listener, count: int) -> Iterator[ChunkLoaded | ChunkOwed]:
        chunks = self._chunks()
        while True:
            self._heed()
            while len(self._owed) < 2 * count and (chunk := next(chunks, None)):
                self._owed[chunk.number] = chunk
                self._todo.put(chunk)
            if not self._owed and self._exposed:
                self._find_markers()  # all masters are there: a failover is over
                self.throttle.sleep(REFRESH)
                persist(lambda: self.target.refresh(force=True), self.plan.job.deadline, self.throttle)
                yield from self._owe_again(listener)
            if not self._owed:
                return
            event = self._next_event()
            listener.notify(event)
            if isinstance(event, ChunkLoaded):
                del self._owed[event.chunk.number]
                yield event
                self._expose(event)
                self._list_rejects(event)
                self._save(self.plan.job.deadline, self.throttle)
                self._counted.release()
            self._check_markers()
            yield from self._owe_again(listener)

    def _heed(self) -> None:
        """Once the run is asked to halt, have no further chunk begun, and stop when those under way are done."""
        if not self._options.halt.asked:
            return
        with suppress(queue.Empty):
            while chunk := self._todo.get_nowait():
                self._left.add(chunk.number)
        if self._left >= self._owed.keys() or self._options.halt.now:
            raise Stopped("stopped, as the daemon is", exit_code=Exit.SIGTERM)

    def _expose(self, event: ChunkLoaded) -> None:
        """Remember which masters have a chunk without a replica, until a later chunk's WAIT covers it."""
        for node in self._exposed.keys() & event.nodes.keys() - event.exposed:
            left = [entry for entry in self._exposed.pop(node) if entry[0] > event.began]
            if left:
                self._exposed[node] = left
        for node in event.exposed:
            self._exposed.setdefault(node, []).append((time.monotonic(), event))

    def _owe_again(self, listener: Listener) -> Iterator[ChunkOwed]:
        """Have written again what a master took alone that is none any more."""
        if not self._exposed:
            return
        masters = set(map(str, self.target.slots.nodes))
        lost = {e.chunk.number: e for node in self._exposed.keys() - masters for _, e in self._exposed[node]}
        if not lost:
            return
        listener.notify(Noted(f"{len(lost)} chunks are written again: a replica that lacked them has taken over"))
        for node, entries in list(self._exposed.items()):
            left = [entry for entry in entries if entry[1].chunk.number not in lost]
            self._exposed[node] = left
            if not left:
                del self._exposed[node]
        for number, event in lost.items():
            self._owed[number] = event.chunk
            if self._saved:
                self._saved = replace(self._saved, rejected=self._saved.rejected - len(event.rejects))
            yield ChunkOwed(event)
            self._todo.put(event.chunk)

    def _complete(self) -> Iterator[ChunkLoaded]:
        """The chunks that were complete when the workers ended, and were not heard of yet."""
        while not self._heard.empty():
            event = self._heard.get()
            if isinstance(event, ChunkLoaded):
                del self._owed[event.chunk.number]
                yield event
                self._expose(event)
                with suppress(LoaderError):  # they are counted, and found again by the next whole run
                    self._list_rejects(event)

    @contextmanager
    def _heard_signals(self) -> Iterator[None]:
        """Hear SIGINT and SIGTERM as events; a second one ends the process at once.

        Who waits to try something again stops waiting. While the main thread waits for MySQL to find a bound, there is
        no next step, and it is interrupted.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def hear(number: int, _: object) -> None:
            for each in before:
                signal.signal(each, signal.SIG_DFL)
            name = signal.Signals(number).name
            stop = Stopped(f"stopped by {name}", exit_code=Exit.SIGINT if name == "SIGINT" else Exit.SIGTERM)
            self._stop = stop
            self.throttle.stop()
            if self._scouting:
                raise stop
            self._heard.put(stop)

        before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self) -> None:
        """End the workers; the second time there is nothing left to wait for."""
        self.throttle.stop()
        for _ in self._threads:
            self._todo.put(None)
            self._counted.release()
        end = time.monotonic() + LEAVE
        for thread in self._threads:
            thread.join(max(0, end - time.monotonic()))
        self._threads = []

    def _work(self) -> None:
        """What one worker's thread does.

        It begins no chunk before one is in the checkpoint for it: so a kill repeats one chunk a worker at most.
        """
        lane = self._lane()
        try:
            while chunk := self._todo.get():
                self._heard.put(lane.load(chunk, self._heard.put))
                self._counted.acquire()
        except BaseException as error:  # noqa: BLE001  # it is raised where the run waits
            self._heard.put(error)
        finally:
            lane.close()

    def _lane(self) -> Lane:
        way = self._settings.source, self.plan, self.target, self.throttle
        if self._changes:
            return ChangedLane(self._changes, *way)
        erase = increment.erasing(self.plan, self._lookup(), self.target, self.throttle)
        return Lane(*way, dry_run=self._options.dry_run, durable=not self._options.dry_run, erase=erase)

    def _next_event(self) -> Event | None:
        """The next event; None after a second without one. A signal, and what ended a worker, is raised."""
        self._look()
        try:
            event = self._heard.get(timeout=LOOK_EVERY)
        except queue.Empty:
            event = None
        if isinstance(event, BaseException):
            raise event
        return event

    def _look(self) -> None:
        """Have the workers wait while MySQL has too much to do, or its replica is too far behind."""
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        self.throttle.busy = self._watch.busy()

    def _chunks(self) -> Iterator[Chunk]:
        """The chunks to load: first what a checkpoint owes, then the rest of the table."""
        while self._backlog:
            yield self._backlog.popleft()
        if self._changes:
            yield from self._changes.chunks(self._rows, self.fetch, self._steadily)
            return
        after, number = None, 1
        if self._saved:
            if self._saved.ended:
                return
            after, number = self._saved.after, self._saved.number
        for chunk in walk(self.plan, self._rows, self.fetch, after=after, number=number):
            if self._saved:
                self._saved = replace(self._saved, after=chunk.upto, ended=chunk.upto is None, number=chunk.number + 1)
            yield chunk

    def _steadily(self, action: Callable[[], T]) -> T:
        """Do something in Redis, and again while it fails in passing."""
        return persist(action, self.plan.job.deadline, self.throttle)

    def fetch(self, sql: str, args: Sequence[str] | None = None) -> list[tuple[str | None, ...]]:
        """Rows of a small result, tried again while MySQL is away in passing."""
        return self._scouted(lambda source: source.fetch(sql, args))

    def _scouted(self, action: Callable[[Source], T]) -> T:
        """Do something on the connection beside the workers', and again while it fails in passing."""

        def attempt() -> T:
            if self._scout is None:
                self._scout = Source(self._settings.source, SCOUT_PATIENCE)
            try:
                return action(self._scout)
            except LoaderError:
                self._scout.close()
                self._scout = None
                raise

        self._scouting = True
        try:
            return persist(attempt, self.plan.job.deadline, self.throttle)
        finally:
            self._scouting = False

    def _list_rejects(self, event: ChunkLoaded) -> None:
        """Keep account of the rows of a chunk that could not be written."""
        if self._saved and event.rejects:
            self._saved = replace(self._saved, rejected=self._saved.rejected + len(event.rejects))
            persist(lambda: self._rejects.add(event.rejects), self.plan.job.deadline, self.throttle)

    def _save(self, patience: float, throttle: Throttle) -> None:
        """Have the checkpoint say what is owed now, unless the lock has lapsed and it may be another run's."""
        if self._saved and self._options.resume and not self.throttle.lapsed():
            exposed = {e.chunk.number: e for entries in self._exposed.values() for _, e in entries}
            owed = {number: e.chunk for number, e in exposed.items()} | self._owed
            twice = sum(len(e.rejects) for number, e in exposed.items() if number not in self._owed)
            rejected = self._saved.rejected - twice  # those will be counted once more
            saved = replace(self._saved, owed=(*owed.values(), *self._backlog), rejected=rejected)
            persist(lambda: self._state.save(saved), patience, throttle)

    def _check_markers(self) -> None:
        """Begin again where a master was emptied meanwhile; looked at now and then."""
        if time.monotonic() - self._marked >= MARKERS_EVERY:
            self._marked = time.monotonic()
            self._find_markers()

    def _find_markers(self) -> None:
        """Begin again where markers are gone; not where a full master threw keys away, which is told of anyway."""
        saved = self._saved
        if not saved:
            return
        lost = persist(lambda: self._state.lost(saved.markers, saved.run), self.plan.job.deadline, self.throttle)
        if lost and not self.evicted():
            gone = ", ".join(lost)
            raise StartOver(f"the target was emptied during the run, in part or whole: markers are gone ({gone})")

    def evicted(self) -> str:
        """What masters have thrown away since the run began, in words; empty where nothing."""
        now = persist(self.target.evictions, self.plan.job.deadline, self.throttle) if self._saved else {}
        counts = {node: now[node] - before for node, before in self._evicted.items() if now.get(node, 0) > before}
        if not counts:
            return ""
        told = ", ".join(f"{count:,} on {node}" for node, count in counts.items())
        return f"redis has thrown keys away for want of memory while the run went on: {told}; see `loader verify`"

    def _finish(self) -> None:
        """Nothing is owed: forget the checkpoint and what was rejected before."""
        saved = self._saved
        if not saved:
            return
        self._find_markers()
        if lapsed := self.throttle.lapsed():
            raise lapsed
        self._scouted(lambda source: check_table(self.plan, source))
        self._sweep()
        self._owe_prune(saved)
        self._keep_baseline(saved)
        persist(lambda: self._state.forget(saved), self.plan.job.deadline, self.throttle)
        self._finished = True
        if self._options.slot is not None:
            slot = self._options.slot
            persist(lambda: self._state.save_slot(slot, saved.run), self.plan.job.deadline, self.throttle)
        if self.is_full and not self.resumed and not self._options.narrowed:
            persist(lambda: self._rejects.remove_before(self._began), self.plan.job.deadline, self.throttle)

    def _owe_prune(self, saved: Checkpoint) -> None:
        """See whether a prune is due by `full_every`: after a full sync, also one whose prune was not come to."""
        if self.plan.job.full_every is None or self._options.narrowed or self._options.resume:
            return
        if self.is_full:
            persist(lambda: self._state.owe_prune(saved.run), self.plan.job.deadline, self.throttle)
        self.prunes = persist(self._state.owes_prune, self.plan.job.deadline, self.throttle)

    def _sweep(self) -> None:
        """Delete the hashes of rows that a full run of an incremental job did not meet, and the one before did."""
        mark = increment.restored(self._start)
        before = self._steadily(self._base.read) if mark and self.is_full else None
        if mark and before:
            lookup = self._lookup()
            self.erased = self._scouted(
                lambda source: increment.sweep(lookup, self.table, source, self.target, self.throttle, before, mark)
            )

    def _lookup(self) -> Lookup:
        """The way back from a key that is the job's, and no other job's."""
        return Lookup(self._whole, self.table, self._settings.longer(self.plan.job))

    def _keep_baseline(self, saved: Checkpoint) -> None:
        """Have the next run leave out what this one has seen to: all its rows are in Redis.

        Not where a master has thrown keys away meanwhile, or was started anew, and has what it had saved by then;
        before a resumed run went on, no one has looked.
        """
        changes, more = self._changes, self._start
        if not (changes or more) or self._is_doubtful() or (self.resumed and self.target.evicting()):
            return
        if changes:
            self._steadily(changes.digests.close)
            more = {"digests": changes.writer}
        self._steadily(lambda: self._base.save(saved.run, self._facts(), self._full or self._began, more))
        try:
            self._find_markers()  # what was emptied before the new ones were left is not vouched for by them
        except StartOver:
            self._steadily(self._base.void)
            raise
        if self._is_doubtful():
            self._steadily(self._base.void)

    def _is_doubtful(self) -> bool:
        """Whether a master may have lost rows since the run began, though its markers are there."""
        lives = self._steadily(self.target.lives)
        return bool(self.evicted()) or any(lives[node][0] != self._lives[node] for node in lives.keys() & self._lives)
