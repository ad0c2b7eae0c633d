"""Batches on their way to real nodes: acknowledged, redirected, rejected, or failed whole."""

import signal
import socket
import struct
import time
from array import array
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from loader.config.servers import TargetConfig
from loader.errors import Exit, TargetError
from loader.lab.lab import Lab
from loader.lab.process import HOST, wait
from loader.model import Batch, Node
from loader.redis.client import RedisClient
from loader.redis.servers import lives
from loader.redis.writer import PipelineWriter
from loader.state.lock import RENEW, TTL
from loader.wire.resp import NEVER, SET, pack
from loader.wire.slots import SLOTS, SlotMap, slot_of


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    """Three masters without replicas, to break."""
    lab = Lab(tmp_path_factory.mktemp("trio"))
    lab.up(nodes=3, replicas=0)
    yield lab
    lab.down()


@pytest.fixture
def nodes(trio):
    """A plain client for each master, by its node; what the test wrote is taken away."""
    clients = {Node(HOST, port): redis.Redis(host=HOST, port=port) for port in trio.redis_ports.values()}
    yield clients
    for client in clients.values():
        client.flushall()
        client.close()


@pytest.fixture
def settings(trio):
    """How the target is reached, with a patience of two seconds."""
    url = f"redis://loader@{HOST}:{trio.redis_ports['n1']}"
    return TargetConfig(url=url, password=trio.redis_password, timeout="2s")


@pytest.fixture
def target(settings):
    """The target under test."""
    with RedisClient(settings) as target:
        yield target


def batch(*commands, rows=None):
    return Batch(b"".join(map(pack, commands)), rows or len(commands), len(commands))


def keys_in(slots, node, count):
    """Some keys of one node."""
    found = []
    number = 0
    while len(found) < count:
        key = b"key:%d" % number
        if slots.node_of(slot_of(key)) == node:
            found.append(key)
        number += 1
    return found


def row(key):
    return [b"HMSET", key, b"f", b"value of " + key]


def test_rows_are_counted_by_the_node_that_acknowledged_them(target, nodes):
    """All nodes at once, several batches each; every row is there and counted."""
    writer = PipelineWriter(target)
    for index, node in enumerate(writer.begin().nodes):
        for group in range(4):
            keys = keys_in(target.slots, node, 400)[group * 100 : group * 100 + 100]
            writer.send(index, batch(*map(row, keys)))
    acks = writer.drain()
    assert acks.rows == {str(node): 400 for node in nodes}
    assert acks.rejects == ()
    assert {str(node): client.dbsize() for node, client in nodes.items()} == acks.rows
    assert writer.drain().rows == {}
    writer.close()


def test_a_foreign_key_is_a_reject_and_stays(target, nodes):
    """WRONGTYPE: the row is named, its neighbours are written, the key is what it was, its TTL too."""
    node = target.slots.nodes[0]
    first, foreign, last = keys_in(target.slots, node, 3)
    nodes[node].rpush(foreign, "mine")
    writer = PipelineWriter(target)
    hdel = [b"HDEL", foreign, b"g"]
    then = batch(*([b"EXPIRE", key, b"100"] for key in (first, foreign, last)))
    sent = batch(row(first), row(foreign), hdel, row(last), rows=3)
    writer.send(0, Batch(sent.data, sent.rows, sent.replies, Batch(then.data, 0, then.replies)))
    acks = writer.drain()
    assert acks.rows == {str(node): 2}
    assert [(reject.key, reject.reason.split()[0]) for reject in acks.rejects] == [(foreign, "WRONGTYPE")]
    assert (nodes[node].lrange(foreign, 0, -1), nodes[node].ttl(foreign)) == ([b"mine"], -1)
    assert 98 <= nodes[node].ttl(last) <= 100
    assert nodes[node].hgetall(last) == {b"f": b"value of " + last}
    writer.close()


