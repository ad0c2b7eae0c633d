"""The two wire protocols, byte for byte: row packets in, commands out."""

import random
import time
from array import array
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.errors import SourceError, TargetError
from loader.model import Layout, Reject
from loader.wire import _codec, comparer, resp
from loader.wire import encoder as frames
from loader.wire.encoder import ROOM
from loader.wire.packets import PACKET_MAX
from loader.wire.resp import pack
from loader.wire.slots import SLOTS, slot_of

EOF_PACKET = b"\x05\0\0\x09\xfe\0\0\2\0"
ERR_PACKET = b"\x17\0\0\x09\xff\x25\x05#70100Query execution"
STU = Layout(cells=3, key=(b"stu_", 0), fields=((b"sid", 0), (b"sname", 1), (b"address", 2)))


def cell(value):
    """One length-encoded cell."""
    if value is None:
        return b"\xfb"
    size = len(value)
    if size < 0xFB:
        return bytes([size]) + value
    if size < 1 << 16:
        return b"\xfc" + size.to_bytes(2, "little") + value
    if size < 1 << 24:
        return b"\xfd" + size.to_bytes(3, "little") + value
    return b"\xfe" + size.to_bytes(8, "little") + value


def packets(*cells):
    """One row as the server sends it, in as many packets as its size needs."""
    payload = b"".join(map(cell, cells))
    parts = []
    for number, start in enumerate(range(0, len(payload) + 1, PACKET_MAX)):
        part = payload[start : start + PACKET_MAX]
        parts.append(len(part).to_bytes(3, "little") + bytes([number % 256]) + part)
    return b"".join(parts)


BOTH = {"plain": frames.Encoder, "compiled": _codec.Encoder}


@pytest.fixture(params=BOTH.values(), ids=BOTH)
def kind(request):
    """The plain encoder and its compiled twin: every rule here is one of both."""
    return request.param


def encoder(kind, layout, owners=None, nodes=1):
    return kind(layout, owners or array("H", [0] * SLOTS), nodes)


def encode(kind, layout, *rows, owners=None, nodes=1):
    """Feed whole rows and the closing packet; return the encoder and each node's commands."""
    data = b"".join(packets(*row) for row in rows) + EOF_PACKET
    one = encoder(kind, layout, owners, nodes)
    position = 0
    taken = [b""] * nodes
    while not one.ended:
        position = one.feed(bytearray(data), position, len(data))
        for node in one.ready(1):
            batch = one.take(node)
            taken[node] += bytes(batch.data) + (bytes(batch.then.data) if batch.then else b"")
    assert data[position:] == EOF_PACKET
    return one, taken


def test_the_seeds_first_row(kind):
    """A row becomes one HMSET, exactly these bytes."""
    one, (data,) = encode(
        kind,
        STU,
        (
            b"00000001",
            "张三丰".encode(),
            "湖南长沙".encode(),
        ),
    )
    assert data == (
        b"*8\r\n$5\r\nHMSET\r\n$12\r\nstu_00000001\r\n"
        b"$3\r\nsid\r\n$8\r\n00000001\r\n"
        b"$5\r\nsname\r\n$9\r\n\xe5\xbc\xa0\xe4\xb8\x89\xe4\xb8\xb0\r\n"
        b"$7\r\naddress\r\n$12\r\n\xe6\xb9\x96\xe5\x8d\x97\xe9\x95\xbf\xe6\xb2\x99\r\n"
    )
    assert (one.rows, one.rejects) == (1, [])


def test_null_leaves_the_field_out_and_deletes_it(kind):
    """`nulls: omit`: HMSET of what is there, then HDEL of what is not."""
    _, (data,) = encode(kind, STU, (b"1", None, b""))
    assert data == (
        b"*6\r\n$5\r\nHMSET\r\n$5\r\nstu_1\r\n$3\r\nsid\r\n$1\r\n1\r\n$7\r\naddress\r\n$0\r\n\r\n"
        b"*3\r\n$4\r\nHDEL\r\n$5\r\nstu_1\r\n$5\r\nsname\r\n"
    )


def test_null_as_empty(kind):
    """`nulls: empty`: NULL is the empty string."""
    layout = Layout(STU.cells, STU.key, STU.fields, nulls_empty=True)
    _, (data,) = encode(kind, layout, (b"1", None, b"x"))
    assert data == resp.pack([b"HMSET", b"stu_1", b"sid", b"1", b"sname", b"", b"address", b"x"])


