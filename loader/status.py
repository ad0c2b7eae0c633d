"""How a job is doing: what its history, its lock, its schedule and its rejects say together. MySQL is not asked."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from loader.cron import next_times
from loader.errors import StateError
from loader.history import Entry, History, watermark
from loader.lock import Holder, holders
from loader.settings import Job, Schedule
from loader.state import Rejects, State
from loader.target import Target, Words

T = TypeVar("T")

OVERDUE = 300  # seconds after a slot within which a run may end well before the job counts as late


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job at one moment; times are seconds since 1970.

    `state` is running, paused, never (it has not run), late, or how the last run ended; `late` is told beside it too.
    A job is late where its last success is older than its `max_age`, or, without one, a slot has passed without a
    success.
    """

    job: str
    now: float
    state: str
    late: bool
    holders: tuple[Holder, ...]
    last: Entry | None
    success: Entry | None
    due: float | None  # the next slot
    watermark: float | None
    rejects: int
    paused: float | None = None  # since when its schedule is
    problems: tuple[str, ...] = ()  # what of its state cannot be read, and what mends it


def job_status(target: Target, job: Job) -> JobStatus:
    """How a job is doing, by its target."""
    history, problems = History(target, job.name), list[str]()

    def read(ask: Callable[..., T], otherwise: T) -> T:
        try:
            return ask()
        except StateError as error:
            problems.append(str(error))
            return otherwise

    now = time.time()
    entries: list[Entry] = read(history.last, [])
    last = next(iter(entries), None)
    problems += [str(history.odd)] if history.odd else []
    unknown = bool(problems)
    success = read(history.success, None)
    held: tuple[Holder, ...] = read(lambda: holders(target, job.name), ())
    late = is_late(job, last, success, now)
    unread: float | None = 0.0
    paused = read(State(target, job.name).paused, unread)
    mark: float | None = read(lambda: watermark(target, job), None)
    rejects = read(Rejects(target, job.name).count, 0)
    ended = "unknown" if unknown else _state(last, late=late)
    return JobStatus(
        job=job.name,
        now=now,
        state="running" if held else "paused" if paused is not None else ended,
        late=late,
        holders=held,
        last=last,
        success=success,
        due=next_time(job.schedule, now) if job.schedule else None,
        watermark=mark,
        rejects=rejects,
        paused=paused,
        problems=tuple(problems),
    )


def questions(job: Job) -> list[tuple[bytes, Words]]:
    """What `job_status` asks the target in any case, to be asked at once for many jobs, see `Target.foreseeing`."""
    state = f"loader:{{{job.name}}}:"
    asked: list[Words] = [
        ("LRANGE", f"{state}runs", 0, 0),
        ("GET", f"{state}success"),
        ("HGETALL", f"{state}lock"),
        ("HLEN", f"{state}rejects"),
        ("GET", f"{state}paused"),
    ]
    if job.incremental:
        asked.append(("GET", f"{state}baseline"))
    return [(str(words[1]).encode(), words) for words in asked]


def is_late(job: Job, last: Entry | None, success: Entry | None, now: float) -> bool:
    """Whether a job has gone without a success for too long; not before it has run at all."""
    if last is None:
        return False
    if job.max_age is not None:
        return success is None or now - success.ended > job.max_age
    if job.schedule is None or success is None:
        return False
    slot = next_time(job.schedule, success.began)
    return now - slot > OVERDUE + (job.schedule.jitter or 0)


def next_time(schedule: Schedule, after: float) -> float:
    """The first slot after a moment."""
    return next_times(schedule, datetime.fromtimestamp(after, UTC), 1)[0].timestamp()


def _state(last: Entry | None, *, late: bool) -> str:
    if last is None:
        return "never"
    return "late" if late and last.status in {"ok", "rejects"} else last.status
