"""Faults on the side of MySQL: whatever happens to server, table or statement, every row is accounted for."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pymysql
import pytest
import redis

from loader.config.load import Config
from loader.config.servers import SourceConfig
from loader.errors import StartOver
from loader.lab.lab import Lab
from loader.lab.process import wait
from loader.model import Chunk, ChunkLoaded, Waiting
from loader.mysql.connection import Connection
from loader.pipeline import retry, worker
from loader.pipeline.job_context import read_plan
from loader.pipeline.options import Options
from loader.pipeline.pool import Pool
from loader.pipeline.run import run_job
from loader.pipeline.throttle import Throttle
from loader.redis.client import RedisClient
from support.command import HOST, Desk, redis_server
from support.database import Ear, globally

PEAK = """
import os, sys
child = os.posix_spawn(sys.executable, [sys.executable, "-m", "loader", *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
STU = "CREATE TABLE stu (sid smallint(8) unsigned zerofill PRIMARY KEY, sname varchar(20), address varchar(20))"


class When(Ear):
    """Does something to the servers, once: when the first chunk is loaded, or when the first failure is told of."""

    def __init__(self, kind, action):
        super().__init__()
        self._kind, self._action = kind, action

    def notify(self, event):
        super().notify(event)
        if self._action and isinstance(event, self._kind):
            action, self._action = self._action, None
            action()


@contextmanager
def another(world):
    """What runs statements on another connection of the owner."""
    lab = world.lab
    with (
        pymysql.connect(
            host=HOST,
            port=lab.mysql_port,
            user="owner",
            password=lab.owner_password,
            database=world.name,
            autocommit=True,
        ) as connection,
        connection.cursor() as cursor,
    ):

        def sql(*statements):
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()

        yield sql


def reasons(ear):
    return [event.reason for event in ear.events if isinstance(event, Waiting)]


@pytest.fixture
def stu(world, monkeypatch):
    """A table of 60 rows."""
    monkeypatch.setattr(retry, "PAUSE_FIRST", 0.01)
    monkeypatch.setattr(worker, "LOOK_EVERY", 0)
    world.sql(STU, "INSERT INTO stu VALUES " + ",".join(f"({n}, 'name {n}', 'x')" for n in range(1, 61)))
    world.sql("ANALYZE TABLE stu")
    return world


def run(world, ear=None, *, options=None, source=None, **job):
    """One worker, chunks of ten rows."""
    settings = world.config(**({"table": "stu", "chunk_rows": 10, "deadline": "20s"} | job))
    if source:
        settings = settings.model_copy(update={"source": settings.source.model_copy(update=source)})
    return run_job(settings, settings.jobs["job"], options or Options(workers=1), ear or Ear())


# -- the table is changed --------------------------------------------------------------------------------------------

CHANGES = [
    ("ADD x int DEFAULT 7", {}, "table stu: column x was added"),
    ("DROP address", {}, "table stu: column address was dropped"),
    ("CHANGE address town varchar(20)", {}, "table stu: column address was dropped, column town was added"),
    (
        "MODIFY sid int",
        {},
        "table stu: column sid was smallint(8) unsigned zerofill and is int",
    ),
    ("MODIFY sname varchar(20) COLLATE utf8mb4_bin", {}, "table stu: column sname was varchar(20) "),
    (
        "MODIFY address varchar(30)",
        {"fields": {"town": "LEFT(address, 9)"}},
        "table stu: column address was varchar(20) ",
    ),
    ("DROP PRIMARY KEY, ADD PRIMARY KEY (sname)", {}, "table stu: it has another key"),
    ("ADD x int", {"fields": ["sid", "sname"]}, None),
    ("DROP address", {"fields": ["sid", "sname"]}, None),
    ("MODIFY address int", {"fields": ["sid", "sname"]}, None),
]


@contextmanager
def lane(world, **job):
    """A worker of a run that was planned now."""
    settings = world.config(**({"table": "stu"} | job))
    with Connection(settings.source) as source, RedisClient(settings.target) as target:
        _, plan = read_plan(source, settings.jobs["job"], Options())
        lane = worker.ChunkWorker(settings.source, plan, target, Throttle(), pool=Pool(keeps=False))
        try:
            yield lane
        finally:
            lane.close()


def chunk(number):
    """Ten of the rows."""
    return Chunk(number, (str(10 * number - 10),), (str(10 * number),))


@pytest.mark.parametrize("loaded", [0, 1])
@pytest.mark.parametrize(("change", "job", "told"), CHANGES)
def test_s12_the_table_is_changed(stu, change, job, told, loaded):
    """Before the first chunk or after it: no chunk is loaded of a table that is not the plan's, and why is said.

    What the job neither reads nor computes from may change as it likes.
    """
    with lane(stu, **job) as one:
        for number in range(1, 1 + loaded):
            one.load(chunk(number), print)
        stu.sql(f"ALTER TABLE stu {change}")
        if told is None:
            assert one.load(chunk(2), print).written == 10
            return
        with pytest.raises(StartOver) as caught:
            one.load(chunk(2), print)
    assert str(caught.value).startswith(told)


def test_s12_a_type_is_shared_by_all_workers(stu):
    """An expression's type, which no column tells, is that of the run's first result, whoever read it."""
    stu.sql("CREATE TABLE other (x varchar(20))", "INSERT INTO other VALUES ('1')")
    expression = "(SELECT MAX(x) FROM other)"
    with lane(stu, fields={"town": expression}) as first, RedisClient(stu.config(table="stu").target) as target:
        second = worker.ChunkWorker(first._settings, first._plan, target, Throttle(), pool=Pool(keeps=False))
        first.load(chunk(1), print)
        stu.sql("ALTER TABLE other MODIFY x int")
        with pytest.raises(StartOver, match=r"\(SELECT MAX\(x\) FROM other\) is of another type"):
            second.load(chunk(2), print)
        second.close()


def test_s12_a_querys_columns_change(stu):
    """A query that gives other columns than it was planned with is planned again."""
    stu.sql("CREATE VIEW v AS SELECT sid, sname FROM stu")
    with lane(stu, table=None, query="SELECT * FROM v", key="q_{sid}") as one:
        stu.sql("CREATE OR REPLACE VIEW v AS SELECT sid, sname, address FROM stu")
        with pytest.raises(StartOver, match="the query's columns have changed: sid, sname, address"):
            one.load(Chunk(1), print)


def test_s11_a_table_is_renamed_away_and_back(stu):
    """As a tool does that puts a copy in its place: waited for, and every row is that of the table in place."""
    stu.sql("CREATE TABLE copy LIKE stu", "INSERT INTO copy SELECT sid, CONCAT('new ', sid), address FROM stu")

    def away():
        stu.sql("RENAME TABLE stu TO away")
        threading.Timer(0.5, lambda: back("RENAME TABLE copy TO stu")).start()

    with another(stu) as back:
        ear = When(ChunkLoaded, away)
        done = run(stu, ear)
    assert (done.status, done.read, done.written) == ("ok", 60, 60)
    assert any(f"Table '{stu.name}.stu' doesn't exist (1146)" in reason for reason in reasons(ear))
    hashes = stu.hashes()
    assert len(hashes) == 60
    assert hashes[b"stu_00000060"][b"sname"] == b"new 00000060"


def test_s11_what_a_view_reads_is_renamed_away_and_back(stu):
    """A view that is broken for a moment is waited for too."""
    waits = []
    stu.sql("CREATE VIEW v AS SELECT sid, sname FROM stu")
    with lane(stu, table="v", key="v_{sid}") as one, another(stu) as back:
        stu.sql("RENAME TABLE stu TO away")
        threading.Timer(0.5, lambda: back("RENAME TABLE away TO stu")).start()
        assert one.load(Chunk(1), waits.append).written == 60
    assert "(1356)" in waits[0].reason


def test_s11_a_table_is_dropped(stu):
    """Waited for until the deadline; then the run has failed, and says which table is not there."""
    done = run(stu, When(ChunkLoaded, lambda: stu.sql("DROP TABLE stu")), deadline="1s")
    assert (done.status, done.exit_code) == ("failed", 1)
    assert done.error.endswith(f"Table '{stu.name}.stu' doesn't exist (1146)")
    assert 1 <= done.read == done.written < 60
    assert done.seconds < 60  # of the usual deadline's 120


def test_s11_a_table_is_emptied(stu):
    """TRUNCATE is no fault: the rows that were read are written, and there are no more."""
    done = run(stu, When(ChunkLoaded, lambda: stu.sql("TRUNCATE TABLE stu")))
    assert (done.status, done.read == done.written) == ("ok", True)


def test_s10_a_privilege_is_revoked(stu):
    """At once exit code 2, with the grant that is missing."""
    stu.sql("CREATE TABLE other (id int)", f"GRANT SELECT ON {stu.name}.other TO loader@'%'")  # the database stays open
    stu.sql(f"GRANT SELECT ON {stu.name}.stu TO loader@'%'", f"REVOKE SELECT ON {stu.name}.* FROM loader@'%'")
    try:
        done = run(stu, When(ChunkLoaded, lambda: stu.sql(f"REVOKE SELECT ON {stu.name}.stu FROM loader@'%'")))
    finally:
        stu.sql(f"REVOKE SELECT ON {stu.name}.other FROM loader@'%'", f"GRANT SELECT ON {stu.name}.* TO loader@'%'")
    assert (done.status, done.exit_code) == ("failed", 2), done.error
    assert "SELECT command denied" in done.error
    assert done.error.endswith("GRANT SELECT on it TO the loader's account")
    assert done.chunks_retried == 0


# -- a statement is broken off ---------------------------------------------------------------------------------------

SLOW = {
    "pad": "REPEAT('x', 20000)",
    "slow": "SLEEP(0.02)",
}  # 60 rows take more than a second, and are sent as they come


def slow_statement(sql):
    """The id of the connection that reads slow rows; None while there is none."""
    rows = sql("SELECT id FROM information_schema.processlist WHERE user = 'loader' AND info LIKE '%SLEEP(0.02)%'")
    return rows[0][0] if rows else None


def all_there(world, done):
    """Whether all rows were read, written and counted once."""
    assert (done.status, done.error, done.read, done.written, done.rejected) == ("ok", None, 60, 60, 0)
    assert set(world.hashes()) == {b"stu_%08d" % n for n in range(1, 61)}


@pytest.mark.parametrize(("kill", "code"), [("KILL QUERY", 1317), ("KILL CONNECTION", 2013)])
def test_s3_killed_amid_rows(stu, kill, code):
    """By a person or a watchdog: the chunk is read again, whole, on a connection of its own."""
    with another(stu) as owner:

        def strike():
            wait(lambda: slow_statement(owner) is not None, "the statement")
            time.sleep(0.4)
            owner(f"{kill} {slow_statement(owner)}")

        thread = threading.Thread(target=strike)
        thread.start()
        ear = Ear()
        done = run(stu, ear, fields=SLOW, chunk_rows=1000)
        thread.join()
    all_there(stu, done)
    assert done.chunks_retried == 1
    (reason,) = reasons(ear)
    assert f"({code})" in reason or "closed the connection while sending rows" in reason


def test_s3_out_of_time(stu):
    """The server's limit for a statement is not the loader's, whose statements take as long as Redis and `--rate`."""
    limit = {"max_statement_time": 0.3} if stu.is_mariadb else {"max_execution_time": 300}
    with globally(stu, **limit):
        done = run(stu, fields=SLOW, chunk_rows=1000)
    all_there(stu, done)
    assert done.chunks_retried == 0


def test_s3_lock_wait(stu):
    """A table that is locked: the server gives up the wait before it is taken for dead, and the chunk waits again."""
    with another(stu) as owner:
        ear = When(Waiting, lambda: owner("UNLOCK TABLES"))
        ear.when_loaded = When(ChunkLoaded, lambda: owner("LOCK TABLES stu WRITE"))
        notify = ear.notify
        ear.notify = lambda event: (ear.when_loaded.notify(event), notify(event))
        done = run(stu, ear, source={"read_timeout": 4})
    all_there(stu, done)
    assert done.chunks_retried == 1
    assert "Lock wait timeout exceeded; try restarting transaction (1205)" in reasons(ear)[0]


def test_s3_deadlock(stu):
    """The statement that the server chose to break off is sent again."""
    with another(stu) as owner:

        def strike():
            begun = "SELECT 1 FROM information_schema.processlist WHERE user = 'loader' AND info LIKE '%SHARE MODE'"
            wait(lambda: owner(begun), "the reader")
            waits = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"  # told anew after 0.1 s
            wait(lambda: time.sleep(0.2) or owner(waits), "it to have row 1 and wait for row 50")
            owner("UPDATE stu SET address = 'y' WHERE sid = 1", "COMMIT")

        owner("BEGIN", "UPDATE stu SET address = 'y' WHERE sid = 50")
        thread = threading.Thread(target=strike)
        thread.start()
        ear = Ear()
        query = "SELECT * FROM stu ORDER BY sid LOCK IN SHARE MODE"
        done = run(stu, ear, table=None, query=query, key="stu_{sid}", chunk_rows=1000)
        thread.join()
    all_there(stu, done)
    assert done.chunks_retried == 1
    assert "Deadlock found" in reasons(ear)[0]
    assert stu.hashes()[b"stu_00000050"][b"address"] == b"y"


# -- the server stands still, or is set up against us ----------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Servers of one's own, to stop; their own time zone is five hours behind."""
    directory = tmp_path_factory.mktemp("own")
    sql = directory / "stu.sql"
    rows = ",".join(f"({n}, 'name {n}', 'x')" for n in range(1, 61))
    sql.write_text(f"{STU};\nINSERT INTO stu VALUES {rows};\nANALYZE TABLE stu;\n")
    lab = Lab(directory / "lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "XST5")
        lab.up(nodes=3, replicas=0, sql=[sql])
    yield lab
    lab.down()


def own_run(lab, ear, *, read_timeout, deadline, **options):
    settings = Config.model_validate(
        {
            "version": 1,
            "source": {
                "url": f"mysql://loader@{HOST}:{lab.mysql_port}/test",
                "password": lab.password,
                "read_timeout": read_timeout,
            },
            "target": {"url": f"redis://loader@{HOST}:{lab.redis_ports['n1']}", "password": lab.redis_password},
            "jobs": {"job": {"table": "stu", "chunk_rows": 10, "deadline": deadline}},
        }
    )
    return run_job(settings, settings.jobs["job"], Options(workers=1, **options), ear)


def test_s2_the_server_stands_still(own):
    """Silence for the configured time: the connection is dropped, and the chunk is tried again until it moves."""

    def stop():
        own.kill("mysql", signal.SIGSTOP)
        threading.Timer(4, lambda: own.kill("mysql", signal.SIGCONT)).start()

    ear = When(ChunkLoaded, stop)
    done = own_run(own, ear, read_timeout="1s", deadline="60s")
    assert (done.status, done.read, done.written) == ("ok", 60, 60)
    assert len(reasons(ear)) >= 2
    assert "timed out" in reasons(ear)[0]


@pytest.mark.parametrize("read_timeout", ["1s", "3s"])  # shorter than the deadline, and longer
def test_s2_the_server_stands_still_for_good(own, read_timeout):
    """After the deadline the run gives up with exit code 4; what is loaded is not loaded again by the next."""
    ear = When(ChunkLoaded, lambda: own.kill("mysql", signal.SIGSTOP))
    try:
        first = own_run(own, ear, read_timeout=read_timeout, deadline="2s", resume=True)
    finally:
        own.kill("mysql", signal.SIGCONT)
    assert (first.status, first.exit_code) == ("failed", 4)
    assert "timed out" in first.error
    assert first.seconds >= 2
    second = own_run(own, Ear(), read_timeout="10s", deadline="10s", resume=True)
    assert (second.status, second.resumed) == ("ok", True)
    assert first.written + second.written == 60
    assert 0 < first.written < 60


def test_n6_the_kernel_looks_after_idle_connections(world):
    """A connection to MySQL that was forgotten in between ends within a minute, however long a reply may take."""
    with Connection(world.config(table="x").source, patience=600) as source:
        with socket.socket(fileno=os.dup(source._reader._reader.fileno())) as connection:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            assert [connection.getsockopt(socket.IPPROTO_TCP, name) for name in names] == [30, 10, 3]
        assert source.fetch("SELECT 1") == [("1",)]


def test_s4_redis_stalls_while_mysql_has_no_patience(world, tmp_path):
    """Our session's own `net_write_timeout` outlives the stall: nothing is read twice, and memory stays bounded."""
    world.sql("CREATE TABLE wide (id int PRIMARY KEY, body varchar(1000))")
    world.sql("INSERT INTO wide VALUES (0, REPEAT('x', 1000))")
    for doubling in range(16):
        world.sql(f"INSERT INTO wide SELECT id + {2**doubling}, body FROM wide")
    with redis_server(tmp_path) as port, redis.Redis(HOST, port) as client, globally(world, net_write_timeout=1):
        desk = Desk(world, tmp_path)
        target = {"url": f"redis://{HOST}:{port}", "password": "", "timeout": "30s"}
        desk.write({"wide": {"table": "wide", "chunk_rows": 100_000}}, target=target)
        words = ["sync", "wide", "-o", "json", "--rate", "30000", "--progress", "none"]
        pid = client.info("server")["process_id"]
        process = subprocess.Popen([sys.executable, "-c", PEAK, *words], cwd=tmp_path, stdout=-1, stderr=-1, text=True)
        wait(client.dbsize, "the first rows")
        os.kill(pid, signal.SIGSTOP)
        time.sleep(10)
        os.kill(pid, signal.SIGCONT)
        out, err = process.communicate(timeout=60)
        assert len(client.keys("wide*")) == 65_536
    done = json.loads(out)
    assert (done["status"], done["rows"]["read"], done["rows"]["written"]) == ("ok", 65_536, 65_536)
    assert done["chunks"] == {"total": 1, "done": 1, "retried": 0}
    assert int(err.split()[-1]) / 1024 < 120


def test_s16_a_server_set_up_against_us(world):
    """Whatever its defaults are, our session's are known: quotes, backslashes, letters and lengths are as they are."""
    name = "s't\\u"
    rows = [("张'三\\丰", 'a "b"'), ("\\", "é"), ("😀", "")]
    world.sql(f"CREATE TABLE `{name}` (k varchar(20) COLLATE utf8mb4_bin PRIMARY KEY, v varchar(20))")
    for row in rows:
        world.sql(f"INSERT INTO `{name}` VALUES (%s, %s)", args=row)
    hostile = {
        "sql_mode": "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,IGNORE_SPACE,PAD_CHAR_TO_FULL_LENGTH",
        "character_set_server": "latin1",
        "init_connect": "SET NAMES latin1",
    }
    with globally(world, **hostile):
        done = run(world, table=name, key="s_{k}", where='k <> "x" AND (v = "" || 1)', chunk_rows=1)
    assert (done.status, done.error, done.written) == ("ok", None, 3)
    assert world.hashes() == {f"s_{k}".encode(): {b"k": k.encode(), b"v": v.encode()} for k, v in rows}


def test_s16_the_time_zone(own):
    """TIMESTAMP is read in the zone of the config; in the server's own, here that of its machine, if there is none."""
    sql = "SELECT TIMESTAMPDIFF(HOUR, UTC_TIMESTAMP(), NOW())"
    base = {"url": f"mysql://loader@{HOST}:{own.mysql_port}/test", "password": own.password}
    hours = []
    for zone in (None, "+00:00", "+09:00"):
        with Connection(SourceConfig.model_validate(base | {"time_zone": zone})) as source:
            hours.append(source.fetch(sql)[0][0])
    assert hours == ["-5", "0", "9"]