def test_a_row_of_nulls_only_deletes(kind):
    """With no field left there is no hash, and no EXPIRE either."""
    layout = Layout(cells=2, key=(b"k", 0), fields=((b"a", 1),), ttl=60)
    one, (data,) = encode(kind, layout, (b"1", None))
    assert data == resp.pack([b"HDEL", b"k1", b"a"])
    assert one.rows == 1


def test_a_null_in_the_key_is_a_reject(kind):
    """A row without a key is counted, named and not sent."""
    layout = Layout(cells=2, key=(b"k_", 0, b"_", 1), fields=((b"a", 0),))
    one, (data,) = encode(kind, layout, (b"1", None), (b"2", b"x"))
    assert data == resp.pack([b"HMSET", b"k_2_x", b"a", b"2"])
    assert (one.rows, [reject.key for reject in one.rejects]) == (2, [b"k_1_NULL"])


@pytest.mark.parametrize(
    ("row", "reject"),
    [
        ((b"12345", b"", b"x"), Reject(b"k_12345", "the key is 7 bytes long, and Redis takes 6 at most")),
        (
            (b"12345" * 99, b"", b"x"),
            Reject((b"k_" + b"12345" * 99)[:200], "the key is 497 bytes long, and Redis takes 6 at most"),
        ),
        ((b"1", b"1234567", b"x"), Reject(b"k_1", "field a b is 7 bytes long, and Redis takes 6 at most")),
        ((b"1", b"1" * 1234, b"x"), Reject(b"k_1", "field a b is 1,234 bytes long, and Redis takes 6 at most")),
        ((b"1", None, b"1234567"), Reject(b"k_1", "field \ufffd is 7 bytes long, and Redis takes 6 at most")),
        ((None, b"1234567", b"x"), Reject(b"k_NULL", "a column of the key is NULL")),
    ],
)
def test_a_row_that_is_too_long_for_redis_is_a_reject(kind, row, reject):
    """Redis would end the connection: the row is counted, named by what is too long, and not sent; others are."""
    layout = Layout(cells=3, key=(b"k_", 0), fields=((b"a b", 1), (b"\xff", 2)), ttl=60, most=6)
    one, (data,) = encode(kind, layout, (b"1234", b"123456", b"x"), row, (b"2", None, b"y"))
    assert [words[:2] for words in resp.split_commands(data)] == [
        [b"HMSET", b"k_1234"],
        [b"HMSET", b"k_2"],
        [b"HDEL", b"k_2"],
        [b"EXPIRE", b"k_1234"],
        [b"EXPIRE", b"k_2"],
    ]
    assert (one.rows, one.rejects) == (3, [reject])


def test_only_what_is_written_can_be_too_long(kind):
    """A long cell that is no part of the hash rejects nothing; what Redis takes by default is half a gigabyte."""
    layout = Layout(cells=2, key=(b"k", 0), fields=((b"a", 0),), most=6)
    one, (data,) = encode(kind, layout, (b"1", b"1" * 300))
    assert (list(resp.split_commands(data)), one.rejects) == ([[b"HMSET", b"k1", b"a", b"1"]], [])
    assert STU.most == 536_870_912


def test_ttl_is_the_same_for_the_same_key_and_within_its_jitter(kind):
    """EXPIRE follows; its jitter comes from the key alone and reaches both ends."""
    layout = Layout(cells=1, key=(b"k", 0), fields=((b"a", 0),), ttl=1000, ttl_jitter=100)
    rows = [(b"%d" % number,) for number in range(3000)]
    _, (first,) = encode(kind, layout, *rows)
    _, (second,) = encode(kind, layout, *rows)
    assert first == second
    ttls = [int(words[2]) for words in resp.split_commands(first) if words[0] == b"EXPIRE"]
    assert len(ttls) == 3000
    assert (min(ttls), max(ttls)) == (900, 1100)


def test_rows_go_to_the_owner_of_their_slot(kind):
    """The slot is that of the whole key, hash tag included."""
    owners = array("H", [slot % 7 for slot in range(SLOTS)])
    layout = Layout(cells=1, key=(b"u:", 0), fields=((b"a", 0),))
    values = [b"%d" % number for number in range(500)] + [b"{tag}%d" % number for number in range(5)] + [b"{", b"{}x"]
    _, taken = encode(kind, layout, *[(value,) for value in values], owners=owners, nodes=7)
    for node, data in enumerate(taken):
        expected = [b"u:" + value for value in values if owners[slot_of(b"u:" + value)] == node]
        assert [words[1] for words in resp.split_commands(data)] == expected


