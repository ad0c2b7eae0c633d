"""Backfills by a Dask cluster: a real scheduler, which does not know the loader, and real workers."""

import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import redis

from loader.lab.process import free_ports, wait
from support.command import HOST, MYSQL_PASSWORD, finish
from support.dask import dask_servers
from support.tables import desk_of_big

ROWS = 60_000


@pytest.fixture
def desk(world, tmp_path):
    return desk_of_big(world, tmp_path)


@pytest.fixture
def cluster(tmp_path):
    with dask_servers(tmp_path / "dask") as servers:
        yield servers


def holds_every_row(world):
    """Whether each row of `big` has its hash, and nothing else is there."""
    rows = {f"big_{number}".encode(): name.encode() for number, name in world.sql("SELECT id, name FROM big")}
    hashes = {key: fields[b"name"] for key, fields in world.hashes().items()}
    return rows == hashes


def test_a_cluster_loads_all_and_leaves_nothing_behind(desk, cluster):
    """All rows, in chunks by two workers; no checkpoint, no marker, no owner of a chunk and no connection stays."""
    cluster.add()
    cluster.add()
    result = backfill(desk, cluster)
    assert result.code == 0, result
    assert result.document["rows"]["written"] == ROWS
    assert result.document["chunks"] == {"total": 60, "done": 60, "retried": 0}
    assert holds_every_row(desk.world)
    assert desk.world.state() == set()


SLOW = {"big": {"table": "big", "chunk_rows": 1000, "fields": {"name": "name", "nap": "SLEEP(0.0002)"}}}
AFTER = 5000  # hashes after which something happens
OTHER_VERSION = (
    "import importlib.metadata as m; own = m.version;"
    " m.version = lambda name: '0.0.9' if name == 'mysql-redis-loader' else own(name)"
)


@pytest.fixture
def slow(desk):
    """A job that takes a quarter of a second for each chunk of one worker, 15 s in all."""
    desk.write(SLOW)
    return desk


def start(desk, cluster, *words):
    return desk.start("backfill", "big", "-o", "json", "--dask", cluster.address, *words)


def backfill(desk, cluster, *words):
    return desk.run("backfill", "big", "-o", "json", "--dask", cluster.address, *words)


def wait_for_hashes(world, count=AFTER):
    wait(lambda: sum(1 for _ in world.redis.scan_iter("big_*", count=5000)) >= count, f"{count} hashes")


def wait_for_silence(world):
    """Wait until no worker has a connection to MySQL any more."""
    statement = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'marked'"
    wait(lambda: int(world.sql(statement)[0][0]) == 0, "all workers to leave MySQL")


def test_a_worker_is_killed_and_one_is_added(slow, cluster):
    """The chunks of a worker that was killed are loaded by others, one that joins takes its share; each counts once."""
    first = cluster.add()
    cluster.add()
    process = start(slow, cluster)
    wait_for_hashes(slow.world)
    first.kill()
    cluster.add()
    done = finish(process)
    assert done.code == 0, done
    assert done.document["rows"] == {"read": ROWS, "written": ROWS, "unchanged": 0, "deleted": 0, "rejected": 0}
    assert done.document["chunks"]["done"] == 60
    assert holds_every_row(slow.world)
    assert slow.world.state() == set()


def test_a_killed_client_goes_on_where_it_was(slow, cluster):
    """SIGKILL of the client: its tasks are given up, and the next run loads the rest, and at most two chunks twice."""
    cluster.add()
    process = start(slow, cluster)
    wait_for_hashes(slow.world)
    process.kill()
    process.communicate()
    there = len(slow.world.hashes())
    result = backfill(slow, cluster)
    assert (result.code, result.document["resumed"]) == (0, True), result
    assert result.document["rows"]["written"] + there <= ROWS + 3 * 1000
    assert holds_every_row(slow.world)
    assert slow.world.state() == set()


def test_workers_of_a_lost_lock_write_no_more(slow, cluster):
    """What a worker has read for a client that is dead never comes after the values of the run that has the lock."""
    slow.write({"big": SLOW["big"] | {"chunk_rows": 10_000}})  # two seconds for each chunk
    cluster.add()
    process = start(slow, cluster)
    wait_for_hashes(slow.world)
    slow.world.sql("DO SLEEP(0.5)")  # it reads the next chunk now
    process.kill()
    process.communicate()
    slow.world.sql("UPDATE big SET name = CONCAT('new ', id)")
    slow.write({"big": {"table": "big", "chunk_rows": 10_000}})
    assert slow.run("sync", "big").code == 0
    assert holds_every_row(slow.world)
    wait_for_silence(slow.world)
    assert holds_every_row(slow.world)


