"""One Redis, a cluster or a single server: its topology, and commands that are sent one at a time.

redis-py makes the connections (TLS, accounts, sockets), asks for the topology and carries single commands; rows go over
the sockets it made (`Connection._sock`, the one private attribute used), see `writer`.

Nothing of a run outlives it: see `connections`, and `fence` and `shut_out` for what has arrived at a server already.
"""

import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry

from loader.config.servers import TargetConfig
from loader.errors import Kind, TargetError, is_local
from loader.model import MOST, Node
from loader.net.greetings import REDIS, TLS, speaker
from loader.net.limit import allowed
from loader.net.probe import overhear, speaks_tls, wants_certificate
from loader.net.tls import UNSHOWN, client_context
from loader.redis.connections import TcpConnection, TlsConnection, UnixConnection, exchange, sense
from loader.redis.errors import (
    ANSWERED,
    CAPACITY,
    CLIENTS,
    DATA,
    ENCRYPTED,
    FORBIDDEN,
    NO_MASTER,
    NODE,
    PROTOCOL,
    REDIRECT,
    UNKNOWN,
    UNKNOWN_IN_SCRIPT,
    advice,
    code_of,
    error_text,
    is_access,
    unknown_command,
)
from loader.redis.topology import Range, Topology
from loader.state_keys import kind_of, of_another_type
from loader.wire.slots import SlotMap, slot_of

Words = tuple[str | bytes | int, ...]  # of a command

HOPS = 16  # redirections of one command before the cluster counts as undecided
KNOWN = 1000  # milliseconds that a replica has to acknowledge a single command that it must not miss

# The settings by which a node takes no larger value, and bytes beside one that count; both are a mebibyte at least.
LIMITS = {"proto-max-bulk-len": 0, "client-query-buffer-limit": 2}
SMALL = 1 << 20
CUT = "client_query_buffer_limit_disconnections"  # in INFO, of Redis 8


