"""One node that is full, slow, silent, loading, strict or of another kind while it is loaded: no row is lost."""

import json
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from loader.config.servers import TargetConfig
from loader.errors import Exit
from loader.lab.process import Server, free_ports, program, stop, wait
from loader.model import ChunkLoaded
from support.command import HOST, MARK, redis_server
from support.faults import ROWS, broken_lab, storm_on, wait_for_reason


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    with broken_lab(tmp_path_factory.mktemp("storm")) as lab:
        yield lab


@pytest.fixture
def storm(broken, tmp_path):
    with storm_on(broken, tmp_path) as storm:
        yield storm


@pytest.fixture
def alone(tmp_path):
    """The port of a standalone server."""
    (tmp_path / "alone").mkdir()
    with redis_server(tmp_path / "alone") as port:
        yield port


def is_exact(storm, client):
    """Whether a standalone server has each row's hash, field by field, and nothing else."""
    rows = storm.world.sql("SELECT id, name FROM big")
    keys = client.keys("*")
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(key)
        hashes = dict(zip(keys, pipe.execute(), strict=True))
    return hashes == {f"big_{n}".encode(): {b"id": b"%d" % n, b"name": name.encode()} for n, name in rows}


def check(storm, client, run):
    """All rows were read and written to a standalone server, none is lost."""
    assert (run.status, run.error, run.rejected) == ("ok", None, 0)
    assert run.read == run.written == ROWS
    assert is_exact(storm, client)


def test_r1_a_node_of_the_cluster_is_full(storm):
    """OOM: rows that were there stay, and once there is room the load ends by itself."""
    assert storm.load(rate=None).finish().status == "ok"
    old = storm.world.hashes()
    storm.world.sql("UPDATE big SET name = CONCAT('new ', name)")
    with storm.client(storm.names("master")[0]) as client:
        load = storm.load()
        load.reach(300)
        try:
            client.config_set("maxmemory", 1)
            wait_for_reason(load, "OOM")
            assert storm.world.hashes().keys() == old.keys()
        finally:
            client.config_set("maxmemory", 0)
        storm.check(load.finish())


def test_r3_the_replica_was_behind(storm):
    """Rows that no replica has are not counted: when the master dies they are written again to who was promoted."""
    load = storm.load(resume=True)
    load.reach(300)
    master = storm.names("master")[0]
    replica = storm.replica_of(master)
    with storm.client(master) as client:
        storm.lab.kill(replica, signal.SIGSTOP)
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")  # else they wait in its socket
        seen = client.dbsize()
        wait(lambda: client.dbsize() > seen + 20, "rows that the master has alone")
        storm.lab.kill(master)
    storm.lab.kill(replica, signal.SIGCONT)
    storm.check(load.finish())


def test_r3_a_replica_that_was_given_up_takes_over(storm):
    """Chunks that were counted while the master had no replica any more are written again once that replica leads."""
    load = storm.load()
    load.reach(300)
    master = storm.names("master")[0]
    replica = storm.replica_of(master)
    with storm.client(master) as client:
        storm.lab.kill(replica, signal.SIGSTOP)
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        node = storm.node(master)
        wait(lambda: any(str(node) in e.exposed for e in load.ear.events if isinstance(e, ChunkLoaded)), "such chunks")
    storm.lab.kill(master)
    storm.lab.kill(replica, signal.SIGCONT)
    storm.check(load.finish())
    assert any("written again: a master has lost" in str(event) for event in load.ear.events)


def test_r4_a_snapshot_fails(storm, tmp_path):
    """MISCONF: waited out until somebody has mended the disk."""
    (tmp_path / "gone").mkdir()
    with redis_server(tmp_path / "gone") as port, redis.Redis(HOST, port) as client:
        load = storm.load(target={"url": f"redis://{HOST}:{port}"})
        load.reach(300)
        client.config_set("save", "3600 1")
        (tmp_path / "gone").rename(tmp_path / "away")
        shutil.rmtree(tmp_path / "away")
        client.bgsave()
        wait_for_reason(load, "MISCONF")
        client.config_set("save", "")
        check(storm, client, load.finish())


