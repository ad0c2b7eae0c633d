"""A cluster that fails over, moves slots, loses nodes or tells odd addresses while it is loaded: no row is lost."""

import signal
import socket

import pytest
import redis

from loader.doctor.redis import checked, reach
from loader.doctor.secrets import Secret
from loader.errors import Exit
from loader.jobs import prune, verify
from loader.lab.process import wait
from loader.redis.acl import REDIS_RIGHTS
from loader.redis.client import RedisClient
from loader.redis.servers import describe_cluster
from loader.report.screen import Screen
from loader.report.text import cluster_text
from loader.wire.slots import slot_of
from support.command import HOST, redis_server
from support.faults import ROWS, Migration, broken_lab, storm_on, wait_for_reason


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    with broken_lab(tmp_path_factory.mktemp("storm")) as lab:
        yield lab


@pytest.fixture
def storm(broken, tmp_path):
    with storm_on(broken, tmp_path) as storm:
        yield storm


def test_t1_graceful_failovers(storm):
    """CLUSTER FAILOVER of one master after the other: no row is lost, no error comes through."""
    load = storm.load(resume=True)
    for replica in storm.names("replica"):
        load.reach(300)
        storm.fail_over(replica)
    assert load.running
    storm.check(load.finish())


def test_t1_takeovers(storm):
    """CLUSTER FAILOVER TAKEOVER asks no master: what only the old one had is written again."""
    load = storm.load(resume=True)
    for replica in storm.names("replica")[:2]:
        load.reach(300)
        storm.fail_over(replica, "TAKEOVER")
    assert load.running
    storm.check(load.finish())


def test_t2_each_master_killed_in_turn(storm):
    """kill -9: the replica is promoted, the rows go there, and the next master may die."""
    load = storm.load(rate=400, resume=True)
    for master in storm.names("master"):
        replica = storm.replica_of(master)
        load.reach(100)
        storm.lab.kill(master)
        wait(lambda replica=replica: storm.leads(replica), "the failover")
        storm.lab.start(master)
        wait(storm.lab.is_settled, "the cluster to settle")
    assert load.running
    storm.check(load.finish())


def test_a_replica_is_killed(storm):
    """Nothing is counted until the cluster has found the replica out; then the load goes on without it."""
    load = storm.load(resume=True)
    load.reach(300)
    storm.lab.kill(storm.names("replica")[0])
    storm.check(load.finish())
    assert any("no replica acknowledged" in reason for reason in load.reasons)


def test_a_master_is_restarted_at_once(storm):
    """No failover comes of it; what was under way is written again."""
    load = storm.load(resume=True)
    load.reach(300)
    master = storm.names("master")[0]
    storm.lab.kill(master)
    storm.lab.start(master)
    assert load.running
    storm.check(load.finish())
    assert load.reasons


def test_a_master_is_paused(storm):
    """SIGSTOP for longer than a failover takes: the rows go to the replica, and what it wakes up with lands nowhere."""
    load = storm.load(resume=True)
    master = storm.names("master")[0]
    node, replica = storm.node(master), storm.replica_of(master)
    load.reach(300)
    storm.lab.kill(master, signal.SIGSTOP)
    wait(lambda: f"{node} took" in load.ear.throttle.reason, "the reason")
    wait(lambda: storm.leads(replica), "the failover")
    load.reach(300)
    storm.lab.kill(master, signal.SIGCONT)
    storm.check(load.finish())
    assert any(f"redis {node}: no reply for" in reason for reason in load.reasons)


def test_the_whole_cluster_is_down(storm):
    """All six nodes die and come back: the load waits for them, says so, and goes on by itself."""
    load = storm.load(resume=True)
    load.reach(300)
    for name in storm.lab.redis_ports:
        storm.lab.kill(name)
    wait_for_reason(load, "Connection refused")
    assert load.running
    storm.lab.up()
    storm.check(load.finish())
    assert any("Connection refused" in reason for reason in load.reasons)


def test_t3_a_master_and_its_replica_are_killed(storm, monkeypatch):
    """Slots that nobody owns are waited for until the deadline: exit 4, and the next run loads what is owed."""
    storm.deadline = "3s"
    master = storm.names("master")[2]
    both = [master, storm.replica_of(master)]
    load = storm.load(resume=True)
    load.reach(300)
    for name in both:
        storm.lab.kill(name)
    first = load.finish()
    assert (first.status, first.exit_code) == ("failed", Exit.UNREACHABLE)
    assert "redis" in first.error
    storm.deadline = "120s"
    storm.settle()
    second = storm.load(rate=None, resume=True).finish()
    assert (second.status, second.resumed, second.rejected) == ("ok", True, 0)
    assert ROWS <= first.written + second.written <= ROWS + 2 * 100
    assert storm.is_exact()


