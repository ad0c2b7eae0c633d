"""The owner of each slot according to the masters, and the slots that are being moved between them.

A slot that is being moved has keys on both sides: its owner answers for the keys it still has, and redirects requests
for others to the node that receives the slot (ASK). An interrupted move stays as it is until somebody finishes it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field

from loader.errors import Kind, TargetError
from loader.model import Node
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.wire.slots import SLOTS

NAMED = 3  # moves listed one by one


@dataclass(frozen=True, slots=True, order=True)
class Move:
    """A slot that is being moved; if only one side knows of it (not `agreed`), nobody can reach the taker's keys."""

    slot: int
    giver: Node
    taker: Node
    agreed: bool = True

    def __str__(self) -> str:
        return f"slot {self.slot} is being moved from {self.giver} to {self.taker}"


@dataclass(frozen=True, slots=True)
class Standing:
    """The owner of each slot at one moment, with the epoch of its config, and the slots that are being moved.

    A slot that has left its owner and come back has a later epoch: the node that takes a slot over has the newest.
    """

    titles: tuple[tuple[Node, int], ...]
    moves: frozenset[Move] = frozenset()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The owners."""
        return tuple(dict.fromkeys(node for node, _ in self.titles))

    @property
    def takers(self) -> tuple[Node, ...]:
        """The nodes that slots are being moved to; they need not own any."""
        return tuple(sorted({move.taker for move in self.moves}))

    def answers(self, node: Node, slot: int) -> bool:
        """Whether a node serves keys of a slot."""
        owner, _ = self.titles[slot]
        return owner == node or Move(slot, owner, node) in self.moves

    def changed(self, before: "Standing") -> set[int]:
        """The slots that have moved since, may have moved, or whose move has begun or ended."""
        pairs = enumerate(zip(self.titles, before.titles, strict=True))
        moved = {slot for slot, (now, then) in pairs if now != then}
        return moved | {move.slot for move in self.moves ^ before.moves}


def standing(target: RedisClient) -> Standing:
    """The current owners; a transient `TargetError` if masters contradict each other because a slot changes owners."""
    if not target.cluster:
        return Standing(((target.slots.nodes[0], 0),) * SLOTS)
    told = {node: _ask(target, node) for node in target.slots.nodes}
    told |= {node: _ask(target, node) for node in _named(told) - told.keys()}
    titles: list[tuple[Node, int] | None] = [None] * SLOTS
    twice = 0
    for node, each in told.items():
        for first, last in each.owned:
            twice += sum(title is not None for title in titles[first : last + 1])
            titles[first : last + 1] = [(node, each.epoch)] * (last + 1 - first)
    settled = tuple(title for title in titles if title is not None)
    if twice or len(settled) < SLOTS:
        target.mark_stale()
        raise TargetError(
            f"redis: slots change hands: {SLOTS - len(settled)} have no owner right now, and {twice} have two",
            kind=Kind.UNAVAILABLE,
        )
    return Standing(settled, frozenset(_moves(told)))


def moves(target: RedisClient, nodes: Iterable[Node]) -> list[Move]:
    """The slots that are being moved, by slot, according to the masters that answer."""
    told: dict[Node, _Told] = {}
    for node in nodes if target.cluster else ():
        try:
            told[node] = _ask(target, node)
        except TargetError as error:
            if not error.transient:
                raise
    return sorted(_moves(told))


def in_words(found: Iterable[Move]) -> str:
    """Moves for people: the first of them, and how many more."""
    listed = sorted(found)
    more = f", and {len(listed) - NAMED:,} more" if len(listed) > NAMED else ""
    return ", ".join(map(str, listed[:NAMED])) + more


@dataclass(slots=True)
class _Told:
    """A node's own entry in CLUSTER NODES, and the addresses of the others by id."""

    id: str = ""
    epoch: int = 0
    owned: list[tuple[int, int]] = field(default_factory=list)
    gives: list[tuple[int, str]] = field(default_factory=list)  # slots, and the ids of the nodes that receive them
    takes: list[tuple[int, str]] = field(default_factory=list)
    others: dict[str, Node] = field(default_factory=dict)


def _ask(target: RedisClient, node: Node) -> _Told:
    """https://redis.io/docs/latest/commands/cluster-nodes/."""
    told = _Told()
    for line in target.command(node, "CLUSTER", "NODES").decode().splitlines():
        ident, address, flags, _, _, _, epoch, _, *slots = line.split()
        if "myself" not in flags.split(","):
            told.others[ident] = target.topology.redirected(f"ASK 0 {address.partition('@')[0]}", node)
            continue
        told.id, told.epoch = ident, int(epoch)
        for word in slots:
            if open_slot := re.fullmatch(r"\[([0-9]+)-([<>])-([0-9a-f]+)\]", word):
                (told.gives if open_slot[2] == ">" else told.takes).append((int(open_slot[1]), open_slot[3]))
            else:
                first, _, last = word.partition("-")
                told.owned.append((int(first), int(last or first)))
    return told


def _named(told: Mapping[Node, _Told]) -> set[Node]:
    """The nodes at the other ends of moves."""
    return {node for move in _moves(told) for node in (move.giver, move.taker)}


def _moves(told: Mapping[Node, _Told]) -> Iterator[Move]:
    known = {each.id: node for node, each in told.items()}

    def ends(each: _Told, of: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Node]]:
        for slot, ident in of:
            if other := known.get(ident) or each.others.get(ident):
                yield slot, other

    given = {(slot, node, taker) for node, each in told.items() for slot, taker in ends(each, each.gives)}
    taken = {(slot, giver, node) for node, each in told.items() for slot, giver in ends(each, each.takes)}
    for slot, giver, taker in given | taken:
        asked = {giver, taker} <= told.keys()
        yield Move(slot, giver, taker, not asked or (slot, giver, taker) in given & taken)
