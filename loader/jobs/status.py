"""The status of a job, from its history, its lock, its schedule and its rejects. MySQL is not contacted."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from loader.config.cron import next_times
from loader.config.load import Config
from loader.config.models import JobConfig, ScheduleConfig
from loader.config.servers import SourceConfig
from loader.errors import StateError
from loader.model import SKEW
from loader.outcome import Status
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.key_reader import KeyReader, Question, Words
from loader.redis.prefetch import Prefetched
from loader.state.claim import Claims, claim_of
from loader.state.history import History, RunRecord, is_of, watermark
from loader.state.holders import Holder, holders
from loader.state.position import FollowedPosition, position_of
from loader.state.rejects import Rejects
from loader.state.schedule import ScheduleState
from loader.state_keys import own_key

T = TypeVar("T")

UNKNOWN: float | None = 0.0  # since when a schedule is paused if that cannot be read
WELL, CALM = 3, 4  # of `attention`: nothing went wrong, nobody needs to look
JUDGED = 20  # runs, among which the last one that tells how a job is
OVERDUE = 300  # seconds after a slot in which a run may succeed before the job counts as late


class JobState(StrEnum):
    """How a job is doing, in one word; the last four say how its last run ended."""

    UNKNOWN = "unknown"  # its target cannot be asked, or what it holds cannot be read
    NEVER = "never"  # it has not run yet
    RUNNING = "running"
    PAUSED = "paused"
    LATE = "late"  # its last success is too long ago
    OK = Status.OK.value
    REJECTS = Status.REJECTS.value
    FAILED = Status.FAILED.value
    STOPPED = Status.STOPPED.value

    @property
    def is_success(self) -> bool:
        """Whether it says that the last run loaded all rows, rejected ones aside."""
        return self in {JobState.OK, JobState.REJECTS}


@dataclass(frozen=True, slots=True)
class FollowState:
    """Up to where in the binlog a job was followed, and whether someone follows it now."""

    position: FollowedPosition
    is_running: bool

    def lag(self, now: float) -> float | None:
        """Seconds for which changes may be missing in Redis; None if that is not known."""
        return self.position.age(now, is_running=self.is_running)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job at one moment; times are seconds since 1970.

    `late` is told beside a `state` of another name too, but not of a paused job. A job is late if its last success
    is older than its `max_age`, and so is what it was followed to, or, without one, a slot has passed without a
    success; and if its last success is in the future by the target's clock, `ahead` by as many seconds: its age is
    unknown. Of a job whose name is another config's `foreign` says how it differs: its runs fail. A success of
    another statement than its config has now, or of other fields, is `former`. `unread` tells what of its state no
    loader has written, and the fix.
    """

    job: str
    now: float
    state: JobState
    late: bool = False
    holders: tuple[Holder, ...] = ()
    last: RunRecord | None = None
    success: RunRecord | None = None
    due: float | None = None  # the next slot
    watermark: float | None = None
    rejects: int = 0
    paused: float | None = None  # since when its schedule is
    ahead: float = 0.0
    foreign: str = ""
    former: RunRecord | None = None
    unread: tuple[str, ...] = ()
    follow: FollowState | None = None  # of a job that has a position
    parts: Mapping[JobState, int] | None = None  # how many are in which state, of a job whose parts are told as one
    failed: tuple[str, ...] = ()  # parts of it

    @property
    def runs(self) -> tuple[Holder, ...]:
        """The holders that run it; one that follows it is none."""
        return tuple(each for each in self.holders if not each.yields)

    @property
    def follow_lag(self) -> float | None:
        """Seconds for which changes may be missing in Redis, by the binlog; None if that is not known."""
        return self.follow.lag(self.now) if self.follow else None


