"""What is wrong with jobs, since when, and what to do: each kind once, however many jobs have it. No I/O."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping

from loader.jobs.status import JobState
from loader.records import dataclass
from loader.report.status import problems_of
from loader.web.views import JobView, Unfollowed
from loader.words import counted

NAMES = re.compile(r"'[^']*'|`[^`]*`|\d+")  # in an error; jobs whose errors differ in these fail for the same reason
ORDER = (JobState.FAILED, JobState.LATE, JobState.REJECTS, JobState.UNKNOWN, JobState.PAUSED)
OLD = "numbers below are those known last"


@dataclass(frozen=True, slots=True)
class Incident:
    """Jobs that are in the same state for the same reason; `since` in seconds since 1970, None if unknown."""

    state: JobState
    jobs: tuple[JobView, ...]
    text: str
    since: float | None
    runs: str  # that failed, in words; empty if it is about no runs
    todo: str
    part_of: str = ""  # the job of which all of them are parts
    by: str = ""  # the person or machine whose run by hand failed


def incidents(views: Iterable[JobView], told: Collection[str] = ()) -> list[Incident]:
    """What needs attention, the most urgent first; a text that was `told` before is not repeated."""
    groups: dict[tuple[JobState, str], list[JobView]] = {}
    for view in views:
        state = _wrong(view)
        if state:
            groups.setdefault((state, NAMES.sub("…", _text(view, state))), []).append(view)
    found = [_incident(state, jobs, told) for (state, _), jobs in groups.items()]
    return sorted(found, key=lambda each: (ORDER.index(each.state), -len(each.jobs), each.jobs[0].status.job))


def is_incident(view: JobView) -> bool:
    """Whether a job is among those that need attention, which tell its problems."""
    return _wrong(view) in {JobState.FAILED, JobState.LATE}


def _wrong(view: JobView) -> JobState | None:
    """The state for which somebody has to look at a job."""
    status = view.status
    if status.state is JobState.FAILED or status.unread:
        return JobState.FAILED
    if not view.is_known and view.asked is None:
        return JobState.UNKNOWN
    if status.state is JobState.PAUSED or status.paused is not None:
        return JobState.PAUSED
    if not view.is_known:
        return JobState.UNKNOWN
    if status.late or status.state is JobState.LATE:
        return JobState.LATE
    return JobState.REJECTS if status.rejects or status.state is JobState.REJECTS else None


def _text(view: JobView, state: JobState) -> str:
    status = view.status
    problems = problems_of(status)
    if problems and state in {JobState.FAILED, JobState.LATE}:
        return "; ".join(problems)
    if state is JobState.LATE:
        return view.waits
    if state is JobState.FAILED:
        failures = view.failures
        newer = failures and (status.last is None or failures.last > status.last.ended)
        if unfollowed := _unfollowed(view):
            return f"not followed: {unfollowed.why}"
        return failures.error if failures and newer else (status.last.error if status.last else "") or ""
    return ""


def _unfollowed(view: JobView) -> Unfollowed | None:
    """Why a job is not followed, if that is what is wrong with it, and not a run."""
    last = view.status.last
    return view.unfollowed if not view.failures and (last is None or last.status.is_success) else None


def _since(view: JobView, state: JobState) -> float | None:
    """When it began to be wrong."""
    status = view.status
    if state is JobState.FAILED and not status.unread and not status.foreign:
        if unfollowed := _unfollowed(view):
            return unfollowed.since
        return view.failures.since if view.failures else status.last.began if status.last else None
    if state is JobState.PAUSED:
        return status.paused or None
    if state is JobState.LATE and view.age is not None and view.max_age:
        return status.now - view.age + view.max_age
    return view.asked if state is JobState.UNKNOWN else None


def _incident(state: JobState, jobs: list[JobView], told: Collection[str]) -> Incident:
    text = _text(jobs[0], state)
    since = [each for each in (_since(view, state) for view in jobs) if each is not None]
    count = sum(view.failures.count if view.failures else 1 for view in jobs)
    more = " or more" if any(view.failures and view.failures.more for view in jobs) else ""
    last = jobs[0].status.last
    is_run = state is JobState.FAILED and bool(since) and not _unfollowed(jobs[0])
    wholes = {view.part_of for view in jobs}
    by_hand = is_run and len(jobs) == 1 and last is not None and last.is_by_hand
    return Incident(
        state,
        tuple(jobs),
        "see the problem above" if text and text in told else text,
        min(since, default=None),
        f"{count:,}{more} {'failure' if count == 1 else 'failures'}" if is_run else "",
        _todo(state, jobs),
        wholes.pop() if len(wholes) == 1 else "",
        f"by hand, {last.host}" if by_hand and last else "",
    )


def _todo(state: JobState, jobs: list[JobView]) -> str:
    """What a person can do."""
    todo = TODO[state](jobs[0], jobs[0].status.job if len(jobs) == 1 else "JOB")
    if state is JobState.REJECTS:
        rows = counted(sum(each.status.rejects for each in jobs), "row")
        return f"{rows} could not be written. {todo}"
    return todo


def _todo_failed(view: JobView, name: str) -> str:
    if view.status.foreign or view.status.unread:
        return ""  # its text says it
    check = f"`loader doctor {name}` checks both servers"
    return (
        f"Tried again by itself. {check}." if view.runs_by_itself else f"{check}, `loader sync {name}` runs it again."
    )


def _todo_late(view: JobView, name: str) -> str:
    if view.waits:
        return "Followed again by itself once that is over."
    return (
        f"`loader runs {name}` shows its last runs{'' if view.runs_by_itself else f', `loader sync {name}` runs it'}."
    )


TODO: Mapping[JobState, Callable[[JobView, str], str]] = {
    JobState.FAILED: _todo_failed,
    JobState.LATE: _todo_late,
    JobState.REJECTS: lambda _, name: (
        f"`loader rejects list {name}` says why, `loader rejects retry {name}` tries them again."
    ),
    JobState.PAUSED: lambda *_: "No run begins until it is resumed, by the button on its page.",
    JobState.UNKNOWN: lambda view, _: (
        f"Redis, which keeps their state, does not answer: {'nothing is known yet' if view.asked is None else OLD}."
        " They go on once it does."
    ),
}
