"""The values that the packages exchange: frozen, with no behaviour beyond naming themselves."""

import re
import time
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from loader.errors import Exit
from loader.outcome import LOADED, Outcome, Status
from loader.records import dataclass

Key = bytes  # of a hash
KeyValues = tuple[str, ...]
LITERAL = re.compile(r"-?[0-9]+(\.[0-9]+)?|'[-0-9a-f:. ]*'|(_[a-z0-9]+ )?X'([0-9A-F]{2})*'", re.ASCII | re.IGNORECASE)
"""A primary key as the source passes it between statements: an SQL literal per column, ready for comparison."""

Shape = tuple[tuple[str, int, int, int], ...]
"""The columns of a statement's result: name, type code, length and decimals of each, as the server reports them."""


Mark = tuple[str, str, int]
"""Evidence for the rows of a run: the key of a marker, its field, and the least number that must be there."""

SKEW = 2.0  # seconds that clocks may differ: less does not matter to any lag or TTL


def is_literal(value: str) -> bool:
    """Whether a key value is a literal, and no other SQL."""
    return LITERAL.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, as information_schema describes it."""

    name: str
    type: str  # data_type in lower case: "int", "varchar", …
    full_type: str  # column_type as it is, because members of an ENUM have case: "smallint(8) unsigned zerofill"
    charset: str | None  # of text columns
    nullable: bool = True
    hidden: bool = False  # left out of SELECT *
    collation: str | None = None  # of text columns, the order in which they are walked

    def __str__(self) -> str:
        """The form of its values, and their order."""
        return " ".join(filter(None, (self.full_type, self.collation, "invisible" if self.hidden else "")))

    @property
    def zerofill_width(self) -> int | None:
        """The digits that ZEROFILL pads an integer to; None for all other columns."""
        if self.full_type.endswith("zerofill") and "(" in self.full_type and "," not in self.full_type:
            return int(self.full_type.partition("(")[2].partition(")")[0])
        return None


@dataclass(frozen=True, slots=True)
class Table:
    """A table, or the result of a job's query, as MySQL describes it."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    unique_keys: tuple[tuple[str, ...], ...] = ()  # without NULLs; the primary key is not repeated
    rows_estimate: int | None = None
    indexes: tuple[tuple[str, str], ...] = ()  # each index that can be walked, and its first column
    withheld: str = ""  # MySQL's error if the account may not read all columns, and cannot see the others
    barred: tuple["Barred", ...] = ()  # indexes that cannot be walked
    is_view: bool = False
    has_history: bool = False  # system versioning, of MariaDB
    created: float | None = field(default=None, compare=False)  # or altered, in whole seconds since 1970
    generated: str = field(default="", compare=False)  # how columns are computed

    def column(self, name: str) -> Column | None:
        """The column of that name, ignoring case as MySQL does; None if there is none."""
        return next((c for c in self.columns if c.name.lower() == name.lower()), None)

    def bar(self, key: tuple[str, ...]) -> "Barred | None":
        """The index that prevents walking along a key; None if nothing does."""
        return next((each for each in self.barred if each.unique and each.columns == key), None)


class Bar(StrEnum):
    """Why MySQL does not read along an index."""

    INVISIBLE = "invisible"  # MySQL
    IGNORED = "ignored"  # MariaDB
    DISABLED = "disabled"  # MyISAM, Aria
    HASH = "hash"  # MEMORY, and MariaDB's unique keys that are too long for another kind
    PREFIX = "prefix"  # it contains only the beginning of each value


@dataclass(frozen=True, slots=True)
class Barred:
    """An index that MySQL does not read along, and why; `unique` if it still tells rows apart."""

    name: str
    columns: tuple[str, ...]
    bar: Bar
    unique: bool = False


@dataclass(frozen=True, slots=True)
class TableSummary:
    """A table or view as its database lists it; rows are MySQL's estimate, None if it has none."""

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


MOST = 512 * 1024 * 1024  # largest key or value in bytes that Redis accepts: the default of proto-max-bulk-len


@dataclass(frozen=True, slots=True)
class Layout:
    """Which cells of a row make the key, and which make the fields of its hash.

    `key` is a sequence of literal bytes and cell numbers; `fields` pairs a hash field's name with a cell number.
    """

    cells: int
    key: tuple[bytes | int, ...]
    fields: tuple[tuple[bytes, int], ...]
    nulls_empty: bool = False
    ttl: int | None = None  # seconds
    ttl_jitter: int = 0  # seconds in either direction
    checks_ttl: bool = False  # without a ttl: whether to check if each hash has a time to live
    most: int = MOST  # bytes of a key or value: a larger one makes Redis close the connection
    listpack: "Listpack | None" = None  # up to which a row travels as a ready-made hash, if any does


