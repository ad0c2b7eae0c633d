"""The part of a run that a Dask worker does: it loads chunks for a client, on connections that it keeps in between.

The client's lock is the lock of all its workers, see `state.lent_lock`. A worker reads the config by itself, so that no
password travels, and refuses a run whose plan is not what this config says.
"""

import os
import pickle
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from distributed import get_worker

from loader.config.load import Config, load_config
from loader.config.models import JobConfig
from loader.config.servers import TargetConfig
from loader.errors import ConfigError, Kind, LoaderError, StartOver, Stopped, text_of
from loader.model import Chunk, ChunkLoaded, Node, Waiting
from loader.mysql.plan import Plan
from loader.pipeline.job_context import open_job
from loader.pipeline.options import Options
from loader.pipeline.plan_facts import PlanFacts
from loader.pipeline.pool import Pool
from loader.pipeline.retry import Event, retry_transient
from loader.pipeline.worker import ChunkWorker
from loader.process import start_thread
from loader.redis.client import RedisClient
from loader.redis.connections import FORGET
from loader.state.checkpoint import difference
from loader.state.lent_lock import LentLock, TakenOver
from loader.state.markers import Markers

PACKAGE = "mysql-redis-loader"
TOPIC = "loader"  # of the events that tell the client that a chunk waits
IDLE = 20.0  # seconds after which connections without a chunk are closed: their run may have died
ENDED = 100  # runs that are remembered as ended