def test_an_outage_counts_the_slots_that_are_served(storm):
    """Slots of a master that does not answer are not counted, and it is named; no fix gives them to others."""
    with RedisClient(storm.config().target) as target:
        assert describe_cluster(target)["slots"] == 16384
        master = storm.names("master")[0]
        node = str(storm.node(master))
        both = [storm.replica_of(master), master]
        for name in both:
            storm.lab.kill(name)
        document = describe_cluster(target)
        lost = next(each["slots"] for each in document["masters"] if each["node"] == node)
        assert (document["state"], document["slots"]) == ("fail", 16384 - lost)
        assert f"{node} does not answer" in document["why"]
        last = cluster_text(document, Screen(60)).splitlines()[-1]
        assert last.startswith(f"fail: {16384 - lost} of 16384 slots, ")
        probe = reach(storm.config(), Secret((), ("target",), storm.config().target))
        (cluster,) = [each for each in checked(probe) if each.check == "redis.cluster"]
        probe.target.close()
        assert (cluster.level, " --cluster check " in cluster.fix) == ("fail", True)
    storm.lab.up()
    storm.settle()


def test_t6_resharding(storm):
    """`reshard` and `rebalance` move slots with their keys under the load."""
    load = storm.load(rate=400)
    masters = storm.names("master")
    ids = {}
    for name in masters:
        with storm.client(name) as client:
            ids[name] = client.execute_command("CLUSTER", "MYID").decode()
    first, second = masters[:2]
    load.reach(300)
    words = ["--cluster-from", ids[first], "--cluster-to", ids[second], "--cluster-slots", 1000, "--cluster-yes"]
    storm.cluster("reshard", storm.node(first), *words)
    wait(storm.lab.is_settled, "the nodes to agree")
    storm.cluster("rebalance", storm.node(first), "--cluster-threshold", 1)
    assert load.running
    storm.check(load.finish())


def slots_of(storm, name, count):
    """The first slots that a master owns."""
    with RedisClient(storm.config().target) as target:
        mine = target.slots.nodes.index(storm.node(name))
        return [slot for slot, owner in enumerate(target.slots.owners) if owner == mine][:count]


def test_t4_slots_move_key_by_key_for_the_whole_load(storm):
    """MIGRATING all the time: rows that left, or are new, go where ASK says, the others stay; none is lost."""
    names = storm.names("master")[:2]
    with storm.client(names[0]) as source, storm.client(names[1]) as goal:
        migration = Migration(source, goal, slots_of(storm, names[0], 100))
        load = storm.load(rate=5000, resume=True)
        while load.running:
            migration.move(1)
        run = load.finish()
        there = {slot: goal.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in migration.slots}
        migration.finish()
    assert sum(there.values()) > 10
    storm.check(run)


@pytest.fixture
def newcomer(storm, tmp_path):
    """The port of a node without slots that has joined the cluster; it leaves again."""
    (tmp_path / "new").mkdir()
    with redis_server(tmp_path / "new", "--cluster-enabled", "yes", "--cluster-allow-replica-migration", "no") as port:
        other = storm.node(storm.names("master")[0])
        with redis.Redis(HOST, port) as client:
            rights = ["~*", *REDIS_RIGHTS.split()]
            client.execute_command("ACL", "SETUSER", "loader", "on", f">{storm.lab.redis_password}", *rights)
            storm.cluster("add-node", f"{HOST}:{port}", other)
            wait(lambda: storm.lab.is_settled() and client.cluster("info")["cluster_state"] == "ok", "the new node")
            ident = client.execute_command("CLUSTER", "MYID").decode()
            yield port
        storm.cluster("del-node", other, ident)


def test_t5_a_migration_is_left_open(storm, newcomer):
    """Slots half-way to a node that owns none, for ever: ASK leads there, and a second load changes nothing."""
    name = storm.names("master")[1]
    with storm.client(name) as source, redis.Redis(HOST, newcomer) as goal:
        migration = Migration(source, goal, slots_of(storm, name, 100))
        for _ in range(2):
            run = storm.load(rate=None, resume=True).finish()
            assert (run.status, run.error, run.written) == ("ok", None, ROWS)
            assert run.nodes[f"{HOST}:{newcomer}"] == goal.dbsize() > 10
        gone = goal.randomkey()
        storm.world.sql(f"DELETE FROM big WHERE id = {int(gone[4:])}")
        config = storm.config()
        job = config.jobs["job"]
        assert [each.key for each in verify.verify(config, job, show=9).shown] == [gone]
        with RedisClient(config.target) as target:
            entry = {"node": f"{HOST}:{newcomer}", "slots": 0, "keys": goal.dbsize(), "replicas": 0}
            assert entry in describe_cluster(target)["masters"]
        prune.prune(config, job, done := prune.Pruned("job"))
        assert (done.keys, done.deleted) == (ROWS, 1)
        migration.finish()
        Migration(goal, source, migration.slots).finish()  # so that the node can leave
    storm.check(run)


