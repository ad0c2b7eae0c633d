"""Raw keys out of the packets of a binlog: of whole transactions, by the plain scanner and by its compiled twin."""

import pytest

from loader.errors import PositionLost, SourceError
from loader.wire import _binlog, row_images
from loader.wire.packets import PACKET_MAX
from loader.wire.row_images import Group
from loader.wire.table_map import FollowedTable, parse_table_map
from support.binlog_bytes import (
    checksummed,
    event,
    gtid,
    image,
    mariadb_gtid,
    packet,
    query,
    rows,
    table_map,
    xid,
)

BOTH = {"plain": row_images.KeyScanner, "compiled": _binlog.KeyScanner}
INT, VARCHAR, JSON, STRING = 3, 15, 245, 254
UUID = b"u" * 16
ONE, TWO, THREE = (number.to_bytes(4, "little") for number in (1, 2, 3))
A_MAP = table_map([INT, VARCHAR], b"\x50\x00")  # an INT, and a VARCHAR of 80 bytes


@pytest.fixture(params=BOTH.values(), ids=BOTH)
def kind(request):
    """The plain scanner and its compiled twin: every rule here is one of both."""
    return request.param


def scanner(kind, defined=A_MAP, key=(0,), group=Group.BEGUN):
    """A scanner that knows a table, and is within a transaction; and the table."""
    one = kind()
    one.is_checksummed = False
    followed = FollowedTable(parse_table_map(defined), key)
    one.define(defined, followed)
    one.group = group
    return one, followed


def feed(one, *events):
    """Feed whole packets."""
    data = b"".join(map(packet, events))
    assert one.feed(data, 0, len(data)) == len(data)
    return one


def keys_of(one):
    """The keys of the transactions that ended."""
    (keys,) = one.drain()[0].values()
    return list(keys)


def test_a_transaction_of_mysql(kind):
    """GTID, BEGIN, table map, rows, XID: the keys and the GTID count once it has ended."""
    one, followed = scanner(kind, group=Group.CLOSED)
    feed(one, gtid(7), query(b"BEGIN"), A_MAP, rows(30, 2, [image(ONE, b"\1a"), image(TWO, None)]))

    assert (one.drain(), one.ended, one.group) == (({}, []), 0, Group.BEGUN)

    feed(one, xid(end=3000, time=5))
    assert (one.ended, one.offset, one.time, one.group) == (1, 3000, 5, Group.CLOSED)
    assert one.drain() == ({followed: {ONE: None, TWO: None}}, [(UUID, 7, 7)])
    assert one.drain() == ({}, [])


def test_a_transaction_of_mariadb(kind):
    """The GTID of MariaDB begins it too; its source is the domain and the server."""
    one, followed = scanner(kind, group=Group.CLOSED)
    feed(one, mariadb_gtid(42, domain=3, server=9), A_MAP, rows(23, 2, [image(ONE, b"\1a")]), xid())

    assert one.drain() == ({followed: {ONE: None}}, [(b"\3\0\0\0\x09\0\0\0", 42, 42)])


def test_a_standalone_group_of_mariadb(kind):
    """The flag of a group without COMMIT is seen: its statement ends it."""
    one, _ = scanner(kind, group=Group.CLOSED)
    feed(one, mariadb_gtid(flags=0x29))
    assert one.group == Group.OPENED
    feed(one, mariadb_gtid(flags=0x28))
    assert one.group == Group.BEGUN


def test_gtids_in_a_row_are_one_run(kind):
    """GTIDs of one source with numbers in a row are told together, others apart."""
    one, _ = scanner(kind, group=Group.CLOSED)
    for number, uuid in ((4, UUID), (5, UUID), (7, UUID), (8, b"v" * 16), (9, b"v" * 16)):
        feed(one, gtid(number, uuid), query(b"BEGIN"), xid())
    feed(one, gtid(kind=34), query(b"BEGIN"), xid())  # ANONYMOUS

    assert one.ended == 6
    assert one.drain()[1] == [(UUID, 4, 5), (UUID, 7, 7), (b"v" * 16, 8, 9)]


@pytest.mark.parametrize("number", [24, 31])
def test_an_update_has_two_keys(kind, number):
    """The keys of both images count; the same key once."""
    one, _ = scanner(kind)
    images = [image(ONE, b"\1a"), image(TWO, b"\1a"), image(THREE, b"\1a"), image(THREE, b"\1b")]
    feed(one, rows(number, 2, images), xid())

    assert keys_of(one) == [ONE, TWO, THREE]


@pytest.mark.parametrize("number", [25, 32])
def test_a_delete(kind, number):
    """A deleted row's key counts."""
    one, _ = scanner(kind)
    feed(one, rows(number, 2, [image(ONE, b"\1a")]), xid())

    assert keys_of(one) == [ONE]


