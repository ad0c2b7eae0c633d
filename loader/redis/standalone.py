"""A Redis without cluster mode: whether the server that the config names accepts writes."""

from collections.abc import Mapping, Sequence

from loader.errors import Kind, TargetError
from loader.model import Node


def check_standalone(seeds: Sequence[Node], info: Mapping[str, str], *, started: bool) -> None:
    """Raise `TargetError` unless the server, which is the only seed, is a master, by its INFO.

    The error is transient once the run has `started`: a master that became a replica may become a master again.
    """
    node, *others = seeds
    if "sentinel" in {info.get("redis_mode"), info.get("server_mode")}:
        watched = [value.partition("address=")[2] for value in info.values() if "address=" in value]
        masters = ", ".join(text.partition(",")[0] for text in watched)
        raise TargetError(
            f"redis {node}: is a Sentinel, which holds no data: name the master it watches in target.url"
            f" ({masters or 'it watches none'})",
            kind=Kind.REFUSED,
        )
    if others:
        raise TargetError(
            f"redis {node}: no cluster, but target.url names several servers: name one", kind=Kind.REFUSED
        )
    if info.get("role") == "slave":
        raise TargetError(
            f"redis {node}: is a replica of {info.get('master_host')}:{info.get('master_port')}, and takes no rows:"
            " name its master in target.url",
            kind=Kind.UNAVAILABLE if started else Kind.REFUSED,
        )
