"""The nodes and their slots, as the nodes themselves report them: which node to ask, and which to believe."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Any

from loader.errors import Kind, TargetError
from loader.model import Node
from loader.net.limit import LEAST, allowed
from loader.wire.slots import SlotMap

REFRESH = 1.0  # seconds between two reads of the topology, however many redirections or failures come
AGE = 10.0  # seconds after which it is read again without any reason: a replica may have been added, or be back
LOOK = 2.0  # seconds that a node has to describe the cluster: a healthy one needs milliseconds
RECENT = 10.0  # seconds for which a failed node is asked after all others

Range = tuple[int, int, list[Node]]  # first slot, last slot, the master followed by its replicas
Look = Callable[[Node, Sequence[Sequence[str]], float | None], list[Any]]


class Topology:
    """The known nodes of a target; `look` sends one of them commands, within a number of seconds (None: the usual).

    A node may be stale, cut off or silent. So each read begins with another node, those that failed lately come last,
    and a node that does not count its cluster as ok is believed only if no node does.
    """

    def __init__(self, seeds: Sequence[Node], look: Look) -> None:
        self.seeds = tuple(seeds)
        self.slots: SlotMap | None = None
        self.replicas: dict[Node, int] = {}  # how many each master has, if any
        self.exposed: frozenset[Node] = frozenset()  # masters that had more, which may come back without new writes
        self.announcers: dict[Node, Node] = {}  # which node announced a node
        self.reached: set[Node] = set()
        self.stale = False
        self._look = look
        self._replicas: tuple[Node, ...] = ()
        self._most: dict[Node, int] = {}  # replicas that each master ever had
        self._failed: dict[Node, float] = {}
        self._looks = 0
        self._looked = self._forced = float("-inf")
        self._looking = threading.Lock()

    def follow(self, other: "Topology") -> None:
        """Begin with what another one has seen of the same nodes lately; replicas that left before do not count."""
        self.slots, self.stale = other.slots, other.stale
        self.replicas, self._replicas = other.replicas, other._replicas  # noqa: SLF001
        self._most = dict(other.replicas)
        self.announcers, self.reached, self._failed = dict(other.announcers), set(other.reached), dict(other._failed)  # noqa: SLF001
        self._looks, self._looked, self._forced = other._looks, other._looked, other._forced  # noqa: SLF001

    @property
    def replicated(self) -> frozenset[Node]:
        """The masters that have a replica."""
        return frozenset(self.replicas)

    def replicas_of(self, node: Node) -> int:
        """How many replicas a master has."""
        return self.replicas.get(node, 0)

    def note_replicas(self, node: Node, connected: int) -> None:
        """Take a master's own word for how many replicas it has: CLUSTER SLOTS leaves out those that are new."""
        if connected > self.replicas_of(node):
            self.count_replicas({**self.replicas, node: connected})

    def refresh(self, read: Callable[[], SlotMap], *, force: bool) -> None:
        """Read the topology if it is stale, or at once; one worker does, while the others keep the old one.

        A caller that insists on a new one waits for it: the old one has led to the failure.
        """
        if not self._is_due(force) or not self._may_look(force or self.slots is None):
            return
        try:
            if self._is_due(force):
                self._looked = time.monotonic()
                if force:
                    self._forced = self._looked
                self.slots = read()
                self.stale = False
        finally:
            self._looking.release()

    def note(self, node: Node, *, failed: bool) -> None:
        """Note that a node failed, or that it answered."""
        if failed:
            self._failed[node] = time.monotonic()
        else:
            self._failed.pop(node, None)
            self.reached.add(node)

    def announce(self, node: Node, by: Node) -> Node:
        """A node that another one named."""
        self.announcers.setdefault(node, by)
        return node

    def ask_any(self, *commands: Sequence[str]) -> Iterator[tuple[Node, list[Any]]]:
        """The replies of one answering node after another; a `TargetError` if none answers in the time for all.

        Once one has answered, those that failed lately are skipped.
        """
        nodes, began = self._order(), time.monotonic()
        failure: TargetError | None = None
        answered = False
        for node in nodes:
            left = allowed(inf, began) - (time.monotonic() - began)
            if (answered and self._has_failed(node)) or (failure and left <= 0):
                break
            try:
                replies = self._look(node, commands, max(LEAST, min(LOOK, left)) if len(nodes) > 1 else None)
            except TargetError as error:
                if not error.transient:
                    raise
                failure = failure or error
            else:
                answered = True
                yield node, replies
        if not answered:
            assert failure
            failure.waited = time.monotonic() - began
            raise failure

    def ranges(self) -> list[Range]:
        """The owners of slots, from a node that counts the cluster as ok, else from the first one that answered."""
        first: list[Range] | None = None
        for node, (rows, info) in self.ask_any(("CLUSTER", "SLOTS"), ("CLUSTER", "INFO")):
            seen = [(row[0], row[1], [self.announce(_node(entry, node), node) for entry in row[2:]]) for row in rows]
            if b"cluster_state:ok" in info:
                return seen
            first = first or seen
        return first or []

    def read(self) -> SlotMap:
        """The map of a cluster, as its nodes see it now; a transient `TargetError` while slots have no owner."""
        ranges = self.ranges()
        replicas = {nodes[0]: len(nodes) - 1 for _, _, nodes in ranges if len(nodes) > 1}
        self.count_replicas(replicas)
        self._replicas = tuple(node for _, _, nodes in ranges for node in nodes[1:])
        return SlotMap((first, last, nodes[0]) for first, last, nodes in ranges)

    def count_replicas(self, replicas: dict[Node, int]) -> None:
        """Note how many replicas each master has; readers meanwhile never take an exposed master for a covered one."""
        for node, number in replicas.items():
            self._most[node] = max(number, self._most.get(node, 0))
        lacking = frozenset(node for node, most in self._most.items() if replicas.get(node, 0) < most)
        self.exposed |= lacking
        self.replicas = replicas
        self.exposed = lacking

    def redirected(self, text: str, asked: Node) -> Node:
        """The node that `MOVED slot host:port` or `ASK slot host:port` names.

        No host means the node that was asked; `?` is a node without a name, identified by its port at best.
        """
        address = re.fullmatch(r"\S+ [0-9]+ (\S*):([0-9]{1,5})(?: .*)?", text)
        if not address:
            raise TargetError(f"redis {asked}: redirects without an address: {text}", kind=Kind.UNAVAILABLE)
        host, port = address.groups()
        if host == "?":
            known = [node for node in self._nodes() if node.port == int(port)]
            host = known[0].host if len(known) == 1 else ""
        return self.announce(Node(host or asked.host, int(port)), asked)

    def _may_look(self, wait: bool) -> bool:  # noqa: FBT001
        """Whether it is this worker's turn, for which it may `wait`."""
        if not wait:
            return self._looking.acquire(blocking=False)
        patience = allowed(inf)
        if self._looking.acquire(timeout=min(patience, threading.TIMEOUT_MAX)):
            return True
        error = TargetError(
            f"redis: the state of the cluster has been unknown for {patience:.0f} s", kind=Kind.UNAVAILABLE
        )
        error.waited = patience
        raise error

    def _is_due(self, force: bool) -> bool:  # noqa: FBT001
        """Whether it is time to read; a read after a failure is not delayed by one that redirections caused."""
        now = time.monotonic()
        if force:
            return now - self._forced > REFRESH
        return self.slots is None or now - self._looked > (REFRESH if self.stale else AGE)

    def _nodes(self) -> tuple[Node, ...]:
        """All known nodes: masters, those configured, replicas."""
        masters = self.slots.nodes if self.slots else ()
        return tuple(dict.fromkeys((*masters, *self.seeds, *self._replicas)))

    def _has_failed(self, node: Node) -> bool:
        return time.monotonic() - self._failed.get(node, float("-inf")) < RECENT

    def _order(self) -> list[Node]:
        """The order in which to ask: another master first each time; recently failed nodes last, latest at the end."""
        nodes = self._nodes()
        masters = len(self.slots.nodes) if self.slots else 1
        self._looks += 1
        turn = self._looks % masters
        rotated = (*nodes[turn:masters], *nodes[:turn], *nodes[masters:])
        return sorted(rotated, key=lambda node: self._failed[node] if self._has_failed(node) else 0.0)


def _node(entry: Sequence[Any], asked: Node) -> Node:
    """The node of a CLUSTER SLOTS entry: preferred endpoint, port, id, metadata.

    An endpoint of `?` has a name in the metadata at best; an empty or NULL one is the node that answered.
    """
    host = (entry[0] or b"").decode()
    if host == "?":
        words = [word.decode() for word in entry[3]] if len(entry) > 3 else []
        more = dict(zip(words[::2], words[1::2], strict=True))
        host = more.get("ip") or more.get("hostname") or ""
    return Node(host or asked.host, int(entry[1]))