def test_extra_data_of_a_rows_event(kind):
    """What stands between the header and the columns of a v2 event is passed over."""
    one, _ = scanner(kind)
    feed(one, rows(30, 2, [image(ONE, b"\1a")], extra=b"\0" * 300), xid())

    assert keys_of(one) == [ONE]


def test_a_key_of_several_columns(kind):
    """Its cells stand in the order of the table's columns, with their lengths; they are told in that of the key."""
    one, followed = scanner(kind, key=(1, 0))
    feed(one, rows(30, 2, [image(ONE, b"\2ab")]), xid())

    assert keys_of(one) == [ONE + b"\2ab"]
    assert followed.cells(ONE + b"\2ab") == (b"ab", ONE)


def test_an_after_image_with_a_part_of_the_key(kind):
    """Of a minimal image, the cells of the key that did not change are those before the update."""
    one, _ = scanner(kind, key=(0, 1))
    feed(one, rows(31, 2, [image(ONE, b"\1a"), image(b"\1b")], after=[1]), xid())

    assert keys_of(one) == [ONE + b"\1a", ONE + b"\1b"]


def test_an_after_image_without_the_key(kind):
    """Of a minimal image without a cell of the key, the key is the one before."""
    one, _ = scanner(kind)
    feed(one, rows(31, 2, [image(ONE), image(b"\1b")], present=[0], after=[1]), xid())

    assert keys_of(one) == [ONE]


def test_null_is_no_key(kind):
    """A row whose key is NULL has no hash, and no key here; the other image of its update may have one."""
    one, _ = scanner(kind, key=(1,))
    images = [image(ONE, None), image(ONE, b"\1a"), image(TWO, b"\1b"), image(TWO, None), image(ONE, None)]
    feed(one, rows(31, 2, [*images, image(ONE, None)]), xid())

    assert keys_of(one) == [b"\1a", b"\1b"]


def test_images_without_the_key(kind):
    """Rows that lack a column of the key stop the stream, with the setting that is to blame."""
    one, _ = scanner(kind, key=(1,))

    with pytest.raises(SourceError, match=r"test\.t: .* binlog_row_image") as error:
        feed(one, rows(31, 2, [image(ONE), image(b"\1b")], present=[0], after=[1]))
    assert not error.value.transient


def test_parts_of_json(kind):
    """An after image with parts of JSON values has a bitmap more, of as many JSON columns as the table has."""
    both = table_map([INT, JSON, JSON], b"\4\4")
    one, _ = scanner(kind, both)
    images = [image(ONE), b"\1\3", image(TWO, b"\2\0\0\0xy", None), image(THREE), b"\0", image(THREE, None, None)]
    feed(one, rows(39, 3, images, present=[0]), xid())

    assert keys_of(one) == [ONE, TWO, THREE]


@pytest.mark.parametrize(
    ("types", "metadata", "cell"),
    [
        ([1], b"", b"a"), ([13], b"", b"a"), ([2], b"", b"ab"), ([9], b"", b"abc"), ([10], b"", b"abc"),
        ([3], b"", b"abcd"), ([7], b"", b"abcd"), ([8], b"", b"abcdefgh"), ([12], b"", b"abcdefgh"), ([6], b"", b""),
        ([4], b"\4", b"abcd"), ([5], b"\10", b"abcdefgh"), ([17], b"\0", b"abcd"), ([17], b"\3", b"abcdef"),
        ([18], b"\6", b"abcdefgh"), ([19], b"\1", b"abcd"), ([246], b"\5\2", b"abc"), ([246], b"\x41\x1e", b"a" * 30),
        ([16], b"\2\1", b"ab"), ([16], b"\0\1", b"a"), ([15], b"\xff\0", b"\3abc"), ([15], b"\0\1", b"\3\0abc"),
        ([141], b"\x0a\0", b"\1a"), ([252], b"\1", b"\1a"), ([252], b"\2", b"\1\0a"), ([245], b"\4", b"\1\0\0\0a"),
        ([255], b"\4", b"\1\0\0\0a"), ([242], b"\4", b"\1\0\0\0a"), ([140], b"\3", b"\1\0\0a"),
        ([254], b"\xf7\1", b"a"), ([254], b"\xf7\2", b"ab"), ([254], b"\xf8\3", b"abc"), ([254], b"\xfe\x50", b"\1a"),
        ([254], b"\xee\x50", b"\1\0a"),  # a CHAR of 336 bytes: two bits of the size are in the type
    ],
)  # fmt: skip
def test_the_size_of_a_cell(kind, types, metadata, cell):
    """A cell of each type is passed over as long as it is: the key is found behind it."""
    one, _ = scanner(kind, table_map([*types, INT], metadata), key=(1,))
    feed(one, rows(30, 2, [image(cell, ONE), image(None, TWO)]), xid())

    assert keys_of(one) == [ONE, TWO]


