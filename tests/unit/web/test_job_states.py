"""What is shown of a job is what was read, and what runs here have told since."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from loader.config.models import JobConfig
from loader.errors import Kind
from loader.model import Chunk, ChunkLoaded, FollowBegan, Run, RunBegan, RunEnded
from loader.outcome import Outcome
from loader.pipeline.throttle import Throttle
from loader.web.activity import RunTracker
from loader.web.incidents import incidents
from loader.web.job_states import JobStates
from support import page_samples as looks

JOB = JobConfig(table="stu", key="stu_{sid}")
JOB.take_name("stu")
FOLLOWED = JobConfig(table="stu", key="stu_{sid}", follow=True)
FOLLOWED.take_name("stu")


@pytest.fixture
def record():
    return RunTracker()


def view(record):
    """A job of whose state nothing could be read yet."""
    return JobStates(SimpleNamespace(jobs={"stu": JOB}), record, SimpleNamespace(behind=())).view(JOB)


def test_a_job_that_cannot_be_followed_fails(record):
    """Until its follower begins, though its last run ended well; one that another daemon follows is well."""
    states = JobStates(SimpleNamespace(jobs={"stu": FOLLOWED}), record, SimpleNamespace(behind=()))
    ok = looks.followed("stu").status
    states._statuses["stu"], states._heard["stu"] = replace(ok, follow=None), time.monotonic()

    def shown():
        view = states.view(FOLLOWED)
        return view.status.state, [(each.text, each.since, each.runs) for each in incidents([view])]

    assert shown() == ("ok", [])
    record.unfollowed(["stu"], "the account lacks REPLICATION SLAVE")
    since = record.why_unfollowed("stu").since
    record.unfollowed(["stu"], "the account lacks REPLICATION SLAVE")
    assert shown() == ("failed", [("not followed: the account lacks REPLICATION SLAVE", since, "")])
    record.unfollowed(["stu"], "")
    assert shown() == ("ok", [])
    record.unfollowed(["stu"], "again")
    assert shown()[0] == "failed"
    record.listen("other").notify(FollowBegan(("stu",), "0-1-5"))
    assert shown() == ("ok", [])


def test_what_is_tried_while_redis_is_away_is_no_run(record):
    """A job that fails again and again is failed all the time; only one that loads is running."""
    assert view(record).status.state == "unknown"
    for run in ("one", "two"):
        ear = record.listen("stu")
        ear.notify(RunBegan("stu", run))
        shown = view(record)
        assert (shown.progress, shown.status.state) == (None, "unknown" if run == "one" else "failed")
        ear.notify(RunEnded(Run(job="stu", id=run, outcome=Outcome(Kind.UNAVAILABLE, "redis is away"))))
        assert view(record).status.state == "failed"
    ear = record.listen("stu")
    ear.notify(RunBegan("stu", "three"))
    ear.expect(100, Throttle())
    ear.notify(ChunkLoaded(Chunk(1), 10, 10, (), {"n1": 10}, 100, 0.5, 0.0))
    assert (view(record).status.state, view(record).progress.rows) == ("running", 10)