def test_workers_ask_for_the_lock(slow, cluster):
    """Once the lock of a dead client is gone, they stop by themselves, in the middle of a chunk."""
    slow.write({"big": SLOW["big"] | {"chunk_rows": ROWS}})  # 12 s
    cluster.add()
    process = start(slow, cluster)
    wait_for_hashes(slow.world, 1000)
    process.kill()
    process.communicate()
    slow.world.redis.delete("loader:{big}:lock")
    wait_for_silence(slow.world)
    assert 1000 <= len(slow.world.hashes()) < ROWS


def test_a_worker_that_only_seemed_dead_writes_no_more(slow, tmp_path):
    """It is stopped in the middle of a chunk, which another one loads; once it goes on, it finds that out."""
    with dask_servers(tmp_path / "forgetful", DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="3s") as cluster:
        sleeper = cluster.add()
        process = start(slow, cluster)
        wait_for_hashes(slow.world, 1000)
        slow.world.sql("DO SLEEP(0.1)")
        sleeper.process.send_signal(signal.SIGSTOP)
        slow.world.sql("UPDATE big SET name = CONCAT('new ', id)")
        cluster.add()
        before = len(slow.world.hashes())
        wait_for_hashes(slow.world, before + 2000)
        wait(lambda: any(len(n.split()) > 1 for n in slow.world.redis.hgetall("loader:{big}:chunks").values()), "both")
        sleeper.process.send_signal(signal.SIGCONT)
        done = finish(process)
        assert done.code == 0, done
        hashes = slow.world.hashes()
        wait_for_silence(slow.world)
        assert slow.world.hashes() == hashes


def test_a_stopped_client_saves_what_is_loaded(slow, cluster):
    """SIGTERM: exit 143 in time, nothing is written any more, and the next run loads the rest."""
    cluster.add()
    process = start(slow, cluster)
    wait_for_hashes(slow.world)
    process.send_signal(signal.SIGTERM)
    stopped = finish(process, 15)
    assert (stopped.code, stopped.document["status"]) == (143, "stopped"), stopped
    second = backfill(slow, cluster)
    assert second.document["resumed"]
    assert stopped.document["rows"]["written"] + second.document["rows"]["written"] == ROWS
    assert holds_every_row(slow.world)


def test_a_scheduler_that_dies(slow, cluster, tmp_path):
    """The run fails with exit code 4 and keeps its checkpoint, from which it goes on without Dask."""
    cluster.add()
    process = start(slow, cluster)
    wait_for_hashes(slow.world)
    cluster.scheduler.kill()
    done = finish(process)
    assert done.code == 4, done
    assert f"the Dask scheduler at {cluster.address} is gone" in done.err
    second = slow.run("backfill", "big", "-o", "json")
    assert (second.code, second.document["resumed"]) == (0, True)
    assert holds_every_row(slow.world)
    assert slow.world.state() == set()


def wait_for_words(process, words):
    """Wait until a run with `--progress log` says something; it has half a minute."""
    seen, watch = [], threading.Timer(30, process.kill)
    watch.start()
    try:
        assert any(seen.append(line) or words in line for line in iter(process.stderr.readline, "")), seen
    finally:
        watch.cancel()


def test_a_scheduler_that_hangs(slow, cluster):
    """The run says so, and goes on once it answers again; a signal is heard while it does not."""
    cluster.add()
    process = start(slow, cluster, "--progress", "log")
    wait_for_hashes(slow.world, 1000)
    cluster.scheduler.send_signal(signal.SIGSTOP)
    wait_for_words(process, "does not answer")
    cluster.scheduler.send_signal(signal.SIGCONT)
    wait_for_hashes(slow.world)
    cluster.scheduler.send_signal(signal.SIGSTOP)
    wait_for_words(process, "does not answer")
    process.send_signal(signal.SIGTERM)
    stopped = finish(process, 15)
    assert (stopped.code, stopped.document["status"]) == (143, "stopped"), stopped
    assert stopped.document["rows"]["written"] >= 1000


def test_rejects_are_those_of_a_local_run(desk, cluster):
    """Rows that Redis refuses come back with the reason, are listed, and the exit code is 3."""
    cluster.add()
    desk.world.redis.set("big_7", "text")
    result = backfill(desk, cluster)
    assert (result.code, result.document["rows"]["rejected"]) == (3, 1), result
    listed = desk.run("rejects", "list", "big", "-o", "json").out
    assert "big_7" in listed
    assert "WRONGTYPE" in listed