def start_again(port, directory, *options):
    """A server that loads the snapshot of the one that was on that port, slowly."""
    server = Server("redis", port)
    words = ["--port", str(port), "--bind", HOST, "--dir", str(directory), "--save", "", *options]
    server.spawn([program("redis-server", "valkey-server"), *words], directory / "again.log")
    return server


def test_r5_a_server_loads_its_snapshot(storm, alone, tmp_path):
    """LOADING after a restart is waited out; so is the time without a server before it."""
    with redis.Redis(HOST, alone, retry=Retry(NoBackoff(), 0)) as client:
        load = storm.load(rate=4000, target={"url": f"redis://{HOST}:{alone}"})
        load.reach(2000)
        client.shutdown(save=True)
        time.sleep(1)
        slow = ["--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024"]
        server = start_again(alone, tmp_path / "alone", *slow)
        try:
            wait_for_reason(load, "LOADING")
            check(storm, client, load.finish())
        finally:
            stop([server])


def resident():
    """Megabytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def test_r7_a_slow_node_stalls_the_reader(storm):
    """While a node sleeps, its buffers fill up and no more is read, and the reason is told meanwhile."""
    storm.world.sql("ALTER TABLE big MODIFY name varchar(5000)", "UPDATE big SET name = REPEAT(name, 60)")
    name = storm.names("master")[0]
    load = storm.load(rate=None)
    wait(lambda: load.ear.throttle and load.ear.throttle.rows > 500, "the first rows")
    storm.lab.kill(name, signal.SIGSTOP)
    try:
        wait(lambda: "took" in load.ear.throttle.reason, "the reason")
        assert load.ear.throttle.reason.startswith(f"{storm.node(name)} took ")
        rows, memory = load.ear.throttle.rows, resident()
        time.sleep(0.5)
        assert load.ear.throttle.rows - rows < 3000
        assert resident() - memory < 20
        assert load.running
    finally:
        storm.lab.kill(name, signal.SIGCONT)
    storm.check(load.finish())


def test_r8_connections_are_killed_all_the_time(storm):
    """CLIENT KILL of whatever is connected, on all nodes, again and again."""
    load = storm.load()
    clients = [storm.client(name) for name in storm.names("master")]
    for _ in range(8):
        load.reach(100)
        for client in clients:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    storm.check(load.finish())
    assert load.reasons


def test_r8_no_more_clients_are_let_in(storm, alone):
    """`maxclients`: as when there is no room, the load waits until a client has left."""
    with redis.Redis(HOST, alone, single_connection_client=True) as client:
        load = storm.load(target={"url": f"redis://{HOST}:{alone}"})
        load.reach(300)
        client.config_set("maxclients", 1)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_for_reason(load, "max number of clients")
        client.config_set("maxclients", 100)
        check(storm, client, load.finish())


def test_r9_the_password_is_changed(storm, alone, tmp_path):
    """A password file is read again for each connection, so that a load lives through a rotation."""
    secret = tmp_path / "password"
    secret.write_text(f"{MARK}-old\n")
    with redis.Redis(HOST, alone) as client:
        client.config_set("requirepass", f"{MARK}-old")
        load = storm.load(target={"url": f"redis://{HOST}:{alone}", "password_file": str(secret)})
        load.reach(300)
        secret.write_text(f"{MARK}-new\n")
        client.config_set("requirepass", f"{MARK}-new")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        run = load.finish()
        client.config_set("requirepass", "")
        check(storm, client, run)
        assert load.reasons


def test_r9_the_password_is_changed_and_nobody_told_us(storm, alone, tmp_path):
    """A password that is refused ends the load at once, with the checkpoint saved."""
    with redis.Redis(HOST, alone) as client:
        load = storm.load(target={"url": f"redis://{HOST}:{alone}"}, resume=True)
        load.reach(300)
        client.config_set("requirepass", f"{MARK}-new")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        run = load.finish(10)
        assert run.exit_code == Exit.CONFIG
        assert "NOAUTH" in run.error
        client.config_set("requirepass", "")
        assert json.loads(client.get("loader:{job}:checkpoint"))["owed"]


def test_r9_a_password_file_that_is_gone(tmp_path):
    """What it held last counts until it can be read again; it is shown nowhere."""
    file = tmp_path / "password"
    file.write_text(f"{MARK}-old\n")
    settings = TargetConfig.model_validate({"url": f"redis://{HOST}:1", "password_file": str(file)})
    for change in (lambda: None, file.unlink, lambda: file.write_text("")):
        change()
        assert settings.secret == f"{MARK}-old"
    file.write_text(f"{MARK}-new")
    assert settings.secret == f"{MARK}-new"
    assert MARK not in repr(settings) + settings.model_dump_json(include={"password", "password_file"})


@pytest.mark.parametrize("command", ["hmset", "client|id", "client|setname", "info", "wait", "eval"])
def test_r10_an_account_with_too_few_rights(storm, command):
    """The command that is missing is named, exit 2."""
    user = ["marked", "on", f">{MARK}", "~*", "&*", "+@all", f"-{command}"]
    for name in storm.lab.redis_ports:
        with storm.client(name) as client:
            client.execute_command("ACL", "SETUSER", *user)
    url = storm.url.replace("redis://", "redis://marked@")
    run = storm.load(rate=None, resume=True, target={"url": url, "password": MARK}).finish()
    assert run.exit_code == Exit.CONFIG
    assert f"'{command}'" in run.error


def test_a_standalone_server_is_demoted(storm, alone):
    """READONLY: no row is counted that was not taken, and the load goes on when the server is a master again."""
    with redis.Redis(HOST, alone) as client:
        load = storm.load(target={"url": f"redis://{HOST}:{alone}"})
        load.reach(300)
        client.replicaof(HOST, 1)  # where nobody is, so that it keeps what it has
        wait_for_reason(load, f"is a replica of {HOST}:1")
        assert any("READONLY" in reason for reason in load.reasons)
        client.replicaof("NO", "ONE")
        check(storm, client, load.finish())


def test_t9_a_replica_is_refused(storm, alone):
    """A standalone replica takes no rows: its master is named, exit 2."""
    with redis.Redis(HOST, alone) as client:
        client.replicaof(HOST, 1)
        run = storm.load(rate=None, target={"url": f"redis://{HOST}:{alone}"}).finish(5)
    assert run.exit_code == Exit.CONFIG
    assert run.error.startswith(f"redis {HOST}:{alone}: is a replica of {HOST}:1, ")
    assert "name its master in target.url" in run.error


@contextmanager
def sentinel(directory, watched):
    """The port of a Sentinel that watches a server."""
    (port,) = free_ports(1)
    file = directory / "sentinel.conf"
    file.write_text(f"sentinel monitor mine {HOST} {watched} 1\n")
    server = Server("sentinel", port)
    words = [program("redis-server", "valkey-server"), str(file), "--sentinel", "--port", str(port), "--bind", HOST]
    server.spawn([*words, "--dir", str(directory)], directory / "sentinel.log")
    try:
        with redis.Redis(HOST, port) as client:
            wait(lambda: answers(client), "the Sentinel")
        yield port
    finally:
        stop([server])


def answers(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


@pytest.mark.parametrize("cluster", ["auto", False, True])
def test_t9_a_sentinel_is_refused(storm, alone, tmp_path, cluster):
    """A Sentinel holds no data: the master that it watches is named, exit 2."""
    with sentinel(tmp_path, alone) as port:
        run = storm.load(rate=None, target={"url": f"redis://{HOST}:{port}", "cluster": cluster}).finish(5)
    assert run.exit_code == Exit.CONFIG
    if cluster is True:
        assert "see target.cluster" in run.error
    else:
        assert run.error.startswith(f"redis {HOST}:{port}: is a Sentinel, ")
        assert run.error.endswith(f"target.url ({HOST}:{alone})")
