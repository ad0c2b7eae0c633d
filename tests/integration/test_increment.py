"""Incremental sync: a run reads what was changed since the one before, and no row is missed."""

import json
import random
import threading
import time
from contextlib import nullcontext, suppress
from datetime import UTC, datetime

import pymysql
import pytest

from loader.errors import ConfigError, Kind, LoaderError, TargetError
from loader.jobs import prune
from loader.jobs.execute import execute
from loader.jobs.verify import verify
from loader.model import ChunkLoaded, Notice
from loader.mysql import transactions
from loader.mysql.connection import Connection
from loader.pipeline import deleter, incremental
from loader.pipeline.deleter import HashDeleter
from loader.pipeline.job_context import open_job
from loader.pipeline.options import Options
from loader.pipeline.run_state import RunState
from loader.pipeline.throttle import Throttle
from loader.redis.client import RedisClient
from loader.redis.writer import PipelineWriter
from loader.state.baseline import Baselines
from loader.state.checkpoint import MAY_BE_UNKNOWN
from support.command import Desk
from support.database import Ear, process_right

KINDS = ["datetime", "datetime(6)", "timestamp", "timestamp(3)"]
LAG = "2s"
WRITING = 3  # seconds


def table(world, kind="datetime(6)", rows=10, *, index=True, more=""):
    """`t`: `rows` rows, stamped an hour ago, and so is each later change by NOW."""
    digits = kind.partition("(")[2].rstrip(")")
    now = f"current_timestamp({digits})"
    world.sql(
        f"CREATE TABLE t (id int PRIMARY KEY, v int, at {kind} NULL DEFAULT {now} ON UPDATE {now}{more}"
        f"{', INDEX by_at (at)' if index else ''})",
        f"INSERT INTO t (id, v, at) SELECT seq.n, 0, NOW() - INTERVAL 1 HOUR FROM ({numbers(rows)}) seq",
    )


def numbers(rows):
    digits = " UNION ALL ".join(f"SELECT {n} n" for n in range(10))
    places = " CROSS JOIN ".join(f"({digits}) d{p}" for p in range(4))
    return f"SELECT 1 + d0.n + 10 * d1.n + 100 * d2.n + 1000 * d3.n n FROM {places} HAVING n <= {rows}"


class Syncing:
    """A job of `t`, run again and again."""

    def __init__(self, world, **job):
        self.world = world
        self.zone = None
        self.job = {"table": "t", "key": "t_{id}", "incremental": {"column": "at", "lag": LAG}} | job
        self.ear = Ear()

    def config(self, **job):
        config = self.world.config(**self.job | job)
        if not self.zone:
            return config
        source = config.source.model_copy(update={"time_zone": self.zone})
        return config.model_copy(update={"source": source})

    def run(self, options=None, ear=None, **job):
        config = self.config(**job)
        self.ear = ear or Ear()
        return execute(config, config.jobs["job"], options or Options(), self.ear)

    def ok(self, options=None, **more):
        """A run that is to end well: how many rows it read, and whether it read all."""
        run = self.run(options, **more)
        assert (run.status, run.error) == ("ok", None), run.error
        return run.read, run.full

    @property
    def notes(self):
        return [event.text for event in self.ear.events if isinstance(event, Notice)]

    def values(self):
        return {int(key[2:]): int(fields[b"v"]) for key, fields in self.world.hashes().items()}

    def rows(self):
        return dict(self.world.sql("SELECT id, v FROM t"))

    def baseline(self, **mark):
        """The baseline as it is, or with other values in its mark."""
        key = "loader:{job}:baseline"
        stored = json.loads(self.world.redis.get(key))
        if mark:
            stored["more"]["mark"] |= mark
            self.world.redis.set(key, json.dumps(stored))
        return stored


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_was_changed_is_read(world, kind):
    """The first run reads everything, a later one the rows changed since, and those near the watermark once more."""
    table(world, kind)
    job = Syncing(world)
    assert job.ok() == (10, True)
    world.sql("UPDATE t SET v = 1 WHERE id IN (3, 7)", "INSERT INTO t (id, v) VALUES (11, 1)")
    assert job.ok() == (11, False)  # the newest stamp of all was an hour old: the first ten have it too
    assert (job.values(), job.notes) == (job.rows(), [])
    before = job.baseline()
    assert job.ok(Options(dry_run=True))[1] is False
    assert job.baseline() == before
    world.sql("UPDATE t SET v = 2 WHERE id = 5")
    assert job.ok() == (4, False)
    assert job.values() == job.rows()


@pytest.mark.parametrize("kind", ["datetime", "timestamp"])
def test_x8_equal_stamps(world, kind):
    """5,000 rows with one stamp, in chunks of 100: each is read, and none twice, along (stamp, key)."""
    table(world, kind, 6000)
    job = Syncing(world, chunk_rows=100)
    job.ok()
    world.sql("SET @now = NOW()", "UPDATE t SET v = 1, at = @now WHERE id > 1000", "DELETE FROM t WHERE id <= 1000")
    job.baseline(at=job.baseline()["more"]["mark"]["at"] + 60)
    run = job.run()
    assert (run.status, run.read, run.full, run.chunks) == ("ok", 5000, False, 51)
    assert {id_: v for id_, v in job.values().items() if id_ > 1000} == job.rows()


