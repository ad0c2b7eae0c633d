"""Events of a binlog, byte by byte: what each says, and that a broken one is an error."""

import struct
import zlib

import pytest
import zstandard

from loader.errors import SourceError
from loader.wire import binlog, compression
from loader.wire.binlog import EventType, Fields, Format, Gtid, Header, Query, Rotate
from support.binlog_bytes import checksummed, event, gtid, image, lenenc, mariadb_gtid, query, rows, table_map, xid

UUID = bytes(range(200, 216))
TAGGED = bytes.fromhex("027600 0000 02") + b"".join(
    bytes([byte << 1]) if byte < 128 else (byte << 2 | 1).to_bytes(2, "little") for byte in UUID
)
FDE = event(15, struct.pack("<H50sIB", 4, b"10.11.6-MariaDB", 0, 19) + bytes(40) + b"\1" + b"crc!")


def payload(inner, compression=0, size=None):
    """A compressed transaction with its fields."""
    data = zstandard.compress(inner) if compression == 0 else inner
    size = len(inner) if size is None else size
    way = lenenc(compression)
    fields = b"\2" + lenenc(len(way)) + way + b"\3" + lenenc(len(lenenc(size))) + lenenc(size)
    return event(40, b"\1" + lenenc(len(lenenc(len(data)))) + lenenc(len(data)) + fields + b"\0" + data)


def deflated(kind, before, plain, size=None):
    """A compressed event of MariaDB."""
    size = len(plain) if size is None else size
    return event(kind, before + b"\x82" + size.to_bytes(2) + zlib.compress(plain))


def test_a_header():
    """The header has the time, type, server, size, end and flags."""
    whole = event(16, b"12345678", end=77, time=5, server=9, flags=0x80)
    assert binlog.header_of(whole) == Header(5, 16, 9, 27, 77, 0x80)


def test_unwrapping():
    """The checksum is taken off; a rotation shows itself whether it has one, a format description keeps it."""
    assert binlog.unwrap(checksummed(xid()), is_checksummed=True) == checksummed(xid())[:-4]
    assert binlog.unwrap(xid(), is_checksummed=False) == xid()
    rotation = event(4, struct.pack("<Q", 4) + b"binlog.000002")
    for is_checksummed in (True, False):
        assert binlog.unwrap(rotation, is_checksummed=is_checksummed) == rotation
        assert binlog.unwrap(checksummed(rotation), is_checksummed=is_checksummed) == checksummed(rotation)[:-4]
        assert binlog.unwrap(FDE, is_checksummed=is_checksummed) == FDE


@pytest.mark.parametrize("whole", [b"", b"123", xid()[:18], xid()[:-1], xid() + b"x"])
def test_an_event_of_another_size(whole):
    """Bytes that are not as many as the event says are a transient error."""
    with pytest.raises(SourceError, match="MySQL sent a binlog event of type") as error:
        binlog.unwrap(whole, is_checksummed=False)
    assert error.value.transient


def test_an_event_too_short_for_its_checksum():
    """A header alone cannot have a checksum."""
    with pytest.raises(SourceError, match="does not fit its checksum"):
        binlog.unwrap(event(16, b"")[:19], is_checksummed=True)


def test_a_format_description():
    """It names the server, and says whether checksums follow."""
    assert binlog.parse_format(FDE) == Format("10.11.6-MariaDB", is_checksummed=True)
    assert binlog.parse_format(FDE[:-5] + b"\0" + FDE[-4:]) == Format("10.11.6-MariaDB", is_checksummed=False)


def test_a_rotation():
    """It names the next file, and the offset."""
    assert binlog.parse_rotate(event(4, struct.pack("<Q", 1 << 33) + b"b.000002")) == Rotate("b.000002", 1 << 33)


def test_a_statement():
    """A QUERY has the default database, and the text behind its status variables."""
    assert binlog.parse_query(query(b"DROP TABLE t", b"shop")) == Query(b"shop", b"DROP TABLE t")
    assert binlog.parse_query(query(b"", b"")) == Query(b"", b"")