@dataclass(frozen=True, slots=True)
class Work:
    """All that a worker has to know of a run; the rest is in its own config.

    `id` tells the client from others, `token` is that of its lock, and the names of its connections begin with `name`;
    `run`, `marker` and `markers` are what is in the run's markers, and the prefix and the whole of their keys.
    """

    id: str
    token: str
    name: str
    run: str
    files: tuple[str, ...]
    where: str | None
    key_range: str | None
    plan: Plan
    facts: Mapping[str, str]
    marker: str
    markers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A chunk is loaded; `settled`: no command of it may still be carried out."""

    event: ChunkLoaded
    settled: bool


@dataclass(frozen=True, slots=True)
class Again:
    """A chunk must be given to a worker again: another marker has to take the place of this one, or it was taken over.

    If it `passes`, a worker had no luck while others had; people are told.
    """

    reason: str
    marker: str | None = None
    passes: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """A chunk has failed, and the run with it."""

    reason: str
    kind: Kind
    starts_over: bool = False


Outcome = Loaded | Again | Failed


class Task:
    """A chunk to load, which is loaded as it is unpickled: workers need this package, but the scheduler does not."""

    def __init__(self, version: str, run: str, work: bytes, chunk: Chunk) -> None:
        self._words = version, run, work, chunk

    def __reduce__(self) -> tuple[object, ...]:
        return load, self._words


def load(version: str, run: str, work: bytes, chunk: Chunk) -> Outcome:
    """Load a chunk of a run, by its `Work.id`; all that a person can fix is returned, and nothing raised."""
    own = metadata.version(PACKAGE)
    if own != version:
        return _failed(unlike(own, version), Kind.REFUSED)
    try:
        return SESSIONS.load(run, work, chunk)
    except (_MovedError, TakenOver) as error:
        return Again(str(error), error.marker if isinstance(error, _MovedError) else None)
    except LoaderError as error:
        return _failed(str(error), error.kind, starts_over=isinstance(error, StartOver))
    except (OSError, MemoryError) as error:
        return _failed(text_of(error), Kind.FAULT)


def unlike(own: str, version: str) -> str:
    """The reason to refuse a worker with its own version of this package."""
    return f"it has {own} of {PACKAGE}, and this run has {version}: install the same version there"


def _failed(reason: str, kind: Kind, *, starts_over: bool = False) -> Failed:
    told = reason if starts_over else f"dask worker {get_worker().address}: {reason}"
    return Failed(told, kind, starts_over)


class RunSession:
    """Loads one chunk after another of a run, on its own connections to MySQL and Redis."""

    def __init__(self, work: Work) -> None:
        config = _config(work)
        job = own_job(config, work.plan.job)
        self._work = work
        self._name = f"{work.name}-{secrets.token_hex(4)}"
        self._others: frozenset[str] = frozenset()  # names of connections that may write chunks of this one
        options = Options(where=work.where, key_range=work.key_range, pool=_NamedPool(self._name))
        self._worker: ChunkWorker | None = None
        self._context = context = open_job(config, job, options, again=True)
        try:
            self._check_facts()
        except BaseException:
            self.close()
            raise
        target = context.target
        self._lock = LentLock(target, job.name, work.token, self._name)
        context.throttle.lock = self._lock
        target.guard, target.admit = context.throttle.check, self._lock.confirm
        markers = _LentMarkers(target, work.marker, work.run, work.markers)
        way = context.source_config, work.plan, target, context.throttle
        self._worker = ChunkWorker(*way, pool=context.pool, marking=markers.field(secrets.token_hex(4)))
        context.rest()

    @property
    def is_settled(self) -> bool:
        """Whether no command may still be carried out."""
        target = self._context.target
        return target.fences.is_settled(target.slots.nodes)

    def load(self, chunk: Chunk) -> ChunkLoaded:
        """Load a chunk, once it is claimed."""
        assert self._worker
        job, throttle = self._work.plan.job, self._context.throttle
        retry_transient(partial(self._claim, chunk), job.deadline, throttle, chunk, self._tell)
        return self._worker.load(chunk, self._tell)

    def stop(self) -> None:
        """Stop at the next buffer; from any thread."""
        self._context.throttle.stop()

    def close(self) -> None:
        """Close all connections."""
        if self._worker:
            self._worker.close()
        self._context.close()
        self._context.pool.close()

    def _claim(self, chunk: Chunk) -> None:
        """Claim a chunk, and shut out the workers that may still write it: Dask believes that they are gone."""
        target = self._context.target
        target.refresh()
        self._others |= self._lock.claim(chunk.number)
        if not self._others:
            return
        target.fences.shut_out(self._others)
        for node in target.slots.nodes:
            if target.fences.is_due(node):
                target.command(node, "PING")  # nothing is sent there before it has closed their connections
        if target.fences.unkillable:
            self._context.throttle.sleep(FORGET)

    def _check_facts(self) -> None:
        """Refuse a run whose plan is not that of this config, with the difference."""
        facts = PlanFacts(self._context, resumes=True)
        facts.note_table()
        own = facts.of(self._context.plan) | facts_of_target(self._context.settings.target)
        if another := difference(self._work.facts, own):
            raise ConfigError(f"its config, or its table, is not that of this run: {another}")

    def _tell(self, event: Event) -> None:
        """Tell the client that the chunk waits."""
        if isinstance(event, Waiting) and event.chunk:
            words = {"seconds": event.seconds, "reason": event.reason, "node": event.node, "attempt": event.attempt}
            get_worker().log_event(TOPIC, {"run": self._work.id, "number": event.chunk.number, **words})


class RunSessions:
    """The sessions of this process, by the work they do."""

    def __init__(self) -> None:
        self._free: dict[tuple[str, bytes], list[tuple[float, RunSession]]] = {}
        self._busy: dict[RunSession, str] = {}  # the runs that they work for
        self._ended: deque[str] = deque(maxlen=ENDED)
        self._lock = threading.Lock()
        self._is_watched = False

    def load(self, run: str, work: bytes, chunk: Chunk) -> Loaded:
        """Load a chunk with a free session, or a new one."""
        session, well = self._take(run, work), False
        try:
            loaded = Loaded(session.load(chunk), session.is_settled)
            well = True
        finally:
            self._give_back(run, work, session, well=well)
        return loaded

    def _take(self, run: str, work: bytes) -> RunSession:
        """A session for some work, used before or new."""
        with self._lock:
            if run in self._ended:
                raise Stopped("the run has ended")
            free = self._free.get((run, work))
            session = free.pop()[1] if free else None
        session = session or RunSession(pickle.loads(work))  # noqa: S301  # from the client, as all of the task
        with self._lock:
            self._busy[session] = run
            if run in self._ended:
                session.stop()
        return session

    def _give_back(self, run: str, work: bytes, session: RunSession, *, well: bool) -> None:
        """Keep a session for the next chunk, if it did `well` and its run goes on."""
        with self._lock:
            del self._busy[session]
            kept = well and run not in self._ended
            if kept:
                self._free.setdefault((run, work), []).append((time.monotonic(), session))
                if not self._is_watched:
                    self._is_watched = True
                    start_thread(self._watch)
        if not kept:
            session.close()

    def end(self, run: str) -> None:
        """End a run here: no further chunk of it begins, and those under way stop at their next buffer."""
        with self._lock:
            self._ended.append(run)
            for session, of in self._busy.items():
                if of == run:
                    session.stop()
        self._close_free(lambda key, _: key[0] == run)

    def _watch(self) -> None:
        """Close sessions that have been free for long, until none is left."""
        while self._is_watched:
            time.sleep(IDLE / 4)
            self._close_free(lambda _, left: left < time.monotonic() - IDLE)
            with self._lock:
                self._is_watched = any(self._free.values())

    def _close_free(self, is_over: Callable[[tuple[str, bytes], float], bool]) -> None:
        with self._lock:
            free = [(key, *each) for key, sessions in self._free.items() for each in sessions]
            over = [each for each in free if is_over(each[0], each[1])]
            for key, left, session in over:
                self._free[key].remove((left, session))
            self._free = {key: sessions for key, sessions in self._free.items() if sessions}
        for _, _, session in over:
            session.close()


SESSIONS = RunSessions()


def end(run: str) -> None:
    """End a run, by its `Work.id`, in this process."""
    SESSIONS.end(run)


def own_job(config: Config, job: JobConfig) -> JobConfig:
    """The job of that name by another config; if it is a part of an open job, that part."""
    found = config.jobs.get(job.name)
    if found:
        return found
    piece = config.jobs.get(job.origin.piece)
    if piece is None:
        raise ConfigError(f"its config has no job {job.name!r}")
    database = job.origin.database or config.source_of(piece).database
    origin = piece.origin.of_part(job.part_of, piece.name, job.origin.database)
    return piece.placed(job.name, origin, database=database, table=job.table, tables=None, exclude=())


def facts_of_target(target: TargetConfig) -> dict[str, str]:
    """The place to which rows are written, as the facts of a plan name theirs."""
    others = "".join(f",{host}:{port}" for host, port in target.url.others)
    return {"target": f"{target.endpoint}{others}/{target.db}"}


def _config(work: Work) -> Config:
    """The config of this machine: of $LOADER_CONFIG, or else the client's files."""
    if os.environ.get("LOADER_CONFIG"):
        return load_config()
    files = [Path(name) for name in work.files]
    if missing := [str(file) for file in files if not file.exists()]:
        raise ConfigError(f"there is no {', '.join(missing)}: put the config there too, or name it in $LOADER_CONFIG")
    return load_config(files)


class _MovedError(LoaderError):
    """The slot of a master's marker is being moved: the client has to leave another one there."""

    def __init__(self, master: Node, marker: str | None) -> None:
        super().__init__(f"redis {master}: the slot of a marker is being moved")
        self.marker = marker


class _LentMarkers(Markers):
    """The markers of a run, which the client has left, and only the client moves."""

    def move(self, node: Node) -> NoReturn:
        """Ask the client to do so."""
        raise _MovedError(node, self.place(node))


class _NamedPool(Pool):
    """The connections of one session, whose names begin with that of the client's."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def target(self, settings: TargetConfig) -> RedisClient:
        """A client of Redis with that name."""
        return RedisClient(settings, name=self._name)