def test_a_quiet_table_is_not_read_again(world):
    """Once the newest rows have been seen for longer than the lag, runs read nothing: their clock has gone on."""
    table(world, "datetime", 500)
    job = Syncing(world)
    job.ok()
    assert job.ok() == (500, False)
    mark = job.baseline()["more"]["mark"]
    earlier(job, 60)
    assert job.ok() == (500, False)
    assert 50 <= job.baseline()["more"]["mark"]["at"] - mark["at"] <= 62
    run = job.run()
    assert (run.status, run.read, run.full) == ("ok", 0, False)
    assert run.began <= run.watermark <= time.time()
    world.sql("UPDATE t SET v = 1 WHERE id = 3")
    assert job.ok() == (1, False)
    assert job.values() == job.rows()


def earlier(job, seconds):
    """Have the last run be so long ago."""
    mark = job.baseline()["more"]["mark"]
    job.baseline(now=mark["now"] - seconds, clock=mark["clock"] | {"uptime": mark["clock"]["uptime"] - seconds})


def test_a_replica_that_stood_still(world):
    """Its rows may come long after their stamps: nothing is concluded of no newer ones, where a server is read-only."""
    table(world, "datetime")
    job = Syncing(world)
    job.ok()
    job.ok()
    world.sql("SET GLOBAL read_only = 1")
    try:
        earlier(job, 60)
        job.ok()
        world.sql("SELECT MAX(at) + INTERVAL 20 SECOND INTO @late FROM t")
        world.sql("UPDATE t SET v = 1, at = @late WHERE id = 3")
        job.ok()
    finally:
        world.sql("SET GLOBAL read_only = 0")
    assert job.values() == job.rows()


def test_runs_every_second():
    """The clock of a quiet table goes on under them too, less a second now and then, and never back."""
    mark = incremental.Watermark(1000, 1000, 2000, 2000, {"boot": "", "wall": 0.0})
    for second in range(1, 61):
        now = incremental.Watermark(
            1000, 1000, 2000 + second, 2000 + second, {"boot": "", "wall": second - second % 2 * 0.1}
        )
        before, mark = mark, incremental._advanced(mark, now)
        assert before.at <= mark.at <= 1000 + second
    assert mark.at >= 1040


def other(world):
    return pymysql.connect(
        host="127.0.0.1",
        port=world.lab.mysql_port,
        user="owner",
        password=world.lab.owner_password,
        database=world.name,
    )


@pytest.mark.parametrize("kind", ["datetime", "timestamp"])
def test_x7_a_late_commit_within_the_lag(world, kind):
    """A row that was committed after a run, and stamped before it, is read by the next."""
    table(world, kind)
    job = Syncing(world, incremental={"column": "at", "lag": "60s"})
    job.ok()
    with other(world) as late, late.cursor() as cursor:
        cursor.execute("UPDATE t SET v = 1 WHERE id = 3")
        time.sleep(1.1)  # so that its stamp is another second's
        world.sql("UPDATE t SET v = 2 WHERE id = 4")
        job.ok()
        assert (job.values()[3], job.values()[4]) == (0, 2)
        late.commit()
    assert job.ok()[1] is False
    assert job.values() == job.rows()


@pytest.mark.parametrize("kind", ["datetime", "timestamp"])
def test_x7_a_commit_later_than_the_lag(world, kind):
    """With the PROCESS right the watermark stays before the oldest open transaction that has changed rows."""
    table(world, kind)
    job = Syncing(world, incremental={"column": "at", "lag": "1s"})
    job.ok()
    with process_right(world), other(world) as late, late.cursor() as cursor:
        began = time.time()
        cursor.execute("UPDATE t SET v = 1 WHERE id = 3")
        time.sleep(2.5)
        world.sql("UPDATE t SET v = 2 WHERE id = 4")
        job.ok()
        with Connection(job.config().source) as source:
            assert 2 <= transactions.oldest_writer(source) <= time.time() - began + 2
        late.commit()
    assert job.ok() == (2, False)
    assert job.values() == job.rows()


def test_open_transactions_without_the_right(world):
    """Without PROCESS it is not known what is open; with it, who has only read does not count, but who has locked."""
    table(world)
    with Connection(world.config(table="t").source) as source, other(world) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT * FROM t")
        assert transactions.oldest_writer(source) is None
        with process_right(world), Connection(world.config(table="t").source) as allowed:
            time.sleep(0.2)  # the server remembers for 0.1 s what it told last
            assert transactions.oldest_writer(allowed) == 0
            cursor.execute("SELECT * FROM t FOR UPDATE")
            time.sleep(0.2)
            assert transactions.oldest_writer(allowed) >= 1


def test_a_transaction_that_is_left_open(world, monkeypatch):
    """It holds the watermark back for as long as it is open, so that runs read more and more: they say so."""
    table(world)
    job = Syncing(world)
    job.ok()
    monkeypatch.setattr(transactions, "oldest_writer", lambda _: 7200)
    assert job.ok()[1] is False
    assert job.notes == [
        "changes of the last 120 minutes are read again: a transaction or statement of then is still open"
    ]
    monkeypatch.undo()
    assert job.ok()[1] is False
    assert job.notes == []


@pytest.mark.parametrize("held", ["SELECT * FROM t WHERE id = 3 FOR UPDATE", "LOCK TABLES t READ"])
def test_x7_a_statement_that_waits(world, held):
    """Its rows are stamped with the time it began at, though it has changed none yet: it counts as a writer."""
    table(world)
    with process_right(world), other(world) as holder, other(world) as waiter:
        holder.cursor().execute(held)
        late = threading.Thread(target=waiter.cursor().execute, args=("UPDATE t SET v = 1 WHERE id = 3",))
        late.start()
        try:
            with Connection(world.config(table="t").source) as source:
                end = time.monotonic() + 60
                while (age := transactions.oldest_writer(source)) < 2:
                    assert time.monotonic() < end, age
                    time.sleep(0.1)
        finally:
            holder.cursor().execute("UNLOCK TABLES")
            holder.rollback()
            late.join()


