"""Accounts that may not, or not as often, and servers that take less: what the case is, and the words that mend it."""

import pytest
import redis

from loader.doctor.diagnose import diagnose
from loader.doctor.findings import Level
from loader.errors import Exit
from loader.jobs.execute import execute
from loader.jobs.preview import preview
from loader.jobs.rejects import retry
from loader.jobs.verify import verify
from loader.mysql.errors import Kind, advice, kind_of, statement
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from support.command import HOST, redis_server
from support.database import Ear

PASSWORD = "pw"


@pytest.fixture
def guest(world):
    """An account of its own for a table of two columns, and no rights; `may` gives it some."""
    world.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20), b VARCHAR(20))",
        "INSERT INTO t WITH RECURSIVE s AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM s WHERE id < 500)"
        " SELECT id, 'a', 'b' FROM s",
        f"CREATE USER guest@'%' IDENTIFIED BY '{PASSWORD}'",
    )
    yield Guest(world)
    world.sql("DROP USER guest@'%'")


class Guest:
    def __init__(self, world):
        self.world = world

    def may(self, what="SELECT", of="*"):
        self.world.sql(f"GRANT {what} ON {self.world.name}.{of} TO guest@'%'")

    def alter(self, *how):
        for words in how:
            self.world.sql(f"ALTER USER guest@'%' {words}")

    def config(self, password=PASSWORD, target=None, **job):
        config = self.world.config(**({"table": "t"} | job))
        url = f"mysql://guest@{HOST}:{self.world.lab.mysql_port}/{self.world.name}"
        source = config.source.model_validate({"url": url, "password": password})
        return config.model_copy(update={"source": source} | ({"target": target} if target else {}))

    def sync(self, ear=None, options=None, **job):
        config = self.config(**job)
        return run_job(config, config.jobs["job"], options or Options(), ear or Ear())

    def checks(self, **job):
        config = self.config(**job)
        return {
            each.check: each for each in diagnose(config, [], list(config.jobs.values())) if each.level is not Level.OK
        }


# accounts


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("ACCOUNT LOCK", "ALTER USER 'guest'@'%' ACCOUNT UNLOCK"),
        ("PASSWORD EXPIRE", "ALTER USER 'guest'@'%' IDENTIFIED BY '…'"),
        ("REQUIRE SSL", "; or the account "),
        ("REQUIRE X509", "; or the account "),
        ("WITH MAX_USER_CONNECTIONS 1", "may have 1 connection at a time (max_user_connections), but this takes 3"),
        ("WITH MAX_QUERIES_PER_HOUR 3", "ALTER USER 'guest'@'%' WITH MAX_USER_CONNECTIONS 0 MAX_QUERIES_PER_HOUR 0"),
    ],
)
def test_accounts_that_are_kept_out(guest, how, words):
    """Each is for a person to mend, on every server, and the words that mend it are said by a run and by doctor."""
    guest.may()
    guest.alter(how)

    done = guest.sync()
    found = [each for each in guest.checks().values() if each.check.startswith("mysql") and each.fix]

    assert (done.exit_code, done.written) == (Exit.CONFIG, 0)
    assert words in done.error
    assert done.seconds < 5
    assert "ALTER USER 'guest'@'%'" in found[0].fix or "REQUIRE" in how


def test_what_numbers_mean():
    """The same case has numbers of its own on each server, and is one all the same."""
    mended = {1129: "FLUSH HOSTS", 1130: "CREATE USER", 3118: "UNLOCK", 3955: "UNLOCK", 4150: "FLUSH", 4151: "UNLOCK"}
    assert {code: kind_of(code) for code in (*mended, 1820, 1862, 1045, 1698)} == dict.fromkeys(
        (*mended, 1820, 1862, 1045, 1698), Kind.ACCESS
    )
    assert [code for code, words in mended.items() if words not in statement(code, "u")] == []
    assert [kind_of(code) for code in (1203, 1226, 1040, 1146, 1064, None)] == [
        Kind.LIMITED, Kind.LIMITED, Kind.UNAVAILABLE, Kind.VANISHED, Kind.FAULT, Kind.FAULT,
    ]  # fmt: skip
    assert statement(3118, "o'u") == "ALTER USER 'o''u'@'%' ACCOUNT UNLOCK"
    assert advice(4150, "u") == "FLUSH PRIVILEGES, once source.password is the right one"


def test_few_connections(guest):
    """With two connections a run has one worker and says so; all else makes do with them, and doctor tells of it."""
    guest.may()
    guest.alter("WITH MAX_USER_CONNECTIONS 2")
    ear = Ear()
    job = {"chunk_rows": 50, "key": "few_{id}"}

    config = guest.config(**job)
    done = execute(config, config.jobs["job"], Options(), ear, prune=5.0)
    shown = preview(config, config.jobs["job"])
    verdict = verify(config, config.jobs["job"], repair=True)

    assert (done.error, done.exit_code, done.written) == (None, 0, 500)
    assert "1 of 2 workers: the account may have 2 connections to MySQL" in [
        getattr(event, "text", "") for event in ear.events
    ]
    assert (len(shown.commands), verdict.rows) == (5, 500)
    told = guest.checks(**job)["mysql.connections"]
    assert told.level is Level.WARN
    assert told.seen.startswith("the account may have 2 at a time (max_user_connections): a run takes 3, ")