@pytest.mark.parametrize("command", [b"EXPIRE", b"TTL"])
@pytest.mark.parametrize("moved", [False, True])
def test_hashes_that_do_not_live_as_long_as_they_are_to(target, nodes, command, moved):
    """EXPIRE finds no key, TTL finds one that expires: their keys are told, in whatever order replies come."""
    node, other = target.slots.nodes[:2]
    keys = keys_in(target.slots, node, 300)
    odd = keys[50:100]
    for key in keys:
        nodes[node].hset(key, "f", "v")
    for key in odd:
        nodes[node].delete(key) if command == b"EXPIRE" else nodes[node].expire(key, 1000)
    writer = PipelineWriter(target)
    index = writer.begin().nodes.index(other if moved else node)
    for start in range(0, 300, 75):
        words = [[command, key, *([b"1000"] if command == b"EXPIRE" else [])] for key in keys[start : start + 75]]
        sent = batch(*words)
        writer.send(index, Batch(sent.data, 0, sent.replies, expects=SET if command == b"EXPIRE" else NEVER))
    assert sorted(writer.drain().expiring) == sorted(odd)
    assert writer.drain().expiring == ()
    writer.close()


def test_a_command_sent_to_the_wrong_node_follows_moved(target, nodes):
    """With a map that is wrong everywhere, every row still arrives, and counts for the node that took it."""
    right = target.slots
    wrong = SlotMap((slot, slot, right.nodes[(right.owners[slot] + 1) % 3]) for slot in range(SLOTS))
    wrong.owners = array("H", [wrong.nodes.index(right.nodes[(owner + 1) % 3]) for owner in right.owners])
    writer = PipelineWriter(target)
    writer.slots = wrong
    keys = [b"moved:%d" % number for number in range(300)]
    for index, node in enumerate(wrong.nodes):
        mine = [key for key in keys if wrong.node_of(slot_of(key)) == node]
        writer.send(index, batch(*map(row, mine)))
    acks = writer.drain()
    assert acks.rows == {
        str(node): sum(right.node_of(slot_of(key)) == node for key in keys) for node in sorted(right.nodes)
    }
    assert {key for client in nodes.values() for key in client.scan_iter()} == set(keys)
    writer.close()


def test_a_migrating_slot_is_followed_by_ask_to_a_node_without_slots(trio, target, nodes):
    """Keys that left a migrating slot are written where ASK says, ASKING first, also on a node without slots."""
    key, stays = b"{tag}gone", b"{tag}here"
    slot = slot_of(key)
    source = target.slots.node_of(slot)
    nodes[source].hset(stays, "f", "old")
    name = trio.add_replica()
    port = trio.redis_ports[name]
    empty = redis.Redis(host=HOST, port=port)
    empty.execute_command("CLUSTER", "RESET")
    empty.execute_command("CLUSTER", "MEET", HOST, source.port)
    ids = {client: client.execute_command("CLUSTER", "MYID").decode() for client in (empty, nodes[source])}
    wait(lambda: all(one in str(client.cluster("nodes")) for one in ids.values() for client in ids), "handshake")
    wait(lambda: empty.cluster("info")["cluster_state"] == "ok", "cluster")
    empty.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[nodes[source]])
    nodes[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[empty])
    try:
        writer = PipelineWriter(target)
        index = writer.begin().nodes.index(source)
        writer.send(index, batch(row(stays), row(key)))
        acks = writer.drain()
        assert acks.rows == {str(source): 1, f"{HOST}:{port}": 1}
        assert nodes[source].hgetall(stays) == {b"f": b"value of " + stays}
        with empty.pipeline(transaction=False) as pipe:
            reply = pipe.execute_command("ASKING").hgetall(key).execute()[1]
        assert reply == {b"f": b"value of " + key}
        writer.close()
    finally:
        empty.flushall()
        for client in (nodes[source], empty):
            client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
        empty.close()