COMPUTING = """
INSERT INTO t (id, v) SELECT 5000, q.s FROM (SELECT SLEEP(4) s) q
/* a note */ INSERT INTO t (id, v) SELECT 5001, 1 + SLEEP(4) FROM one
INSERT INTO t (id, v) VALUES (5002, 1 + SLEEP(4))
UPDATE t JOIN (SELECT SLEEP(4) s) q SET v = 9 WHERE id = 7
INSERT INTO o (id) VALUES (1)
DO f()
SELECT f() + 1
CALL p()
EXECUTE prepared
REPLACE INTO t (id, v) SELECT 5003, SLEEP(4) /* \xff */
""".strip().splitlines()


def test_x7_statements_that_compute_before_they_write(world):
    """They stamp rows with the time they began at and hold no lock until late: the watermark stays before them."""
    table(world)
    rest = "SELECT SLEEP(4) INTO x; INSERT INTO t (id, v) VALUES"
    world.sql(
        "CREATE TABLE o (id int PRIMARY KEY)",
        "CREATE TABLE one SELECT 1 n",
        "SET GLOBAL log_bin_trust_function_creators = 1",
        f"CREATE TRIGGER late BEFORE INSERT ON o FOR EACH ROW BEGIN DECLARE x int; {rest} (5010, 1); END",
        f"CREATE FUNCTION f() RETURNS int BEGIN DECLARE x int; {rest} (5011 + CONNECTION_ID(), 1); RETURN 1; END",
        "CREATE PROCEDURE p() INSERT INTO t (id, v) SELECT 5012, SLEEP(4)",
    )
    job = Syncing(world, incremental={"column": "at", "lag": "1s"})
    job.ok()

    def run(statement):
        with other(world) as late, late.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("PREPARE prepared FROM 'INSERT INTO t (id, v) VALUES (5013, SLEEP(4))'")
            cursor.execute(statement.encode("latin-1"))  # one holds a byte that is no UTF-8
            late.commit()

    with process_right(world):
        running = [threading.Thread(target=run, args=(statement,)) for statement in COMPUTING]
        for thread in running:
            thread.start()
        time.sleep(2.5)  # so that the row below has a stamp that is later than theirs by more than the lag
        world.sql("UPDATE t SET v = 2 WHERE id = 4")
        assert all(thread.is_alive() for thread in running)
        job.ok()
        for thread in running:
            thread.join()
        job.ok()
    assert len(job.rows()) == 10 + len(COMPUTING) - 1
    assert job.values() == job.rows()


def test_an_old_answer_about_transactions(world):
    """InnoDB gives one while others have just asked: it is asked again until it knows of a transaction of our own."""
    table(world)
    with process_right(world), other(world) as writer:
        settings = world.config(table="t").source
        with Connection(settings) as one, Connection(settings) as another:
            assert transactions.oldest_writer(one) == 0
            writer.cursor().execute("UPDATE t SET v = 1 WHERE id = 3")
            assert transactions.oldest_writer(another) > 0


class Writing(Ear):
    """Writes while a run goes on."""

    def __init__(self, act):
        super().__init__()
        self._act = act

    def notify(self, event):
        super().notify(event)
        if isinstance(event, ChunkLoaded):
            self._act()


def test_x9_rows_changed_during_a_run(world):
    """What is changed behind the run's back, more than once in one second too, is in Redis after the next."""
    table(world, "datetime", 2000)
    job = Syncing(world, chunk_rows=200)

    def write():
        world.sql("UPDATE t SET v = v + 1 WHERE id % 7 = 0", "UPDATE t SET v = v + 1 WHERE id < 50")

    job.ok(ear=Writing(write))
    job.ok(ear=Writing(write))
    write()
    assert job.ok()[1] is False
    assert job.values() == job.rows()


@pytest.mark.parametrize("kind", ["datetime", "timestamp"])
def test_x10_a_clock_set_back(world, kind):
    """Where MySQL's clock shows less time gone by than it is, the next run reads from so much earlier on."""
    table(world, kind)
    world.sql("UPDATE t SET v = 0, at = NOW() WHERE id = 1")
    job = Syncing(world)
    job.ok()
    mark = job.baseline()["more"]["mark"]
    job.baseline(at=mark["at"] + 3000, now=mark["now"] + 3000)  # as if it had been 50 minutes ahead
    world.sql("UPDATE t SET v = 1 WHERE id = 3")
    assert job.ok() == (2, False)
    assert job.values() == job.rows()
    assert job.baseline()["more"]["mark"]["at"] <= mark["at"] + 60


def test_x10_another_boot(world):
    """After a restart of the machine its wall clock tells how much time has gone by."""
    table(world)
    job = Syncing(world)
    job.ok()
    mark = job.baseline()["more"]["mark"]
    clock = mark["clock"] | {"boot": "another", "uptime": 1e9}
    job.baseline(at=mark["now"] + 3000, now=mark["now"] + 3000, clock=clock)
    world.sql("UPDATE t SET v = 1 WHERE id = 3")
    assert job.ok() == (1, False)


