"""State that an earlier version has left, as that version itself wrote it: this one takes it up, and repeats nothing.

`earlier.json` was recorded of commit 6d03138, by job and key: a run that was killed amid its chunks, jobs that build on
their last run, and what a daemon had noted. The servers and times in it are those of the test.
"""

import json
import time
from hashlib import sha256
from pathlib import Path
from string import Template

import pytest

from loader.doctor.findings import examine
from loader.doctor.job_state import KEPT, JobState
from loader.doctor.redis import RedisProbe
from loader.jobs.execute import execute
from loader.jobs.status import job_status
from loader.model import Notice
from loader.pipeline.options import Options
from loader.pipeline.throttle import StopRequest
from loader.redis.client import RedisClient
from loader.state.history import History
from loader.state.rejects import Rejects
from loader.state.schedule import ScheduleState
from support.command import HOST
from support.database import Ear, Halter, globally

LEFT = Path(__file__).with_name("earlier.json")
JOBS = {
    "half": {"table": "t", "key": "half_{id}", "chunk_rows": 10},
    "inc": {"table": "t", "key": "inc_{id}", "incremental": {"column": "at", "lag": "1s"}, "full_every": "1d"},
    "changed": {"table": "t", "key": "changed_{id}", "changed_only": True, "chunk_rows": 20},
    "rejected": {"table": "t", "key": "rejected_{id}"},
    "timed": {"table": "t", "key": "timed_{id}", "schedule": {"every": "1h"}},
}
SLOT = 1_700_000_000
ROWS = 60
THEN = "'2001-02-03 04:05:06'"
OWED = 20  # rows of the chunks that the killed run still owed


class Heir:
    """The table `t` that the earlier version has loaded, what it left in Redis, and jobs that go on from there."""

    def __init__(self, world):
        self.world = world
        world.sql(
            "CREATE TABLE t (id int(8) unsigned zerofill NOT NULL PRIMARY KEY, name varchar(20) NOT NULL,"
            " kind enum('a','B') NOT NULL, seen timestamp NULL, at datetime NOT NULL, INDEX (at)) COLLATE utf8mb4_bin",
            "INSERT INTO t VALUES "
            + ",".join(f"({n}, 'name {n}', 'B', {THEN}, {THEN} + INTERVAL {n} MINUTE)" for n in range(1, ROWS + 1)),
        )
        self.config = world.config_of(JOBS)
        self._leave(f"{HOST}:{world.lab.mysql_port}/{world.name}")

    def _leave(self, source):
        """Put into Redis what the earlier version has left there."""
        masters = self.world.redis.info("server", target_nodes=self.world.redis.PRIMARIES).values()
        names = {f"master{n}": master["run_id"] for n, master in enumerate(masters, 1)}
        names |= {"now": str(int(time.time()) - 5), "source": source}

        def said(value):
            return bytes.fromhex(value["hex"]) if isinstance(value, dict) else Template(value).substitute(names)

        left = json.loads(LEFT.read_text())
        facts = json.loads(said(left["changed"]["loader:{changed}:baseline"]["string"]))["facts"]
        names["plan"] = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        for key, kept in (each for job in left.values() for each in job.items()):
            ((kind, value),) = kept.items()
            if kind == "string":
                self.world.redis.set(key, said(value))
            elif kind == "hash":
                self.world.redis.hset(key, mapping={name: said(text) for name, text in value.items()})
            else:
                self.world.redis.rpush(key, *map(said, value))

    def run(self, job, **options):
        """The run of a job, and what it told of on its way."""
        ear = Ear()
        run = execute(self.config, self.config.jobs[job], Options(**options), ear)
        return run, [event.text for event in ear.events if isinstance(event, Notice)]

    def rows(self, job):
        """The rows of a job that have a hash."""
        prefix = f"{job}_".encode()
        return {int(key.removeprefix(prefix)) for key in self.world.hashes() if key.startswith(prefix)}


@pytest.fixture
def heir(world):
    return Heir(world)


@pytest.mark.parametrize("zone", ["SYSTEM", "+08:00"])
def test_a_backfill_goes_on(heir, zone):
    """A killed run's chunks that are done are left alone, though its lock was never let go; nothing of it stays."""
    with globally(heir.world, time_zone=zone):
        run, told = heir.run("half", resume=True)
    assert (run.status, run.error, run.resumed, told) == ("rejects", None, True, [])
    assert (run.read, run.written, run.rejected) == (OWED + 1, OWED, 1)
    assert heir.rows("half") == set(range(ROWS - OWED + 1, ROWS + 1))
    assert not {key for key in heir.world.state() if b"half" in key} - {b"loader:{half}:rejects"}


def test_a_backfill_is_ended_and_goes_on_again(heir):
    """What a resumed run leaves is this version's: its markers, and all that it knows of the table."""
    halt = StopRequest()
    job = heir.config.jobs["half"]
    first = execute(heir.config, job, Options(resume=True, workers=1, halt=halt), Halter(halt))
    assert (first.status, first.resumed, first.written) == ("stopped", True, OWED // 2)
    saved = json.loads(heir.world.redis.get("loader:{half}:checkpoint"))
    assert (saved["facts"]["column types"].count("'B'"), "created" in saved["facts"]) == (1, True)
    assert {heir.world.redis.type(key) for key in saved["markers"]} == {b"hash"}
    second, told = heir.run("half", resume=True)
    assert (second.status, second.resumed, second.written, told) == ("rejects", True, OWED // 2, [])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("ALTER TABLE t MODIFY kind enum('a','B','c') NOT NULL", "column types was"),
        ("ALTER TABLE t ADD v int", "statement was"),
        ("DELETE FROM t WHERE id = 0", ""),
    ],
)
def test_a_backfill_of_another_plan_is_refused(heir, change, why):
    """It is bound to its plan as ever."""
    heir.world.sql(change)
    run, _ = heir.run("half", resume=True)
    assert (run.error or "").partition("another plan: ")[2].startswith(why)
    assert bool(run.error) == bool(why)


