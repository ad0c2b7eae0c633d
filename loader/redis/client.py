"""One Redis, a cluster or a single server: its topology, and commands that are sent one at a time.

redis-py makes the connections (TLS, accounts, sockets), reads the topology and sends single commands; rows use the
sockets it made (`Connection._sock`, the only private attribute used), see `writer`.

Nothing of a run outlives it: see `connections`, and `fences` for commands that have reached a server already.
"""

import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

from loader.config.servers import TargetConfig
from loader.errors import Kind, LoaderError, TargetError
from loader.model import Node
from loader.net.limit import allowed
from loader.redis.connections import exchange, sense
from loader.redis.connector import Connector
from loader.redis.errors import DATA, LOST, REDIRECT, code_of, error_text, failure_of, refusal_in_script
from loader.redis.fences import Fences
from loader.redis.foresight import MISSING, Foresight, words_of
from loader.redis.key_reader import KeyReader, Question, Words
from loader.redis.replies import info_of
from loader.redis.singles import DRIVER, Singles
from loader.redis.spares import Spares, live_ones
from loader.redis.standalone import check_standalone
from loader.redis.topology import Topology
from loader.redis.value_limit import ValueLimit
from loader.state_keys import kind_of, of_another_type
from loader.wire.slots import SlotMap, slot_of

HOPS = 16  # redirections of one command before the cluster counts as undecided
KNOWN = 1000  # milliseconds that a replica has to acknowledge a single command that it must not miss


