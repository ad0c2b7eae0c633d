"""The two sides of a job, open: rows looked up by their keys, hashes compared, written, found and deleted.

What fails in passing is tried again on new connections, for as long as the job's deadline says.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar
from uuid import uuid4

from loader import frames
from loader.config import Config
from loader.crew import Crew, Options
from loader.encoder import Tally
from loader.errors import TargetError
from loader.load import persist, transfer
from loader.lookup import TOGETHER, Lookup
from loader.model import Acks, Batch, Layout, Node, Reject
from loader.plan import Plan, Results, quote
from loader.reader import Reader, Unequal
from loader.run import prepare
from loader.settings import Job
from loader.slots import SlotMap, slot_of
from loader.source import Source
from loader.target import Target
from loader.writer import Sink, Writer

LOOKS = 3  # a difference counts when it is seen so many times
PAUSE = 1.0  # seconds between two looks: a row's way to Redis, by whoever brings it, is shorter
PENDING = 100_000  # keys that wait for another look at most: about 10 MB
PAGE = 1000  # keys that SCAN looks at in one command
REMEMBERED = 200_000  # extra keys that are remembered, so that one that SCAN gives twice counts once

T = TypeVar("T")


class Both:
    """The two sides of a job, open; what fails in passing is tried again on new connections.

    With `write`, the job is locked: only one run may write its keys at a time.
    """

    def __init__(self, settings: Config, job: Job, *, write: bool = False) -> None:
        self._settings = settings
        self._crew: Crew = prepare(settings, job, Options())
        try:
            if write:
                persist(lambda: self._crew.lock(uuid4().hex[:12]), job.deadline, self._crew.throttle)
            self.plan = self._crew.plan
            self.lookup = Lookup(self.plan, self._crew.table, _prefixes_below(settings, job))
        except BaseException:
            self._crew.close()
            raise
        self.target: Target = self._crew.target
        self.throttle = self._crew.throttle
        self.fetch = self._crew.fetch
        self._source: Source | None = None
        self._keys_only = _keys_only(self.plan)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._source:
            self._source.close()
        self._crew.close()

    def through(self, make: Callable[[], T], statement: str, plan: Plan | None = None) -> tuple[T, Any]:
        """Take the rows of a statement to what `make` makes, anew for each attempt; returns it with the encoder."""

        def attempt() -> tuple[T, Any]:
            self.throttle.admit()
            self.target.refresh(force=self._source is None)
            self._source = self._source or Source(self._settings.source)
            way: Any = make()
            try:
                return way, transfer(plan or self.plan, statement, self._source, way, self.throttle)
            except BaseException:
                way.close()
                self._source.close()
                self._source = None
                raise

        return persist(attempt, self.plan.job.deadline, self.throttle)

    def look(self, statement: str, tally: Tally | None = None) -> tuple[int, list[Unequal]]:
        """Rows of a statement, and those whose hash is not what it should be."""

        def attempt() -> tuple[int, list[Unequal]]:
            reader, encoder = self.through(lambda: Reader(self.target, tally), statement)
            try:
                return encoder.rows, reader.drain()
            finally:
                reader.close()

        return persist(attempt, self.plan.job.deadline, self.throttle)

    def without_row(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the job's keys that no row makes now."""
        statement = self._keys_only.matching(self.lookup.condition(keys))
        sink, _ = self.through(lambda: Sink(self.target, keep=True), statement, self._keys_only)
        made = {words[1] for _, words in sink.kept}
        return [key for key in keys if key not in made]

    def commands(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        """The commands that would write the hashes of keys, and maybe of others, from their rows as they are now."""
        statement = self.plan.matching(self.lookup.condition(keys))
        sink, _ = self.through(lambda: Sink(self.target, keep=True), statement)
        return [words for _, words in sink.kept]

    def reload(self, keys: Sequence[bytes]) -> tuple[Acks, list[Reject]]:
        """Write the hashes of keys from their rows as they are now; what was acknowledged, and all rejects."""
        statement = self.plan.matching(self.lookup.condition(keys))

        def attempt() -> tuple[Acks, list[Reject]]:
            only, encoder = self.through(lambda: _Only(self.target, keys), statement)
            acks = only.finish()
            return acks, [*(r for r in encoder.rejects if r.key in only.keys), *acks.rejects]

        return persist(attempt, self.plan.job.deadline, self.throttle)

    def send(self, commands: Iterable[tuple[bytes, list[bytes]]]) -> int:
        """Send single commands, each to the owner of its key; how many were carried out."""
        listed = list(commands)

        def attempt() -> int:
            self.throttle.admit()
            self.target.refresh()
            only = _Only(self.target, [])
            only.send_all(listed)
            return sum(only.finish().rows.values())

        return persist(attempt, self.plan.job.deadline, self.throttle)

    def hashes_among(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys that hold a hash."""

        def attempt() -> list[bytes]:
            return [key for key in keys if self.target.ask(key, "TYPE", key)[1] == b"hash"]

        return persist(attempt, self.plan.job.deadline, self.throttle)

    def scan(self) -> Iterator[tuple[Node, list[bytes]]]:
        """The keys of all masters that may be the job's; a master that fails amid is gone over from its start."""
        left = deque(self.target.slots.nodes)
        known = set(left)
        while left:
            node = left.popleft()
            try:
                yield from ((node, keys) for keys in self._scan_node(node))
            except TargetError as error:
                if not error.transient:
                    raise
                persist(self._find_masters, self.plan.job.deadline, self.throttle)
                masters = self.target.slots.nodes
                left.extend(n for n in masters if n == node or n not in known)
                known.update(masters)

    def _scan_node(self, node: Node) -> Iterator[list[bytes]]:
        cursor = b"0"
        while True:
            words = ("SCAN", cursor, "MATCH", self.lookup.pattern, "COUNT", PAGE)
            cursor, keys = self.target.command(node, *words)
            yield keys
            if cursor == b"0":
                return

    def _find_masters(self) -> None:
        self.target.refresh(force=True)
        for node in self.target.slots.nodes:
            self.target.command(node, "PING")


class _Only:
    """A writer that leaves out the rows of other keys, which a collation may bring with those asked for."""

    def __init__(self, target: Target, keys: Sequence[bytes]) -> None:
        self.keys = set(keys)
        self._writer = Writer(target)

    def begin(self) -> SlotMap:
        return self._writer.begin()

    def send(self, index: int, batch: Batch) -> None:
        kept = _for_keys(batch, self.keys)
        if kept.replies:
            self._writer.send(index, kept)

    def send_all(self, commands: Sequence[tuple[bytes, list[bytes]]]) -> None:
        """Send commands by the slot of their keys."""
        slots = self._writer.begin()
        groups: dict[int, list[bytes]] = {}
        for key, words in commands:
            groups.setdefault(slots.owners[slot_of(key)], []).append(frames.pack(words))
        for index, packed in groups.items():
            for start in range(0, len(packed), PAGE):
                part = packed[start : start + PAGE]
                self._writer.send(index, Batch(b"".join(part), len(part), len(part)))

    def finish(self) -> Acks:
        try:
            acks = self._writer.drain()
            self._writer.await_replicas()
        finally:
            self._writer.close()
        return acks

    def close(self) -> None:
        self._writer.close()


def _for_keys(batch: Batch, keys: set[bytes]) -> Batch:
    commands = [words for words in frames.split_commands(batch.data) if words[1] in keys]
    then = _for_keys(batch.then, keys) if batch.then else None
    rows = frames.number_rows(commands)[-1] + 1 if commands and batch.rows else 0
    return Batch(b"".join(map(frames.pack, commands)), rows, len(commands), then)


def extras(
    both: Both, slots: set[int] | None = None, *, looks: int = LOOKS, count: Callable[[int], None] = lambda _: None
) -> Iterator[list[bytes]]:
    """Hashes of the job that no row makes, of some slots or of all, in groups; `count` is told of the keys seen."""
    waiting: deque[tuple[float, int, list[bytes]]] = deque()
    seen: set[int] = set()
    group: list[bytes] = []

    def look(looked: int, keys: list[bytes]) -> Iterator[list[bytes]]:
        gone = both.without_row(keys) if keys else []
        if gone and looked + 1 < looks:
            waiting.append((time.monotonic() + PAUSE, looked + 1, gone))
        elif gone := [key for key in both.hashes_among(gone) if hash(key) not in seen]:
            seen.update(map(hash, gone[: max(0, REMEMBERED - len(seen))]))
            yield gone

    for node, keys in both.scan():
        owners = both.target.slots
        places = ((key, slot_of(key)) for key in keys if both.lookup.owns(key))
        mine = [key for key, slot in places if (slots is None or slot in slots) and owners.node_of(slot) == node]
        count(len(mine))
        group += mine
        while len(group) >= TOGETHER:
            part, group = group[:TOGETHER], group[TOGETHER:]
            yield from look(0, part)
        while waiting and (waiting[0][0] <= time.monotonic() or len(waiting) * TOGETHER > PENDING):
            yield from _in_time(both, waiting, look)
    yield from look(0, group)
    while waiting:
        yield from _in_time(both, waiting, look)


def _in_time(
    both: Both,
    waiting: deque[tuple[float, int, list[bytes]]],
    look: Callable[[int, list[bytes]], Iterator[list[bytes]]],
) -> Iterator[list[bytes]]:
    due, looked, keys = waiting.popleft()
    both.throttle.sleep(due - time.monotonic())
    return look(looked, keys)


def delete(both: Both, found: Iterator[list[bytes]], most: int) -> int:
    """Unlink hashes right after they were looked up once more, and never more than were found before."""
    deleted = 0
    for keys in found:
        part = keys[: most - deleted]
        deleted += both.send((key, [b"UNLINK", key]) for key in part)
        if deleted >= most:
            break
    return deleted


def _keys_only(plan: Plan) -> Plan:
    """The plan that reads no more of a row than its key."""
    if plan.job.query is not None:
        return plan
    cells = tuple(dict.fromkeys(quote(name) for name in plan.key_columns))
    place = {old: cells.index(plan.cells[old]) for old in plan.layout.key if isinstance(old, int)}
    key = tuple(piece if isinstance(piece, bytes) else place[piece] for piece in plan.layout.key)
    return replace(plan, cells=cells, layout=Layout(cells=len(cells), key=key, fields=((b"k", 0),)), results=Results())


def _prefixes_below(settings: Config, job: Job) -> list[str]:
    """Longer prefixes of other jobs: keys that begin so are theirs."""
    own = job.prefix
    return [o.prefix for o in settings.jobs.values() if o is not job and o.prefix != own and o.prefix.startswith(own)]
