"""What is wrong with jobs, since when, and what to do: each kind once, however many jobs have it. No I/O."""

import re
from collections.abc import Collection, Iterable

from loader.jobs.status import JobState
from loader.records import dataclass
from loader.report.status import problems_of
from loader.web.views import JobView
from loader.words import counted

NAMES = re.compile(r"'[^']*'|`[^`]*`|\d+")  # in an error; jobs whose errors differ in these fail for the same reason
ORDER = (JobState.FAILED, JobState.LATE, JobState.REJECTS, JobState.UNKNOWN, JobState.PAUSED)


@dataclass(frozen=True, slots=True)
class Incident:
    """Jobs that are in the same state for the same reason; `since` in seconds since 1970, None if unknown."""

    state: JobState
    jobs: tuple[JobView, ...]
    text: str
    since: float | None
    runs: str  # that failed, in words; empty if it is about no runs
    todo: str
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
    if state is JobState.FAILED:
        failures = view.failures
        newer = failures and (status.last is None or failures.last > status.last.ended)
        return failures.error if failures and newer else (status.last.error if status.last else "") or ""
    return ""


def _since(view: JobView, state: JobState) -> float | None:
    """When it began to be wrong."""
    status = view.status
    if state is JobState.FAILED and not status.unread and not status.foreign:
        return view.failures.since if view.failures else status.last.began if status.last else None
    if state is JobState.PAUSED:
        return status.paused or None
    if state is JobState.LATE and status.success and view.max_age:
        return status.success.ended + view.max_age
    return view.asked if state is JobState.UNKNOWN else None


def _incident(state: JobState, jobs: list[JobView], told: Collection[str]) -> Incident:
    text = _text(jobs[0], state)
    since = [each for each in (_since(view, state) for view in jobs) if each is not None]
    count = sum(view.failures.count if view.failures else 1 for view in jobs)
    more = " or more" if any(view.failures and view.failures.more for view in jobs) else ""
    last = jobs[0].status.last
    is_run = state is JobState.FAILED and bool(since)
    by_hand = is_run and len(jobs) == 1 and last is not None and last.slot is None
    return Incident(
        state,
        tuple(jobs),
        "see the problem above" if text and text in told else text,
        min(since, default=None),
        f"{count:,}{more} {'failure' if count == 1 else 'failures'}" if is_run else "",
        _todo(state, jobs),
        f"by hand, {last.host}" if by_hand and last else "",
    )


def _todo(state: JobState, jobs: list[JobView]) -> str:
    """What a person can do."""
    view = jobs[0]
    name = view.status.job if len(jobs) == 1 else "JOB"
    if state is JobState.FAILED:
        if view.status.foreign or view.status.unread:
            return ""  # its text says it
        check = f"`loader doctor {name}` checks both servers"
        again = f"{check}, `loader sync {name}` runs it again."
        return f"It is tried again by itself. {check}." if view.schedule else again
    if state is JobState.REJECTS:
        rows = counted(sum(each.status.rejects for each in jobs), "row")
        why, again = f"`loader rejects list {name}` says why", f"`loader rejects retry {name}` tries them again"
        return f"{rows} could not be written. {why}, {again}."
    if state is JobState.LATE:
        begin = "." if view.schedule else f", `loader sync {name}` runs it."
        return f"`loader runs {name}` shows its last runs{begin}"
    if state is JobState.PAUSED:
        return "It does not run until it is resumed, by the button on its page."
    return (
        "Redis, which keeps their state, does not answer: numbers below are those known last. Jobs go on by themselves."
    )