def test_gtids():
    """The GTIDs of both servers: their source, and their number."""
    assert binlog.parse_gtid(gtid(7, UUID)) == Gtid(UUID, 7)
    assert binlog.parse_gtid(gtid(7, UUID, kind=34)) == Gtid(b"", 7)
    assert binlog.parse_gtid(mariadb_gtid(42, 1, 3, 0x29)) == Gtid(b"\1\0\0\0\3\0\0\0", 42, is_standalone=True)
    assert binlog.parse_gtid(mariadb_gtid(42, 1, 3, 0x28)) == Gtid(b"\1\0\0\0\3\0\0\0", 42, is_standalone=False)


def test_a_tagged_gtid():
    """The tag is a part of the source; what follows it is not read."""
    assert binlog.parse_gtid(event(42, TAGGED + b"\4\4\6\nmytag" + b"\x10\xff")) == Gtid(UUID + b"mytag", 1)
    assert binlog.parse_gtid(event(42, TAGGED + b"\4\4" + b"\x10\xff")) == Gtid(UUID, 1)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x00", 0), (b"\xfe", 127), (b"\x01\x02", 128), (b"\xfd\xff", (1 << 14) - 1), (b"\x03\0\2", 1 << 14),
        (b"\x7f" + b"\xff" * 7, (1 << 56) - 1), (b"\xff" + b"\xff" * 8, (1 << 64) - 1),
    ],
)  # fmt: skip
def test_numbers_of_the_serialization(data, value):
    """The first byte's trailing 1-bits count the bytes that follow."""
    assert Fields(data, 0, 0).varint() == value


def test_signed_numbers_of_the_serialization():
    """Signed numbers are zigzag."""
    assert [Fields(bytes([value << 1]), 0, 0).signed_varint() for value in range(5)] == [0, -1, 1, -2, 2]


def test_a_prepared_transaction():
    """The id in the event is the one in the statement that ends it."""
    prepared = event(38, b"\0" + struct.pack("<III", 1, 2, 1) + b"\xabcd")
    assert binlog.parse_xa_prepare(prepared) == ("X'ab63',X'64',1", False)
    assert binlog.parse_xa_prepare(event(38, b"\1" + bytes(12))) == ("X'',X'',0", True)
    assert binlog.xid_of(b"XA COMMIT X'AB63',X'64',1") == "X'ab63',X'64',1"
    assert binlog.xid_of(b"xa rollback x'',x'', 0") == "X'',X'',0"
    assert binlog.xid_of(b"XA COMMIT 'a'") == ""


def test_an_incident():
    """It has what the server says."""
    assert binlog.parse_incident(event(26, b"\1\0\4lost")) == "lost"
    assert binlog.parse_incident(event(26, b"\1\0")) == ""


def test_a_compressed_transaction():
    """Its events are there as they were, whatever is between the pieces that are decompressed."""
    events = [query(b"BEGIN"), event(19, bytes(300_000)), rows(30, 1, []), xid(end=0)]
    for kind in (0, 255):
        found = compression.plain_events(payload(b"".join(events), kind))
        assert list(found) == events


def test_compressed_events_of_mariadb():
    """A compressed statement and compressed rows are the plain ones."""
    statement = query(b"UPDATE t")
    assert list(compression.plain_events(deflated(165, statement[19 : -len(b"UPDATE t")], b"UPDATE t"))) == [
        statement[:13] + event(2, b"")[13:17] + statement[17:]
    ]
    for kind, plain, extra in ((166, 23, b""), (167, 24, b""), (169, 30, b"xyz"), (170, 31, b""), (171, 32, b"")):
        whole = rows(plain, 9, [image(b"1" * 40)], extra=extra)
        data = image(b"1" * 40)
        assert list(compression.plain_events(deflated(kind, whole[19 : -len(data)], data))) == [whole]


def test_events_that_are_not_compressed():
    """All others are left as they are."""
    assert compression.plain_events(xid()) is None


