"""TABLE_MAP events: which table the rows that follow are of, and how the cells of its row images are read; no I/O.

See https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Table__map__event.html.
"""

from enum import IntEnum

from loader.records import dataclass
from loader.wire.binlog import Fields

MOST_COLUMNS = 4096  # of a table, on both servers
DIGITS = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)  # bytes of so many decimal digits


class ColumnType(IntEnum):
    """The types of columns in a TABLE_MAP."""

    TINY = 1
    SHORT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    NULL = 6
    TIMESTAMP = 7
    LONGLONG = 8
    INT24 = 9
    DATE = 10
    TIME = 11
    DATETIME = 12
    YEAR = 13
    NEWDATE = 14
    VARCHAR = 15
    BIT = 16
    TIMESTAMP2 = 17
    DATETIME2 = 18
    TIME2 = 19
    BLOB_COMPRESSED = 140
    VARCHAR_COMPRESSED = 141
    VECTOR = 242
    JSON = 245
    DECIMAL = 246
    ENUM = 247
    SET = 248
    TINY_BLOB = 249
    MEDIUM_BLOB = 250
    LONG_BLOB = 251
    BLOB = 252
    STRING = 254
    GEOMETRY = 255


FIXED = {  # bytes of a cell, of types that have no metadata
    ColumnType.TINY: 1, ColumnType.YEAR: 1, ColumnType.SHORT: 2, ColumnType.INT24: 3, ColumnType.DATE: 3,
    ColumnType.NEWDATE: 3, ColumnType.TIME: 3, ColumnType.LONG: 4, ColumnType.TIMESTAMP: 4, ColumnType.LONGLONG: 8,
    ColumnType.DATETIME: 8, ColumnType.NULL: 0,
}  # fmt: skip
TIMES = {ColumnType.TIMESTAMP2: 4, ColumnType.DATETIME2: 5, ColumnType.TIME2: 3}  # bytes without a fraction
FLOATS = frozenset({ColumnType.FLOAT, ColumnType.DOUBLE})
BLOBS = frozenset({
    ColumnType.BLOB, ColumnType.JSON, ColumnType.GEOMETRY, ColumnType.VECTOR, ColumnType.BLOB_COMPRESSED,
    ColumnType.TINY_BLOB, ColumnType.MEDIUM_BLOB, ColumnType.LONG_BLOB,
})  # fmt: skip
VARCHARS = frozenset({ColumnType.VARCHAR, ColumnType.VARCHAR_COMPRESSED})
NUMERIC = frozenset({  # of which the SIGNEDNESS field has a bit each
    ColumnType.TINY, ColumnType.SHORT, ColumnType.INT24, ColumnType.LONG, ColumnType.LONGLONG, ColumnType.FLOAT,
    ColumnType.DOUBLE, ColumnType.DECIMAL, ColumnType.YEAR,
})  # fmt: skip
SIGNEDNESS, COLUMN_NAMES, SIMPLE_PRIMARY_KEY, PRIMARY_KEY_WITH_PREFIX = 1, 4, 8, 9


@dataclass(frozen=True, slots=True)
class ColumnFormat:
    """How a cell of a column is read: behind `lead` bytes of length, or, if `lead` is 0, of `size` bytes.

    `type` and `metadata` are those of the event, of ENUM, SET and CHAR columns as they are and not as they are sent.
    """

    type: ColumnType
    metadata: tuple[int, int]
    lead: int
    size: int


@dataclass(frozen=True, slots=True)
class TableMap:
    """What a TABLE_MAP says of a table. Columns are counted from 0.

    What servers send only if they are set up so (binlog_row_metadata) is empty if it is not told: the names of the
    columns, which of them are unsigned, and the primary key.
    """

    schema: str
    table: str
    columns: tuple[ColumnFormat, ...]
    names: tuple[str, ...] = ()
    unsigned: frozenset[int] | None = None
    primary_key: tuple[int, ...] = ()

    @property
    def json_columns(self) -> int:
        """How many columns may have a part of their value in a PARTIAL_UPDATE_ROWS event."""
        return sum(column.type is ColumnType.JSON for column in self.columns)


@dataclass(frozen=True, slots=True, eq=False)
class FollowedTable:
    """A table whose changes are wanted, and the columns whose cells make a raw key, counted from 0."""

    table: TableMap
    key: tuple[int, ...]

    def cells(self, raw: bytes) -> tuple[bytes, ...]:
        """The cells of a raw key, in the order of `key`, without the lengths before them."""
        found, at = {}, 0
        for column in sorted(set(self.key)):
            form = self.table.columns[column]
            size = int.from_bytes(raw[at : at + form.lead], "little") if form.lead else form.size
            at += form.lead
            found[column] = raw[at : at + size]
            at += size
        return tuple(found[column] for column in self.key)


