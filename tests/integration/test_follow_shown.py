"""What is shown of following: how far behind it is, why it waits, who follows; by the command, Redis and the daemon."""

import signal
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from loader.errors import ConfigError
from loader.jobs.follow import Following
from loader.jobs.status import job_status
from loader.lab.process import free_ports, wait
from loader.model import FollowProgress, Notice
from loader.mysql.binlog import BinlogStream
from loader.mysql.dump import replica_with
from loader.outcome import Status
from loader.pipeline.options import Options
from loader.redis.client import RedisClient
from loader.report.status import status_document, status_text
from loader.state.history import History
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
    (run,) = desk.run("runs", "f", "-o", "json").documents
    assert (run["status"], run["by"], run["slot"], run["user"]) == ("ok", "follow", None, None)


def test_jobs_that_are_only_followed(table, world, tmp_path):
    """They count as the daemon's jobs, are no run in progress, and can be run by hand meanwhile."""
    desk = Desk(world, tmp_path)
    more = {"hand": {"table": "f", "key": "hand_{id}"}}
    port, token = free_ports(1)[0], "0123456789abcdef-followed"
    source = table.source_config()
    desk.write(JOBS | more, source=source, listen=f"{HOST}:{port}", daemon={"token": token})
    with daemon(desk) as running:
        (started,) = running.until("daemon started")
        running.until("caught up")
        wait(lambda: "caught up" in page(port, "/jobs/f"), "the page to show it")
        shown = desk.run("status", "f", "-o", "json").document
        assert (shown["state"], shown["follow"]["running"], len(shown["running"])) == ("ok", True, 1)
        assert "followed on " in desk.run("status", "f").out
        text = page(port, "/")
        assert "<b>0</b> running" in text
        assert "as rows change" in text
        both = {"f": JOBS["f"] | {"schedule": {"every": "1d"}}, "g": {"table": "f", "key": "g_{id}", "follow": True}}
        desk.write(both | more, source=source, listen=f"{HOST}:{port}", daemon={"token": token})
        running.send(signal.SIGHUP)
        (reloaded,) = running.until("config reloaded")
        assert (started["jobs"], reloaded["jobs"]) == (1, 2)
        running.until("caught up", 2)
        asked = urllib.request.Request(
            f"http://{HOST}:{port}/jobs/f/run", method="POST", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.status == 202
        running.until("run", job="f", by="hand", status="ok")
        running.until("caught up", 3)
        assert running.end()[1] == 0


def test_why_the_daemon_cannot_follow_is_on_the_page(table, world, tmp_path):
    """The job fails there, though all its runs ended well, until its follower begins."""
    desk = Desk(world, tmp_path)
    port = free_ports(1)[0]
    desk.write(JOBS, source=table.source_config(), listen=f"{HOST}:{port}")
    right = "REPLICATION SLAVE ON *.*"
    assert desk.run("sync", "f").code == 0
    table.sql(f"REVOKE {right} FROM loader@'%'")
    try:
        with daemon(desk) as running:
            running.until("not followed for now")
            wait(lambda: "<b>1</b> failing" in page(port, "/"), "the page to tell")
            assert "not followed: " in page(port, "/")
            table.sql(f"GRANT {right} TO loader@'%'")
            running.until("caught up")
            wait(lambda: "<b>0</b> failing" in page(port, "/"), "the page to tell that it is over")
            assert running.end()[1] == 0
    finally:
        table.sql(f"GRANT {right} TO loader@'%'")


def test_a_pass_that_fails_is_nobody_s_doing(table, world):
    """It is the job's state, as a scheduled run is; a run by hand is not."""
    config = config_of(table, world, follow=True)
    following(config).stop()
    with RedisClient(config.target) as target:
        history = History(target, "job")
        (passed,) = history.last()
        assert (passed.by, passed.is_by_hand) == ("follow", False)
        failed = replace(passed, status=Status.FAILED, error="gone")
        history.add(replace(failed, follows=False))
        assert status(config).state == "ok"
        history.add(failed)
        assert status(config).state == "failed"


def test_an_outage_of_mysql_is_told_once(table, world):
    """Not at each attempt; what is shown meanwhile is why it cannot connect, though connections break in many ways."""
    config = config_of(table, world, follow=True)
    running = following(config)
    try:
        table.kill()
        try:
            running.until(lambda: "cannot connect" in last(running).waiting)
            told = len(running.ear.events)
            running.until(lambda: len(running.ear.events) > told + 4)
            stored = status(config).follow.position.reach.waiting
        finally:
            table.start()
        running.until(lambda: last(running).is_caught_up and not last(running).waiting)
    finally:
        running.following.stop()
    running.stop()
    again = [text for text in notices(running) if text.startswith("the binlog is read again: ")]
    assert len(again) == len(set(again)) <= 2, again
    assert "cannot connect" in stored


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
