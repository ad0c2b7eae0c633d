"""What is done on both sides of a job: rows looked up by their keys, hashes compared, written, found and deleted.

What fails in passing is tried again on new connections, for as long as the job's deadline says.
"""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol, Self, TypeVar

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.errors import ConfigError, Kind, LoaderError, TargetError
from loader.model import Acks, Batch, Node, Reject
from loader.mysql.chunker import chunk_ranges
from loader.mysql.connection import Connection
from loader.mysql.plan import Plan, keys_only
from loader.pipeline.deleter import asked, made_of
from loader.pipeline.job_context import LEAVE, WELL, JobContext, open_job, passing
from loader.pipeline.ledger import SHARED, Ledger
from loader.pipeline.options import Options
from loader.pipeline.reload import KeyFilterWriter
from loader.pipeline.retry import retry_transient
from loader.pipeline.transfer import to_last, transfer
from loader.redis.checker import HashChecker, Mismatch
from loader.redis.client import RedisClient
from loader.redis.collector import CollectingWriter
from loader.redis.migrations import Move, Standing, in_words, standing
from loader.redis.servers import lives
from loader.state.baseline import Baselines
from loader.state.checkpoint import StateStore
from loader.state.markers import GONE, LOST, Field, Markers, lacking
from loader.wire.codec import SlotChecksums
from loader.wire.resp import split_commands
from loader.wire.slots import slot_of

LOOKS = 3  # a difference counts when it is seen so many times
PAUSE = 1.0  # seconds between two looks: a row's way to Redis, by whoever brings it, is shorter
PENDING = 100_000  # keys that wait for another look at most: about 10 MB
PAGE = 1000  # keys that SCAN looks at in one command
PAGES = 100  # of a master at most where a sample is wanted: about 50 ms
REMEMBERED = 200_000  # extra keys that are remembered, so that one that SCAN gives twice counts once

SCANS = 3  # times that all masters are gone over, where they change meanwhile
TURNS = 5  # times that the keys of slots are looked for that are moved meanwhile

T = TypeVar("T")
G = TypeVar("G", bound="MismatchSink")


class MismatchSink(Protocol):
    """Takes rows whose hash is not what it should be."""

    def append(self, each: Mismatch, /) -> None:
        """Take one."""


class Found(list[Mismatch]):
    """Rows whose hash is not what it should be."""


@dataclass(frozen=True, slots=True)
class Page:
    """Keys that a node has, and how the slots stood when they were looked for."""

    node: Node
    keys: list[bytes]
    slots: Standing

    def reached(self, wanted: Collection[int] | None = None) -> Iterator[bytes]:
        """Those that can be had of the node, of `wanted` slots: what a move of its slot has left elsewhere cannot."""
        for key in self.keys:
            slot = slot_of(key)
            if (wanted is None or slot in wanted) and self.slots.answers(self.node, slot):
                yield key


@dataclass(frozen=True, slots=True)
class Left:
    """Keys that no row makes: of the job's hashes, of hashes that may be someone else's, and how many hold no hash."""

    own: list[bytes]
    unsure: list[bytes]
    others: int


