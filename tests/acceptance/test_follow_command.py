"""`loader follow` as a person runs it: its streams, its exit codes, and what it leaves behind."""

import json
import signal
import threading

import pytest

from loader.lab.process import free_ports, wait
from support.binlog import BinlogServer
from support.command import MARK, Desk, finish

ROWS = 200
KEYS = ["schema", "job", "position", "lag_seconds", "lag_bytes", "changes", "keys", "written", "deleted"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that writes a binlog, with an account that may not read it."""
    server = BinlogServer(tmp_path_factory.mktemp("binlog"))
    server.sql(
        f"CREATE USER reader@'%' IDENTIFIED BY '{MARK}-reader'",
        "GRANT SELECT ON test.* TO reader@'%'",
    )
    yield server
    server.stop()


@pytest.fixture
def desk(server, world, tmp_path):
    """A config with the job `stu` between a table of the server with a binlog and the world's cluster."""
    server.sql(
        "DROP TABLE IF EXISTS stu",
        "CREATE TABLE stu (sid INT PRIMARY KEY, sname VARCHAR(30))",
        "INSERT INTO stu VALUES " + ", ".join(f"({number}, 'name{number}')" for number in range(1, ROWS + 1)),
    )
    desk = Desk(world, tmp_path)
    desk.write(source=server.source_config())
    return desk


def status(desk):
    return desk.run("status", "stu", "-o", "json").document


def following(desk, *words):
    """A follower that follows."""
    process = desk.start("follow", "stu", "-o", "json", *words)
    wait(lambda: process.poll() is not None or b"stu_200" in desk.world.hashes(), "the rows to be loaded")
    wait(lambda: process.poll() is not None or (status(desk)["follow"] or {}).get("lag_seconds") == 0, "it to follow")
    assert process.poll() is None, finish(process)
    return process


def end(process, number=signal.SIGTERM):
    process.send_signal(number)
    return finish(process)


def test_sigterm(server, desk):
    """A signal ends it well, with a document; the position is stored, and how far it is can be asked for meanwhile."""
    process = following(desk)
    server.sql("UPDATE stu SET sname = 'new' WHERE sid = 7", "DELETE FROM stu WHERE sid = 8")
    wait(lambda: b"stu_8" not in desk.world.hashes(), "the change to come")
    wait(lambda: status(desk)["follow"]["lag_seconds"] == 0, "it to have caught up")
    running, text = status(desk), desk.run("status", "stu")
    ended = end(process)

    assert (ended.code, ended.messages) == (0, [])
    document = ended.document
    assert list(document) == KEYS
    assert (document["schema"], document["job"]) == ("loader.follow/v1", "stu")
    assert [document[name] for name in ("changes", "keys", "written", "deleted")] == [2, 2, 1, 1]
    assert desk.world.hashes()[b"stu_7"][b"sname"] == b"new"
    events = [line for line in ended.err.splitlines() if '"following begins"' in line or '"following ends"' in line]
    assert len(events) == 2
    assert '"caught up"' in ended.err
    after = status(desk)["follow"]
    assert list(after) == [*KEYS[2:], "committed", "running", "waits_for"]
    assert (running["state"], running["follow"]["running"], after["running"]) == ("ok", True, False)
    assert after["position"] == document["position"]
    assert after["committed"]
    assert "followed, now at" in text.out


def test_until_caught_up(server, desk):
    """It ends by itself once all changes are there, and goes on where it was the next time."""
    first = desk.run("follow", "stu", "--until-caught-up")
    server.sql("UPDATE stu SET sname = 'new' WHERE sid <= 3")
    second = desk.run("follow", "stu", "--until-caught-up", "-o", "json")

    assert (first.code, second.code) == (0, 0)
    assert first.out.startswith("stu: followed to ")
    assert [second.document[name] for name in ("lag_seconds", "lag_bytes", "changes", "written")] == [0.0, 0, 3, 3]


def test_until_caught_up_on_a_server_that_is_never_silent(server, desk):
    """It ends although other tables go on changing."""
    stopping = threading.Event()

    def change():
        while not stopping.wait(0.1):
            server.mark()

    changes = threading.Thread(target=change)
    changes.start()
    try:
        result = desk.run("follow", "stu", "--until-caught-up")
    finally:
        stopping.set()
        changes.join()
    assert result.code == 0


def test_max_age(server, desk):
    """A job that is followed is as old as what may be missing, not as its last run."""
    desk.write({"stu": {"table": "stu", "key": "stu_{sid}", "max_age": "1s"}}, source=server.source_config())
    process = following(desk)
    wait(lambda: status(desk)["success"]["age"] > 2, "the run to be old")
    is_late = status(desk)["late"]
    end(process)

    assert is_late is False
    wait(lambda: status(desk)["late"], "the follower to be missed")


def test_a_query(desk):
    """What a query gives is not in the binlog: which table to follow has to be said."""
    desk.write({"stu": {"query": "SELECT 1 AS sid", "key": "stu_{sid}"}})
    result = desk.run("follow", "stu")
    assert (result.code, result.out) == (2, "")
    assert "write follow: {table: …}" in result.err


def test_no_binlog(server, desk):
    """A server without a binlog is refused, with what to do."""
    server.stop()
    server.start("--skip-log-bin")
    try:
        result = desk.run("follow", "stu")
    finally:
        server.stop()
        server.start()
    assert (result.code, result.out) == (2, "")
    assert "has no binlog: start it with log_bin" in result.err


def test_no_right(server, desk):
    """An account that may not read the binlog is told which right it lacks."""
    desk.write(source=server.source_config("reader", f"{MARK}-reader"))
    result = desk.run("follow", "stu")
    assert (result.code, result.out) == (2, "")
    assert "GRANT REPLICATION SLAVE ON *.* TO 'reader'@" in result.err
    assert not desk.world.hashes()  # it says so before all rows are read


def test_a_second_follower(desk):
    """One follower has the lock of a job; a second does not push it out, and is told that it does not end by itself."""
    process = following(desk)
    second = desk.run("follow", "stu")
    sync = desk.run("sync", "stu")
    first = end(process)

    assert (second.code, second.out, sync.code, first.code) == (5, "", 0, 0)
    assert "locked by run" in second.err
    assert "it follows the job until it is stopped" in second.err


def test_sigkill(server, desk):
    """A follower that is killed while rows change has lost none of them once another has caught up."""
    process = following(desk)
    for number in range(20):
        server.sql(f"UPDATE stu SET sname = 'v{number}' WHERE sid % 7 = {number % 7}")
        if number == 10:
            end(process, signal.SIGKILL)
    server.sql("DELETE FROM stu WHERE sid > 190")
    again = desk.run("follow", "stu", "--until-caught-up")
    verified = desk.run("verify", "stu", "-o", "json")

    assert (again.code, verified.code, verified.document["rows"]) == (0, 0, 190)


def test_several_servers(server, desk):
    """Tables of one server, in any of its databases, share a stream; a server that is away does not stop the others."""
    server.sql(
        "CREATE DATABASE IF NOT EXISTS second",
        "GRANT SELECT ON second.* TO loader@'%'",
        "DROP TABLE IF EXISTS second.stu_2",
        "CREATE TABLE second.stu_2 (sid INT PRIMARY KEY, sname VARCHAR(30))",
        "INSERT INTO second.stu_2 VALUES (1, 'a'), (2, 'b')",
    )
    (port,) = free_ports(1)
    away = {"url": f"mysql://loader@127.0.0.1:{port}/test"}
    job = {"source": ["here", "away"], "tables": ["test.stu", "second.stu_?"], "key": "{source}:{table}_{pk}"}
    text = json.loads((desk.directory / "loader.yaml").read_text(encoding="utf-8"))
    here = text.pop("source")
    desk.text(json.dumps(text | {"sources": {"here": here, "away": away}, "jobs": {"all": job}}))
    first = desk.run("follow", "--all", "--until-caught-up", "-o", "json")
    server.sql("UPDATE second.stu_2 SET sname = 'new' WHERE sid = 2", "DELETE FROM stu WHERE sid = 8")
    second = desk.run("follow", "--all", "--until-caught-up", "-o", "json")

    assert (first.code, second.code) == (4, 4)
    assert f"127.0.0.1:{port}" in second.err
    *followed, failure = second.documents
    assert (failure["schema"], failure["exit_code"]) == ("loader.error/v1", 4)
    counts = {each["job"]: (each["written"], each["deleted"]) for each in followed}
    assert counts == {"all/here/test/stu": (0, 1), "all/here/second/stu_2": (1, 0)}
    assert len({json.dumps(each["position"]) for each in followed}) == 1
    assert desk.world.hashes()[b"here:stu_2_2"][b"sname"] == b"new"
