"""Both sides held against each other: hashes that are missing, different or left over, and how that is mended.

Rows go to Redis by the way that loads them, with a `Reader` in the writer's place. For the other direction SCAN goes
over each master; its keys are told apart by slot, so that only the slots whose keys do not add up are looked up in
MySQL. What differs is looked at again after a pause, and counts when it still does: a row may change meanwhile.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar
from uuid import uuid4

from loader import frames
from loader.config import Config
from loader.crew import Crew, Options
from loader.encoder import Tally
from loader.errors import ConfigError, TargetError
from loader.load import persist, transfer
from loader.lookup import TOGETHER, Lookup
from loader.model import Acks, Batch, Layout, Node, Reject
from loader.plan import Plan, Results, quote
from loader.reader import Reader, Unequal
from loader.run import prepare
from loader.settings import Job
from loader.slots import slot_of
from loader.source import Source
from loader.state import Rejects
from loader.target import Target
from loader.walk import walk
from loader.writer import Sink, Writer

LOOKS = 3  # a difference counts when it is seen so many times
PAUSE = 1.0  # seconds between two looks: a row's way to Redis, by whoever brings it, is shorter
PENDING = 100_000  # keys that wait for another look at most: about 10 MB
PAGE = 1000  # keys that SCAN looks at in one command
MAX_DELETE = 5.0  # percent of a job's keys that may be deleted unless more is allowed
FEW = 10  # hashes that `repair` may delete even where they are more than that
REMEMBERED = 200_000  # extra keys that are remembered, so that one that SCAN gives twice counts once
NULL_KEY = "a column of the key is NULL"  # what such a row is rejected for

T = TypeVar("T")
Heard = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Difference:
    """A hash that is not what its row says: `kind` is missing, different or extra; `detail` names the fields."""

    key: bytes
    kind: str
    detail: str = ""


@dataclass(slots=True)
class Verdict:
    """What `verify` found: `rows` of MySQL were compared, `shown` are the first differences."""

    job: str
    rows: int = 0
    missing: int = 0
    different: int = 0
    extra: int = 0
    repaired: int = 0
    shown: list[Difference] = field(default_factory=list)
    refused: str = ""  # why extra hashes were not deleted

    @property
    def is_equal(self) -> bool:
        """Whether nothing differed."""
        return not (self.missing or self.different or self.extra)


@dataclass(slots=True)
class Pruned:
    """What `prune` did: of `keys` hashes of the job `extra` had no row, and `deleted` are gone."""

    job: str
    keys: int = 0
    extra: int = 0
    deleted: int = 0
    dry_run: bool = False
    refused: str = ""  # why nothing was deleted


@dataclass(slots=True)
class Retried:
    """What came of the rejected rows: written, still rejected, gone from MySQL, or not to be found by a key."""

    job: str
    written: int = 0
    gone: int = 0
    nameless: int = 0
    rejects: list[Reject] = field(default_factory=list)


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
        self._count = 0

    def begin(self) -> Any:
        self._slots = self._writer.begin()
        return self._slots

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


class Verify:
    """One verification; see `verify`."""

    def __init__(self, both: Both, *, repair: bool, show: int, heard: Heard) -> None:
        self.verdict = Verdict(both.plan.job.name)
        self._both = both
        self._repair = repair
        self._show = show
        self._heard = heard
        self._waiting: deque[tuple[float, int, list[bytes]]] = deque()  # due, looks so far, keys
        self._present = Tally()

    def rows(self, statements: Iterable[str]) -> None:
        """Compare the rows of statements with their hashes."""
        for statement in statements:
            count, unequal = self._both.look(statement, self._present)
            self.verdict.rows += count
            self._heard(self.verdict.rows)
            self._again(1, [each.key for each in unequal])
            while self._waiting and (self._waiting[0][0] <= time.monotonic() or self._pending() > PENDING):
                self._look_again()
        while self._waiting:
            self._look_again()

    def keys(self) -> None:
        """Find the hashes that no row makes."""
        scanned, total = Tally(), 0
        for _, keys in self._both.scan():
            scanned.add(keys)
            total += len(keys)
        slots = set(self._present.differing(scanned))
        if not slots:
            return
        for keys in extras(self._both, slots):
            self._note("extra", [Difference(key, "extra", "no row makes it") for key in keys])
        if self._repair and self.verdict.extra:
            self._delete(slots, total)

    def sampled_keys(self, count: int) -> None:
        """Find hashes that no row makes among so many keys taken at random."""
        both = self._both
        nodes = both.target.slots.nodes
        each = -(-count // len(nodes))
        keys: dict[bytes, None] = {}
        for node in nodes:
            replies = both.target.commands(node, [["RANDOMKEY"]] * each)
            keys |= dict.fromkeys(key for key in replies if isinstance(key, bytes) and both.lookup.owns(key))
        gone = list(keys)
        for look in range(LOOKS):
            gone = [
                key
                for start in range(0, len(gone), TOGETHER)
                for key in both.without_row(gone[start : start + TOGETHER])
            ]
            if gone and look < LOOKS - 1:
                both.throttle.sleep(PAUSE)
        self._note("extra", [Difference(key, "extra", "no row makes it") for key in both.hashes_among(gone)])

    def _pending(self) -> int:
        return sum(len(keys) for _, _, keys in self._waiting)

    def _again(self, looks: int, keys: list[bytes]) -> None:
        for start in range(0, len(keys), TOGETHER):
            self._waiting.append((time.monotonic() + PAUSE, looks, keys[start : start + TOGETHER]))

    def _look_again(self) -> None:
        due, looks, keys = self._waiting.popleft()
        self._both.throttle.sleep(due - time.monotonic())
        asked = set(keys)
        owned = [key for key in keys if self._both.lookup.owns(key)]
        _, unequal = self._both.look(self._both.plan.matching(self._both.lookup.condition(owned)))
        unequal = [self._settled(each) for each in unequal if each.key in asked]
        still = [each for each in unequal if each.reason or each.found != each.wanted]
        if looks + 1 < LOOKS:
            self._again(looks + 1, [each.key for each in still])
            return
        missing = [each for each in still if not each.found and not each.reason]
        self._note("missing", [Difference(each.key, "missing") for each in missing])
        others = [each for each in still if each.found or each.reason]
        self._note("different", [Difference(each.key, "different", _detail(each)) for each in others])
        if self._repair and still:
            self.verdict.repaired += self._mend(still)

    def _settled(self, each: Unequal) -> Unequal:
        """Follow the redirection of a key that its node could not show."""
        if each.found is not None or each.reason:
            return each
        flat = persist(
            lambda: self._both.target.ask(each.key, "HGETALL", each.key)[1],
            self._both.plan.job.deadline,
            self._both.throttle,
        )
        return replace(each, found=dict(zip(flat[::2], flat[1::2], strict=True)))

    def _note(self, kind: str, found: list[Difference]) -> None:
        setattr(self.verdict, kind, getattr(self.verdict, kind) + len(found))
        self.verdict.shown += found[: max(0, self._show - len(self.verdict.shown))]

    def _mend(self, unequal: list[Unequal]) -> int:
        acks, _ = self._both.reload([each.key for each in unequal])
        fields = {name for name, _ in self._both.plan.layout.fields}
        stale = [(each.key, [b"HDEL", each.key, *gone]) for each in unequal if (gone := set(each.found or ()) - fields)]
        if stale:
            self._both.send(stale)
        return sum(acks.rows.values())

    def _delete(self, slots: set[int], total: int) -> None:
        most = max(int(total * MAX_DELETE / 100), FEW) if self.verdict.rows else 0
        if self.verdict.extra > most:
            self.verdict.refused = (
                f"{self.verdict.extra:,} of {total:,} hashes have no row, and --repair deletes {most:,} at most:"
                f" see `loader prune {self.verdict.job} --dry-run`, which can be allowed more"
            )
            return
        self.verdict.repaired += delete(self._both, extras(self._both, slots, looks=1), most)


def verify(
    settings: Config,
    job: Job,
    *,
    sample: int | None = None,
    repair: bool = False,
    show: int = 0,
    heard: Heard = lambda _: None,
) -> Verdict:
    """Compare all rows of a job with all its hashes, or about `sample` of each; with `repair`, mend what differs.

    The first `show` differences are kept for the reader; `heard` is told how many rows have been compared.
    """
    _refuse_shared(settings, job)
    with Both(settings, job, write=repair) as both:
        audit = Verify(both, repair=repair, show=show, heard=heard)
        if sample is None:
            audit.rows(both.plan.select(chunk) for chunk in walk(both.plan, job.chunk_rows, both.fetch))
            audit.keys()
        else:
            audit.rows([_sampled(both, sample)])
            audit.sampled_keys(sample)
        return audit.verdict


def prune(settings: Config, job: Job, *, max_delete: float = MAX_DELETE, dry_run: bool = False) -> Pruned:
    """Delete the hashes of a job whose row is gone, unless they are more than `max_delete` percent of its hashes."""
    _refuse_shared(settings, job)
    done = Pruned(job.name, dry_run=dry_run)
    with Both(settings, job, write=not dry_run) as both:
        for keys in extras(both, count=lambda keys: _add(done, keys)):
            done.extra += len(keys)
        if done.extra > done.keys * max_delete / 100:
            done.refused = (
                f"{done.extra:,} of {done.keys:,} hashes of job {job.name!r} have no row, which is more than"
                f" --max-delete {max_delete:g}%: nothing was deleted; is the table what it should be?"
            )
        elif done.extra and not dry_run:
            done.deleted = delete(both, extras(both, looks=1), done.extra)
    return done


def retry(settings: Config, job: Job) -> Retried:
    """Load the rejected rows of a job again, from MySQL as it is now."""
    done = Retried(job.name)
    with Both(settings, job, write=True) as both:
        rejects = Rejects(both.target, job.name)
        listed = list(rejects.all())
        keys = [entry.key for entry in listed if entry.reason != NULL_KEY and both.lookup.owns(entry.key)]
        done.nameless = len(listed) - len(keys)
        for start in range(0, len(keys), TOGETHER):
            part = keys[start : start + TOGETHER]
            acks, refused = both.reload(part)
            done.written += sum(acks.rows.values())
            done.rejects += refused
            again = {reject.key for reject in refused}
            rejects.add(refused)
            rejects.remove([key for key in part if key not in again])
        done.gone = len(keys) - done.written - len(done.rejects)
    return done


def commands_of(settings: Config, job: Job, keys: Sequence[bytes]) -> Iterator[list[bytes]]:
    """The commands that would write the hashes of keys, from their rows as they are now."""
    with Both(settings, job) as both:
        owned = [key for key in keys if both.lookup.owns(key)]
        for start in range(0, len(owned), TOGETHER):
            part = owned[start : start + TOGETHER]
            statement = both.plan.matching(both.lookup.condition(part))
            sink, _ = both.through(lambda: Sink(both.target, keep=True), statement)
            yield from (words for _, words in sink.kept if words[1] in part)


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


def _add(done: Pruned, keys: int) -> None:
    done.keys += keys


def _detail(each: Unequal) -> str:
    """Which fields differ, are missing, or are of no column."""
    if each.reason:
        return f"it holds {each.reason}"
    found = each.found or {}
    wrong = [name for name, value in each.wanted.items() if name in found and found[name] != value]
    absent = [name for name in each.wanted if name not in found]
    stale = [name for name in found if name not in each.wanted]
    kinds = (("wrong", wrong), ("missing", absent), ("stale", stale))
    return "; ".join(f"{kind} {', '.join(n.decode(errors='replace') for n in names)}" for kind, names in kinds if names)


def _sampled(both: Both, count: int) -> str:
    """The statement for about so many rows, by a checksum of their key: MySQL goes over the index once."""
    plan = both.plan
    rows = plan.rows_estimate
    if rows is None:
        ((text,),) = both.fetch(f"SELECT COUNT(*) FROM (\n{plan.job.query}\n) AS q")
        rows = int(text or 0)
    parts = max(1, rows // max(1, count))
    names = ", ".join(quote(name) for name in [column.name for column in plan.walk] or plan.key_columns)
    return plan.matching(f"CRC32(CONCAT_WS(',', {names})) % {parts} = {uuid4().int % parts}")


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


def _refuse_shared(settings: Config, job: Job) -> None:
    """Two jobs that write the same hashes cannot be told apart from outside."""
    for other in settings.jobs.values():
        if other is not job and other.prefix == job.prefix:
            raise ConfigError(
                f"jobs {job.name!r} and {other.name!r} write under the same prefix {job.prefix!r}: which of them a hash"
                " or a field belongs to cannot be told; give each a prefix of its own"
            )
