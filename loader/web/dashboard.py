"""How all jobs and the target are, for whoever looks at the status page; nobody looking, nothing is asked.

What is asked of servers is asked in threads of its own, and kept for a moment: a page waits for it as long as a person
does not notice, and then shows what is known, with what is wrong.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from heapq import nsmallest
from typing import Any, TypeVar

from loader.config.files import as_yaml
from loader.config.load import Config
from loader.config.models import JobConfig, ScheduleConfig
from loader.config.servers import TargetConfig
from loader.errors import Kind, StateError, TargetError
from loader.jobs.preview import preview
from loader.jobs.status import JobStatus, ahead, is_late, job_status, questions
from loader.model import Chunk, Node
from loader.redis.client import RedisClient
from loader.redis.servers import describe_cluster
from loader.report.documents import command_text, shown
from loader.report.status import UNITS
from loader.state.history import KEPT, History, RunRecord
from loader.state.rejects import Rejected, Rejects
from loader.web.activity import RunTracker
from loader.web.cluster import look_at
from loader.web.health import PATIENCE, Health
from loader.web.poller import FIRST, CachedPoll
from loader.web.views import LISTED, MINUTES, ClusterView, JobPage, JobView, Overview, RejectsPage, RejectView
from loader.wire.slots import SlotMap, slot_of

FRESH = 1.0  # seconds for which the answers of the target stand
HEALTH_FRESH = 5.0  # seconds for which those about health do, which take a new connection to each server
SAMPLE_FRESH = 300.0  # seconds for which a plan and its sample do
STALE = 10.0  # seconds after which what was heard last is no longer said of now
TURN = 1.0  # seconds that a question waits for those before it
RUNS = 50  # of a job's page
LEARNED = 5  # runs of a job that are looked at where there are new ones, if these are all
MASK = "•••"
DURATIONS = frozenset({"ttl", "deadline", "full_every", "max_age", "lag", "every", "jitter"})  # keys, in seconds

T = TypeVar("T")


class Dashboard:
    """What pages and the API show of the jobs of a config, which may be replaced."""

    def __init__(self, config: Config, record: RunTracker, health: Health) -> None:
        self._record = record
        self._health = CachedPoll(health.reasons, HEALTH_FRESH)
        self._host = socket.gethostname()
        self._target: RedisClient | None = None
        self._opened: TargetConfig | None = None  # what it was opened with
        self._using = threading.Lock()  # the target's connections
        self._glimpses: dict[tuple[str, str], CachedPoll[Any]] = {}  # by what they are of, and the job
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Show the jobs of this config from now on."""
        self._stop()
        self._config = config
        self._statuses: dict[str, JobStatus] = {}
        self._heard: dict[str, float] = {}  # when they were, on the monotonic clock
        self._ahead = 0.0  # seconds by which the target's clock, which all times are told by, is ahead of ours
        self._seen: dict[str, str] = {}  # of each job the newest run that the record has learned of
        self._settings = config.target.model_copy(update={"timeout": min(PATIENCE, config.target.timeout)})
        self._glimpse = self._of("all", "", lambda: self._look(config), FRESH)
        self._record.keep(config.jobs)

    def seed(self, target: RedisClient) -> None:
        """Learn of the runs of the last hour."""
        for name in self.jobs:
            with suppress(StateError):  # which the status of the job tells of
                self._learn(target, name)

    def close(self) -> None:
        """Ask no more, and leave the target."""
        self._stop()
        if self._using.acquire(timeout=FIRST):
            self._drop()
            self._using.release()

    def _stop(self) -> None:
        for glimpse in self._glimpses.values():
            glimpse.stop()
        self._glimpses = {}

    def overview(self) -> Overview:
        """All of the daemon."""
        config, glimpse = self._config, self._glimpse
        cluster, told = glimpse.get() or (None, ())
        health = self._health.get(0) or []
        now = self._now()
        problems = [*([glimpse.problem] if glimpse.problem else []), *told, *health]
        if cluster and time.time() - glimpse.at > STALE:
            cluster = replace(cluster, state="unknown")
            problems = problems or ["the target is being asked, and does not answer"]
        source, target = config.source, config.target
        return Overview(
            now=now,
            seen=glimpse.at and glimpse.at + self._ahead,
            started=self._record.since + self._ahead,
            host=self._host,
            source=source.address,
            target=target.unix_socket or f"{target.host}:{target.port}",
            jobs=tuple(self._view(job) for job in config.jobs.values()),
            cluster=cluster,
            problems=tuple(dict.fromkeys(problems)),
        )

    def job(self, name: str) -> JobPage | None:
        """One job; None where there is none of that name."""
        job = self._config.jobs.get(name)
        if job is None:
            return None
        end = time.monotonic() + FIRST
        entries = self._of("runs", name, lambda: self._asked(lambda t: History(t, name).last(RUNS)), FRESH)
        sample = self._of("sample", name, lambda: self._sample(name), SAMPLE_FRESH)
        for each in (self._glimpse, entries, sample):
            each.begin()
        found = sample.get(FIRST / 2)
        newest = entries.get(end - time.monotonic())
        self._glimpse.get(end - time.monotonic())
        now = self._now()
        statement, command = found or ("", None)
        why = sample.problem or ("MySQL is being asked: look again" if found is None else "")
        return JobPage(
            now=now,
            view=self._view(job),
            entries=tuple(newest or ()),
            grid=self._record.grid(name),
            config=as_yaml({name: effective(job)}),
            statement=statement,
            sample=command and (str(command[0]), self._command(job, command[1])),
            why=why or ("" if command else "there are no rows"),
        )

    def rejects(self, name: str) -> RejectsPage | None:
        """The rejects of one job; None where there is none of that name."""
        job = self._config.jobs.get(name)
        if job is None:
            return None
        end = time.monotonic() + FIRST
        listed = self._of("rejects", name, lambda: self._asked(lambda target: _listed(target, name)), FRESH)
        self._glimpse.begin()
        found = listed.get(FIRST)
        self._glimpse.get(end - time.monotonic())
        now, view = self._now(), self._view(job)
        if found is None:  # as many as are known of
            return RejectsPage(now, view, view.status.rejects, (), masked=not self.shows_values, why=listed.problem)
        count, entries, owners = found
        rejects = [
            RejectView(
                key=shown(entry.key) if self.shows_values else masked(job),
                slot=slot_of(entry.key) if self.shows_values else None,  # which would tell many a key
                node=str(owners.node_of(slot_of(entry.key))),
                reason=entry.reason,
                first=entry.first,
                last=entry.last,
                attempts=entry.attempts,
            )
            for entry in entries
        ]
        return RejectsPage(now, view, count, tuple(rejects), masked=not self.shows_values)

    @property
    def shows_values(self) -> bool:
        """Whether keys and values of rows may be shown."""
        return self._config.daemon.show_values

    def statuses(self, names: Iterable[str]) -> list[JobStatus]:
        """What `loader status` says of these jobs; a `LoaderError` where the target cannot be asked."""
        return self._asked(
            lambda target: [job_status(target, self._config.source, self._config.jobs[name]) for name in names], names
        )

    def runs(self, names: Iterable[str], last: int) -> list[RunRecord]:
        """The newest runs of these jobs, newest first; a `LoaderError` where the target cannot be asked."""
        entries = self._asked(lambda target: [entry for name in names for entry in History(target, name).last(last)])
        return sorted(entries, key=lambda entry: entry.began, reverse=True)[:last]

    def rejected(self, name: str) -> list[Rejected]:
        """The list of rejects of a job; a `LoaderError` where the target cannot be asked."""
        entries = self._asked(lambda target: list(Rejects(target, name).all()))
        return sorted(entries, key=lambda entry: (entry.last, entry.key))

    def cluster(self) -> dict[str, object]:
        """What `loader cluster` says; a `LoaderError` where the target cannot be asked."""
        return self._asked(describe_cluster)

    @property
    def jobs(self) -> Mapping[str, JobConfig]:
        """The jobs of the config."""
        return self._config.jobs

    def _of(self, what: str, name: str, ask: Callable[[], T], fresh: float) -> CachedPoll[T]:
        return self._glimpses.setdefault((what, name), CachedPoll(ask, fresh))

    def _now(self) -> float:
        """What time it is by the target, as far as is known."""
        return time.time() + self._ahead

    def _view(self, job: JobConfig) -> JobView:
        status, schedule, now = self._statuses.get(job.name), job.schedule, self._now()
        progress = self._record.progress(job.name)
        if status is None:
            told = JobStatus(job.name, now, "unknown", False, (), None, None, None, None, 0)  # noqa: FBT003
        else:
            passed = time.monotonic() - self._heard.get(job.name, time.monotonic())
            now = status.now + passed
            late = is_late(job, status.last, status.success, now, status.former)
            state = "late" if late and status.state in {"ok", "rejects"} else status.state
            state = "unknown" if passed > STALE else state  # its node does not answer
            told = replace(status, now=now, late=late, state=state, ahead=ahead(status.success, now))
        if progress:  # known here before the target is asked again
            told = replace(told, state="running")
            progress = replace(progress, began=progress.began + self._ahead)
        return JobView(
            status=told,
            schedule=in_words(schedule) if schedule else "",
            due=self._record.due(job.name) or (status.due if status else None),
            max_age=job.max_age,
            rates=self._record.rates(job.name, time.time()),
            progress=progress,
        )

    def _command(self, job: JobConfig, words: list[bytes]) -> str:
        if self.shows_values:
            return command_text(words)
        names = (word if place % 2 == 0 else MASK.encode() for place, word in enumerate(words[2:]))
        return " ".join(
            [shown(words[0]), masked(job), *(MASK if name == MASK.encode() else shown(name) for name in names)]
        )

    def _sample(self, name: str) -> tuple[str, tuple[Node, list[bytes]] | None]:
        config = self._config
        if name not in config.jobs:  # it was taken out meanwhile
            return "", None
        found = preview(config, config.jobs[name])
        return found.plan.select(Chunk(1)), next(iter(found.commands), None)

    def _asked(self, ask: Callable[[RedisClient], T], names: Iterable[str] = ()) -> T:
        """What the target says."""
        with self._open() as target, target.prefetching(q for n in names for q in questions(self._config.jobs[n])):
            return ask(target)

    def _look(self, config: Config) -> tuple[ClusterView, tuple[str, ...]]:
        """Ask for the cluster and for the state of all jobs, and say what of that cannot be had.

        What one node, or one job, does not tell keeps nobody from the others.
        """
        with self._open() as target:
            cluster = look_at(target, self._record.written())
            nodes: dict[Node, list[JobConfig]] = {}
            for job in config.jobs.values():
                nodes.setdefault(target.slots.node_of(slot_of(f"{{{job.name}}}".encode())), []).append(job)
            silent = {node.node for node in cluster.nodes if node.problem and node.keys is None}
            asked = [jobs for node, jobs in nodes.items() if str(node) not in silent]
            return cluster, tuple(problem for jobs in asked for problem in self._judge(target, jobs))

    def _judge(self, target: RedisClient, jobs: Iterable[JobConfig]) -> Iterator[str]:
        """Find the state of the jobs of one node, and say why that of some cannot be had."""
        try:
            with target.prefetching(question for job in jobs for question in questions(job)):
                for job in jobs:
                    try:
                        status = job_status(target, self._config.source, job)
                        self._heard[job.name], self._ahead = time.monotonic(), status.now - time.time()
                        self._statuses[job.name] = status
                        yield from (f"job {job.name}: {unread}" for unread in status.unread)
                        if status.last and self._seen.get(job.name) != status.last.run:
                            self._learn(target, job.name)
                    except TargetError as error:
                        if error.transient:
                            raise
                        yield f"job {job.name}: {error}"
        except TargetError as error:
            target.mark_stale()
            yield str(error)

    def _learn(self, target: RedisClient, name: str) -> None:
        """Have the record know of a job's runs of the last hour; those since the last time are mostly few."""
        history = History(target, name)
        entries = history.last(LEARNED)
        more = len(entries) == LEARNED and entries[-1].ended > self._now() - 60 * MINUTES
        if more and self._seen.get(name) not in {entry.run for entry in entries}:
            entries = history.last(KEPT)
        self._record.learn(name, entries)
        if entries:
            self._seen[name] = entries[0].run

    @contextmanager
    def _open(self) -> Iterator[RedisClient]:
        """The target, for one at a time; after a failure, on new connections.

        A `TargetError` where others take too long: who asks is answered, whatever hangs.
        """
        if not self._using.acquire(timeout=TURN):
            name = self._settings.unix_socket or f"{self._settings.host}:{self._settings.port}"
            raise TargetError(f"redis {name}: does not answer in time", kind=Kind.UNAVAILABLE)
        try:
            if self._target is None or self._opened is not self._settings:
                self._drop()
                self._target, self._opened = RedisClient(self._settings), self._settings
            yield self._target
        except BaseException:
            self._drop()
            raise
        finally:
            self._using.release()

    def _drop(self) -> None:
        if self._target:
            self._target.close()
        self._target = None