def test_a_silent_node_fails_the_chunk_and_is_fenced(trio, target, nodes):
    """No reply within the timeout: the chunk's rows count as unknown, and what is under way cannot land after a retry.

    The stopped server holds the old value in its socket; the new writer's connection kills the old one first.
    """
    name = "n2"
    node = Node(HOST, trio.redis_ports[name])
    key = keys_in(target.slots, node, 1)[0]
    told = []
    writer = PipelineWriter(target, lambda *words: told.append(words))
    index = writer.begin().nodes.index(node)
    writer.send(index, batch(row(key)))
    writer.drain()
    trio.kill(name, signal.SIGSTOP)
    writer.send(index, batch([b"HMSET", key, b"f", b"old"]))
    with pytest.raises(TargetError, match="no reply for 2 s") as caught:
        writer.drain()
    assert caught.value.transient
    assert told[0][0] == str(node)
    assert told[0][1] > 1
    writer.close()
    trio.kill(name, signal.SIGCONT)
    writer = PipelineWriter(target)
    writer.begin()
    writer.send(index, batch([b"HMSET", key, b"f", b"new"]))
    assert writer.drain().rows == {str(node): 1}
    time.sleep(0.2)
    assert nodes[node].hget(key, "f") == b"new"
    writer.close()


def clients(node):
    with redis.Redis(node.host, node.port) as client:
        return {each["name"] for each in client.client_list()}


def test_only_our_own_connections_are_fenced(trio, target, nodes):
    """By its name, which no other connection has, of this target or another one."""
    node = target.slots.nodes[0]
    with redis.Redis(node.host, node.port, single_connection_client=True, client_name=f"{target.name}-99") as foreign:
        foreign.ping()
        links = [target.open(node) for _ in range(2)]
        name, other = (name for _, _, name in links)
        target.command(node, "PING")  # whose connection is not used any more, as it would not fence
        target.fences.add(node, name)
        assert not target.fences.is_settled(target.slots.nodes)
        assert target.command(node, "PING") == b"PONG"
        assert target.fences.is_settled(target.slots.nodes)
        assert clients(node) & {name, other, f"{target.name}-99"} == {other, f"{target.name}-99"}


def test_a_command_that_timed_out_does_not_undo_a_newer_one(trio, target, nodes):
    """A single command stays in the socket of a node that stands still; it is fenced before the next is sent."""
    node = Node(HOST, trio.redis_ports["n2"])
    (key,) = keys_in(target.slots, node, 1)
    target.ask(key, "SET", key, "before")
    late = target._singles.opened[node].client_name
    trio.kill("n2", signal.SIGSTOP)
    try:
        with pytest.raises(TargetError) as caught:
            target.ask(key, "SET", key, "old")
        assert caught.value.transient
        assert target.fences.failed(node) == [late]
    finally:
        trio.kill("n2", signal.SIGCONT)
    target.ask(key, "SET", key, "new")
    assert late not in clients(node)
    assert nodes[node].get(key) == b"new"


def test_commands_to_several_nodes_that_one_does_not_answer(trio, target, nodes):
    """All have theirs before the first answers; connections that may still have commands in flight are fenced."""
    places = sorted(target.slots.nodes)
    keys = {node: keys_in(target.slots, node, 1)[0] for node in places}
    before = [(key, ("SET", key, "before")) for key in keys.values()]
    assert target.ask_each(before) == [b"OK"] * len(places)
    names = {node: target._singles.opened[node].client_name for node in places}
    silent = places[1]
    (number,) = [each for each, port in trio.redis_ports.items() if port == silent.port]
    trio.kill(number, signal.SIGSTOP)
    try:
        with pytest.raises(TargetError) as caught:
            target.ask_each([(key, ("SET", key, "old")) for key in keys.values()])
        assert (caught.value.transient, caught.value.node) == (True, str(silent))
        assert nodes[places[2]].get(keys[places[2]]) == b"old"
        failed = {node: target.fences.failed(node) for node in places}
        assert failed == {places[0]: [], silent: [names[silent]], places[2]: [names[places[2]]]}
    finally:
        trio.kill(number, signal.SIGCONT)
    assert target.ask_each([(key, ("SET", key, "new")) for key in keys.values()]) == [b"OK"] * len(places)
    assert [nodes[node].get(key) for node, key in keys.items()] == [b"new"] * len(places)
    assert not {names[silent], names[places[2]]} & {name for node in places for name in clients(node)}


