"""A cluster whose nodes announce addresses that work elsewhere only, as behind NAT or published ports."""

from contextlib import ExitStack, contextmanager

import pytest
import redis

from loader.config.servers import TargetConfig
from loader.errors import Exit
from loader.lab.process import HOST, free_ports, wait
from loader.model import Node
from loader.redis.client import RedisClient
from loader.wire.slots import slot_of
from support.command import Desk, redis_server
from support.pki import tls_options

BUS = 10_000
HALF = 8192


@pytest.fixture
def desk(world, tmp_path):
    return Desk(world, tmp_path)


@contextmanager
def published(directory):
    """Two masters and a replica of the second; the first master and the replica announce ports where nothing listens.

    They reach each other all the same, over the cluster's bus. The ports, and the addresses to write into a config.
    """
    with ExitStack() as stack:
        ports = []
        for number in range(3):
            (directory / str(number)).mkdir()
            ports.append(stack.enter_context(redis_server(directory / str(number), "--cluster-enabled", "yes")))
        nodes = [stack.enter_context(redis.Redis(HOST, port)) for port in ports]
        closed = free_ports(2)
        for node, port, announced in ((nodes[0], ports[0], closed[0]), (nodes[2], ports[2], closed[1])):
            node.config_set("cluster-announce-port", announced)
            node.config_set("cluster-announce-bus-port", port + BUS)
        for first, last, node in ((0, HALF - 1, nodes[0]), (HALF, 2 * HALF - 1, nodes[1])):
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for port in ports[1:]:
            nodes[0].execute_command("CLUSTER", "MEET", HOST, port)
        second = nodes[1].execute_command("CLUSTER", "MYID")
        wait(lambda: second.decode() in str(nodes[2].cluster("NODES")), "the nodes to meet")
        nodes[2].execute_command("CLUSTER", "REPLICATE", second)
        wait(lambda: all(node.cluster("INFO")["cluster_state"] == "ok" for node in nodes), "the cluster")
        wait(lambda: any(len(row) > 3 for row in nodes[0].cluster("SLOTS")), "the replica to be known")
        wait(lambda: nodes[2].info("replication")["master_link_status"] == "up", "the replica to follow")
        yield nodes, ports, {f"{HOST}:{closed[0]}": f"{HOST}:{ports[0]}", f"{HOST}:{closed[1]}": f"{HOST}:{ports[2]}"}


def test_everything_reaches_a_cluster_behind_published_ports(desk, tmp_path):
    """With the addresses, a sync, its check and reading back work; without, doctor names the mapping to write."""
    with published(tmp_path) as (nodes, ports, addresses):
        first, replica = addresses
        url = f"redis://{HOST}:{ports[0]},{HOST}:{ports[1]}"
        desk.write(target={"url": url, "password": ""})
        refused = desk.run("sync", "stu")
        told = desk.run("doctor")
        desk.write(target={"url": url, "password": "", "addresses": addresses})
        done = desk.run("sync", "stu", "-o", "json")
        checked = desk.run("verify", "stu")
        fine = desk.run("doctor", "-o", "json")
        shown = desk.run("cluster", "-o", "json").document
        assert sum(node.dbsize() for node in nodes[:2]) > 5

    assert refused.code == Exit.UNREACHABLE
    assert "or target.addresses" in refused.err
    fixes = " ".join(told.out.split())
    assert f'fix: target: {{addresses: {{"{first}": "{addresses[first]}"}}}} ' in fixes
    assert f'fix: target: {{addresses: {{"{replica}": "HOST:PORT"}}}} # as it is reached from here' in fixes
    assert (done.code, done.document["rows"]["written"]) == (0, 5)
    assert set(done.document["nodes"]) <= {first, f"{HOST}:{ports[1]}"}
    assert checked.out == "stu: ok: 5 rows compared, 0 missing, 0 different, 0 extra\n"
    (answering,) = [found for found in fine.document["checks"] if found["check"] == "redis.nodes"]
    assert answering["status"] == "ok"
    assert {master["node"] for master in shown["masters"]} == {first, f"{HOST}:{ports[1]}"}


def test_redirections_and_replicas_are_followed_to_where_they_are_reached(tmp_path):
    """MOVED and ASK name announced addresses, and CLUSTER SLOTS those of replicas."""
    with published(tmp_path) as (nodes, ports, addresses):
        settings = TargetConfig.model_validate({"url": f"redis://{HOST}:{ports[1]}", "addresses": addresses})
        ids = [node.execute_command("CLUSTER", "MYID") for node in nodes]
        first, replica = (Node(HOST, int(each.rpartition(":")[2])) for each in addresses)
        with RedisClient(settings) as client:
            client.refresh(force=True)
            moved = next(key for key in (b"k%d" % n for n in range(99)) if slot_of(key) >= HALF)
            asked = next(key for key in (b"a%d" % n for n in range(99)) if slot_of(key) >= HALF)
            for node in nodes[:2]:
                node.execute_command("CLUSTER", "SETSLOT", slot_of(moved), "NODE", ids[0])
            nodes[0].execute_command("CLUSTER", "SETSLOT", slot_of(asked), "IMPORTING", ids[1])
            nodes[1].execute_command("CLUSTER", "SETSLOT", slot_of(asked), "MIGRATING", ids[0])

            assert client.ask(moved, "SET", moved, "1") == (first, b"OK")
            assert client.ask(asked, "SET", asked, "1") == (first, b"OK")
            assert client.info(replica)["role"] == "slave"
        assert nodes[0].execute_command("EXISTS", moved) == 1


@pytest.mark.parametrize(("certificate", "code"), [("server", Exit.OK), ("elsewhere", Exit.CONFIG)])
def test_a_certificate_names_the_address_that_is_dialled(desk, pki, tmp_path, certificate, code):
    """The config says where to go, so the certificate is checked against that, as it is for the url."""
    options = [*tls_options(pki, certificate=certificate), "--cluster-enabled", "yes"]
    options += ["--tls-cluster", "yes", "--cluster-announce-ip", "127.9.9.9"]

    def client(port):
        return redis.Redis(HOST, port, ssl=True, ssl_ca_certs=pki / "ca.crt", ssl_check_hostname=False)

    with redis_server(tmp_path, *options, answers=client) as port, client(port) as node:
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 2 * HALF - 1)
        wait(lambda: node.cluster("INFO")["cluster_state"] == "ok", "the cluster")
        addresses = {f"127.9.9.9:{port}": f"{HOST}:{port}"}
        target = {"url": f"rediss://{HOST}:{port}", "password": "", "tls_ca": str(pki / "ca.crt")}
        desk.write(target=target | {"addresses": addresses})
        result = desk.run("sync", "stu")

    assert result.code == code, result.err


def test_a_mapping_that_leads_nowhere(desk, tmp_path):
    """The error says which address was dialled, and by which key of the config."""
    with published(tmp_path) as (_, ports, addresses):
        first = next(iter(addresses))
        (nowhere,) = free_ports(1)
        desk.write(
            target={"url": f"redis://{HOST}:{ports[1]}", "password": "", "addresses": {first: f"{HOST}:{nowhere}"}}
        )
        told = desk.run("doctor")

    text = " ".join(told.out.split())
    assert f"redis {first} (reached at {HOST}:{nowhere} by target.addresses): cannot connect: " in text
    assert f"redis-cli -h {HOST} -p {nowhere} PING" in text