class RedisClient(KeyReader):
    """One Redis: a cluster, or a standalone server as a cluster of one; `again` says that it was reached before.

    The connections of a client that is opened `beside` another, or whose `name` begins with its name, are shut out with
    them. One that comes `after` another, which has left nothing behind, takes over its connections and knowledge.
    Raises `TargetError`: transient if no node answers or slots are unowned, exit code 2 for a refused account.
    """

    def __init__(
        self,
        settings: TargetConfig,
        *,
        again: bool = False,
        beside: "RedisClient | None" = None,
        after: "RedisClient | None" = None,
        name: str = "",
    ) -> None:
        self.settings = settings
        self._again = again
        self.patience: float = settings.timeout  # seconds without any reply before a node counts as gone
        self.guard = self.admit = _allow  # each raises if nothing may be sent for now, or over a new connection
        self.fences = Fences()
        self.foreseen = Foresight()
        self.limit = ValueLimit(self.look)
        seed = Node(settings.unix_socket, 0) if settings.unix_socket else Node(settings.host, settings.port)
        self.topology = Topology((seed, *(Node(host, port) for host, port in settings.url.others)), self._look)
        other = beside or after
        self._connector: Connector = Connector(settings, self.topology, other._connector if other else None, name)  # noqa: SLF001
        self.name: str = self._connector.name  # the beginning of those of all connections, see CLIENT LIST
        self.spares: Spares = after.spares if after else Spares()
        self._singles: Singles = Singles(self, live_ones(after._singles.opened) if after else {})  # noqa: SLF001
        if after:
            self.cluster: bool = after.cluster
            self.topology.follow(after.topology)
        else:
            given = settings.cluster
            self.cluster = given if isinstance(given, bool) else _is_cluster(self.topology)

    @property
    def slots(self) -> SlotMap:
        """The topology as it was last read; a transient `TargetError` while slots have no owner."""
        if self.topology.slots is None:
            self.refresh()
        assert self.topology.slots is not None
        return self.topology.slots

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to all nodes."""
        self._singles.close()
        self.spares.close()

    def mark_stale(self) -> None:
        """A node said that a slot has moved."""
        self.topology.stale = True

    def refresh(self, *, force: bool = False) -> None:
        """Read the topology again if it is stale, or in any case; both at most once a second."""
        alone = partial(_read_alone, self, again=self._again)
        self.topology.refresh(self.topology.read if self.cluster else alone, force=force)

    def ask(self, key: bytes, *words: str | bytes | int) -> tuple[Node, Any]:
        """The reply to a command about a key, from the node that owns it, and that node."""
        foreseen = self.foreseen.reply(key, words)
        if foreseen is not MISSING:
            return self.slots.node_of(slot_of(key)), foreseen
        return self._ask(key, [words])[:2]

    def ask_all(self, key: bytes, *commands: Words) -> Any:
        """The reply to the last of several commands about a key, which are sent at once; an error of any is raised."""
        return self._ask(key, commands)[1]

    def foresee(self, questions: Sequence[Question]) -> None:
        """Ask many questions about keys of one slot at once; `ask` gives the replies until something changes a key."""
        self.foreseen.learn(questions, self._ask(questions[0][0], [words_of(questions)])[1])

    def ask_known(self, key: bytes, *words: str | bytes | int, waits: bool = True) -> tuple[Any, bool]:
        """The reply to a command about a key, and whether a replica, if there is one, knows its effect.

        Without `waits` that is not found out. It is for the lock, and therefore does not check the `guard`.
        """
        node, reply, replicas = self._ask(key, [words], known=waits, guarded=False)
        return reply, waits and (replicas > 0 or node not in self.topology.replicated)

    def keep(self, key: bytes, *commands: Words) -> Any:
        """Carry out commands about a key, for good: a failover does not undo them; the reply to the last one.

        Raises a transient error if no replica knows of them in time.
        """
        node, reply, replicas = self._ask(key, commands, known=True)
        if node in self.topology.replicated and not replicas:
            raise self.unknown(commands[-1][0])
        return reply

    def ask_each(self, questions: Sequence[Question]) -> list[Any]:
        """The replies to commands about several keys, which all nodes get at once."""
        self.refresh()
        for key, words in questions:
            self.foreseen.note(key, [words])
        groups = self.slots.by_node(enumerate(questions), lambda each: each[1][0])
        try:
            replies = self.commands_at({node: [words for _, (_, words) in group] for node, group in groups.items()})
        except TargetError:
            self.mark_stale()
            raise
        found: dict[int, Any] = {}
        for node, group in groups.items():
            for (number, (key, words)), reply in zip(group, replies[node], strict=True):
                again = isinstance(reply, Exception)  # a redirection, for example
                found[number] = self.ask(key, *words)[1] if again else reply
        return [found[number] for number in range(len(questions))]

    def unknown(self, what: object) -> TargetError:
        """The error if no replica has acknowledged something in time: it is gone, or will be found to be."""
        self.mark_stale()
        return TargetError(f"redis: no replica acknowledged {what} within {KNOWN / 1000:g} s", kind=Kind.UNREPLICATED)

    def _ask(
        self, key: bytes, commands: Sequence[Words], *, known: bool = False, guarded: bool = True
    ) -> tuple[Node, Any, int]:
        """The node, the last reply to commands about one key, and with `known` how many replicas have their effect."""
        self.refresh()
        self.foreseen.note(key, commands)
        node, asking = self.slots.node_of(slot_of(key)), False
        for _ in range(HOPS):
            words: list[Words] = [each for command in commands for each in ([("ASKING",)] * asking + [command])]
            waits: list[Words] = [("WAIT", 1, KNOWN)] if known and node in self.topology.replicated else []
            try:
                replies = self.commands(node, words + waits, guarded=guarded)
            except TargetError:
                self.mark_stale()  # another node may own the slot at the next attempt
                raise
            reply = next((each for each in replies if isinstance(each, Exception)), replies[len(words) - 1])
            if not isinstance(reply, Exception):
                return node, reply, replies[-1] if waits else 0
            text = error_text(reply)
            if text.split()[0] not in REDIRECT - {"TRYAGAIN"}:
                if code_of(text) in DATA and kind_of(key.decode(errors="replace")):
                    raise of_another_type(key.decode())
                self.mark_stale()
                raise self.error(refusal_in_script(text, commands[-1]) or reply, node)
            if text.startswith("MOVED"):
                self.mark_stale()
            node, asking = self.topology.redirected(text, node), text.startswith("ASK ")
        raise TargetError(f"redis {node}: still redirected after {HOPS} hops", kind=Kind.UNAVAILABLE)

    def command(self, node: Node, *words: str | bytes | int) -> Any:
        """The reply to one command at one node; `TargetError` if it is an error."""
        reply = self.commands(node, [words])[0]
        if isinstance(reply, Exception):
            raise self.error(reply, node)
        return reply

    def commands(
        self, node: Node, commands: Iterable[Iterable[str | bytes | int]], *, guarded: bool = True
    ) -> list[Any]:
        """Replies to pipelined commands at one node; an error reply is an exception in the list."""
        if guarded:
            self.guard()
        return self._singles.ask(node, [tuple(command) for command in commands])

    def commands_at(self, commands: Mapping[Node, Sequence[Words]]) -> dict[Node, list[Any]]:
        """The same at several nodes at once."""
        self.guard()
        return self._singles.ask_each(commands)

    def open(self, node: Node) -> tuple[Any, socket.socket, str]:
        """A connection for a writer alone, its socket, and its name."""
        spare = None if self.fences.is_due(node) else self.spares.take(node)
        connection: Any = spare or self.connect(node)
        return connection, connection._sock.made, connection.client_name  # noqa: SLF001

    def info(self, node: Node) -> dict[str, str]:
        """The INFO of a node, by name."""
        return info_of(self.command(node, "INFO"))

    def look(self, node: Node, commands: Iterable[Sequence[str]]) -> list[Any]:
        """Replies to commands at one node, over a separate connection; an error may be among them."""
        with _passing(self, node) as connection:
            return exchange(connection, commands, allowed(self.patience))

    def connect(self, node: Node, patience: float | None = None, *, reads: bool = False) -> Any:
        """A fresh connection to a node; connections that must not write any more are closed there first.

        One that only `reads` needs no admission: that asks a node, which may be gone, and only reading finds another.
        """
        began = time.monotonic()
        patience = allowed(min(self.patience, patience or self.patience))
        connection = self._connector.make(node, patience)
        try:
            with sense():
                connection.connect()
            with self._singles.turn(node):
                if self.fences.is_due(node):
                    self.fences.close_at(node, connection, patience)
            if not reads:
                self.admit()
        except LoaderError:
            connection.disconnect()
            raise
        except DRIVER as error:
            connection.disconnect()
            raise self._connector.unreached(error, node, self.error(error, node, began)) from error
        self.topology.note(node, failed=False)
        return connection

    def error(self, error: Exception | str, node: Node, since: float | None = None) -> TargetError:
        """The loader's error for a driver's exception or an error reply, with the time since when it was waited for."""
        failure = failure_of(error, node, reached=node in self.topology.reached)
        if failure.kind is Kind.UNAVAILABLE and isinstance(error, LOST):
            self.topology.note(node, failed=True)
        failure.node = str(node)
        failure.waited = 0.0 if since is None else time.monotonic() - since
        return failure

    def _look(self, node: Node, commands: Sequence[Sequence[str]], patience: float | None) -> list[Any]:
        """Replies to commands at one node, over a separate connection that waits less long than others."""
        began = time.monotonic()
        with _passing(self, node, patience) as connection:
            replies = exchange(connection, commands, allowed(patience or self.patience) - (time.monotonic() - began))
        for reply in replies:
            if isinstance(reply, Exception):
                raise self.error(reply, node)
        return replies


def _allow() -> None:
    """Object to nothing."""


@contextmanager
def _passing(target: RedisClient, node: Node, patience: float | None = None) -> Iterator[Any]:
    """A connection for the block only, which reads; the driver's exceptions become `TargetError`."""
    connection, began = target.connect(node, patience, reads=True), time.monotonic()
    try:
        yield connection
    except DRIVER as error:
        raise target.error(error, node, began) from error
    finally:
        connection.disconnect()


def _is_cluster(topology: Topology) -> bool:
    _, (text,) = next(topology.ask_any(("INFO", "cluster")))
    return b"cluster_enabled:1" in text


def _read_alone(target: RedisClient, *, again: bool) -> SlotMap:
    """The map of a standalone server, which must take writes."""
    topology = target.topology
    node = topology.seeds[0]
    info = target.info(node)
    check_standalone(topology.seeds, info, started=again or topology.slots is not None)
    connected = int(info.get("connected_slaves", 0))
    topology.count_replicas({node: connected} if connected else {})
    return SlotMap.single(node)
