"""What nobody may see or do: secrets and values in output, rights beyond the accounts', plaintext, state as data."""

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from redis.cluster import ClusterNode, RedisCluster

from loader.config.load import load_config
from loader.lab.process import wait
from loader.model import Node
from loader.redis.acl import REDIS_RIGHTS
from loader.redis.client import RedisClient
from loader.wire.slots import slot_of
from support.command import HOST, MARK, REDIS_PASSWORD, RIGHTS, STU, Desk, finish, redis_server, shell
from support.pki import tls_options

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
VALUE = "V4LUE-of-a-row"
DEBUG = ("--log-level", "debug", "--log-format")
# The command, in which something fails that nobody thought of.
CRASH = """
from loader.cli import main
from loader.redis.writer import PipelineWriter

def crash(*_):
    raise RuntimeError("unforeseen")

PipelineWriter.drain = crash
main.main()
"""


@pytest.fixture
def desk(world, tmp_path):
    """A table in which every value but the key is marked."""
    desk = Desk(world, tmp_path)
    world.sql(f"UPDATE stu SET sname = '{VALUE}', address = '{VALUE}'")
    return desk


def rows_of_keys(world, table):
    return {
        f"{table}_{key}".encode(): {b"id": str(key).encode(), b"name": name.encode()}
        for key, name in world.sql(f"SELECT id, name FROM {table}")
    }


# rights


def test_the_docs_have_the_rights_of_the_lab():
    """What people are told to grant is what the tests run under."""
    text = PAGE.read_text(encoding="utf-8")
    told = text.partition("ACL SETUSER loader on >… ~stu_* ~loader:*\n")[2].partition("\n\n")[0]

    assert told.split() == REDIS_RIGHTS.split()


def test_the_rights_are_enough(desk):
    """No command asks for more, not even one whose refusal nobody would notice."""
    world = desk.world
    nodes = [redis.Redis(HOST, port) for port in world.lab.redis_ports.values()]
    for node in nodes:
        node.acl_log_reset()
    for words in ["sync stu --prune", "backfill stu", "plan stu", "get stu 1", "cluster", "prune stu"]:
        assert desk.run(*words.split()).code == 0
    world.sql("UPDATE stu SET sname = 'x' WHERE sid = 1", "DELETE FROM stu WHERE sid = 2")
    world.redis.set("stu_00000003", "foreign")
    for words in ["sync stu", "verify stu --repair", "verify stu --sample 3", "rejects list stu", "rejects retry stu"]:
        assert desk.run(*words.split()).code in {0, 3}
    assert desk.run("rejects", "purge", "stu").code == 0
    world.redis.delete("stu_00000003")
    with open_migration(world, slot_of(b"stu_00000001")):
        assert desk.run("sync", "stu").code == 0
    target = RedisClient(load_config([desk.directory / "loader.yaml"]).target)
    node = Node(HOST, desk.redis_port)
    with target:
        connection, _, name = target.open(node)
        target.fences.add(node, name)
        target.connect(node).disconnect()
        with pytest.raises(redis.ConnectionError):  # it was killed
            connection.read_response()
        connection.disconnect()

    refused = [(entry["object"], entry["username"]) for node in nodes for entry in node.acl_log()]
    for node in nodes:
        node.close()

    assert [what for what, user in refused if user == "marked"] == []


class open_migration:  # noqa: N801  # read as a function
    """A slot that its owner is about to hand over to another master, which a key that is not there is asked of."""

    def __init__(self, world, slot):
        nodes = world.redis.nodes_manager
        self.slot, self.world = slot, world
        self.source = nodes.get_node_from_slot(slot)
        self.target = next(node for node in world.redis.get_primaries() if node != self.source)
        self.ids = {n: world.redis.execute_command("CLUSTER MYID", target_nodes=n) for n in (self.source, self.target)}

    def __enter__(self):
        self.world.clear()
        self._set(self.target, "IMPORTING", self.ids[self.source])
        self._set(self.source, "MIGRATING", self.ids[self.target])

    def __exit__(self, *_):
        client = redis.Redis(self.target.host, self.target.port)
        with client:
            held = client.execute_command("CLUSTER", "GETKEYSINSLOT", self.slot, 10)
            for key in held:
                with client.pipeline(transaction=False) as pipe:
                    pipe.execute_command("ASKING")
                    pipe.execute_command("DEL", key)
                    pipe.execute()
        for node in (self.source, self.target):
            self._set(node, "STABLE")
        assert held, "the row was not written where the reply pointed"

    def _set(self, node, *words):
        self.world.redis.execute_command("CLUSTER SETSLOT", self.slot, *words, target_nodes=node)