def test_a_backfill_in_a_zone_of_its_own_is_refused(heir):
    """The earlier version knew in which zone the config has times read."""
    source = heir.config.source.model_copy(update={"time_zone": "+01:00"})
    heir.config = heir.config.model_copy(update={"source": source})
    run, _ = heir.run("half", resume=True)
    assert "time zone was 'None' and is '+01:00'" in run.error


@pytest.mark.parametrize("text", [None, "0123456789ab", "none"])
def test_a_backfill_whose_master_was_emptied_begins_again(heir, text):
    """A marker that is gone, or another run's, vouches for nothing."""
    key = "loader:marker:half:{1}"
    heir.world.redis.set(key, text) if text else heir.world.redis.delete(key)
    run, told = heir.run("half", resume=True)
    assert (run.resumed, run.read) == (False, ROWS)
    assert [each for each in told if "markers are gone" in each] == [
        f"the target was emptied since the checkpoint: markers are gone ({key})"
    ]


def test_a_marker_of_a_dead_run_is_no_garbage(heir):
    """A new run takes its place, and has nothing to tell of it."""
    run, told = heir.run("half", resume=True, restart=True)
    assert (run.status, run.read, told) == ("ok", ROWS, [])


@pytest.mark.parametrize("zone", ["SYSTEM", "+08:00"])
def test_an_increment_reads_what_was_changed(heir, zone):
    """The watermark counts, and so does the prune that was owed."""
    with globally(heir.world, time_zone=zone):
        heir.world.sql("UPDATE t SET at = NOW() WHERE id = 7")
        run, told = heir.run("inc")
        assert (run.status, run.error, run.full, run.read, told) == ("ok", None, False, 2, [])
        assert heir.rows("inc") == {7, ROWS}  # and that with the newest time, as always
        assert not heir.world.redis.exists("loader:{inc}:prune")
        again, told = heir.run("inc")
        assert (again.full, told) == (False, [])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda kept: kept["evictions"].update(dict.fromkeys(kept["evictions"], 5)), "has evicted keys"),
        (lambda kept: kept["evictions"].clear(), "was restarted"),
        (lambda kept: kept["facts"].update(nulls="empty"), "nulls was 'empty' and is 'omit'"),
        (lambda kept: kept.update(run="0123456789ab"), "markers are gone"),
        (lambda kept: kept.update(version=0), "another version wrote it"),
    ],
)
def test_an_increment_in_doubt_reads_everything(heir, change, why):
    """The baseline stands as long as it would have stood for the earlier version."""
    key = "loader:{inc}:baseline"
    kept = json.loads(heir.world.redis.get(key))
    change(kept)
    heir.world.redis.set(key, json.dumps(kept))
    run, told = heir.run("inc")
    assert (run.status, run.full, run.read) == ("ok", True, ROWS)
    assert why in " ".join(told)


def test_changed_rows_alone_are_written(heir):
    """The digests count: a row that was changed is written, the hash of one that went is deleted."""
    heir.world.sql("UPDATE t SET name = 'new' WHERE id = 7", "DELETE FROM t WHERE id = 60")
    heir.world.redis.hset("changed_00000060", "id", 60)
    run, told = heir.run("changed")
    assert (run.status, run.error, told) == ("ok", None, [])
    assert (run.written, run.unchanged, run.deleted) == (1, ROWS - 2, 1)
    assert heir.rows("changed") == {7}


def test_rejects_are_listed_until_they_are_written(heir):
    """Why a row was not written is known, until it is."""
    with RedisClient(heir.config.target) as target:
        (entry,) = Rejects(target, "rejected").all()
        assert (entry.key, entry.attempts) == (b"rejected_00000007", 1)
        assert "WRONGTYPE" in entry.reason
        heir.run("rejected")
        assert Rejects(target, "rejected").count() == 0


def test_a_schedule_knows_what_was_done(heir):
    """It stays paused, and a slot that was done is not done again."""
    paused, _ = heir.run("timed", slot=SLOT + 3600)
    assert (paused.read, "paused since" in paused.error) == (0, True)
    with RedisClient(heir.config.target) as target:
        ScheduleState(target, "timed").resume()
        done, _ = heir.run("timed", slot=SLOT)
        assert (done.read, "was done for 2023-11-14T22:13:20Z by run" in done.error) == (0, True)
        before = History(target, "timed").success()
        assert (before.slot, before.rows["written"]) == (SLOT, ROWS)
    following, _ = heir.run("timed", slot=SLOT + 3600)
    assert (following.status, following.read) == ("ok", ROWS)


@pytest.mark.parametrize("job", JOBS)
def test_status_and_doctor_can_read_it(heir, job):
    """Nothing of it is called garbage."""
    config = heir.config.jobs[job]
    with RedisClient(heir.config.target) as target:
        assert job_status(target, heir.config.source, config)
        probe = RedisProbe(heir.config, target, dict.fromkeys(target.slots.nodes, ()), {}, {}, {})
        found = examine("job", KEPT, JobState(heir.config, config, probe, is_read=True), job)
    assert "this program did not write" not in str(found)
    assert "cannot be read" not in str(found)
