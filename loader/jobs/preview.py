"""Previews of a job, and hashes read back: nothing is written."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.model import Node, Table
from loader.mysql.connection import Connection
from loader.mysql.followed_key import followed_key
from loader.mysql.plan import Plan
from loader.mysql.typed_key import key_of
from loader.pipeline import incremental
from loader.pipeline.job_context import JobContext, open_job
from loader.pipeline.options import Options
from loader.pipeline.transfer import transfer
from loader.records import dataclass
from loader.redis.collector import CollectingWriter
from loader.wire.slots import slot_of

PREVIEW_ROWS = 5
Found = tuple[bytes, int, Node, int | None, dict[bytes, bytes] | None]


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, and the commands it makes of the first rows."""

    plan: Plan
    table: Table
    commands: list[tuple[Node, list[bytes]]]
    changed: Plan | None = None  # of a later run that reads only changes
    index: str | None = None  # that finds the changes


def preview(settings: Config, job: JobConfig) -> Preview:
    """The effect of a sync: the plan, and the commands of the first rows, with their nodes."""
    with open_job(settings, job, Options()) as ends:
        ends.rest()
        return _preview(ends)


def _preview(ends: JobContext) -> Preview:
    job = ends.plan.job
    with Connection(ends.source_config) as source:
        if job.follow:
            followed_key(source, ends.plan, ends.table)
        sink = CollectingWriter(ends.target, keep=True)
        transfer(ends.plan, ends.plan.first(PREVIEW_ROWS), source, sink, ends.throttle)
        if not job.incremental:
            return Preview(ends.plan, ends.table, sink.kept)
        changed, index = incremental.example(ends.plan, ends.table, source)
        told = incremental.warnings(job, changed.walk[0])
        plan = replace(ends.plan, warnings=(*ends.plan.warnings, *told))
        return Preview(plan, ends.table, sink.kept, changed, index)


def read_back(settings: Config, job: JobConfig, keys: Sequence[str]) -> Iterator[Found]:
    """The hashes of a job's keys as they are in Redis: key, slot, node, seconds to live, fields (None: no such key)."""
    with open_job(settings, job, Options()) as ends:
        for text in keys:
            key = key_of(ends.plan, ends.table, text)
            node, flat = ends.target.ask(key, "HGETALL", key)
            _, ttl = ends.target.ask(key, "TTL", key)
            fields = dict(zip(flat[::2], flat[1::2], strict=True)) or None
            yield key, slot_of(key), node, ttl if ttl >= 0 else None, fields
