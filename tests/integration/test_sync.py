"""The main job on real servers: what is written, where, with how much memory, and when a side goes away."""

import json
import shutil
import subprocess
import sys
import threading
import time

import pytest

from loader.config.load import load_config
from loader.config.servers import SourceConfig
from loader.errors import Kind, SourceError, TargetError
from loader.jobs.rejects import retry
from loader.jobs.verify import verify
from loader.lab.lab import Lab
from loader.model import ChunkLoaded, Waiting
from loader.mysql.connection import Connection
from loader.pipeline.options import Options
from loader.pipeline.retry import retry_transient
from loader.pipeline.run import run_job
from loader.pipeline.throttle import StopRequest, Throttle
from loader.redis.client import RedisClient
from loader.redis.writer import PipelineWriter
from loader.wire.slots import slot_of
from support.command import Desk
from support.database import Clock, Ear, Halter

SEED = {  # section by section, the table of the seed document
    "00000001": ("张三丰", "湖南长沙"),
    "00000002": ("张无忌", "河南洛阳"),
    "00000003": ("段誉", "北京市"),
    "00000004": ("乔峰", "广州市"),
    "00000005": ("沈浪", "上海市"),
}


def redis_cli(port, *words):
    program = shutil.which("redis-cli") or shutil.which("valkey-cli")
    done = subprocess.run([program, "-p", str(port), "--raw", *words], capture_output=True, check=True)
    return done.stdout.decode().splitlines()


def test_the_seeds_rows_are_exact_in_the_nodes_that_own_their_slots(world, tmp_path):
    """Read with plain redis-cli, without redirection, from the master of each slot: byte for byte, nothing more."""
    desk = Desk(world, tmp_path)
    desk.write({"stu": {"table": "stu", "key": "stu_{sid}"}})
    document = desk.run("sync", "stu", "-o", "json").document
    ports = world.lab.redis_ports.values()
    owners = {}
    for port in ports:
        for line in redis_cli(port, "CLUSTER", "NODES"):
            words = line.split()
            if "myself" in words[2] and "master" in words[2]:
                for span in words[8:]:
                    first, _, last = span.partition("-")
                    owners |= dict.fromkeys(range(int(first), int(last or first) + 1), port)
    counts = {}
    for sid, (sname, address) in SEED.items():
        key = f"stu_{sid}"
        port = owners[slot_of(key.encode())]
        counts[f"127.0.0.1:{port}"] = counts.get(f"127.0.0.1:{port}", 0) + 1
        flat = redis_cli(port, "HGETALL", key)
        assert dict(zip(flat[::2], flat[1::2], strict=True)) == {"sid": sid, "sname": sname, "address": address}
        assert redis_cli(port, "TTL", key) == ["-1"]
    assert document["nodes"] == counts
    assert document["rows"] == {"read": 5, "written": 5, "unchanged": 0, "deleted": 0, "rejected": 0}


def test_fields_are_renamed_computed_and_filtered(world):
    """A map of fields, an expression, a condition, a key of two columns with literal braces."""
    world.sql("CREATE TABLE stu LIKE test.stu", "INSERT INTO stu SELECT * FROM test.stu")
    fields = {"name": "sname", "city": "LEFT(address,2)", "both": "CONCAT(sid, '-', sname)"}
    run = world.sync(table="stu", key="{{{sid}}}:{sname}", fields=fields, where="sid IN (1, 5)")
    assert (run.status, run.written) == ("ok", 2)
    assert world.hashes() == {
        f"{{{sid}}}:{SEED[sid][0]}".encode(): {
            b"name": SEED[sid][0].encode(),
            b"city": SEED[sid][1][:2].encode(),
            b"both": f"{sid}-{SEED[sid][0]}".encode(),
        }
        for sid in ("00000001", "00000005")
    }


def test_ttl_with_jitter(world):
    """Keys live as long as the job says, within the jitter, not all equally long, each the same in every run."""
    world.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES " + ",".join(f"({n})" for n in range(200)))
    life = []
    for _ in range(2):
        assert world.sync(table="t", ttl="1000s", ttl_jitter="10%").written == 200
        life.append({key: world.redis.ttl(key) for key in world.hashes()})
    assert min(life[0].values()) >= 890
    assert max(life[0].values()) <= 1100
    assert len(set(life[0].values())) > 50
    assert all(abs(life[0][key] - life[1][key]) <= 3 for key in life[0])


