"""The state of all jobs and the target, for the pages and the API; while nobody is looking, no server is contacted.

Servers are asked in separate threads, and their answers kept for a moment: a page waits as long as a person does not
notice, and then shows the known state, and the problems.
"""

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from heapq import nsmallest
from typing import Any, TypeVar

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.errors import StateError
from loader.jobs.preview import preview
from loader.jobs.status import JobStatus, job_statuses
from loader.model import Chunk, Node
from loader.redis.client import RedisClient
from loader.redis.servers import ClusterState, describe_cluster
from loader.report.values import shown
from loader.state.history import History, RunRecord
from loader.state.rejects import Rejected, Rejects
from loader.web import job_states
from loader.web.activity import RunTracker
from loader.web.backlog import Backlog
from loader.web.health import Health
from loader.web.job_states import JobStates
from loader.web.job_texts import config_text, masked, sample_text
from loader.web.poller import FIRST, CachedPoll
from loader.web.shared_target import SharedTarget
from loader.web.troubles import told_once
from loader.web.views import LISTED, ClusterView, JobPage, Overview, RejectsPage, RejectView
from loader.wire.slots import SlotMap, slot_of

FRESH = 1.0  # seconds for which the target's answers are reused
HEALTH_FRESH = 5.0  # seconds for which health is reused, which takes a new connection to each server
SAMPLE_FRESH = 300.0  # seconds for which a plan and its sample are reused
RUNS = 50  # of a job's page

T = TypeVar("T")


