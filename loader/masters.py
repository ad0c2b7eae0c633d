"""The masters of a target, asked one by one: what they own, hold, throw away and have room for."""

import re
from typing import Any

from loader.errors import TargetError
from loader.model import Node
from loader.slots import SLOTS
from loader.target import Target, info_of


def headroom(target: Target) -> dict[Node, int]:
    """Bytes that each master may still take; masters without a limit, or that evict, are left out."""
    rooms = {}
    for node in target.slots.nodes:
        info = info_of(target.command(node, "INFO", "memory"))
        most = int(info.get("maxmemory", 0))
        if most and info.get("maxmemory_policy", "noeviction") == "noeviction":
            rooms[node] = max(0, most - int(info["used_memory"]))
    return rooms


def evicting(target: Target) -> dict[Node, str]:
    """Masters that throw keys away once they are full, each with its policy."""
    policies = {}
    for node in target.slots.nodes:
        info = info_of(target.command(node, "INFO", "memory"))
        policy = info.get("maxmemory_policy", "noeviction")
        if int(info.get("maxmemory", 0)) and policy != "noeviction":
            policies[node] = policy
    return policies


def evictions(target: Target) -> dict[Node, int]:
    """Keys that each master has thrown away since it was started."""
    return {
        node: int(info_of(target.command(node, "INFO", "stats")).get("evicted_keys", 0)) for node in target.slots.nodes
    }


def lives(target: Target) -> dict[Node, tuple[str, int, bool]]:
    """Of each master: the id it got when it was started, keys thrown away since, and whether it ever would."""
    found = {}
    for node in target.slots.nodes:
        info = info_of(target.command(node, "INFO"))
        evicts = bool(int(info.get("maxmemory", 0))) and info.get("maxmemory_policy", "noeviction") != "noeviction"
        found[node] = info.get("run_id", ""), int(info.get("evicted_keys", 0)), evicts
    return found


def expiring(target: Target) -> int:
    """Keys that have a time to live, on all masters, whoever's they are."""
    infos = [target.command(node, "INFO", "keyspace").decode() for node in target.slots.nodes]
    return sum(int(count) for info in infos for count in re.findall(r"expires=([0-9]+)", info))


def describe_cluster(target: Target) -> dict[str, Any]:
    """The JSON document `loader.cluster/v1`: each master with its slots, keys (null: no answer) and replicas."""
    ranges = target.ranges() if target.cluster else [(0, SLOTS - 1, [target.seeds[0]])]
    masters: dict[Node, dict[str, Any]] = {}
    for first, last, (master, *replicas) in ranges:
        entry = masters.setdefault(master, {"node": str(master), "slots": 0, "keys": None, "replicas": len(replicas)})
        entry["slots"] += last + 1 - first
    state = "ok" if masters else "fail"
    for node, entry in masters.items():
        try:
            entry["keys"] = target.command(node, "DBSIZE")
            # CLUSTER SLOTS leaves out a replica that has received nothing yet.
            entry["replicas"] = int(info_of(target.command(node, "INFO", "replication"))["connected_slaves"])
            if target.cluster and b"cluster_state:ok" not in target.command(node, "CLUSTER", "INFO"):
                state = "fail"
        except TargetError as error:
            if not error.transient:
                raise
            state = "fail"
    return {
        "schema": "loader.cluster/v1",
        "state": state,
        "slots": sum(entry["slots"] for entry in masters.values()),
        "masters": sorted(masters.values(), key=lambda entry: str(entry["node"])),
    }
