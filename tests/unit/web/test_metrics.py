"""What Prometheus is told."""

import re
import time

from loader.model import ChunkLoaded, FollowBegan, FollowProgress, Run, RunBegan, RunEnded
from loader.outcome import Kind, Outcome, Reason
from loader.web import metrics as metrics_module
from loader.web.metrics import DETAILED, Counts, FollowMetrics, Metrics

MOST = 250_000  # bytes that Prometheus is sent for 345 jobs
NODES = {f"10.0.0.{number}:6379": 400 for number in range(1, 7)}


def test_what_is_followed():
    """Up to when changes are in Redis is told by job; a follower that begins again counts on."""
    metrics = Metrics()
    metrics.keep({"a": None})
    for _ in range(2):
        listener = FollowMetrics(metrics)
        listener.notify(FollowBegan(("a", "gone"), "0-1-5"))
        listener.notify(FollowProgress(lag=2.0, changes_by_job={"a": 5, "gone": 9}, keys_by_job={"a": 3}))
        listener.notify(FollowProgress(lag=100.0, lag_bytes=9, changes_by_job={"a": 7}, keys_by_job={"a": 4}))

    text = metrics.render().decode()
    assert 'loader_followed_changes_total{job="a"} 14.0' in text
    assert 'loader_followed_keys_total{job="a"} 8.0' in text
    assert 'loader_followed_lag_bytes{job="a"} 9.0' in text
    ((job, moment),) = re.findall(r'^loader_followed_timestamp_seconds\{job="(\w+)"\} (\S+)$', text, re.MULTILINE)
    assert (job, abs(time.time() - 100 - float(moment)) < 5) == ("a", True)


def finished(metrics, job, **facts):
    """A run of a job that loads six chunks' rows, as the daemon tells of it."""
    listener = metrics.listen(job)
    listener.notify(RunBegan(job, "r"))
    listener.notify(ChunkLoaded(None, 2400, 2400, (), NODES, 99_999, 0.1, 0.0))
    run = Run(job, "r", read=2400, written=2400, bytes=99_999, nodes=NODES, seconds=1.25, chunks=1, **facts)
    run.listed, run.watermark = 0, 1.7644262471234567e9
    run.waits = {"busy": 0.5, "slow": 1.5}
    listener.notify(RunEnded(run))


def shown(metrics, pattern):
    """The labels of the series whose names match, with their values."""
    text = metrics.render().decode()
    return re.findall(rf"^{pattern}\{{(.*)\}} (\S+)$", text, re.MULTILINE)


def test_many_jobs_are_told_in_little():
    """345 jobs that do all they can take less than Prometheus minds; the buckets are those of the daemon."""
    metrics = Metrics()
    jobs = [f"shop.student_{number:03}" for number in range(345)]
    metrics.keep(dict.fromkeys(jobs, 600))
    for job in jobs:
        metrics.rescheduled(job, 1.7644262471234567e9)
        metrics.started(job, 0, 0.25)
        metrics.skipped(job, 0, Reason.RUNNING, 1)
        finished(metrics, job)

    text = metrics.render().decode()
    assert len(text) <= MOST
    assert 'loader_run_duration_seconds_bucket{le="2.5"} 345.0' in text
    assert 'loader_run_delay_seconds_bucket{le="0.5"} 345.0' in text
    assert len(shown(metrics, "loader_last_run_duration_seconds")) == len(jobs)
    assert len(re.findall("_bucket{", text)) < 30


def test_no_series_grows_without_bound(monkeypatch):
    """Jobs that do all there is have some twenty each; nodes that are gone, as addresses of pods are, go in time."""
    metrics, now = Metrics(), [1000.0]
    monkeypatch.setattr(metrics_module.time, "monotonic", lambda: now[0])
    jobs = [f"shop.student_{number:03}" for number in range(345)]
    metrics.keep(dict.fromkeys(jobs, 600), jobs)
    for job in jobs:
        metrics.rescheduled(job, 1.7644262471234567e9)
        for reason in Reason:
            metrics.skipped(job, 0, reason, 1)
        finished(metrics, job, outcome=Outcome(Kind.FAULT, "x"))
    metrics.follow(jobs, FollowProgress(lag_bytes=5), FollowProgress())
    text = metrics.render().decode()
    assert len(text) <= 2 * MOST
    assert len([line for line in text.splitlines() if line.startswith("loader_")]) <= 20 * len(jobs)
    for restart in range(100):
        now[0] += 86_400
        metrics.fail(f"10.1.0.{restart}:6379")
        metrics.count(jobs[0], counts({f"10.1.0.{restart}:6379": 1}))
        metrics.render()
    assert len(shown(metrics, "loader_node_errors_total")) == len(shown(metrics, "loader_node_rows_total")) == 31
    assert 'loader_node_errors_total{node="10.1.0.99:6379"} 1.0' in metrics.render().decode()


