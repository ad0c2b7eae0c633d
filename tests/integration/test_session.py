"""The session with MySQL is what the loader states, whatever the server makes of it; and what is lost is noticed."""

import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from pymysql.err import OperationalError

from loader.doctor.diagnose import diagnose
from loader.errors import Kind, SourceError
from loader.jobs import prune, recheck, verify
from loader.mysql import session
from loader.mysql.connection import Connection
from loader.mysql.login import LoginConnection
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from support.database import Ear, globally
from support.hostile import HOSTILE, OF_MARIADB, OF_MYSQL

ROWS = 50
PAGE = Path(__file__).parents[2] / "docs" / "sessions.md"
FIELDS = {
    "id": "id",
    "v": "v",
    "third": "id / 3",
    "week": "WEEK(d)",
    "day": "DAYNAME(d)",
    "list": "(SELECT GROUP_CONCAT(s.n) FROM s)",
    "null": "(SELECT COUNT(*) FROM s WHERE s.n IS NULL)",
    "joint": "CONCAT('a' || 'b', \"c\")",
}
SEVEN = {
    "id": b"7",
    "v": b"v",
    "third": b"2.3333",
    "week": b"0",
    "day": b"Friday",
    "list": b"1,2,3,4",
    "null": b"0",
    "joint": b"0c",
}
KINDS = {
    "plain": {},
    "changed": {"changed_only": True},
    "incremental": {"incremental": {"column": "u", "lag": "1s"}},
}


@pytest.fixture(autouse=True)
def pause(monkeypatch):
    """Nobody brings rows to Redis meanwhile, so there is little to wait for."""
    monkeypatch.setattr(recheck, "PAUSE", 0.02)


@pytest.fixture
def rows(world):
    """The table `t` of some rows, with its past where the server keeps one."""
    versioned = "WITH SYSTEM VERSIONING" if world.is_mariadb else ""
    world.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(9), d date, u datetime(6) DEFAULT NOW(6) ON UPDATE NOW(6),"
        f" INDEX (u)) {versioned}",
        "CREATE TABLE s (n int AUTO_INCREMENT PRIMARY KEY)",
        "INSERT INTO s VALUES (1), (2), (3), (4)",
        "INSERT INTO t (id, v, d) VALUES " + ",".join(f"({n}, 'v', '2027-01-01')" for n in range(ROWS)),
    )
    return world


def run(config, **options):
    done = run_job(config, config.jobs["job"], Options(**options), Ear())
    assert (done.status, done.error) == ("ok", None)
    return done


def pruned(config, **options):
    done = prune.Pruned("job")
    prune.prune(config, config.jobs["job"], done, max_delete=100, **options)
    return done


@pytest.mark.parametrize("kind", KINDS)
def test_a6_no_global_changes_a_result(rows, kind):
    """However the server is set up, runs see all rows as they are, and hashes go whose row is gone, and no other."""
    config = rows.config(table="t", key="t_{id}", fields=FIELDS, chunk_rows=20, deadline="2s", **KINDS[kind])
    run(config)
    before = rows.hashes()
    assert before[b"t_7"] == {name.encode(): value for name, value in SEVEN.items()}
    with globally(rows, **HOSTILE | (OF_MARIADB if rows.is_mariadb else OF_MYSQL)):
        rows.sql("UPDATE t SET v = 'new' WHERE id >= 30", "DELETE FROM t WHERE id = 8")
        done = run(config)
        assert done.full or done.read >= 20
        assert pruned(config).extra == (kind != "changed")
        verdict = verify.verify(config, config.jobs["job"])
        assert (verdict.rows, verdict.is_equal) == (ROWS - 1, True)
    expected = {key: fields | {b"v": b"new"} if int(fields[b"id"]) >= 30 else fields for key, fields in before.items()}
    del expected[b"t_8"]
    assert rows.hashes() == expected


@pytest.mark.parametrize("way", ["changed", "prune", "repair"])
def test_a_result_that_is_cut_deletes_nothing(rows, monkeypatch, way):
    """Where rows are missing from what MySQL sends, a count tells: their hashes stay, and the command fails."""
    kind = KINDS.get(way, {})
    config = rows.config(table="t", key="t_{id}", fields=["id", "v"], chunk_rows=20, deadline="1s", **kind)
    run(config)
    rows.sql("DELETE FROM t WHERE id = 8")
    monkeypatch.setattr(session, "STATED", [each for each in session.STATED if each.name != "sql_select_limit"])
    with globally(rows, sql_select_limit=3):
        if way == "changed":
            done = run_job(config, config.jobs["job"], Options(), Ear())
            assert (done.status, done.exit_code) == ("failed", 1)
            error = done.error
        else:
            with pytest.raises(SourceError) as caught:
                pruned(config) if way == "prune" else verify.verify(config, config.jobs["job"], repair=True)
            assert caught.value.exit_code == 1
            error = str(caught.value)
    assert re.search("not deleted: 3 rows were read, but [0-9]+ are counted", error)
    assert len(rows.hashes()) == ROWS


