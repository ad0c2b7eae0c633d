"""Where nodes are reached that announce an address which works elsewhere only."""

from loader.config.servers import TargetConfig
from loader.errors import LoaderError
from loader.model import Node
from loader.redis.client import RedisClient


def address_of(target: RedisClient, settings: TargetConfig, node: Node) -> str:
    """The line of config that says where a node is reached whose announced address is not; empty if that is no help."""
    topology, dialled = target.topology, Node(*settings.reached_at(node.host, node.port))
    if not topology.reached or node in topology.reached or node in topology.seeds or dialled != node:
        return ""
    found = next((seed for seed in topology.seeds if node in _announced(target, seed)), None)
    reached, note = (str(found), "") if found else ("HOST:PORT", "  # as it is reached from here")
    return f'target: {{addresses: {{"{_bracketed(node)}": "{reached}"}}}}{note}'


def _announced(target: RedisClient, seed: Node) -> list[Node]:
    """The addresses that a configured node announces as its own: `id ip:port@bus,hostname myself,…`."""
    try:
        text = target.command(seed, "CLUSTER", "NODES").decode()
    except LoaderError:
        return []
    for line in text.splitlines():
        _, address, flags, *_ = line.split()
        if "myself" in flags.split(","):
            address, _, name = address.partition(",")
            host, _, port = address.partition("@")[0].rpartition(":")
            return [Node(each, int(port)) for each in (host, name.partition(",")[0]) if each]
    return []


def _bracketed(node: Node) -> str:
    return f"[{node.host}]:{node.port}" if ":" in node.host else str(node)
