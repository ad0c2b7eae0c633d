"""Metrics of runs for Prometheus; the only module that imports its client library.

`Metrics` is told of runs through one listener each, and of the schedule directly; its counts last as long as the
process, as Prometheus expects. A series for each job has to be cheap: with many jobs, details are counted for all of
them together, and the buckets of a histogram are those of the process.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.metadata import version

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from loader.model import SKEW, ChunkLoaded, FollowBegan, FollowProgress, Run, RunBegan, RunEnded, RunEvent, Waiting
from loader.outcome import Reason, Status
from loader.pipeline.throttle import Throttle
from loader.wire.codec import COMPILED

CONTENT_TYPE = CONTENT_TYPE_LATEST
DURATIONS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)
DELAYS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
OUTCOMES = ("written", "unchanged", "rejected")
DETAILED = 50  # jobs at most that have details of their own
NODE_KEPT = 30 * 86400.0  # seconds for which a node is told that nothing is written to any more
TOGETHER = "*"  # the job of details that are of all jobs; it is the name of none

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, which nobody reads


class Metrics:
    """The metrics of one process; any thread may count and read."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._jobs: frozenset[str] | None = None  # those of the config; None: any
        self._followed: frozenset[str] | None = None  # those that the config has followed; None: any
        self._is_detailed = True
        self._nodes: dict[str, float] = {}  # when each was written to last or failed, on the monotonic clock
        self._under_way: dict[str, int] = {}  # runs, including those of jobs that a reload removed
        self._successes: dict[str, float] = {}  # when each job's last success ended, seconds since 1970

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"loader_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"loader_{name}", text, labels, registry=registry)

        self._runs = counter("runs_total", "Finished runs.", "job", "status")
        self._read = counter("read_rows_total", "Rows read from MySQL.", "job")
        self._rows = counter("rows_total", "Rows read from MySQL, by outcome.", "job", "outcome")
        self._deleted = counter("deleted_hashes_total", "Hashes deleted because their row is gone.", "job")
        self._bytes = counter("written_bytes_total", "Bytes of commands sent to Redis.", "job")
        self._retried = counter("retried_chunks_total", "Chunks that were loaded again.", "job")
        self._waited = counter("throttled_seconds_total", "Seconds that workers waited.", "job", "reason")
        self._skipped = counter("skipped_runs_total", "Scheduled slots without a run.", "job", "reason")
        self._node_rows = counter("node_rows_total", "Rows written, by master.", "job", "node")
        self._node_errors = counter("node_errors_total", "Chunks that failed because of a Redis node.", "node")
        self._seconds = Histogram(
            "loader_run_duration_seconds", "How long runs took.", buckets=DURATIONS, registry=registry
        )
        self._delay = Histogram(
            "loader_run_delay_seconds", "How late scheduled runs began.", buckets=DELAYS, registry=registry
        )
        self._took = gauge("last_run_duration_seconds", "How long the last run took.", "job")
        self._running = gauge("running", "Runs in progress.", "job")
        self._rejects = gauge("rejects", "Rows on the list of rejects, at the end of the last run here.", "job")
        self._success = gauge("last_success_timestamp_seconds", "When the last success ended.", "job")
        self._max_age = gauge("max_age_seconds", "How old the last success may be before the job is late.", "job")
        self._next = gauge("next_run_timestamp_seconds", "When the next run is due.", "job")
        self._watermark = gauge("watermark_timestamp_seconds", "The time up to which all changes are in Redis.", "job")
        self._followed_to = gauge(
            "followed_timestamp_seconds", "The time up to which all changes in the binlog are in Redis.", "job"
        )
        self._behind = gauge(
            "followed_lag_bytes", "Bytes of binlog that are not in Redis yet, if they are known.", "job"
        )
        self._changes = counter("followed_changes_total", "Changes of followed rows that the binlog told.", "job")
        self._keys = counter("followed_keys_total", "Rows read again because they had changed.", "job")
        self._overdue = gauge("jobs_behind_schedule", "Jobs whose due times come faster than their runs.")
        build = gauge("build_info", "This program.", "version", "encoder")
        build.labels(version("mysql-redis-loader"), "compiled" if COMPILED else "python").set(1)
        ProcessCollector(registry=registry)

    def count_behind(self, count: Callable[[], int]) -> None:
        """Count the jobs that are behind their schedule whenever it is asked for."""
        self._overdue.set_function(count)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        self._forget_nodes()
        return generate_latest(self._registry)

    def listen(self, job: str) -> "MetricsListener":
        """A listener for one run of a job."""
        return MetricsListener(self, job)

    def keep(self, max_ages: Mapping[str, float | None], followed: Collection[str] | None = None) -> None:
        """Keep only series of these jobs, each with its `max_age`, and of those `followed`; counters begin at 0."""
        jobs = frozenset(max_ages)
        with self._lock:
            before = self._jobs or frozenset()
            self._jobs, was_detailed = jobs, self._is_detailed
            self._is_detailed = len(jobs) <= DETAILED
            self._followed = None if followed is None else frozenset(followed)
        for job in jobs - self._followed if self._followed is not None else ():
            self._followed_to.remove(job)
            self._behind.remove(job)
        self._forget(before - jobs)
        if was_detailed:
            self._forget_details(before - jobs if self._is_detailed else before)
        elif self._is_detailed:
            self._forget_details({TOGETHER})
        for job, max_age in max_ages.items():
            for status in Status if self._is_detailed else (Status.OK, Status.FAILED):
                self._runs.labels(job, status.value)
            self._read.labels(job)
            label = self._detail_of(job)
            for outcome in OUTCOMES:
                self._rows.labels(label, outcome)
            for metric in (self._deleted, self._bytes, self._retried):
                metric.labels(label)
            self._set_running(job, 0)
            if max_age is None:
                self._max_age.remove(job)
            else:
                self._max_age.labels(job).set(max_age)

    def recall(self, successes: Mapping[str, float]) -> None:
        """Note successes (seconds since 1970) before this process: its start makes no job younger or older."""
        for job, moment in successes.items():
            if moment <= time.time() + SKEW:  # otherwise a wrong clock dated it, so its age is unknown
                self._succeed(job, moment)

    def started(self, job: str, slot: int, late: float) -> None:
        """A run of a slot begins, this many seconds late."""
        del slot
        if self._knows(job):
            self._delay.observe(max(0.0, late))

    def ended(self, run: Run, slot: int) -> None:
        """A run of a slot is over; its own listener got the details."""

    def crashed(self, job: str, slot: int, error: BaseException) -> None:
        """A run failed with a bug in this program; its own listener was told of its end."""

    def skipped(self, job: str, slot: int, reason: Reason, count: int) -> None:
        """This many slots, of which this is the first, have no run here; one done elsewhere is a success."""
        if self._knows(job):
            self._skipped.labels(job, reason.value).inc(count)
        if reason is Reason.ELSEWHERE:
            self._succeed(job, slot)

    def rescheduled(self, job: str, due: float | None) -> None:
        """The next run of a job is due, in seconds since 1970; None: never."""
        if due is None:
            self._next.remove(job)
        elif self._knows(job):
            self._next.labels(job).set(due)

    def follow(self, jobs: Iterable[str], progress: FollowProgress, before: FollowProgress) -> None:
        """Count what came of following some jobs, over one stream, since the last time."""
        for job in filter(self._knows, jobs):
            if self._followed is not None and job not in self._followed:  # a reload has taken that away
                continue
            self._followed_to.labels(job).set(time.time() - progress.lag)
            if progress.lag_bytes is None:
                self._behind.remove(job)
            else:
                self._behind.labels(job).set(progress.lag_bytes)
            label = self._detail_of(job)
            self._changes.labels(label).inc(progress.changes_by_job.get(job, 0) - before.changes_by_job.get(job, 0))
            self._keys.labels(label).inc(progress.keys_by_job.get(job, 0) - before.keys_by_job.get(job, 0))

    def _set_running(self, job: str, change: int) -> None:
        with self._lock:
            self._under_way[job] = count = self._under_way.get(job, 0) + change
        if self._knows(job):
            self._running.labels(job).set(count)

    def _succeed(self, job: str, moment: float) -> None:
        with self._lock:
            self._successes[job] = moment = min(time.time(), max(moment, self._successes.get(job, 0.0)))
        if self._knows(job):
            self._success.labels(job).set(moment)

    def _knows(self, job: str) -> bool:
        return self._jobs is None or job in self._jobs

    def _detail_of(self, job: str) -> str:
        """The label of a job's details: its name, unless there are too many jobs."""
        return job if self._is_detailed else TOGETHER

    def _forget(self, jobs: Iterable[str]) -> None:
        """Remove the series of jobs, without a look at those of other jobs."""
        states = (self._read, self._running, self._rejects, self._success, self._max_age, self._next)
        for job in jobs:
            for metric in (*states, self._watermark, self._followed_to, self._behind, self._took):
                metric.remove(job)
            for status in Status:
                self._runs.remove(job, status.value)
            for reason in Reason:
                self._skipped.remove(job, reason.value)

    def _forget_details(self, jobs: Iterable[str]) -> None:
        """Remove the details of jobs; they are few."""
        loaded = (self._rows, self._deleted, self._bytes, self._retried, self._waited, self._node_rows)
        for metric in (*loaded, self._changes, self._keys):
            for job in jobs:
                metric.remove_by_labels({"job": job})

    def _forget_nodes(self) -> None:
        """Remove the series of nodes that are gone: in some places each restart gives one a new address."""
        for node in [node for node, at in list(self._nodes.items()) if time.monotonic() - at > NODE_KEPT]:
            del self._nodes[node]
            self._node_rows.remove_by_labels({"node": node})
            self._node_errors.remove_by_labels({"node": node})

    def begin(self, job: str) -> None:
        """A run begins."""
        self._set_running(job, 1)

    def fail(self, node: str) -> None:
        """A node failed a chunk."""
        self._nodes[node] = time.monotonic()
        self._node_errors.labels(node).inc()

    def count(self, job: str, more: "Counts") -> None:
        """Count the news of a run."""
        if not self._knows(job):
            return
        self._read.labels(job).inc(more.read)
        label = self._detail_of(job)
        for outcome, rows in zip(OUTCOMES, (more.written, more.unchanged, more.rejected), strict=True):
            self._rows.labels(label, outcome).inc(rows)
        self._deleted.labels(label).inc(more.deleted)
        self._bytes.labels(label).inc(more.bytes)
        for node, rows in more.nodes.items():
            self._nodes[node] = time.monotonic()
            self._node_rows.labels(label, node).inc(rows)
        for reason, seconds in more.waits.items():
            self._waited.labels(label, reason).inc(seconds)

    def end(self, run: Run) -> None:
        """A run is over."""
        job = run.job
        self._set_running(job, -1)
        if not self._knows(job):
            return
        if run.did_nothing:  # the schedule reports the outcome of its slot
            return
        if run.status is not Status.OK:
            for status in Status:  # each from 0, so that the first one is seen as an increase
                self._runs.labels(job, status.value)
        self._runs.labels(job, run.status.value).inc()
        self._seconds.observe(run.seconds)
        self._took.labels(job).set(run.seconds)
        self._retried.labels(self._detail_of(job)).inc(run.chunks_retried)
        if run.outcome.is_success:
            self._succeed(job, time.time())
        if run.listed is not None:
            self._rejects.labels(job).set(run.listed)
        if run.watermark is not None:
            self._watermark.labels(job).set(run.watermark)