class RedisClient:
    """One Redis: a cluster, or a standalone server as a cluster of one; `again` says that it was reached before.

    Connections of one that is opened `beside` another are called as its own are, and are shut out with them.
    Raises `TargetError`: transient where no node answers or slots are unowned, exit code 2 for a refused account.
    """

    def __init__(self, settings: TargetConfig, *, again: bool = False, beside: "RedisClient | None" = None) -> None:
        self._settings = settings
        self._again = again
        self.patience: float = settings.timeout  # seconds without any reply before a node counts as gone
        # How the names of all connections begin, see CLIENT LIST.
        self.name: str = beside.name if beside else f"loader-{secrets.token_hex(6)}"
        self.guard: Callable[[], None] = lambda: None  # raises where nothing may be sent for now
        self.unkillable: set[Node] = set()  # nodes that do not know CLIENT KILL
        self.most = MOST  # bytes of a value that every node takes, as far as is known
        self._cut: dict[Node, int] = {}  # connections that a node says it has closed for the size of what came
        self.abandoned = False  # somebody who sends has not ended, and may have something under way
        self.numbers: Iterator[int] = beside.numbers if beside else count(1)  # of the connections
        self._clients: dict[Node, Connection] = {}
        self._unfenced: dict[Node, list[str]] = {}  # names of connections that may have something under way
        self._strangers: frozenset[str] = frozenset()  # names of other runs that must not write any more
        self._shut: dict[Node, frozenset[str]] = {}  # those of them that a node has closed
        self._locks: dict[Node, threading.RLock] = {}  # workers share the single-command connections
        self._lock = threading.Lock()
        self._foreseen: dict[tuple[bytes, Words], tuple[Node, Any]] = {}
        seed = Node(settings.unix_socket, 0) if settings.unix_socket else Node(settings.host, settings.port)
        self._topology = Topology((seed, *(Node(host, port) for host, port in settings.url.others)), self._look)
        self.cluster = settings.cluster if isinstance(settings.cluster, bool) else self._is_cluster()

    @property
    def seeds(self) -> tuple[Node, ...]:
        """The nodes that the config names."""
        return self._topology.seeds

    @property
    def replicated(self) -> frozenset[Node]:
        """The masters that have a replica."""
        return self._topology.replicated

    def note_replicas(self, node: Node, connected: int) -> None:
        """Take a master's own word for how many replicas it has: CLUSTER SLOTS leaves out those that are new."""
        if connected > self.replicas(node):
            self._topology.count_replicas({**self._topology.replicas, node: connected})

    def replicas(self, node: Node) -> int:
        """How many replicas a master has."""
        return self._topology.replicas.get(node, 0)

    @property
    def exposed(self) -> frozenset[Node]:
        """Masters that had more replicas, which may come back and take over without the newest rows."""
        return self._topology.exposed

    @property
    def slots(self) -> SlotMap:
        """The topology as it was last read; a transient `TargetError` while slots have no owner."""
        if self._topology.slots is None:
            self.refresh()
        assert self._topology.slots is not None
        return self._topology.slots

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave all nodes."""
        for connection in list(self._clients.values()):
            connection.disconnect()
        self._clients.clear()

    def mark_stale(self) -> None:
        """A node said that a slot has moved."""
        self._topology.stale = True

    def refresh(self, *, force: bool = False) -> None:
        """Read the topology again if it is stale, or in any case; both at most once a second."""
        self._topology.refresh(self._topology.read if self.cluster else self._read_alone, force=force)

    def redirected(self, text: str, asked: Node) -> Node:
        """The node that a redirection names."""
        return self._topology.redirected(text, asked)

    @contextmanager
    def prefetching(self, commands: Iterable[tuple[bytes, Words]]) -> Iterator[None]:
        """Ask commands about keys now, in one pipeline a node: while the block runs, `ask` has their replies at hand.

        What a node answers with an error, a redirection say, is asked again when it is wanted. For one thread alone.
        """
        self.refresh()
        groups: dict[Node, list[tuple[bytes, Words]]] = {}
        for key, words in commands:
            groups.setdefault(self.slots.node_of(slot_of(key)), []).append((key, words))
        try:
            for node, group in groups.items():
                replies = self.commands(node, [words for _, words in group])
                pairs = zip(group, replies, strict=True)
                self._foreseen |= {asked: (node, reply) for asked, reply in pairs if not isinstance(reply, Exception)}
            yield
        finally:
            self._foreseen.clear()

    def ask(self, key: bytes, *words: str | bytes | int) -> tuple[Node, Any]:
        """The reply to a command about a key, from the node that owns it, and that node."""
        if (key, words) in self._foreseen:
            return self._foreseen[key, words]
        node, reply, _ = self._ask(key, [words])
        return node, reply

    def time(self, key: str) -> float:
        """What time it is by the node that owns a key, in seconds since 1970: a clock that all who ask share."""
        seconds, micros = self.ask(key.encode(), "TIME")[1]
        return int(seconds) + int(micros) / 1e6

    def ask_known(self, key: bytes, *words: str | bytes | int) -> tuple[Any, bool]:
        """The reply to a command about a key, and whether a replica knows what it did, where there is one.

        It is for the lock, and so asked without the `guard`.
        """
        node, reply, replicas = self._ask(key, [words], known=True, guarded=False)
        return reply, replicas > 0 or node not in self.replicated

    def keep(self, key: bytes, *commands: Words) -> None:
        """Carry out commands about a key, for good: a failover does not undo them.

        Raises a transient error where no replica knows of them in time.
        """
        node, _, replicas = self._ask(key, commands, known=True)
        if node in self.replicated and not replicas:
            raise self.unknown(commands[-1][0])

    def unknown(self, what: object) -> TargetError:
        """The error that no replica has acknowledged something in time: it is gone, or will be found to be so."""
        self.mark_stale()
        return TargetError(f"redis: no replica acknowledged {what} within {KNOWN / 1000:g} s", kind=Kind.UNREPLICATED)

    def _ask(
        self, key: bytes, commands: Sequence[Words], *, known: bool = False, guarded: bool = True
    ) -> tuple[Node, Any, int]:
        """The node, the last reply to commands about one key, and with `known` how many replicas have that."""
        self.refresh()
        node, asking = self.slots.node_of(slot_of(key)), False
        for _ in range(HOPS):
            words: list[Words] = [each for command in commands for each in ([("ASKING",)] * asking + [command])]
            waits: list[Words] = [("WAIT", 1, KNOWN)] if known and node in self.replicated else []
            try:
                replies = self.commands(node, words + waits, guarded=guarded)
            except TargetError:
                self.mark_stale()  # another node may own the slot when this is tried again
                raise
            reply = next((each for each in replies if isinstance(each, Exception)), replies[len(words) - 1])
            if not isinstance(reply, Exception):
                return node, reply, replies[-1] if waits else 0
            text = error_text(reply)
            if text.split()[0] not in REDIRECT - {"TRYAGAIN"}:
                if code_of(text) in DATA and kind_of(key.decode(errors="replace")):
                    raise of_another_type(key.decode())
                self.mark_stale()
                raise self.error(self._named(text, commands[-1]) or reply, node)
            if text.startswith("MOVED"):
                self.mark_stale()
            node, asking = self.redirected(text, node), text.startswith("ASK ")
        raise TargetError(f"redis {node}: still redirected after {HOPS} hops", kind=Kind.UNAVAILABLE)

    def _named(self, text: str, words: Words) -> str:
        """The refusal of a script with the command that it may or can not send, which Redis tells by its line alone."""
        unknown = UNKNOWN_IN_SCRIPT.search(text)
        line = re.search(r"@user_script:\s*([0-9]+)", text) if unknown or text.startswith(FORBIDDEN) else None
        lines = str(words[1]).splitlines() if line and words[0] == "EVAL" else []
        named = re.findall(r"redis\.p?call\('(\w+)'", "".join(lines[int(line[1]) - 1 :][:1])) if line else []
        if unknown and named:
            return f"ERR unknown command '{named[0]}'"
        return f"NOPERM a script may not send {' or '.join(dict.fromkeys(named))}" if named else ""

    def command(self, node: Node, *words: str | bytes | int) -> Any:
        """The reply to one command at one node; `TargetError` where it is an error."""
        reply = self.commands(node, [words])[0]
        if isinstance(reply, Exception):
            raise self.error(reply, node)
        return reply

    def commands(
        self, node: Node, commands: Iterable[Iterable[str | bytes | int]], *, guarded: bool = True
    ) -> list[Any]:
        """Replies to pipelined commands at one node; an error reply stands in the list as an exception.

        A connection that fails is fenced: a command that arrives late must not undo a newer one.
        """
        if guarded:
            self.guard()
        words = [tuple(command) for command in commands]
        with self._turn(node):
            if self._is_open(node):
                self._drop(node)  # a new connection stops first what a failed one may have under way
            connection = self._clients.get(node)
            if connection is None:
                connection = self._clients[node] = self.connect(node)
            began = time.monotonic()
            try:
                return exchange(connection, words, allowed(self.patience) + _waits(words))
            except (redis.RedisError, OSError, MemoryError) as error:
                self._drop(node, fenced=True)
                raise self.error(error, node, began) from error
            except BaseException:  # a signal: the replies that are still to come must not answer another command
                self._drop(node, fenced=True)
                raise

    def open(self, node: Node) -> tuple[Any, socket.socket, str]:
        """A connection for a writer alone, its socket, and its name."""
        connection: Any = self.connect(node)
        return connection, connection._sock.made, connection.client_name  # noqa: SLF001

    def info(self, node: Node) -> dict[str, str]:
        """What a node says of itself, by name."""
        return info_of(self.command(node, "INFO"))

    def look(self, node: Node, *commands: Sequence[str]) -> list[Any]:
        """Replies to commands at one node, over a connection for this alone; an error stands among them."""
        connection, began = self.connect(node), time.monotonic()
        try:
            return exchange(connection, commands, allowed(self.patience))
        except (redis.RedisError, OSError, MemoryError) as error:
            raise self.error(error, node, began) from error
        finally:
            connection.disconnect()

    def connect(self, node: Node, patience: float | None = None) -> Any:
        """A fresh connection to a node; what others may still have under way there is stopped first."""
        began = time.monotonic()
        patience = allowed(min(self.patience, patience or self.patience))
        connection = self._connection(node, patience)
        connection.time.begin(patience)
        try:
            with sense():
                connection.connect()
            with self._turn(node):
                if self._is_open(node):
                    self._close_others(connection, node, patience)
        except TargetError:
            connection.disconnect()
            raise
        except (redis.RedisError, OSError, MemoryError) as error:
            connection.disconnect()
            raise self._unreached(error, node, began) from error
        self._topology.note(node, failed=False)
        return connection

    def _connection(self, node: Node, patience: float) -> Any:
        settings = self._settings
        options: dict[str, Any] = {
            "username": settings.user,
            "password": settings.secret or None,
            "db": settings.db,
            "socket_timeout": patience,
            "socket_connect_timeout": min(patience, 5.0),
            "client_name": f"{self.name}-{next(self.numbers)}",
            "protocol": 2,
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),
        }
        if not node.port:
            return UnixConnection(path=node.host, **options)  # type: ignore[abstract]
        options |= {"host": node.host, "port": node.port, "socket_keepalive": True}
        if not settings.tls:
            return TcpConnection(**options)
        connection = TlsConnection(**options)
        connection.context = client_context(settings, "target")
        return connection

    def _unreached(self, error: Exception, node: Node, began: float) -> TargetError:
        """What a failure to connect means; an address that was never reached may be one for other networks."""
        failure = self.error(error, node, began)
        if who := self._other_than_redis(error, node):
            return TargetError(
                f"redis {node}: no Redis server answers there, but {who}: see target.url", kind=Kind.REFUSED
            )
        if why := self._spoken_wrongly(error, node):
            return TargetError(f"redis {node}: {error_text(error).removesuffix('.')}: {why}", kind=Kind.REFUSED)
        if failure.kind is not Kind.UNAVAILABLE or isinstance(error, redis.BusyLoadingError):
            return failure
        by = self._topology.announcers.get(node)
        message = (
            f"redis {node} (announced by {by}): cannot connect: {error_text(error).removesuffix('.')}:"
            " see cluster-announce-ip (or -hostname) of that node, which has to work from here, or whether it runs"
        )
        if by is None or node in self.seeds or node in self._topology.reached:
            message = f"{failure}: see target.url (rediss:// for TLS), and whether the server runs"
        unreached = TargetError(message, kind=Kind.UNAVAILABLE)
        unreached.node, unreached.waited = str(node), failure.waited
        return unreached

    def _is_odd(self, error: Exception, node: Node) -> bool:
        """Whether a server that was never reached ends connections, or answers, as Redis does not."""
        if node in self._topology.reached or is_local(error) or isinstance(error, ANSWERED):
            return False
        return isinstance(error, redis.ConnectionError | redis.InvalidResponse)

    def _other_than_redis(self, error: Exception, node: Node) -> str:
        """Who answers in place of Redis; empty where that cannot be told."""
        return speaker(overhear(node.host, node.port), REDIS, TLS) if self._is_odd(error, node) else ""

    def _spoken_wrongly(self, error: Exception, node: Node) -> str:
        """What a server that was never reached would rather be spoken to in; empty where that cannot be told."""
        if not node.port or not self._is_odd(error, node):
            return ""
        if not self._settings.tls:
            return ENCRYPTED if speaks_tls(node.host, node.port) else ""
        if self._settings.tls_cert:
            return ""
        return UNSHOWN if wants_certificate(node.host, node.port, client_context(self._settings, "target")) else ""

    def learn(self, node: Node, size: int, *, refused: bool = False) -> bool:
        """Note what a node takes that has ended a connection over which a value of so many bytes came; whether it says.

        Where it is not to be asked, and has `refused` that value or counts one more that it did, it takes fewer bytes.
        """
        limits: list[int] = []
        with suppress(TargetError):
            *replies, info = self.look(node, *(("CONFIG", "GET", name) for name in LIMITS), ("INFO", "stats"))
            told = [reply[1] if isinstance(reply, list) and len(reply) == 2 else b"" for reply in replies]
            limits = [int(text) - beside for text, beside in zip(told, LIMITS.values(), strict=True) if text.isdigit()]
            count = int(info_of(info).get(CUT, 0)) if isinstance(info, bytes) else 0
            refused |= count > self._cut.setdefault(node, count)
            self._cut[node] = count
        most = min([*limits, *([max(SMALL, size - 1)] if refused else [])], default=MOST)
        self.most = min(self.most, most)
        return refused or bool(limits)

    def fence(self, node: Node, name: str) -> None:
        """Have the server forget a connection of this target, by its name, before anything else is sent there."""
        with self._lock:
            self._unfenced.setdefault(node, []).append(name)

    def shut_out(self, names: Iterable[str]) -> None:
        """Have every node forget all connections of other targets, by their `name`, before anything is sent to it."""
        self._strangers |= frozenset(names)

    def has_shut_out(self, names: Iterable[str]) -> bool:
        """Whether all masters have forgotten the connections of those targets."""
        wanted = frozenset(names)
        return all(wanted <= self._shut.get(node, frozenset()) for node in self.slots.nodes)

    def leave_to(self, other: "RedisClient") -> None:
        """Have another target see to it that what may still be carried out of this one's is forgotten."""
        other.abandoned |= self.abandoned
        for node, names in self._unfenced.items():
            for name in names:
                other.fence(node, name)

    @property
    def settled(self) -> bool:
        """Whether no command of this target may still be carried out by a master: none that failed is unfenced."""
        return not self.abandoned and not any(self._unfenced.get(node) for node in self.slots.nodes)

    def error(self, error: Exception | str, node: Node, since: float | None = None) -> TargetError:
        """What a driver's exception or an error reply means for the run; since when it was waited for, if it was."""
        failure = unknown_command(error, node) or self._meaning(error, node)
        failure.node = str(node)
        failure.waited = 0.0 if since is None else time.monotonic() - since
        return failure

    def _meaning(self, error: Exception | str, node: Node) -> TargetError:
        text = error_text(error) if isinstance(error, Exception) else error
        code = code_of(text)
        message = f"redis {node}: {text.removesuffix('.')}"
        if told := advice(error, code, text):
            return TargetError(f"{message}: {told}", kind=Kind.ACCESS if is_access(error, code) else Kind.REFUSED)
        if isinstance(error, redis.InvalidResponse):
            reached = node in self._topology.reached
            what = "the answer is none of Redis" if reached else "no Redis server answers there"
            return TargetError(
                f"redis {node}: {what} ({text.removesuffix('.')}): see target.url",
                kind=Kind.UNSETTLED if reached else Kind.REFUSED,
            )
        if isinstance(error, Exception) and is_local(error):
            return TargetError(message)
        if code in CAPACITY or text.startswith((CLIENTS, PROTOCOL)):
            return TargetError(message, kind=Kind.UNSETTLED)
        lost = isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError)
        if lost:
            self._topology.note(node, failed=True)
        if lost or code in NODE | REDIRECT or text.startswith(NO_MASTER):
            return TargetError(message, kind=Kind.UNAVAILABLE)
        return TargetError(
            message if code in DATA else f"redis {node}: {' '.join(text.split()[:8])}"
        )  # may quote a row

    def _is_open(self, node: Node) -> bool:
        """Whether connections may be there that must not be."""
        return bool(self._unfenced.get(node)) or not self._strangers <= self._shut.get(node, frozenset())

    def _close_others(self, connection: Any, node: Node, patience: float) -> None:
        """Have the server forget connections: when it has, what they sent was carried out, or never is."""
        own, strangers = list(self._unfenced.get(node, ())), self._strangers
        (listing,) = exchange(connection, [("CLIENT", "LIST")], patience)
        clients = [] if isinstance(listing, Exception) else [dict(pairs(line)) for line in listing.splitlines()]
        named = [(each.get(b"id", b""), each.get(b"name", b"").decode(errors="replace")) for each in clients]
        doomed = [ident for ident, name in named if name in own or name.rpartition("-")[0] in strangers]
        replies = exchange(connection, [("CLIENT", "KILL", "ID", ident) for ident in doomed], patience)
        for reply in (listing, *replies):
            if not isinstance(reply, Exception) or "No such client" in str(reply):
                continue
            if not error_text(reply).startswith(UNKNOWN):
                raise reply
            self.unkillable.add(node)
        with self._lock:
            self._unfenced[node] = [name for name in self._unfenced.get(node, ()) if name not in own]
        self._shut[node] = self._shut.get(node, frozenset()) | strangers

    def _lock_of(self, node: Node) -> threading.RLock:
        """One lock a node: who waits for a silent one keeps nobody from the others."""
        with self._lock:
            return self._locks.setdefault(node, threading.RLock())

    @contextmanager
    def _turn(self, node: Node) -> Iterator[None]:
        """Be the only one to use a node's connection; a transient error where another thread waits too long for it."""
        lock, patience, began = self._lock_of(node), allowed(self.patience), time.monotonic()
        if not lock.acquire(timeout=patience):
            raise self.error(TimeoutError(f"no reply to what was asked before for {patience:.0f} s"), node, began)
        try:
            yield
        finally:
            lock.release()

    def _drop(self, node: Node, *, fenced: bool = False) -> None:
        connection = self._clients.pop(node, None)
        if connection is not None:
            if fenced:
                self.fence(node, str(connection.client_name))
            connection.disconnect()

    def _look(self, node: Node, commands: Sequence[Sequence[str]], patience: float | None) -> list[Any]:
        """Replies to commands at one node, over a connection for this alone that does not wait as long as others."""
        began = time.monotonic()
        connection = self.connect(node, patience)
        left = allowed(patience or self.patience) - (time.monotonic() - began)
        try:
            replies = exchange(connection, commands, left)
        except (redis.RedisError, OSError, MemoryError) as error:
            raise self.error(error, node, began) from error
        finally:
            connection.disconnect()
        for reply in replies:
            if isinstance(reply, Exception):
                raise self.error(reply, node)
        return replies

    def _is_cluster(self) -> bool:
        _, (text,) = next(self._topology.ask_any(("INFO", "cluster")))
        return b"cluster_enabled:1" in text

    def _read_alone(self) -> SlotMap:
        """The map of a standalone server, which must take writes."""
        node, *others = self.seeds
        info = info_of(self.command(node, "INFO"))
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
            # A master that became a replica may become a master again.
            started = self._again or self._topology.slots is not None
            raise TargetError(
                f"redis {node}: is a replica of {info.get('master_host')}:{info.get('master_port')}, and takes no rows:"
                " name its master in target.url",
                kind=Kind.UNAVAILABLE if started else Kind.REFUSED,
            )
        connected = int(info.get("connected_slaves", 0))
        self._topology.count_replicas({node: connected} if connected else {})
        return SlotMap.single(node)

    def ranges(self) -> list[Range]:
        """First slot, last slot, and the master followed by its replicas, as the cluster sees it."""
        return self._topology.ranges()


def info_of(text: bytes) -> dict[str, str]:
    """What a reply to INFO says, by name."""
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


def pairs(line: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The words `name=value` of a line."""
    for word in line.split():
        name, _, value = word.partition(b"=")
        yield name, value


def _waits(commands: Iterable[Words]) -> float:
    """Seconds that commands are asked to wait by themselves."""
    return sum(int(words[2]) / 1000 for words in commands if words[0] in {"WAIT", b"WAIT"})
