"""What stands in the binlog is not always visible: rows are read again once it is."""

import threading
from contextlib import contextmanager

import pytest
from test_follow import config_of, differences, following

from loader.errors import ServerReplaced, SourceError
from loader.lab.process import wait
from loader.model import FollowProgress
from loader.mysql import barrier
from loader.mysql.barrier import Committed, GtidBarrier, SnapshotBarrier, snapshot_position

T = ("DROP TABLE IF EXISTS f", "CREATE TABLE f (id INT PRIMARY KEY, n INT)", "INSERT INTO f VALUES (7, 7), (8, 8)")
STRANGER = "00000000-0000-0000-0000-000000000009"


@contextmanager
def commits_wait(server):
    """Have each commit wait for a replica, once it is in the binlog and before anybody else sees it."""
    name = "rpl_semi_sync_" + ("master" if server.is_mariadb else "source")
    if not server.is_mariadb:
        server.sql("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'")
    server.sql(
        f"SET GLOBAL {name}_timeout = 60000",
        f"SET GLOBAL {name}_wait_point = AFTER_SYNC",
        f"SET GLOBAL {name}_enabled = ON",
    )
    try:
        yield
    finally:
        server.sql(f"SET GLOBAL {name}_enabled = OFF")
        if not server.is_mariadb:
            server.sql("UNINSTALL PLUGIN rpl_semi_sync_source")


def told(running):
    """How many changes it was told of, and whose rows it has read, each time that it said so."""
    return [(event.changes, event.keys) for event in running.ear.events if isinstance(event, FollowProgress)]


def test_a_commit_that_is_not_visible(server, world, monkeypatch):
    """The binlog tells of a row that nobody sees yet: it is read again once it is seen, and no old values are taken."""
    monkeypatch.setattr(barrier, "PATIENCE", 2)
    server.sql(*T)
    config = config_of(server, world)
    running = following(config)
    change = threading.Thread(target=server.sql, args=("UPDATE f SET n = 77 WHERE id = 7",))
    try:
        with commits_wait(server):
            change.start()
            running.until(lambda: (1, 0) in told(running) or (1, 1) in told(running))
            running.until(lambda: any("is not visible" in getattr(event, "text", "") for event in running.ear.events))
            assert server.sql("SELECT n FROM f WHERE id = 7") == ((7,),)
            assert told(running)[-1] == (1, 0)
        change.join()
        running.until(lambda: world.redis.hget("f_7", "n") == b"77")
    finally:
        running.stop()
    assert differences(config) == (0, 0, 0)


def waits(wall, source, committed):
    """Whether what was committed is not seen in time."""
    try:
        wall.wait(source, committed)
    except SourceError as error:
        return error.transient
    return False


def test_what_is_waited_for(server, monkeypatch):
    """All transactions of a batch, not the last of them alone; files are compared by their numbers."""
    monkeypatch.setattr(barrier, "PATIENCE", 1)
    file, offset = server.end()
    done = server.gtids().gtids
    source = server.source()
    if server.is_mariadb:
        ((own,),) = server.sql("SELECT @@server_id")
        wall = SnapshotBarrier(str(own))
        with pytest.raises(ServerReplaced):
            SnapshotBarrier(str(own + 1)).wait(source, Committed((), file, 4))
        number = int(file.rpartition(".")[2])
        cases = [
            (Committed((), file, offset), False),
            (Committed((), file, offset + 1), True),
            (Committed((), f"z.{number - 1}", offset + 1), False),
            (Committed((), f"a.{number + 1}", 4), True),
        ]
    else:
        wall = GtidBarrier()
        cases = [
            (Committed((done,), file, offset), False),
            (Committed((f"{STRANGER}:1", done), file, offset), True),
            (Committed((done, f"{STRANGER}:tag:1", done), file, offset), True),
            (Committed((), file, offset), False),
        ]
    assert [waits(wall, source, committed) for committed, _ in cases] == [late for _, late in cases]
    source.close()


def test_all_gtids_of_a_batch_are_waited_for():
    """Not the last one alone: it says nothing of those of other servers."""
    asked = []

    class Source:
        def single(self, sql):
            asked.append(sql)
            return ("0",)

    GtidBarrier().wait(Source(), Committed((f"{STRANGER}:1", f"{STRANGER}:tag:2"), "binlog.1", 4))
    assert f"{STRANGER}:1:tag:2" in asked[0]


def test_a_snapshot_in_any_isolation_level(server):
    """The position of a snapshot of MariaDB is before what is not visible yet, in any isolation level."""
    if not server.is_mariadb:
        pytest.skip("only MariaDB")
    server.sql(*T)
    source, before = server.source(), server.end()
    source.fetch("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    change = threading.Thread(target=server.sql, args=("UPDATE f SET n = 77 WHERE id = 7",))
    with commits_wait(server):
        change.start()
        wait(lambda: server.end() > before, "the commit to be in the binlog")
        seen = snapshot_position(source)
    change.join()
    assert (seen, snapshot_position(source)) == (before, server.end())
    source.close()