def counts(nodes):
    made = Counts()
    made.nodes = nodes
    return made


def test_a_job_that_is_no_longer_followed_is_not_behind():
    """A reload takes its series, though its follower may tell once more: nobody is to be woken by what stands still."""
    metrics = Metrics()
    metrics.keep({"a": None, "b": None}, {"a", "b"})
    for followed, seen in (({"a", "b"}, ["a", "b"]), ({"b"}, ["b"])):
        metrics.keep({"a": None, "b": None}, followed)
        metrics.follow(["a", "b"], FollowProgress(lag_bytes=1), FollowProgress())
        for name in ("followed_timestamp_seconds", "followed_lag_bytes"):
            assert [labels for labels, _ in shown(metrics, f"loader_{name}")] == [f'job="{job}"' for job in seen]


def test_details_are_of_each_job_while_jobs_are_few():
    """Beyond a number of jobs they are told of all together; a reload that crosses it begins them again."""
    metrics = Metrics()
    few = [f"job{number}" for number in range(DETAILED)]
    metrics.keep(dict.fromkeys(few))
    finished(metrics, "job0")
    assert ('job="job0",outcome="written"', "2400.0") in shown(metrics, "loader_rows_total")
    assert len(shown(metrics, "loader_rows_total")) == 3 * DETAILED

    metrics.keep(dict.fromkeys([*few, "more"]))
    finished(metrics, "job0")
    finished(metrics, "more")
    assert shown(metrics, "loader_rows_total") == [
        ('job="*",outcome="written"', "4800.0"),
        ('job="*",outcome="unchanged"', "0.0"),
        ('job="*",outcome="rejected"', "0.0"),
    ]
    assert {labels for labels, _ in shown(metrics, "loader_(?:written_bytes|deleted_hashes|retried_chunks)_total")} == {
        'job="*"'
    }
    assert ('job="*",node="10.0.0.1:6379"', "800.0") in shown(metrics, "loader_node_rows_total")
    assert ('job="*",reason="slow"', "3.0") in shown(metrics, "loader_throttled_seconds_total")
    assert ('job="job0"', "4800.0") in shown(metrics, "loader_read_rows_total")

    metrics.keep(dict.fromkeys(few))
    assert 'job="*"' not in metrics.render().decode()
    assert ('job="job0",outcome="written"', "0.0") in shown(metrics, "loader_rows_total")


def test_the_first_failure_is_an_increase():
    """What Prometheus is to see grow is there before: failures always, other ends as soon as a run did not end well."""
    metrics = Metrics()
    metrics.keep({f"job{number}": None for number in range(DETAILED + 1)})
    known = shown(metrics, "loader_runs_total")
    assert [labels for labels, _ in known if '"job0"' in labels] == [
        'job="job0",status="ok"',
        'job="job0",status="failed"',
    ]
    finished(metrics, "job0", outcome=Outcome(Kind.UNAVAILABLE, "gone"))
    assert ('job="job0",status="failed"', "1.0") in shown(metrics, "loader_runs_total")
    assert ('job="job0",status="rejects"', "0.0") in shown(metrics, "loader_runs_total")


def test_a_reload_of_many_jobs_takes_a_moment():
    """To forget jobs takes no look at all series for each."""
    metrics = Metrics()
    for folder in ("a", "b"):
        began = time.thread_time()
        metrics.keep({f"{folder}/{number}": 60.0 if number % 2 else None for number in range(2000)})
        assert time.thread_time() - began < 2
    assert "a/" not in metrics.render().decode()