@pytest.mark.parametrize("kind", ["datetime", "timestamp"])
def test_x10_rows_stamped_in_the_future(world, kind):
    """They are found by every run, and the watermark stays where it was."""
    year = 2099 if kind == "datetime" else 2038
    table(world, kind)
    job = Syncing(world)
    job.ok()
    world.sql(f"UPDATE t SET v = 1, at = '{year}-01-18 03:00:00' WHERE id = 2", "UPDATE t SET v = 1 WHERE id = 3")
    job.ok()
    world.sql(f"UPDATE t SET v = 2, at = '{year}-01-18 03:00:00' WHERE id = 2", "UPDATE t SET v = 2 WHERE id = 4")
    assert job.ok() == (3, False)
    assert job.values() == job.rows()


def test_x10_stamps_in_another_time_zone(world):
    """Stamps that are hours behind the session's clock hold the watermark back; a stray one ahead of it does not."""
    table(world, "datetime")
    world.sql("UPDATE t SET at = UTC_TIMESTAMP()", "UPDATE t SET at = '2099-01-01' WHERE id = 9")
    job = Syncing(world)
    job.zone = "+08:00"
    job.ok()
    time.sleep(1)
    world.sql("UPDATE t SET v = 1, at = UTC_TIMESTAMP() WHERE id = 3")
    assert job.ok()[1] is False
    assert job.values() == job.rows()


ENDS = 1_793_494_800  # 2026-11-01 01:00 UTC, when a made-up zone sets its clocks back from 03:00 to 02:00


@pytest.fixture
def zone(world):
    """A time zone of the server's, whose clocks are set back at `ENDS`; it is taken away again."""
    world.sql("INSERT INTO mysql.time_zone (Use_leap_seconds) VALUES ('N')", "SET @zone = LAST_INSERT_ID()")
    name = f"Test/{world.name}"
    world.sql(
        f"INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('{name}', @zone)",
        "INSERT INTO mysql.time_zone_transition_type VALUES (@zone, 0, 7200, 1, 'S'), (@zone, 1, 3600, 0, 'W')",
        f"INSERT INTO mysql.time_zone_transition VALUES (@zone, 0, 0), (@zone, {ENDS}, 1)",
    )
    yield name
    for name in ("", "_name", "_transition", "_transition_type"):
        world.sql(f"DELETE FROM mysql.time_zone{name} WHERE Time_zone_id = @zone")


def test_x10_the_hour_that_comes_twice(world, zone):
    """A TIMESTAMP is compared by its number: all rows of both hours are read from any moment on, in their order."""
    table(world, "timestamp", 120)
    world.sql("SET time_zone = '+00:00'", f"UPDATE t SET at = FROM_UNIXTIME({ENDS} + (id - 60) * 60)")
    assert world.sql(f"SELECT CONVERT_TZ(FROM_UNIXTIME({ENDS}), '+00:00', '{zone}')") == ((datetime(2026, 11, 1, 2),),)  # noqa: DTZ001  # by that zone
    job = Syncing(world, chunk_rows=7, where="v >= 0")
    job.zone = zone
    job.ok()
    for first in (15, 45, 75, 105):
        job.baseline(at=ENDS + (first - 60) * 60 + 2)
        run = job.run()
        assert (run.full, run.read) == (False, 121 - first), first


def test_soft_deleted_rows(world):
    """They are rows no longer: their hash goes, exactly counted, and comes back with them."""
    table(world, more=", gone datetime NULL")
    world.sql("UPDATE t SET gone = NOW(), at = at WHERE id = 10")
    job = Syncing(world, soft_delete="gone IS NOT NULL", fields=["id", "v"])
    assert job.ok() == (9, True)
    world.sql("UPDATE t SET gone = NOW() WHERE id IN (2, 5)", "UPDATE t SET v = 1 WHERE id = 3")
    run = job.run()
    assert (run.status, run.deleted) == ("ok", 2)
    assert set(job.values()) == {1, 3, 4, 6, 7, 8, 9}
    world.sql("UPDATE t SET gone = NULL WHERE id = 2")
    run = job.run()
    assert (run.status, run.deleted, set(job.values())) == ("ok", 0, {1, 2, 3, 4, 6, 7, 8, 9})
    assert sum(run.nodes.values()) == run.written


@pytest.mark.parametrize("options", [Options(full=True), Options(resume=True)])
def test_a_full_run_forgets_none_of_them(world, options):
    """A row that leaves the job before a full run, which does not meet it, loses its hash by that run too."""
    table(world, rows=100)
    job = Syncing(world, soft_delete="v = 9", where="v < 5")
    job.ok()
    world.sql("UPDATE t SET v = 9 WHERE id = 2", "UPDATE t SET v = 6 WHERE id = 3", "UPDATE t SET v = 1 WHERE id = 4")
    run = job.run(options)
    assert (run.status, run.full, run.deleted) == ("ok", True, 2)
    config = job.config()
    assert verify(config, config.jobs["job"]).is_equal


@pytest.mark.parametrize("value", ["0", "NULL"])
def test_a_row_that_leaves_the_where(world, monkeypatch, value):
    """Its hash goes, also where the condition is neither true nor false, and a few at a time are in memory."""
    monkeypatch.setattr(incremental, "PART", 70)
    table(world, rows=700)
    world.sql("UPDATE t SET v = 5")
    job = Syncing(world, where="v > 0 -- those alone", chunk_rows=100)
    job.ok()
    world.sql(f"UPDATE t SET v = {value} WHERE id <= 600")
    run = job.run()
    assert (run.status, run.deleted, run.full) == ("ok", 600, False)
    assert set(job.values()) == set(range(601, 701))


