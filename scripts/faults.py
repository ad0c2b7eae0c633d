"""What `chaos` does to a lab while the loader works: a table of faults, each with what it may end a run with.

A fault is done and undone before the next one. Its numbers, from 0 to 1, were drawn beforehand; what they come to
depends on the servers' state. It returns what it did, for the log.
"""

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pymysql
import redis
from redis.cluster import RedisCluster
from redis.crc import key_slot

from loader.lab import Lab
from loader.server import HOST, program
from stage import Broken, Fleet, connect, until

FAILED, CONFIG, REJECTS, UNREACHABLE = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Draw:
    """The numbers of one fault."""

    a: float
    b: float
    c: float

    def seconds(self, least: float, most: float) -> float:
        return least + self.c * (most - least)


class Scene(Protocol):
    """What a fault is done to."""

    lab: Lab
    fleet: Fleet

    def hit(self, which: float, number: signal.Signals) -> str:
        """Send a signal to a loader at work, and say to which."""


Act = Callable[[Scene, Draw], str]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, the exit codes that a run beside it may have, and those that a later backfill of `item` may have."""

    act: Act
    codes: tuple[int, ...] = ()
    lasting: tuple[int, ...] = ()


def _one(names: list[str], which: float) -> str:
    return names[int(which * len(names))]


# Redis nodes


def master_killed(scene: Scene, draw: Draw) -> str:
    masters = scene.fleet.masters()
    name = _one(masters, draw.a)
    scene.fleet.kill(name)
    at_once = draw.b < 0.25  # before anyone misses it: what it had not written to its file is lost
    if not at_once:
        until(lambda: len(scene.fleet.masters()) == len(masters), "a replica to take over")
        time.sleep(draw.seconds(0, 2))
    scene.fleet.start(name)
    return f"{name}, started again {'at once' if at_once else 'after a replica took over'}"


def replica_killed(scene: Scene, draw: Draw) -> str:
    name = _one(scene.fleet.replicas(), draw.a)
    scene.fleet.kill(name)
    time.sleep(draw.seconds(1, 4))
    scene.fleet.start(name)
    return name


def node_paused(scene: Scene, draw: Draw) -> str:
    name, seconds = _one(list(scene.lab.redis_ports), draw.a), draw.seconds(0.5, 8)
    _pause(scene, [name], seconds)
    return f"{name} for {seconds:.1f} s"


def cluster_paused(scene: Scene, draw: Draw) -> str:
    seconds = draw.seconds(2, 6)
    _pause(scene, list(scene.lab.redis_ports), seconds)
    return f"for {seconds:.1f} s"


def _pause(scene: Scene, names: list[str], seconds: float) -> None:
    try:
        for name in names:
            scene.lab.kill(name, signal.SIGSTOP)
        time.sleep(seconds)
    finally:
        for name in names:
            scene.lab.kill(name, signal.SIGCONT)
    time.sleep(0.5)  # they have to notice it themselves
    scene.fleet.settle()


def cluster_down(scene: Scene, draw: Draw) -> str:
    names, seconds = list(scene.lab.redis_ports), draw.seconds(1, 4)
    scene.fleet.kill(*names)
    time.sleep(seconds)
    scene.fleet.start(*names)
    return f"all nodes killed, for {seconds:.1f} s"


def failover(scene: Scene, draw: Draw) -> str:
    return _failover(scene, draw)


def takeover(scene: Scene, draw: Draw) -> str:
    return _failover(scene, draw, "TAKEOVER")


def _failover(scene: Scene, draw: Draw, *how: str) -> str:
    name = _one(scene.fleet.replicas(), draw.a)
    with scene.fleet.node(name) as node:
        node.execute_command("CLUSTER", "FAILOVER", *how)
    until(lambda: name in scene.fleet.masters(), f"{name} to take over")
    scene.fleet.settle()
    return name


# slots


def resharding(scene: Scene, draw: Draw) -> str:
    giver, taker = _two_masters(scene, draw)
    ids, slots = scene.fleet.ids(), 20 + int(draw.c * 180)
    address = f"{HOST}:{scene.lab.redis_ports[giver]}"
    choice = ["--cluster-from", ids[giver], "--cluster-to", ids[taker], "--cluster-slots", str(slots)]
    _redis_cli("--cluster", "reshard", address, *choice, "--cluster-yes")
    scene.fleet.settle()
    return f"{slots} slots from {giver} to {taker}"


def open_migration(scene: Scene, draw: Draw) -> str:
    """A slot that stays half handed over for a while: what is not there any more is asked of the other node."""
    giver, taker = _two_masters(scene, draw)
    ids, port = scene.fleet.ids(), scene.lab.redis_ports[taker]
    with scene.fleet.node(giver) as old, scene.fleet.node(taker) as new:
        slot = key_slot(str(old.randomkey()).encode())
        new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[giver])
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[taker])
        _hand_over(old, slot, port, most=1)
        time.sleep(draw.seconds(2, 6))
        while _hand_over(old, slot, port, most=100):
            pass
        for name in (taker, giver, *scene.fleet.masters()):
            with scene.fleet.node(name) as node:
                node.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[taker])
    scene.fleet.settle()
    return f"slot {slot} from {giver} to {taker}"


def _hand_over(old: "redis.Redis[Any]", slot: int, port: int, most: int) -> int:
    keys = old.execute_command("CLUSTER GETKEYSINSLOT", slot, most)
    if keys:
        old.execute_command("MIGRATE", HOST, port, "", 0, 5000, "REPLACE", "KEYS", *keys)
    return len(keys)


def _two_masters(scene: Scene, draw: Draw) -> tuple[str, str]:
    """One that has more slots than the other: one that gave its last slot would become a replica."""
    masters = scene.fleet.masters()
    first = _one(masters, draw.a)
    second = _one([name for name in masters if name != first], draw.b)
    counts = {}
    for name in (first, second):
        with scene.fleet.node(name) as node:
            counts[name] = sum(
                int(span[-1]) - int(span[0]) + 1
                for member in node.execute_command("CLUSTER NODES").values()
                if "myself" in member["flags"]
                for span in member["slots"]
            )
    giver = max(counts, key=lambda name: counts[name])
    return giver, second if giver == first else first


def _redis_cli(*words: str) -> None:
    done = subprocess.run(
        [program("redis-cli", "valkey-cli"), *words], capture_output=True, check=False, encoding="utf-8", timeout=120
    )
    if done.returncode:
        raise Broken(f"redis-cli {' '.join(words)} ended with {done.returncode}: {done.stdout[-500:]}{done.stderr}")


# what a node refuses


def connections_cut(scene: Scene, draw: Draw) -> str:
    times = 3 + int(draw.a * 8)
    killed = 0
    for _ in range(times):
        for name in scene.lab.redis_ports:
            with scene.fleet.node(name) as node:
                killed += node.execute_command("CLIENT", "KILL", "USER", "loader")
        time.sleep(0.3)
    return f"{killed} to Redis, in {times} strokes"


def out_of_memory(scene: Scene, draw: Draw) -> str:
    masters = scene.fleet.masters()
    names = masters if draw.a < 0.3 else [_one(masters, draw.b)]
    seconds = draw.seconds(2, 6)
    for name in names:
        with scene.fleet.node(name) as node:
            node.config_set("maxmemory", "1mb")
    time.sleep(seconds)
    for name in scene.lab.redis_ports:
        with scene.fleet.node(name) as node:
            node.config_set("maxmemory", 0)
    return f"{', '.join(names)} for {seconds:.1f} s"


def snapshot_fails(scene: Scene, draw: Draw) -> str:
    """A node that cannot save its data to disk takes no writes (MISCONF)."""
    name, seconds = _one(scene.fleet.masters(), draw.a), draw.seconds(2, 5)
    in_the_way = scene.lab.directory / name / "dump.rdb"
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()
    with scene.fleet.node(name) as node:
        node.config_set("save", "3600 1")
        _save(node, "err")
        time.sleep(seconds)
        in_the_way.rmdir()
        _save(node, "ok")
        node.config_set("save", "")
    return f"{name} for {seconds:.1f} s"


def _save(node: "redis.Redis[Any]", end: str) -> None:
    until(lambda: not node.info("persistence")["aof_rewrite_in_progress"], "a rewrite to end")
    node.bgsave()
    until(lambda: node.info("persistence")["rdb_last_bgsave_status"] == end, f"a snapshot to end with {end}")


def foreign_key(scene: Scene, draw: Draw) -> str:
    """A key of a row is of another type: the row is rejected, and the key left alone."""
    with connect(scene.lab) as mysql, mysql.cursor() as cursor:
        cursor.execute("SELECT id FROM item ORDER BY id LIMIT 1 OFFSET %s", [int(draw.a * 5000)])
        key = b"item_" + cursor.fetchall()[0][0]
    port = scene.lab.redis_ports[scene.fleet.masters()[0]]
    with RedisCluster(host=HOST, port=port) as cluster:
        cluster.set(key, "foreign")
        time.sleep(draw.seconds(3, 6))
        kept = cluster.type(key) == b"string"
        cluster.delete(key)
    if not kept:
        raise Broken(f"{key!r} was a string of someone else, and is gone")
    return key.decode()


# MySQL


def mysql_connections_killed(scene: Scene, draw: Draw) -> str:
    times = 2 + int(draw.a * 5)
    killed = 0
    with connect(scene.lab) as mysql, mysql.cursor() as cursor:
        for _ in range(times):
            cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'loader'")
            for (ident,) in cursor.fetchall():
                try:
                    cursor.execute(f"KILL {int(ident)}")
                    killed += 1
                except pymysql.MySQLError:  # it has left by itself
                    pass
            time.sleep(0.3)
    return f"{killed}, in {times} strokes"


def mysql_killed(scene: Scene, draw: Draw) -> str:
    seconds = draw.seconds(0, 3)
    scene.lab.kill("mysql")
    until(lambda: not scene.lab.status()[0].running, "mysql to be gone")
    time.sleep(seconds)
    scene.lab.start("mysql")
    return f"started again after {seconds:.1f} s"


def mysql_paused(scene: Scene, draw: Draw) -> str:
    seconds = draw.seconds(1, 8)
    scene.lab.kill("mysql", signal.SIGSTOP)
    time.sleep(seconds)
    scene.lab.kill("mysql", signal.SIGCONT)
    return f"for {seconds:.1f} s"


def column_added(scene: Scene, draw: Draw) -> str:
    """Sometimes one that all rows have a value in at once."""
    name, default = f"more{time.monotonic_ns()}", " DEFAULT '新'" if draw.a < 0.5 else ""
    with connect(scene.lab) as mysql, mysql.cursor() as cursor:
        cursor.execute(f"ALTER TABLE item ADD COLUMN {name} varchar(20){default}")
    return name + default


def table_renamed(scene: Scene, draw: Draw) -> str:
    seconds = draw.seconds(0.2, 2)
    with connect(scene.lab) as mysql, mysql.cursor() as cursor:
        cursor.execute("RENAME TABLE item TO item_gone")
        time.sleep(seconds)
        cursor.execute("RENAME TABLE item_gone TO item")
    return f"away and back after {seconds:.1f} s"


# the loader


def loader_killed(scene: Scene, draw: Draw) -> str:
    time.sleep(draw.seconds(0, 1))
    return scene.hit(draw.a, signal.SIGKILL)


def loader_stopped(scene: Scene, draw: Draw) -> str:
    time.sleep(draw.seconds(0, 1))
    return scene.hit(draw.a, signal.SIGTERM)


GONE = (UNREACHABLE,)  # a run that begins while a server is away gives up after some seconds, with a person waiting
FULL = (FAILED,)  # and so does one that a server has no room for
CHANGED = (FAILED, CONFIG)  # the table is not what the run was planned for
FAULTS = {
    "master killed": Fault(master_killed, GONE),
    "replica killed": Fault(replica_killed),
    "node paused": Fault(node_paused, GONE),
    "cluster paused": Fault(cluster_paused, GONE),
    "cluster down": Fault(cluster_down, GONE),
    "failover": Fault(failover),
    "takeover": Fault(takeover),
    "resharding": Fault(resharding),
    "open migration": Fault(open_migration),
    "connections cut": Fault(connections_cut, GONE),
    "out of memory": Fault(out_of_memory, FULL),
    "snapshot fails": Fault(snapshot_fails, FULL),
    "foreign key": Fault(foreign_key, (REJECTS,), lasting=(REJECTS,)),
    "MySQL connections": Fault(mysql_connections_killed, GONE),
    "MySQL killed": Fault(mysql_killed, GONE),
    "MySQL paused": Fault(mysql_paused, GONE),
    "column added": Fault(column_added, CHANGED, lasting=(CONFIG,)),
    "table renamed": Fault(table_renamed, CHANGED),
    "loader killed": Fault(loader_killed),
    "loader stopped": Fault(loader_stopped),
}
