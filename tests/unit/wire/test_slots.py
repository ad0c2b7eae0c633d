"""Slots and the slot map."""

import pytest

from loader.errors import Exit, TargetError
from loader.model import Node
from loader.wire.slots import SLOTS, SlotMap, slot_of

A, B = Node("10.0.0.1", 7001), Node("10.0.0.2", 7002)


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 0x31C3 % SLOTS),  # the check value of CRC16/XMODEM, as in the cluster specification
        (b"stu_00000005", 5220),  # as the seed document's cluster says
        (b"msg", 6257),
        (b"foo{hash_tag}", 2515),
        (b"bar{hash_tag}", 2515),
        (b"{}foo", 9500),  # an empty tag is no tag
        (b"foo{{bar}}zap", 4015),  # the tag is `{bar`
        (b"foo{bar}{zap}", 5061),  # the first tag counts
        (b"", 0),
    ],
)
def test_slot_is_that_of_redis(key, slot):
    """The slot of a key is what CLUSTER KEYSLOT says."""
    assert slot_of(key) == slot


def test_a_slot_map_knows_every_owner():
    """Ranges become one owner a slot."""
    slots = SlotMap([(0, 8191, A), (8192, SLOTS - 1, B)])
    assert slots.nodes == (A, B)
    assert (slots.node_of(0), slots.node_of(8191), slots.node_of(8192), slots.node_of(16383)) == (A, A, B, B)
    assert slots.counts() == {A: 8192, B: 8192}


def test_items_by_owner():
    """Each item goes to the master of its key, in the order it came."""
    slots = SlotMap([(0, 8191, A), (8192, SLOTS - 1, B)])
    items = [(b"foo{bar}", 1), (b"stu_00000005", 2), (b"123456789", 3), (b"msg", 4)]
    assert slots.by_index(items, lambda item: item[0]) == {0: items[:2] + items[3:], 1: items[2:3]}
    assert slots.by_node((key for key, _ in items[:2]), lambda key: key) == {A: [b"foo{bar}", b"stu_00000005"]}


def test_a_slot_map_with_a_gap_is_refused():
    """A map with unowned slots does not come to exist; the error names the slots and is worth another try."""
    with pytest.raises(TargetError, match=r"no owner for 5462 of 16384 slots \(5461-10920, 16000-16001\)") as caught:
        SlotMap([(0, 5460, A), (10921, 15999, B), (16002, SLOTS - 1, B)])
    assert caught.value.transient
    assert caught.value.exit_code == Exit.UNREACHABLE


def test_a_cluster_that_was_never_made():
    """Nodes that nobody has joined own no slot; there are no masters to bring back."""
    with pytest.raises(TargetError, match=r"16384 of 16384 slots \(0-16383\): if it is new, see .*--cluster create"):
        SlotMap([])


def test_a_standalone_server_owns_every_slot():
    """Standalone Redis is a cluster of one."""
    assert SlotMap.single(A).counts() == {A: SLOTS}
