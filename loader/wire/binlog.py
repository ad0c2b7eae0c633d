"""Events of the binary log of MySQL and MariaDB: bytes in, values out; no I/O.

An event is a header of 19 bytes, a body, and a CRC32 of both if the server writes checksums. All numbers are
little-endian. See https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html and
https://mariadb.com/kb/en/2-binlog-event-header/. Each length is checked against the end of its event: what does not add
up is a `MalformedEvent`.
"""

import re
import struct
import zlib
from enum import IntEnum

from loader.errors import MalformedEvent
from loader.records import dataclass
from loader.wire.resp import Buffer

HEADER = 19
CHECKSUM = 4
IGNORABLE = 0x80  # the flag of an event that a reader may pass over without knowing it
NO_LENGTH = "has a length that is none"
TAGGED_GTID_FIELDS = 12  # fields of a tagged GTID that are known, by their numbers from 0 on


class EventType(IntEnum):
    """The types that are known; `ROWS_V1` and `ROWS_V2` events insert, `UPDATE` and `DELETE` events follow them."""

    QUERY = 2
    STOP = 3
    ROTATE = 4
    INTVAR = 5
    RAND = 13
    USER_VAR = 14
    FORMAT_DESCRIPTION = 15
    XID = 16
    BEGIN_LOAD_QUERY = 17
    EXECUTE_LOAD_QUERY = 18
    TABLE_MAP = 19
    WRITE_ROWS_V1 = 23
    UPDATE_ROWS_V1 = 24
    DELETE_ROWS_V1 = 25
    INCIDENT = 26
    HEARTBEAT = 27
    IGNORABLE = 28
    ROWS_QUERY = 29
    WRITE_ROWS = 30
    UPDATE_ROWS = 31
    DELETE_ROWS = 32
    GTID = 33
    ANONYMOUS_GTID = 34
    PREVIOUS_GTIDS = 35
    TRANSACTION_CONTEXT = 36
    VIEW_CHANGE = 37
    XA_PREPARE = 38
    PARTIAL_UPDATE_ROWS = 39
    TRANSACTION_PAYLOAD = 40
    HEARTBEAT_V2 = 41
    TAGGED_GTID = 42
    ANNOTATE_ROWS = 160  # from here on, MariaDB's own
    BINLOG_CHECKPOINT = 161
    MARIADB_GTID = 162
    GTID_LIST = 163
    START_ENCRYPTION = 164
    QUERY_COMPRESSED = 165
    WRITE_ROWS_COMPRESSED_V1 = 166
    UPDATE_ROWS_COMPRESSED_V1 = 167
    DELETE_ROWS_COMPRESSED_V1 = 168
    WRITE_ROWS_COMPRESSED = 169
    UPDATE_ROWS_COMPRESSED = 170
    DELETE_ROWS_COMPRESSED = 171


