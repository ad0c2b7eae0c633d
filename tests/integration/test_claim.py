"""Two configs that give one name to two jobs in one target are told apart; a job that is changed stays the same one."""

import json
import time
from dataclasses import replace

import pytest

from loader.errors import Foreign, Kind
from loader.jobs.execute import execute
from loader.jobs.prune import Pruned, prune
from loader.jobs.status import job_status
from loader.pipeline.options import Options
from loader.redis.client import RedisClient
from loader.state.claim import Claims, claim_of, fingerprint
from loader.state.history import History
from support.command import Desk
from support.database import Ear

JOB = {"table": "stu", "key": "stu_{sid}"}


@pytest.fixture
def school(world):
    world.sql("CREATE TABLE stu LIKE test.stu", "INSERT INTO stu SELECT * FROM test.stu", "CREATE TABLE old LIKE stu")
    return world


def run(world, **job):
    """A run of the job `job`, by hand or for a `slot`."""
    options = {name: job.pop(name) for name in ("slot", "restart", "resume") if name in job}
    config = world.config(**job)
    return execute(config, config.jobs["job"], Options(**options), Ear())


def status(world, **job):
    config = world.config(**job)
    with RedisClient(config.target) as target:
        return job_status(target, config.source, config.jobs["job"])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"key": "old_{sid}"}, "its keys begin with 'stu_', and 'old_' here"),
        ({"table": "old"}, "its table is 'stu', and 'old' here"),
        (
            {"table": None, "query": "SELECT sid FROM old", "key": "x_{sid}"},
            "its keys begin with 'stu_', and 'x_' here",
        ),
    ],
)
def test_another_job_of_the_name_is_refused(school, other, words):
    """By hand, by backfill and by schedule, whatever is there stays; until a person says that the job has moved."""
    mine, other = dict(JOB, max_age="1m"), JOB | other
    slot = int(time.time())
    assert run(school, **mine, slot=slot).status == "ok"
    before = status(school, **mine)
    for options in ({}, {"resume": True}, {"slot": slot + 1}):
        refused = run(school, **other, **options)
        assert (refused.status, refused.exit_code, refused.read, refused.outcome.kind) == ("failed", 2, 0, Kind.FOREIGN)
        assert refused.error.startswith(
            f"job 'job' in this target belongs to another config: {words}: give the job another"
        )
    config = school.config(**other)
    with pytest.raises(Foreign):
        prune(config, config.jobs["job"], Pruned("job"))
    after = status(school, **mine)
    assert (after.last, after.success, after.state) == (before.last, before.success, "ok")
    told = status(school, **other)
    assert (told.state, told.last, told.success, words in told.foreign) == ("failed", None, None, True)

    assert run(school, **other, restart=True, resume=True).status == "ok"
    assert run(school, **other).status == "ok"
    assert run(school, **mine).exit_code == 2


def test_another_source_is_another_job(school):
    """The same table in another database, or on another server, is not the one that the name stands for."""
    config = school.config(**JOB)
    there = config.source.model_copy(update={"url": replace(config.source.url, database="other")})
    job = config.jobs["job"]
    with RedisClient(config.target) as target:
        claims = Claims(target, "job")
        claims.take(claim_of(config.source, job))
        assert claims.refusal(claim_of(config.source, job)) == ""
        assert f"it reads from '{config.source.address}', and '{there.address}' here" in claims.refusal(
            claim_of(there, job)
        )
    assert fingerprint(there, job) != fingerprint(config.source, job)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (JOB, {"fields": ["sid", "sname"]}),
        (JOB, {"where": "sid < 3"}),
        (JOB, {"table": None, "query": "SELECT sid, sname FROM stu"}),
        ({"query": "SELECT sid FROM stu", "key": "q_{sid}"}, {"query": "SELECT sid, sname FROM stu"}),
    ],
)
def test_a_job_that_is_changed_is_run_and_what_was_done_before_does_not_count(school, first, then):
    """Without a word from anybody: not as the slot's run, nor as a success; which is told until it has run."""
    slot = int(time.time())
    assert run(school, **first, slot=slot).status == "ok"
    assert run(school, **first, slot=slot).outcome.kind is Kind.DONE
    changed = first | then
    told = status(school, **changed, max_age="1d")
    assert (told.foreign, told.success, told.former.slot, told.late) == ("", None, slot, True)
    assert run(school, **changed, slot=slot).status == "ok"
    assert run(school, **changed, slot=slot).outcome.kind is Kind.DONE
    told = status(school, **changed, max_age="1d")
    assert (told.state, told.success.slot, told.former) == ("ok", slot, None)


def test_what_the_version_before_has_left_is_accepted(school):
    """No claim, no fingerprint: a slot that it has done is done, its success is one."""
    slot = int(time.time())
    assert run(school, **JOB, slot=slot).status == "ok"
    for name in ("slot", "success"):
        key = f"loader:{{job}}:{name}"
        values = json.loads(school.redis.get(key))
        assert values.pop("of")
        school.redis.set(key, json.dumps(values))
    school.redis.delete("loader:{job}:claim")
    assert run(school, **JOB, slot=slot).outcome.kind is Kind.DONE
    assert status(school, **JOB).success.slot == slot
    assert run(school, **JOB, slot=slot + 1).status == "ok"
    with RedisClient(school.config(**JOB).target) as target:
        assert History(target, "job").success().slot == slot + 1


@pytest.mark.parametrize("text", [b"\xff[", b'{"version": 2, "source": "x", "prefix": "stu_", "table": "stu"}'])
def test_a_claim_that_does_not_say_whose_the_name_is(school, text):
    """Nothing is written, and what mends it is named; `--restart` says that it is this config's."""
    school.redis.set("loader:{job}:claim", text)
    refused = run(school, **JOB)
    assert (refused.exit_code, refused.read) == (2, 0)
    assert refused.error.endswith("`DEL loader:{job}:claim` lets the next run claim the job's name")
    assert run(school, **JOB, restart=True).status == "ok"
    assert run(school, **JOB).status == "ok"


def test_as_typed(world, tmp_path):
    """`status` and `doctor` tell of it, `sync` says what to do; nothing of the other config's is touched."""
    desk = Desk(world, tmp_path)
    assert desk.run("sync", "stu").code == 0
    desk.write({"stu": {"table": "stu", "key": "student_{sid}"}})
    done = desk.run("sync", "stu")
    assert done.code == 2
    (line,) = [line for line in done.messages if line.startswith("error: ")]
    assert "its keys begin with 'stu_', and 'student_' here: give the job another name" in line
    assert line.endswith("if this job itself has moved, run `loader sync stu --restart`")
    assert line in desk.run("rejects", "purge", "stu").messages
    document = desk.run("status", "stu", "-o", "json").document
    assert (document["state"], document["last"], line.removeprefix("error: ")) == ("failed", None, document["problem"])
    checks = {each["check"]: each for each in desk.run("doctor", "stu", "-o", "json").document["checks"]}
    assert (checks["job.name"]["status"], checks["job.name"]["seen"]) == ("fail", document["problem"])
    assert not [key for key in desk.contents() if key.startswith(b"student_")]
