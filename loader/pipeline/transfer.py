"""The whole way: a chunk's row packets from MySQL through the encoder to the nodes; again where it failed."""

import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from typing import Protocol, TypeVar

from loader.config.models import DEADLINE as JOB_DEADLINE
from loader.config.models import SourceConfig
from loader.errors import Exit, LoaderError, SourceError, StartOver, Stopped, TargetError
from loader.model import Acks, Batch, Chunk, ChunkLoaded, Waiting
from loader.mysql.connection import Connection, Stream
from loader.mysql.plan import Plan
from loader.net import limit
from loader.pipeline.throttle import Throttle
from loader.redis.client import RedisClient
from loader.redis.writer import CollectingWriter, Marking, PipelineWriter
from loader.wire.codec import Encoder
from loader.wire.encoder import pack
from loader.wire.slots import SlotMap, slot_of

DEADLINE = float(JOB_DEADLINE)  # seconds of trying again, unless the job says how many
PATIENCE = 2.0  # seconds of trying where a person is waiting, before or after the rows
LOOK_EVERY = 1.0  # seconds between two looks at the table's definition, which takes MySQL 2 ms
FRESH = 20  # times that what came on is begun again at most: a chunk that took longer than the deadline, or was lost
SILENT = 2.0  # seconds that a server may be silent at least, however short the deadline
AGAIN = 5  # times that rows are brought over, where others give their hashes a time to live meanwhile
PAUSE_FIRST, PAUSE_MOST = 0.1, 1.0  # seconds between two attempts, doubling: a server that is back is soon noticed

Event = ChunkLoaded | Waiting
Notify = Callable[[Event], None]
Erase = Callable[[Chunk, Connection, PipelineWriter], int]
T = TypeVar("T")


class BatchWriter(Protocol):
    """What takes batches, each for the node of an index."""

    @property
    def most(self) -> int:
        """Bytes of a key or value that it takes."""

    def begin(self) -> SlotMap:
        """Return the map that holds for the batches to come."""

    def send(self, index: int, batch: Batch, /) -> None:
        """Take a batch."""


def load_chunk(
    chunk: Chunk, plan: Plan, source: Connection, writer: PipelineWriter | CollectingWriter, throttle: Throttle
) -> ChunkLoaded:
    """Read a chunk's rows, encode them per slot owner, send them, and wait until each is acknowledged or refused."""
    started = time.monotonic()
    bring = partial(transfer, plan, plan.select(chunk), source, writer, throttle)
    return loaded(chunk, *to_last(plan, bring, writer, writer.drain), started)


def loaded(chunk: Chunk, encoder: Encoder, acks: Acks, started: float) -> ChunkLoaded:
    """What became of the rows of a chunk."""
    return ChunkLoaded(
        chunk=chunk,
        read=encoder.rows,
        written=sum(acks.rows.values()),
        rejects=(*encoder.rejects, *acks.rejects),
        nodes=acks.rows,
        bytes=acks.bytes,
        seconds=time.monotonic() - started,
        began=started,
        unchanged=encoder.unchanged,
    )


def transfer(
    plan: Plan, statement: str, source: Connection, writer: BatchWriter, throttle: Throttle, known: bytes | None = None
) -> Encoder:
    """Take the rows of a statement from the source through the encoder to the writer; not those that are `known`."""
    slots = writer.begin()
    layout = plan.layout if plan.layout.most <= writer.most else replace(plan.layout, most=writer.most)
    encoder = Encoder(layout, slots.owners, len(slots.nodes), known)
    paced, grant = 0, throttle.grant()
    with source.stream(statement) as stream:
        check_result(plan, stream)
        while not encoder.ended:
            stream.fill(encoder.wanted)
            throttle.pace(encoder.rows - paced)
            paced = encoder.rows
            while (position := encoder.feed(stream.buffer, stream.start, stream.end)) > stream.start:
                stream.start = position
                throttle.hold(grant)
                for node in encoder.ready():
                    writer.send(node, encoder.take(node))
        stream.finish()
    throttle.pace(encoder.rows - paced)
    throttle.hold(grant)
    for node in encoder.ready(least=1):
        writer.send(node, encoder.take(node))
    return encoder


