"""Ready-made hashes as bytes; that Redis makes the same ones, tests with servers show."""

import random
from array import array

import pytest

from loader.model import Layout, Listpack
from loader.wire import codec, encoder
from loader.wire.listpack import LONGEST, crc64, dump_of
from loader.wire.resp import split_commands
from loader.wire.slots import SLOTS

LIMITS = Listpack(128, LONGEST)


def test_the_checksum_is_that_of_redis():
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA


def test_a_dump():
    """As Redis 7 prints it for HSET h a 1 b xyz, but for its compression of longer ones."""
    assert dump_of([(b"a", b"1"), (b"b", b"xyz")])[:-8] == (
        b"\x10\x14" + b"\x14\0\0\0\x04\0" + b"\x81a\x02" + b"\x01\x01" + b"\x81b\x02" + b"\x83xyz\x04" + b"\xff\x0a\0"
    )


def packet(*cells):
    """A row packet."""
    row = b"".join(b"\xfb" if cell is None else b"\xfd" + len(cell).to_bytes(3, "little") + cell for cell in cells)
    return len(row).to_bytes(3, "little") + b"\0" + row


def commands(kind, layout, *rows):
    """What an encoder makes of rows, and of their expiry."""
    made = kind(layout, array("H", bytes(2 * SLOTS)), 1)
    data = b"".join(packet(*row) for row in rows)
    assert made.feed(data, 0, len(data)) == len(data)
    batch = made.take(0)
    assert batch.replies == len(list(split_commands(batch.data)))
    assert batch.rows == len(rows)
    return [*split_commands(batch.data), *(split_commands(batch.then.data) if batch.then else ())]


ENCODERS = pytest.mark.parametrize("kind", [encoder.Encoder, codec.Encoder])


def layout(**more):
    return Layout(**{"cells": 3, "key": (b"k", 0), "fields": ((b"f", 1), (b"g", 2)), "listpack": LIMITS} | more)


@ENCODERS
def test_a_row_is_one_command(kind):
    """A NULL leaves its field out, or is empty; nothing has to be deleted, and no EXPIRE follows."""
    assert commands(kind, layout(ttl=60, ttl_jitter=0), (b"1", b"x", None)) == [
        [b"RESTORE", b"k1", b"60000", dump_of([(b"f", b"x")]), b"REPLACE"]
    ]
    assert commands(kind, layout(nulls_empty=True, checks_ttl=True), (b"1", b"x", None)) == [
        [b"RESTORE", b"k1", b"0", dump_of([(b"f", b"x"), (b"g", b"")]), b"REPLACE"]
    ]


@ENCODERS
@pytest.mark.parametrize(
    ("more", "row"),
    [
        ({"listpack": Listpack(128, 3)}, (b"1", b"four", b"x")),
        ({"listpack": Listpack(1, 64)}, (b"1", b"x", b"x")),
        ({"fields": ((b"f", 1), (b"f", 2))}, (b"1", b"x", b"y")),
        ({"fields": ((b"f" * 65, 1), (b"g", 2)), "listpack": Listpack(128, 64)}, (b"1", b"x", b"y")),
        ({"listpack": Listpack(128, 10**6)}, (b"1", b"x" * (LONGEST + 1), b"y")),
        ({"most": 30}, (b"1", b"x" * 10, b"y" * 10)),
        ({}, (b"1", None, None)),
    ],
)
def test_a_row_that_is_no_listpack_travels_as_ever(kind, more, row):
    plain = layout(**more | {"listpack": None})

    assert commands(kind, layout(**more), row) == commands(kind, plain, row)


def test_both_encoders_make_the_same_bytes():
    """Of values of every size up to some, and of numbers about every edge."""
    chance = random.Random(1)
    edges = [1 << bits for bits in (0, 7, 12, 15, 23, 31, 63)]
    numbers = [b"%d" % (sign * edge + more) for edge in edges for sign in (-1, 1) for more in (-1, 0, 1)]
    texts = [*numbers, b"", b"-", b"-0", b"00", b"+1", b"9" * 20, *(chance.randbytes(size) for size in range(600))]
    rows = [(b"%d" % number, text, chance.choice(texts)) for number, text in enumerate(texts)]

    for start in range(0, len(rows), 100):
        some = rows[start : start + 100]
        assert commands(encoder.Encoder, layout(), *some) == commands(codec.Encoder, layout(), *some)
