"""Following the binlog: hashes are equal to rows a moment after each commit."""

import signal

import pytest

from loader.errors import ConfigError, Kind, LoaderError, PositionLost, TargetError
from loader.jobs.follow import Following
from loader.jobs.full_pass import Begin
from loader.jobs.verify import verify
from loader.lab.process import wait
from loader.model import RunEnded
from loader.pipeline.followed_job import FollowedJob
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from support.command import Desk
from support.daemons import daemon
from support.database import Ear
from support.following import Running, config_of, differences, following


@pytest.fixture
def table(server):
    """A table of 5,000 rows."""
    server.sql(
        "DROP TABLE IF EXISTS f",
        "CREATE TABLE f (id INT UNSIGNED ZEROFILL PRIMARY KEY, name VARCHAR(30), n INT)",
        "INSERT INTO f VALUES " + ", ".join(f"({number}, 'name{number}', {number})" for number in range(1, 5001)),
    )
    return server


def test_changes_come(table, world):
    """Inserted, updated and deleted rows are in Redis a moment after their commit, without a sync."""
    config = config_of(table, world)
    running = Running(config)
    try:
        running.until(lambda: running.following.is_following)
        table.sql(
            "UPDATE f SET name = 'new' WHERE id = 7",
            "DELETE FROM f WHERE id = 8",
            "INSERT INTO f VALUES (9999, 'x', 1)",
        )
        running.until(lambda: world.redis.exists("f_0000009999") and not world.redis.exists("f_0000000008"))
    finally:
        results = running.stop()
    assert world.redis.hget("f_0000000007", "name") == b"new"
    assert differences(config) == (0, 0, 0)
    assert [(each.changes, each.written, each.deleted) for each in results] == [(3, 2, 1)]


def test_it_goes_on_where_it_was(table, world):
    """What changed while nobody followed is brought over at the next start, and nothing else."""
    config = config_of(table, world)
    following(config).stop()
    table.sql("UPDATE f SET n = 0 WHERE id < 4", "UPDATE f SET id = 7000 WHERE id = 10")

    running = following(config)
    running.until(lambda: world.redis.exists("f_0000007000") and not world.redis.exists("f_0000000010"))
    (done,) = running.stop()

    assert differences(config) == (0, 0, 0)
    assert (done.written, done.deleted) == (4, 1)


@pytest.mark.parametrize(("method", "times"), [("flush", 1), ("save", 2)])
def test_it_is_told_to_stop_while_redis_fails(table, world, monkeypatch, method, times):
    """It ends as it was told to, with a position from which the next one brings over what was under way."""
    config = config_of(table, world)
    running = following(config)
    real, failures = getattr(FollowedJob, method), []

    def fail(self, *values):
        if len(failures) == times:
            return real(self, *values)
        running.following.stop()
        failures.append(TargetError("redis is away", kind=Kind.UNAVAILABLE))
        raise failures[-1]

    monkeypatch.setattr(FollowedJob, method, fail)
    table.sql("UPDATE f SET name = 'new' WHERE id = 7")
    running.until(lambda: failures)
    running.stop()
    assert len(failures) == times
    again = following(config)
    again.until(lambda: world.redis.hget("f_0000000007", "name") == b"new")
    again.stop()

    assert differences(config) == (0, 0, 0)


def test_a_column_is_added(table, world):
    """Rows that MySQL changes without a word are read all: a new column has a default."""
    config = config_of(table, world)
    running = following(config)
    table.sql("ALTER TABLE f ADD COLUMN extra INT NOT NULL DEFAULT 5")
    running.until(lambda: world.redis.hget("f_0000004999", "extra") == b"5")
    running.until(lambda: running.following.is_following)
    table.sql("UPDATE f SET extra = 6 WHERE id = 1")
    running.until(lambda: world.redis.hget("f_0000000001", "extra") == b"6")
    running.stop()
    assert differences(config) == (0, 0, 0)


def test_a_table_is_emptied(table, world):
    """TRUNCATE tells of no row: all are looked for, and no more hashes are deleted than `loader prune` would."""
    config = config_of(table, world)
    running = following(config)
    table.sql("TRUNCATE f", "INSERT INTO f VALUES (1, 'only', 1)")
    running.until(lambda: world.redis.hget("f_0000000001", "name") == b"only")
    running.until(lambda: any("--max-delete" in getattr(event, "text", "") for event in running.ear.events))
    running.stop()
    assert differences(config) == (0, 0, 4999)