def to_last(plan: Plan, bring: Callable[[], T], way: BatchWriter, drain: Callable[[], Acks]) -> tuple[T, Acks]:
    """Bring rows over until their hashes live as long as they are to; what came of the last time.

    HMSET keeps a hash's time to live: it may end before EXPIRE comes behind it, and where the job has no ttl.
    """
    for _ in range(AGAIN):
        brought, acks = bring(), drain()
        if not acks.expiring:
            return brought, acks
        if plan.layout.ttl is None:
            send_each(b"PERSIST", acks.expiring, way, rows=False)
            drain()
    raise TargetError("redis: hashes keep on getting a time to live that no job gives them", transient=True)


def send_each(command: bytes, keys: Iterable[bytes], way: BatchWriter, *, rows: bool) -> None:
    """Send a command for each key to the node that owns it; whether they count as rows."""
    slots = way.begin()
    groups: dict[int, list[bytes]] = {}
    for key in keys:
        groups.setdefault(slots.owners[slot_of(key)], []).append(pack([command, key]))
    for index, commands in groups.items():
        way.send(index, Batch(b"".join(commands), len(commands) * rows, len(commands)))


def check_result(plan: Plan, stream: Stream) -> None:
    """Raise `StartOver` where a result has not the columns that the plan expects, or not of the types they had."""
    if plan.job.query is not None:
        if stream.names != plan.names:
            raise StartOver(f"job {plan.job.name!r}: the query's columns have changed: {', '.join(stream.names)}")
    elif changes := plan.results.changes(stream.shape):
        raise StartOver(f"table {plan.job.table}: {changes}")


def check_table(plan: Plan, source: Connection) -> None:
    """Raise `StartOver` where the table is no longer what the plan was made for.

    Asked after rows were read, and once more when all are: so they were read of the table that was planned for.
    """
    if plan.job.table is None:
        return
    table = source.definition(plan.job.table)
    if not table.columns:
        raise SourceError(f"table {plan.job.table} is not there any more", transient=True, exit_code=Exit.FAILED)
    if changes := plan.changes(table):
        raise StartOver(changes)


