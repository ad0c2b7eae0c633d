"""Schedules that are not kept: who is behind, when it is told, and what would help."""

import pytest

from loader.config.load import Config
from loader.jobs.pace import Pace
from loader.model import Run
from loader.outcome import Reason
from loader.web import backlog as module
from loader.web.backlog import Backlog
from loader.web.metrics import Metrics
from support.database import Clock


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    clock.process_time = lambda: 0.0
    monkeypatch.setattr(module, "time", clock)
    return clock


def backlog(count=3, every="5s"):
    jobs = {f"j{n}": {"table": "t", "key": f"j{n}_{{id}}", "schedule": {"every": every}} for n in range(count)}
    return Backlog(
        Config.model_validate(
            {
                "version": 1,
                "source": {"url": "mysql://root@localhost/test"},
                "target": {"url": "redis://localhost"},
                "jobs": jobs,
            }
        )
    )


def run(kept, clock, job, due, seconds):
    kept.started(job, due, 0.0)
    clock.now += seconds
    kept.ended(Run(job=job, id="r"), due)


def test_behind_until_a_due_time_is_done_before_the_next(clock):
    """A due time that comes while the one before is not done puts a job behind; one done in time ends that."""
    kept = backlog()
    kept.skipped("j1", 10, Reason.RUNNING, 1)
    assert kept.behind == {"j1"}
    run(kept, clock, "j1", 5, 7.0)
    assert kept.behind == {"j1"}
    run(kept, clock, "j1", 15, 1.0)
    assert kept.behind == set()
    kept.skipped("j2", 20, Reason.PAUSED, 1)
    kept.skipped("j2", 25, Reason.ELSEWHERE, 1)
    assert kept.behind == set()


def test_it_is_told_once(clock):
    """Once jobs have been behind for a while; again only after all schedules were kept for a while."""
    kept = backlog()
    kept.skipped("j1", 10, Reason.RUNNING, 1)
    assert kept.news() == ""
    clock.now += module.SETTLED
    assert kept.news().startswith("1 of 3 schedules is not kept (j1): ")
    kept.skipped("j2", 10, Reason.RUNNING, 1)
    clock.now += module.SETTLED
    assert kept.news() == ""
    run(kept, clock, "j1", 15, 1.0)
    run(kept, clock, "j2", 15, 1.0)
    assert kept.news() == ""
    clock.now += module.QUIET + 1
    assert kept.news() == ""
    kept.skipped("j2", 100, Reason.RUNNING, 1)
    clock.now += module.SETTLED
    assert "(j2)" in kept.news()


def test_a_job_that_is_taken_out_is_not_behind(clock):
    """A reload forgets it."""
    kept = backlog()
    kept.skipped("j1", 10, Reason.RUNNING, 1)
    kept.rescheduled("j1", None)
    assert kept.behind == set()


def test_the_metric_counts_jobs_behind(clock):
    """It is asked for whenever it is read."""
    kept, metrics = backlog(), Metrics()
    metrics.count_behind(lambda: len(kept.behind))
    assert b"loader_jobs_behind_schedule 0.0" in metrics.render()
    kept.skipped("j0", 10, Reason.RUNNING, 1)
    assert b"loader_jobs_behind_schedule 1.0" in metrics.render()


def test_what_would_help():
    """More places if all are taken; longer intervals if a run alone takes too long; another process if it is busy."""
    every = {f"j{n}": 5 for n in range(10)}
    took = dict.fromkeys(every, 4.0)
    assert str(Pace([], 10, took, every, 4)) == ""
    places = Pace(list(every), 10, took, every, 4)
    assert str(places) == (
        "10 of 10 schedules are not kept (j0, j1, j2, …): their runs take 8.0 of the 4 places of daemon.jobs_at_once:"
        " `daemon.jobs_at_once: 10`, or intervals 2 times as long, or `follow: true` instead of a schedule"
    )
    assert Pace(list(every), 10, {"j0": 4.0}, every, 4).needed == pytest.approx(8)
    slow = Pace(["j1"], 10, took | {"j1": 12.0}, every, 4)
    assert str(slow) == (
        "1 of 10 schedules is not kept (j1): a run of j1 takes 12.0 s, and is due every 5 s:"
        " intervals 3 times as long, or `follow: true` instead of a schedule"
    )
    busy = Pace(["j1"], 10, took, every, 4, busy=0.97)
    assert "the daemon has no more CPU time: a second daemon with the same config, or intervals" in str(busy)
