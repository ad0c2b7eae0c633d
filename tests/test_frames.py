"""The two wire protocols, byte for byte: row packets in, commands out."""

from array import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader import _frames, frames
from loader.errors import SourceError
from loader.frames import PACKET_MAX, ROOM
from loader.model import Layout
from loader.slots import SLOTS, slot_of

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


BOTH = {"plain": frames.Encoder, "compiled": _frames.Encoder}


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
    assert data == frames.pack([b"HMSET", b"stu_1", b"sid", b"1", b"sname", b"", b"address", b"x"])


def test_a_row_of_nulls_only_deletes(kind):
    """With no field left there is no hash, and no EXPIRE either."""
    layout = Layout(cells=2, key=(b"k", 0), fields=((b"a", 1),), ttl=60)
    one, (data,) = encode(kind, layout, (b"1", None))
    assert data == frames.pack([b"HDEL", b"k1", b"a"])
    assert one.rows == 1


def test_a_null_in_the_key_is_a_reject(kind):
    """A row without a key is counted, named and not sent."""
    layout = Layout(cells=2, key=(b"k_", 0, b"_", 1), fields=((b"a", 0),))
    one, (data,) = encode(kind, layout, (b"1", None), (b"2", b"x"))
    assert data == frames.pack([b"HMSET", b"k_2_x", b"a", b"2"])
    assert (one.rows, [reject.key for reject in one.rejects]) == (2, [b"k_1_NULL"])


def test_ttl_is_the_same_for_the_same_key_and_within_its_jitter(kind):
    """EXPIRE follows; its jitter comes from the key alone and reaches both ends."""
    layout = Layout(cells=1, key=(b"k", 0), fields=((b"a", 0),), ttl=1000, ttl_jitter=100)
    rows = [(b"%d" % number,) for number in range(3000)]
    _, (first,) = encode(kind, layout, *rows)
    _, (second,) = encode(kind, layout, *rows)
    assert first == second
    ttls = [int(words[2]) for words in frames.split_commands(first) if words[0] == b"EXPIRE"]
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
        assert [words[1] for words in frames.split_commands(data)] == expected


@pytest.mark.parametrize("size", [0, 250, 251, 65535, 65536, PACKET_MAX - 5, PACKET_MAX - 4, PACKET_MAX, 20_000_000])
def test_every_length_of_a_cell(kind, size):
    """A cell of any size arrives whole, also over the seams of packets of 16 MiB."""
    layout = Layout(cells=2, key=(b"k", 0), fields=((b"v", 1),))
    value = bytes(range(256)) * (size // 256 + 1)
    _, (data,) = encode(kind, layout, (b"1", value[:size]), (b"2", b"next"))
    rows = [words[3] for words in frames.split_commands(data)]
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
    assert list(frames.split_commands(b"".join(map(frames.pack, commands)))) == commands


def test_commands_are_numbered_by_row():
    """A row's commands stand together; the next row may even have the same key."""
    names = [b"HMSET", b"HDEL", b"HMSET", b"HDEL", b"HDEL", b"HMSET", b"HMSET", b"HDEL", b"HDEL"]
    keys = [b"a", b"a", b"a", b"a", b"a", b"b", b"c", b"d", b"d"]
    batch = [[name, key, b""] for name, key in zip(names, keys, strict=True)]
    assert frames.number_rows(batch) == [0, 0, 1, 1, 2, 3, 4, 5, 6]


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
    expected += expires
    assert list(frames.split_commands(data)) == expected
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
    layout = replace(layout, ttl_jitter=data.draw(st.integers(0, (layout.ttl or 1) - 1)))
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
        flat = [(bytes(b.data), b.rows, b.replies, b.then and (bytes(b.then.data), b.then.replies)) for b in batches]
        seen.append((steps, flat))
    assert seen[0] == seen[1]


REPLIES = st.lists(st.sampled_from([b"+OK", b":0", b":12", b":", b"+O", b"-ERR x", b"$-1", b"+OKAY", b""]))


@given(REPLIES, st.sampled_from([b"\r\n", b"\n"]))
def test_replies_are_counted_alike(replies, ending):
    """Both count plain replies and refuse all else."""
    data = b"".join(reply + ending for reply in replies)
    plain = ending == b"\r\n" and all(reply in {b"+OK", b":0", b":12"} for reply in replies)
    expected = len(replies) if plain or not replies else -1
    assert (frames.count_replies(data), _frames.count_replies(data)) == (expected, expected)
