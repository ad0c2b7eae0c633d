"""Compares MySQL and Redis: finds hashes that are missing, different or left over, and repairs them.

Rows are read as for loading, with a `HashChecker` in the writer's place. For the other direction SCAN reads the keys of
each master; checksums per slot limit the lookups in MySQL to slots whose keys do not add up. Differences are checked
again after a pause, and count if they persist: a row may change meanwhile.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import field, replace
from enum import StrEnum

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.jobs import recheck
from loader.jobs.editor import HashEditor
from loader.jobs.heard import NOBODY, Heard
from loader.jobs.keyspace import Keyspace
from loader.jobs.orphans import OrphanSearch, Unsure, have
from loader.jobs.prune import MAX_DELETE, Pruned, delete
from loader.jobs.recheck import Waiting
from loader.jobs.rows import JobRows, OrphanKeys
from loader.jobs.session import JobSession, refuse_shared, void_baseline
from loader.jobs.shared_scan import Found, SharedScan
from loader.jobs.turns import ALONE, Turn, Turns, Visits, alone
from loader.mysql.chunker import chunk_ranges
from loader.mysql.sample import sample as drawn
from loader.pipeline.run import new_id
from loader.records import dataclass
from loader.redis.checker import Mismatch
from loader.state.checkpoint import StateStore
from loader.wire.codec import SlotChecksums
from loader.words import counted

FEW = 10  # hashes that `repair` may delete even if they are a larger share


class DifferenceKind(StrEnum):
    """How a hash differs from what its row says."""

    MISSING = "missing"
    DIFFERENT = "different"
    EXTRA = "extra"  # no row makes it


MISSING, DIFFERENT, EXTRA = DifferenceKind


@dataclass(frozen=True, slots=True)
class Difference:
    """A hash that is not what its row says; `detail` names the fields."""

    key: bytes
    kind: DifferenceKind
    detail: str = ""


@dataclass(slots=True)
class Verdict:
    """The result of `verify`: `rows` of MySQL were compared, `shown` are the first differences."""

    job: str
    rows: int = 0
    missing: int = 0
    different: int = 0
    extra: int = 0
    repaired: int = 0
    hashes: int | None = None  # of a sample
    unsure: Unsure = field(default_factory=Unsure)
    shown: list[Difference] = field(default_factory=list)
    refused: str = ""  # why extra hashes were not deleted

    @property
    def is_equal(self) -> bool:
        """Whether nothing differed."""
        return not (self.missing or self.different or self.extra)


class _Suspects:
    """Rows whose hash differed at a first check, in bounded memory.

    Their `keys` will be checked again; `odd` are those whose row cannot be looked up by its key; beyond `PENDING`, only
    the kinds are counted.
    """

    def __init__(self, session: JobSession) -> None:
        self._fits = session.lookup.fits
        self.keys: list[bytes] = []
        self.odd: list[Mismatch] = []
        self.beyond: Counter[DifferenceKind] = Counter()

    def append(self, each: Mismatch) -> None:
        if len(self.keys) + len(self.odd) >= recheck.PENDING:
            self.beyond[_kind(each)] += 1
        elif self._fits(each.key):
            self.keys.append(each.key)
        else:
            self.odd.append(each)


class Verify:
    """One verification, in one or more sessions; see `verify`."""

    def __init__(self, job: str, *, whole: bool, repair: bool, show: int, heard: Heard) -> None:
        self.verdict = Verdict(job)
        self._whole = whole
        self._repair = repair
        self._show = show
        self._heard = heard
        self._waiting = Waiting()  # rows whose hash differs
        self._search = OrphanSearch()
        self._present = SlotChecksums()

    def enter(self, session: JobSession) -> None:
        """Work in this session from now on."""
        self._session = session
        self._rows = JobRows(session)
        self._keyspace = Keyspace(session)
        self._editor = HashEditor(self._rows)
        if self._repair:
            void_baseline(session)
        self._heard.expect(session.plan.expected if self._whole else None, session.throttle)
        self._heard.count(self.verdict.rows)

    @property
    def is_waiting(self) -> bool:
        """Whether something has to be looked at again."""
        return bool(self._waiting or self._search.waiting)

    @property
    def due(self) -> float:
        """When all that waits may be looked at again, on the monotonic clock."""
        return max(self._waiting.due, self._search.waiting.due)

    @property
    def kept(self) -> int:
        """How many keys are in memory."""
        return self._waiting.count + self._search.kept

    def rows(self, statements: Iterable[str]) -> Iterator[None]:
        """Compare the rows of statements with their hashes, one after another."""
        for statement in statements:
            count, suspects, rejects = self._rows.compare(statement, lambda: _Suspects(self._session), self._present)
            self.verdict.rows += count
            self._heard.count(self.verdict.rows)
            self._note(MISSING, [Difference(each.key, MISSING, each.reason) for each in rejects])
            self._waiting.add(1, suspects.keys)
            self._conclude([self._settled(each) for each in suspects.odd])
            for kind, number in suspects.beyond.items():
                self._count(kind, number)
            while self._waiting.is_pressing:
                self._look_at_next()
            yield

    def keys(self, found: Found | None) -> None:
        """Look for hashes without a row, among those that were `found` for several jobs."""
        scanned, moved = found.sums() if found else SlotChecksums(), set[int]()
        count = 0
        for page in () if found else self._keyspace.scan(moved):
            if page:
                scanned.add(page.keys)
            else:
                scanned, count = SlotChecksums(), 0
            count += len(page.keys) if page else 0
            self._heard.count(count, "key")
        slots = moved.union(self._present.differing(scanned))
        self._present = SlotChecksums()
        if slots:
            listed = found.in_slots(self._session, slots) if found and found.is_listed else None
            self._note_extra(self._search.find(self._rows, listed or self._keyspace.keys_in(slots), slots))

    def sampled_keys(self, count: int) -> None:
        """Look for hashes that no row makes among `count` keys taken at random."""
        keys = self._keyspace.random_keys(count)
        self.verdict.hashes = len(keys)
        self._note_extra(self._search.find(self._rows, [keys]))

    def look_again(self) -> None:
        """Look once more at all that waits, each once its pause is over."""
        for _ in range(len(self._waiting)):
            self._look_at_next()
        self._note_extra(self._search.look_again(self._rows))

    def delete(self) -> None:
        """Delete the hashes without a row, unless they are too many."""
        extra = self.verdict.extra
        total = self.verdict.rows - self.verdict.missing + extra
        most = max(int(total * MAX_DELETE / 100), min(FEW, total // 2)) if self.verdict.rows else 0
        if extra > most:
            self.verdict.refused = (
                f"{extra:,} of {counted(total, 'hash')} {have(extra)} no row,"
                f" and --repair deletes at most {most:,}:"
                f" see `loader prune {self.verdict.job} --dry-run`, which can be allowed to delete more"
            )
            return
        deleted = Pruned(self.verdict.job)
        delete(self._editor, self._keyspace, self._search.found(self._rows, self._keyspace), most, deleted)
        self.verdict.repaired += deleted.deleted

    def _note_extra(self, found: Iterable[OrphanKeys]) -> None:
        for orphans in found:
            self._note(EXTRA, [Difference(key, EXTRA, "no row makes it") for key in orphans.own])
            self.verdict.unsure.add(orphans.unsure)

    def _look_at_next(self) -> None:
        looks, keys = self._waiting.pop(self._session.throttle.sleep)
        asked = set(keys)
        statement = self._session.plan.matching(self._session.lookup.condition(keys))
        count, unequal, _ = self._rows.compare(statement, list[Mismatch])
        self._session.throttle.take_back(count)  # they were counted when they were first looked at
        still = [settled for each in unequal if each.key in asked and (settled := self._settled(each)).is_unequal]
        if looks + 1 < recheck.LOOKS:
            self._waiting.add(looks + 1, [each.key for each in still])
        else:
            self._conclude(still)

    def _settled(self, each: Mismatch) -> Mismatch:
        """Follow the redirection of a key that its node could not read."""
        if each.found is not None or each.reason:
            return each
        return replace(each, found=self._rows.hash_of(each.key))

    def _conclude(self, unequal: list[Mismatch]) -> None:
        """Count differences, and repair them if requested."""
        unequal = [each for each in unequal if each.is_unequal]
        for kind in (MISSING, DIFFERENT):
            found = [Difference(each.key, kind, _detail(each)) for each in unequal if _kind(each) == kind]
            self._note(kind, found)
        if self._repair and unequal:
            self.verdict.repaired += self._mend(unequal)

    def _note(self, kind: DifferenceKind, found: list[Difference]) -> None:
        self._count(kind, len(found))
        self.verdict.shown += found[: max(0, self._show - len(self.verdict.shown))]

    def _count(self, kind: DifferenceKind, number: int) -> None:
        setattr(self.verdict, kind.value, getattr(self.verdict, kind.value) + number)

    def _mend(self, unequal: list[Mismatch]) -> int:
        """Write missing or wrong hashes, and delete fields without a column; return how many hashes are right now."""
        keys = [each.key for each in unequal if self._session.lookup.fits(each.key)]
        if not keys:
            return 0
        _, rejects = self._editor.reload(keys)
        refused = {reject.key for reject in rejects}
        fields = {name for name, _ in self._session.plan.layout.fields}
        stale = [
            (each.key, [b"HDEL", each.key, *gone])
            for each in unequal
            if each.key not in refused and (gone := set(each.found or ()) - fields)
        ]
        if stale:
            self._editor.send(stale)
        return len(set(keys) - refused - set(self._rows.without_row(keys)))


def verify(
    settings: Config,
    job: JobConfig,
    *,
    sample: int | None = None,
    repair: bool = False,
    show: int = 0,
    heard: Heard = NOBODY,
    scan: SharedScan | None = None,
) -> Verdict:
    """Compare all rows of a job with all its hashes, or about `sample` of each; with `repair`, repair differences.

    A sample is empty only if the job has neither rows nor hashes.

    The first `show` differences are kept for the reader; `heard` is told how far it is. The keys in
    Redis may come from a `scan` for several jobs.
    """
    return alone(verify_in_turn(settings, job, ALONE, sample=sample, repair=repair, show=show, heard=heard, scan=scan))


def verify_in_turn(
    settings: Config,
    job: JobConfig,
    turns: Turns,
    *,
    sample: int | None = None,
    repair: bool = False,
    show: int = 0,
    heard: Heard = NOBODY,
    scan: SharedScan | None = None,
) -> Turn[Verdict]:
    """As `verify`, but let other jobs go on while it has to wait."""
    refuse_shared(settings, job)
    pool = scan.pool if scan else None

    def opened(*, again: bool = False) -> JobSession:
        return JobSession(settings, job, new_id() if repair else "", pool=pool, again=again)

    audit = Verify(job.name, whole=sample is None, repair=repair, show=show, heard=heard)
    with Visits(job, opened, turns, heard) as visits:
        audit.enter(visits.session)
        yield from _first_looks(audit, visits, sample, None if sample else scan)
        while audit.is_waiting:
            if (yield from visits.pause(audit.due, audit.kept)):
                audit.enter(visits.session)
            audit.look_again()
        session = visits.session
        if repair and sample is None and audit.verdict.extra:
            audit.delete()
        session.check()
        if repair and sample is None and not audit.verdict.refused:
            session.with_retry(lambda: StateStore(session.target, job.name).set_fields(session.plan.field_names))
    return audit.verdict


def _first_looks(audit: Verify, visits: Visits, sample: int | None, scan: SharedScan | None) -> Turn[None]:
    """Compare the rows, and look for hashes without one; what differs waits for another look."""
    session = visits.session
    plan, fetch = session.plan, session.fetch
    chunks = (plan.select(chunk) for chunk in chunk_ranges(plan, plan.job.chunk_rows, fetch))
    for _ in audit.rows(drawn(plan, sample, fetch, lambda: audit.verdict.rows) if sample else chunks):
        yield from visits.make_way()
    if sample:
        audit.sampled_keys(sample)
    else:
        audit.keys(scan.of(session) if scan else None)


def _kind(each: Mismatch) -> DifferenceKind:
    return DIFFERENT if each.found or each.reason else MISSING


def _detail(each: Mismatch) -> str:
    """Which fields differ, are missing, or have no column; empty if there is no hash."""
    if each.reason or not each.found:
        return f"it holds {each.reason}" if each.reason else ""
    found = each.found
    wrong = [name for name, value in each.wanted.items() if name in found and found[name] != value]
    absent = [name for name in each.wanted if name not in found]
    stale = [name for name in found if name not in each.wanted]
    kinds = (("wrong", wrong), ("missing", absent), ("stale", stale))
    return "; ".join(f"{kind} {', '.join(n.decode(errors='replace') for n in names)}" for kind, names in kinds if names)