def test_the_binlog_is_purged(table, world):
    """A position that MySQL no longer has ends the follower, unless all rows are to be read again then."""
    config = config_of(table, world)
    following(config).stop()
    table.sql("UPDATE f SET n = 0", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    newest = table.position().file

    def purged():  # not while the follower that has ended still has a file open
        table.sql(f"PURGE BINARY LOGS TO '{newest}'")
        return table.sql("SHOW BINARY LOGS")[0][0] == newest

    wait(purged, "the binlog to be purged")

    with pytest.raises(PositionLost):
        Following(config, list(config.jobs.values()), lambda _: Ear()).run()

    config = config_of(table, world, follow={"on_lost_position": "backfill"})
    running = following(config)
    running.until(lambda: differences(config) == (0, 0, 0))
    running.stop()


def test_redis_is_emptied(table, world):
    """A target that lost its keys has all rows again."""
    config = config_of(table, world)
    running = following(config)
    world.redis.flushall(target_nodes="primaries")
    running.until(lambda: world.redis.exists("f_0000000001", "f_0000005000") == 2)
    running.stop()
    assert differences(config) == (0, 0, 0)


def test_a_master_loses_writes(table, world, monkeypatch):
    """Rows that were written lately are written again if what a master has noted behind them is gone."""
    monkeypatch.setattr("loader.pipeline.follow.LOOK_EVERY", 0.2)
    config = config_of(table, world)
    running = following(config)
    table.sql("UPDATE f SET n = 33 WHERE id = 3")
    running.until(lambda: world.redis.hget("f_0000000003", "n") == b"33")

    world.redis.hset("f_0000000003", "n", "old")  # as a replica has them that did not get the last writes
    for key in world.redis.scan_iter("loader:following:*"):
        for field in world.redis.hkeys(key):
            if b"." in field:
                world.redis.hset(key, field, 0)
    running.until(lambda: world.redis.hget("f_0000000003", "n") == b"33")
    running.until(lambda: any("written again" in getattr(event, "text", "") for event in running.ear.events))
    running.stop()
    assert differences(config) == (0, 0, 0)


def test_rows_that_leave_the_job(table, world):
    """A hash goes with its row, and if its row no longer satisfies `where` or is deleted softly."""
    config = config_of(table, world, where="n < 9000", soft_delete="name = 'gone'")
    running = following(config)
    table.sql("UPDATE f SET n = 9001 WHERE id = 3", "UPDATE f SET name = 'gone' WHERE id = 4")
    running.until(lambda: not world.redis.exists("f_0000000003") and not world.redis.exists("f_0000000004"))
    table.sql("UPDATE f SET n = 3 WHERE id = 3")
    running.until(lambda: world.redis.exists("f_0000000003"))
    running.stop()
    assert differences(config) == (0, 0, 0)


def test_rejects(table, world):
    """A row that cannot be written is listed, and written and struck off once it changes again."""
    config = config_of(table, world)
    running = following(config)
    world.redis.delete("f_0000000007")
    world.redis.set("f_0000000007", "not a hash")
    table.sql("UPDATE f SET n = 70 WHERE id = 7")
    running.until(lambda: world.redis.hlen("loader:{job}:rejects"))
    assert world.redis.hkeys("loader:{job}:rejects") == [b"f_0000000007"]

    world.redis.delete("f_0000000007")
    table.sql("UPDATE f SET n = 71 WHERE id = 7")
    running.until(lambda: not world.redis.hlen("loader:{job}:rejects"))
    running.stop()
    assert differences(config) == (0, 0, 0)


def test_two_jobs_of_one_table(table, world):
    """Jobs with other keys follow the same changes, over one stream."""
    config = config_of(table, world)
    second = config.jobs["job"].model_copy(update={"key": "n_{n}_{id}"})
    second.__dict__.pop("key_parts", None)
    second.take_name("second")
    config = config.model_copy(update={"jobs": {**config.jobs, "second": second}})
    running = following(config)
    table.sql("UPDATE f SET n = 12345 WHERE id = 3", "DELETE FROM f WHERE id = 4")
    running.until(lambda: world.redis.exists("n_12345_0000000003") and not world.redis.exists("n_4_0000000004"))
    running.stop()
    assert not world.redis.exists("n_3_0000000003")
    assert [verify(config, job).is_equal for job in config.jobs.values()] == [True, True]


def test_a_sync_of_a_followed_job(table, world):
    """The follower lets the lock go for another run, goes on after it, and loses nothing of what changed meanwhile."""
    config = config_of(table, world)
    running = following(config)
    table.sql("UPDATE f SET n = 1 WHERE id = 1")

    run = run_job(config, config.jobs["job"], Options(), Ear())
    table.sql("UPDATE f SET n = 2 WHERE id = 1")
    running.until(lambda: world.redis.hget("f_0000000001", "n") == b"2")
    running.stop()

    assert (run.status, run.read) == ("ok", 5000)
    assert differences(config) == (0, 0, 0)


def test_a_run_waits_for_the_lock(table, world, monkeypatch):
    """A follower that has let its lock go does not take it again while a run waits for it, however seldom it asks.

    Meanwhile it asks Redis for it, and MySQL nothing.
    """
    config = config_of(table, world)
    running = following(config)
    real, refused, looks = Following._open, [], []

    def count(self, job):
        try:
            return real(self, job)
        except LoaderError as error:
            refused.append((error.kind, str(error)))
            raise

    def look(self, target, wanted):
        looks.append(set(wanted))
        if len(looks) == 5:
            raise TargetError("redis is away", kind=Kind.UNAVAILABLE)
        return still(self, target, wanted)

    still = Following._is_free
    monkeypatch.setattr(Following, "_open", count)
    world.redis.set("loader:{job}:wanted", "a run", px=60_000)
    running.until(lambda: refused)
    monkeypatch.setattr(Following, "_is_free", look)
    running.until(lambda: len(looks) > 9)
    assert not world.redis.exists("loader:{job}:lock")
    assert refused == [(Kind.LOCKED, "job 'job' is about to be locked by a run that waits for it")]
    assert looks[-1] == {"job"}

    table.sql("UPDATE f SET n = 2 WHERE id = 1")
    world.redis.delete("loader:{job}:wanted")
    running.until(lambda: world.redis.hget("f_0000000001", "n") == b"2")
    running.stop()
    assert differences(config) == (0, 0, 0)


def test_it_is_told_to_stop_while_a_run_has_the_lock(table, world, monkeypatch):
    """It ends, with nothing to tell of, also if Redis cannot be asked any more whether that run is over."""
    config = config_of(table, world)
    running = following(config)
    failures = []

    def fail(*_):
        failures.append(TargetError("redis is away", kind=Kind.UNAVAILABLE))
        raise failures[-1]

    world.redis.set("loader:{job}:wanted", "a run", px=60_000)
    running.until(lambda: not world.redis.exists("loader:{job}:lock"))
    monkeypatch.setattr(Following, "_is_free", fail)
    running.until(lambda: len(failures) > 1)
    assert running.stop() == []


def test_a_sync_of_what_was_followed(table, world):
    """A changed_only sync does not take a hash for what it wrote itself: the follower has written since."""
    config = config_of(table, world, changed_only=True)
    running = following(config)
    assert run_job(config, config.jobs["job"], Options(), Ear()).written == 5000
    table.sql("UPDATE f SET n = 99 WHERE id = 3")
    running.until(lambda: world.redis.hget("f_0000000003", "n") == b"99")
    running.stop()
    table.sql("UPDATE f SET n = 3 WHERE id = 3")

    run_job(config, config.jobs["job"], Options(), Ear())
    assert differences(config) == (0, 0, 0)


def test_where_it_begins(table, world):
    """`start` reads all rows; `now` reads what changed since a sync, and is refused if none vouches for the rest."""
    plain = config_of(table, world)
    with pytest.raises(ConfigError, match="no sync vouches"):
        Following(plain, list(plain.jobs.values()), lambda _: Ear(), Begin.NOW).run()
    config = config_of(table, world, changed_only=True)
    run_job(config, config.jobs["job"], Options(), Ear())
    table.sql("UPDATE f SET n = 7 WHERE id = 3")

    ear = Ear()
    Following(config, list(config.jobs.values()), lambda _: ear, Begin.NOW).run(until_caught_up=True)
    assert [event.run.written for event in ear.events if isinstance(event, RunEnded)] == [1]
    assert differences(config) == (0, 0, 0)
    with pytest.raises(ConfigError, match="was followed before"):
        Following(config, list(config.jobs.values()), lambda _: Ear(), Begin.NOW).run()

    ear = Ear()
    Following(config, list(config.jobs.values()), lambda _: ear, Begin.START).run(until_caught_up=True)
    assert [event.run.written for event in ear.events if isinstance(event, RunEnded)] == [5000]


def test_the_daemon_follows(table, world, tmp_path):
    """A job that is followed needs no schedule; one that a reload adds is followed too; SIGTERM ends it with exit 0."""
    desk = Desk(world, tmp_path)
    source = {"url": f"mysql://loader@127.0.0.1:{table.port}/test", "password": table.passwords["loader"]}
    table.sql("DROP TABLE IF EXISTS g", "CREATE TABLE g (id INT PRIMARY KEY, n INT)", "INSERT INTO g VALUES (1, 1)")
    jobs = {"f": {"table": "f", "key": "f_{id}", "follow": True}}
    desk.write(jobs, source=source)
    with daemon(desk) as running:
        wait(lambda: world.redis.exists("f_0000000007"), "all rows")
        table.sql("UPDATE f SET n = 70 WHERE id = 7")
        wait(lambda: world.redis.hget("f_0000000007", "n") == b"70", "the change")
        desk.write(jobs | {"g": {"table": "g", "key": "g_{id}", "follow": True}}, source=source)
        running.send(signal.SIGHUP)
        wait(lambda: world.redis.exists("g_1"), "the other table")
        table.sql("UPDATE f SET n = 71 WHERE id = 7", "UPDATE g SET n = 2")
        wait(lambda: world.redis.hget("g_1", "n") == b"2", "the change of the other table")
        wait(lambda: world.redis.hget("f_0000000007", "n") == b"71", "the change of the first")
        _, code = running.end()
    assert code == 0
    assert world.redis.exists("loader:{f}:position", "loader:{g}:position") == 2