V1_ROWS = frozenset({EventType.WRITE_ROWS_V1, EventType.UPDATE_ROWS_V1, EventType.DELETE_ROWS_V1})
V2_ROWS = frozenset({
    EventType.WRITE_ROWS, EventType.UPDATE_ROWS, EventType.DELETE_ROWS, EventType.PARTIAL_UPDATE_ROWS,
})  # fmt: skip
UPDATES = frozenset({EventType.UPDATE_ROWS_V1, EventType.UPDATE_ROWS, EventType.PARTIAL_UPDATE_ROWS})
COMPRESSED_ROWS = {  # the type that the event has without compression
    EventType.WRITE_ROWS_COMPRESSED_V1: EventType.WRITE_ROWS_V1,
    EventType.UPDATE_ROWS_COMPRESSED_V1: EventType.UPDATE_ROWS_V1,
    EventType.DELETE_ROWS_COMPRESSED_V1: EventType.DELETE_ROWS_V1,
    EventType.WRITE_ROWS_COMPRESSED: EventType.WRITE_ROWS,
    EventType.UPDATE_ROWS_COMPRESSED: EventType.UPDATE_ROWS,
    EventType.DELETE_ROWS_COMPRESSED: EventType.DELETE_ROWS,
}
PASSED_OVER = frozenset({  # they say nothing that changes rows
    EventType.STOP, EventType.IGNORABLE, EventType.ROWS_QUERY, EventType.PREVIOUS_GTIDS, EventType.TRANSACTION_CONTEXT,
    EventType.VIEW_CHANGE, EventType.ANNOTATE_ROWS, EventType.BINLOG_CHECKPOINT, EventType.GTID_LIST,
    EventType.START_ENCRYPTION, EventType.INTVAR, EventType.RAND, EventType.USER_VAR,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an event: when and by which server it was written, and where in the file it ends.

    `end` has 32 bits, and is 0 within a compressed transaction and of events that the server makes up for the reader.
    """

    time: int
    type: int
    server_id: int
    size: int
    end: int
    flags: int


@dataclass(frozen=True, slots=True)
class Format:
    """A FORMAT_DESCRIPTION event: the server's version, and whether checksums follow the events of this file."""

    server_version: str
    is_checksummed: bool


@dataclass(frozen=True, slots=True)
class Rotate:
    """A ROTATE event: the file that follows, and where it is read from."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Query:
    """A QUERY event: a statement, and the default database in which it ran. Bytes, in the client's character set."""

    schema: bytes
    statement: bytes


@dataclass(frozen=True, slots=True)
class Gtid:
    """The event that begins a transaction; `source` is as in `gtids`, empty if the transaction has no GTID.

    `is_standalone` says that the transaction is one statement and that no COMMIT follows; None: MySQL does not say.
    """

    source: bytes
    number: int
    is_standalone: bool | None = None


def malformed(kind: int, why: str) -> MalformedEvent:
    """The error that the bytes of an event of some type do not add up."""
    return MalformedEvent(f"MySQL sent a binlog event of type {kind} that {why}")


class Fields:
    """The fields of an event from `at` on, one after the other; past the end is a `MalformedEvent`."""

    def __init__(self, event: Buffer, at: int = HEADER, kind: int | None = None) -> None:
        self.at = at
        self.event = event
        self._kind = header_of(event).type if kind is None else kind

    def malformed(self, why: str = "ends too early") -> MalformedEvent:
        """The error about this event."""
        return malformed(self._kind, why)

    @property
    def left(self) -> int:
        """Bytes that are left."""
        return len(self.event) - self.at

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > self.left:
            raise self.malformed()
        self.at += size
        return bytes(self.event[self.at - size : self.at])

    def part(self, size: int) -> "Fields":
        """The next `size` bytes as fields of their own."""
        return Fields(self.take(size), 0, self._kind)

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(self.left)

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def lenenc(self) -> int:
        """A length-encoded number."""
        first = self.number(1)
        if first in {0xFB, 0xFF}:
            raise self.malformed(NO_LENGTH)
        return first if first < 0xFB else self.number({0xFC: 2, 0xFD: 3, 0xFE: 8}[first])

    def varint(self) -> int:
        """A number of MySQL's serialization: the first byte's trailing 1-bits count the bytes that follow it."""
        first = self.number(1)
        more = ((first ^ 0xFF) & -(first ^ 0xFF)).bit_length() - 1 if first != 0xFF else 8
        value = first | self.number(more) << 8
        return value >> min(more + 1, 8)

    def signed_varint(self) -> int:
        """A signed number of the same: zigzag."""
        value = self.varint()
        return value >> 1 ^ -(value & 1)


_HEADER = struct.Struct("<IBIIIH")


def header_of(event: Buffer) -> Header:
    """The header of an event."""
    if len(event) < HEADER:
        raise malformed(event[4] if len(event) > 4 else 0, "ends too early")
    return Header(*_HEADER.unpack_from(event))


def unwrap(event: bytes, *, is_checksummed: bool) -> bytes:
    """An event as it came, without its checksum; a size or a checksum that is wrong is a `MalformedEvent`.

    A FORMAT_DESCRIPTION and a ROTATE say themselves whether they have a checksum: they stand before what says it of
    others, and a server may change its mind between two files.
    """
    head = header_of(event)
    if head.size != len(event):
        raise malformed(head.type, f"is {len(event)} bytes long and says {head.size}")
    if head.type == EventType.FORMAT_DESCRIPTION:
        return event
    if head.type == EventType.ROTATE:
        is_checksummed = _is_intact(event)
    elif is_checksummed and not _is_intact(event):
        raise malformed(head.type, "does not fit its checksum")
    return event[:-CHECKSUM] if is_checksummed else event


def _is_intact(event: bytes) -> bool:
    if len(event) < HEADER + CHECKSUM:
        return False
    return zlib.crc32(memoryview(event)[:-CHECKSUM]) == int.from_bytes(event[-CHECKSUM:], "little")


def parse_format(event: bytes) -> Format:
    """Read a FORMAT_DESCRIPTION as it came: `version 2 | server 50 | time 4 | 19 | lengths… | algorithm 1 | CRC32`."""
    fields = Fields(event)
    fields.take(2)
    version = fields.take(50).rstrip(b"\0").decode(errors="replace")
    fields.take(4)
    if fields.number(1) != HEADER:
        raise fields.malformed("tells of headers of another size")
    lengths = fields.rest()
    if len(lengths) < 1 + CHECKSUM or lengths[-5] > 1:
        raise fields.malformed("tells of a checksum that is not known")
    return Format(version, lengths[-5] == 1)


def parse_rotate(event: bytes) -> Rotate:
    """Read a ROTATE: `position 8 | name`."""
    fields = Fields(event)
    offset = fields.number(8)
    return Rotate(fields.rest().rstrip(b"\0").decode(errors="replace"), offset)


def parse_query(event: bytes) -> Query:
    """Read a QUERY: `thread 4 | seconds 4 | schema length 1 | error 2 | status length 2 | status | schema 0 | text`."""
    fields = Fields(event)
    fields.take(8)
    size = fields.number(1)
    fields.take(2)
    fields.take(fields.number(2))
    schema = fields.take(size)
    if fields.number(1):
        raise fields.malformed("has a name without an end")
    return Query(schema, fields.rest())


def parse_gtid(event: bytes) -> Gtid:
    """Read the event that begins a transaction, of any kind that there is."""
    match event[4]:
        case EventType.MARIADB_GTID:  # sequence number 8 | domain 4 | flags 1, and the server id of the header
            fields = Fields(event)
            number, domain, flags = fields.number(8), fields.take(4), fields.number(1)
            return Gtid(domain + event[5:9], number, is_standalone=bool(flags & 1))
        case EventType.TAGGED_GTID:
            return _tagged_gtid(event)
        case kind:  # flags 1 | uuid 16 | number 8
            fields = Fields(event)
            fields.take(1)
            source, number = fields.take(16), fields.number(8)
            return Gtid(b"" if kind == EventType.ANONYMOUS_GTID else source, number)


def _tagged_gtid(event: bytes) -> Gtid:
    """Read a tagged GTID: `version | size | last field that must be known`, then the number and value of each field."""
    fields = Fields(event)
    fields.varint()
    fields.varint()
    if fields.varint() > TAGGED_GTID_FIELDS:
        raise fields.malformed("has fields that are not known")
    number, uuid, tag = 0, b"", b""
    while fields.left and (field := fields.varint()) <= 3:
        match field:
            case 0:
                fields.varint()  # flags
            case 1:
                uuid = bytes(min(fields.varint(), 0xFF) for _ in range(16))
            case 2:
                number = fields.signed_varint()
            case 3:
                tag = fields.take(fields.varint())
    if len(uuid) != 16 or number < 1:
        raise fields.malformed("has no GTID")
    return Gtid(uuid + tag, number)


def parse_xa_prepare(event: bytes) -> tuple[str, bool]:
    """Read an XA_PREPARE: the transaction's id, as `xid_of` has it, and whether it is committed with this event."""
    fields = Fields(event)
    one_phase, kind = fields.number(1), fields.number(4)
    sizes = fields.number(4), fields.number(4)
    if max(sizes) > 64:
        raise fields.malformed("has an XA id that is too long")
    first, second = (fields.take(size) for size in sizes)
    return f"X'{first.hex()}',X'{second.hex()}',{kind}", bool(one_phase)


_XID = re.compile(rb"XA\s+(?:COMMIT|ROLLBACK)\s+X'([0-9a-f]*)',\s*X'([0-9a-f]*)',\s*([0-9]+)", re.IGNORECASE)


def xid_of(statement: bytes) -> str:
    """The id of the transaction that an XA COMMIT or XA ROLLBACK ends; empty if it is not one as servers write it."""
    match = _XID.match(statement)
    return f"X'{match[1].decode().lower()}',X'{match[2].decode().lower()}',{int(match[3])}" if match else ""


def parse_incident(event: bytes) -> str:
    """Read an INCIDENT: `number 2 | message length 1 | message`; what the server says of changes that it lost."""
    fields = Fields(event)
    fields.take(2)
    return fields.take(fields.number(1)).decode(errors="replace") if fields.left else ""
