"""From the cells of a raw key to the texts that a SELECT would give, of rows that are gone too. Pure.

How cells are stored: https://dev.mysql.com/doc/dev/mysql-server/latest/field__types_8h.html and
https://dev.mysql.com/doc/internals/en/date-and-time-data-type-representation.html.
"""

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from loader.errors import PlanError, SourceError
from loader.model import Column
from loader.mysql.forms import INTEGERS, members_of, width_of
from loader.wire.table_map import ColumnFormat, ColumnType, FollowedTable, TableMap, decimal_size

INTEGER_CODES = {  # of `struct`
    ColumnType.TINY: "b", ColumnType.SHORT: "h", ColumnType.LONG: "i", ColumnType.LONGLONG: "q",
}  # fmt: skip
ToText = Callable[[bytes], bytes]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_TIMESTAMP = b"0000-00-00 00:00:00"
CODECS = {"ucs2": "utf-16-be", "utf16": "utf-16-be", "utf16le": "utf-16-le", "utf32": "utf-32-be"}
AS_IT_IS = frozenset({"utf8mb4", "utf8mb3", "utf8", "ascii"})
LATIN1 = tuple(
    (bytes([byte]).decode("cp1252", errors="ignore") or chr(byte)).encode() for byte in range(256)
)  # MySQL's: cp1252, whose gaps are the control characters of the same number
TYPES = {  # of a column's cells, by its type's name
    "tinyint": ColumnType.TINY, "smallint": ColumnType.SHORT, "mediumint": ColumnType.INT24, "int": ColumnType.LONG,
    "bigint": ColumnType.LONGLONG, "decimal": ColumnType.DECIMAL, "float": ColumnType.FLOAT,
    "double": ColumnType.DOUBLE, "bit": ColumnType.BIT, "year": ColumnType.YEAR, "date": ColumnType.DATE,
    "time": ColumnType.TIME2, "datetime": ColumnType.DATETIME2, "timestamp": ColumnType.TIMESTAMP2,
    "char": ColumnType.STRING, "binary": ColumnType.STRING, "varchar": ColumnType.VARCHAR,
    "varbinary": ColumnType.VARCHAR, "enum": ColumnType.ENUM, "set": ColumnType.SET, "json": ColumnType.JSON,
    "tinytext": ColumnType.BLOB, "tinyblob": ColumnType.BLOB, "text": ColumnType.BLOB, "blob": ColumnType.BLOB,
    "mediumtext": ColumnType.BLOB, "mediumblob": ColumnType.BLOB, "longtext": ColumnType.BLOB,
    "longblob": ColumnType.BLOB,
}  # fmt: skip
LEADS = {"tiny": 1, "medium": 3, "long": 4}  # bytes of length before a BLOB or TEXT; 2 for the plain ones
OTHER_FORMS = {  # of the same types: dates as MySQL 5.5 stored them, and MariaDB's compressed columns
    ColumnType.TIMESTAMP2: ColumnType.TIMESTAMP, ColumnType.DATETIME2: ColumnType.DATETIME,
    ColumnType.TIME2: ColumnType.TIME, ColumnType.VARCHAR: ColumnType.VARCHAR_COMPRESSED,
    ColumnType.BLOB: ColumnType.BLOB_COMPRESSED,
}  # fmt: skip


def mismatch(table: TableMap, columns: Sequence[Column]) -> str:
    """How a TABLE_MAP differs from the definition of its table, all columns in order; empty if it fits."""
    if len(table.columns) != len(columns):
        return f"has {len(columns)} columns, and {len(table.columns)} in the binlog"
    if table.names and list(table.names) != [column.name for column in columns]:
        return "has other names of columns in the binlog"
    for number, (form, column) in enumerate(zip(table.columns, columns, strict=True)):
        is_unsigned = column.type in INTEGERS and "unsigned" in column.full_type
        tells_sign = table.unsigned is not None and column.type in INTEGERS
        if not _fits(form, column) or (tells_sign and is_unsigned != (number in (table.unsigned or ()))):
            return f"column {column.name} is {column.full_type}, and of another type in the binlog"
    return ""


def _fits(form: ColumnFormat, column: Column) -> bool:
    """Whether the cells of a form are those of a column; of a type that is not known, any."""
    wanted = TYPES.get(column.type)
    if wanted is None or form.type is OTHER_FORMS.get(wanted):
        return True
    if wanted is ColumnType.BLOB and form.lead != next(
        (size for word, size in LEADS.items() if column.type.startswith(word)), 2
    ):
        return False
    return form.type is wanted and form.metadata == _metadata(column, form)


