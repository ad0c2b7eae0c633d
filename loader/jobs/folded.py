"""The status of jobs whose parts are told as one: the worst state, the oldest success, and how many are in which."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from loader.jobs.status import JobState, JobStatus

WORST_FIRST = (
    JobState.FAILED,
    JobState.UNKNOWN,
    JobState.LATE,
    JobState.REJECTS,
    JobState.STOPPED,
    JobState.NEVER,
    JobState.PAUSED,
    JobState.RUNNING,
    JobState.OK,
)


def folded(statuses: Sequence[JobStatus], part_of: Mapping[str, str]) -> list[JobStatus]:
    """One status for each job: that of a plain job as it is, and those of parts as one, at the place of the first."""
    groups: dict[str, list[JobStatus]] = {}
    for status in statuses:
        groups.setdefault(part_of.get(status.job) or status.job, []).append(status)
    return [_one(job, parts) if part_of.get(parts[0].job) else parts[0] for job, parts in groups.items()]


def _one(job: str, parts: Sequence[JobStatus]) -> JobStatus:
    worst = min(parts, key=lambda each: WORST_FIRST.index(each.state))
    successes = [each.success for each in parts if each.success]
    counts = Counter(each.state for each in parts)
    marks = [each.watermark for each in parts if each.watermark]
    return replace(
        worst,
        job=job,
        late=any(each.late for each in parts),
        holders=(),
        success=min(successes, key=lambda each: each.ended) if len(successes) == len(parts) else None,
        due=min((each.due for each in parts if each.due), default=None),
        watermark=min(marks, default=None),
        rejects=sum(each.rejects for each in parts),
        follow=None,
        unread=tuple(dict.fromkeys(unread for each in parts for unread in each.unread)),
        parts={state: counts[state] for state in WORST_FIRST if counts[state]},
        failed=tuple(each.job for each in parts if each.state is JobState.FAILED),
    )