BROKEN = {
    "a position is cut off": (binlog.parse_rotate, event(4, b"1234567")),
    "a version is cut off": (binlog.parse_format, event(15, b"\4\0" + b"x" * 49)),
    "headers of another size": (binlog.parse_format, FDE[:75] + b"\x14" + FDE[76:]),
    "a checksum that is not known": (binlog.parse_format, FDE[:-5] + b"\2" + FDE[-4:]),
    "a statement is cut off": (binlog.parse_query, query(b"")[:-3]),
    "a database without an end": (binlog.parse_query, event(2, bytes(8) + b"\0" + bytes(4) + b"x")),
    "status variables are cut off": (binlog.parse_query, event(2, bytes(11) + b"\xff\xff")),
    "a GTID is cut off": (binlog.parse_gtid, gtid()[:40]),
    "a GTID of MariaDB is cut off": (binlog.parse_gtid, mariadb_gtid()[:30]),
    "a tagged GTID is cut off": (binlog.parse_gtid, event(42, TAGGED + b"\4\4\6\nmyt")),
    "a tagged GTID without a number": (binlog.parse_gtid, event(42, TAGGED)),
    "a tagged GTID with fields that are not known": (binlog.parse_gtid, event(42, b"\2\2\x40")),
    "an XA id is cut off": (binlog.parse_xa_prepare, event(38, b"\0" + struct.pack("<III", 1, 9, 1) + b"abc")),
    "an XA id that is too long": (binlog.parse_xa_prepare, event(38, b"\0" + struct.pack("<III", 1, 999, 1))),
    "a message is cut off": (binlog.parse_incident, event(26, b"\1\0\x09lost")),
    "an event within is too short": (compression.plain_events, payload(bytes(30))),
    "an event within is cut off": (compression.plain_events, payload(xid()[:-1])),
    "more within than it says": (compression.plain_events, payload(xid(), size=26)),
    "what is no zstd": (compression.plain_events, event(40, b"\0no zstd")),
    "a payload that is cut off": (compression.plain_events, payload(xid() * 99)[:-5]),
    "fields without an end": (compression.plain_events, event(40, b"\2\1\0")),
    "rows with less within": (compression.plain_events, deflated(166, bytes(8) + b"\1\1", b"12", size=3)),
    "rows with more within": (compression.plain_events, deflated(166, bytes(8) + b"\1\1", b"12", size=1)),
    "what is no zlib": (compression.plain_events, event(166, bytes(8) + b"\1\1\x81\5no zlib")),
    "a way that is not known": (compression.plain_events, event(166, bytes(8) + b"\1\1\x92\5\5abc")),
    "extra data of no length": (compression.plain_events, event(169, bytes(10))),
}  # fmt: skip


@pytest.mark.parametrize(("parse", "whole"), BROKEN.values(), ids=BROKEN)
def test_a_broken_event(parse, whole):
    """What does not add up is a transient error about the event."""
    with pytest.raises(SourceError, match="MySQL sent a binlog event of type") as error:
        list(parse(whole))
    assert error.value.transient


def test_a_compression_that_is_not_known():
    """A transaction compressed otherwise is an error that no retry helps."""
    with pytest.raises(SourceError, match=r"not known \(7\)") as error:
        list(compression.plain_events(payload(b"", 7)))
    assert not error.value.transient


@pytest.mark.parametrize("parse", [binlog.parse_query, binlog.parse_gtid, binlog.parse_xa_prepare])
def test_every_cut(parse):
    """However short an event is, it is an error or a value, never another exception."""
    for whole in (query(b"SELECT"), gtid(), mariadb_gtid(), event(42, TAGGED + b"\4\4\6\nmytag"), table_map([3])):
        for size in range(5, len(whole)):
            try:
                parse(whole[:size])
            except SourceError as error:
                assert error.transient  # noqa: PT017


def test_the_types():
    """Types have the numbers of the servers' sources: those that a reader is likely to confuse."""
    numbers = {EventType.GTID: 33, EventType.MARIADB_GTID: 162, EventType.XA_PREPARE: 38, EventType.TAGGED_GTID: 42}
    assert {kind: int(kind) for kind in numbers} == numbers