def table_id_of(event: bytes) -> int:
    """The number by which a TABLE_MAP or a rows event refers to a table."""
    return Fields(event).number(6)


def parse_table_map(event: bytes) -> TableMap:
    """Read a TABLE_MAP event without its checksum; see the class for its parts, and `_column` for those of a column."""
    fields = Fields(event)
    fields.take(8)
    schema, table = _name(fields), _name(fields)
    count = fields.lenenc()
    if count > MOST_COLUMNS:
        raise fields.malformed(f"has {count} columns")
    types = fields.take(count)
    metadata = fields.part(fields.lenenc())
    columns = tuple(_column(kind, metadata) for kind in types)
    if metadata.left:
        raise fields.malformed("has more metadata than columns")
    fields.take((count + 7) // 8)  # which columns may be NULL
    optional: dict[int, Fields] = {}
    while fields.left:
        kind = fields.number(1)
        optional[kind] = fields.part(fields.lenenc())
    return TableMap(
        schema,
        table,
        columns,
        names=_names(optional.get(COLUMN_NAMES), count),
        unsigned=_unsigned(optional.get(SIGNEDNESS), columns),
        primary_key=_primary_key(optional, count),
    )


def _name(fields: Fields) -> str:
    name = fields.take(fields.number(1))
    if fields.number(1):
        raise fields.malformed("has a name without an end")
    return name.decode(errors="replace")


def _column(number: int, metadata: Fields) -> ColumnFormat:
    """The format of a column, from its type and the next bytes of the metadata."""
    try:
        kind = ColumnType(number)
    except ValueError:
        raise metadata.malformed(f"has a column of the unknown type {number}") from None
    if kind in FIXED:
        return ColumnFormat(kind, (0, 0), 0, FIXED[kind])
    first = metadata.number(1)
    if kind in FLOATS | TIMES.keys():
        return ColumnFormat(kind, (first, 0), 0, TIMES[kind] + (first + 1) // 2 if kind in TIMES else first)
    if kind in BLOBS:
        if not 1 <= first <= 4:
            raise metadata.malformed("has a column whose lengths are none")
        return ColumnFormat(kind, (first, 0), first, 0)
    second = metadata.number(1)
    if kind in VARCHARS:
        most = first | second << 8
        return ColumnFormat(kind, (most, 0), 1 if most < 256 else 2, 0)
    if kind is ColumnType.BIT:  # bits over, whole bytes
        return ColumnFormat(kind, (first, second), 0, second + (first > 0))
    return _decimal(first, second, metadata) if kind is ColumnType.DECIMAL else _string(first, second)


def _decimal(digits: int, scale: int, metadata: Fields) -> ColumnFormat:
    if scale > digits:
        raise metadata.malformed("has a DECIMAL that is none")
    return ColumnFormat(ColumnType.DECIMAL, (digits, scale), 0, decimal_size(digits - scale) + decimal_size(scale))


def _string(first: int, second: int) -> ColumnFormat:
    """The format of a CHAR, BINARY, ENUM or SET: the real type, and the most bytes, whose two high bits are in it."""
    if first in {ColumnType.ENUM, ColumnType.SET}:
        return ColumnFormat(ColumnType(first), (second, 0), 0, second)
    most = second | ((first & 0x30) ^ 0x30) << 4
    return ColumnFormat(ColumnType.STRING, (most, 0), 1 if most < 256 else 2, 0)


def decimal_size(digits: int) -> int:
    """Bytes of the digits on one side of a DECIMAL's point: four for nine digits, fewer for the rest."""
    return digits // 9 * 4 + DIGITS[digits % 9]


def _unsigned(field: Fields | None, columns: tuple[ColumnFormat, ...]) -> frozenset[int] | None:
    if field is None:
        return None
    numeric = [number for number, column in enumerate(columns) if column.type in NUMERIC]
    bits = field.take((len(numeric) + 7) // 8)
    return frozenset(column for bit, column in enumerate(numeric) if bits[bit >> 3] & 0x80 >> (bit & 7))


def _names(field: Fields | None, count: int) -> tuple[str, ...]:
    if field is None:
        return ()
    return tuple(field.take(field.lenenc()).decode(errors="replace") for _ in range(count))


def _primary_key(optional: dict[int, Fields], count: int) -> tuple[int, ...]:
    found = []
    simple, prefixed = optional.get(SIMPLE_PRIMARY_KEY), optional.get(PRIMARY_KEY_WITH_PREFIX)
    while simple and simple.left:
        found.append(simple.lenenc())
    while prefixed and prefixed.left:
        found.append(prefixed.lenenc())
        prefixed.lenenc()  # bytes of the prefix
    if any(column >= count for column in found) and simple:
        raise simple.malformed("has a key of columns that are none")
    return tuple(found)
