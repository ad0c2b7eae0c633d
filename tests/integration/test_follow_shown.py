"""What is shown of following: how far behind it is, why it waits, who follows; by the command, Redis and the daemon."""

import signal
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest

from loader.errors import ConfigError
from loader.jobs.follow import Following
from loader.jobs.status import job_status
from loader.lab.process import wait
from loader.model import FollowProgress, Notice
from loader.mysql.binlog import BinlogStream
from loader.mysql.dump import replica_with
from loader.pipeline.options import Options
from loader.redis.client import RedisClient
from loader.report.status import status_document, status_text
from support.command import HOST, Desk
from support.daemons import daemon
from support.database import Ear
from support.following import Running, config_of

JOBS = {"f": {"table": "f", "key": "f_{id}", "follow": True}}


@pytest.fixture
def table(server):
    """A table of 500 rows."""
    server.sql(
        "DROP TABLE IF EXISTS f",
        "CREATE TABLE f (id INT PRIMARY KEY, n INT)",
        "INSERT INTO f VALUES " + ", ".join(f"({number}, {number})" for number in range(1, 501)),
    )
    return server


@contextmanager
def the_right(server):
    """The account may ask how long the binlog is."""
    right = "BINLOG MONITOR" if server.is_mariadb else "REPLICATION CLIENT"
    server.sql(f"GRANT {right} ON *.* TO loader@'%'")
    yield
    server.sql(f"REVOKE {right} ON *.* FROM loader@'%'")


@contextmanager
def load(server):
    """So many connections that `--max-load` makes a follower wait."""
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(server.connect())
        yield


def following(config, options=None):
    """A follower that has caught up."""
    running = Running(config, options)
    running.until(lambda: running.following.is_following)
    running.until(lambda: last(running).is_caught_up)
    return running


def last(running):
    """What was told last of how far it is."""
    return next(
        (event for event in reversed(running.ear.events) if isinstance(event, FollowProgress)), FollowProgress()
    )


def status(config):
    with RedisClient(config.target) as target:
        return job_status(target, config.source, config.jobs["job"])


def behind(server, position):
    """The bytes of binlog behind a place, as the server's list of files has them."""
    sizes = {row[0]: row[1] for row in server.sql("SHOW BINARY LOGS")}
    return sum(size for file, size in sizes.items() if file >= position.file) - position.offset


def test_it_waits_while_mysql_is_busy(table, world):
    """With `--max-load` no rows are read meanwhile; how far it is behind is shown, in bytes too, and why it waits."""
    config = config_of(table, world, max_age="1s")
    with the_right(table):
        running = following(config, Options(max_load=("Threads_connected", 25)))
        assert last(running).lag_bytes == 0
        running.until(lambda: status_document(status(config))["follow"]["lag_bytes"] == 0)
        with load(table):
            running.until(lambda: last(running).waiting)
            start = table.position()
            table.sql("UPDATE f SET n = -1 WHERE id <= 100", "FLUSH BINARY LOGS", "UPDATE f SET n = -2 WHERE id = 1")
            running.until(lambda: last(running).lag_bytes == behind(table, start))
            running.until(lambda: status(config).late)
            shown, text = status(config), " ".join(status_text([status(config)]).split())
            assert world.redis.hget("f_1", "n") == b"1"
        running.until(lambda: world.redis.hget("f_1", "n") == b"-2")
        running.until(lambda: last(running).is_caught_up and not last(running).waiting)
        running.until(lambda: not status(config).late)
        (done,) = running.stop()

    follow = status_document(shown)["follow"]
    assert last(running).waiting == ""
    assert follow["waits_for"].startswith("--max-load Threads_connected=25: it is ")
    assert follow["lag_seconds"] > 1
    assert "waits: --max-load Threads_connected=25: it is " in text
    assert (done.changes, done.lag, done.lag_bytes) == (101, 0, 0)
    counts = status_document(status(config))["follow"]
    assert [counts[name] for name in ("changes", "keys", "written", "deleted", "waits_for")] == [101, 100, 100, 0, None]


def test_it_does_not_know_how_many_bytes(table, world):
    """An account that may not ask has none, rather than a number that is wrong."""
    running = following(config_of(table, world), Options(max_load=("Threads_connected", 25)))
    with load(table):
        running.until(lambda: last(running).waiting)
        table.sql("UPDATE f SET n = -1 WHERE id = 1")
        running.until(lambda: not last(running).is_caught_up)
        running.until(lambda: last(running).lag > 2)
        assert last(running).lag_bytes is None
    running.until(lambda: world.redis.hget("f_1", "n") == b"-1")
    running.stop()


