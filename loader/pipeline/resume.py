"""Whether a run can resume from the checkpoint of an earlier one."""

from collections.abc import Mapping
from dataclasses import replace

from loader.errors import ConfigError, StateError
from loader.mysql.plan import Plan
from loader.mysql.sql import fits
from loader.redis.client import RedisClient
from loader.state.checkpoint import Checkpoint, StateStore, difference
from loader.state.markers import Markers, lacking


def unfinished(
    target: RedisClient, store: StateStore, plan: Plan, facts: Mapping[str, str], *, scheduled: bool
) -> tuple[Checkpoint | None, str]:
    """The checkpoint of an earlier run of the same plan whose rows are still there; or None, and why it does not fit.

    A `scheduled` run resumes only work for the same slot, because rows that were read for an earlier one are old; any
    other starts over. By hand, a checkpoint of another plan is a `ConfigError`, and one that cannot be read is a
    `StateError`.
    """
    try:
        saved = store.read()
        if saved is None:
            return None, ""
        slot = {} if scheduled else {name: value for name, value in saved.facts.items() if name == "slot"}
        changed = difference(saved.facts, {**facts, **slot})
        if not changed and not all(fits(plan.walk, end) for end in saved.ends):
            raise store.misfit()
    except StateError as error:
        if not scheduled:
            raise
        return None, f"{error.what}: everything is loaded"
    if changed:
        if scheduled:
            return None, f"starting over: the checkpoint belongs to a different run: {changed}"
        raise ConfigError(
            f"job {plan.job.name!r} has a checkpoint of another plan: {changed}:"
            " --restart forgets it and loads everything"
        )
    lost = _lost(target, store, saved)
    return (None, lost) if lost else (replace(saved, facts={**saved.facts, **facts}), "")


def _lost(target: RedisClient, store: StateStore, saved: Checkpoint) -> str:
    """How the target has lost rows since a checkpoint was saved, for people; empty if it has not."""
    seen = Markers(target, store.marker, saved.run, saved.markers).read()
    if gone := [key for key, there in seen.items() if there is None]:
        return f"the target was emptied since the checkpoint: markers are gone ({', '.join(gone)})"
    if lacking(seen, [(key, *each) for key, fields in saved.marks.items() for each in fields.items()]):
        return (
            "the target has lost writes since the checkpoint: a replica without them has taken over,"
            " or a master came back from an older snapshot"
        )
    return ""
