"""The masters of a target, asked one by one: their slots, keys, evictions and free memory."""

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from typing import Any

from loader.errors import Kind, TargetError
from loader.model import Node
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.errors import UNKNOWN, error_text
from loader.redis.migrations import moves
from loader.redis.prefetch import Prefetched
from loader.redis.replies import field_of, info_of
from loader.wire.slots import SLOTS

INFO = ("INFO",)  # what a master says of itself, see `Life`


class ClusterState(StrEnum):
    """How the masters of a target are doing together, a standalone server too."""

    OK = "ok"
    MOVING = "moving"  # slots are being moved
    FAIL = "fail"  # slots have no master, or a master does not answer or does not count the cluster as ok
    UNKNOWN = "unknown"  # it was not asked lately


def headroom(target: RedisClient) -> dict[Node, int]:
    """Bytes that each master can still take; masters without a limit, or that evict, are left out."""
    rooms = {}
    for node in target.slots.nodes:
        info = info_of(target.command(node, "INFO", "memory"))
        most = int(info.get("maxmemory", 0))
        if most and info.get("maxmemory_policy", "noeviction") == "noeviction":
            rooms[node] = max(0, most - int(info.get("used_memory", 0)))
    return rooms


@dataclass(frozen=True, slots=True)
class Life:
    """A master between its start and its end, at one moment: its evictions so far, and its policy.

    `id` is that of its process and its replication: a node that was a replica meanwhile has begun another life.
    `policy` is empty if it evicts nothing. `connections` counts incoming connections, and restarts with the other
    counters (CONFIG RESETSTAT); `client` is the id of the newest connection, which never restarts.
    """

    id: str
    evicted: int
    policy: str
    connections: int
    client: int

    @property
    def process(self) -> str:
        """The id of its process only, which counts evictions from its start on."""
        return self.id.partition(" ")[0]

    def evicted_since(self, before: "Life | None") -> int:
        """Keys evicted since then, at least; all evictions if the counter does not go back to then."""
        if before is None or before.process != self.process or self.connections < before.connections:
            return self.evicted
        return self.evicted - before.evicted

    def has_lost_count(self, before: "Life") -> bool:
        """Whether the counters have been reset since then: fewer connections are counted than came since."""
        return self.connections < before.connections or self.connections <= self.client - before.client


def lives(
    target: RedisClient, *, newest: bool = True, clients: bool = True, seen: Prefetched | None = None
) -> dict[Node, Life]:
    """The lives of all masters; faster without the `newest` ids, which need new connections, or without `clients`.

    The masters may have been `seen` already, with `INFO`. Raises a transient `TargetError` if one has become a replica.
    """
    words = [("CLIENT", "ID")] * clients + [INFO]
    if seen:
        told = seen.told
    elif newest:
        told = {node: target.look(node, words) for node in target.slots.nodes}
    else:
        told = target.commands_at(dict.fromkeys(target.slots.nodes, words))
    return {node: _life(target, node, replies) for node, replies in told.items()}


def _life(target: RedisClient, node: Node, replies: Sequence[Any]) -> Life:
    """The life of a master, from its replies to CLIENT ID, if it was asked, and INFO."""
    *ids, text = replies
    client = ids[0] if ids else 0
    if isinstance(client, Exception) and not error_text(client).startswith(UNKNOWN):
        raise target.error(client, node)
    if isinstance(text, Exception):
        raise target.error(text, node)
    info = partial(field_of, text)
    if info(b"role") == "slave":
        target.mark_stale()
        raise TargetError(f"redis {node}: is no longer a master", kind=Kind.UNAVAILABLE)
    target.topology.note_replicas(node, int(info(b"connected_slaves", "0")))
    policy = info(b"maxmemory_policy", "noeviction") if int(info(b"maxmemory", "0")) else "noeviction"
    return Life(
        f"{info(b'run_id')} {info(b'master_replid')}",
        int(info(b"evicted_keys", "0")),
        "" if policy == "noeviction" else policy,
        int(info(b"total_connections_received", "0")),
        client if isinstance(client, int) else 0,  # before Redis 5 there are no ids
    )


def expiring(target: RedisClient) -> int:
    """Keys that have a time to live, on all masters, including those of other applications."""
    infos = [target.command(node, "INFO", "keyspace").decode() for node in target.slots.nodes]
    return sum(int(count) for info in infos for count in re.findall(r"expires=([0-9]+)", info))


def describe_cluster(target: RedisClient) -> dict[str, Any]:
    """The JSON document `loader.cluster/v1`: each master with its slots, keys (null: no answer) and replicas.

    If slots are being moved, the state is `moving` at best, and they are listed; their receivers count as masters.
    `slots` are those of masters that answer. If the state is `fail`, `why` says why.
    """
    ranges = target.topology.ranges() if target.cluster else [(0, SLOTS - 1, [target.topology.seeds[0]])]
    masters: dict[Node, dict[str, Any]] = {}
    for first, last, (master, *replicas) in ranges:
        entry = masters.setdefault(master, {"node": str(master), "slots": 0, "keys": None, "replicas": len(replicas)})
        entry["slots"] += last + 1 - first
    under_way = moves(target, masters)
    for move in under_way:
        masters.setdefault(move.taker, {"node": str(move.taker), "slots": 0, "keys": None, "replicas": 0})
    why = [] if masters else ["no node has slots"]
    for node, entry in masters.items():
        try:
            entry["keys"] = target.command(node, "DBSIZE")
            # CLUSTER SLOTS omits a replica that has received nothing yet.
            entry["replicas"] = int(info_of(target.command(node, "INFO", "replication")).get("connected_slaves", 0))
            if target.cluster and b"cluster_state:ok" not in target.command(node, "CLUSTER", "INFO"):
                why.append(f"{node} has cluster_state:fail")
        except TargetError as error:
            if not error.transient:
                raise
            why.append(f"{node} does not answer")
    well = ClusterState.MOVING if under_way else ClusterState.OK
    document = {
        "schema": "loader.cluster/v1",
        "state": ClusterState.FAIL if why else well,
        "slots": sum(entry["slots"] for entry in masters.values() if entry["keys"] is not None),
        "masters": sorted(masters.values(), key=lambda entry: str(entry["node"])),
    }
    moving = [{"slot": move.slot, "from": str(move.giver), "to": str(move.taker)} for move in under_way]
    return document | ({"moving": moving} if moving else {}) | ({"why": "; ".join(why)} if why else {})