def test_a_node_is_added_and_removed(storm, newcomer):
    """Slots go to a node that the load did not know, and away again."""
    load = storm.load(rate=400)
    load.reach(200)
    other = storm.names("master")[0]
    with storm.client(other) as client, redis.Redis(HOST, newcomer) as new:
        ids = [each.execute_command("CLUSTER", "MYID").decode() for each in (client, new)]
    for one, two in (ids, ids[::-1]):
        words = ["--cluster-from", one, "--cluster-to", two, "--cluster-slots", 500, "--cluster-yes"]
        storm.cluster("reshard", storm.node(other), *words)
        load.reach(200)
    run = load.finish()
    assert run.nodes[f"{HOST}:{newcomer}"] > 0
    storm.check(run)


def names_of(client):
    """What a node calls all others and itself."""
    rows = client.execute_command("CLUSTER", "SLOTS")
    return {entry[0] for row in rows for entry in row[2:]}


def is_known(name):
    """Whether this machine has an address for it."""
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


@pytest.mark.parametrize(
    ("kind", "hostname"),
    [
        pytest.param(
            "hostname",
            "localhost",
            marks=pytest.mark.skipif(not is_known("localhost"), reason="this machine does not know localhost"),
        ),
        ("hostname", ""),
        ("unknown-endpoint", ""),
    ],
)
def test_t9_addresses_that_are_none(storm, kind, hostname):
    """Nodes are known by a name, by no name at all, or by wherever the answer came from; redirections too."""
    clients = [storm.client(name) for name in storm.lab.redis_ports]
    try:
        for client in clients:
            client.config_set("cluster-preferred-endpoint-type", kind)
            client.config_set("cluster-announce-hostname", hostname)
        named = {hostname.encode()} if hostname else {None, b"", b"?"}
        wait(lambda: all(names_of(client) <= named for client in clients), "each node to tell its name to all")
        load = storm.load(target={"url": f"redis://{HOST}:{storm.lab.redis_ports['n1']}"})
        load.reach(300)
        storm.fail_over(storm.names("replica")[0])
        run = load.finish()
    finally:
        for client in clients:
            client.config_set("cluster-preferred-endpoint-type", "ip")
            client.config_set("cluster-announce-hostname", "")
            client.close()
    assert {node.rpartition(":")[0] for node in run.nodes} == {hostname or HOST}
    storm.check(run)


def test_n8_an_announced_address_cannot_be_reached(storm, tmp_path, monkeypatch):
    """The error names the address, who announced it, and what to look at."""
    storm.deadline = "1s"
    options = ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.9.9.9"]
    with redis_server(tmp_path, *options) as port, redis.Redis(HOST, port) as node:
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait(lambda: node.cluster("INFO")["cluster_state"] == "ok", "the cluster")
        run = storm.load(rate=None, target={"url": f"redis://{HOST}:{port}"}).finish()
    assert run.exit_code == Exit.UNREACHABLE
    assert run.error.startswith(f"redis 127.9.9.9:{port} (announced by {HOST}:{port}): cannot connect: ")
    assert "see cluster-announce-ip" in run.error


def test_a_node_that_is_cut_off_is_not_believed(storm, tmp_path):
    """The first node that is asked knows of some slots only, and counts its cluster as failed: another one is asked."""
    with redis_server(tmp_path, "--cluster-enabled", "yes") as port, redis.Redis(HOST, port) as node:
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 100)
        target = {"url": f"redis://{HOST}:{port}," + storm.url.removeprefix("redis://")}
        storm.check(storm.load(rate=None, target=target).finish())
        assert node.dbsize() == 0


# The last one of its lab: a slot that was taken back like this does not outlive a failover.
def test_t7_nodes_disagree_about_a_slot(storm):
    """Two nodes point at each other: the chunk is tried again, not for ever in one go, until they agree."""
    slot = slot_of(b"big_%d" % ROWS)
    with RedisClient(storm.config().target) as target:
        owner = target.slots.node_of(slot)
        other = next(node for node in target.slots.nodes if node != owner)
    with redis.Redis(owner.host, owner.port) as client, redis.Redis(other.host, other.port) as wrong:
        mine, its = (each.execute_command("CLUSTER", "MYID").decode() for each in (client, wrong))
        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", its)
        try:
            load = storm.load(rate=None, resume=True)
            wait_for_reason(load, "still redirected")
        finally:
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", mine)
    storm.check(load.finish())