@pytest.mark.parametrize("size", [0, 250, 251, 65535, 65536, PACKET_MAX - 5, PACKET_MAX - 4, PACKET_MAX, 20_000_000])
def test_every_length_of_a_cell(kind, size):
    """A cell of any size arrives whole, also over the seams of packets of 16 MiB."""
    layout = Layout(cells=2, key=(b"k", 0), fields=((b"v", 1),))
    value = bytes(range(256)) * (size // 256 + 1)
    _, (data,) = encode(kind, layout, (b"1", value[:size]), (b"2", b"next"))
    rows = [words[3] for words in resp.split_commands(data)]
    assert rows == [value[:size], b"next"]


def test_a_row_split_anywhere_is_taken_when_it_is_whole(kind):
    """However the stream is cut, the same commands come out, and `wanted` tells how much a row needs."""
    data = packets(b"1", b"a" * 300, None) + packets(b"2", b"", b"y") + EOF_PACKET
    whole = bytes(encode(kind, STU, (b"1", b"a" * 300, None), (b"2", b"", b"y"))[1][0])
    for cut in range(len(data)):
        one = encoder(kind, STU)
        position = one.feed(data, 0, cut)
        assert position + one.wanted > cut or one.rows == 2
        assert one.feed(data, position, len(data)) == len(data) - len(EOF_PACKET)
        assert bytes(one.take(0).data) == whole


@pytest.mark.parametrize("last", [EOF_PACKET, ERR_PACKET])
def test_the_closing_packet_is_left(kind, last):
    """EOF and ERR end the result and are not consumed: PyMySQL reads them."""
    data = packets(b"1", b"a", b"b") + last
    one = encoder(kind, STU)
    assert one.feed(data, 0, len(data)) == len(data) - len(last)
    assert one.ended


def test_feeding_stops_when_a_node_has_enough(kind):
    """A node's commands are handed over from `ROOM` bytes on, so memory stays bounded."""
    data = packets(b"1", b"x" * 50_000, b"") * 20 + EOF_PACKET
    one = encoder(kind, STU)
    position = one.feed(data, 0, len(data))
    assert position < len(data) - len(EOF_PACKET)
    assert one.ready() == [0]
    assert ROOM <= len(one.take(0).data) < ROOM + 51_000
    assert one.feed(data, position, len(data)) > position


def test_a_row_over_several_packets_fills_a_node_too(kind):
    """Behind a row of 16 MiB and more, feeding stops as behind any other that a node has enough of."""
    long = packets(b"1", b"x" * PACKET_MAX, b"")
    data = long + packets(b"2", b"y", b"") + EOF_PACKET
    one = encoder(kind, STU)
    assert one.feed(data, 0, len(data)) == len(long)
    assert (one.rows, one.ready(), one.ended) == (1, [0], False)
    assert one.feed(data, len(long), len(data)) == len(long)
    assert next(resp.split_commands(one.take(0).data))[1] == b"stu_1"
    assert one.feed(data, len(long), len(data)) == len(data) - len(EOF_PACKET)
    assert list(resp.split_commands(one.take(0).data)) == [
        [b"HMSET", b"stu_2", b"sid", b"2", b"sname", b"y", b"address", b""]
    ]


@pytest.mark.parametrize("first", [0xFF, 0xFE])
def test_a_packet_of_16_mib_may_end_the_result(kind, first):
    """An ERR packet is one whatever its length; what begins like EOF is, at this length, a cell."""
    payload = bytes([first]) + b"\x25\x05#70100" + b"x" * PACKET_MAX
    parts = payload[:PACKET_MAX], payload[PACKET_MAX:]
    data = packets(b"1", b"a", b"b")
    start = len(data)
    data += b"".join(len(part).to_bytes(3, "little") + b"\0" + part for part in parts)
    one = encoder(kind, STU)
    assert one.feed(data, 0, start + PACKET_MAX) == start
    assert not one.ended
    assert start + one.wanted > start + PACKET_MAX
    if first == 0xFF:
        assert one.feed(data, start, len(data)) == start
        assert (one.rows, one.ended) == (1, True)
    else:
        with pytest.raises(SourceError, match="do not add up"):
            one.feed(data, start, len(data))


@pytest.mark.parametrize(
    "payload",
    [
        b"\x011\x01a",  # a cell too few
        b"\x011\x01a\x01b\x01c",  # a cell too many
        b"\x011\x01a\x05b",  # runs over the end
        b"\x011\x01a\xfc\xff",  # its length runs over the end
        b"\x011\x01a\xfd\xff\xff",
        b"\x011\x01a\xfe\xff\xff\xff\xff\xff\xff\xff\xff",  # as long as a length can be
        b"\x011\x01a\xff",  # no length at all
    ],
)
def test_a_malformed_packet_is_an_error(kind, payload):
    """Cells that do not add up fail the chunk; it is worth another try on a new connection."""
    data = len(payload).to_bytes(3, "little") + b"\0" + payload
    one = encoder(kind, STU)
    with pytest.raises(SourceError, match="do not add up") as caught:
        one.feed(data, 0, len(data))
    assert caught.value.transient


WORDS = st.lists(st.binary(max_size=40), min_size=2, max_size=6)


@given(st.lists(WORDS, max_size=20))
def test_commands_split_as_they_were_packed(commands):
    """`split_commands` is the inverse of `pack`."""
    assert list(resp.split_commands(b"".join(map(resp.pack, commands)))) == commands


def test_commands_are_numbered_by_row():
    """A row's commands stand together; the next row may even have the same key."""
    names = [b"HMSET", b"HDEL", b"HMSET", b"HDEL", b"HDEL", b"HMSET", b"HMSET", b"HDEL", b"HDEL"]
    keys = [b"a", b"a", b"a", b"a", b"a", b"b", b"c", b"d", b"d"]
    batch = [[name, key, b""] for name, key in zip(names, keys, strict=True)]
    assert resp.number_rows(batch) == [0, 0, 1, 1, 2, 3, 4, 5, 6]


VALUES = st.none() | st.binary(max_size=300)
LAYOUTS = st.builds(
    Layout,
    cells=st.just(4),
    key=st.lists(st.sampled_from([0, 1]) | st.sampled_from([b"u:", b"{", b"}", b"x"]), max_size=3).map(
        lambda pieces: (b"k", 0, *pieces)
    ),
    fields=st.lists(st.tuples(st.binary(max_size=8), st.integers(0, 3)), min_size=1, max_size=6).map(tuple),
    nulls_empty=st.booleans(),
    ttl=st.none() | st.integers(1, 10**7),
    ttl_jitter=st.just(0),
    checks_ttl=st.booleans(),
)


@given(st.sampled_from(list(BOTH)), LAYOUTS, st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), max_size=20))
def test_what_is_encoded_is_what_a_plain_reading_says(kind, layout, rows):
    """For any rows, the commands are those that the words of the design ask for."""
    one, (data,) = encode(BOTH[kind], layout, *rows)
    expected, expires = [], []
    for row in rows:
        pieces = [piece if isinstance(piece, bytes) else row[piece] for piece in layout.key]
        if None in pieces:
            continue
        key = b"".join(pieces)
        cells = [(name, b"" if layout.nulls_empty and row[at] is None else row[at]) for name, at in layout.fields]
        there = [word for pair in cells if pair[1] is not None for word in pair]
        gone = [name for name, value in cells if value is None]
        expected += [[b"HMSET", key, *there]] * bool(there) + [[b"HDEL", key, *gone]] * bool(gone)
        expires += [[b"EXPIRE", key, str(layout.ttl).encode()]] * bool(there and layout.ttl)
        expires += [[b"TTL", key]] * bool(there and not layout.ttl and layout.checks_ttl)
    expected += expires
    assert list(resp.split_commands(data)) == expected
    assert one.rows == len(rows)