class ChunkWorker:
    """One worker's way from MySQL to Redis; connections that failed are dropped, and made anew.

    `erase` deletes the hashes of a chunk's rows that the job no longer takes, and says how many. `marking` has the
    masters note how far the writing is; without one, nothing is awaited but the nodes' own acknowledgement.
    """

    def __init__(
        self,
        settings: SourceConfig,
        plan: Plan,
        target: RedisClient,
        throttle: Throttle,
        *,
        dry_run: bool = False,
        marking: Marking | None = None,
        erase: Erase | None = None,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._target = target
        self._throttle = throttle
        self._dry_run = dry_run
        self._marking = marking
        self._erase = erase
        self._source: Connection | None = None
        self._writer: PipelineWriter | CollectingWriter | None = None
        self._moved = 0.0  # when an attempt last came on
        self._looked = float("-inf")  # when the table was looked at

    def load(self, chunk: Chunk, notify: Notify) -> ChunkLoaded:
        """Load a chunk, whole and if need be again, while its failures are ones that pass."""
        failures = erased = 0

        def attempt() -> ChunkLoaded:
            nonlocal failures, erased
            try:
                self._throttle.admit()
                if failures:
                    self._throttle.confirm()
                grant = self._throttle.grant()
                self._moved = time.monotonic()
                self._connect(grant, again=failures > 0)
                event = self._carry(chunk)
                erased += event.deleted  # by attempts that failed later, too
                event = replace(event, deleted=erased)
                self._look()
                assert self._writer
                if self._marking:
                    kept = self._writer.await_replicas()
                    event = replace(event, exposed=frozenset(map(str, kept.exposed)), marks=kept.marks)
                self._throttle.hold(grant)  # what was sent may have come behind what another run has written meanwhile
                event = replace(self._settle(event), grant=grant)
            except Stopped:
                if self._writer:  # what was sent is seen through, so that no key is left without its TTL
                    with suppress(LoaderError):
                        self._writer.drain()
                self.close()
                raise
            except BaseException as error:
                failures += 1
                if self._source:
                    self._moved = max(self._moved, self._source.moved)
                self.close()
                if isinstance(error, StartOver):
                    self._explain()
                raise
            else:
                return event

        event = retry_transient(attempt, self._plan.job.deadline, self._throttle, chunk, notify, lambda: self._moved)
        return replace(event, retried=failures) if failures else event

    def _carry(self, chunk: Chunk) -> ChunkLoaded:
        """Bring the rows of a chunk over."""
        assert self._source
        assert self._writer
        event = load_chunk(chunk, self._plan, self._source, self._writer, self._throttle)
        if self._erase and isinstance(self._writer, PipelineWriter):
            event = replace(event, deleted=self._erase(chunk, self._source, self._writer))
        return event

    def _settle(self, event: ChunkLoaded) -> ChunkLoaded:
        """See to what is left once the rows are acknowledged."""
        return event

    def close(self) -> None:
        """Drop the connections."""
        if self._writer:
            self._writer.close()
        if self._source:
            self._source.close()
        self._source = self._writer = None

    def _look(self) -> None:
        """Look now and then whether the table is what it was."""
        assert self._source
        if time.monotonic() - self._looked >= LOOK_EVERY:
            check_table(self._plan, self._source)
            self._looked = time.monotonic()

    def _explain(self) -> None:
        """Have the table say what was changed: a statement that fails, or its result, says less."""
        with suppress(SourceError), Connection(self._settings) as source:
            check_table(self._plan, source)

    def _connect(self, grant: int, *, again: bool) -> None:
        self._target.refresh(force=again)
        if self._writer is None:
            writer = (
                CollectingWriter
                if self._dry_run
                else partial(PipelineWriter, spare=self._throttle.spare, marking=self._marking)
            )
            self._writer = writer(self._target)
        self._writer.guard(partial(self._throttle.hold, grant))
        if self._source is None:
            self._source = Connection(self._settings)


def retry_transient(
    action: Callable[[], T],
    patience: float,
    throttle: Throttle,
    chunk: Chunk | None = None,
    notify: Notify | None = None,
    moved: Callable[[], float] = lambda: 0.0,
    *,
    settling: float = 0.0,
    bearing: float = 0.0,
) -> T:
    """Do it, and again after a growing pause while it fails in passing, for `patience` seconds from its first failure.

    A server that is silent has failed since it fell silent, and half of that time is enough to say so; where there is
    less patience than a server needs, that of `bearing` counts. An attempt that came on for longer than the patience
    counts as a first one again where it fails; `moved` says until when it came on: what it waited for in vain does not
    count. What the cluster is about to find out has `settling` seconds.
    """
    failing = began = time.monotonic()
    give_up = inf
    silence = max(SILENT, max(patience, bearing) / 2)
    attempt = fresh = 0
    while True:
        started = time.monotonic()
        try:
            with limit.trying(silence, give_up):
                return action()
        except LoaderError as error:
            pause = min(PAUSE_MOST, PAUSE_FIRST * 2 ** min(attempt, 9)) * random.uniform(0.5, 1)  # noqa: S311  # not for secrets
            attempt += 1
            now = time.monotonic()
            if throttle.failure:
                raise throttle.failure from error
            if attempt == 1 or moved() - started > patience:
                failing, fresh = now - error.waited, fresh + 1
                give_up = failing + patience
            if error.brief:
                give_up = min(give_up, failing + PATIENCE)
            if error.settles:
                give_up = max(give_up, began + settling)
            if not error.transient or now + pause > min(give_up, limit.end()) or fresh > FRESH:
                error.waited = now - failing  # for who tries this again
                raise
            if notify and chunk:
                notify(Waiting(chunk, attempt, pause, str(error), error.node))
        throttle.sleep(pause, "lock" if throttle.lapsed() else "retry")