def effective(job: JobConfig) -> dict[str, object]:
    """All keys of a job with what holds for it, as they would be written."""
    return {name: _written(name, value) for name, value in job.model_dump(mode="json").items()}


def _written(name: str, value: object) -> object:
    if isinstance(value, dict) and name != "fields":
        return {inner: _written(inner, each) for inner, each in value.items()}
    if name in DURATIONS and isinstance(value, int):
        return duration(value)
    return f"{value}%" if name == "ttl_jitter" else value


def in_words(schedule: ScheduleConfig) -> str:
    """When a job runs, in the words of the config."""
    jitter = f", up to {duration(schedule.jitter)} later" if schedule.jitter else ""
    return (
        f"every {duration(schedule.every)}" if schedule.every else f"{schedule.cron} ({schedule.timezone})"
    ) + jitter


def duration(seconds: int) -> str:
    """Seconds as a config has them, in the largest unit that leaves a whole number."""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds % size == 0), (1, "s"))
    return f"{seconds // size}{unit}"


def masked(job: JobConfig) -> str:
    """What may be shown of each key of a job."""
    return job.prefix + MASK


def _listed(target: RedisClient, job: str) -> tuple[int, list[Rejected], SlotMap]:
    """How many rejects a job has, the latest of them, latest first, and who owns their slots."""
    entries = {entry.key: entry for entry in Rejects(target, job).all()}  # one may come twice
    return len(entries), nsmallest(LISTED, entries.values(), key=lambda each: (-each.last, each.key)), target.slots