COLUMNS = [
    ("a, b", {}, "id", "GRANT SELECT"),
    ("a, b", {"key": "t_{id}", "fields": ["a"]}, "id", "GRANT SELECT (`id`)"),
    ("id, a", {"key": "t_{id}", "fields": ["a", "b"]}, "column b of table 't'", "GRANT SELECT (`b`)"),
    ("id, a", {"key": "t_{id}"}, "all columns of table 't'", "list in fields those that it may read"),
    ("a, b", {"key": "t_{a}", "fields": ["a"], "changed_only": True}, "all columns of table 't'", "GRANT SELECT"),
    ("id, a", {"fields": ["a"], "incremental": {"column": "b"}}, "column b of table 't'", "GRANT SELECT (`b`)"),
]


@pytest.mark.parametrize(("granted", "job", "what", "mends"), COLUMNS)
def test_columns_that_are_not_granted(guest, granted, job, what, mends):
    """MySQL hides columns that the account may not read: they are named, not said to be missing."""
    guest.may(f"SELECT ({granted})", "t")

    done = guest.sync(**job)

    assert (done.exit_code, done.written) == (Exit.CONFIG, 0)
    assert "the account may not read " in done.error
    assert what in done.error
    assert mends in done.error
    assert "no primary key" not in done.error


def test_columns_that_are_enough(guest):
    """Rights to the columns that a job takes are all that it needs; a key that is hidden is told of."""
    guest.may("SELECT (id, a)", "t")
    assert guest.sync(fields=["a"]).written == 500
    guest.world.sql(f"REVOKE SELECT (id) ON {guest.world.name}.t FROM guest@'%'")
    job = {"key": "t_{a}", "fields": ["a"]}
    assert guest.sync(**job).exit_code == 0
    assert guest.checks(**job)["job.key"].fix.startswith("GRANT SELECT ON ")


# servers


def plain(port):
    return {"url": f"redis://{HOST}:{port}"}


@pytest.mark.parametrize(
    ("limit", "asked"),
    [("proto-max-bulk-len", True), ("proto-max-bulk-len", False), ("client-query-buffer-limit", True)],
)
def test_values_that_a_server_does_not_take(world, tmp_path, limit, asked):
    """A value beyond the server's own limit is a reject, whether that may be asked for or not; the rest goes on."""
    world.sql(
        "CREATE TABLE fat (id INT PRIMARY KEY, v LONGBLOB)",
        "INSERT INTO fat VALUES (1, 'a'), (2, REPEAT('b', 3000000)), (3, REPEAT('c', 1000000)),"
        " (4, REPEAT('d', 2000000)), (5, 'e')",
    )
    with redis_server(tmp_path, f"--{limit}", "1mb") as port, redis.Redis(HOST, port) as node:
        if not asked:
            node.execute_command("ACL", "SETUSER", "default", "-config")
        config = world.config(table="fat", chunk_rows=2, deadline="10s")
        config = config.model_copy(update={"target": config.target.model_validate(plain(port))})
        done = run_job(config, config.jobs["job"], Options(), Ear())
        again = retry(config, config.jobs["job"])
        there = set(node.keys("fat_*"))

    assert (done.exit_code, done.read, done.written) == (Exit.REJECTS, 5, 3)
    assert sorted(reject.key for reject in done.rejects) == [b"fat_2", b"fat_4"]
    assert (again.written, len(again.rejects)) == (0, 2)
    assert all("bytes long, and Redis takes " in reject.reason for reject in done.rejects)
    assert there == {b"fat_1", b"fat_3", b"fat_5"}


class Renamed(redis.Redis):
    """A client of a server whose INFO has another name."""

    def info(self, section):
        lines = self.execute_command("RENAMED", section).decode().splitlines()
        return {"process_id": int(dict(line.split(":", 1) for line in lines if ":" in line)["process_id"])}


@pytest.mark.parametrize("command", ["CLIENT", "INFO", "EVAL", "PEXPIRE"])
def test_commands_that_a_server_does_not_know(world, tmp_path, command):
    """One that was renamed away is named, also where a script sends it, by a run and by doctor, with what mends it."""
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    options = {"answers": lambda port: Renamed(HOST, port)} if command == "INFO" else {}
    with redis_server(tmp_path, "--rename-command", command, "RENAMED", **options) as port:
        config = world.config(table="t")
        config = config.model_copy(update={"target": config.target.model_validate(plain(port))})
        done = run_job(config, config.jobs["job"], Options(), Ear())
        found = [each for each in diagnose(config, [], list(config.jobs.values())) if each.level is Level.FAIL]

    assert done.exit_code == Exit.CONFIG
    assert f"redis {HOST}:{port}: unknown command {command}: it is disabled or renamed there" in done.error
    assert f"remove from redis.conf: rename-command {command}" in [each.fix for each in found]
