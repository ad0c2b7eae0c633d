"""Whether all rows of a job have to be read before it can be followed, and from where it is followed then."""

from enum import StrEnum

from loader.errors import ConfigError
from loader.mysql.binlog_origin import Origin
from loader.mysql.followed_key import FollowedKey, followed_key
from loader.mysql.key_text import check_column, zone_of
from loader.pipeline.job_context import JobContext
from loader.pipeline.run import new_id
from loader.state.baseline import Baselines
from loader.state.checkpoint import difference
from loader.state.markers import Markers, lacking
from loader.state.position import FollowedPosition, Positions

FIRST = "it was not followed before"


class Begin(StrEnum):
    """From where a job is followed, whatever was followed before."""

    START = "start"  # all rows are read
    NOW = "now"  # a sync reads those that have changed since the last one


def why_all(context: JobContext, stored: FollowedPosition | None, key: FollowedKey, begin: Begin | None = None) -> str:
    """Why all rows have to be read before a job can be followed; empty if its position vouches for them.

    A `ConfigError` if it shall begin now, and nothing vouches for the rest, or its position does.
    """
    if begin is Begin.START:
        return "--from start asks for it"
    why = _why_all(context, stored, key)
    if begin is Begin.NOW:
        _check_begin(context, why, stored)
    return why


def _why_all(context: JobContext, stored: FollowedPosition | None, key: FollowedKey) -> str:
    """Why all rows have to be read before the job can be followed, whatever was asked for."""
    if stored is None:
        return FIRST
    if stored.owed:
        return stored.owed
    if changed := facts_differ(context, stored, key):
        return f"the plan was changed: {changed}"
    marker = Positions(context.target, context.plan.job.name).marker
    seen = Markers(context.target, marker, stored.run, stored.markers, passing=False).read()
    if None in seen.values():
        return "the target was emptied, in part or whole: markers are gone"
    if lacking(seen, [(key, *each) for key, fields in stored.marks.items() for each in fields.items()]):
        return "the target has lost writes since"
    return ""


def first_position(now: Origin, context: JobContext, key: FollowedKey, why: str) -> FollowedPosition:
    """Where the binlog ended a moment ago; all rows are still to be read, and why."""
    position = now.position
    return FollowedPosition(
        now.server, position.file, position.offset, position.gtids, _facts(context, key), new_id(), why
    )


def key_of(context: JobContext) -> FollowedKey:
    """The columns of the job's key in the followed table; a `PlanError` if the binlog does not tell their texts."""
    key = context.on_side_connection(lambda source: followed_key(source, context.plan, context.table))
    zone = context.source_config.time_zone
    for column in key.columns:
        check_column(column, zone_of(zone) if zone else None)
    return key


def facts_differ(context: JobContext, stored: FollowedPosition, key: FollowedKey) -> str | None:
    """What was changed in the plan since a position was taken; None if nothing."""
    return difference(stored.facts, _facts(context, key))


def _facts(context: JobContext, key: FollowedKey) -> dict[str, str]:
    return context.plan.facts() | key.facts()


def _check_begin(context: JobContext, why: str, stored: FollowedPosition | None) -> None:
    """Raise a `ConfigError` if nothing vouches for the hashes that are there, so that all rows have to be read."""
    name = context.plan.job.name
    if not why:
        raise ConfigError(f"job {name!r} was followed before, and goes on from there: leave out --from now")
    baseline = Baselines(context.target, name).read()
    if stored is not None or baseline is None or baseline.void:
        raise ConfigError(
            f"job {name!r}: --from now: no sync vouches for the hashes that are there: give the job `incremental` or"
            " `changed_only` and sync it, or leave out --from now, and all rows are read"
        )