@given(kind=st.sampled_from(list(BOTH)), data=st.binary(max_size=60), rows=st.integers(0, 3))
def test_arbitrary_bytes_are_rows_or_an_error(kind, data, rows):
    """Whatever is in the buffer, an encoder takes whole rows, or says that it is malformed; it never reads beyond."""
    stream = packets(b"1", b"2", b"3") * rows + data
    one = encoder(BOTH[kind], STU)
    try:
        position = one.feed(stream, 0, len(stream))
    except SourceError:
        return
    assert 0 <= position <= len(stream)
    assert one.rows >= rows


@given(LAYOUTS, st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), max_size=20), st.data())
def test_the_twins_agree_byte_for_byte(layout, rows, data):
    """For any rows, cut anywhere, over any nodes, with any jitter, both encoders make the same bytes and counts."""
    most = data.draw(st.just(layout.most) | st.integers(0, 400))
    layout = replace(layout, ttl_jitter=data.draw(st.integers(0, (layout.ttl or 1) - 1)), most=most)
    nodes = data.draw(st.integers(1, 5))
    owners = array("H", [slot % nodes for slot in range(SLOTS)])
    stream = b"".join(packets(*row) for row in rows) + EOF_PACKET
    cuts = [*sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4))), len(stream)]
    seen = []
    for kind in BOTH.values():
        one = kind(layout, owners, nodes)
        position = 0
        steps = []
        for cut in cuts:
            position = one.feed(stream, position, max(cut, position))
            steps.append((position, one.rows, one.ended, one.rejects[:]))
        batches = [one.take(node) for node in range(nodes)]
        flat = [
            (bytes(b.data), b.rows, b.replies, b.then and (bytes(b.then.data), b.then.replies, b.then.expects))
            for b in batches
        ]
        seen.append((steps, flat))
    assert seen[0] == seen[1]