def job_status(target: KeyReader, source: SourceConfig, job: JobConfig) -> JobStatus:
    """The status of a job, from its target, whose clock is used."""
    history, unread = History(target, job.name), list[str]()

    def read(ask: Callable[[], T], otherwise: T) -> T:
        try:
            return ask()
        except StateError as error:
            unread.append(str(error))
            return otherwise

    now = history.now()
    foreign = read(lambda: Claims(target, job.name).refusal(claim_of(source, job)), "")
    entries = [] if foreign else read(history.last, list[RunRecord]())
    unread += [str(history.odd)] if history.odd else []
    last, unknown = next(iter(entries), None), bool(unread)
    success = None if foreign else read(history.success, None)
    former = None if success is None or is_of(success, source, job) else success
    success = None if former else success
    held: tuple[Holder, ...] = read(lambda: holders(target, job.name), ())
    position = None if foreign else read(lambda: position_of(target, job.name), None)
    follow = FollowState(position, any(each.yields for each in held)) if position else None
    paused = read(ScheduleState(target, job.name).paused, UNKNOWN)
    late = paused is None and is_late(job, last, success, now, former, follow.lag(now) if follow else None)
    ended = JobState.UNKNOWN if unknown else _state(_judged(job, history, last), late=late)
    busy = any(not each.yields for each in held)
    state = JobState.RUNNING if busy else JobState.PAUSED if paused is not None else ended
    mark = read(lambda: watermark(target, job), None)
    rejects = read(Rejects(target, job.name).count, 0)
    return JobStatus(
        job=job.name,
        now=now,
        state=JobState.FAILED if foreign else state,
        late=late,
        holders=held,
        last=last,
        success=success,
        due=next_time(job.schedule, now) if job.schedule and paused is None else None,
        watermark=mark,
        rejects=rejects,
        paused=paused,
        ahead=ahead(success, now),
        foreign=foreign,
        former=former,
        unread=tuple(unread),
        follow=follow,
    )


def _judged(job: JobConfig, history: History, last: RunRecord | None) -> RunRecord | None:
    """The run whose end is the state of a job: of one that runs by itself, not one by hand that did not end well."""
    if last is None or not last.is_by_hand or last.status.is_success or not (job.schedule or job.follow):
        return last
    with suppress(StateError):
        earlier = history.last(JUDGED)
        return next((each for each in earlier if not each.is_by_hand or each.status.is_success), last)
    return last


def job_statuses(target: RedisClient, settings: Config, jobs: Sequence[JobConfig]) -> list[JobStatus]:
    """The status of jobs, asked for with one pipeline for each node."""
    replies = Prefetched(target, (question for job in jobs for question in questions(job)))
    return [job_status(replies, settings.source_of(job), job) for job in jobs]


def attention(status: JobStatus) -> int:
    """How much a job needs to be looked at, the most urgent first: failed, late, rejects, paused, the rest."""
    if status.state is JobState.FAILED or status.unread:
        return 0
    if status.late or status.state is JobState.LATE:
        return 1
    if status.rejects or status.state is JobState.REJECTS:
        return 2
    return 3 if status.state is JobState.PAUSED else CALM


def questions(job: JobConfig) -> list[Question]:
    """The commands that `job_status` always sends to the target, so that they can be sent at once for many jobs."""
    runs = own_key(job.name, "runs")
    asked: list[Words] = [
        ("LRANGE", runs, 0, 0),
        ("GET", own_key(job.name, "success")),
        ("HGETALL", own_key(job.name, "lock")),
        ("HLEN", own_key(job.name, "rejects")),
        ("GET", own_key(job.name, "paused")),
        ("GET", own_key(job.name, "claim")),
        ("GET", own_key(job.name, "position")),
    ]
    if job.incremental:
        asked.append(("GET", own_key(job.name, "baseline")))
    return [(runs.encode(), ("TIME",)), *((str(words[1]).encode(), words) for words in asked)]


def ahead(success: RunRecord | None, now: float) -> float:
    """Seconds by which a success is in the future because a clock is or was wrong; 0 if it is not."""
    beyond = success.ended - now if success else 0.0
    return beyond if beyond > SKEW else 0.0


def is_late(
    job: JobConfig,
    last: RunRecord | None,
    success: RunRecord | None,
    now: float,
    former: RunRecord | None = None,
    lag: float | None = None,
) -> bool:
    """Whether a job has had no success for too long; not before it has run at all.

    `former` is a success of an earlier version of its config; for `lag` seconds changes in the binlog may be missing.
    """
    if last is None:
        return False
    if job.max_age is not None and lag is not None and lag <= job.max_age:
        return False
    if ahead(success, now):
        return job.max_age is not None or job.schedule is not None
    if job.max_age is not None:
        return success is None or now - success.ended > job.max_age
    success = success or former
    if job.schedule is None or success is None:
        return False
    slot = next_time(job.schedule, min(success.began, now))
    return now - slot > OVERDUE + (job.schedule.jitter or 0)


def next_time(schedule: ScheduleConfig, after: float) -> float:
    """The first slot after a moment."""
    return next_times(schedule, datetime.fromtimestamp(after, UTC), 1)[0].timestamp()


def _state(last: RunRecord | None, *, late: bool) -> JobState:
    if last is None:
        return JobState.NEVER
    return JobState.LATE if late and last.status.is_success else JobState(last.status)
