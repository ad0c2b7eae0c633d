"""The whole way of a chunk: row packets from MySQL through the encoder to the nodes; again if it failed."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from loader.errors import Kind, SourceError, StartOver, TargetError
from loader.model import Acks, Batch, Chunk, ChunkLoaded, Table
from loader.mysql import catalog
from loader.mysql.connection import Connection
from loader.mysql.plan import Plan
from loader.mysql.stream import Stream
from loader.pipeline.throttle import Throttle
from loader.redis.collector import CollectingWriter
from loader.redis.writer import PipelineWriter
from loader.wire.codec import Encoder
from loader.wire.resp import pack
from loader.wire.slots import SlotMap

AGAIN = 5  # times that rows are transferred if others give their hashes a time to live meanwhile

T = TypeVar("T")


class BatchWriter(Protocol):
    """Takes batches, each for the node of an index."""

    @property
    def most(self) -> int:
        """Largest key or value in bytes that it accepts."""

    @property
    def restores(self) -> bool:
        """Whether it accepts ready-made hashes."""

    def begin(self) -> SlotMap:
        """Return the map for the next batches."""

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
    """The outcome of a chunk's rows."""
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
    """Move the rows of a statement from the source through the encoder to the writer, except those that are `known`."""
    slots = writer.begin()
    layout = plan.layout if plan.layout.most <= writer.most else replace(plan.layout, most=writer.most)
    layout = layout if writer.restores else replace(layout, listpack=None)
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
    """Transfer rows until their hashes have the right expiry; return the outcome of the last time.

    HMSET keeps a hash's time to live: it may expire before the EXPIRE that follows, or although the job has no ttl.
    """
    for _ in range(AGAIN):
        brought, acks = bring(), drain()
        if not acks.expiring:
            return brought, acks
        if plan.layout.ttl is None:
            send_each(b"PERSIST", acks.expiring, way, rows=False)
            drain()
    raise TargetError("redis: hashes keep getting a TTL that no job sets", kind=Kind.UNAVAILABLE)


def send_each(command: bytes, keys: Iterable[bytes], way: BatchWriter, *, rows: bool) -> None:
    """Send a command for each key to the node that owns it; `rows`: whether they count as rows."""
    for index, owned in way.begin().by_index(keys, lambda key: key).items():
        data = b"".join(pack([command, key]) for key in owned)
        way.send(index, Batch(data, len(owned) * rows, len(owned)))


def check_result(plan: Plan, stream: Stream) -> None:
    """Raise `StartOver` if a result's columns, or their types, are not those that the plan expects."""
    if plan.job.query is not None:
        if stream.names != plan.names:
            raise StartOver(f"job {plan.job.name!r}: the query's columns have changed: {', '.join(stream.names)}")
    elif changes := plan.results.changes(stream.shape):
        raise StartOver(f"table {plan.job.table}: {changes}")


def check_table(plan: Plan, source: Connection) -> Table | None:
    """Raise `StartOver` if the table is no longer the one that was planned for; the table now, None for a query.

    Checked after rows were read, and once more when all are: so they were read from that table.
    """
    if plan.job.table is None:
        return None
    table = catalog.definition(source, plan.job.table)
    if not table.columns:
        raise SourceError(f"table {plan.job.table} no longer exists", kind=Kind.VANISHED)
    if changes := plan.changes(table):
        raise StartOver(changes)
    return table