@dataclass(frozen=True, slots=True)
class Listpack:
    """Up to how many fields, and bytes of a name or value, Redis keeps a hash as a listpack."""

    fields: int
    longest: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The commands of some rows for one node, and how many single-line replies they will have.

    `then` is sent once these are acknowledged, without the refused rows: no EXPIRE for a foreign key. Any reply other
    than the one it `expects` means that the hash of its key does not have the expiry it should.
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
    """The nodes' replies to batches since the last count: rows acknowledged per node, and rows refused.

    `expiring` are keys of hashes that expired before they got their time to live, or have one and should have none.
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
    exposed: frozenset[str] = frozenset()  # nodes with replicas that lack it, and may take over
    marks: tuple[Mark, ...] = ()  # valid as long as no node has lost them
    retried: int = 0
    unchanged: int = 0  # rows that did not need to be written
    deleted: int = 0  # hashes without a row
    grant: int = 0  # of the lock under which it was written

    @property
    def weight(self) -> int:
        """How much memory it takes while it is remembered: itself and its rejects."""
        return 1 + len(self.rejects)


@dataclass(frozen=True, slots=True)
class ChunkOwed:
    """A loaded chunk is owed again: its master has lost it, or another run may have overwritten it."""

    event: ChunkLoaded


@dataclass(frozen=True, slots=True)
class Waiting:
    """A chunk failed transiently and will be retried after `seconds`; or without one, the run before its chunks."""

    chunk: Chunk | None
    attempt: int
    seconds: float
    reason: str
    node: str = ""  # of Redis, if it was one that failed


@dataclass(frozen=True, slots=True)
class Notice:
    """A note for people while the run continues."""

    text: str


@dataclass(frozen=True, slots=True)
class RunBegan:
    """A run begins; `slot` is the time it was scheduled for (seconds since 1970), None if a person started it."""

    job: str
    run: str
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run is over; carries its result."""

    run: "Run"


def starter(slot: int | None, *, follows: bool) -> str:
    """What started a run: `schedule`, `follow`, or a person by `hand`."""
    return "follow" if follows else "hand" if slot is None else "schedule"


@dataclass(slots=True)
class Run:
    """One execution of a job, added up from its events: `read = written + unchanged + rejected`, or it has failed."""

    job: str
    id: str
    dry_run: bool = False
    full: bool = True  # all rows of the job were read, not only changed ones
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
    started: float = field(default_factory=time.monotonic)  # the same on the monotonic clock, which cannot be set
    slot: int | None = None  # the time it was scheduled for; None if nothing did
    follows: bool = False  # it reads all rows so that its job can be followed
    starts: int = 1  # how often it started, because the table or the target changed under it
    waits: dict[str, float] = field(default_factory=dict)  # seconds of all its workers, by the reason for waiting
    listed: int | None = None  # rows on the list of rejects at its end; None if it was not read
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
        """What started it: `schedule`, `follow` or `hand`."""
        return starter(self.slot, follows=self.follows)


@dataclass(frozen=True, slots=True)
class FollowBegan:
    """Jobs are followed from a position of the binlog on."""

    jobs: tuple[str, ...]
    position: str


@dataclass(frozen=True, slots=True)
class FollowProgress:
    """How far jobs are followed, told once a second; counts are since `FollowBegan`, of all of them.

    `lag` is in seconds, `lag_bytes` of the binlog, None if nobody knows. `waiting` says why nothing is read or written
    now, and is empty otherwise. `changes_by_job` and `keys_by_job` are counts of each.
    """

    lag: float = 0.0
    is_caught_up: bool = False
    changes: int = 0
    keys: int = 0
    written: int = 0
    deleted: int = 0
    waiting: str = ""
    lag_bytes: int | None = None
    changes_by_job: Mapping[str, int] = field(default_factory=dict)
    keys_by_job: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FollowEnded:
    """Jobs are no longer followed, after a position of the binlog."""

    position: str
    progress: FollowProgress


FollowEvent = Notice | FollowBegan | FollowProgress | FollowEnded
RunEvent = ChunkLoaded | ChunkOwed | Waiting | RunBegan | RunEnded | FollowEvent
"""All events that a listener may receive."""