class Counts:
    """The counts of a run so far."""

    def __init__(self) -> None:
        self.read = self.written = self.unchanged = self.rejected = self.deleted = self.bytes = 0
        self.nodes: dict[str, int] = {}
        self.waits: dict[str, float] = {}

    def add(self, event: ChunkLoaded) -> None:
        """Count a chunk."""
        self.read += event.read
        self.written += event.written
        self.unchanged += event.unchanged
        self.rejected += len(event.rejects)
        self.deleted += event.deleted
        self.bytes += event.bytes
        for node, rows in event.nodes.items():
            self.nodes[node] = self.nodes.get(node, 0) + rows

    def rest(self, run: Run) -> "Counts":
        """Count the rest of a finished run; a chunk that was loaded twice counts twice."""
        rest = Counts()
        for name in ("read", "written", "unchanged", "rejected", "deleted", "bytes"):
            setattr(rest, name, max(0, getattr(run, name) - getattr(self, name)))
        rest.nodes = {node: max(0, rows - self.nodes.get(node, 0)) for node, rows in run.nodes.items()}
        rest.waits = {reason: max(0.0, s - self.waits.get(reason, 0.0)) for reason, s in run.waits.items()}
        return rest

    def wait(self, before: Mapping[str, float], now: Mapping[str, float]) -> "Counts":
        """Count the waiting since the last call, and return it."""
        more = Counts()
        more.waits = {reason: s - before.get(reason, 0.0) for reason, s in now.items()}
        for reason, seconds in more.waits.items():
            self.waits[reason] = self.waits.get(reason, 0.0) + seconds
        return more