class Dashboard:
    """The content of the pages and the API for the jobs of a config, which may be replaced."""

    def __init__(self, config: Config, tracker: RunTracker, health: Health, backlog: Backlog | None = None) -> None:
        self._tracker = tracker
        self._backlog = backlog or Backlog(config)
        self._health = CachedPoll(health.reasons, HEALTH_FRESH)
        self._host = socket.gethostname()
        self._target = SharedTarget(config.target)
        self._polls: dict[tuple[str, str], CachedPoll[Any]] = {}  # by their subject, and the job
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Show the jobs of this config from now on."""
        self._stop()
        self._config = config
        self._states = JobStates(config, self._tracker, self._backlog)
        self._target.configure(config.target)
        self._all = self._poll("all", "", self._look, FRESH)
        self._tracker.keep(config.jobs)

    def seed(self, target: RedisClient) -> None:
        """Read the runs of the last hour."""
        for name in self.jobs:
            with suppress(StateError):  # reported by the status of the job
                self._states.learn(target, name)

    def close(self) -> None:
        """Stop asking, and close the connections to the target."""
        self._stop()
        self._target.close()

    @property
    def jobs(self) -> Mapping[str, JobConfig]:
        """The jobs of the config."""
        return self._config.jobs

    @property
    def shows_values(self) -> bool:
        """Whether keys and values of rows may be shown."""
        return self._config.daemon.show_values

    def overview(self) -> Overview:
        """The page of the whole daemon."""
        config, states, poll = self._config, self._states, self._all
        end = time.monotonic() + FIRST
        self._health.begin()
        cluster, told = poll.get() or (None, ())
        health = self._health.get(end - time.monotonic()) or []
        now = states.now()
        late = str(self._backlog.pace())
        problems = [*([poll.problem] if poll.problem else []), *told, *health]
        if cluster and time.time() - poll.at > job_states.STALE:
            cluster = replace(cluster, state=ClusterState.UNKNOWN)
            problems = problems or ["the target has not answered yet"]
        if late and not problems:  # a server that is away makes all late
            problems = [late]
        target = config.target
        parts: dict[str, list[str]] = {}
        jobs = []
        for name, job in config.jobs.items():
            if job.part_of:
                parts.setdefault(job.part_of, []).append(name)
            jobs.append(states.view(job, part_of=job.part_of, rates=not job.part_of))
        return Overview(
            now=now,
            seen=poll.at and poll.at + states.ahead,
            started=self._tracker.since + states.ahead,
            host=self._host,
            source=", ".join(source.address for source in config.named_sources.values()),
            target=target.endpoint,
            jobs=tuple(jobs),
            cluster=cluster,
            problems=told_once(problems),
            rates={job: states.rates(names) for job, names in parts.items()},
        )

    def job(self, name: str) -> JobPage | None:
        """The page of one job; None if there is none of that name."""
        job = self._config.jobs.get(name)
        if job is None:
            return None
        end = time.monotonic() + FIRST
        entries = self._poll("runs", name, lambda: self._ask(lambda target: History(target, name).last(RUNS)), FRESH)
        sample = self._poll("sample", name, lambda: self._sample(name), SAMPLE_FRESH)
        for each in (self._all, entries, sample):
            each.begin()
        found = sample.get(FIRST / 2)
        newest = entries.get(end - time.monotonic())
        self._all.get(end - time.monotonic())
        now = self._states.now()
        statement, command = found or ("", None)
        why = sample.problem or ("the servers have not answered yet: look again" if found is None else "")
        return JobPage(
            now=now,
            view=self._states.view(job),
            entries=None if newest is None else tuple(newest),
            grid=self._tracker.grid(name),
            config=config_text(job),
            statement=statement,
            sample=command and (str(command[0]), sample_text(job, command[1], shows_values=self.shows_values)),
            why=why or ("" if command else "there are no rows"),
        )

    def rejects(self, name: str, *, shows_keys: bool = False) -> RejectsPage | None:
        """The page of the rejects of one job; None if there is none of that name.

        Keys are masked unless the config lets everybody see values, or `shows_keys`.
        """
        job = self._config.jobs.get(name)
        if job is None:
            return None
        end = time.monotonic() + FIRST
        listed = self._poll("rejects", name, lambda: self._ask(lambda target: _listed(target, name)), FRESH)
        self._all.begin()
        found = listed.get(FIRST)
        self._all.get(end - time.monotonic())
        now, view = self._states.now(), self._states.view(job)
        shows_keys = shows_keys or self.shows_values
        if found is None:  # as many as are known
            count = view.status.rejects or None
            why = listed.problem or "Redis has not answered yet: look again"
            return RejectsPage(now, view, count, (), masked=not shows_keys, why=why)
        count, entries, owners = found
        rejects = tuple(_reject(job, entry, owners, shows_key=shows_keys) for entry in entries)
        return RejectsPage(now, view, count, rejects, masked=not shows_keys, why=listed.problem)

    def statuses(self, names: Iterable[str]) -> list[JobStatus]:
        """The status of these jobs, as `loader status` shows it; a `LoaderError` if the target cannot be asked."""
        config = self._config
        jobs = [config.jobs[name] for name in names]
        return self._ask(lambda target: job_statuses(target, config, jobs))

    def runs(self, names: Iterable[str], last: int) -> list[RunRecord]:
        """The newest runs of these jobs, newest first; a `LoaderError` if the target cannot be asked."""
        entries = self._ask(lambda target: [entry for name in names for entry in History(target, name).last(last)])
        return sorted(entries, key=lambda entry: entry.began, reverse=True)[:last]

    def rejected(self, name: str) -> list[Rejected]:
        """The list of rejects of a job; a `LoaderError` if the target cannot be asked."""
        entries = self._ask(lambda target: list(Rejects(target, name).all()))
        return sorted(entries, key=lambda entry: (entry.last, entry.key))

    def cluster(self) -> dict[str, object]:
        """The cluster, as `loader cluster` shows it; a `LoaderError` if the target cannot be asked."""
        return self._ask(describe_cluster)

    def _stop(self) -> None:
        for poll in self._polls.values():
            poll.stop()
        self._polls = {}

    def _poll(self, subject: str, name: str, ask: Callable[[], T], fresh: float) -> CachedPoll[T]:
        return self._polls.setdefault((subject, name), CachedPoll(ask, fresh))

    def _look(self) -> tuple[ClusterView, tuple[str, ...]]:
        states = self._states
        with self._target.open() as target:
            return states.look(target)

    def _ask(self, question: Callable[[RedisClient], T]) -> T:
        """Ask the target."""
        with self._target.open() as target:
            return question(target)

    def _sample(self, name: str) -> tuple[str, tuple[Node, list[bytes]] | None]:
        config = self._config
        if name not in config.jobs:  # it was removed meanwhile
            return "", None
        found = preview(config, config.jobs[name])
        return found.plan.select(Chunk(1)), next(iter(found.commands), None)


def _listed(target: RedisClient, job: str) -> tuple[int, list[Rejected], SlotMap]:
    """How many rejects a job has, the latest of them, latest first, and the owners of their slots."""
    entries = {entry.key: entry for entry in Rejects(target, job).all()}  # one may come twice
    return len(entries), nsmallest(LISTED, entries.values(), key=lambda each: (-each.last, each.key)), target.slots


def _reject(job: JobConfig, entry: Rejected, owners: SlotMap, *, shows_key: bool) -> RejectView:
    slot = slot_of(entry.key)
    return RejectView(
        key=shown(entry.key) if shows_key else masked(job),
        slot=slot if shows_key else None,  # it would reveal many keys
        node=str(owners.node_of(slot)),
        reason=entry.reason,
        first=entry.first,
        last=entry.last,
        attempts=entry.attempts,
    )