def test_more_than_eight_columns(kind):
    """Bitmaps of several bytes: the ninth column's bit is in the second."""
    one, _ = scanner(kind, table_map([INT] * 9), key=(8,))
    feed(one, rows(30, 9, [image(ONE, *[None] * 7, TWO)]), rows(30, 9, [image(THREE)], present=[8]), xid())

    assert keys_of(one) == [TWO, THREE]


def test_rows_of_other_tables(kind):
    """Rows of a table that is not followed are passed over, whatever is in them, and so is the dummy of a statement."""
    one, _ = scanner(kind)
    one.define(table_map([INT], table=6), None)
    feed(one, rows(30, 9, [b"any"], table=6), rows(30, 0, [], table=0xFFFFFF), xid())

    assert one.drain()[0] == {}


def test_a_table_map_that_is_new(kind):
    """The scanner stops at a table map that it does not know, or that says something else than before."""
    one, _ = scanner(kind)
    for unknown in (table_map([INT], table=6), table_map([INT, INT])):
        data = packet(A_MAP) + packet(unknown)
        assert one.feed(data, 0, len(data)) == len(packet(A_MAP))
        assert one.stopped


@pytest.mark.parametrize(
    "other",
    [
        query(b"COMMIT"), query(b"ALTER TABLE t ADD x INT"), event(15, b"\4\0"), event(4, b"\4"), event(38, b""),
        event(40, b""), event(42, b""), event(165, b""), event(166, b""), event(27, b"binlog.1"), event(99, b""),
    ],
)  # fmt: skip
def test_events_of_others(kind, other):
    """The scanner stops at events that are not for it, and is then asked again from there."""
    one, _ = scanner(kind)
    data = packet(query(b"BEGIN")) + packet(other)
    assert one.feed(data, 0, len(data)) == len(packet(query(b"BEGIN")))
    assert one.stopped
    assert not one.take(other)


@pytest.mark.parametrize("number", [3, 5, 13, 14, 28, 29, 35, 36, 37, 160, 161, 163, 164])
def test_events_that_say_nothing(kind, number):
    """Events that change no row are passed over."""
    feed(scanner(kind)[0], event(number, b"anything"))


@pytest.mark.parametrize("status", [b"\xff\x10\x04#HY000no", b"\xfe\0\0", b"", b"\0", b"\0short"])
def test_packets_without_an_event(kind, status):
    """An error, the end, and what is too short for an event is left to the caller."""
    one, _ = scanner(kind)
    data = len(status).to_bytes(3, "little") + b"\0" + status
    assert one.feed(data, 0, len(data)) == 0
    assert one.stopped


def test_packets_that_arrive_in_pieces(kind):
    """Wherever the bytes end, the scanner says how many the packet at hand needs, as far as it knows."""
    data = b"".join(map(packet, (gtid(), query(b"BEGIN"), A_MAP, rows(30, 2, [image(ONE, b"\1a")]), xid())))
    one, _ = scanner(kind, group=Group.CLOSED)
    start = 0
    for end in range(len(data) + 1):
        start = one.feed(data, start, end)
        size = int.from_bytes(data[start : start + 3], "little")
        assert (one.wanted, one.stopped) == (4 + size if end - start >= 4 else 4, False)
    assert start == len(data)
    assert keys_of(one) == [ONE]


def test_a_packet_that_is_continued(kind):
    """An event of 16 MiB and more is left to the caller as soon as its length is there."""
    one, _ = scanner(kind)
    data = PACKET_MAX.to_bytes(3, "little") + b"\0"
    assert (one.feed(data, 0, 4), one.stopped) == (0, True)


def test_checksums(kind):
    """Events with checksums are read as those without."""
    one, _ = scanner(kind)
    one.is_checksummed = True
    feed(one, *map(checksummed, (A_MAP, rows(30, 2, [image(ONE, b"\1" + b"x")]), xid())))

    assert keys_of(one) == [ONE]


@pytest.mark.parametrize("at", range(24, 60, 5))
def test_a_checksum_that_is_wrong(kind, at):
    """A byte that is another one is a transient error."""
    one, _ = scanner(kind)
    one.is_checksummed = True
    data = bytearray(packet(checksummed(query(b"BEGIN" * 5))))
    data[at] ^= 1

    with pytest.raises(SourceError, match="type 2 that does not fit its checksum") as error:
        one.feed(data, 0, len(data))
    assert error.value.transient