def test_commands_about_several_keys_follow_redirections(target, nodes):
    """A key whose slot another node owns is asked about there; an error that stays is raised."""
    slots = target.slots
    keys = [keys_in(slots, node, 1)[0] for node in sorted(slots.nodes)]
    for number, key in enumerate(keys):
        target.ask(key, "SET", key, str(number))
    turned = {node: slots.nodes[(at + 1) % 3] for at, node in enumerate(slots.nodes)}
    target.topology.slots = SlotMap((slot, slot, turned[slots.node_of(slot)]) for slot in range(SLOTS))
    assert target.ask_each([(key, ("GET", key)) for key in keys]) == [b"0", b"1", b"2"]
    with pytest.raises(TargetError, match="WRONGTYPE"):
        target.ask_each([(key, ("HSET", key, "a", "b")) for key in keys])


def test_who_is_shut_out_has_no_connection_left(settings, target, nodes):
    """Before anything is sent to a node, it has closed all connections of the other, those that come later as well."""
    with RedisClient(settings) as dead:
        for node in dead.slots.nodes:
            dead.command(node, "PING")
        links = [dead.open(node) for node in dead.slots.nodes]
        target.command(target.slots.nodes[0], "PING")  # a connection that has not fenced
        target.fences.shut_out([dead.name])
        assert not target.fences.has_shut_out([dead.name], target.slots.nodes)
        for node in target.slots.nodes:
            assert dead.name in str(clients(node))
            target.command(node, "PING")
            assert dead.name not in str(clients(node))
        assert target.fences.has_shut_out([dead.name], target.slots.nodes)
        assert not target.fences.unkillable
        for connection, *_ in links:
            connection.disconnect()


def test_a_connection_leaves_no_bytes_behind(target):
    """Closing aborts, and the kernel gives up before a lock lapses: for rows and for single commands."""
    node = target.slots.nodes[0]
    connection, each, _ = target.open(node)
    target.command(node, "PING")
    for made in (each, target._singles.opened[node]._sock):
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)
        assert 0 < made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) < 1000 * (TTL - RENEW)
    connection.disconnect()


def test_a_silent_node_holds_up_nothing_else(trio, target, nodes):
    """While one thread waits for it, the others reach the other nodes, and look at the topology within two seconds."""
    silent = Node(HOST, trio.redis_ports["n2"])
    others = [node for node in target.slots.nodes if node != silent]
    target.patience = 6.0
    trio.kill("n2", signal.SIGSTOP)
    try:
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(target.commands, silent, [["PING"]])
            time.sleep(0.1)
            assert [target.command(node, "PING") for node in others] == [b"PONG"] * 2
            for _ in range(4):  # one of them finds out
                target.topology.ranges()
            assert not waiting.done()
            trio.kill("n2", signal.SIGCONT)
            assert waiting.result() == [b"PONG"]
    finally:
        trio.kill("n2", signal.SIGCONT)


def test_what_was_written_to_a_master_that_is_none_any_more(target, nodes):
    """It may be lost with it: the chunk is written again, whatever its replicas say."""
    writer = PipelineWriter(target)
    node = writer.begin().nodes[0]
    writer.send(0, batch(*map(row, keys_in(target.slots, node, 10))))
    writer.drain()
    writer.await_replicas()
    writer.send(0, batch(*map(row, keys_in(target.slots, node, 10))))
    writer.drain()
    target.topology.slots = SlotMap.single(target.slots.nodes[1])
    with pytest.raises(TargetError, match="no longer a master") as caught:
        writer.await_replicas()
    assert caught.value.transient
    writer.close()


