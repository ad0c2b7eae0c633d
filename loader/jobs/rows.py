"""Compares a job's current rows with its hashes: by statements, and in the other direction by keys."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from loader.jobs.heard import NOBODY, Heard
from loader.jobs.session import JobSession
from loader.model import Batch, Reject
from loader.mysql.chunker import chunk_ranges
from loader.mysql.plan import keys_only
from loader.pipeline.deleter import asked, made_of
from loader.records import dataclass
from loader.redis.checker import HashChecker, Mismatch
from loader.redis.client import RedisClient
from loader.redis.collector import CollectingWriter
from loader.state.checkpoint import StateStore
from loader.wire.codec import SlotChecksums
from loader.wire.resp import split_commands

G = TypeVar("G", bound="MismatchSink")


class MismatchSink(Protocol):
    """Takes rows whose hash differs."""

    def append(self, each: Mismatch, /) -> None:
        """Take one."""


@dataclass(frozen=True, slots=True)
class OrphanKeys:
    """Keys without a row: of the job's hashes, of hashes that may be someone else's, and how many hold no hash."""

    own: list[bytes]
    unsure: list[bytes]
    others: int


class JobRows:
    """The rows of a job in MySQL, beside its hashes; transient failures are retried as the session does."""

    def __init__(self, session: JobSession) -> None:
        self.session = session
        self._lookup = session.lookup
        self._target = session.target
        self._keys_only = keys_only(session.plan)
        self._names: frozenset[bytes] | None = None  # of fields that the job has or had

    def compare(
        self, statement: str, gather: Callable[[], G], tally: SlotChecksums | None = None
    ) -> tuple[int, G, list[Reject]]:
        """Compare the rows of a statement with their hashes: the number of rows, the mismatches, and the rejects.

        Rejects are rows that cannot be a command. The keys found in Redis are added to `tally`.
        """

        def attempt() -> tuple[int, G, list[Reject]]:
            gathered = gather()
            reader = HashChecker(self._target, gathered.append, tally)
            try:
                encoder = self.session.transfer(reader, statement)
                reader.drain()
            finally:
                reader.close()
            return encoder.rows, gathered, encoder.rejects

        return self.session.with_retry(attempt)

    def tally(self, tally: SlotChecksums, heard: Heard = NOBODY) -> Iterator[None]:
        """Add the keys of the current rows, chunk by chunk; those of a chunk again if it has to be read again."""
        plan, count = self._keys_only, 0
        for chunk in chunk_ranges(plan, plan.job.chunk_rows, self.session.fetch):
            statement = plan.select(chunk)
            encoder = self.session.with_retry(
                lambda: self.session.transfer(_KeyCounter(self._target, tally), statement, plan)  # noqa: B023
            )
            count += encoder.rows
            heard.count(count)
            yield

    def without_row(self, keys: Sequence[bytes], *, counted: bool = False) -> list[bytes]:
        """The keys without a current row; before a deletion because of it, MySQL must have `counted` the rows."""
        return self.session.with_retry(lambda: self.missing(keys, counted=counted))

    def missing(self, keys: Sequence[bytes], *, counted: bool) -> list[bytes]:
        """The same, tried once."""
        session = self.session
        made = session.on_source(
            lambda source: made_of(
                keys, self._keys_only, self._lookup, source, self._target, session.throttle, counted=counted
            )
        )
        return [key for key in keys if key not in made]

    def commands(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        """The commands that would write the hashes of keys, and maybe of others, from their current rows."""
        statement = self.session.plan.matching(self._lookup.condition(keys))

        def attempt() -> list[list[bytes]]:
            sink = CollectingWriter(self._target, keep=True)
            self.session.transfer(sink, statement)
            return [words for _, words in sink.kept]

        return self.session.with_retry(attempt)

    def orphans(self, keys: Sequence[bytes]) -> OrphanKeys:
        """Sort keys without a row by their owner."""
        return self.session.with_retry(lambda: self._orphans(keys))

    def hash_of(self, key: bytes) -> dict[bytes, bytes]:
        """The fields of a hash, on whichever node it is now."""
        flat = self.session.with_retry(lambda: self._target.ask(key, "HGETALL", key)[1])
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def _orphans(self, keys: Sequence[bytes]) -> OrphanKeys:
        hashes = {key for key, kind in asked(self._target, "TYPE", keys) if kind == b"hash"}
        own = hashes if self._lookup.is_certain else self._proven(sorted(hashes))
        return OrphanKeys(
            [key for key in keys if key in own],
            [key for key in keys if key in hashes and key not in own],
            sum(key not in hashes for key in keys),
        )

    def _proven(self, keys: Sequence[bytes]) -> set[bytes]:
        """The keys whose hash shows that the job wrote it; a hash with more fields is not read."""
        if self._names is None:
            plan = self.session.plan
            known = StateStore(self._target, plan.job.name).fields() | plan.field_names
            self._names = frozenset(name.encode() for name in known)
        small = [key for key, size in asked(self._target, "HLEN", keys) if size <= len(self._names)]
        proven = set()
        for key, flat in asked(self._target, "HGETALL", small):
            if self._lookup.proves(key, dict(zip(flat[::2], flat[1::2], strict=True)), self._names):
                proven.add(key)
        return proven


class _KeyCounter(CollectingWriter):
    """A writer that adds the keys of rows to a tally."""

    def __init__(self, target: RedisClient, tally: SlotChecksums) -> None:
        super().__init__(target)
        self._tally = tally

    def send(self, index: int, batch: Batch) -> None:
        super().send(index, batch)
        self._tally.add([words[1] for words in split_commands(batch.data)])
