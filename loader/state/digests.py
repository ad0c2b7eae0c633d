"""The rows that a job's hashes were written from, as a digest per row, kept in the target chunk by chunk.

A chunk's digests and keys are one blob under `loader:digest:{job}:{number}`, without a hash tag, so that chunks spread
over the masters. The index `loader:{job}:digests`, a hash, has an entry per chunk with its bounds and the checksum of
its blob: a blob with another checksum is only a list of keys. An entry without a checksum is dirty: the chunk may
contain anything, and is written whole.
"""

import hashlib
import json
import struct
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import compress
from typing import Any

from loader.errors import StartOver, StateError
from loader.model import Chunk, KeyValues
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.key_reader import KeyReader, Words
from loader.redis.prefetch import Prefetched
from loader.state.stored_json import built, parsed
from loader.state_keys import foreign, own_key, spread_key
from loader.wire.encoder import split_keys

VERSION = 1
LEVEL = 1  # of compression: the keys of `stu` take 2.5 bytes each, and 2.3 at the usual level, for three times the time
HEAD = struct.Struct("<BI")  # version, number of rows
WRITER, BASE, PLAN, SIZE = "run", "base", "plan", "size"  # fields of the index that are not entries
KNOWN = frozenset({WRITER, BASE, PLAN, SIZE})
DIGITS = 18  # of a number


@dataclass(frozen=True, slots=True)
class Rows:
    """Digests of some rows, eight bytes each, and their keys, each preceded by its length in four bytes."""

    digests: bytes = b""
    keys: bytes = b""

    def __len__(self) -> int:
        return len(self.digests) // 8

    def __add__(self, other: "Rows") -> "Rows":
        return Rows(self.digests + other.digests, self.keys + other.keys)

    def split_keys(self) -> Iterator[bytes]:
        """The keys, in order."""
        return split_keys(self.keys)

    def without(self, keys: Collection[bytes]) -> "Rows":
        """These rows, except those with some keys."""
        if not keys:
            return self
        return self._only([key not in keys for key in self.split_keys()])

    def _each(self) -> Iterator[bytes]:
        return (self.digests[at : at + 8] for at in range(0, len(self.digests), 8))

    def _only(self, wanted: Iterable[bool]) -> "Rows":
        rows = list(compress(zip(self._each(), self.split_keys(), strict=True), wanted))
        keys = b"".join(len(key).to_bytes(4, "little") + key for _, key in rows)
        return Rows(b"".join(digest for digest, _ in rows), keys)


def pack(rows: Rows) -> bytes:
    """The blob of rows."""
    return HEAD.pack(VERSION, len(rows)) + rows.digests + zlib.compress(rows.keys, LEVEL)


def unpack(blob: bytes | None) -> Rows | None:
    """The rows of a blob; None if this program did not write it."""
    try:
        version, count = HEAD.unpack_from(blob or b"")
        end = HEAD.size + 8 * count
        rows = Rows(blob[HEAD.size : end], zlib.decompress(blob[end:])) if blob else Rows()
    except (struct.error, zlib.error):
        return None
    return rows if version == VERSION and len(rows) == count else None


@dataclass(frozen=True, slots=True)
class ChunkEntry:
    """A chunk of the index: its bounds, its rows, the checksum of its blob (None: dirty) and the run that wrote it."""

    number: int
    after: KeyValues | None
    upto: KeyValues
    rows: int = 0
    sum: int | None = None
    by: str = ""

    @property
    def chunk(self) -> Chunk:
        """The chunk to load."""
        return Chunk(self.number, self.after, self.upto)