def test_a_limit_that_mysql_does_not_have(table, world):
    """A variable that is not there ends it, instead of having it wait for nothing."""
    config = config_of(table, world)
    following(config).stop()
    options = Options(max_load=("No_such", 1))
    with pytest.raises(ConfigError, match="no numeric status variable 'No_such'"):
        Following(config, list(config.jobs.values()), lambda _: Ear(), None, options).run()


def test_the_server_id(table, world):
    """The binlog is asked for as the replica that the job names; two jobs of one stream cannot name two."""
    config = config_of(table, world, follow={"server_id": 9001})
    running = following(config)
    try:
        with BinlogStream(table.source(), table.position(), replica_with(9001), {}) as another:
            another.read()
            told = lambda: running.errors or any("same replica" in text for text in notices(running))  # noqa: E731
            wait(told, "the server to object")
    finally:
        running.following.stop()
    assert all("same replica" in str(error) for error in running.errors)

    jobs = [config.jobs["job"], config.jobs["job"].model_copy(update={"name": "other"})]
    Following(config, jobs, lambda _: running.ear)
    jobs[1] = config_of(table, world, follow={"server_id": 9002}).jobs["job"].model_copy(update={"name": "other"})
    with pytest.raises(ConfigError, match="one server_id, not 9001 and 9002"):
        Following(config, jobs, lambda _: running.ear)


def notices(running):
    return [event.text for event in running.ear.events if isinstance(event, Notice)]


def test_a_pass_of_the_daemon(table, world, tmp_path):
    """All rows that a follower reads count as those of a run; what is followed counts by job."""
    desk = Desk(world, tmp_path)
    table.sql("DROP TABLE IF EXISTS g", "CREATE TABLE g (id INT PRIMARY KEY, n INT)", "INSERT INTO g VALUES (1, 1)")
    desk.write(
        JOBS | {"g": {"table": "g", "key": "g_{id}", "follow": True}}, source=table.source_config(), listen=f"{HOST}:0"
    )
    with daemon(desk) as running:
        port = running.until("daemon started")[0]["port"]
        running.until("caught up")
        table.sql("UPDATE f SET n = -1 WHERE id <= 6")
        wait(lambda: counted(port).get('followed_changes_total{job="f"}') == 6, "the changes to be counted")
        wait(lambda: counted(port).get('followed_lag_bytes{job="f"}') == 0, "it to have caught up")
        wait(lambda: all(text in page(port, "/jobs/f") for text in ("6 changes, ", "caught up")), "the page to show it")
        metrics = counted(port)
        assert running.end()[1] == 0

    assert metrics['rows_total{job="f",outcome="written"}'] == 500
    assert metrics['runs_total{job="f",status="ok"}'] == metrics['runs_total{job="g",status="ok"}'] == 1
    assert metrics['followed_keys_total{job="f"}'] == 6
    assert [metrics[f'followed_{name}_total{{job="g"}}'] for name in ("changes", "keys")] == [0, 0]
    assert metrics['followed_timestamp_seconds{job="g"}'] > 0
    assert [run["status"] for run in desk.run("runs", "f", "-o", "json").documents] == ["ok"]


def page(port, path):
    with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def counted(port):
    """The metrics, without their prefix."""
    lines = [line for line in page(port, "/metrics").splitlines() if line.startswith("loader_")]
    return {name.removeprefix("loader_"): float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_a_second_daemon_takes_over(table, world, tmp_path):
    """It waits and says for whom; once the first is killed it goes on from the stored position, without reading all."""
    desk = Desk(world, tmp_path)
    desk.write(JOBS, source=table.source_config(), listen=f"{HOST}:0")
    with daemon(desk) as first:
        first.until("caught up")
        with daemon(desk) as second:
            assert "locked by run" in second.until("not followed for now")[0]["error"]
            first.end(signal.SIGKILL)
            table.sql("UPDATE f SET n = -5 WHERE id = 5", "DELETE FROM f WHERE id = 6")
            wait(lambda: world.redis.hget("f_5", "n") == b"-5" and not world.redis.exists("f_6"), "the takeover")
            assert second.end()[1] == 0
    assert not second.of("all rows are read: it was not followed before")
    assert [run["status"] for run in desk.run("runs", "f", "-o", "json").documents] == ["ok"]
