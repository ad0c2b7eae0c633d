"""Writing only changed rows: stable chunks, rows left out, hashes of rows that are gone.

A chunk's hashes must be those of its rows only, so the key that a job walks along is part of each hash's key. A chunk's
digests count once all of it is acknowledged; from its first write until then the chunk is dirty, and the next run
writes it whole.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from functools import partial
from typing import Any, TypeVar

from loader.config.servers import SourceConfig
from loader.model import Batch, Chunk, ChunkLoaded
from loader.mysql.chunker import Fetch, chunk_ranges
from loader.mysql.keys import KeyMatcher
from loader.mysql.plan import Plan
from loader.mysql.sql import checked, fits
from loader.pipeline.deleter import HashDeleter
from loader.pipeline.pool import Pool
from loader.pipeline.throttle import Throttle
from loader.pipeline.transfer import BatchWriter, loaded, to_last, transfer
from loader.pipeline.worker import ChunkWorker
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.writer import Kept, Marking
from loader.state.digests import ChunkEntry, Digests, Rows
from loader.wire.slots import SlotMap

GROWN = 2  # multiple of the rows of a chunk from which on it is split
UNKNOWN = bytes(8)  # the digest of a key whose row is unknown: no row has it

T = TypeVar("T")
Steadily = Callable[[Callable[[], T]], T]


@dataclass(slots=True)
class Family:
    """The chunks that replace one that has grown, and those of them that are written."""

    old: ChunkEntry
    numbers: frozenset[int]
    done: dict[int, ChunkEntry] = field(default_factory=dict)


class Changes:
    """Shared by the workers of a run: the digests, the way back from a key, and the chunks that have grown."""

    def __init__(self, target: RedisClient, plan: Plan, lookup: KeyMatcher, writer: str) -> None:
        self.digests = Digests(target, plan.job.name, writer)
        self.writer = writer
        self.lookup = lookup
        self.lock = threading.Lock()
        self.families: dict[int, Family] = {}
        self._plan = plan
        self._target = target
        self._entries: list[ChunkEntry] = []

    def open(self, facts: Mapping[str, str], base: str | None, before: Mapping[str, str] | None = None) -> bool:
        """Adopt the digests left by the run with that `base`; false if none of them can be used.

        `before` are the facts as that run has noted them.
        """
        self._entries = self.digests.open(facts, base, partial(fits, self._plan.walk), before)
        return self.digests.trusted or not self._entries

    def chunks(self, rows: int, fetch: Fetch, steadily: "Steadily[Any]") -> Iterator[Chunk]:
        """The known chunks, then the rest of the table in new ones, up to the greatest key."""
        number = 1 + max((entry.number for entry in self._entries), default=0)
        entries = self._folded(rows, steadily)
        for entry in entries:
            parts = self._parts(entry, rows, number, fetch) if entry.rows > GROWN * rows else [entry.chunk]
            if len(parts) > 1:
                number += len(parts)
                family = Family(entry, frozenset(part.number for part in parts))
                self.families |= dict.fromkeys(family.numbers, family)
                steadily(partial(self.digests.mark_dirty, entry))
            yield from parts
        after = entries[-1].upto if entries else None
        if after and not fetch(self._plan.last(after)):
            return
        for chunk in self._closed(chunk_ranges(self._plan, rows, fetch, after=after, number=number), fetch):
            assert chunk.upto is not None
            steadily(partial(self.digests.put, ChunkEntry(chunk.number, chunk.after, chunk.upto)))
            yield chunk

    def mark_dirty(self, number: int) -> None:
        """Write a chunk whole when it comes again: its writes are lost."""
        with self.lock:
            if family := self.families.get(number):
                family.done.pop(number, None)
            if entry := self.digests.entry(number):
                self.digests.mark_dirty(entry)

    def _closed(self, chunks: Iterator[Chunk], fetch: Fetch) -> Iterator[Chunk]:
        """Close the open chunk at the greatest key, so that it is the same in the next run.

        Rows added beyond it meanwhile are left to the next run: nothing is written without a record.
        """
        for chunk in chunks:
            if chunk.upto is not None:
                yield chunk
            elif found := fetch(self._plan.last(chunk.after)):
                yield replace(chunk, upto=checked(found[0]))

    def _folded(self, rows: int, steadily: "Steadily[Any]") -> list[ChunkEntry]:
        """The known chunks, with small neighbours joined: otherwise deletions and appended rows would leave many."""
        folded: list[ChunkEntry] = []
        for entry in self._entries:
            last, both = folded[-1] if folded else None, None
            if last and None not in {last.sum, entry.sum} and last.rows + entry.rows <= rows:
                both = steadily(partial(self.digests.fold, last, entry))
            folded[len(folded) - bool(both) :] = [both or entry]
        return folded

    def _parts(self, entry: ChunkEntry, rows: int, number: int, fetch: Fetch) -> list[Chunk]:
        """The chunks that a chunk is split into, with its rows as they are now."""
        parts: list[Chunk] = []
        after = entry.after
        while found := fetch(self._plan.bound(after, rows, entry.upto)):
            upto = checked(found[0])
            if upto == entry.upto:
                break
            parts.append(Chunk(number + len(parts), after, upto))
            after = upto
        return [*parts, Chunk(number + len(parts), after, entry.upto)] if parts else [entry.chunk]


class ChangedOnlyWorker(ChunkWorker):
    """A worker that leaves out known rows, and deletes the hashes of rows that are gone."""

    _found: "_Found"  # of the chunk under way

    def __init__(
        self,
        changes: Changes,
        settings: SourceConfig,
        plan: Plan,
        target: RedisClient,
        throttle: Throttle,
        marking: Marking,
        pool: Pool,
    ) -> None:
        super().__init__(settings, plan, target, throttle, pool=pool, marking=marking)
        self._changes = changes
        self._eraser = HashDeleter(plan, changes.lookup, target, throttle)

    def _carry(self, chunk: Chunk) -> ChunkLoaded:
        """Transfer the unknown rows of a chunk; all of them, as usual, if it is dirty."""
        assert self._source
        assert self._writer
        started, grant = time.monotonic(), self._throttle.grant()
        digests = self._changes.digests
        entry, before, known = digests.read(chunk.number)
        way = _CallFirst(self._writer, lambda: digests.mark_dirty(entry) if entry else None)
        statement = self._plan.select(chunk)
        digests_known = before.digests if known else b""
        bring = partial(transfer, self._plan, statement, self._source, way, self._throttle, digests_known)
        encoder, acks = to_last(self._plan, bring, way, self._writer.drain)
        event = loaded(chunk, encoder, acks, started)
        rows = Rows(encoder.digests, encoder.keys).without({reject.key for reject in acks.rejects})
        same = known and encoder.rows == encoder.unchanged == len(before)
        if not same:
            gone = set(before.split_keys()).difference(rows.split_keys())
            deleted, stay = self._eraser.erase(gone, self._source, self._writer, way)
            event = replace(event, deleted=deleted)
            rows += Rows(UNKNOWN * len(stay), b"".join(len(key).to_bytes(4, "little") + key for key in stay))
        self._found = _Found(grant, entry, rows, same)
        return event

    def _settle(self, event: ChunkLoaded) -> ChunkLoaded:
        """Store the digests that the chunk was written from."""
        found = self._found
        if found.same:
            return event
        self._throttle.hold(found.grant)
        chunk, digests = event.chunk, self._changes.digests
        with self._changes.lock:
            family = self._changes.families.get(chunk.number)
            entry = found.entry or digests.entry(chunk.number)
            if entry is None and family and chunk.upto is not None:
                entry = ChunkEntry(chunk.number, chunk.after, chunk.upto)
            if entry is None:  # a failover has lost it: the next run finds a gap there, and writes the rest
                return event
            kept = digests.write(entry, found.rows)
            if family is None:
                digests.put(kept)
                return event
            family.done[chunk.number] = kept
            if family.done.keys() < family.numbers:
                return event
            deleted, kept_by = self._end(family, found.grant)
            return replace(
                event,
                deleted=event.deleted + deleted,
                marks=event.marks + kept_by.marks,
                exposed=event.exposed | frozenset(map(str, kept_by.exposed)),
            )

    def _end(self, family: Family, grant: int) -> tuple[int, Kept]:
        """Replace a chunk by its parts, once the hashes that none of their rows makes are deleted."""
        digests = self._changes.digests
        gone = set(digests.rows_of(family.old.number).split_keys())
        for number in family.numbers:
            gone.difference_update(digests.rows_of(number).split_keys())
        assert self._source
        assert self._writer
        deleted, _ = self._eraser.erase(gone, self._source, self._writer)
        kept = self._writer.await_replicas()
        self._throttle.hold(grant)
        digests.put(*family.done.values())
        digests.forget([family.old.number])
        for number in family.numbers:
            del self._changes.families[number]
        return deleted, kept


@dataclass(frozen=True, slots=True)
class _Found:
    """What a worker has found of its chunk: the entry of its digests, its rows now, whether they are the `same`.

    `grant` is that of the lock under which the rows were read.
    """

    grant: int
    entry: ChunkEntry | None
    rows: Rows
    same: bool


class _CallFirst:
    """A writer that calls something before anything is sent."""

    def __init__(self, writer: BatchWriter, first: Callable[[], None]) -> None:
        self._writer = writer
        self._first = first
        self._sent = False

    @property
    def most(self) -> int:
        return self._writer.most

    @property
    def restores(self) -> bool:
        return self._writer.restores

    def begin(self) -> SlotMap:
        return self._writer.begin()

    def send(self, index: int, batch: Batch) -> None:
        if not self._sent:
            self._first()
            self._sent = True
        self._writer.send(index, batch)
