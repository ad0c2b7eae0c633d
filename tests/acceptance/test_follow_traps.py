"""What breaks followers: prepared transactions, tables that change under them, rows that other tables' rows change."""

import signal

import pytest
from test_follow_command import end, following, status

from loader.lab.process import wait
from support.command import Desk, finish

ROWS = 200
STU = (
    "DROP TABLE IF EXISTS note, stu, _stu_gho, _stu_del, _stu_new, _stu_old, apart",
    "CREATE TABLE stu (sid INT PRIMARY KEY, sname VARCHAR(30))",
    "INSERT INTO stu VALUES " + ", ".join(f"({number}, 'name{number}')" for number in range(1, ROWS + 1)),
)


@pytest.fixture
def desk(server, world, tmp_path):
    """A config with the job `stu`."""
    server.sql(*STU)
    desk = Desk(world, tmp_path)
    desk.write(source=server.source_config())
    return desk


def name_of(desk, number):
    return desk.world.redis.hget(f"stu_{number}", "sname")


def is_equal(desk):
    return desk.run("verify", "stu").code == 0


def prepare(server, xid, statement):
    """Leave a prepared transaction behind."""
    server.sql(f"XA START '{xid}'", statement, f"XA END '{xid}'", f"XA PREPARE '{xid}'")


def test_xa(server, desk):
    """A prepared transaction holds nobody up; its rows come with its commit, even if the follower was killed before."""
    process = following(desk)
    prepare(server, "kept", "UPDATE stu SET sname = 'kept' WHERE sid = 1")
    prepare(server, "dropped", "UPDATE stu SET sname = 'dropped' WHERE sid = 100")
    server.sql("UPDATE stu SET sname = 'other' WHERE sid = 50")
    wait(lambda: name_of(desk, 50) == b"other", "a change behind them")
    wait(lambda: status(desk)["follow"]["lag_seconds"] == 0, "it to have caught up")
    end(process, signal.SIGKILL)
    caught_up = desk.run("follow", "stu", "--until-caught-up", "-o", "json")
    assert (caught_up.code, caught_up.document["lag_seconds"]) == (0, 0.0)
    assert (name_of(desk, 1), name_of(desk, 100)) == (b"name1", b"name100")

    process = following(desk)
    server.sql("XA COMMIT 'kept'", "XA ROLLBACK 'dropped'")
    wait(lambda: name_of(desk, 1) == b"kept", "the rows of the commit")
    ended = end(process)
    assert (ended.code, ended.document["changes"] < 10) == (0, True)  # not by a pass over all rows
    assert "all rows are read" not in ended.err
    assert is_equal(desk)


def gh_ost(server):
    """What gh-ost does: another table is filled, and takes the place of the first."""
    server.sql(
        "CREATE TABLE _stu_gho (more INT DEFAULT 5, sid INT PRIMARY KEY, sname VARCHAR(60))",
        "INSERT INTO _stu_gho (sid, sname) SELECT sid, sname FROM stu",
        "UPDATE stu SET sname = 'late' WHERE sid = 9",
        "UPDATE _stu_gho SET sname = 'late' WHERE sid = 9",
        "RENAME TABLE stu TO _stu_del, _stu_gho TO stu",
    )


def pt_osc(server):
    """What pt-online-schema-change does: triggers keep the other table up."""
    server.sql(
        "CREATE TABLE _stu_new (sid INT PRIMARY KEY, more INT DEFAULT 5, sname VARCHAR(30))",
        "CREATE TRIGGER pt_upd AFTER UPDATE ON stu FOR EACH ROW"
        " REPLACE INTO _stu_new (sid, sname) VALUES (NEW.sid, NEW.sname)",
        "INSERT IGNORE INTO _stu_new (sid, sname) SELECT sid, sname FROM stu",
        "UPDATE stu SET sname = 'late' WHERE sid = 9",
        "RENAME TABLE stu TO _stu_old, _stu_new TO stu",
        "DROP TABLE _stu_old",
    )


