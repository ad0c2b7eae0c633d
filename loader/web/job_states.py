"""The state of all jobs, as last read from Redis and updated to now."""

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.errors import TargetError
from loader.jobs.status import JobState, JobStatus, ahead, is_late, job_status, questions
from loader.outcome import Status
from loader.redis.client import RedisClient
from loader.redis.prefetch import Prefetched
from loader.state.history import KEPT, History
from loader.web.activity import RunTracker
from loader.web.backlog import Backlog
from loader.web.cluster import look_at
from loader.web.job_texts import in_words
from loader.web.views import MINUTES, ClusterView, JobView

NEW = 5.0  # seconds in which a status does not change by itself
STALE = 10.0  # seconds for which an answer counts as the current state
LEARNED = 5  # runs of a job that are read if there are new ones, unless all of these are new


class JobStates:
    """The known state of a config's jobs: from Redis, and from `tracker` for the runs in this daemon."""

    def __init__(self, config: Config, tracker: RunTracker, backlog: Backlog) -> None:
        self._config = config
        self._backlog = backlog
        self._tracker = tracker
        self._statuses: dict[str, JobStatus] = {}
        self._heard: dict[str, float] = {}  # when they were, on the monotonic clock
        self._newest: dict[str, str] = {}  # of each job the newest run that the tracker knows
        self.ahead = 0.0  # seconds by which the target's clock, which dates everything, is ahead of ours

    def now(self) -> float:
        """The time by the target's clock, as far as it is known."""
        return time.time() + self.ahead

    def look(self, target: RedisClient) -> tuple[ClusterView, tuple[str, ...]]:
        """Read the cluster and the state of all jobs; returns the cluster, and the problems with jobs.

        A node, or a job, that gives no answer does not block the others.
        """
        cluster = look_at(target, self._tracker.written())
        nodes = target.slots.by_node(self._config.jobs.values(), lambda job: f"{{{job.name}}}".encode())
        silent = {node.node for node in cluster.nodes if node.problem and node.keys is None}
        asked = [jobs for node, jobs in nodes.items() if str(node) not in silent]
        return cluster, tuple(problem for jobs in asked for problem in self._read(target, jobs))

    def learn(self, target: RedisClient, name: str) -> None:
        """Tell the tracker of a job's runs of the last hour; usually few of them are new."""
        history = History(target, name)
        entries = history.last(LEARNED)
        fails = all(entry.status is Status.FAILED for entry in entries)
        more = len(entries) == LEARNED and (fails or entries[-1].ended > self.now() - 60 * MINUTES)
        if more and self._newest.get(name) not in {entry.run for entry in entries}:
            entries = history.last(KEPT)
        self._tracker.learn(name, entries)
        if entries:
            self._newest[name] = entries[0].run

    def rates(self, jobs: Collection[str]) -> tuple[float, ...]:
        """The rows a second of several jobs together, as `JobView.rates` has those of one."""
        return self._tracker.rates_together(jobs, time.time())

    def view(self, job: JobConfig, *, part_of: str = "", rates: bool = True) -> JobView:
        """A job as it is now: its last known state, updated by events here; without `rates` these are left out."""
        name, schedule, now = job.name, job.schedule, self.now()
        status, progress = self._statuses.get(name), self._tracker.progress(name)
        told = self._as_of_now(job, name, status, now)
        known, failures = self._is_known(name), self._tracker.failures(name)
        if progress and not (known or progress.loads):
            progress = None  # while its target is away it has not begun, whatever it tries
        if progress:
            told = replace(told, state=JobState.RUNNING)
            progress = replace(progress, began=progress.began + self.ahead)
        elif not known and failures and told.paused is None and failures.last > (told.last.ended if told.last else 0):
            told = replace(told, state=JobState.FAILED)  # as a run here has seen
        unfollowed = self._tracker.why_unfollowed(name) if job.follow else None
        if unfollowed and known and told.state.is_success:
            told = replace(told, state=JobState.FAILED)
        return JobView(
            status=told,
            schedule=in_words(schedule) if schedule else "",
            due=self._tracker.due(name) or (status.due if status else None),
            max_age=job.max_age,
            rates=self._tracker.rates(name, time.time()) if rates else (),
            progress=progress,
            part_of=part_of,
            failures=failures,
            is_known=known,
            asked=status.now if status else None,
            is_followed=job.follow is not None,
            unfollowed=unfollowed and replace(unfollowed, since=unfollowed.since + self.ahead),
        )

    def _is_known(self, name: str) -> bool:
        heard = self._heard.get(name)
        return heard is not None and time.monotonic() - heard <= STALE

    def _as_of_now(self, job: JobConfig, name: str, status: JobStatus | None, now: float) -> JobStatus:
        if status is None:
            return JobStatus(name, now, JobState.UNKNOWN)
        heard = self._heard.get(name)
        passed = time.monotonic() - heard if heard else 0.0
        if passed < min(NEW, STALE):
            return status
        now = status.now + passed
        lag = status.follow.lag(now) if status.follow else None
        behind = job.name in self._backlog.behind
        late = behind or is_late(job, status.last, status.success, now, status.former, lag)
        late = late and status.paused is None
        state = JobState.LATE if late and status.state.is_success else status.state
        if passed > STALE:  # its node does not answer; a pause lasts until somebody ends it
            state = JobState.UNKNOWN if status.paused is None else JobState.PAUSED
        return replace(status, now=now, late=late, state=state, ahead=ahead(status.success, now))

    def _read(self, target: RedisClient, jobs: Iterable[JobConfig]) -> Iterator[str]:
        """Read the state of the jobs of one node; yields why it is missing for some."""
        try:
            replies = Prefetched(target, (question for job in jobs for question in questions(job)))
            for job in jobs:
                try:
                    status = job_status(replies, self._config.source_of(job), job)
                    self._heard[job.name], self.ahead = time.monotonic(), status.now - time.time()
                    self._statuses[job.name] = status
                    yield from (f"job {job.name}: {unread}" for unread in status.unread)
                    if status.last and self._newest.get(job.name) != status.last.run:
                        self.learn(target, job.name)
                except TargetError as error:
                    if error.transient:
                        raise
                    yield f"job {job.name}: {error}"
        except TargetError as error:
            target.mark_stale()
            yield str(error)
