"""Faults of `chaos`: nodes that go, come back, and hand over what they have, and slots that move."""

import signal
import subprocess
import time
from typing import Any

import redis
from redis.crc import key_slot

from loader.lab.process import HOST, program
from scene import Draw, Scene, one
from stage import Broken, until


def replica_killed(scene: Scene, draw: Draw) -> str:
    name = one(scene.fleet.replicas(), draw.a)
    scene.fleet.kill(name)
    time.sleep(draw.seconds(1, 4))
    scene.fleet.start(name)
    return name


def node_paused(scene: Scene, draw: Draw) -> str:
    name, seconds = one(list(scene.lab.redis_ports), draw.a), draw.seconds(0.5, 8)
    pause(scene, [name], seconds)
    return f"{name} for {seconds:.1f} s"


def cluster_paused(scene: Scene, draw: Draw) -> str:
    seconds = draw.seconds(2, 6)
    pause(scene, list(scene.lab.redis_ports), seconds)
    return f"for {seconds:.1f} s"


def pause(scene: Scene, names: list[str], seconds: float) -> None:
    try:
        for name in names:
            scene.lab.kill(name, signal.SIGSTOP)
        time.sleep(seconds)
    finally:
        for name in names:
            scene.lab.kill(name, signal.SIGCONT)
    time.sleep(0.5)  # they have to notice it themselves
    scene.fleet.settle()


def failover(scene: Scene, draw: Draw) -> str:
    return _failover(scene, draw)


def takeover(scene: Scene, draw: Draw) -> str:
    return _failover(scene, draw, "TAKEOVER")


def _failover(scene: Scene, draw: Draw, *how: str) -> str:
    name = one(scene.fleet.replicas(), draw.a)
    with scene.fleet.node(name) as node:
        node.execute_command("CLUSTER", "FAILOVER", *how)
    until(lambda: name in scene.fleet.masters(), f"{name} to take over")
    scene.fleet.settle()
    return name


def resharding(scene: Scene, draw: Draw) -> str:
    giver, taker = _two_masters(scene, draw)
    ids, slots = scene.fleet.ids(), 20 + int(draw.c * 180)
    address = f"{HOST}:{scene.lab.redis_ports[giver]}"
    choice = ["--cluster-from", ids[giver], "--cluster-to", ids[taker], "--cluster-slots", str(slots)]
    _redis_cli("--cluster", "reshard", address, *choice, "--cluster-yes")
    scene.fleet.settle()
    return f"{slots} slots from {giver} to {taker}"


def open_migration(scene: Scene, draw: Draw) -> str:
    """A slot that stays half handed over for a while: what no longer exists is asked of the other node."""
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
    first = one(masters, draw.a)
    second = one([name for name in masters if name != first], draw.b)
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
