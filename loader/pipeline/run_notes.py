"""Notes for people about the state that earlier runs have left."""

from collections.abc import Iterator

from loader.mysql.plan import Plan
from loader.pipeline.changed_only import Changes
from loader.state.checkpoint import StateStore
from loader.state.rejects import Rejects

LOST_DIGESTS = (
    "some of what earlier runs have noted of the hashes in loader:{{{job}}}:digests is lost: those rows are written,"
    " and `loader prune` finds hashes whose rows were deleted meanwhile"
)
NAMED = 3  # keys named in a note


def note_fields(plan: Plan, store: StateStore) -> Iterator[str]:
    """Note the fields that hashes may hold, before a row is written; report those that the job no longer has.

    Nothing is known before the first run that ends well.
    """
    job, now, known = plan.job, plan.field_names, store.fields()
    if gone := known - now:
        yield (
            f"hashes that were there before may hold fields that the job no longer has ({', '.join(sorted(gone))}):"
            f" `loader verify {job.name} --repair` deletes them"
        )
    if known:
        store.add_fields(now)


def strange_entries(job: str, rejects: Rejects, changes: Changes | None) -> Iterator[str]:
    """A note on entries and digests of a job that no loader has written, as far as the run found any."""
    if strange := rejects.strange:
        yield (
            f"{len(strange):,} entries of loader:{{{job}}}:rejects were not written by a loader: they were"
            " removed or rewritten"
        )
    if changes and (unread := changes.digests.unread):
        named = ", ".join(sorted(key.decode() for key in unread)[:NAMED])
        lost = LOST_DIGESTS.format(job=job)
        yield f"{lost} ({named}: not written by a loader; rewritten)"