REPLIES = st.lists(
    st.sampled_from([b"+OK", b":0", b":12", b":-1", b":-", b":", b"+O", b"-ERR x", b"$-1", b"+OKAY", b""])
)


@given(REPLIES, st.sampled_from([b"\r\n", b"\n"]))
def test_replies_are_counted_alike(replies, ending):
    """Both count plain replies and refuse all else."""
    data = b"".join(reply + ending for reply in replies)
    plain = ending == b"\r\n" and all(reply in {b"+OK", b":0", b":12", b":-1"} for reply in replies)
    expected = len(replies) if plain or not replies else -1
    assert (resp.count_replies(data), _codec.count_replies(data)) == (expected, expected)


PLAIN = SimpleNamespace(Comparer=comparer.Comparer, SlotChecksums=comparer.SlotChecksums, reads=resp.reads)
SIDES = {"plain": PLAIN, "compiled": _codec}


@pytest.fixture(params=SIDES.values(), ids=SIDES)
def side(request):
    """All that looks at hashes, plain or compiled."""
    return request.param


def reply(*words):
    """What HGETALL replies with these fields and values."""
    return b"*%d\r\n" % len(words) + pack(list(words))[len(b"*%d\r\n" % len(words)) :]


def compare(side, batch, replies, tally=None):
    """A comparer that was given all replies at once."""
    data = b"".join(map(pack, batch))
    one = side.Comparer(data, len(set(resp.number_rows(batch))), tally)
    assert one.feed(replies, 0, len(replies)) == len(replies)
    return one


MOVED = b"-MOVED 1 127.0.0.1:7000\r\n"
AB = [b"HMSET", b"k", b"a", b"1", b"b", b"2"]
ONLY_A = [b"HMSET", b"k", b"a", b"1"]
NOT_B = [b"HDEL", b"k", b"b"]
TWICE = [b"HMSET", b"k", b"a", b"1", b"b", b"2", b"a", b"3"]
NEXT = [b"HMSET", b"l", b"a", b"1"]


def test_each_row_is_read(side):
    """One HGETALL a row, whatever its commands are, in their order."""
    batch = [AB, ONLY_A, NOT_B, NOT_B, NEXT]
    expected = b"*2\r\n$7\r\nHGETALL\r\n$1\r\nk\r\n" * 3 + b"*2\r\n$7\r\nHGETALL\r\n$1\r\nl\r\n"
    assert side.reads(b"".join(map(pack, batch))) == expected
    assert side.reads(b"") == b""


@pytest.mark.parametrize(
    ("batch", "got", "equal"),
    [
        ([AB], reply(b"a", b"1", b"b", b"2"), True),
        ([AB], reply(b"b", b"2", b"a", b"1"), True),
        ([AB], reply(b"b", b"1", b"a", b"2"), False),
        ([AB], reply(b"a", b"1", b"b", b"3"), False),
        ([AB], reply(b"a", b"1", b"b", b"22"), False),
        ([AB], reply(b"a", b"1", b"c", b"2"), False),
        ([AB], reply(b"a", b"1"), False),
        ([AB], reply(b"a", b"1", b"b", b"2", b"c", b"3"), False),
        ([AB], reply(b"a", b"1", b"a", b"1"), False),
        ([AB], reply(), False),
        ([AB], MOVED, False),
        ([AB], b"-\r\n", False),
        ([ONLY_A, NOT_B], reply(b"a", b"1"), True),
        ([ONLY_A, NOT_B], reply(b"a", b"1", b"b", b""), False),
        ([NOT_B], reply(), True),
        ([NOT_B], reply(b"b", b"2"), False),
        ([NOT_B], reply(b"a", b"1"), False),
        ([NOT_B], MOVED, False),
        ([TWICE], reply(b"b", b"2", b"a", b"3"), True),
        ([TWICE], reply(b"b", b"2", b"a", b"1"), False),
        ([TWICE], reply(b"a", b"1", b"a", b"3", b"b", b"2"), False),
        ([[b"HMSET", b"", b"", b""]], reply(b"", b""), True),
        ([[b"HMSET", b"", b"", b""]], reply(b"", b"\r\n"), False),
    ],
)
def test_a_hash_has_the_fields_of_its_row_and_no_other(side, batch, got, equal):
    """Fields in any order; a field too many, too few or with another value is a difference, told as it came."""
    tally, expected = side.SlotChecksums(), side.SlotChecksums()
    one = compare(side, [*batch, NEXT], got + reply(b"a", b"1"), tally)
    assert one.differences == ([] if equal else [(pack(batch[0]), got)])
    there = [batch[0][1]] * (got[:1] == b"*" and got != reply()) + [b"l"]
    expected.add(there)
    assert (one.left, one.wanted, one.present, tally.differing(expected)) == (0, 0, len(there), [])


