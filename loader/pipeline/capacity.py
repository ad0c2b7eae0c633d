"""Whether Redis has room for the rows that a job is about to load."""

from collections.abc import Sequence

from loader.config.servers import SourceConfig
from loader.errors import TargetError
from loader.model import Node
from loader.mysql.connection import Connection
from loader.mysql.plan import Plan
from loader.pipeline.deleter import asked
from loader.pipeline.pool import Pool
from loader.pipeline.throttle import Throttle
from loader.pipeline.transfer import transfer
from loader.redis.client import RedisClient
from loader.redis.collector import CollectingWriter
from loader.redis.servers import headroom
from loader.wire.slots import SLOTS

SAMPLE_ROWS = 200
OVERHEAD = 110  # bytes of a small hash besides its key, names and values: 107 measured, Redis 7.0 with jemalloc
COMPACT = 64  # bytes of the longest value in a small hash, unless hash-max-listpack-value says otherwise
FIELD = 65  # bytes per field of any other hash besides that: 60 to 78 measured


def check_capacity(plan: Plan, settings: SourceConfig, target: RedisClient, throttle: Throttle, pool: Pool) -> None:
    """Refuse to start if the rows that are not in Redis yet would not fit: half-way is a bad place to find out."""
    rooms = pool.seen("headroom", target, lambda: headroom(target))
    if not rooms or not plan.expected:
        return
    source = pool.source(settings)
    try:
        rows = sample(plan, source, target, throttle)
    finally:
        pool.leave_source(source)
    for node, need in bytes_needed(plan, rows, target).items():
        if need > rooms.get(node, need):
            raise TargetError(
                f"redis {node}: about {need:,} bytes are needed and {rooms[node]:,} are left below maxmemory:"
                " raise maxmemory, add a master, or load fewer fields"
            )


def sample(plan: Plan, source: Connection, target: RedisClient, throttle: Throttle) -> list[list[bytes]]:
    """The HMSET commands that the first rows of a job make."""
    sink = CollectingWriter(target, keep=True)
    transfer(plan, plan.first(SAMPLE_ROWS), source, sink, throttle)
    return [words for _, words in sink.kept if words[0] == b"HMSET"]


def bytes_needed(plan: Plan, rows: Sequence[Sequence[bytes]], target: RedisClient) -> dict[Node, int]:
    """Bytes that each master needs for the rows of a job that are not in Redis yet; empty if unknown.

    The estimate is MySQL's count of rows times the size of a sample of them, whose commands are `rows`.
    """
    if not rows or not plan.expected:
        return {}
    there = {key for key, found in asked(target, "EXISTS", [words[1] for words in rows]) if found}
    new = [words for words in rows if words[1] not in there]
    each = sum(map(_memory, new)) / len(rows)
    return {node: int(each * plan.expected * slots / SLOTS) for node, slots in target.slots.counts().items()}


def _memory(words: Sequence[bytes]) -> int:
    """Approximate bytes of the hash that an HMSET writes."""
    lengths = [len(word) for word in words[1:]]
    fields = len(lengths) // 2
    return OVERHEAD + sum(lengths) + (FIELD * fields if max(lengths[1:]) > COMPACT else 0)
