"""The texts of raw keys: edge values of each type, and what has no text. Real servers are asked in integration."""

import pytest

from loader.errors import PlanError, SourceError
from loader.model import Column
from loader.mysql.key_text import KeyText, mismatch, zone_of
from loader.wire.table_map import FollowedTable, parse_table_map
from support.binlog_bytes import lenenc, table_map


def column(kind, name="k", charset=None):
    return Column(name, kind.partition("(")[0].partition(" ")[0], kind, charset)


def text(number, metadata, kind, cell, charset=None, zone=None):
    """The text of a cell of a column."""
    followed = FollowedTable(parse_table_map(table_map([number], metadata)), (0,))
    (found,) = KeyText(followed, [column(kind, charset=charset)], zone).texts(cell)
    return found


@pytest.mark.parametrize(
    ("number", "metadata", "kind", "cell", "expected"),
    [
        (1, b"", "tinyint(4)", b"\xff", b"-1"),
        (1, b"", "tinyint(3) unsigned", b"\xff", b"255"),
        (3, b"", "int(8) unsigned zerofill", b"\7\0\0\0", b"00000007"),
        (3, b"", "int(3) unsigned zerofill", b"\xff\xff\0\0", b"65535"),
        (8, b"", "bigint", b"\0" * 7 + b"\x80", b"-9223372036854775808"),
        (13, b"", "year(4)", b"\0", b"0000"),
        (13, b"", "year(4)", b"\xff", b"2155"),
        (246, b"\5\2", "decimal(5,2)", b"\x80\0\0", b"0.00"),
        (246, b"\5\2", "decimal(5,2)", b"\x7f\xff\xf5", b"-0.10"),
        (246, b"\x0a\0", "decimal(10,0)", b"\x81\x0d\xfb\x38\xd2", b"1234567890"),
        (246, b"\2\2", "decimal(2,2)", b"\x8c", b"0.12"),
        (246, b"\x08\2", "decimal(8,2) unsigned zerofill", b"\x80\0\3\x0a", b"000003.10"),
        (10, b"", "date", b"\0\0\0", b"0000-00-00"),
        (18, b"\0", "datetime", b"\x80\0\0\0\0", b"0000-00-00 00:00:00"),
        (18, b"\3", "datetime(3)", b"\x99\xb2\xbb\x7e\xfb\x13\x88", b"2024-02-29 23:59:59.500"),
        (19, b"\0", "time", b"\x7f\xff\xff", b"-00:00:01"),
        (19, b"\0", "time", b"\x80\0\0", b"00:00:00"),
        (19, b"\1", "time(1)", b"\x7f\xff\xff\xf6", b"-00:00:00.1"),
        (16, b"\2\1", "bit(10)", b"\2\1", b"\2\1"),
    ],
)
def test_the_text_of_a_number_or_a_time(number, metadata, kind, cell, expected):
    """Each is written as MySQL does: signs, zeros in front, digits behind the point."""
    assert text(number, metadata, kind, cell) == expected


@pytest.mark.parametrize(
    ("metadata", "kind", "charset", "cell", "expected"),
    [
        (b"\x50\0", "varchar(20)", "utf8mb4", "é".encode(), "é".encode()),
        (b"\x14\0", "varchar(20)", "latin1", b"\x80\x81\xe9", "€\x81é".encode()),
        (b"\x50\0", "varchar(20)", "utf16", b"\xd8\x3d\xde\0", "😀".encode()),
        (b"\x50\0", "varchar(20)", "utf16le", b"a\0", b"a"),
        (b"\x14\0", "varbinary(20)", None, b"\xff\0", b"\xff\0"),
    ],
)
def test_the_text_of_a_text(metadata, kind, charset, cell, expected):
    """A text of any character set that is known becomes UTF-8; bytes stay."""
    assert text(15, metadata, kind, lenenc(len(cell)) + cell, charset) == expected


def test_the_text_of_padded_bytes():
    """The zeros at the end of a BINARY are not sent, and are there all the same."""
    assert text(254, b"\xfe\5", "binary(5)", b"\2ab") == b"ab\0\0\0"


def test_the_text_of_a_member():
    """An ENUM is sent as a number; 0 is a value that was no member."""
    for cell, expected in ((b"\0", b""), (b"\1", b"a"), (b"\2", b"it's")):
        assert text(254, b"\xf7\1", "enum('a','it''s')", cell) == expected