def exchange(server):
    """A partition takes the place of a table's rows."""
    server.sql(
        "ALTER TABLE stu PARTITION BY RANGE (sid) (PARTITION a VALUES LESS THAN (11), PARTITION b VALUES LESS THAN"
        " MAXVALUE)",
        "CREATE TABLE apart (sid INT PRIMARY KEY, sname VARCHAR(30))",
        "INSERT INTO apart VALUES (9, 'late'), (10, 'name10')",
        "ALTER TABLE stu EXCHANGE PARTITION a WITH TABLE apart",
    )


def filled_as_it_is_made(server):
    """The table goes, and comes back with its rows."""
    server.sql(
        "CREATE TABLE apart AS SELECT * FROM stu",
        "DROP TABLE stu",
        "CREATE TABLE stu (sid INT PRIMARY KEY) SELECT sid, IF(sid = 9, 'late', sname) AS sname FROM apart",
    )


def columns_move(server):
    """Columns come, go, and change their places, names and types, between changes of rows."""
    server.sql(
        "UPDATE stu SET sname = 'early' WHERE sid = 9",
        "ALTER TABLE stu ADD COLUMN first INT NOT NULL DEFAULT 77 FIRST",
        "UPDATE stu SET sname = 'between' WHERE sid = 10",
        "ALTER TABLE stu ADD COLUMN sold VARCHAR(30) DEFAULT 's' AFTER sid, MODIFY sid BIGINT, CHANGE sname name TEXT",
        "UPDATE stu SET name = 'between' WHERE sid = 11",
        "ALTER TABLE stu CHANGE name sname VARCHAR(40) FIRST, DROP COLUMN sold",
        "UPDATE stu SET sname = 'late' WHERE sid = 9",
    )


SWAPS = [gh_ost, pt_osc, exchange, filled_as_it_is_made, columns_move]


@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize("is_stopped", [False, True], ids=["meanwhile", "later"])
def test_another_table_under_its_name(server, desk, swap, is_stopped):
    """The rows are those of the table that has the name at last, whether it is followed meanwhile or read of later."""
    process = following(desk)
    if is_stopped:
        assert end(process).code == 0
    swap(server)
    if is_stopped:
        process = following(desk)
    server.sql("UPDATE stu SET sname = 'after' WHERE sid = 12", "DELETE FROM stu WHERE sid = 13")
    wait(lambda: process.poll() is not None or name_of(desk, 9) == b"late", "the change before")
    wait(lambda: process.poll() is not None or name_of(desk, 12) == b"after", "the change behind")
    wait(lambda: process.poll() is not None or not desk.world.redis.exists("stu_13"), "the row to go")
    ended = end(process)
    desk.run("prune", "stu", "--max-delete", "100%")  # an exchange takes more rows away than are deleted unasked
    assert ended.code == 0, ended
    assert is_equal(desk)


def test_rows_that_a_foreign_key_changes(server, desk):
    """MySQL from 9.6 on tells of rows that go with their parent."""
    if server.is_mariadb:
        pytest.skip("MariaDB does not tell: `loader doctor` refuses such a table")
    server.sql(
        "CREATE TABLE note (id INT PRIMARY KEY, sid INT, FOREIGN KEY (sid) REFERENCES stu (sid)"
        " ON DELETE CASCADE ON UPDATE CASCADE)",
        "INSERT INTO note VALUES (1, 1), (2, 2), (3, 3)",
    )
    desk.write({"stu": {"table": "note", "key": "note_{id}"}}, source=server.source_config())
    process = desk.start("follow", "stu", "-o", "json")
    wait(lambda: process.poll() is not None or (status(desk)["follow"] or {}).get("lag_seconds") == 0, "it to follow")
    server.sql("DELETE FROM stu WHERE sid = 1", "UPDATE stu SET sid = 1002 WHERE sid = 2")
    wait(lambda: process.poll() is not None or not desk.world.redis.exists("note_1"), "the child to go")
    redis = desk.world.redis
    wait(lambda: process.poll() is not None or redis.hget("note_2", "sid") == b"1002", "the child to change")
    process.send_signal(signal.SIGTERM)
    assert finish(process).code == 0
