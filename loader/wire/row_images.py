"""The keys of changed rows, out of the packets of a binlog dump; no I/O.

A raw key is the cells of the key's columns as they stand in a row image, each with the length before it, in the order
of the table's columns. This is the plain reference of the compiled twin in `_binlog.pyx`.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from loader.errors import Kind, PositionLost, SourceError
from loader.wire.binlog import (
    HEADER,
    NO_LENGTH,
    PASSED_OVER,
    UPDATES,
    V1_ROWS,
    V2_ROWS,
    EventType,
    Fields,
    header_of,
    parse_gtid,
    unwrap,
)
from loader.wire.packets import HEADER as PACKET_HEADER
from loader.wire.packets import PACKET_MAX
from loader.wire.resp import Buffer
from loader.wire.table_map import ColumnFormat, FollowedTable, TableMap, table_id_of

DUMMY_TABLE = 0xFFFFFF  # of rows events that have no rows
JSON_PARTS = 1  # the option of an after image that parts of JSON values are in it
Keys = dict[bytes, None]  # raw keys, each once, in the order in which they came first
Run = tuple[bytes, int, int]  # transactions: their source as in `gtids`, the first number and the last
ROWS = V1_ROWS | V2_ROWS
STOPS_AT = frozenset({EventType.FORMAT_DESCRIPTION, EventType.ROTATE})  # which `unwrap` treats otherwise
LOW = 0xFFFFFFFF  # bits of a position that an event has
BEGIN = b"\0BEGIN"  # how a QUERY that begins a transaction ends: no name, the text


class Group(IntEnum):
    """How far the transaction is whose events are read."""

    CLOSED = 0
    OPENED = 1  # its GTID was read: a statement that follows is all of it
    BEGUN = 2  # it goes on until a COMMIT or the like


def inside_transaction() -> PositionLost:
    """The error that a transaction's rest comes without its beginning: no server refuses to start reading there."""
    return PositionLost("the binlog was read from the middle of a transaction on")


def lacks_key(table: TableMap) -> SourceError:
    """The error that rows are sent without their key."""
    return SourceError(
        f"{table.schema}.{table.table}: the binlog has changes of rows without the columns of their key:"
        " SET GLOBAL binlog_row_image = 'FULL', or have the key be the primary key",
        kind=Kind.REFUSED,
    )


class KeyScanner:
    """Gathers the raw keys of changed rows, transaction by transaction.

    It reads the events that come with every transaction: GTIDs, BEGIN, rows of tables that are known, XID. It stops at
    any other, which its caller reads, and tells what that means by `define`, `forget`, `open`, `close` and `put`. Until
    its transaction ends a key counts for nothing: its row is not visible, and the GTID is not done.
    """

    def __init__(self, offset: int = 0) -> None:
        self.is_checksummed = True  # whether events end with a CRC32
        self.wanted = 0  # bytes that the next packet needs in the buffer, as far as is known
        self.stopped = False  # the next packet is not one that this class reads
        self.group = Group.CLOSED
        self.source = b""  # of the open transaction's GTID; empty if it has none
        self.number = 0
        self.offset = offset  # in the file: where the last transaction ended, with more than 32 bits if need be
        self.time = 0  # when it did, in seconds since 1970
        self.ended = 0  # transactions that ended since `drain`
        self._tables: dict[int, tuple[bytes, FollowedTable | None]] = {}
        self._open: dict[FollowedTable, Keys] = {}
        self._done: dict[FollowedTable, Keys] = {}
        self._runs: list[Run] = []

    def feed(self, buffer: Buffer, start: int, end: int) -> int:
        """Read whole packets of `buffer[start:end]`; return where the first one starts that was not read.

        Stops at a packet that is not all there (`wanted`), or that is not for it (`stopped`): an event of another kind,
        an error, the end, or one that is continued in the next packet. What does not add up is a `MalformedEvent`.
        """
        self.stopped = False
        with memoryview(buffer)[:end] as view:
            while True:
                self.wanted = PACKET_HEADER
                if end - start < PACKET_HEADER:
                    return start
                size = int.from_bytes(view[start : start + 3], "little")
                if size < PACKET_MAX:
                    self.wanted += size
                    if end - start < self.wanted:
                        return start
                packet = view[start + PACKET_HEADER : start + self.wanted]
                if size == PACKET_MAX or not self._packet(packet):
                    self.stopped = True
                    return start
                start += PACKET_HEADER + size

    def take(self, event: bytes, end: int = 0) -> bool:
        """Read one event without checksum, or return False if it is not one for this class.

        `end` is where it ends in the file if it does not say so itself.
        """
        kind = header_of(event).type
        if kind == EventType.TABLE_MAP:
            known = self._tables.get(table_id_of(event))
            return known is not None and known[0] == event[HEADER:]
        if kind in ROWS:
            self._rows(event)
        elif kind == EventType.XID:
            self._check_open()
            self.close(int.from_bytes(event[13:17], "little") or end, int.from_bytes(event[:4], "little"))
        elif kind in {EventType.GTID, EventType.ANONYMOUS_GTID, EventType.MARIADB_GTID}:
            gtid = parse_gtid(event)
            self.open(gtid.source, gtid.number, begun=gtid.is_standalone is False)
        elif kind == EventType.QUERY and event.endswith(BEGIN):
            self.group = Group.BEGUN
        else:
            return kind in PASSED_OVER
        return True

    def define(self, event: bytes, followed: FollowedTable | None) -> None:
        """Say what a TABLE_MAP event means; None: a table whose rows are passed over."""
        self._tables[Fields(event).number(6)] = event[HEADER:], followed

    def forget(self) -> None:
        """Forget all tables: another file begins, in which the same numbers may be those of others."""
        self._tables.clear()

    def open(self, source: bytes, number: int, *, begun: bool) -> None:
        """Begin a transaction. Keys of one that did not end, as its server crashed, go with those of this one."""
        self.source, self.number = source, number
        self.group = Group.BEGUN if begun else Group.OPENED

    def close(self, end: int, time: int) -> None:
        """End the open transaction: its keys and its GTID count. `end` is 0, or the low 32 bits of where it ends."""
        if end:
            previous = self.offset
            self.offset = (self.offset & ~LOW) + (end & LOW)
            if previous > self.offset:
                self.offset += LOW + 1
        self.time = time
        self.ended += 1
        self.group = Group.CLOSED
        for followed, keys in self._open.items():
            self._done.setdefault(followed, {}).update(keys)
        self._open.clear()
        if self.source:
            self._count(self.source, self.number)
            self.source = b""

    def put(self, followed: FollowedTable, keys: Iterable[bytes]) -> None:
        """Add keys to those of the open transaction."""
        self._open.setdefault(followed, {}).update(dict.fromkeys(keys))

    @property
    def held(self) -> int:
        """How many keys the open transaction has."""
        return sum(map(len, self._open.values()))

    def take_open(self) -> dict[FollowedTable, Keys]:
        """Hand over the keys of the open transaction, which then has none."""
        keys, self._open = self._open, {}
        return keys

    def drain(self) -> tuple[dict[FollowedTable, Keys], list[Run]]:
        """Hand over the keys and the GTIDs of the transactions that ended."""
        drained = self._done, self._runs
        self._done, self._runs, self.ended = {}, [], 0
        return drained

    def _packet(self, packet: memoryview) -> bool:
        """Read the event in a packet; False if it is not one for this class."""
        if len(packet) < 1 + HEADER or packet[0] or packet[5] in STOPS_AT:
            return False
        return self.take(unwrap(bytes(packet[1:]), is_checksummed=self.is_checksummed))

    def _check_open(self) -> None:
        if self.group is Group.CLOSED:
            raise inside_transaction()

    def _count(self, source: bytes, number: int) -> None:
        if self._runs and self._runs[-1][0] == source and self._runs[-1][2] + 1 == number:
            self._runs[-1] = source, self._runs[-1][1], number
        else:
            self._runs.append((source, number, number))

    def _rows(self, event: bytes) -> None:
        """Take the keys out of a rows event: `id 6 | flags 2 | extra of v2 | columns | bitmaps | images`."""
        self._check_open()
        fields = Fields(event)
        table = fields.number(6)
        fields.take(2)
        if event[4] in V2_ROWS:
            extra = fields.number(2)
            if extra < 2:
                raise fields.malformed(NO_LENGTH)
            fields.take(extra - 2)
        if table == DUMMY_TABLE:
            return
        if table not in self._tables:
            raise inside_transaction()
        _, followed = self._tables[table]
        if followed:
            keys = self._open.setdefault(followed, {})
            for key in _keys(fields, followed, event[4]):
                keys[key] = None


