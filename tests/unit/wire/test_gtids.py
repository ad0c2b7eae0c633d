"""GTIDs: sets as MySQL writes them, positions as MariaDB does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.wire.gtids import GtidPosition, GtidSet

ONE = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
TWO = "4e11fa47-71ca-11e1-9e33-c80aa9429562"
UUID = bytes.fromhex(ONE.replace("-", ""))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", ""),
        (f"{ONE}:1", f"{ONE}:1"),
        (f"{ONE}:1-5:7,\n{TWO}:3", f"{ONE}:1-5:7,{TWO}:3"),
        (f" {TWO.upper()}:3-9 , {ONE}:5:1-4", f"{ONE}:1-5,{TWO}:3-9"),
        (f"{ONE}:1-3:tag:1:other_2:2-3", f"{ONE}:1-3:other_2:2-3:tag:1"),
        (f"{ONE}:Tag:1,{ONE}:2", f"{ONE}:2:tag:1"),
    ],
)
def test_the_text_of_a_set(text, written):
    """A set is written in the server's form, each source once, in order."""
    assert str(GtidSet(text)) == written


@pytest.mark.parametrize("text", ["x", f"{ONE}:x-1", f"{ONE}:0", f"{ONE}:5-4", f"{ONE}:1-", "0-1-42", f"{ONE}:1:#"])
def test_no_set(text):
    """A text that is no set is refused."""
    with pytest.raises(ValueError, match=r".+"):
        GtidSet(text)


def test_adding():
    """Transactions are counted one by one or in runs; those of a tag apart."""
    one = GtidSet(f"{ONE}:1-3")
    one.add(UUID, 5, 5)
    one.add(UUID, 4, 4)
    one.add(UUID, 9, 12)
    one.add(UUID + b"tag", 1, 1)
    assert str(one) == f"{ONE}:1-5:9-12:tag:1"
    assert [number for number in (0, 1, 5, 6, 9, 12, 13) if one.contains(UUID, number)] == [1, 5, 9, 12]
    assert not one.contains(UUID + b"tag", 2)
    assert not one.contains(bytes(16), 1)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 10)), max_size=20))
def test_any_order(runs):
    """In whatever order runs come, the set has just their numbers, and its text is read as the same set."""
    one, numbers = GtidSet(), set()
    for first, more in runs:
        one.add(UUID, first, first + more)
        numbers |= set(range(first, first + more + 1))
    assert {number for number in range(60) if one.contains(UUID, number)} == numbers
    assert str(GtidSet(str(one))) == str(one)
    assert one.encode() == GtidSet(str(one)).encode()


@pytest.mark.parametrize(
    ("one", "other", "covers"),
    [
        (f"{ONE}:1-5", f"{ONE}:2-3", True),
        (f"{ONE}:1-5", f"{ONE}:2-6", False),
        (f"{ONE}:1-2:4-9", f"{ONE}:2-4", False),
        (f"{ONE}:1-5:tag:1-3", f"{ONE}:1:tag:3", True),
        (f"{ONE}:1-5", f"{ONE}:tag:1", False),
        (f"{ONE}:1-5", "", True),
    ],
)
def test_a_set_that_covers_another(one, other, covers):
    """All transactions of the other, tagged ones too, are in it."""
    assert GtidSet(one).covers(GtidSet(other)) is covers


@pytest.mark.parametrize(
    ("one", "other", "covers"),
    [("0-1-5", "0-2-5", True), ("0-1-5", "0-1-6", False), ("0-1-5,7-1-1", "7-1-1", True), ("0-1-5", "7-1-1", False)],
)
def test_a_position_that_covers_another(one, other, covers):
    """It is as far in each domain, whichever server wrote there last."""
    assert GtidPosition(one).covers(GtidPosition(other)) is covers


def test_the_bytes_of_a_set():
    """As COM_BINLOG_DUMP_GTID takes it: the end of an interval is the number behind it."""
    assert GtidSet().encode() == bytes(8)
    assert GtidSet(f"{ONE}:1-5:7").encode() == (
        b"\1" + bytes(7) + UUID + b"\2" + bytes(7) + b"\1" + bytes(7) + b"\6" + bytes(7) + b"\7" + bytes(7) + b"\x08"
        + bytes(7)
    )  # fmt: skip


def test_the_bytes_of_a_tagged_set():
    """With a tag anywhere, the count is in the middle, and each source has its tag, which may be empty."""
    interval = b"\1" + bytes(7) + b"\2" + bytes(7) + b"\3" + bytes(7)
    assert GtidSet(f"{ONE}:2:mytag:2").encode() == (
        b"\1\2\0\0\0\0\0\1" + UUID + b"\0" + interval + UUID + b"\x0amytag" + interval
    )


def test_positions_of_mariadb():
    """The last transaction of each domain counts."""
    one = GtidPosition("1-2-3, 0-1-42")
    assert str(one) == "0-1-42,1-2-3"
    one.add(b"\0\0\0\0\7\0\0\0", 43, 50)
    one.add(b"\5\0\0\0\1\0\0\0", 1, 1)
    assert str(one) == "0-7-50,1-2-3,5-1-1"
    assert list(one) == [(0, 7, 50), (1, 2, 3), (5, 1, 1)]
    assert str(GtidPosition("")) == ""


@pytest.mark.parametrize("text", ["0-1", "0-1-x", "0-1-2-3", f"{ONE}:1"])
def test_no_position(text):
    """A text that is no position is refused."""
    with pytest.raises(ValueError, match="not a GTID of MariaDB"):
        GtidPosition(text)