STAMPED = "CREATE TABLE t (id int PRIMARY KEY, at datetime NOT NULL DEFAULT '2020-01-01', KEY (at))"
TO_LAST = {
    "sync": {},
    "changed_only": {"changed_only": True},
    "incremental": {"incremental": {"column": "at", "lag": "2s"}},
    "some are NULL": {"nulls": "omit"},
}


@pytest.mark.parametrize("kind", TO_LAST)
def test_a_ttl_that_was_taken_out_of_the_job(world, kind):
    """The hashes that it has left do not expire any more, though HMSET keeps the time that a key has."""
    world.sql(STAMPED, "INSERT INTO t (id) SELECT seq FROM (SELECT 1 AS seq UNION SELECT 2 UNION SELECT 3) s")
    if kind == "some are NULL":
        world.sql("ALTER TABLE t ADD COLUMN v int", "UPDATE t SET v = 1 WHERE id < 3")
    job = {"table": "t", "key": "t_{id}"}
    assert world.sync(**job, ttl="1h").written == 3
    assert min(world.redis.ttl(key) for key in world.hashes()) > 0
    run = world.sync(**job, **TO_LAST[kind], deadline="5s")
    assert (run.status, run.written, run.chunks_retried) == ("ok", 3, 0)
    assert {world.redis.ttl(key) for key in world.hashes()} == {-1}


@pytest.mark.parametrize("ttl", [None, "1h"])
@pytest.mark.parametrize("way", ["sync", "repair", "retry"])
def test_a_hash_that_expires_while_it_is_written(world, monkeypatch, way, ttl):
    """Between HMSET, which keeps the time that was left, and what comes behind it: it is written again."""
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1), (2, 2)")
    settings = world.config(table="t", key="t_{id}", ttl=ttl)
    world.redis.hset("other", "expires", "1")
    world.redis.expire("other", 3600)
    if way == "retry":
        world.redis.set("t_1", "foreign")
        assert run_job(settings, settings.jobs["job"], Options(), Ear()).exit_code == 3
        world.redis.delete("t_1")
    queue, gone = PipelineWriter._queue, []

    def expire(self, link, batch):
        if not batch.rows and not gone:
            gone.append(world.redis.delete("t_1"))
        queue(self, link, batch)

    monkeypatch.setattr(PipelineWriter, "_queue", expire)
    match way:
        case "sync":
            assert run_job(settings, settings.jobs["job"], Options(), Ear()).written == 2
        case "repair":
            assert verify(settings, settings.jobs["job"], repair=True).repaired == 2
        case "retry":
            assert retry(settings, settings.jobs["job"]).written == 1
    assert gone == [1]
    assert world.hashes()[b"t_1"] == {b"id": b"1", b"v": b"1"}
    assert (world.redis.ttl("t_1") > 0) == bool(ttl)


def test_what_expires_of_others_is_left_alone(world):
    """A row that is rejected, as its key is someone else's, leaves that key the time that it has."""
    world.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    world.redis.set("t_1", "foreign", ex=3600)
    assert world.sync(table="t", key="t_{id}").rejected == 1
    assert world.redis.ttl("t_1") > 3500


def test_a_value_that_becomes_null_loses_its_field(world):
    """`nulls: omit`: no stale value survives the next sync."""
    world.sql("CREATE TABLE t (id int PRIMARY KEY, a text, b text)", "INSERT INTO t VALUES (1, 'x', 'y')")
    world.sync(table="t")
    world.sql("UPDATE t SET a = NULL")
    world.sync(table="t")
    assert world.hashes() == {b"t_1": {b"id": b"1", b"b": b"y"}}
    world.sync(table="t", nulls="empty")
    assert world.hashes() == {b"t_1": {b"id": b"1", b"a": b"", b"b": b"y"}}


