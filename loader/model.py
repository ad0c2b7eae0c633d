"""The words that travel between the rooms: frozen values, no behaviour beyond naming themselves."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from loader.errors import Exit
from loader.outcome import LOADED, Outcome, Status

Key = bytes  # of a hash
KeyValues = tuple[str, ...]
LITERAL = re.compile(r"-?[0-9]+(\.[0-9]+)?|'[-0-9a-f:. ]*'|(_[a-z0-9]+ )?X'([0-9A-F]{2})*'", re.ASCII | re.IGNORECASE)
"""One primary key as the source carries it between statements: an SQL literal a column, ready to compare with."""

Shape = tuple[tuple[str, int, int, int], ...]
"""What a statement's result looks like: name, type code, length and decimals of each column, as the server says."""


Mark = tuple[str, str, int]
"""What vouches for rows of a run: the key of a marker, its field, and the least number that has to stand there."""

SKEW = 2.0  # seconds that clocks may differ: less is no matter to any lag or TTL


def is_literal(value: str) -> bool:
    """Whether a key value is a literal, and no other SQL."""
    return LITERAL.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, as information_schema describes it."""

    name: str
    type: str  # data_type in lower case: "int", "varchar", …
    full_type: str  # column_type as it is, since members of an ENUM have letter case: "smallint(8) unsigned zerofill"
    charset: str | None  # of text columns
    nullable: bool = True
    hidden: bool = False  # left out of SELECT *
    collation: str | None = None  # of text columns, the order that they are walked in

    def __str__(self) -> str:
        """What values of it look like, and how they are ordered."""
        return " ".join(filter(None, (self.full_type, self.collation, "invisible" if self.hidden else "")))

    @property
    def zerofill_width(self) -> int | None:
        """The digits that ZEROFILL pads an integer to; None for all other columns."""
        if self.full_type.endswith("zerofill") and "(" in self.full_type and "," not in self.full_type:
            return int(self.full_type.partition("(")[2].partition(")")[0])
        return None


@dataclass(frozen=True, slots=True)
class Table:
    """What MySQL says about a table, or about the result of a job's query."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    unique_keys: tuple[tuple[str, ...], ...] = ()  # without NULLs; the primary key is not repeated
    rows_estimate: int | None = None
    indexes: tuple[tuple[str, str], ...] = ()  # each that can be walked, and its first column
    withheld: str = ""  # what MySQL says where the account may not read all columns, and does not see the others
    barred: tuple["Barred", ...] = ()  # those that cannot
    is_view: bool = False
    has_history: bool = False  # system versioning, of MariaDB

    def column(self, name: str) -> Column | None:
        """The column of that name, letter case aside as in MySQL; None where there is none."""
        return next((c for c in self.columns if c.name.lower() == name.lower()), None)

    def bar(self, key: tuple[str, ...]) -> "Barred | None":
        """The index that keeps a key from being walked along; None where none does."""
        return next((each for each in self.barred if each.unique and each.columns == key), None)


class Bar(StrEnum):
    """Why MySQL does not read along an index."""

    INVISIBLE = "invisible"  # MySQL
    IGNORED = "ignored"  # MariaDB
    DISABLED = "disabled"  # MyISAM, Aria
    HASH = "hash"  # MEMORY, and MariaDB's unique keys that are too long for another
    PREFIX = "prefix"  # of a value alone is in it


@dataclass(frozen=True, slots=True)
class Barred:
    """An index that MySQL does not read along, and why; `unique` where it tells rows apart all the same."""

    name: str
    columns: tuple[str, ...]
    bar: Bar
    unique: bool = False


@dataclass(frozen=True, slots=True)
class TableSummary:
    """A table or view as the list of its database shows it; rows are MySQL's estimate, None where it has none."""

    name: str
    is_view: bool = False
    rows: int | None = None
    bytes: int | None = None  # data and indexes
    comment: str = ""
    primary_key: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()  # columns that MySQL sets with every change of a row
    generated: tuple[str, ...] = ()  # columns that MySQL computes from others