def _metadata(column: Column, form: ColumnFormat) -> tuple[int, int]:
    """The digits, or bits, of a column as its form should have them; of other types, what it has."""
    size, _, scale = column.full_type.partition("(")[2].partition(")")[0].partition(",")
    match column.type:
        case "decimal":
            return int(size), int(scale or 0)
        case "time" | "datetime" | "timestamp":
            return int(size or 0), 0
        case "bit":
            return int(size or 1) % 8, int(size or 1) // 8
    return form.metadata


def zone_of(name: str) -> tzinfo:
    """The time zone that `SET time_zone` takes by that name: an offset, or a zone of the IANA database."""
    if name[:1] in {"+", "-"}:
        hours, _, minutes = name[1:].partition(":")
        return timezone((-1 if name[0] == "-" else 1) * timedelta(hours=int(hours), minutes=int(minutes or 0)))
    return ZoneInfo(name)


class KeyText:
    """The texts of a followed table's raw keys, as the text protocol has them in UTF-8.

    `columns` are those of its key, in the order of `FollowedTable.key`; `zone` is the session's time zone, which only
    TIMESTAMP needs. Raises `PlanError` for a column whose text cannot be told from its cell.
    """

    def __init__(self, followed: FollowedTable, columns: Sequence[Column], zone: tzinfo | None = None) -> None:
        self._followed = followed
        self._to_text = [
            _to_text(followed.table.columns[number], column, zone)
            for number, column in zip(followed.key, columns, strict=True)
        ]
        code = INTEGER_CODES.get(followed.table.columns[followed.key[0]].type, "") if len(columns) == 1 else ""
        self._code = code.upper() if "unsigned" in columns[0].full_type else code
        self._width = columns[0].zerofill_width or 0

    def each(self, keys: Collection[bytes]) -> list[tuple[bytes, ...]]:
        """The texts of many raw keys, sorted; those of one integer, the usual key, are unpacked together."""
        if not self._code:
            return sorted(map(self.texts, keys))
        numbers = sorted(struct.unpack(f"<{len(keys)}{self._code}", b"".join(keys)))
        return [(b"%0*d" % (self._width, number),) for number in numbers]

    def texts(self, key: bytes) -> tuple[bytes, ...]:
        """The text of each column of a raw key; a `SourceError` if a cell has no text in its type."""
        try:
            return tuple(to_text(cell) for to_text, cell in zip(self._to_text, self._followed.cells(key), strict=True))
        except (ValueError, OverflowError, IndexError) as error:
            table = self._followed.table
            raise SourceError(
                f"{table.schema}.{table.table}: the binlog has a key that has no text ({error})"
            ) from error


def _to_text(form: ColumnFormat, column: Column, zone: tzinfo | None) -> ToText:
    """The function from a cell to its text."""
    maker = _MAKERS.get(form.type)
    if maker is None or form.type is not TYPES.get(column.type) or not _fits(form, column):
        raise _refused(column)
    return maker(form, column, zone)


def check_column(column: Column, zone: tzinfo | None = None) -> None:
    """Raise a `PlanError` if the text of a column cannot be told from its cells in the binlog."""
    kind = TYPES.get(column.type)
    maker = _MAKERS.get(kind) if kind else None
    if maker is None or kind is None:
        raise _refused(column)
    maker(ColumnFormat(kind, (0, 0), 0, 0), column, zone)


def _refused(column: Column) -> PlanError:
    return PlanError(f"column {column.name} is {column.full_type}: the binlog does not tell the text of such a key")


def _integer(column: Column) -> ToText:
    width, signed = column.zerofill_width or 0, "unsigned" not in column.full_type
    return lambda cell: b"%0*d" % (width, int.from_bytes(cell, "little", signed=signed))


def _decimal(metadata: tuple[int, int], *, is_zerofill: bool) -> ToText:
    """Of a DECIMAL: its digits in groups of nine, big-endian, the first bit set for a sum that is not negative."""
    precision, scale = metadata
    whole = precision - scale
    before = decimal_size(whole)

    def to_text(cell: bytes) -> bytes:
        is_negative = not cell[0] & 0x80
        plain = bytes([cell[0] ^ 0x80, *cell[1:]])
        if is_negative:
            plain = bytes(byte ^ 0xFF for byte in plain)
        digits = _digits(plain[:before], whole, leading=True)
        text = digits if is_zerofill else digits.lstrip(b"0")
        fraction = b"." + _digits(plain[before:], scale, leading=False) if scale else b""
        return (b"-" if is_negative else b"") + (text or b"0") + fraction

    return to_text