@pytest.fixture
def many(world):
    """Tables of 200,000 and of 1,000,000 rows."""
    world.sql(
        "CREATE TABLE ten (n int PRIMARY KEY)",
        "INSERT INTO ten VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
        "CREATE TABLE m1 (id int(8) unsigned zerofill PRIMARY KEY, sname varchar(20), address varchar(20))",
        "INSERT INTO m1 SELECT 1+a.n+10*b.n+100*c.n+1000*d.n+10000*e.n+100000*f.n, CONCAT('张三', a.n), '湖南长沙'"
        " FROM ten a, ten b, ten c, ten d, ten e, ten f",
        "CREATE TABLE m02 LIKE m1",
        "INSERT INTO m02 SELECT * FROM m1 WHERE id <= 200000",
    )
    return world


PEAK = """
import os, sys
child = os.posix_spawn(sys.executable, [sys.executable, "-m", "loader", *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_memory_is_flat(many, tmp_path):
    """200,000 rows in less than 120 MB, and a million in no more."""
    desk = Desk(many, tmp_path)
    desk.write({"m02": {"table": "m02"}, "m1": {"table": "m1"}})
    peaks = {}
    for job, rows in (("m02", 200_000), ("m1", 1_000_000)):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, "sync", job, "-o", "json", "--progress", "none"],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        assert json.loads(done.stdout)["rows"]["written"] == rows
        peaks[job] = int(done.stderr.split()[-1]) / 1024
    assert peaks["m02"] < 120
    assert peaks["m1"] < peaks["m02"] * 1.1


@pytest.fixture
def own(tmp_path):
    """A lab of one's own with 40,000 rows, to break."""
    lab = Lab(tmp_path / "lab")
    sql = tmp_path / "big.sql"
    sql.write_text(
        "CREATE TABLE ten (n int PRIMARY KEY);\n"
        "INSERT INTO ten VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);\n"
        "CREATE TABLE big (id int PRIMARY KEY, name varchar(40) NOT NULL);\n"
        "INSERT INTO big SELECT 1+a.n+10*b.n+100*c.n+1000*d.n+10000*e.n, CONCAT('name ', a.n)"
        " FROM ten a, ten b, ten c, ten d, ten e WHERE e.n < 4;\n"
    )
    lab.up(sql=[sql])
    text = lab.config.read_text().replace("stu", "big").replace("sid", "id")
    lab.config.write_text(text)
    yield lab
    lab.down()


def run_while(lab, fault, **options):
    """Run the job `big` in twenty chunks, and do something to the servers after the fifth."""
    config = load_config([lab.config])
    thread = threading.Thread(target=fault)

    class Struck(Ear):
        def notify(self, event):
            super().notify(event)
            if sum(isinstance(each, ChunkLoaded) for each in self.events) >= 5 and not thread.ident:
                thread.start()

    ear = Struck()
    run = run_job(config, config.jobs["big"], Options(chunk_rows=2000, rate=10_000, **options), ear)
    thread.join()
    return run, ear


def total_keys(lab):
    with RedisClient(load_config([lab.config]).target) as target:
        return sum(target.command(node, "DBSIZE") for node in target.slots.nodes)


def test_s1_server_killed_in_mid_chunk(own):
    """MySQL killed and started again: the chunk is loaded again, every row arrives, and the wait was told of."""

    def fault():
        own.kill("mysql")
        time.sleep(1)
        own.start("mysql")

    run, ear = run_while(own, fault)
    assert (run.status, run.error, run.written, run.read) == ("ok", None, 40_000, 40_000)
    assert run.chunks_retried > 0
    assert any(isinstance(event, Waiting) and "mysql" in event.reason for event in ear.events)
    assert total_keys(own) == 40_000


def test_t2_master_killed(own):
    """A master killed: its replica takes over, the rows that failed are written again, none is lost."""
    run, ear = run_while(own, lambda: own.kill("n1"))
    assert (run.status, run.error, run.written, run.read) == ("ok", None, 40_000, 40_000)
    assert run.chunks_retried > 0
    assert any(isinstance(event, Waiting) for event in ear.events)
    assert total_keys(own) == 40_000


def test_pymysql_lends_its_reader(world):
    """Contract: the reader is where packets are taken from, and the closing packet's number is what is awaited."""
    config = world.config(table="x")
    with Connection(config.source) as source:
        assert source._connection._rfile is source._reader
        for columns in (1, 3, 300):
            with source.stream("SELECT " + ", ".join(["1"] * columns)) as stream:
                assert source._connection._next_seq_id == stream._sequence
                stream.fill(0)
                assert stream.buffer[3] == stream._sequence
                stream.start += 4 + int.from_bytes(stream.buffer[:3], "little")
                stream.finish()
        assert source.fetch("SELECT 1") == [("1",)]