def _keys(fields: Fields, followed: FollowedTable, kind: int) -> Iterator[bytes]:
    """The raw keys of a rows event, from the number of its columns on; those before an update, and those after it."""
    columns = followed.table.columns
    if fields.lenenc() != len(columns):
        raise fields.malformed("has other columns than its table map")
    width = (len(columns) + 7) // 8
    wanted = sorted(set(followed.key))
    before = _present(fields.take(width), columns, wanted)
    after = _present(fields.take(width), columns, wanted) if kind in UPDATES else []
    if not wanted or len(wanted) > sum(cell.is_key for cell in before):
        raise lacks_key(followed.table)
    while fields.left:
        cells = _image(fields, before)
        key = [cells[column] for column in wanted]
        if None not in key:
            yield b"".join(filter(None, key))
        if kind not in UPDATES:
            continue
        if kind == EventType.PARTIAL_UPDATE_ROWS and fields.lenenc() & JSON_PARTS:
            fields.take((followed.table.json_columns + 7) // 8)
        cells |= _image(fields, after)
        key = [cells[column] for column in wanted]
        if None not in key:
            yield b"".join(filter(None, key))


class _Cell(NamedTuple):
    """A column that row images have, and how its cell is read."""

    column: int
    lead: int
    size: int
    is_key: bool


def _present(bitmap: bytes, columns: Sequence[ColumnFormat], wanted: Sequence[int]) -> list[_Cell]:
    """The columns that a bitmap has."""
    return [
        _Cell(number, column.lead, column.size, number in wanted)
        for number, column in enumerate(columns)
        if bitmap[number >> 3] >> (number & 7) & 1
    ]


def _image(fields: Fields, present: Sequence[_Cell]) -> dict[int, bytes | None]:
    """The key's cells of one row image by their columns, each with the length before it; None is NULL."""
    nulls = int.from_bytes(fields.take((len(present) + 7) // 8), "little")
    event, at, end = fields.event, fields.at, len(fields.event)
    cells: dict[int, bytes | None] = {}
    for column, lead, size, is_key in present:
        is_null, nulls = nulls & 1, nulls >> 1
        if is_null:
            if is_key:
                cells[column] = None
            continue
        start, at = at, at + lead
        at += int.from_bytes(event[start:at], "little") if lead else size
        if at > end:
            raise fields.malformed()
        if is_key:
            cells[column] = bytes(event[start:at])
    fields.at = at
    return cells
