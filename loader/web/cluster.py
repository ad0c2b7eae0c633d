"""The target as the status page shows it: slots, the content of each master, and problems."""

from collections.abc import Iterable, Iterator, Mapping

from loader.errors import TargetError
from loader.model import Node
from loader.redis.client import RedisClient
from loader.redis.migrations import in_words, moves
from loader.redis.replies import info_of
from loader.redis.servers import ClusterState
from loader.web.views import ClusterView, NodeView
from loader.wire.slots import SLOTS
from loader.words import counted

NEARLY = 0.95  # of maxmemory: above it a master is almost full


def look_at(target: RedisClient, written: Mapping[str, int]) -> ClusterView:
    """The cluster for a page; `written` are rows by node. A master that does not answer is shown as such."""
    ranges = target.topology.ranges() if target.cluster else [(0, SLOTS - 1, [target.topology.seeds[0]])]
    owned: dict[Node, list[tuple[int, int]]] = {}
    for first, last, (master, *_) in sorted(ranges, key=lambda each: each[:2]):
        owned.setdefault(master, []).append((first, last))
    problems: list[str] = []
    nodes = [_look(target, node, tuple(slots), written.get(str(node), 0)) for node, slots in owned.items()]
    problems += [node.problem for node in nodes if node.problem]
    under_way, told = _moves(target, owned)
    problems += told
    if any(node.replicas for node in nodes):
        problems += [f"redis {node.node} has no replica" for node in nodes if node.replicas == 0]
    free = tuple(_gaps(ranges))
    if free:
        named = ", ".join(f"{first:,} to {last:,}" if last > first else f"{first:,}" for first, last in free[:8])
        count = sum(last + 1 - first for first, last in free)
        problems.append(f"{counted(count, 'slot')} {'has' if count == 1 else 'have'} no master: {named}")
    failed = bool(free) or any(node.keys is None or "cluster_state" in node.problem for node in nodes)
    state = ClusterState.FAIL if failed else ClusterState.MOVING if under_way else ClusterState.OK
    return ClusterView(state, target.cluster, tuple(nodes), free, tuple(problems))


def _look(target: RedisClient, node: Node, ranges: tuple[tuple[int, int], ...], written: int) -> NodeView:
    """One master; a `TargetError` if the account lacks the right."""
    commands = [("INFO",), ("DBSIZE",), *([("CLUSTER", "INFO")] if target.cluster else [])]
    try:
        replies = target.commands(node, commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise target.error(reply, node)
    except TargetError as error:
        if not error.transient:
            raise
        return NodeView(str(node), ranges, written=written, problem=str(error))
    info, keys = info_of(replies[0]), replies[1]
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)) or None
    problem = ""
    if target.cluster and b"cluster_state:ok" not in replies[2]:
        problem = f"redis {node} reports that the cluster is not ok (cluster_state)"
    elif limit and used > NEARLY * limit:
        problem = f"redis {node} is almost full: {used:,} of {limit:,} bytes"
    replicas = int(info.get("connected_slaves", 0))
    return NodeView(
        str(node), ranges, keys=keys, used=used, limit=limit, replicas=replicas, written=written, problem=problem
    )


def _moves(target: RedisClient, nodes: Iterable[Node]) -> tuple[bool, list[str]]:
    """Whether slots are being moved, and which, or why that is unknown."""
    try:
        found = moves(target, nodes)
    except TargetError as error:
        return False, [f"cannot tell whether slots are being moved: {error}"]
    return bool(found), [in_words(found)] if found else []


def _gaps(ranges: Iterable[tuple[int, int, list[Node]]]) -> Iterator[tuple[int, int]]:
    """Slots without an owner, both ends included."""
    free = 0
    for first, last, _ in sorted(ranges, key=lambda each: each[:2]):
        if first > free:
            yield free, first - 1
        free = max(free, last + 1)
    if free < SLOTS:
        yield free, SLOTS - 1
