"""Finds a job's keys in Redis: reads all masters with SCAN, follows slots that move, and draws random keys."""

import random
from collections.abc import Collection, Iterator
from itertools import islice

from loader.errors import Kind, TargetError
from loader.jobs import recheck
from loader.jobs.session import JobSession
from loader.model import Node
from loader.pipeline.deleter import asked
from loader.records import dataclass
from loader.redis.migrations import Move, Standing, in_words, standing
from loader.redis.servers import lives
from loader.wire.slots import slot_of

PAGE = 1000  # keys that SCAN visits in one command
PAGES = 100  # of a master at most for a sample: about 50 ms
SCANS = 3  # times that all masters are read if they change meanwhile
TURNS = 5  # times that the keys of slots that move meanwhile are read


@dataclass(frozen=True, slots=True)
class Page:
    """Keys that a node has, and the state of the slots when they were looked for."""

    node: Node
    keys: list[bytes]
    slots: Standing

    def reached(self, wanted: Collection[int] | None = None) -> Iterator[bytes]:
        """The keys, of `wanted` slots alone, that the node serves: not those that a move of their slot left behind."""
        for key in self.keys:
            slot = slot_of(key)
            if (wanted is None or slot in wanted) and self.slots.answers(self.node, slot):
                yield key


class Keyspace:
    """The keys in Redis that may be a job's, or all that match a `pattern`."""

    def __init__(self, session: JobSession, pattern: str = "") -> None:
        self._pattern = pattern or session.lookup.pattern
        self._session = session
        self._target = session.target
        self._lookup = session.lookup
        self._moves: frozenset[Move] = frozenset()  # when keys were looked for last

    @property
    def moving(self) -> frozenset[int]:
        """The slots that were being moved when keys were looked for last."""
        return frozenset(move.slot for move in self._moves)

    def scan(self, moved: set[int]) -> Iterator[Page | None]:
        """Yield the keys of all masters that may be the job's; None when it starts over.

        It starts over when a master fails or another one takes its place. `moved` is left with the slots whose keys may
        be missing: those that were moved meanwhile, or are half moved without a way to tell how far.
        """
        for last in (*[False] * (SCANS - 1), True):
            moved.clear()
            try:
                before, stood = self._lives(), self._standing()
                yield from self._pages(stood, moved)
                moved |= self._standing().changed(stood)
                self._target.refresh(force=True)
                if self._lives() != before:
                    changed = "redis: the masters changed while keys were being read"
                    raise TargetError(changed, kind=Kind.UNAVAILABLE)  # noqa: TRY301
            except TargetError as error:
                if not error.transient or last:
                    raise
                self._session.with_retry(self._find_masters)
            else:
                return
            yield None

    def keys_in(self, slots: Collection[int]) -> Iterator[list[bytes]]:
        """Yield the job's keys in some slots; again those of slots that move meanwhile.

        Raises a `TargetError` if slots keep moving, or are half moved without a way to tell how far.
        """
        left = set(slots)
        for _ in range(TURNS):
            moved = set[int]()
            for page in self.scan(moved):
                yield list(filter(self._lookup.owns, page.reached(left))) if page else []
            left &= moved
            if not left:
                return
            self._session.throttle.sleep(recheck.PAUSE)
        raise self._unchecked(left)

    def note_moves(self) -> None:
        """Look which slots are being moved."""
        self._standing()

    def random_keys(self, count: int) -> list[bytes]:
        """About `count` keys of the job's hashes, at random; fewer if most keys are others', none if it has none."""
        found: dict[bytes, None] = {}
        slots = self._standing()
        nodes = dict.fromkeys((*slots.nodes, *slots.takers))
        each = -(-count // len(nodes))

        def add(node: Node, keys: list[bytes]) -> None:
            fresh = {key for key in Page(node, keys, slots).reached() if self._lookup.owns(key) and key not in found}
            found.update((key, None) for key, kind in asked(self._target, "TYPE", sorted(fresh)) if kind == b"hash")

        def look(node: Node, goal: int, cursor: int = 0, pages: int | None = None) -> None:
            for keys in islice(self._scan_node(node, cursor), pages) if len(found) < goal else ():
                add(node, keys)
                if len(found) >= goal:
                    return

        with_retry = self._session.with_retry
        for node in nodes:
            with_retry(lambda: add(node, self._random_keys(node, each)))  # noqa: B023
        for node in nodes:
            goal = min(count, len(found) + each)
            for start in (random.getrandbits(48), 0):  # the place of a sample is no secret
                with_retry(lambda: look(node, goal, start, PAGES))  # noqa: B023
        for node in () if found else nodes:
            with_retry(lambda: look(node, count))  # noqa: B023
        return list(found)

    def _unchecked(self, slots: Collection[int]) -> TargetError:
        moves = [move for move in self._moves if move.slot in slots]
        which = f"slot {min(slots)}" if len(slots) == 1 else f"{len(slots):,} slots"
        told = in_words(moves) or f"{which} may have moved while keys were being read"
        advice = "repeat the command once they no longer move"
        if any(not move.agreed for move in moves):
            advice = f"one side knows nothing of it: end it, as `redis-cli --cluster fix {moves[0].giver}` does"
        return TargetError(f"redis: not checked: {told}: {advice}")

    def _standing(self) -> Standing:
        stood = self._session.with_retry(lambda: standing(self._target))
        self._moves = stood.moves
        return stood

    def _pages(self, stood: Standing, moved: set[int]) -> Iterator[Page]:
        """Yield the keys of all nodes, each once though it moves: nodes that take slots come after those that give."""
        ways = {(move.slot, move.taker) for move in stood.moves}
        opened = {slot for slot, _ in ways}
        met: set[bytes] = set()  # of those slots
        for node, again in (*((node, False) for node in stood.nodes), *((node, True) for node in stood.takers)):
            for keys in self._scan_node(node):
                if not ways:
                    yield Page(node, keys, stood)
                    continue
                fresh = [key for key in keys if (key not in met if slot_of(key) in opened else not again)]
                for key in fresh:
                    slot = slot_of(key)
                    if slot in opened and stood.answers(node, slot):
                        met.add(key)
                    elif (slot, node) in ways and self._lookup.owns(key):  # out of reach until the move is ended
                        moved.add(slot)
                yield Page(node, fresh, stood)

    def _scan_node(self, node: Node, cursor: int = 0) -> Iterator[list[bytes]]:
        at = b"%d" % cursor
        while True:
            words = ("SCAN", at, "MATCH", self._pattern, "COUNT", PAGE)
            at, keys = self._target.command(node, *words)
            yield keys
            if at == b"0":
                return

    def _random_keys(self, node: Node, count: int) -> list[bytes]:
        most = self._target.command(node, "DBSIZE")
        replies = self._target.commands(node, [["RANDOMKEY"]] * min(count, most))
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._target.error(reply, node)
        return [reply for reply in replies if reply is not None]

    def _find_masters(self) -> None:
        self._lives()

    def _lives(self) -> dict[Node, str]:
        """The masters, and the id by which a process that took another's place is told from it."""
        return {node: life.id for node, life in lives(self._target, newest=False).items()}
