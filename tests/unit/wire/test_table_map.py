"""TABLE_MAP events: columns, and what a server adds if it is set up so."""

import pytest

from loader.errors import SourceError
from loader.wire.table_map import ColumnFormat, ColumnType, FollowedTable, parse_table_map
from support.binlog_bytes import event, lenenc, table_map


def test_columns():
    """Each column has its type, its metadata, and how its cells are read."""
    types = [3, 15, 246, 254, 254, 252]
    found = parse_table_map(table_map(types, b"\x2c\1" + b"\x0a\2" + b"\xf7\1" + b"\xee\x50" + b"\2", name=b"orders"))

    assert (found.schema, found.table) == ("test", "orders")
    assert found.columns == (
        ColumnFormat(ColumnType.LONG, (0, 0), 0, 4),
        ColumnFormat(ColumnType.VARCHAR, (300, 0), 2, 0),
        ColumnFormat(ColumnType.DECIMAL, (10, 2), 0, 5),
        ColumnFormat(ColumnType.ENUM, (1, 0), 0, 1),
        ColumnFormat(ColumnType.STRING, (336, 0), 2, 0),
        ColumnFormat(ColumnType.BLOB, (2, 0), 2, 0),
    )
    assert (found.names, found.unsigned, found.primary_key) == ((), None, ())


def test_optional_metadata():
    """The names of columns, which numbers are unsigned, and the key; what else there is is passed over."""
    optional = (
        b"\1\1\xa0"  # of the three numbers, the first and the third
        b"\2\1\x3f"
        b"\4" + lenenc(12) + b"\1a\1b\2cc\4name"
        + b"\x08\2\2\0"
        + b"\x63\3any"
    )  # fmt: skip
    found = parse_table_map(table_map([3, 8, 15, 1], b"\x50\0", optional=optional))

    assert found.names == ("a", "b", "cc", "name")
    assert found.unsigned == {0, 3}
    assert found.primary_key == (2, 0)


def test_a_key_with_prefixes():
    """Of a key of prefixes, the columns are told."""
    assert parse_table_map(table_map([15, 3], b"\x50\0", optional=b"\x09\4\0\5\1\0")).primary_key == (0, 1)


def test_the_cells_of_a_key():
    """The cells of a raw key are told in the order of the key, without their lengths."""
    table = parse_table_map(table_map([15, 3, 15], b"\x2c\1\x50\0"))
    assert FollowedTable(table, (2, 0, 1)).cells(b"\2\0ab" + b"1234" + b"\1z") == (b"z", b"ab", b"1234")


WHOLE = table_map([3, 15], b"\x50\0", optional=b"\4\4\1a\1b")
BROKEN = {
    "a type that is not known": table_map([99]),
    "too little metadata": table_map([15], b"\x50"),
    "too much metadata": table_map([3], b"\x50"),
    "a BLOB without a length": table_map([252], b"\0"),
    "a BLOB of five bytes of length": table_map([252], b"\5"),
    "a DECIMAL with more digits behind the point than it has": table_map([246], b"\2\3"),
    "a name without an end": event(19, bytes(8) + b"\1ab\1t\0\0\0"),
    "names that are cut off": table_map([3, 3], optional=b"\4\2\1a"),
    "a key of columns that are none": table_map([3], optional=b"\x08\1\1"),
    "a key of prefixes that is cut off": table_map([3], optional=b"\x09\1\0"),
    "signs that are cut off": table_map([3], optional=b"\1\0"),
    "a field that is cut off": table_map([3], optional=b"\4\5\1a"),
    "too many columns": event(19, bytes(8) + b"\0\0\0\0" + lenenc(4097) + bytes(9000)),
}


@pytest.mark.parametrize("whole", BROKEN.values(), ids=BROKEN)
def test_a_broken_table_map(whole):
    """What does not add up is a transient error."""
    with pytest.raises(SourceError, match="binlog event of type 19 that") as error:
        parse_table_map(whole)
    assert error.value.transient


def test_every_cut():
    """A table map is an error wherever it is cut, but between its fields."""
    for size in range(19, len(WHOLE) - 6):
        with pytest.raises(SourceError, match="type 19"):
            parse_table_map(WHOLE[:size])