def test_deletions_of_an_attempt_that_failed_count(world, monkeypatch):
    """A chunk that is loaded again finds no hash any more where it has deleted them before."""
    table(world)
    job = Syncing(world, where="v = 0")
    job.ok()
    world.sql("UPDATE t SET v = 1 WHERE id IN (3, 4)")
    await_replicas, failing = PipelineWriter.await_replicas, iter([True])
    monkeypatch.setattr(
        PipelineWriter, "await_replicas", lambda each: cut_off() if next(failing, False) else await_replicas(each)
    )
    run = job.run()
    assert (run.chunks_retried, run.deleted) == (1, 2)


def test_a_key_that_another_row_makes_stays(world):
    """Rows may share a key: the hash stays while one of them is still the job's."""
    table(world, more=", shared int")
    world.sql("UPDATE t SET shared = id DIV 2, v = 1")
    job = Syncing(world, key="s_{shared}", where="v = 1", fields=["shared"])
    job.ok()
    world.sql("UPDATE t SET v = 0 WHERE id IN (2, 6, 7)")
    run = job.run()
    assert (run.status, run.deleted) == ("ok", 1)
    assert set(world.hashes()) == {b"s_0", b"s_1", b"s_2", b"s_4", b"s_5"}


def test_a_foreign_key_is_not_deleted(world):
    """What stands under the key of a row that is gone, and is no hash, is not the loader's."""
    table(world)
    job = Syncing(world, where="v = 0")
    job.ok()
    world.redis.delete("t_3")
    world.redis.set("t_3", "foreign")
    world.sql("UPDATE t SET v = 1 WHERE id IN (3, 4)")
    assert job.run().deleted == 1
    assert world.redis.get("t_3") == b"foreign"


def test_the_key_of_another_job_is_not_deleted(world):
    """A job whose keys may begin with the prefix of another's leaves those that do."""
    table(world, more=", name varchar(20) NOT NULL DEFAULT 'n'")
    world.sql("UPDATE t SET name = IF(id = 5, 'x_5', CONCAT('n', id))")
    job = Syncing(world, key="t_{name}", where="v = 0")
    config = job.config()
    longer = world.config(table="t", key="t_x_{id}", fields=["id"]).jobs["job"]
    pair = config.model_copy(update={"jobs": {**config.jobs, "other": longer}})
    job.config = lambda: pair
    job.ok()
    world.sql("UPDATE t SET v = 1 WHERE id IN (4, 5)")
    assert job.run().deleted == 1
    assert world.redis.exists("t_x_5")


def test_a_deletion_that_the_lock_does_not_cover(world, monkeypatch):
    """Another run may have come and gone since the row was looked up: its hash stays until that is done anew."""
    table(world)
    job = Syncing(world)
    job.ok()
    world.sql("DELETE FROM t WHERE id = 3")
    config, throttle, made_of = job.config(), Throttle(), deleter.made_of

    def lapse(*args):
        throttle.grant = lambda: 1
        return made_of(*args)

    monkeypatch.setattr(deleter, "made_of", lapse)
    with open_job(config, config.jobs["job"], Options()) as ends, Connection(config.source) as source:
        writer = PipelineWriter(ends.target)
        try:
            with pytest.raises(LoaderError, match="the lock lapsed") as caught:
                HashDeleter(ends.plan, ends.lookup(), ends.target, throttle).erase([b"t_3"], source, writer)
        finally:
            writer.close()
    assert caught.value.transient
    assert world.redis.exists("t_3")


def cut_off(*_, **__):
    raise TargetError("gone", kind=Kind.UNAVAILABLE)


def test_a_full_run_is_due(world, monkeypatch):
    """With `full_every` a run reads everything and prunes when the last that did is so old: deletions are found."""
    table(world, rows=100)
    job = Syncing(world, full_every="1d")
    assert job.ok() == (100, True)
    assert not world.redis.exists("loader:{job}:fence")  # nothing of it is still to be carried out
    world.sql("DELETE FROM t WHERE id = 4", "UPDATE t SET v = 1 WHERE id = 5")
    assert job.ok()[1] is False
    assert 4 in job.values()
    stored = job.baseline()
    world.redis.set("loader:{job}:baseline", json.dumps(stored | {"full": stored["full"] - 0.96 * 86_400}))
    run = job.run()
    assert (run.status, run.full, run.read, run.deleted) == ("ok", True, 99, 1)
    assert job.values() == job.rows()
    assert job.ok()[1] is False
    world.sql("DELETE FROM t WHERE id = 5")
    with monkeypatch.context() as patch:
        patch.setattr(prune, "JobSession", cut_off)
        assert job.run(Options(full=True)).status == "failed"
    run = job.run()
    assert (run.status, run.full, run.deleted, run.prunes) == ("ok", False, 1, True)
    run = job.run()
    assert (run.status, run.prunes) == ("ok", False)
    world.sql("DELETE FROM t WHERE id > 50")
    run = job.run(Options(full=True))
    assert (run.status, run.exit_code, run.full) == ("failed", 1, True)
    assert "more than --max-delete 5%" in run.error
    assert job.ok()[1] is False  # it was full all the same


