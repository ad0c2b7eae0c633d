"""Both sides held against each other: hashes that are missing, different or left over, and how that is mended.

Rows go to Redis by the way that loads them, with a `Reader` in the writer's place. For the other direction SCAN goes
over each master; its keys are told apart by slot, so that only the slots whose keys do not add up are looked up in
MySQL. What differs is looked at again after a pause, and counts when it still does: a row may change meanwhile.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

from loader import both as sides
from loader.both import Both, delete, extras
from loader.config import Config
from loader.encoder import Tally
from loader.errors import ConfigError
from loader.load import persist
from loader.lookup import TOGETHER
from loader.model import Reject
from loader.plan import quote
from loader.reader import Unequal
from loader.settings import Job
from loader.state import Rejects
from loader.walk import walk

MAX_DELETE = 5.0  # percent of a job's keys that may be deleted unless more is allowed
FEW = 10  # hashes that `repair` may delete even where they are more than that
NULL_KEY = "a column of the key is NULL"  # what such a row is rejected for

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
            while self._waiting and (self._waiting[0][0] <= time.monotonic() or self._pending() > sides.PENDING):
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
        for look in range(sides.LOOKS):
            gone = [
                key
                for start in range(0, len(gone), TOGETHER)
                for key in both.without_row(gone[start : start + TOGETHER])
            ]
            if gone and look < sides.LOOKS - 1:
                both.throttle.sleep(sides.PAUSE)
        self._note("extra", [Difference(key, "extra", "no row makes it") for key in both.hashes_among(gone)])

    def _pending(self) -> int:
        return sum(len(keys) for _, _, keys in self._waiting)

    def _again(self, looks: int, keys: list[bytes]) -> None:
        for start in range(0, len(keys), TOGETHER):
            self._waiting.append((time.monotonic() + sides.PAUSE, looks, keys[start : start + TOGETHER]))

    def _look_again(self) -> None:
        due, looks, keys = self._waiting.popleft()
        self._both.throttle.sleep(due - time.monotonic())
        asked = set(keys)
        owned = [key for key in keys if self._both.lookup.owns(key)]
        _, unequal = self._both.look(self._both.plan.matching(self._both.lookup.condition(owned)))
        unequal = [self._settled(each) for each in unequal if each.key in asked]
        still = [each for each in unequal if each.reason or each.found != each.wanted]
        if looks + 1 < sides.LOOKS:
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
            yield from (words for words in both.commands(part) if words[1] in part)


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


def _refuse_shared(settings: Config, job: Job) -> None:
    """Two jobs that write the same hashes cannot be told apart from outside."""
    for other in settings.jobs.values():
        if other is not job and other.prefix == job.prefix:
            raise ConfigError(
                f"jobs {job.name!r} and {other.name!r} write under the same prefix {job.prefix!r}: which of them a hash"
                " or a field belongs to cannot be told; give each a prefix of its own"
            )