class Digests:
    """The digests of one job in its target, while `writer` runs.

    Unless the stored ones are `trusted`, only chunks that the writer itself has written count as known. The writer
    enters itself before it changes anything: until then the digests are those of the run before, and if they are
    `untouched` at the end, they stay as that run has left them. Raises `StartOver` if another run writes meanwhile.
    """

    def __init__(self, target: RedisClient, job: str, writer: str) -> None:
        self._target = target
        self._job = job
        self._key = own_key(job, "digests")
        self._writer = writer
        self._plan = b""
        self._former: bytes | None = None  # the writer before, until this one enters itself
        self._entering = threading.Lock()
        self.trusted = False
        self.is_whole = True  # nothing that the last run left is missing
        self.unread: set[bytes] = set()  # invalid blobs: the keys that their chunks had are unknown

    def open(
        self,
        facts: Mapping[str, str],
        base: str | None,
        fits: Callable[[KeyValues], bool] = lambda _: True,
        before: Mapping[str, str] | None = None,
    ) -> list[ChunkEntry]:
        """Begin to write, and return the existing chunks, in the order of their keys.

        They are trusted where they are of the plan with those facts, and what the run with that `base` has left, which
        may have noted the same facts in the words `before`; of another plan all are forgotten, and so are those whose
        bounds do not fit.
        """
        plan = self._plan = _digest_of(facts)
        flat = self._ask("HGETALL")
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        strange = [name for name in fields if not _is_number(name) and name.decode(errors="replace") not in KNOWN]
        if strange:
            self._ask("HDEL", *strange)
        numbers = {int(name): text for name, text in fields.items() if _is_number(name)}
        entries = [
            entry for number, text in numbers.items() if (entry := _entry(number, text)) and _bounded(entry, fits)
        ]
        chain = _chain(entries) if fields.get(PLAN.encode()) in {plan, _digest_of(before or facts)} else []
        size = b"%d" % len(fields)
        self.is_whole = len(chain) == len(numbers) and not strange and fields.get(SIZE.encode(), size) == size
        self.trusted = bool(chain) and base is not None and fields.get(BASE.encode()) == base.encode()
        if self.trusted and self.is_whole and _is_complete(fields, plan):
            self._former = fields[WRITER.encode()]
            return chain
        if fields.get(WRITER.encode()) != fields.get(BASE.encode()):
            chain = self._without(chain, fields.get(WRITER.encode(), b"").decode(errors="replace"))
        kept = {entry.number for entry in chain}
        self.forget(number for number in numbers if number not in kept)
        self._enter()
        return chain

    @property
    def untouched(self) -> bool:
        """Whether they are as the run before has left them."""
        return self._former is not None

    @property
    def base(self) -> str:
        """The writer that a baseline has to name for the next run to build on them."""
        return self._writer if self._former is None else self._former.decode()

    def check(self) -> None:
        """Raise a `StateError` if the index is of another type."""
        self._ask("HLEN")

    def check_entries(self) -> None:
        """Raise a `StateError` if the index is of another type, or an entry is invalid."""
        flat = self._ask("HGETALL")
        for name, text in zip(flat[::2], flat[1::2], strict=True):
            known = name.decode(errors="replace") in KNOWN
            if not known and not (_is_number(name) and _entry(int(name), text)):
                raise foreign(self._key, f"has an entry {ascii(name[:DIGITS])[1:]} that this program did not write")

    def close(self) -> None:
        """All chunks are written: the next run may build on them, if a baseline with this writer allows it."""
        self._check_writer()
        if self.untouched:
            return
        self._ask("HSET", SIZE, self._ask_all(("HMSET", BASE, self._writer, SIZE, ""), ("HLEN",)))

    def read(self, number: int) -> tuple[ChunkEntry | None, Rows, bool]:
        """The current entry of a chunk, its previous rows, and whether its hashes are known to match them."""
        former, index, blob_key = self._former, self._key.encode(), self._blob_key(number)
        writer = (index, ("HGET", self._key, WRITER))
        seen = Prefetched(self._target, [writer, (index, ("HGET", self._key, number)), (blob_key, ("GET", blob_key))])
        self._check(seen.ask(index, *writer[1])[1], former)
        entry = self._entry(number, seen)
        if entry is None:
            return None, Rows(), False
        blob, rows = self._rows(number, seen)
        known = rows is not None and entry.sum == zlib.crc32(blob or b"") and self._is_trusted(entry)
        return entry, rows or Rows(), known

    def mark_dirty(self, entry: ChunkEntry) -> None:
        """Mark a chunk as dirty, before any of it is written; on a replica too."""
        self._begin()
        if entry.sum is None:
            return
        self.put(replace(entry, sum=None))

    def write(self, entry: ChunkEntry, rows: Rows, by: str | None = None) -> ChunkEntry:
        """Write the blob of a chunk; return the entry that makes it known."""
        self._begin()
        blob = pack(rows)
        key = self._blob_key(entry.number)
        self._target.ask(key, "SET", key, blob)
        return replace(entry, rows=len(rows), sum=zlib.crc32(blob), by=self._writer if by is None else by)

    def put(self, *entries: ChunkEntry) -> None:
        """Store entries of chunks in the index, in one command that a failover does not undo."""
        self._begin()
        words: list[str | int] = []
        for entry in entries:
            words += entry.number, _text(entry)
        self._target.keep(self._key.encode(), ("HMSET", self._key, *words))

    def fold(self, first: ChunkEntry, second: ChunkEntry) -> ChunkEntry | None:
        """Join two neighbouring chunks; None if one of them is dirty."""
        (blob, one), (other_blob, other) = (self._rows(entry.number, self._target) for entry in (first, second))
        sums = [zlib.crc32(each or b"") for each in (blob, other_blob)]
        if one is None or other is None or sums != [first.sum, second.sum]:
            return None
        entry = self.write(replace(first, upto=second.upto), one + other, first.by if first.by == second.by else "")
        self.put(entry)
        self.forget([second.number])
        return entry

    def rows_of(self, number: int) -> Rows:
        """The rows in the blob of a chunk, empty if there is no blob."""
        return self._rows(number, self._target)[1] or Rows()

    def entry(self, number: int) -> ChunkEntry | None:
        """The current entry of a chunk."""
        return self._entry(number, self._target)

    def forget(self, numbers: Iterable[int]) -> None:
        """Forget chunks: blobs and entries."""
        for number in numbers:
            self._begin()
            self._ask("HDEL", number)
            key = self._blob_key(number)
            self._target.ask(key, "UNLINK", key)

    def clear(self) -> None:
        """Forget everything: the job no longer writes only changes."""
        try:
            flat = self._ask("HGETALL")
        except StateError:
            flat = [b""]
        if flat:
            self.forget(int(name) for name in flat[::2] if _is_number(name))
            self._ask("DEL")

    def _without(self, chain: Sequence[ChunkEntry], writer: str) -> list[ChunkEntry]:
        """The chunks, dirty if an unfinished run wrote them: no baseline vouches for its last writes."""
        dirty = [replace(entry, sum=None) if entry.by == writer else entry for entry in chain]
        if changed := [entry for entry, before in zip(dirty, chain, strict=True) if entry != before]:
            self.put(*changed)
        return dirty

    def _is_trusted(self, entry: ChunkEntry) -> bool:
        return self.trusted or entry.by == self._writer

    def _check_writer(self) -> None:
        former = self._former
        self._check(self._ask("HGET", WRITER), former)

    def _check(self, writer: bytes | None, former: bytes | None) -> None:
        """Raise `StartOver` if the digests are another's; `former` is what it was when it was asked for."""
        if writer is None or writer not in {self._writer.encode(), former}:
            raise StartOver(f"the digests of job {self._job!r} were written by another run, or are gone")

    def _begin(self) -> None:
        """Enter the writer, before its first change."""
        with self._entering:
            if self.untouched:
                self._check_writer()
                self._enter()
                self._former = None

    def _enter(self) -> None:
        self._ask_all(("HMSET", WRITER, self._writer, PLAN, self._plan), ("HDEL", SIZE))

    def _blob_key(self, number: int) -> bytes:
        return f"{spread_key('digest', self._job)}:{number}".encode()

    def _entry(self, number: int, replies: KeyReader) -> ChunkEntry | None:
        text = replies.ask(self._key.encode(), "HGET", self._key, number)[1]
        return None if text is None else _entry(number, text)

    def _rows(self, number: int, replies: KeyReader) -> tuple[bytes | None, Rows | None]:
        """The blob of a chunk, and its rows; None if missing or invalid."""
        key = self._blob_key(number)
        try:
            blob: bytes | None = replies.ask(key, "GET", key)[1]
        except StateError:
            blob = b""
        rows = unpack(blob)
        if rows is None and blob is not None:
            self.unread.add(key)
        return blob, rows

    def _ask(self, command: str, *words: str | bytes | int) -> Any:
        return self._target.ask(self._key.encode(), command, self._key, *words)[1]

    def _ask_all(self, *commands: Words) -> Any:
        """The reply to the last of several commands, which are sent at once."""
        return self._target.ask_all(self._key.encode(), *((name, self._key, *words) for name, *words in commands))