def test_no_index(world):
    """Without an index that begins with the column it is refused, with the statement that makes one, unless forced."""
    table(world, index=False)
    job = Syncing(world)
    run = job.run()
    assert (run.status, run.exit_code) == ("failed", 2)
    assert "CREATE INDEX `by_at` ON `t` (`at`)" in run.error
    forced = {"column": "at", "lag": LAG, "force": True}
    assert job.ok(incremental=forced) == (10, True)
    world.sql("CREATE INDEX other ON t (v, at)")
    assert job.run().exit_code == 2
    world.sql("UPDATE t SET v = 1, at = NOW() WHERE id = 2")
    job.ok(incremental=forced)
    world.sql("UPDATE t SET v = 2 WHERE id = 3")
    assert job.ok(incremental=forced) == (2, False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE t MODIFY at date", "column 'at' is date, but must be a DATETIME or TIMESTAMP"),
        ("ALTER TABLE t DROP COLUMN at", "table 't' has no column 'at'"),
        ("ALTER TABLE t DROP PRIMARY KEY", "no key to walk along"),
    ],
)
def test_a_table_that_cannot_serve(world, change, said):
    """What the table lacks is said at once, and ends the run with exit code 2."""
    table(world)
    world.sql(change)
    run = Syncing(world).run()
    assert (run.status, run.exit_code) == ("failed", 2)
    assert said in run.error


def test_a_run_that_fails_keeps_the_watermark(world):
    """The next run reads from where the one before the failed one did."""
    table(world, rows=2000)
    job = Syncing(world, chunk_rows=100, deadline="1s")
    job.ok()
    before = job.baseline()
    world.sql("UPDATE t SET v = 1")

    def fail():
        raise ConfigError("no more")

    assert job.run(ear=Writing(fail)).status == "failed"
    assert job.baseline() == before
    job.ok()
    assert job.values() == job.rows()
    assert job.baseline() != before


def test_what_is_typed_reads_everything_or_stores_nothing(world):
    """`--full`, `--resume` and `--restart` read everything; a narrowed run leaves the watermark alone."""
    table(world)
    job = Syncing(world)
    assert job.ok(Options(where="id > 5")) == (5, True)
    assert world.redis.get("loader:{job}:baseline") is None
    assert job.ok(Options(resume=True)) == (10, True)
    before = job.baseline()
    assert job.ok(Options(full=True)) == (10, True)
    after = job.baseline()
    assert before["full"] < after["full"]
    for options in (Options(where="id = 1"), Options(key_range="1:3"), Options(shard=(1, 2))):
        job.ok(options)
        assert job.baseline() == after
    assert job.ok()[1] is False


def test_a_resumed_backfill_has_the_watermark_of_its_beginning(world):
    """What was changed between the kill and the resumption is read by the first increment."""
    table(world, "datetime", 2000)
    world.sql("UPDATE t SET at = NOW()")
    job = Syncing(world, chunk_rows=100, incremental={"column": "at", "lag": "1s"})
    world.sql("UPDATE t SET at = NOW() - INTERVAL 100 SECOND")

    def fail():
        raise ConfigError("no more")

    began = time.time()
    assert job.run(Options(resume=True), ear=Writing(fail)).status == "failed"
    world.sql("UPDATE t SET v = 1, at = NOW() WHERE id = 1", "UPDATE t SET v = 1, at = NOW() + INTERVAL 10 SECOND")
    run = job.run(Options(resume=True))
    assert (run.status, run.resumed) == ("ok", True)
    stored = job.baseline()
    assert stored["full"] < began + 1
    assert stored["more"]["mark"]["at"] < began - 90
    job.ok()
    assert job.values() == job.rows()


def test_null_stamps_and_deletions_are_warned_of(world, tmp_path):
    """`plan` shows how what was changed is read, by which index, and what an increment cannot find."""
    desk = Desk(world, tmp_path)
    table(world)
    desk.write({"job": {"table": "t", "incremental": {"column": "at", "lag": "1m"}}})
    planned = desk.run("plan", "job")
    assert planned.code == 0
    assert "increment   SELECT `id`, `v`, `at`" in planned.out
    assert "WHERE `at` >= '" in planned.out
    assert "found by index by_at" in planned.out
    assert "column 'at' may be NULL" in planned.err
    assert "deleted rows keep their hash" in planned.err
    world.sql("UPDATE t SET at = NULL WHERE id = 1")
    assert "10 rows read" in desk.run("sync", "job").out
    world.sql("UPDATE t SET v = 1, at = NULL WHERE id = 1", "UPDATE t SET v = 1 WHERE id = 2")
    told = desk.run("sync", "job").out
    assert "changed rows only" in told
    assert world.redis.hget("t_1", "v") == b"0"
    assert "10 rows read" in desk.run("sync", "job", "--full").out
    assert world.redis.hget("t_1", "v") == b"1"
    world.sql("DROP INDEX by_at ON t")
    refused = desk.run("plan", "job")
    assert refused.code == 2
    assert "CREATE INDEX" in refused.err


def test_no_stamp_no_watermark(world):
    """Where no row has a stamp until now, it is not known how the column is written: the next run reads everything."""
    table(world, rows=0)
    job = Syncing(world, where="v < 9")
    assert job.ok() == (0, True)
    world.sql("INSERT INTO t VALUES (1, 1, NULL), (2, 1, '2099-01-01')")
    assert job.ok() == (2, True)
    assert job.notes == ["everything is read: no row had a time in at when the last run began"]
    world.sql("UPDATE t SET v = 2")
    assert job.ok() == (2, True)
    world.sql("UPDATE t SET v = IF(id = 2, 9, 3), at = NOW()")
    assert job.run().deleted == 1
    assert job.ok() == (1, False)