def test_keys_that_were_thrown_away(target, nodes):
    """Per master: what its policy is where it may throw keys away, and how many it has."""
    node = target.slots.nodes[1]
    assert {life.policy for life in lives(target).values()} == {""}
    nodes[node].config_set("maxmemory-policy", "allkeys-random")
    before = lives(target)
    assert before[node].policy == ""
    nodes[node].config_set("maxmemory", nodes[node].info("memory")["used_memory"] + 100_000)
    try:
        for key in keys_in(target.slots, node, 300):
            nodes[node].set(key, b"x" * 1000)
        after = lives(target)
        assert {each: life.policy for each, life in after.items() if life.policy} == {node: "allkeys-random"}
        since = {each: life.evicted_since(before[each]) for each, life in after.items()}
        assert since.pop(node) > 0
        assert set(since.values()) == {0}
        assert after[node].evicted_since(None) == after[node].evicted
    finally:
        nodes[node].config_set("maxmemory", 0)
        nodes[node].config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize("since", [0, 200])
def test_counters_that_were_reset(target, nodes, since):
    """They say nothing of what was before, however many connections have come since; that is told by clients' ids."""
    node = target.slots.nodes[1]
    for _ in range(100):
        target.look(node, [("PING",)])
    before = lives(target)[node]
    assert not lives(target)[node].has_lost_count(before)
    nodes[node].config_resetstat()
    for _ in range(since):
        target.look(node, [("PING",)])
    after = lives(target)[node]
    assert after.has_lost_count(before)
    assert not lives(target)[node].has_lost_count(after)


def test_a_closed_connection_fails_the_chunk(target, nodes):
    """CLIENT KILL in the middle: the error is one that passes."""
    writer = PipelineWriter(target)
    node = writer.begin().nodes[0]
    key = keys_in(target.slots, node, 1)[0]
    writer.send(0, batch(row(key)))
    writer.drain()
    nodes[node].execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(TargetError) as caught:  # noqa: PT012  # which of the two notices is a matter of timing
        writer.send(0, batch(row(key)))
        writer.drain()
    assert caught.value.transient
    writer.close()


@pytest.mark.parametrize(
    ("reply", "transient", "code"),
    [
        ("CLUSTERDOWN Hash slot not served", True, Exit.UNREACHABLE),
        ("MASTERDOWN Link with MASTER is down", True, Exit.UNREACHABLE),
        ("TRYAGAIN Multiple keys request during rehashing of slot", True, Exit.UNREACHABLE),
        ("UNBLOCKED force unblock from blocking operation, instance state changed", True, Exit.UNREACHABLE),
        ("ERR WAIT cannot be used with replica instances.", True, Exit.UNREACHABLE),
        ("LOADING Redis is loading the dataset in memory", True, Exit.UNREACHABLE),
        ("READONLY You can't write against a read only replica.", True, Exit.UNREACHABLE),
        ("OOM command not allowed when used memory > 'maxmemory'.", True, Exit.FAILED),
        ("MISCONF Redis is configured to save RDB snapshots", True, Exit.FAILED),
        ("NOREPLICAS Not enough good replicas to write.", True, Exit.FAILED),
        ("BUSY Redis is busy running a script.", True, Exit.FAILED),
        ("ERR max number of clients reached", True, Exit.FAILED),
        ("ERR max number of clients + cluster connections reached", True, Exit.FAILED),
        ("NOPERM this user has no permissions to run the 'hmset' command", False, Exit.CONFIG),
        ("NOAUTH Authentication required.", False, Exit.CONFIG),
        ("ERR Protocol error: invalid bulk length", True, Exit.FAILED),
        ("ERR unknown command 'HMSET', with args beginning with: 'a' 'secret'", False, Exit.CONFIG),
        ("ERR unknown command `HMSET`, with args beginning with: `a`, `secret`", False, Exit.CONFIG),
        ("ERR unknown subcommand 'KILL'. Try CLIENT HELP.", False, Exit.CONFIG),
    ],
)
def test_what_a_reply_means(target, reply, transient, code):
    """The table of error replies: worth another try, or for a person to mend; never quoting a row."""
    error = target.error(reply, target.topology.seeds[0])
    assert (error.transient, error.exit_code) == (transient, code)
    assert "secret" not in str(error)
