"""The checks of the loader's state for one job."""

from collections.abc import Iterator, Mapping

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.doctor.findings import Check, Finding, fail, ok, unchecked, warn
from loader.doctor.redis import RedisProbe
from loader.errors import StateError
from loader.model import SKEW
from loader.records import dataclass
from loader.state.baseline import Baselines
from loader.state.checkpoint import StateStore
from loader.state.claim import Claims, claim_of
from loader.state.digests import Digests
from loader.state.history import History
from loader.state.holders import check_fence, holders
from loader.state.rejects import Rejects
from loader.state.schedule import ScheduleState
from loader.wire.slots import slot_of
from loader.words import counted


@dataclass(frozen=True, slots=True)
class JobState:
    """A job, and the Redis that holds its state; `is_read`: its source was reached."""

    settings: Config
    job: JobConfig
    redis: RedisProbe
    is_read: bool


def _readable(check: Check[JobState]) -> Check[JobState]:
    """The same check, failing if one of the loader's own keys was not written by this program."""

    def look(kept: JobState) -> list[Finding]:
        try:
            return list(check(kept))
        except StateError as error:
            return [_unreadable(kept, error)]

    return look


def _unreadable(kept: JobState, error: StateError) -> Finding:
    node = kept.redis.target.slots.node_of(slot_of(error.key.encode()))
    own = error.command.startswith("loader ")
    return fail(error.what, error.command if own else kept.redis.cli("DEL", error.key, node=node))


def _state(kept: JobState) -> Iterator[Finding]:
    """Whether the state left by runs and people can be read."""
    target, name = kept.redis.target, kept.job.name
    state, schedule, history = StateStore(target, name), ScheduleState(target, name), History(target, name)
    wrong = False
    for read in (
        history.last,
        history.success,
        schedule.slot,
        schedule.paused,
        state.fields,
        Baselines(target, name).read,
        Digests(target, name, "").check_entries,
    ):
        try:
            read()
        except StateError as error:
            wrong = True
            yield _unreadable(kept, error)
    if history.odd:
        yield _unreadable(kept, history.odd)
    elif not wrong:
        yield ok("the state left by runs can be read")


@_readable
def _lock(kept: JobState) -> Iterator[Finding]:
    check_fence(kept.redis.target, kept.job.name)
    held = holders(kept.redis.target, kept.job.name)
    for holder in held:
        yield ok(f"held by run {holder.run} (host {holder.host}, pid {holder.pid}) since {holder.since}")
    if not held:
        yield ok("nobody holds it")


@_readable
def _checkpoint(kept: JobState) -> Iterator[Finding]:
    name = kept.job.name
    saved = StateStore(kept.redis.target, name).read()
    if saved is None:
        yield ok("no backfill is unfinished")
    elif any(not each.yields for each in holders(kept.redis.target, name)):
        yield ok(f"run {saved.run} is in progress")
    else:
        owed = counted(len(saved.owed), "chunk")
        more = "" if saved.ended else ", and what follows"
        yield warn(f"run {saved.run} is unfinished and owes {owed}{more}", f"loader backfill {name}")


@_readable
def _rejects(kept: JobState) -> Iterator[Finding]:
    count = sum(1 for _ in Rejects(kept.redis.target, kept.job.name).all())
    if count:
        yield warn(f"{counted(count, 'row')} could not be written", f"loader rejects list {kept.job.name}")
    else:
        yield ok("none are listed")


@_readable
def _name(kept: JobState) -> Iterator[Finding]:
    """Whether the job's name belongs to another config in this target.

    An address that cannot be read may be wrong itself: that runs read from another one does not make it another config.
    """
    claims, own = Claims(kept.redis.target, kept.job.name), claim_of(kept.settings.source_of(kept.job), kept.job)
    there = claims.differing(own)
    if not there:
        yield ok("not claimed by another config")
    elif there.keys() == {"source"} and not kept.is_read:
        yield warn(
            f"not known: its runs so far read from {there['source']!r}, and {own['source']!r} cannot be read:"
            " is that address right?"
        )
    else:
        yield fail(claims.refusal(own), f"loader sync {kept.job.name} --restart  # if the job has moved")


def _times(kept: JobState) -> Iterator[Finding]:
    """Whether anything is dated in the future, so by a wrong clock; the loader's own times come from Redis's."""
    schedule = ScheduleState(kept.redis.target, kept.job.name)
    history = History(kept.redis.target, kept.job.name)
    success = slot = None
    unread = []
    try:
        success = history.success()
    except StateError:  # reported by `_state`
        unread.append("its last success")
    try:
        slot = schedule.slot()
    except StateError:
        unread.append("the last slot that was done")
    now = history.now()
    seen = [f"its last success by {success.ended - now:.0f} s"] if success and success.ended > now + SKEW else []
    if over := (slot or {}).get("ahead"):
        seen.append(f"the last slot that was done by {over - now:.0f} s")
    if seen:
        yield warn(
            f"{' and '.join(seen)} in the future by redis's clock: a clock is or was wrong; neither counts",
            "timedatectl set-ntp true  # on the machine whose clock is wrong",
        )
    elif unread:
        yield unchecked(f"{' and '.join(unread)} cannot be read")
    else:
        yield ok("nothing is dated in the future")


KEPT: Mapping[str, Check[JobState]] = {
    "name": _name,
    "times": _times,
    "lock": _lock,
    "checkpoint": _checkpoint,
    "rejects": _rejects,
    "state": _state,
}