@dataclass(frozen=True, slots=True)
class Chunk:
    """The rows with `after < key <= upto`; an end that is None is open."""

    number: int
    after: KeyValues | None = None
    upto: KeyValues | None = None


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """One Redis server that can own slots; `port` is 0 for a unix socket, whose path is then the host."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


MOST = 512 * 1024 * 1024  # bytes of a key or value that Redis takes: proto-max-bulk-len's default


@dataclass(frozen=True, slots=True)
class Layout:
    """Which cells of a row make the key and which the fields of its hash.

    `key` is a sequence of literal bytes and cell numbers; `fields` pairs a hash field's name with a cell number.
    """

    cells: int
    key: tuple[bytes | int, ...]
    fields: tuple[tuple[bytes, int], ...]
    nulls_empty: bool = False
    ttl: int | None = None  # seconds
    ttl_jitter: int = 0  # seconds either way
    checks_ttl: bool = False  # without a ttl: whether each hash is asked if it has a time to live all the same
    most: int = MOST  # bytes of a key or value: more ends the connection


@dataclass(frozen=True, slots=True)
class Batch:
    """The commands of some rows for one node, and how many single-line replies they will have.

    `then` is sent once these are acknowledged, without the rows that were refused: no EXPIRE for a foreign key. Any
    reply but the one it `expects` means that the hash of its key does not live as long as it is to.
    """

    data: bytes | bytearray | memoryview
    rows: int
    replies: int
    then: "Batch | None" = None
    expects: bytes = b""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that could not be written, by the key of its hash, and why."""

    key: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Acks:
    """What the nodes made of the batches since the last count: rows acknowledged per node, and rows refused.

    `expiring` are keys of hashes that expired before they got their time to live, or have one and are to have none.
    """

    rows: Mapping[str, int]
    bytes: int
    rejects: tuple[Reject, ...] = ()
    expiring: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkLoaded:
    """A chunk is in Redis. Log, metrics, progress and checkpoint all consume this one event."""

    chunk: Chunk
    read: int
    written: int
    rejects: tuple[Reject, ...]
    nodes: Mapping[str, int]
    bytes: int
    seconds: float
    began: float  # on the monotonic clock
    exposed: frozenset[str] = frozenset()  # nodes some of whose replicas lack it, and may take over
    marks: tuple[Mark, ...] = ()  # that are there as long as no node has lost it
    retried: int = 0
    unchanged: int = 0  # rows that need not be written
    deleted: int = 0  # hashes without a row
    grant: int = 0  # of the lock that it was written under


@dataclass(frozen=True, slots=True)
class ChunkOwed:
    """A chunk that was loaded is owed again: its master has lost it, or another run may have written over it."""

    event: ChunkLoaded


@dataclass(frozen=True, slots=True)
class Waiting:
    """A chunk failed in passing and will be tried again after `seconds`."""

    chunk: Chunk
    attempt: int
    seconds: float
    reason: str
    node: str = ""  # of Redis, where it was one that failed


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should know of, while the run goes on."""

    text: str


@dataclass(frozen=True, slots=True)
class RunBegan:
    """A run begins; `slot` is the time it was scheduled for (seconds since 1970), None where a person began it."""

    job: str
    run: str
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run is over, with all that belongs to it."""

    run: "Run"


@dataclass(slots=True)
class Run:
    """One execution of a job, added up from its events: `read = written + unchanged + rejected`, or it has failed."""

    job: str
    id: str
    dry_run: bool = False
    full: bool = True  # all rows of the job were read, not those alone that were changed
    outcome: Outcome = LOADED
    resumed: bool = False
    read: int = 0
    written: int = 0
    unchanged: int = 0
    deleted: int = 0
    rejected: int = 0
    bytes: int = 0
    seconds: float = 0.0
    chunks: int = 0
    chunks_done: int = 0
    chunks_retried: int = 0
    nodes: dict[str, int] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    began: float = field(default_factory=time.time)  # seconds since 1970
    started: float = field(default_factory=time.monotonic)  # the same on the monotonic clock, which nobody sets
    slot: int | None = None  # the time it was scheduled for; None where a person began it
    starts: int = 1  # how often it began, because the table or the target was changed under it
    waits: dict[str, float] = field(default_factory=dict)  # seconds of all its workers, by what they waited for
    listed: int | None = None  # rows on the list of rejects at its end; None where it was not asked
    prunes: bool = False  # a prune is due after it, by `full_every`
    watermark: float | None = None  # of an incremental job, at its end; seconds since 1970

    @property
    def status(self) -> Status:
        """How it ended, in one word."""
        return self.outcome.status

    @property
    def exit_code(self) -> Exit:
        """The exit code of a command that runs this job alone."""
        return self.outcome.exit_code

    @property
    def error(self) -> str | None:
        """What went wrong, in words; None if nothing did."""
        return self.outcome.error

    @property
    def did_nothing(self) -> bool:
        """Whether it left the work to someone else before it began: its job was locked, done or paused."""
        return self.outcome.is_taken and not self.chunks

    @property
    def by(self) -> str:
        """Who began it."""
        return "hand" if self.slot is None else "schedule"


RunEvent = ChunkLoaded | Waiting | Notice | RunBegan | RunEnded
"""All that a listener may be told of."""