class JobSession:
    """The two sides of a job, open; what fails in passing is tried again on new connections.

    With the id of a `run`, the job is locked for it: only one run may write its hashes at a time. A run that goes on
    `within` its ends has locked it already.
    """

    def __init__(self, settings: Config, job: JobConfig, run: str = "", within: JobContext | None = None) -> None:
        self._settings = settings
        self._ends = open_job(settings, job, Options(), beside=within.target if within else None)
        self._markers: Markers | None = None
        self._marking: Field | None = None
        self._ledger = Ledger()
        self._moves: frozenset[Move] = frozenset()  # when keys were looked for last
        try:
            if within:
                self._ends.share(within)
            elif run:
                self._ends.with_retry(lambda: self._ends.lock(run))
            if run:
                self._markers = StateStore(self._ends.target, job.name, resumes=False).markers(run)
                self._ends.with_retry(self._markers.leave)
                self._marking = self._markers.field(0)
            self.lookup = self._ends.lookup()
            self._ends.lanes(1)
        except BaseException:
            self._ends.close()
            raise
        self.plan = self._ends.plan
        self.target = self._ends.target
        self.throttle = self._ends.throttle
        self.fetch = self._ends.fetch
        self._source: Connection | None = None
        self._keys_only = keys_only(self.plan)
        self._names: frozenset[bytes] | None = None  # of fields that the job has or had

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._source:
            self._source.close()
        with passing(), self._ends.leaving(LEAVE if kind else WELL):  # a marker that stays says nothing
            if self._markers and not self.throttle.lapsed():
                self._markers.forget()
        self._ends.close(well=kind is None)

    def with_retry(self, attempt: Callable[[], T]) -> T:
        """Do something, and again while it fails in passing."""
        failures = 0

        def once() -> T:
            nonlocal failures
            self.throttle.admit()
            if failures:
                self.throttle.confirm()
            self.target.refresh(force=failures > 0)
            failures += 1
            return attempt()

        return retry_transient(once, self.plan.job.deadline, self.throttle)

    def check(self) -> None:
        """Make sure that all that was written is there still; a `LoaderError` where a master has lost some of it."""
        if not self._markers:
            return
        self._ends.with_retry(self.throttle.confirm)
        seen = self._ends.with_retry(self._markers.read)
        if None in seen.values():
            raise LoaderError(f"{GONE}: repeat the command")
        if lacking(seen, self._ledger.marks()):
            raise LoaderError(f"{LOST}: repeat the command")
        if self._ends.take_doubt() is not None:
            raise LoaderError(f"{SHARED}: repeat the command")

    def look(
        self, statement: str, gather: Callable[[], G], tally: SlotChecksums | None = None
    ) -> tuple[int, G, list[Reject]]:
        """Rows of a statement, what was gathered of those whose hash is not what it should be, and those without one.

        The last are rows that no command can be made of.
        """

        def attempt() -> tuple[int, G, list[Reject]]:
            gathered = gather()
            reader = HashChecker(self.target, gathered.append, tally)
            try:
                encoder = self._through(reader, statement, self.plan)
                reader.drain()
            finally:
                reader.close()
            return encoder.rows, gathered, encoder.rejects

        return self.with_retry(attempt)

    def without_row(self, keys: Sequence[bytes], *, counted: bool = False) -> list[bytes]:
        """Those of the job's keys that no row makes now; to say so for good, the rows have to be `counted` too."""
        return self.with_retry(lambda: self._missing(keys, counted=counted))

    def unlink(self, keys: Sequence[bytes]) -> int:
        """Delete the hashes of those keys that no row makes, looked up right before each attempt; how many."""

        def attempt() -> int:
            grant = self.throttle.grant()
            commands = [(key, [b"UNLINK", key]) for key in self._missing(keys, counted=True)]
            self.throttle.hold(grant)
            sent = self._send(commands, grant)
            moved = {move.slot for move in self._moves}
            if copies := [each for each in commands if slot_of(each[0]) in moved]:
                self._send(copies, grant)  # of a move that was cut off between two steps both sides have the key
            return sent

        return self.with_retry(attempt)

    def commands(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        """The commands that would write the hashes of keys, and maybe of others, from their rows as they are now."""
        return self.with_retry(lambda: self._kept(self.plan.matching(self.lookup.condition(keys)), self.plan))

    def tally_rows(self, tally: SlotChecksums) -> None:
        """Add the keys that the rows make now; more than once where it has to be begun again."""
        for chunk in chunk_ranges(self._keys_only, self.plan.job.chunk_rows, self.fetch):
            statement = self._keys_only.select(chunk)
            self.with_retry(lambda: self._through(KeyCounter(self.target, tally), statement, self._keys_only))  # noqa: B023

    def reload(self, keys: Sequence[bytes]) -> tuple[Acks, list[Reject]]:
        """Write the hashes of keys from their rows as they are now; what was acknowledged, and all rejects."""
        statement = self.plan.matching(self.lookup.condition(keys))

        def attempt() -> tuple[Acks, list[Reject]]:
            grant = self.throttle.grant()
            only = self._only(grant, keys)
            try:
                bring = lambda: self._through(only, statement, self.plan)  # noqa: E731
                encoder, acks = to_last(self.plan, bring, only, only.drain)
                self._finish(only, grant)
            finally:
                only.close()
            return acks, [*(r for r in encoder.rejects if r.key in only.keys), *acks.rejects]

        return self.with_retry(attempt)

    def send(self, commands: Iterable[tuple[bytes, list[bytes]]]) -> int:
        """Send single commands, each to the owner of its key; how many were carried out."""
        listed = list(commands)
        return self.with_retry(lambda: self._send(listed, self.throttle.grant()))

    def left_over(self, keys: Sequence[bytes]) -> "Left":
        """The keys that no row makes, told apart by whose they are."""
        return self.with_retry(lambda: self._left_over(keys))

    def hash_of(self, key: bytes) -> dict[bytes, bytes]:
        """The fields of a hash, wherever it is now."""
        flat = self.with_retry(lambda: self.target.ask(key, "HGETALL", key)[1])
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def scan(self, moved: set[int]) -> Iterator[Page | None]:
        """The keys of all masters that may be the job's; None where all is gone over again from the start.

        So it is when a master fails or another one takes its place. `moved` is left with the slots of which keys may be
        missing: those that were moved meanwhile, or are half moved and nobody can say how far.
        """
        for last in (*[False] * (SCANS - 1), True):
            moved.clear()
            try:
                before, stood = self._lives(), self._standing()
                yield from self._pages(stood, moved)
                moved |= self._standing().changed(stood)
                self.target.refresh(force=True)
                if self._lives() != before:
                    changed = "redis: the masters have changed while keys were looked for"
                    raise TargetError(changed, kind=Kind.UNAVAILABLE)  # noqa: TRY301
            except TargetError as error:
                if not error.transient or last:
                    raise
                self.with_retry(self._find_masters)
            else:
                return
            yield None

    def keys_in(self, slots: Collection[int]) -> Iterator[list[bytes]]:
        """The job's keys in some slots; again those of slots that are moved meanwhile.

        Raises a `TargetError` where slots are moved all the time, or are half moved and nobody can say how far.
        """
        left = set(slots)
        for _ in range(TURNS):
            moved = set[int]()
            for page in self.scan(moved):
                yield list(filter(self.lookup.owns, page.reached(left))) if page else []
            left &= moved
            if not left:
                return
            self.throttle.sleep(PAUSE)
        raise self._unchecked(left)

    def random_keys(self, count: int) -> list[bytes]:
        """About so many keys of the job's hashes, at random; fewer where most are of others, none if it has none."""
        found: dict[bytes, None] = {}
        slots = self._standing()
        nodes = dict.fromkeys((*slots.nodes, *slots.takers))
        each = -(-count // len(nodes))

        def add(node: Node, keys: list[bytes]) -> None:
            fresh = {key for key in Page(node, keys, slots).reached() if self.lookup.owns(key) and key not in found}
            found.update((key, None) for key, kind in asked(self.target, "TYPE", sorted(fresh)) if kind == b"hash")

        def look(node: Node, goal: int, cursor: int = 0, pages: int | None = None) -> None:
            for keys in islice(self._scan_node(node, cursor), pages) if len(found) < goal else ():
                add(node, keys)
                if len(found) >= goal:
                    return

        for node in nodes:
            self.with_retry(lambda: add(node, self._random_keys(node, each)))  # noqa: B023
        for node in nodes:
            goal = min(count, len(found) + each)
            for start in (random.getrandbits(48), 0):  # where it begins is no secret
                self.with_retry(lambda: look(node, goal, start, PAGES))  # noqa: B023
        for node in () if found else nodes:
            self.with_retry(lambda: look(node, count))  # noqa: B023
        return list(found)

    def _through(self, way: Any, statement: str, plan: Plan) -> Any:
        """Take the rows of a statement to a writer, or what stands in its place; returns the encoder."""
        return self._on_source(lambda source: transfer(plan, statement, source, way, self.throttle))

    def _on_source(self, action: Callable[[Connection], T]) -> T:
        """Do something on the connection to MySQL, which is dropped where that fails."""
        self._source = self._source or Connection(self._settings.source)
        try:
            return action(self._source)
        except BaseException:
            self._source.close()
            self._source = None
            raise

    def _missing(self, keys: Sequence[bytes], *, counted: bool) -> list[bytes]:
        asking = (self.target, self.throttle)
        made = self._on_source(
            lambda source: made_of(keys, self._keys_only, self.lookup, source, *asking, counted=counted)
        )
        return [key for key in keys if key not in made]

    def _left_over(self, keys: Sequence[bytes]) -> "Left":
        hashes = {key for key, kind in asked(self.target, "TYPE", keys) if kind == b"hash"}
        own = hashes if self.lookup.is_certain else self._proven(sorted(hashes))
        return Left(
            [key for key in keys if key in own],
            [key for key in keys if key in hashes and key not in own],
            sum(key not in hashes for key in keys),
        )

    def _proven(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of the keys whose hash shows that the job has written it; a hash of more fields is not read."""
        if self._names is None:
            known = StateStore(self.target, self.plan.job.name).fields() | self.plan.field_names
            self._names = frozenset(name.encode() for name in known)
        small = [key for key, size in asked(self.target, "HLEN", keys) if size <= len(self._names)]
        proven = set()
        for key, flat in asked(self.target, "HGETALL", small):
            if self.lookup.proves(key, dict(zip(flat[::2], flat[1::2], strict=True)), self._names):
                proven.add(key)
        return proven

    def _send(self, commands: Sequence[tuple[bytes, list[bytes]]], grant: int) -> int:
        only = self._only(grant, [])
        try:
            only.send_all(commands)
            sent = only.drain()
            self._finish(only, grant)
            return sum(sent.rows.values())
        finally:
            only.close()

    def _only(self, grant: int, keys: Sequence[bytes]) -> "KeyFilterWriter":
        return KeyFilterWriter(self.target, keys, self._marking, partial(self.throttle.hold, grant))

    def _finish(self, only: "KeyFilterWriter", grant: int) -> None:
        """Make sure that what was acknowledged is known to replicas, and the lock was held all the time."""
        kept = only.await_replicas()
        self.throttle.hold(grant)
        self._ledger.vouch(kept.marks)

    def _kept(self, statement: str, plan: Plan) -> list[list[bytes]]:
        """The commands that the rows of a statement become."""
        sink = CollectingWriter(self.target, keep=True)
        self._through(sink, statement, plan)
        return [words for _, words in sink.kept]

    def _unchecked(self, slots: Collection[int]) -> TargetError:
        moves = [move for move in self._moves if move.slot in slots]
        which = f"slot {min(slots)}" if len(slots) == 1 else f"{len(slots):,} slots"
        told = in_words(moves) or f"{which} may have moved while keys were looked for"
        advice = "repeat the command once they stay where they are"
        if any(not move.agreed for move in moves):
            advice = f"one side knows nothing of it: end it, as `redis-cli --cluster fix {moves[0].giver}` does"
        return TargetError(f"redis: not checked: {told}: {advice}")

    def _standing(self) -> Standing:
        stood = self.with_retry(lambda: standing(self.target))
        self._moves = stood.moves
        return stood

    def _pages(self, stood: Standing, moved: set[int]) -> Iterator[Page]:
        """The keys of all nodes, each once though it moves: who takes slots is gone over after all who give them."""
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
                    elif (slot, node) in ways and self.lookup.owns(key):  # nobody reaches it, until the move is ended
                        moved.add(slot)
                yield Page(node, fresh, stood)

    def _scan_node(self, node: Node, cursor: int = 0) -> Iterator[list[bytes]]:
        at = b"%d" % cursor
        while True:
            words = ("SCAN", at, "MATCH", self.lookup.pattern, "COUNT", PAGE)
            at, keys = self.target.command(node, *words)
            yield keys
            if at == b"0":
                return

    def _random_keys(self, node: Node, count: int) -> list[bytes]:
        most = self.target.command(node, "DBSIZE")
        replies = self.target.commands(node, [["RANDOMKEY"]] * min(count, most))
        for reply in replies:
            if isinstance(reply, Exception):
                raise self.target.error(reply, node)
        return [reply for reply in replies if reply is not None]

    def _find_masters(self) -> None:
        self._lives()

    def _lives(self) -> dict[Node, str]:
        """The masters, and what tells whether one has come in another's place."""
        return {node: life.id for node, life in lives(self.target, newest=False).items()}


class KeyCounter(CollectingWriter):
    """A sink that adds the keys of rows to a tally."""

    def __init__(self, target: RedisClient, tally: SlotChecksums) -> None:
        super().__init__(target)
        self._tally = tally

    def send(self, index: int, batch: Batch) -> None:
        """Take a batch, and count its keys."""
        super().send(index, batch)
        self._tally.add([words[1] for words in split_commands(batch.data)])


def void_baseline(both: JobSession) -> None:
    """Have the next run write everything: hashes change here that it would take for what the last one has left.

    Not that of an incremental job, which takes nothing for so.
    """
    if both.plan.job.incremental is None:
        baselines = Baselines(both.target, both.plan.job.name)
        both.with_retry(baselines.void)


def refuse_shared(settings: Config, job: JobConfig) -> None:
    """Two jobs that write the same hashes cannot be told apart from outside."""
    if other := settings.sharing(job):
        raise ConfigError(
            f"jobs {job.name!r} and {other.name!r} write under the same prefix {job.prefix!r}: which of them a hash"
            " or a field belongs to cannot be told; give each a prefix of its own"
        )