def test_a_master_that_was_emptied(world):
    """The next run reads everything, and says why."""
    table(world, rows=50)
    job = Syncing(world)
    job.ok()
    holder = world.redis.get_node_from_key("loader:{job}:baseline")
    node = next(node for node in world.redis.get_primaries() if node != holder)
    keys = world.redis.keys("*", target_nodes=node)
    for key in keys:
        world.redis.delete(key)
    assert job.ok() == (50, True)
    assert "markers are gone" in job.notes[0]
    assert job.values() == job.rows()


def test_a_changed_plan(world):
    """Other fields, another condition or another column of the table: everything is read, and the reason is told."""
    table(world)
    job = Syncing(world)
    job.ok()
    assert job.ok(fields=["v", "id"]) == (10, True)
    assert "everything is read: the plan has changed" in job.notes[0]
    assert job.ok(fields=["v", "id"], incremental={"column": "at", "lag": "3s"})[1] is False
    world.sql("ALTER TABLE t ADD COLUMN w int DEFAULT 3")
    assert job.ok() == (10, True)
    assert world.hashes()[b"t_1"][b"w"] == b"3"


ENUMS = ["enum('M','F')", "enum('m','F')"]  # letter case alone is a change, and no stamp tells of it
ATTRIBUTES = {  # of information_schema.columns: what of them is another plan, and why the others are not
    "column_name": "the statement has it",
    "ordinal_position": "the statement has it, where all fields are meant",
    "data_type": "part of column_type",
    "column_type": "what values look like: lengths, signs, zeros, members as they are spelled",
    "character_maximum_length": "part of column_type",
    "character_octet_length": "part of column_type",
    "numeric_precision": "part of column_type",
    "numeric_scale": "part of column_type",
    "datetime_precision": "part of column_type",
    "character_set_name": "part of collation_name",
    "collation_name": "the order that text is walked in, and its character set",
    "extra": "whether SELECT * has it; how it is generated",
    "generation_expression": "other values without a new stamp, see Source.identity",
    "is_generated": "part of generation_expression",
    "column_default": "for rows to come, which are stamped",
    "is_nullable": "what makes NULL something else rebuilds the table, which Source.identity tells",
    "column_comment": "no value",
    "column_key": "the walk has it",
    "privileges": "a column that may not be read is an error",
    "srs_id": "what values it takes; each has its own",
    "is_system_time_period_start": "part of extra",
    "is_system_time_period_end": "part of extra",
    "table_catalog": "the source has it",
    "table_schema": "the source has it",
    "table_name": "the statement has it",
}


def test_each_attribute_of_a_column_is_decided(world):
    """No server says more of a column than what is known to matter to a plan or not to."""
    told = world.sql(
        "SELECT LOWER(column_name) FROM information_schema.columns"
        " WHERE LOWER(table_schema) = 'information_schema' AND LOWER(table_name) = 'columns'"
    )
    assert {name for (name,) in told} <= ATTRIBUTES.keys()


@pytest.mark.parametrize("kind", ["field", "expression"])
def test_a_member_that_is_spelled_otherwise(world, kind):
    """Rows show it at once, and their stamps say nothing: everything is read, be it a field or computed from one."""
    table(world, more=f", sex {ENUMS[0]} DEFAULT 'M'")
    more = {"fields": {"v": "v", "sex": "CONCAT('', sex)"}} if kind == "expression" else {}
    job = Syncing(world, **more)
    job.ok()
    world.sql(f"ALTER TABLE t MODIFY sex {ENUMS[1]} DEFAULT 'm'")
    assert job.ok() == (10, True)
    assert "column types was " in job.notes[0]
    assert {fields[b"sex"] for fields in world.hashes().values()} == {b"m"}


REPLACED = [  # each leaves names, types and stamps as they were; the last three are seen with the PROCESS right
    ("ALTER TABLE t MODIFY g int AS (v + 2) STORED",),
    ("ALTER TABLE t DROP COLUMN w", "ALTER TABLE t ADD COLUMN w int DEFAULT 2 AFTER v"),
    (
        "CREATE TABLE u LIKE t",
        "INSERT INTO u (id, v, at) SELECT id, 7, at FROM t",
        "DROP TABLE t",
        "RENAME TABLE u TO t",
    ),
    ("CREATE TABLE u SELECT * FROM t", "TRUNCATE t", "INSERT INTO t (id, v, at) SELECT id, 8, at FROM u"),
    ("ALTER TABLE t PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (6), PARTITION q VALUES LESS THAN (99))",),
    (
        "CREATE TABLE x LIKE t",
        "ALTER TABLE x REMOVE PARTITIONING",
        "INSERT INTO x (id, v, at) SELECT id, 9, at FROM t WHERE id < 6",
        "ALTER TABLE t EXCHANGE PARTITION p WITH TABLE x",
    ),
]


def test_another_table_of_the_name(world):
    """Where the table was altered, emptied or replaced, its stamps say nothing: everything is read, and told why."""
    table(world, more=", w int DEFAULT 1, g int AS (v + 1) STORED")
    job = Syncing(world)
    job.ok()
    world.sql("ANALYZE TABLE t", "UPDATE t SET v = 1 WHERE id = 3")
    assert job.ok()[1] is False

    def until_later():
        made = job.baseline()["facts"]["created"]
        while str(world.sql("SELECT UTC_TIMESTAMP()")[0][0]) <= made.removesuffix(" UTC"):
            time.sleep(0.05)  # MySQL tells it to the second

    for number, statements in enumerate(REPLACED):
        with process_right(world) if number > 2 else nullcontext():
            job.ok()  # which may be the first to see more
            if number < 3:
                until_later()
            world.sql(*statements)
            assert job.ok() == (10, True), statements
            assert "the table was " in job.notes[0], statements
            config = job.config()
            assert verify(config, config.jobs["job"]).is_equal, statements
            assert job.ok()[1] is False, statements
    stored = job.baseline()
    stored["facts"] = {name: value for name, value in stored["facts"].items() if name not in MAY_BE_UNKNOWN}
    world.redis.set("loader:{job}:baseline", json.dumps(stored))
    assert job.ok()[1] is False  # an older program did not note it