def test_tasks_have_readable_names(slow, cluster):
    """The dashboard shows the job, the number of the chunk, and how many there are."""
    worker = cluster.add()
    process = start(slow, cluster)
    wait_for_hashes(slow.world, 1000)
    asked = f"from distributed import Client; c = Client({cluster.address!r}); print(c.processing()); c.close()"
    shown = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    worker.kill()
    process.kill()
    process.communicate()
    assert re.search(r"'big \d+/\d+'", shown), shown


def test_passwords_do_not_travel(slow, cluster, tmp_path):
    """A worker reads the config itself, and the passwords from its own environment: without them it fails alone."""
    slow.write(SLOW, source={"password": "${WORD}"})
    cluster.add(WORD="wrong")
    refused = slow.run("backfill", "big", "--dask", cluster.address, WORD=MYSQL_PASSWORD)
    assert refused.code == 2, refused
    assert "dask worker tcp://" in refused.err
    cluster.workers[0].kill()
    cluster.add(WORD=MYSQL_PASSWORD)
    assert slow.run("backfill", "big", "--dask", cluster.address, WORD=MYSQL_PASSWORD).code == 0


def test_another_config_is_refused_with_the_reason(desk, cluster, tmp_path):
    """A worker whose own config says something else does not load a row."""
    other = tmp_path / "other.yaml"
    other.write_text(
        (desk.directory / "loader.yaml").read_text().replace('"chunk_rows"', '"nulls": "empty", "chunk_rows"')
    )
    cluster.add(LOADER_CONFIG=str(other))
    refused = backfill(desk, cluster)
    assert refused.code == 2, refused
    assert "dask worker tcp://" in refused.err
    assert "nulls was 'omit' and is 'empty'" in refused.err
    assert desk.world.hashes() == {}


def test_a_config_that_is_not_there(desk, cluster, tmp_path):
    """The message says which file a worker has looked for."""
    config = desk.directory / "loader.yaml"
    moved = config.rename(tmp_path / "here.yaml")
    cluster.add(before=f"import pathlib; pathlib.Path.exists = lambda path: path.name != {moved.name!r}")
    refused = desk.run("-c", str(moved), "backfill", "big", "--dask", cluster.address)
    assert refused.code == 2, refused
    assert f"there is no {moved}: put the config there too, or name it in $LOADER_CONFIG" in refused.err


def test_another_version_is_refused(desk, cluster):
    """Client and workers have the same loader; the error names the worker and both versions."""
    cluster.add(before=OTHER_VERSION)
    refused = backfill(desk, cluster)
    assert (refused.code, refused.document["status"]) == (2, "failed"), refused
    assert re.search(r"dask worker tcp://[\d.:]+: it has 0\.0\.9 of .*, and this run has \S+: install", refused.err)
    assert desk.world.state() == set()


def test_another_version_joins(slow, cluster):
    """A worker that joins later is asked for its version as well."""
    cluster.add()
    process = start(slow, cluster)
    wait_for_hashes(slow.world)
    cluster.add(before=OTHER_VERSION)
    done = finish(process)
    assert done.code == 2, done
    assert "it has 0.0.9 of" in done.err


def test_no_scheduler(desk):
    """One line, and the exit code of a server that cannot be reached."""
    (port,) = free_ports(1)
    began = time.monotonic()
    result = desk.run("backfill", "big", "--dask", f"tcp://{HOST}:{port}")
    assert result.code == 4
    assert f"no Dask scheduler answers at tcp://{HOST}:{port} within 5 s: " in result.err
    assert time.monotonic() - began < 30


def test_something_else_than_a_scheduler(desk):
    """A server of another kind at the address does not answer as a scheduler."""
    result = desk.run("backfill", "big", "--dask", f"tcp://{HOST}:{desk.redis_port}")
    assert result.code == 4
    assert "no Dask scheduler answers at " in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dask", "tcp://a:1", "--shard", "1/2"], "--dask and --shard exclude each other"),
        (["--dask", "tcp://a:1", "--rate", "5"], "--dask and --rate exclude each other"),
        (["--dask", "tcp://a:1", "--dry-run"], "--dask and --dry-run exclude each other"),
        (["--dask", "nonsense"], "write the address of a scheduler, like tcp://host:8786"),
    ],
)
def test_what_is_refused(desk, words, message):
    """Options that mean nothing together are a usage error."""
    result = desk.run("backfill", "big", *words)
    assert result.code == 2
    assert message in result.err