def _text(entry: ChunkEntry) -> str:
    values = asdict(entry)
    del values["number"]
    return json.dumps(values, separators=(",", ":"))


def _digest_of(facts: Mapping[str, str]) -> bytes:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest().encode()


def _is_complete(fields: Mapping[bytes, bytes], plan: bytes) -> bool:
    """Whether the last run of this very plan has closed the index, and no run has entered itself since."""
    writer, size = fields.get(WRITER.encode()), fields.get(SIZE.encode())
    return writer == fields.get(BASE.encode()) and size is not None and fields.get(PLAN.encode()) == plan


def _is_number(name: bytes) -> bool:
    """Whether a field of the index is an entry's: a number as this program writes it."""
    return name.isdigit() and len(name) <= DIGITS and b"%d" % int(name) == name


def _entry(number: int, text: bytes) -> ChunkEntry | None:
    try:
        return built(ChunkEntry, {**parsed(text), "number": number})
    except ValueError:
        return None


def _bounded(entry: ChunkEntry, fits: Callable[[KeyValues], bool]) -> bool:
    return fits(entry.upto) and (entry.after is None or fits(entry.after))


def _chain(entries: Iterable[ChunkEntry]) -> list[ChunkEntry]:
    """The chunks that follow one another from the start of the table."""
    following = {entry.after: entry for entry in entries}
    chain: list[ChunkEntry] = []
    after: KeyValues | None = None
    while entry := following.pop(after, None):
        chain.append(entry)
        after = entry.upto
    return chain