class MetricsListener:
    """Counts one run into the metrics: chunks as they are loaded, the rest at its end."""

    def __init__(self, metrics: Metrics, job: str) -> None:
        self._metrics = metrics
        self._job = job
        self._counted = Counts()
        self._throttle = Throttle()
        self._waited: Mapping[str, float] = {}  # by this throttle, when it was last read

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Note the object that counts the waiting; a run that starts over has another one."""
        del rows
        self._throttle, self._waited = throttle, {}

    def notify(self, event: RunEvent | None) -> None:
        """Count an event, and the waiting until then."""
        waited = self._throttle.waited()
        if waited != self._waited:
            self._metrics.count(self._job, self._counted.wait(self._waited, waited))
            self._waited = waited
        if isinstance(event, RunBegan):
            self._metrics.begin(self._job)
        elif isinstance(event, Waiting) and event.node:
            self._metrics.fail(event.node)
        elif isinstance(event, ChunkLoaded):
            self._counted.add(event)
            counts = Counts()
            counts.add(event)
            self._metrics.count(self._job, counts)
        elif isinstance(event, RunEnded):
            self._metrics.count(self._job, self._counted.rest(event.run))
            self._metrics.end(event.run)


class FollowMetrics:
    """Counts what is followed over one stream into the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._jobs: tuple[str, ...] = ()
        self._last = FollowProgress()

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Nothing is counted of a pass over all rows."""

    def notify(self, event: RunEvent | None) -> None:
        """Count an event."""
        if isinstance(event, FollowBegan):
            self._jobs, self._last = event.jobs, FollowProgress()
        elif isinstance(event, FollowProgress):
            self._metrics.follow(self._jobs, event, self._last)
            self._last = event