def test_rejects_are_not_forgotten(world):
    """A row that was refused stays listed, and later increments say so, until it is read again."""
    table(world)
    world.redis.set("t_4", "foreign")
    job = Syncing(world)
    assert job.run().status == "rejects"
    world.sql("UPDATE t SET v = 1, at = NOW() WHERE id = 5")
    job.baseline(at=job.baseline()["more"]["mark"]["at"] + 60)
    for _ in range(2):
        assert job.ok() == (1, False)
        assert "rows rejected earlier" in job.notes[0]
    world.redis.delete("t_4")
    assert job.ok(Options(full=True)) == (10, True)
    assert job.ok()[1] is False
    assert job.notes == []


def test_x10_a_moment_by_the_clock(world):
    """The watermark is whole seconds of MySQL's own clock, in the terms of the column."""
    for kind in ("datetime", "timestamp"):
        world.sql("DROP TABLE IF EXISTS t")
        table(world, kind)
        world.sql("UPDATE t SET at = NOW()")
        job = Syncing(world)
        job.zone = "+05:00"
        job.ok(Options(full=True))
        mark = job.baseline()["more"]["mark"]
        ahead = 5 * 3600 if kind == "datetime" else 0
        assert abs(mark["now"] - ahead - datetime.now(UTC).timestamp()) < 3


def write_at_random(world, seed, enough):
    """Transactions of some changes each, short ones and some that stay open for half a second, until it is enough."""
    chance = random.Random(seed)
    with other(world) as mysql, mysql.cursor() as cursor:
        while not enough.is_set():
            for _ in range(chance.randint(1, 3)):
                first = chance.randint(1, 400)
                part = f"id BETWEEN {first} AND {first + chance.randint(0, 5)} ORDER BY id"
                what = chance.choice(["v = v + 1", "v = v + 1", "gone = 1", "gone = 0", "w = 1 - w"])
                with suppress(pymysql.OperationalError):  # a deadlock
                    cursor.execute(f"UPDATE t SET {what} WHERE {part}")
            time.sleep(chance.choice([0, 0, 0.01, 0.5]))
            mysql.commit()
            time.sleep(0.005)


@pytest.mark.parametrize("kind", ["datetime", "timestamp(6)"])
def test_under_writers(world, kind):
    """Whatever is written while runs follow one another, the hashes are the rows once the writers are done."""
    table(world, kind, 400, more=", gone int NOT NULL DEFAULT 0, w int NOT NULL DEFAULT 1")
    job = Syncing(world, chunk_rows=50, soft_delete="gone = 1", where="w > 0", fields=["id", "v"])
    job.ok()
    end, enough = time.monotonic() + WRITING, threading.Event()
    writers = [threading.Thread(target=write_at_random, args=(world, seed, enough)) for seed in range(3)]
    for writer in writers:
        writer.start()
    try:
        runs = 0
        while runs <= 5 or time.monotonic() < end:
            assert job.ok()[1] is False
            runs += 1
    finally:
        enough.set()
        for writer in writers:
            writer.join()
    job.ok()
    assert job.values() == dict(world.sql("SELECT id, v FROM t WHERE gone = 0 AND w > 0"))


def test_a_baseline_that_was_called_in_question(world):
    """Everything is read, and hashes of rows that the job no longer takes go as they would have."""
    world.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v int, gone int NOT NULL DEFAULT 0,"
        " at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, INDEX (at))",
        "INSERT INTO t (id, v) VALUES (1, 1), (2, 2), (3, 3)",
    )
    job = {
        "table": "t",
        "fields": ["id", "v"],
        "incremental": {"column": "at", "lag": "1s"},
        "soft_delete": "gone = 1",
    }
    assert world.sync(**job).written == 3
    world.sql("UPDATE t SET gone = 1 WHERE id = 2")
    with RedisClient(world.config(**job).target) as target:
        Baselines(target, "job").void()
    ear = Ear()
    run = world.sync(ear, **job)
    assert (run.status, run.full, run.written, run.deleted) == ("ok", True, 2, 1)
    assert any("no longer trusted" in getattr(event, "text", "") for event in ear.events)
    assert set(world.hashes()) == {b"t_1", b"t_3"}
    assert not world.sync(**job).full


def test_a_run_leaves_no_baseline_where_it_was_called_in_question(world, monkeypatch):
    """By another run, that had the lock too and may have written over what this one wrote."""
    world.sql(
        "CREATE TABLE t (id int PRIMARY KEY, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, INDEX (at))",
        "INSERT INTO t (id) VALUES (1), (2)",
    )
    job = {"table": "t", "incremental": {"column": "at", "lag": "1s"}}
    sweep = RunState._sweep

    def sweep_late(self):
        with RedisClient(world.config(**job).target) as target:
            Baselines(target, "job").void(under_way=True)
        sweep(self)

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(RunState, "_sweep", sweep_late)
            assert world.sync(**job).full
    assert world.sync(**job).full
    assert not world.sync(**job).full