@pytest.fixture
def account(desk):
    """Changes the account of MySQL, and takes that back."""
    yield lambda how: desk.world.sql(f"ALTER USER marked@'%' {how}")
    desk.world.sql("ALTER USER marked@'%' WITH MAX_USER_CONNECTIONS 0")


FEW = {"big": {"table": "big", "chunk_rows": 2000, "fields": {"name": "name", "n": "SLEEP(0.0001)"}}}


def test_too_few_connections_for_the_workers(desk, cluster, account):
    """The run ends before it has written a row, with the statement that mends it."""
    cluster.add()
    cluster.add()
    account("WITH MAX_USER_CONNECTIONS 2")
    refused = backfill(desk, cluster)
    assert refused.code == 2, refused
    assert "the account may have 2 connections at a time (max_user_connections)" in refused.err
    assert "the Dask workers have 2 threads, and this run needs one: ALTER USER 'marked'@'%'" in refused.err
    assert "WITH MAX_USER_CONNECTIONS 3" in refused.err
    assert desk.world.hashes() == {}


def test_a_worker_that_gets_no_connection_to_mysql(desk, cluster, account):
    """A run alone would fail within two seconds; here another worker goes on, and loads its chunks in the end."""
    desk.write(FEW)
    account("WITH MAX_USER_CONNECTIONS 2")
    cluster.add()
    process = start(desk, cluster, "--progress", "log")
    wait_for_hashes(desk.world, 2000)
    cluster.add()
    wait_for_words(process, "max_user_connections")
    done = finish(process)
    assert done.code == 0, done
    assert done.document["chunks"]["done"] == 30
    assert done.document["chunks"]["retried"] > 0
    assert holds_every_row(desk.world)
    assert desk.world.state() == set()


@pytest.fixture
def nodes(desk):
    """Clients of all nodes, for changes that are taken back."""
    clients = [redis.Redis(HOST, port, single_connection_client=True) for port in desk.world.lab.redis_ports.values()]
    most = clients[0].config_get("maxclients")["maxclients"]
    yield clients
    for client in clients:
        client.config_set("maxclients", most)
        client.execute_command("ACL", "SETUSER", "marked", "-restore")
        client.close()


def test_a_worker_that_gets_no_connection_to_redis(desk, cluster, nodes):
    """It waits until a node lets it in."""
    desk.write(FEW)
    cluster.add()
    process = start(desk, cluster, "--progress", "log")
    wait_for_hashes(desk.world, 2000)
    for node in nodes:
        node.config_set("maxclients", 1)
    cluster.add()
    wait_for_words(process, "max number of clients")
    for node in nodes:
        node.config_set("maxclients", 1000)
    done = finish(process)
    assert done.code == 0, done
    assert holds_every_row(desk.world)
    assert desk.world.state() == set()


def test_a_table_without_a_key_and_parts_of_a_job(desk, cluster, nodes):
    """What has one chunk is one task; of a job of many tables each has its run, and all are told as one."""
    for node in nodes:
        node.execute_command("ACL", "SETUSER", "marked", "+restore")
    desk.world.sql("CREATE TABLE bag (a INT, b INT)", "INSERT INTO bag SELECT id, 1 FROM big WHERE id <= 2500")
    desk.world.sql("CREATE TABLE bag_2 (a INT PRIMARY KEY, b INT)", "INSERT INTO bag_2 SELECT a, b FROM bag")
    desk.write({"bags": {"tables": "bag*", "key": "{table}:{a}", "chunk_rows": 1000, "write": "restore"}})
    cluster.add()
    done = desk.run("backfill", "bags", "-o", "json", "--dask", cluster.address)
    assert done.code == 0, done
    assert done.document["parts"] == {"total": 2, "ok": 2}
    assert done.document["chunks"]["done"] == 1 + 3
    checked = desk.run("verify", "bags", "-o", "json")
    assert (checked.code, checked.document["rows"]) == (0, 5000), checked


def test_a_cluster_without_workers(slow, cluster):
    """The run says that it waits, and loads once there is one."""
    slow.write({"big": {"table": "big", "chunk_rows": 1000}})
    process = start(slow, cluster, "--progress", "log")
    wait_for_words(process, "has no workers")
    cluster.add()
    done = finish(process)
    assert done.code == 0, done
    assert holds_every_row(slow.world)