def test_the_text_of_a_timestamp():
    """A TIMESTAMP is written in the session's time zone; zero is no time."""
    for zone, expected in (("+00:00", b"1970-01-01 00:00:01"), ("-02:30", b"1969-12-31 21:30:01")):
        assert text(17, b"\0", "timestamp", b"\0\0\0\1", zone=zone_of(zone)) == expected
    assert text(17, b"\2", "timestamp(2)", b"\x65\xf0\0\0\x0c", zone=zone_of("Europe/Berlin")) == (
        b"2024-03-12 08:10:56.12"
    )
    assert text(17, b"\3", "timestamp(3)", bytes(6), zone=zone_of("+05:30")) == b"0000-00-00 00:00:00.000"


def test_the_order_of_a_key():
    """Texts come in the order of the key's columns, whatever that of the table's is."""
    followed = FollowedTable(parse_table_map(table_map([3, 15], b"\x50\0")), (1, 0))
    key_text = KeyText(followed, [column("varchar(20)", charset="utf8mb4"), column("int")])
    assert key_text.texts(b"\7\0\0\0\2ab") == (b"ab", b"7")


@pytest.mark.parametrize(
    ("number", "metadata", "kind", "charset"),
    [
        (4, b"\4", "float", None), (5, b"\x08", "double", None), (245, b"\4", "json", None),
        (252, b"\2", "text", "utf8mb4"), (254, b"\xf8\1", "set('a')", None), (255, b"\4", "point", None),
        (15, b"\x50\0", "varchar(20)", "gbk"), (7, b"", "timestamp", None), (12, b"", "datetime", None),
        (254, b"\xfe\x10", "uuid", None), (254, b"\xf7\1", "enum('a','?')", "utf8mb4"), (3, b"", "bigint", None),
        (246, b"\5\2", "decimal(6,2)", None), (18, b"\0", "datetime(3)", None),
    ],
)  # fmt: skip
def test_what_has_no_text(number, metadata, kind, charset):
    """A type whose text cannot be told, and one that is not the column's, is refused."""
    with pytest.raises(PlanError, match="the binlog does not tell the text of such a key"):
        text(number, metadata, kind, b"", charset)


@pytest.mark.parametrize(
    ("number", "metadata", "kind", "cell"),
    [
        (254, b"\xf7\1", "enum('a')", b"\2"),
        (246, b"\5\2", "decimal(5,2)", b"\xff\xff\x7f"),
    ],
)
def test_a_cell_that_is_none(number, metadata, kind, cell):
    """A cell that no value of its type has is an error."""
    with pytest.raises(SourceError, match="has no text"):
        text(number, metadata, kind, cell)


COLUMNS = [column("int(10) unsigned", "id"), column("varchar(20)", "v"), column("text", "t"), column("json", "j")]


@pytest.mark.parametrize(
    ("types", "metadata", "optional", "expected"),
    [
        ([3, 15, 252, 245], b"\x50\0\2\4", b"", ""),
        ([3, 15, 252, 245], b"\x50\0\2\4", b"\1\1\x80", ""),
        ([3, 15, 252, 245], b"\x50\0\2\4", b"\4\x09\2id\1v\1t\1j", ""),
        ([3, 15, 252], b"\x50\0\2", b"", "has 4 columns, and 3 in the binlog"),
        ([8, 15, 252, 245], b"\x50\0\2\4", b"", "column id is int(10) unsigned, and of another type in the binlog"),
        (
            [3, 15, 252, 245],
            b"\x50\0\2\4",
            b"\1\1\0",
            "column id is int(10) unsigned, and of another type in the binlog",
        ),
        ([3, 15, 252, 245], b"\x50\0\3\4", b"", "column t is text, and of another type in the binlog"),
        ([3, 15, 252, 245], b"\x50\0\2\4", b"\4\x09\2id\1w\1t\1j", "has other names of columns in the binlog"),
    ],
)
def test_a_table_that_was_changed(types, metadata, optional, expected):
    """A table map that does not fit the definition of its table is told, as far as the server says."""
    assert mismatch(parse_table_map(table_map(types, metadata, optional=optional)), COLUMNS) == expected