def test_a_size_that_is_wrong(kind):
    """An event that is not as long as it says is a transient error."""
    one, _ = scanner(kind)
    data = packet(xid() + b"\0")

    with pytest.raises(SourceError, match="type 16 that is 28 bytes long and says 27") as error:
        one.feed(data, 0, len(data))
    assert error.value.transient


@pytest.mark.parametrize("whole", [rows(30, 2, [image(ONE, b"\1a")]), xid()])
def test_from_inside_a_transaction(kind, whole):
    """Rows and ends without a beginning mean that the position is not one between transactions."""
    one, _ = scanner(kind, group=Group.CLOSED)
    with pytest.raises(PositionLost, match="the middle of a transaction"):
        feed(one, whole)


def test_rows_without_a_table_map(kind):
    """So do rows of a table that was not named, or that was named in the file before."""
    one, _ = scanner(kind)
    with pytest.raises(PositionLost):
        feed(one, rows(30, 2, [], table=77))
    one.forget()
    with pytest.raises(PositionLost):
        feed(one, rows(30, 2, [image(ONE, b"\1a")]))


MALFORMED = {
    "a row is cut off": rows(30, 2, [image(ONE, b"\1a")[:-1]]),
    "a cell's length is cut off": rows(30, 2, [image(ONE, b"")]),
    "a fixed cell is cut off": rows(30, 2, [b"\0\1\2"]),
    "a row is missing": rows(31, 2, [image(ONE, b"\1a")]),
    "fewer columns than in the table map": rows(30, 1, [image(ONE)]),
    "more columns than in the table map": rows(30, 300, [image(ONE)]),
    "a number that is none": event(23, b"\5\0\0\0\0\0\1\0\xfb"),
    "bitmaps are cut off": event(24, b"\5\0\0\0\0\0\1\0\2\xff"),
    "extra data is cut off": event(30, b"\5\0\0\0\0\0\1\0\x10\0"),
    "extra data of no length": event(30, b"\5\0\0\0\0\0\1\0\1\0\2\xff"),
    "no table": event(23, b"\5\0\0"),
    "no flags": event(23, b"\5\0\0\0\0\0\1"),
    "options are cut off": rows(39, 2, [image(ONE, b"\1a")]),
    "a GTID is cut off": gtid()[:-20],
    "a GTID of MariaDB is cut off": mariadb_gtid()[:-10],
    "a table map is cut off": event(19, b"\5\0\0"),
}


@pytest.mark.parametrize("whole", MALFORMED.values(), ids=MALFORMED)
def test_malformed_events(kind, whole):
    """What does not add up is a transient error, and nothing is read past the end."""
    one, _ = scanner(kind)
    with pytest.raises(SourceError, match=f"binlog event of type {whole[4]} that") as error:
        one.take(whole[:9] + len(whole).to_bytes(4, "little") + whole[13:])
    assert error.value.transient


def test_a_header_that_is_cut_off(kind):
    """Less than a header is no event."""
    with pytest.raises(SourceError, match="ends too early"):
        scanner(kind)[0].take(b"123")


def test_ends_behind_4_gib(kind):
    """An event has 32 bits of its end: the scanner knows the rest, as an end is never before the last one."""
    one = kind(offset=0xFFFFFF00)
    for end, offset in ((0xFFFFFF80, 0xFFFFFF80), (0x10, 0x1_0000_0010), (0, 0x1_0000_0010), (8, 0x2_0000_0008)):
        one.group = Group.BEGUN
        one.take(xid(end=end))
        assert one.offset == offset


def test_the_end_of_what_an_event_came_in(kind):
    """Within a compressed transaction an event has no end of its own: it is told."""
    one, _ = scanner(kind)
    one.take(xid(end=0), 5555)
    assert one.offset == 5555


def test_a_transaction_that_was_cut_off(kind):
    """A transaction without an end does not count; its keys go with the next, as nothing is lost by reading them."""
    one, followed = scanner(kind, group=Group.CLOSED)
    feed(one, gtid(3), query(b"BEGIN"), rows(30, 2, [image(ONE, b"\1a")]), gtid(4), query(b"BEGIN"), xid())

    assert one.drain() == ({followed: {ONE: None}}, [(UUID, 4, 4)])


def test_keys_are_held_back(kind):
    """Keys of the open transaction can be taken from it, and given to another."""
    one, followed = scanner(kind)
    feed(one, rows(30, 2, [image(ONE, b"\1a")]))
    assert one.take_open() == {followed: {ONE: None}}
    one.close(500, 2)
    assert one.drain() == ({}, [])

    one.open(UUID + b"tag", 8, begun=True)
    one.put(followed, [TWO, ONE])
    one.close(900, 3)
    assert (one.offset, one.time) == (900, 3)
    assert one.drain() == ({followed: {TWO: None, ONE: None}}, [(UUID + b"tag", 8, 8)])