def _digits(groups: bytes, count: int, *, leading: bool) -> bytes:
    """So many decimal digits; a group of fewer than nine stands first if `leading`, else last."""
    sizes = [9] * (count // 9)
    sizes[0 if leading else len(sizes) : 0 if leading else len(sizes)] = [count % 9] * (count % 9 > 0)
    texts, at = [], 0
    for size in sizes:
        width = decimal_size(size)
        text = b"%0*d" % (size, int.from_bytes(groups[at : at + width]))
        if len(text) > size:
            raise ValueError("a DECIMAL has a group of too many digits")
        texts.append(text)
        at += width
    return b"".join(texts)


def _string(column: Column) -> ToText:
    if column.type == "binary":  # its zeros at the end are not sent
        size = width_of(column) or 1
        return lambda cell: cell.ljust(size, b"\0")
    if column.type == "varbinary" or column.charset in AS_IT_IS:
        return bytes
    if column.charset == "latin1":
        return lambda cell: b"".join([LATIN1[byte] for byte in cell])
    codec = CODECS.get(column.charset or "")
    if codec is None:
        raise _refused(column)
    return lambda cell: cell.decode(codec).encode()


def _enum(column: Column) -> ToText:
    members = (b"", *members_of(column))  # 0 is a value that was not a member
    if b"?" in b"".join(members):  # so information_schema has a sign of four bytes
        raise _refused(column)
    return lambda cell: members[int.from_bytes(cell, "little")]


def _date(cell: bytes) -> bytes:
    value = int.from_bytes(cell, "little")
    return b"%04d-%02d-%02d" % (value >> 9, value >> 5 & 15, value & 31)


def _year(cell: bytes) -> bytes:
    return b"%04d" % (1900 + cell[0] if cell[0] else 0)


def _datetime(cell: bytes) -> bytes:
    """Of the five bytes of a DATETIME, big-endian: a sign, year * 13 + month, day, hour, minute, second."""
    value = int.from_bytes(cell) - (1 << 39)
    months, day = value >> 22, value >> 17 & 31
    return b"%04d-%02d-%02d %02d:%02d:%02d" % (
        months // 13,
        months % 13,
        day,
        value >> 12 & 31,
        value >> 6 & 63,
        value & 63,
    )


def _fraction(cell: bytes, digits: int) -> bytes:
    """Of the bytes behind a time, big-endian: two digits each."""
    return b"." + (b"%0*d" % (2 * len(cell), int.from_bytes(cell)))[:digits] if digits else b""


def _timestamp(digits: int, column: Column, zone: tzinfo | None) -> ToText:
    if zone is None:
        raise PlanError(f"column {column.name} is a TIMESTAMP: name a time zone in source.time_zone")

    def to_text(cell: bytes) -> bytes:
        seconds = int.from_bytes(cell[:4])
        moment = (EPOCH + timedelta(seconds=seconds)).astimezone(zone)
        text = moment.strftime("%Y-%m-%d %H:%M:%S").encode() if seconds else NO_TIMESTAMP
        return text + _fraction(cell[4:], digits)

    return to_text


def _time(cell: bytes, digits: int) -> bytes:
    """Of a TIME, big-endian: a sign, hour, minute, second and fraction as one number, negative ones as complements."""
    more = 8 * (len(cell) - 3)
    value = int.from_bytes(cell) - (1 << 23 + more)
    sign, value = (b"-", -value) if value < 0 else (b"", value)
    seconds, fraction = value >> more, value & (1 << more) - 1
    text = b"%02d:%02d:%02d" % (seconds >> 12 & 1023, seconds >> 6 & 63, seconds & 63)
    return sign + text + _fraction(fraction.to_bytes(len(cell) - 3), digits)


_MAKERS: Mapping[ColumnType, Callable[[ColumnFormat, Column, tzinfo | None], ToText]] = {
    ColumnType.TINY: lambda _, column, __: _integer(column),
    ColumnType.SHORT: lambda _, column, __: _integer(column),
    ColumnType.INT24: lambda _, column, __: _integer(column),
    ColumnType.LONG: lambda _, column, __: _integer(column),
    ColumnType.LONGLONG: lambda _, column, __: _integer(column),
    ColumnType.DECIMAL: lambda form, column, _: _decimal(form.metadata, is_zerofill="zerofill" in column.full_type),
    ColumnType.STRING: lambda _, column, __: _string(column),
    ColumnType.VARCHAR: lambda _, column, __: _string(column),
    ColumnType.TIMESTAMP2: lambda form, column, zone: _timestamp(form.metadata[0], column, zone),
    ColumnType.DATETIME2: lambda form, _, __: lambda cell: _datetime(cell[:5]) + _fraction(cell[5:], form.metadata[0]),
    ColumnType.TIME2: lambda form, _, __: lambda cell: _time(cell, form.metadata[0]),
    ColumnType.ENUM: lambda _, column, __: _enum(column),
    ColumnType.BIT: lambda _, __, ___: bytes,
    ColumnType.DATE: lambda _, __, ___: _date,
    ColumnType.YEAR: lambda _, __, ___: _year,
}