# secrets and values


def test_secrets_and_values_show_nowhere(desk):
    """Neither in results nor in logs of any form and level, nor in a crash that nobody thought of."""
    desk.world.redis.set("stu_00000003", "foreign")
    shown = []
    for form in ("json", "console"):
        for words in [("sync", "stu"), ("backfill", "stu", "-o", "json", "--restart")]:
            shown.append(desk.run(*DEBUG, form, *words, "--progress", "log"))
            assert shown[-1].code == 3
        crash = [sys.executable, "-c", CRASH, *DEBUG, form, "sync", "stu", "--progress", "log"]
        done = subprocess.run(crash, cwd=desk.directory, capture_output=True, check=False, encoding="utf-8", timeout=60)
        assert (done.returncode, done.stdout) == (1, "")
        assert "RuntimeError: unforeseen" in done.stderr
        shown.append(done)
    for words in [("verify", "stu"), ("rejects", "list", "stu"), ("rejects", "list", "stu", "-o", "json")]:
        shown.append(desk.run(*DEBUG, "json", *words))
        assert "stu_00000003" in shown[-1].out
    desk.world.redis.delete("stu_00000003")

    assert [each for each in shown if MARK in str(each) or VALUE in str(each)] == []
    for words in [("plan", "stu"), ("get", "stu", "1"), ("get", "stu", "1", "-o", "json"), ("cluster", "-o", "json")]:
        desk.run(*DEBUG, "json", *words)  # which shows values, that being its purpose; a password ends the test
    assert MARK not in repr(load_config([desk.directory / "loader.yaml"]))


def test_secrets_are_not_in_process_lists(desk):
    """Neither the system's, nor Redis's list of clients, nor MySQL's of connections tells a password."""
    desk.write({"stu": STU["stu"] | {"where": "NOT SLEEP(0.5)"}})
    process = desk.start("sync", "stu")
    try:
        wait(lambda: any("SLEEP" in row and "'marked'" in row for row in queries(desk)), "the loader to read")
        seen = [Path(f"/proc/{process.pid}/cmdline").read_text(encoding="utf-8"), *clients(desk), *queries(desk)]
    finally:
        finish(process)

    assert any("'user': 'marked'" in row and "'name': 'loader" in row for row in seen)
    assert [row for row in seen if MARK in row] == []


def queries(desk):
    return [str(row) for row in desk.world.sql("SHOW FULL PROCESSLIST")]


def clients(desk):
    found = []
    for port in desk.world.lab.redis_ports.values():
        with redis.Redis(HOST, port) as node:
            found += map(str, node.client_list())
    return found


def test_an_error_of_redis_tells_no_value(desk, tmp_path):
    """Redis repeats the arguments of a command that it does not know; the loader does not."""
    with redis_server(tmp_path, "--rename-command", "HMSET", "RENAMED") as port:
        desk.write(target={"url": f"redis://{HOST}:{port}", "password": ""})
        result = desk.run(*DEBUG, "json", "sync", "stu")

    assert result.code == 2
    assert "unknown command HMSET" in result.err
    assert VALUE not in result.out + result.err


# TLS


def tls_client(pki, port):
    return redis.Redis(HOST, port, ssl=True, ssl_ca_certs=pki / "ca.crt")


@pytest.fixture(scope="module")
def tls_cluster(pki, tmp_path_factory):
    """The ports of six nodes, three of them replicas, that speak TLS alone, to one another too."""
    options = [*tls_options(pki), "--tls-cluster", "yes", "--tls-replication", "yes", "--cluster-enabled", "yes"]
    with ExitStack() as stack:
        ports = [
            stack.enter_context(
                redis_server(tmp_path_factory.mktemp("tls"), *options, answers=lambda port: tls_client(pki, port))
            )
            for _ in range(6)
        ]
        program = shutil.which("redis-cli") or shutil.which("valkey-cli")
        words = ["--cluster", "create", *(f"{HOST}:{port}" for port in ports), "--cluster-replicas", "1"]
        create = [program, "--tls", "--cacert", str(pki / "ca.crt"), *words, "--cluster-yes"]
        subprocess.run(create, check=True, capture_output=True, timeout=60)
        nodes = [stack.enter_context(tls_client(pki, port)) for port in ports]
        for node in nodes:
            node.execute_command("ACL", "SETUSER", "marked", *RIGHTS)
        wait(lambda: all(map(in_place, nodes)), "the cluster to settle")
        yield ports


def in_place(node):
    replication = node.info("replication")
    follows = replication["role"] == "master" or replication["master_link_status"] == "up"
    return follows and node.cluster("INFO")["cluster_state"] == "ok"