def test_what_is_not_kept_is_noticed(world, monkeypatch):
    """A variable that changes results and is not what was set ends the run; of others `doctor` tells."""
    config, setting = world.config(table="x", where="(SELECT GROUP_CONCAT(1))"), session.setting
    settings = config.source
    monkeypatch.setattr(session, "setting", lambda variables: setting(variables).replace(session.DAY, "7"))
    seen = {each.check: each for each in diagnose(config, [], [])}
    assert seen["mysql.packet"].seen.endswith("MiB, which limits GROUP_CONCAT")
    found = seen["mysql.session"]
    assert found.level == "warn"
    assert found.seen.startswith("wait_timeout is '7', but '86400' was set; net_write_timeout is '7'")
    monkeypatch.setattr(session, "setting", lambda variables: setting(variables).replace(session.ALL, "3"))
    with pytest.raises(SourceError, match=f"sql_select_limit is '3', but '{session.ALL}' was set") as caught:
        Connection(settings)
    assert caught.value.exit_code == 2


def test_what_a_server_does_not_have(world, monkeypatch):
    """A variable of later servers is left out, and all others are set; one that every server has is missed."""
    late = session.Variable("of_a_later_server", "1", "", since="99")
    monkeypatch.setattr(session, "STATED", (late, *session.STATED))
    settings = world.config(table="x").source
    with Connection(settings) as source:
        assert source.astray() == []
        assert source.single("SELECT @@sql_select_limit, @@max_sort_length", 2) == (session.ALL, "8192")
    monkeypatch.setattr(session, "STATED", (session.Variable("of_no_server", "1", ""),))
    with pytest.raises(SourceError, match="of_no_server"):
        Connection(settings)


def test_a_connection_that_the_server_ends_while_it_is_idle(world):
    """The next statement goes over a new one; also where the end came behind rows that were not read yet."""
    with Connection(world.config(table="x").source) as source:
        (first,) = source.single("SELECT CONNECTION_ID()")
        world.sql(f"KILL {first}")
        (second,) = source.single("SELECT CONNECTION_ID()")
        assert second != first
        assert source.astray() == []
        with source.stream("SELECT 1") as stream:
            world.sql(f"KILL {second}")
            stream.fill(0)
            stream.start += 6
            stream.finish()
        assert source.single("SELECT 1") == ("1",)


def test_a_server_that_is_away_when_its_connection_is_opened_again(world, monkeypatch):
    """Each statement says that it cannot connect, nothing of an answer without sense; the server's kind stays known."""
    refused = OperationalError(2003, "Can't connect")
    with Connection(world.config(table="x").source) as source:
        kind = source.is_mariadb
        (first,) = source.single("SELECT CONNECTION_ID()")
        world.sql(f"KILL {first}")
        with monkeypatch.context() as patched:
            patched.setattr(LoginConnection, "connect", Mock(side_effect=refused))
            for _ in range(3):
                with pytest.raises(SourceError, match="cannot connect") as caught:
                    source.fetch("SELECT %s", ["1"])
                assert caught.value.kind is Kind.UNAVAILABLE
                assert source.is_mariadb is kind
        assert source.single("SELECT 1") == ("1",)


def test_a_pause_that_is_longer_than_the_server_waits(rows):
    """`--rate` has a chunk take longer than `wait_timeout`: nothing is loaded twice."""
    config = rows.config(table="t", key="t_{id}", chunk_rows=40)
    with globally(rows, wait_timeout=1):
        done = run(config, rate=25, workers=1)
    assert (done.read, done.chunks_retried) == (ROWS, 0)


def decided():
    """The variables that the page names, and the lines of its first table."""
    page = PAGE.read_text(encoding="utf-8")
    lines = [line for line in page.split("## ")[0].splitlines() if line.startswith("| `")]
    return set(re.findall("`([a-z0-9_]+)`", page)), lines


def test_the_page_has_what_is_stated():
    """docs/sessions.md has a line for each variable that is set, as the code has it."""
    assert decided()[1] == [
        f"| `{each.name}` | {each.value or 'empty'} | {each.server or 'both'} | {each.why} |" for each in session.STATED
    ]


def test_each_variable_is_decided(world):
    """Of each variable that a session of this server has, the page says what is done about it."""
    found = world.sql(
        "SELECT LOWER(variable_name) FROM information_schema.system_variables WHERE variable_scope LIKE 'SESSION%'"
        if world.is_mariadb
        else "SELECT variable_name FROM performance_schema.variables_metadata WHERE variable_scope LIKE 'SESSION%'"
    )
    assert {name for (name,) in found} - decided()[0] == set()


def test_another_time_zone_of_the_server(rows):
    """Where the config names none, an increment is not built on what was read in the zone of before."""
    config = rows.config(table="t", key="t_{id}", fields={"at": "FROM_UNIXTIME(0)"}, **KINDS["incremental"])
    run(config)
    assert not run(config).full
    with globally(rows, time_zone="+05:00"):
        assert run(config).full
    assert rows.hashes()[b"t_7"] == {b"at": b"1970-01-01 05:00:00"}
