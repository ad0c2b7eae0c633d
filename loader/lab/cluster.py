"""The lab's Redis Cluster: creates it, adds nodes to it, and reads its topology as the running nodes see it."""

import time
from collections.abc import Sequence
from pathlib import Path

from loader.errors import Kind, LabError
from loader.lab import redis
from loader.lab.process import HOST, Helper, Server, wait
from loader.records import dataclass
from loader.words import counted

MASTERS = 3  # the fewest that can agree on a failover
JOIN_TRIES = 20


@dataclass(frozen=True, slots=True)
class Member:
    """A line of CLUSTER NODES."""

    id: str
    port: int
    flags: frozenset[str]
    master: str  # the id, "-" for a master
    slots: str  # "0-5460 10923"

    @property
    def is_live(self) -> bool:
        """Whether the node is reachable, as far as the cluster knows."""
        return not self.flags & {"fail", "noaddr", "handshake"}

    @property
    def is_replica(self) -> bool:
        """Whether the node replicates another one."""
        return "slave" in self.flags


def check_size(nodes: int, replicas: int) -> None:
    """Raise a `LabError` if these are too few nodes for a cluster with this many replicas for each master."""
    if nodes // (replicas + 1) < MASTERS:
        msg = (
            f"a cluster needs at least {MASTERS} masters: {counted(nodes, 'node')} with"
            f" {counted(replicas, 'replica')} each make {nodes // (replicas + 1)};"
            f" at least {MASTERS * (replicas + 1)} nodes are required"
        )
        raise LabError(msg, kind=Kind.CONFIG)


class Cluster:
    """The cluster of some nodes, running or not; redis-cli works in `directory`."""

    def __init__(self, nodes: Sequence[Server], directory: Path) -> None:
        self._nodes = nodes
        self._directory = directory

    def creating(self, replicas: int) -> Helper:
        """Start redis-cli to make a cluster of all nodes, with this many replicas for each master."""
        addresses = [_address(node.port) for node in self._nodes]
        return self._redis_cli("create", *addresses, "--cluster-replicas", str(replicas), "--cluster-yes")

    def add_replica(self, node: Server, master: Member) -> None:
        """Make a running node a replica of a master.

        After a failover the nodes may take a moment to agree, and redis-cli refuses until then.
        """
        role = ["--cluster-slave", "--cluster-master-id", master.id]
        for last in (*[False] * (JOIN_TRIES - 1), True):
            try:
                with self._redis_cli("add-node", _address(node.port), _address(master.port), *role) as joining:
                    joining.finish()
            except LabError as error:
                if last or "don't agree" not in str(error):
                    raise
                time.sleep(1)
            else:
                return

    def view(self, without: Server | None = None) -> list[Member]:
        """The cluster as the running nodes see it; `without` one is as the others see it."""
        nodes = [node for node in self._nodes if node.running and node is not without]
        return max(map(_members, nodes), key=len, default=[])

    def wait_until_settled(self) -> None:
        """Return once the running nodes agree."""
        wait(self.is_settled, "the cluster to settle")

    def is_settled(self) -> bool:
        """Whether the running nodes agree on the topology and every replica follows its master."""
        running = [node for node in self._nodes if node.running]
        ports = {node.port for node in running}
        views = set()
        for node in running:
            text = redis.ask(node, "CLUSTER INFO", "INFO replication")
            if "cluster_state:ok" not in text or ("role:slave" in text and "master_link_status:up" not in text):
                return False
            members = _members(node)
            if not all(member.is_live for member in members if member.port in ports):
                return False
            views.add(frozenset((m.id, m.port, m.master, m.slots) for m in members if "noaddr" not in m.flags))
        return len(views) == 1

    def master_for(self, node: Server, wanted: Server | None) -> Member:
        """The master that a node shall replicate: the wanted one, or else the one with the fewest live replicas."""
        view = self.view(without=node)
        masters = [m for m in view if m.is_live and m.master == "-" and m.slots]
        if not masters:
            raise LabError("no master of the cluster runs: `loader lab up` starts what is dead")
        if wanted is None:
            replicas = [m.master for m in view if m.is_live and m.port != node.port]
            order = [each.port for each in self._nodes]
            return min(masters, key=lambda m: (replicas.count(m.id), order.index(m.port)))
        for member in masters:
            if member.port == wanted.port and wanted is not node:
                return member
        ports = {member.port for member in masters}
        names = ", ".join(each.name for each in self._nodes if each is not node and each.port in ports)
        raise LabError(f"{wanted.name} is not a master that {node.name} could replicate; the masters are {names}")

    def contents(self, node: Server) -> str:
        """Why a running node does not count as empty; the empty string if it does."""
        known, keys = len(_members(node)) - 1, redis.ask(node, "DBSIZE").strip()
        if not known and keys == "0":
            return ""
        return f"it knows {counted(known, 'other node')} and holds {counted(int(keys), 'key')}"

    def ids_without_slots(self, node: Server) -> list[str]:
        """The ids by which the others know a node; a `LabError` if it owns slots."""
        known = [member for member in self.view(without=node) if member.port == node.port]
        if slots := " ".join(member.slots for member in known if member.slots):
            raise LabError(
                f"{node.name} owns the slots {slots}, which a wipe would lose: kill it and wait for a failover"
            )
        return [member.id for member in known]

    def forget(self, ids: Sequence[str]) -> None:
        """Make all running nodes forget some."""
        for node in self._nodes:
            if node.running:
                redis.ask(node, *(f"CLUSTER FORGET {each}" for each in ids))

    def _redis_cli(self, *words: str) -> Helper:
        return Helper([redis.cli_program(), "--cluster", *words], self._directory)


def _members(node: Server) -> list[Member]:
    """The cluster as one node sees it."""
    members = []
    for line in redis.ask(node, "CLUSTER NODES").splitlines():
        ident, address, flags, master, _, _, _, _, *slots = line.split()
        port = int(address.partition("@")[0].rpartition(":")[2])
        members.append(Member(ident, port, frozenset(flags.split(",")), master, " ".join(slots)))
    return members


def _address(port: int) -> str:
    return f"{HOST}:{port}"