def test_a_whole_cluster_under_tls(desk, pki, tls_cluster):
    """Six nodes that speak nothing else: rows go to every master, by an account, and each is exact."""
    desk.world.sql(
        "CREATE TABLE many (id int PRIMARY KEY, name varchar(40))",
        "INSERT INTO many SELECT 1000 * a.sid + 100 * b.sid + 10 * c.sid + d.sid, CONCAT('名', a.sid, b.sid)"
        " FROM stu a, stu b, stu c, stu d",
    )
    url = "rediss://marked@" + ",".join(f"{HOST}:{port}" for port in tls_cluster)
    desk.write({"many": {"table": "many"}}, target={"url": url, "tls_ca": str(pki / "ca.crt")})
    seed = ClusterNode(HOST, tls_cluster[0])
    client = RedisCluster(startup_nodes=[seed], ssl=True, ssl_ca_certs=pki / "ca.crt")

    done = desk.run("backfill", "many", "-o", "json")
    shown = desk.run("cluster", "-o", "json")
    with client:
        hashes = {key: client.hgetall(key) for key in client.keys("many*", target_nodes=RedisCluster.PRIMARIES)}

    assert (done.code, done.document["rows"]["written"], len(done.document["nodes"])) == (0, 625, 3)
    assert shown.document["state"] == "ok"
    assert [master["replicas"] for master in shown.document["masters"]] == [1, 1, 1]
    assert hashes == rows_of_keys(desk.world, "many")


def test_a_cluster_under_tls_is_mended(desk, pki, tls_cluster):
    """What `doctor` prints for a shell speaks TLS too."""
    target = {"url": f"rediss://marked@{HOST}:{tls_cluster[0]}", "tls_ca": str(pki / "ca.crt")}
    desk.write(target=target)
    with tls_client(pki, tls_cluster[4]) as node:
        node.execute_command("ACL", "SETUSER", "marked", "-scan")
    lacking = desk.run("doctor", "-o", "json")
    (fix,) = [each["fix"] for each in lacking.document["checks"] if each["status"] == "fail"]
    shell(fix)
    mended = desk.run("doctor", "-o", "json")

    assert (lacking.code, mended.code) == (3, 0)
    assert [each["seen"] for each in mended.document["checks"] if each["check"] == "redis.tls"] == ["in use"]
    desk.write(target=target | {"tls_ca": str(pki / "other.crt")})
    (refused,) = [
        each for each in desk.run("doctor", "-o", "json").document["checks"] if each["check"] == "redis.login"
    ]
    assert (refused["status"], refused["fix"]) == ("fail", "see the target of the config")


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_no_plaintext_where_tls_is_meant(desk, pki, tls_cluster, tmp_path, scheme):
    """A server without TLS is not spoken to when TLS is asked for, nor one with TLS in plaintext."""
    with redis_server(tmp_path) as plain, redis.Redis(HOST, plain) as node:
        port = plain if scheme == "rediss" else tls_cluster[0]
        target = {"url": f"{scheme}://marked@{HOST}:{port}", "password": REDIS_PASSWORD, "timeout": "60s"}
        desk.write(target=target)  # a server without TLS does not answer to a handshake
        result = desk.run("sync", "stu", "-o", "json")

        assert (result.code, result.document["rows"]["written"]) == (2, 0)
        other = {"redis": "speaks TLS there: write rediss://", "rediss": "does not speak TLS there: write redis://"}[
            scheme
        ]
        assert result.messages[-1].endswith(f": the server {other} in target.url")
        assert node.dbsize() == 0
        assert node.info("clients")["connected_clients"] == 1


@pytest.mark.parametrize(
    ("certificate", "why"), [("late", "certificate has expired"), ("elsewhere", "IP address mismatch")]
)
def test_n9_a_certificate_that_does_not_fit(desk, pki, tmp_path, certificate, why):
    """One that is out of date, or of another host, is refused and not tried again."""

    def client(port):
        return redis.Redis(HOST, port, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False)

    with redis_server(tmp_path, *tls_options(pki, certificate=certificate), answers=client) as port:
        desk.write(target={"url": f"rediss://{HOST}:{port}", "password": "", "tls_ca": str(pki / "ca.crt")})
        result = desk.run("sync", "stu", "-o", "json")

        assert result.code == 2
        assert why in result.err
        with client(port) as node:
            assert node.dbsize() == 0
            assert json.loads(result.out)["rows"]["written"] == 0
            assert json.loads(result.out)["chunks"]["retried"] == 0