def test_a_stream_left_early_drops_its_connection(world):
    """Draining would read the rest of the table, so nothing is drained, and nothing is said at the end of it."""
    config = world.config(table="x")
    with Connection(config.source) as source:
        with source.stream("SELECT 1 UNION ALL SELECT 2") as stream:
            stream.fill(0)
        assert not source._connection.open


def test_a_server_that_closes_amid_rows(world, monkeypatch):
    """The end of the connection is not that of the result: the chunk is read again."""
    with Connection(world.config(table="x").source) as source, source.stream("SELECT 1") as stream:
        monkeypatch.setattr(stream._reader, "readinto1", lambda free: 0)
        with pytest.raises(SourceError, match="closed the connection while sending rows") as caught:
            stream.fill(0)
    assert caught.value.transient


def test_a_session_may_not_write(world):
    """Whatever the account may do, and whatever a `where` or a `query` asks for."""
    world.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    url = f"mysql://owner@127.0.0.1:{world.lab.mysql_port}/{world.name}"
    with Connection(SourceConfig(url=url, password=world.lab.owner_password)) as source:
        for statement in ("INSERT INTO t VALUES (2)", "DELETE FROM t", "CREATE TABLE u (id int)"):
            with pytest.raises(SourceError, match="READ ONLY"):
                source.fetch(statement)
        assert source.fetch("SELECT id FROM t") == [("1",)]


def test_redis_py_lends_its_socket(world):
    """Contract: a connection has its socket from `connect` on, and nothing in its reader."""
    with RedisClient(world.config(table="x").target) as target:
        connection, socket, name = target.open(target.topology.seeds[0])
        assert name == connection.client_name
        assert socket is connection._sock.made
        socket.settimeout(2)
        socket.sendall(b"PING\r\n")
        assert socket.recv(100) == b"+PONG\r\n"
        connection.disconnect()


def test_what_passes_is_tried_again_until_patience_ends(monkeypatch):
    """A transient failure is tried again after a growing pause; any other is raised at once."""
    clock = Clock()
    monkeypatch.setattr("loader.pipeline.retry.time", clock)
    monkeypatch.setattr("loader.pipeline.throttle.time", clock)
    tries = []

    def fail(kind):
        tries.append(clock.now)
        raise TargetError("no", kind=kind)

    with pytest.raises(TargetError):
        retry_transient(lambda: fail(Kind.UNAVAILABLE), 1.0, Throttle())
    assert 3 <= len(tries) <= 6
    assert tries[-1] - tries[0] <= 1.0
    tries.clear()
    with pytest.raises(TargetError):
        retry_transient(lambda: fail(Kind.FAULT), 1.0, Throttle())
    assert len(tries) == 1
    tries.clear()

    def late():
        if len(tries) == 2:
            return "done"
        clock.sleep(0.6)
        return fail(Kind.UNAVAILABLE)

    assert retry_transient(late, 0.5, Throttle(), moved=clock.monotonic) == "done"  # each attempt had come somewhere
    tries.clear()
    with pytest.raises(TargetError):
        retry_transient(late, 0.5, Throttle())
    assert len(tries) == 2  # waiting is no progress


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_is_asked_to_halt_begins_no_further_chunk(world, resume):
    """As a daemon asks it that is told to stop: it ends with what is under way, however many chunks there are."""
    world.sql(
        "CREATE TABLE t (id INT PRIMARY KEY)",
        "INSERT INTO t VALUES " + ", ".join(f"({number})" for number in range(1000)),
    )
    config, halt = world.config(table="t"), StopRequest()
    options = Options(chunk_rows=10, workers=2, resume=resume, halt=halt)
    run = run_job(config, config.jobs["job"], options, Halter(halt))
    assert run.outcome.is_stop
    assert 1 <= run.chunks_done <= 4  # for each worker one that it loads, and one that waits
    assert len(world.hashes()) == run.written == 10 * run.chunks_done
