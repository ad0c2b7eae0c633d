"""Deletes the hashes of a job that have no row."""

from collections.abc import Iterator
from dataclasses import field

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.jobs.editor import HashEditor
from loader.jobs.heard import NOBODY, Heard
from loader.jobs.keyspace import Keyspace
from loader.jobs.orphans import OrphanSearch, Unsure, have
from loader.jobs.rows import JobRows, OrphanKeys
from loader.jobs.session import JobSession, refuse_shared, void_baseline
from loader.jobs.shared_scan import SharedScan
from loader.jobs.turns import ALONE, Turn, Turns, Visits, alone
from loader.pipeline.job_context import JobContext
from loader.pipeline.run import new_id
from loader.records import dataclass
from loader.state.checkpoint import StateStore
from loader.wire.codec import SlotChecksums
from loader.words import counted

MAX_DELETE = 5.0  # percent of a job's keys that may be deleted unless more is allowed


@dataclass(slots=True)
class Pruned:
    """The result of `prune`: of `keys` hashes of the job `extra` had no row, and `deleted` were deleted."""

    job: str
    keys: int = 0
    extra: int = 0
    deleted: int = 0
    unsure: Unsure = field(default_factory=Unsure)
    dry_run: bool = False
    refused: str = ""  # why nothing was deleted


def prune(
    settings: Config,
    job: JobConfig,
    done: Pruned,
    *,
    max_delete: float = MAX_DELETE,
    within: JobContext | None = None,
    scan: SharedScan | None = None,
    heard: Heard = NOBODY,
) -> None:
    """Delete the hashes of a job whose row is gone, unless they are more than `max_delete` percent of its hashes.

    The result is counted into `done` as it progresses. It may be part of a run, `within` whose context, under the same
    lock, it works. The keys in Redis may come from a `scan` for several jobs. `heard` is told how far it is.
    """
    alone(prune_in_turn(settings, job, done, ALONE, max_delete=max_delete, within=within, scan=scan, heard=heard))


def prune_in_turn(
    settings: Config,
    job: JobConfig,
    done: Pruned,
    turns: Turns,
    *,
    max_delete: float = MAX_DELETE,
    within: JobContext | None = None,
    scan: SharedScan | None = None,
    heard: Heard = NOBODY,
) -> Turn[None]:
    """As `prune`, but let other jobs go on while it has to wait."""
    refuse_shared(settings, job)
    pool = scan.pool if scan else None

    def opened(*, again: bool = False) -> JobSession:
        run = "" if done.dry_run else within.held.token if within else new_id()
        return JobSession(settings, job, run, within, pool, again=again)

    search = OrphanSearch()
    with Visits(job, opened, turns, heard) as visits:
        yield from _first_looks(search, visits, done, scan, heard)
        while search.waiting:
            yield from visits.pause(search.waiting.due, search.kept)
            heard.count(done.keys, "key")
            _count(search.look_again(JobRows(visits.session)), done)
        _settle(search, visits.session, done, max_delete)
        if job.full_every and not done.dry_run and visits.is_first:  # else a run may have noted another since
            visits.session.with_retry(StateStore(visits.session.target, job.name).settle_prune)


def _first_looks(
    search: OrphanSearch, visits: Visits, done: Pruned, scan: SharedScan | None, heard: Heard
) -> Turn[None]:
    """Find keys without a row; they wait for another look."""
    session = visits.session
    rows, keyspace = JobRows(session), Keyspace(session)
    made, scanned, moved = SlotChecksums(), SlotChecksums(), set[int]()
    shared = scan.of(session) if scan else None
    found = shared if shared and shared.is_listed else None
    heard.expect(session.plan.expected, session.throttle)
    for _ in rows.tally(made, heard):
        yield from visits.make_way()
    if found:
        scanned, done.keys = found.sums(), sum(map(session.lookup.owns, found.reached))
    for page in () if found else keyspace.scan(moved):
        if page is None:
            scanned, done.keys = SlotChecksums(), 0
            continue
        scanned.add(page.keys)
        heard.count(done.keys, "key")
        done.keys += sum(map(session.lookup.owns, page.reached()))
    if slots := moved.union(made.differing(scanned)):
        keys = found.in_slots(session, slots) if found else keyspace.keys_in(slots)
        _count(search.find(rows, keys, slots), done)


def _count(found: Iterator[OrphanKeys], done: Pruned) -> None:
    """Count hashes without a row, and those that are none of the job's."""
    for orphans in found:
        done.extra += len(orphans.own)
        done.keys -= len(orphans.unsure) + orphans.others
        done.unsure.add(orphans.unsure)


def _settle(search: OrphanSearch, session: JobSession, done: Pruned, max_delete: float) -> None:
    """Delete what was found, unless it is too much."""
    if done.extra > done.keys * max_delete / 100:
        done.refused = (
            f"{done.extra:,} of {counted(done.keys, 'hash')} of job {done.job!r} {have(done.extra)} no row,"
            " which is more than"
            f" --max-delete {max_delete:g}%: nothing was deleted; check that the table is complete"
        )
    elif done.extra and not done.dry_run:
        void_baseline(session)
        rows, keyspace = JobRows(session), Keyspace(session)
        gone = search.found(rows, keyspace)
        delete(HashEditor(rows), keyspace, gone, int(done.keys * max_delete / 100), done)
        session.check()


def delete(editor: HashEditor, keyspace: Keyspace, found: Iterator[list[bytes]], most: int, done: Pruned) -> None:
    """Unlink hashes right after they were looked up once more, and never more than `most`."""
    for keys in found:
        part = keys[: most - done.deleted]
        done.deleted += editor.unlink(part, keyspace.moving)
        if done.deleted >= most:
            return
