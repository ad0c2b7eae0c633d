"""Which node owns a key: slots, and the map from slot to node."""

from array import array
from binascii import crc_hqx
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from loader.errors import Kind, TargetError
from loader.model import Node

T = TypeVar("T")

SLOTS = 16384  # https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/


def slot_of(key: bytes) -> int:
    """Slot of a key: CRC16 (XMODEM) of its hash tag, else of the whole key, modulo 16384; the cluster specification."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class SlotMap:
    """Slot to node, complete or not at all.

    `nodes` are the masters; `owners` holds for each of the 16384 slots the index of its master in `nodes`. A map with
    an unowned slot is refused with a transient `TargetError`: nobody could say which node its rows belong to.
    """

    __slots__ = ("nodes", "owners")

    def __init__(self, ranges: Iterable[tuple[int, int, Node]]) -> None:
        nodes: dict[Node, int] = {}
        owners: list[int | None] = [None] * SLOTS
        for first, last, node in ranges:
            index = nodes.setdefault(node, len(nodes))
            owners[first : last + 1] = [index] * (last + 1 - first)
        lost = [slot for slot, owner in enumerate(owners) if owner is None]
        if lost:
            hint = (
                "bring their masters back, or see `redis-cli --cluster check`"
                if nodes
                else "if it is new, see `redis-cli --cluster create`"
            )
            raise TargetError(
                f"the cluster has no owner for {len(lost)} of {SLOTS} slots ({_spans(lost)}): {hint}",
                kind=Kind.UNAVAILABLE,
            )
        self.nodes: tuple[Node, ...] = tuple(nodes)
        self.owners = array("H", [owner for owner in owners if owner is not None])

    @classmethod
    def single(cls, node: Node) -> "SlotMap":
        """The map of a standalone server, which owns every slot."""
        return cls([(0, SLOTS - 1, node)])

    def node_of(self, slot: int) -> Node:
        """The master that owns a slot."""
        return self.nodes[self.owners[slot]]

    def by_index(self, items: Iterable[T], key_of: Callable[[T], bytes]) -> dict[int, list[T]]:
        """Group items by the index in `nodes` of the master that owns the key of each."""
        groups: dict[int, list[T]] = {}
        for item in items:
            groups.setdefault(self.owners[slot_of(key_of(item))], []).append(item)
        return groups

    def by_node(self, items: Iterable[T], key_of: Callable[[T], bytes]) -> dict[Node, list[T]]:
        """Group items by the master that owns the key of each."""
        return {self.nodes[index]: group for index, group in self.by_index(items, key_of).items()}

    @property
    def parts(self) -> "array[int]":
        """How the slots are divided among masters, whichever they are: the same after a replica takes over."""
        numbers: dict[int, int] = {}
        return array("H", [numbers.setdefault(owner, len(numbers)) for owner in self.owners])

    def counts(self) -> dict[Node, int]:
        """Slots per master."""
        return {node: self.owners.count(index) for index, node in enumerate(self.nodes)}


def _spans(numbers: Sequence[int]) -> str:
    """Write sorted numbers as ranges, at most five of them: `0-5460, 16000`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    words = [str(a) if a == b else f"{a}-{b}" for a, b in spans]
    return ", ".join(words[:5]) + (", …" if len(words) > 5 else "")