@pytest.mark.parametrize("order", ["as sent", "backwards", "shuffled", "without some"])
def test_a_thousand_fields_in_any_order(side, order):
    """Many rows of many fields; the names need not be those of the row before."""
    chance = random.Random(1)
    batch, replies = [], []
    for number in range(40):
        pairs = [(b"column_%d" % at, b"%d" % (at * number)) for at in range(1000)]
        if order == "without some":
            pairs = chance.sample(pairs, 1000 - number // 2)
        batch.append([b"HMSET", b"k%d" % number, *(word for pair in pairs for word in pair)])
        if order == "backwards":
            pairs.reverse()
        elif order != "as sent":
            chance.shuffle(pairs)
        if number % 10 == 9:
            pairs[number] = (pairs[number][0], b"other")
        replies.append(reply(*(word for pair in pairs for word in pair)))
    one = compare(side, batch, b"".join(replies))
    assert one.differences == [(pack(batch[number]), replies[number]) for number in (9, 19, 29, 39)]
    assert (one.left, one.present) == (0, 40)


@pytest.mark.parametrize("got", [reply(b"a", b"1", b"b", b"2"), reply(b"b", b"2", b"a", b"1" * 99), MOVED, reply()])
def test_a_reply_split_anywhere_is_compared_when_it_is_whole(side, got):
    """However replies are cut, the same comes of them, and `wanted` tells how much the next needs."""
    replies = got + reply(b"a", b"1")
    whole = compare(side, [AB, NEXT], replies)
    for cut in range(len(replies)):
        one = side.Comparer(pack(AB) + pack(NEXT), 2)
        position = one.feed(replies, 0, cut)
        assert cut < position + one.wanted <= len(replies)
        assert one.feed(replies, position, len(replies)) == len(replies)
        assert (one.differences, one.left) == (whole.differences, 0)


def test_a_reply_that_comes_in_many_pieces_is_walked_once(side):
    """A large reply is not walked anew with every piece, wherever the buffer is by then."""
    words = [b"%d" % number for number in range(40_000)]
    data = pack([b"HMSET", b"k", *words])
    got = reply(*words[2:], *words[:2])
    one = side.Comparer(data, 1)
    started = time.process_time()
    for end in range(0, len(got), 100):
        assert one.feed(bytearray(got[:end]) + b"*", 0, end) == 0
    assert one.feed(got, 0, len(got)) == len(got)
    assert (one.differences, one.left) == ([], 0)
    assert time.process_time() - started < 5


def test_the_replies_to_the_next_batch_are_left(side):
    """What stands behind a batch's last reply is another's; one that is fed to it for all that is an error."""
    got = reply(b"a", b"1", b"b", b"2")
    one = side.Comparer(pack(AB), 1)
    assert one.feed(got * 2, 0, 2 * len(got)) == len(got)
    assert one.left == 0
    assert one.feed(got, len(got), len(got)) == len(got)
    with pytest.raises(TargetError, match="more replies") as caught:
        one.feed(got * 2, len(got), len(got) + 1)
    assert caught.value.transient


@pytest.mark.parametrize(
    "got",
    [
        b"+OK\r\n",
        b":1\r\n",
        b"$1\r\na\r\n",
        b"%1\r\n$1\r\na\r\n$1\r\n1\r\n",  # a map of RESP3
        b"\r\n",
        b"*-1\r\n",
        b"*1\r\n$1\r\na\r\n",  # a name without a value
        b"*\r\n",
        b"*+2\r\n",
        b"* 2\r\n",
        b"*2 \r\n",
        b"*2\n",
        b"*2\rx",
        b"*02\r\n$1\r\na\r\n$1\r\n1\r\n",
        b"*2\r\n$01\r\na\r\n$1\r\n1\r\n",
        b"*2\r\n$00\r\n\r\n$1\r\n1\r\n",
        b"*99999999999",
        b"*2\r\n*0\r\n",
        b"*2\r\n:1\r\n",
        b"*2\r\n$-1\r\n",
        b"*2\r\n$\r\n",
        b"*2\r\n$1\n",
        b"*2\r\n$1\r\nab\r\n",
        b"*2\r\n$1\r\na\n\r",
        b"*2\r\n$1\r\na\r\n$99999999999\r\n",
        b"-MOVED\n",
        b"-\n",
    ],
)
def test_what_hgetall_never_replies_is_an_error(side, got):
    """It is worth another try on a new connection, whole or cut, and what came before it counts."""
    one = side.Comparer(pack(NEXT) + pack(AB), 2)
    replies = reply(b"a", b"1") + got
    with pytest.raises(TargetError, match="a reply that does not fit HGETALL") as caught:
        one.feed(replies, 0, len(replies))
    assert caught.value.transient
    assert (one.left, one.present, one.differences) == (1, 1, [])
    one = side.Comparer(pack(AB), 1)
    with pytest.raises(TargetError, match="a reply that does not fit HGETALL"):  # noqa: PT012  # at which byte is not the rule
        for end in range(len(got) + 1):
            assert one.feed(got, 0, end) == 0


def test_a_batch_with_fewer_rows_than_said_is_no_batch(side):
    """Nothing is compared with rows that are not there."""
    one = side.Comparer(pack(NEXT), 2)
    got = reply(b"a", b"1")
    with pytest.raises(ValueError, match="fewer rows"):
        one.feed(got * 2, 0, len(got) * 2)


@pytest.mark.parametrize(
    ("key", "slot", "number"),
    [
        (b"", 0, 0xEFD01F60BA992926),
        (b"a", 15495, 0x82A2A958A9BECE5B),
        (b"stu_00000001", 5344, 0xE272576ECA7B5E3F),
        (b"{stu}_00000001", 11255, 0x66CE7B07734A165C),
    ],
)
def test_a_tally_counts_keys_by_slot(side, key, slot, number):
    """A slot has the number of its keys and the sum of their checksums, modulo 2**64."""
    tally = side.SlotChecksums()
    tally.add([key] * 3)
    assert tally.of(slot) == (3, 3 * number % 2**64)


def test_tallies_tell_slots_apart(side):
    """The order of keys does not matter; a key more, a key less, another key and a key twice do."""
    keys = [b"{%d}%d" % (number % 50, number) for number in range(1000)]
    one = side.SlotChecksums()
    one.add(keys)
    for change, others in {
        b"": keys[::-1],
        b"{1}": [*keys, b"{1}x"],
        b"{2}": [key for key in keys if key != b"{2}2"],
        b"{3}": [b"{3}x" if key == b"{3}3" else key for key in keys],
        b"{4}": [*keys, b"{4}4"],
    }.items():
        other = side.SlotChecksums()
        other.add(others[:500])
        other.add(others[500:])
        assert one.differing(other) == other.differing(one) == [slot_of(change)] * bool(change)


def test_digests_leave_out_the_rows_that_are_known(kind):
    """Of rows that are not rejected, digest and key are gathered; of those that are known, no command is made."""
    layout = Layout(cells=2, key=(b"k", 0), fields=((b"a", 1),))
    rows = [(b"1", b"x"), (None, b"x"), (b"2", None), (b"3", b"y" * 20)]

    def through(known, *rows):
        data = b"".join(packets(*row) for row in rows) + EOF_PACKET
        one = kind(layout, array("H", [0] * SLOTS), 1, known)
        one.feed(data, 0, len(data))
        return one, [words[1] for words in resp.split_commands(one.take(0).data)]

    one, written = through(b"", *rows)
    assert written == [b"k1", b"k2", b"k3"]
    assert (one.rows, one.unchanged, len(one.rejects)) == (4, 0, 1)
    payloads = [b"".join(map(cell, row)) for row in rows if row[0]]
    assert one.digests == b"".join(frames.digest_of(payload).to_bytes(8, "little") for payload in payloads)
    assert one.keys == b"".join(b"\x02\0\0\0" + key for key in written)
    again, written = through(one.digests, *rows[:2], (b"2", b""), rows[3])
    assert written == [b"k2"]
    assert (again.rows, again.unchanged, len(again.rejects)) == (4, 2, 1)
    assert again.keys == one.keys
    none, written = through(None, *rows)
    assert (written, none.unchanged, none.digests, none.keys) == ([b"k1", b"k2", b"k3"], 0, b"", b"")


@pytest.mark.parametrize(
    ("row", "digest"),
    [
        (b"", 0x15594DF467D5E7E8),
        (b"a", 0x7467F834118D31E4),
        (b"12345678", 0x4B9F4DD44C3688BC),
        (b"\x08stu_0001\xfb", 0x9784E1593476E46B),
    ],
)
def test_a_digest_is_this_number(row, digest):
    """Another one would make what is kept in a target worthless, or wrong."""
    assert frames.digest_of(row) == digest


@given(st.lists(st.tuples(st.binary(max_size=40), st.none() | st.binary(max_size=40)), max_size=20), st.randoms())
def test_the_twins_have_the_same_digests(rows, chance):
    """Of any rows, whichever of them are known."""
    layout = Layout(cells=2, key=(b"k", 0), fields=((b"a", 1),), most=30)
    data = b"".join(packets(*row) for row in rows) + EOF_PACKET
    known = [frames.digest_of(b"".join(map(cell, row))) for row in rows if chance.random() < 0.5]
    seen = []
    for side in BOTH.values():
        one = side(layout, array("H", [0] * SLOTS), 1, b"".join(each.to_bytes(8, "little") for each in known))
        one.feed(data, 0, len(data))
        seen.append((one.rows, one.unchanged, one.rejects, one.digests, one.keys, bytes(one.take(0).data)))
    assert seen[0] == seen[1]


NAMES = st.lists(st.binary(max_size=3), max_size=6)
TEXTS = st.sampled_from([b"", b"x", b"y", b"\r\n", b"a" * 30])
GARBAGE = st.sampled_from([b"*", b"$", b"-", b"\r\n", b"*2\r\n", b"*4\r\n", b"$1\r\n", b"x", b"0", b"-ERR\r\n"])


@st.composite
def checks(draw):
    """A batch, replies to it that are right or nearly, and where they are cut."""
    batch, replies = [], []
    for number in range(draw(st.integers(0, 6))):
        key = draw(st.sampled_from([b"k", b"{k}%d" % number, b"l%d" % number]))
        present, absent = draw(NAMES), draw(NAMES)
        values = [draw(TEXTS) for _ in present]
        pairs = list(zip(present, values, strict=True))
        if pairs:
            batch.append([b"HMSET", key, *(word for pair in pairs for word in pair)])
        if absent or not pairs:
            batch.append([b"HDEL", key, *absent, b"z"])
        change = draw(st.sampled_from(["none", "none", "order", "once", "value", "more", "less", "empty", "error"]))
        if change == "order":
            pairs = draw(st.permutations(pairs))
        elif change == "once":
            pairs = draw(st.permutations(list(dict(pairs).items())))
        elif change == "value" and pairs:
            pairs[-1] = (pairs[-1][0], draw(TEXTS))
        elif change == "more":
            pairs = [*pairs, (draw(st.binary(max_size=3)), b"")]
        elif change in {"less", "empty"}:
            pairs = pairs[1:] if change == "less" else []
        replies.append(MOVED if change == "error" else reply(*(word for pair in pairs for word in pair)))
    stream = b"".join(replies)
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(stream)))
        stream = stream[:at] + draw(GARBAGE) + stream[at + draw(st.integers(0, 3)) :]
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=4))
    return batch, stream, [*cuts, len(stream)]


@given(checks())
def test_the_twins_see_the_same_differences(case):
    """For any batch and any replies, cut anywhere, both find the same, and go on as far."""
    batch, stream, cuts = case
    data = b"".join(map(pack, batch))
    seen = []
    for side in SIDES.values():
        tally = side.SlotChecksums()
        one = side.Comparer(data, len(set(resp.number_rows(batch))), tally)
        position = 0
        steps = []
        try:
            for cut in cuts:
                position = one.feed(stream, position, max(cut, position))
                steps.append((position, one.wanted))
        except TargetError as error:
            steps.append(str(error))
        counts = [tally.of(slot_of(key)) for _, key, *_ in batch]
        seen.append((steps, one.left, one.present, one.differences, counts, side.reads(data)))
    assert seen[0] == seen[1]


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_the_twins_sum_the_same(keys):
    """Slots and checksums are the same, of any keys."""
    one, other = comparer.SlotChecksums(), _codec.SlotChecksums()
    one.add(keys)
    other.add(keys)
    for slot in {slot_of(key) for key in keys}:
        assert one.of(slot) == other.of(slot)
