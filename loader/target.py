"""Redis, and the only room that knows redis-py.

redis-py makes the connections (TLS, accounts, sockets), asks for the topology and carries single commands; rows go over
the sockets it made (`Connection._sock`, the one private attribute used), see `writer`.
"""

import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from loader.errors import Exit, TargetError, is_local
from loader.model import Node
from loader.settings import Target as Settings
from loader.slots import SLOTS, SlotMap, slot_of

HOPS = 16  # redirections of one command before the cluster counts as undecided
REFRESH = 1.0  # seconds between two looks at the topology, however many redirections come

# What to do about an error reply, by its first word.
REDIRECT = frozenset({"MOVED", "ASK", "TRYAGAIN"})
NODE = frozenset({"CLUSTERDOWN", "MASTERDOWN", "LOADING", "READONLY", "UNBLOCKED"})  # wait, look at the cluster again
CAPACITY = frozenset({"OOM", "MISCONF", "NOREPLICAS", "BUSY"})  # wait, someone has to make room
ACCESS = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "DENIED"})  # someone has to change the account
DATA = frozenset({"WRONGTYPE"})  # the row cannot be written
# Any other error reply is a fault of this program, or of a server it does not know, and ends the run.
DATABASE = ("ERR SELECT is not allowed", "ERR DB index is out of range")  # the number in the url


class Target:
    """One Redis: a cluster, or a standalone server as a cluster of one.

    Raises `TargetError`: transient where no node answers or slots are unowned, exit code 2 for a refused account.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.patience: float = settings.timeout  # seconds without any reply before a node counts as gone
        self._clients: dict[Node, Connection] = {}
        self._unfenced: dict[Node, list[int]] = {}
        self._lock = threading.RLock()  # workers share the single-command connections and the topology
        self._stale = False
        self._looked = 0.0
        seed = Node(settings.unix_socket, 0) if settings.unix_socket else Node(settings.host, settings.port)
        self.seeds = (seed, *(Node(host, port) for host, port in settings.url.others))
        self._slots: SlotMap | None = None
        self.replicated: frozenset[Node] = frozenset()  # masters that have a replica
        self.cluster = settings.cluster if isinstance(settings.cluster, bool) else self._is_cluster()

    @property
    def slots(self) -> SlotMap:
        """The topology as it was last read; a transient `TargetError` while slots have no owner."""
        if self._slots is None:
            self.refresh(force=True)
        assert self._slots is not None
        return self._slots

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave all nodes."""
        for connection in self._clients.values():
            connection.disconnect()
        self._clients.clear()

    def mark_stale(self) -> None:
        """A node said that a slot has moved."""
        self._stale = True

    def refresh(self, *, force: bool = False) -> None:
        """Read the topology again if it is stale, at most once a second, from whichever node still answers."""
        with self._lock:
            if force or (self._stale and time.monotonic() - self._looked > REFRESH):
                self._slots = self._read_slots()

    def ask(self, key: bytes, *words: str | bytes | int) -> tuple[Node, Any]:
        """The reply to a command about a key, from the node that owns it, and that node."""
        self.refresh()
        node, asking = self.slots.node_of(slot_of(key)), False
        for _ in range(HOPS):
            try:
                reply = self.commands(node, [["ASKING"], words] if asking else [words])[-1]
            except TargetError:
                self.mark_stale()  # another node may own the slot when this is tried again
                raise
            if not isinstance(reply, Exception):
                return node, reply
            text = said(reply)
            if text.split()[0] not in REDIRECT - {"TRYAGAIN"}:
                self.mark_stale()
                raise self.error(reply, node)
            if text.startswith("MOVED"):
                self.mark_stale()
            node, asking = redirection(text, node), text.startswith("ASK ")
        raise TargetError(f"redis {node}: still redirected after {HOPS} hops", transient=True)

    def command(self, node: Node, *words: str | bytes | int) -> Any:
        """The reply to one command at one node; `TargetError` where it is an error."""
        reply = self.commands(node, [words])[0]
        if isinstance(reply, Exception):
            raise self.error(reply, node)
        return reply

    def commands(self, node: Node, commands: Iterable[Iterable[str | bytes | int]]) -> list[Any]:
        """Replies to pipelined commands at one node; an error reply stands in the list as an exception."""
        with self._lock:
            try:
                connection = self._clients.get(node) or self.connect(node)
                self._clients[node] = connection
                packed = [b"".join(connection.pack_command(*words)) for words in commands]
                connection.send_packed_command(packed, check_health=False)
                return [_response(connection) for _ in packed]
            except (redis.RedisError, OSError) as error:
                self._drop(node)
                raise self.error(error, node) from error
            except BaseException:  # a signal: the replies that are still to come must not answer another command
                self._drop(node)
                raise

    def open(self, node: Node) -> tuple[Any, socket.socket, int | None]:
        """A connection for a writer alone, its socket, and its client id (None before Redis 5)."""
        connection: Any = self.connect(node)
        try:
            connection.send_command("CLIENT", "ID")
            client = _response(connection)
        except (redis.RedisError, OSError) as error:
            raise self.error(error, node) from error
        return connection, connection._sock, None if isinstance(client, Exception) else client  # noqa: SLF001

    def headroom(self) -> dict[Node, int]:
        """Bytes that each master may still take; masters without a limit, or that evict, are left out."""
        rooms = {}
        for node in self.slots.nodes:
            info = _info(self.command(node, "INFO", "memory"))
            most = int(info.get("maxmemory", 0))
            if most and info.get("maxmemory_policy", "noeviction") == "noeviction":
                rooms[node] = max(0, most - int(info["used_memory"]))
        return rooms

    def connect(self, node: Node) -> Any:
        """A fresh connection to a node; what an earlier, failed one may still have under way is stopped first."""
        settings = self._settings
        options: dict[str, Any] = {
            "username": settings.user,
            "password": settings.secret or None,
            "db": settings.db,
            "socket_timeout": settings.timeout,
            "socket_connect_timeout": min(settings.timeout, 5.0),
            "client_name": "loader",
            "protocol": 2,
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),
        }
        if not node.port:
            connection: Any = UnixDomainSocketConnection(path=node.host, **options)  # type: ignore[abstract]
        else:
            options |= {"host": node.host, "port": node.port, "socket_keepalive": True}
            if settings.tls:
                options |= {
                    "ssl_ca_certs": settings.tls_ca,
                    "ssl_certfile": settings.tls_cert,
                    "ssl_keyfile": settings.tls_key,
                    "ssl_cert_reqs": "required" if settings.tls_verify else "none",
                    "ssl_check_hostname": settings.tls_verify,
                }
            connection = (SSLConnection if settings.tls else Connection)(**options)
        try:
            connection.connect()
            with self._lock:
                while self._unfenced.get(node):
                    self._kill(connection, self._unfenced[node][-1])
                    self._unfenced[node].pop()
        except (redis.RedisError, OSError) as error:
            failure = self.error(error, node)
            if failure.transient and not isinstance(error, redis.BusyLoadingError):
                advice = "see target.url (rediss:// for TLS), and whether the server runs"
                raise TargetError(f"{failure}: {advice}", transient=True) from error
            raise failure from error
        return connection

    def fence(self, node: Node, client: int) -> None:
        """Have the server forget a connection, by its client id, before anything else is sent to this node."""
        with self._lock:
            self._unfenced.setdefault(node, []).append(client)

    def error(self, error: Exception | str, node: Node) -> TargetError:
        """What a driver's exception or an error reply means for the run."""
        text = said(error) if isinstance(error, Exception) else error
        code = text.partition(" ")[0]
        message = f"redis {node}: {text.removesuffix('.')}"
        advice = ""
        if isinstance(error, redis.AuthenticationError) or code in ACCESS:
            advice = "see the user in target.url, and target.password"
        elif "CERTIFICATE_VERIFY_FAILED" in text:
            advice = "see tls_ca and tls_verify"
        elif "cluster support disabled" in text:
            advice = "see target.cluster, which may be auto"
        elif text.startswith(DATABASE):
            advice = "see the database in target.url"
        if advice:
            return TargetError(f"{message}: {advice}", exit_code=Exit.CONFIG)
        if isinstance(error, Exception) and is_local(error):
            return TargetError(message)
        if code in CAPACITY:
            return TargetError(message, transient=True, exit_code=Exit.FAILED)
        if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError) or code in NODE | REDIRECT:
            return TargetError(message, transient=True)
        return TargetError(
            message if code in DATA else f"redis {node}: {' '.join(text.split()[:8])}"
        )  # may quote a row

    def _kill(self, connection: Connection, client: int) -> None:
        connection.send_command("CLIENT", "KILL", "ID", client)
        reply = _response(connection)
        if isinstance(reply, Exception) and "No such client" not in str(reply):
            raise reply

    def _drop(self, node: Node) -> None:
        connection = self._clients.pop(node, None)
        if connection is not None:
            connection.disconnect()

    def _is_cluster(self) -> bool:
        _, text = self._ask_any("INFO", "cluster")
        return b"cluster_enabled:1" in text

    def _read_slots(self) -> SlotMap:
        self._stale, self._looked = False, time.monotonic()
        if not self.cluster:
            if len(self.seeds) > 1:
                raise TargetError(
                    f"redis {self.seeds[0]}: no cluster, but target.url names several servers: name one",
                    exit_code=Exit.CONFIG,
                )
            replication = _info(self.command(self.seeds[0], "INFO", "replication"))
            self.replicated = frozenset(self.seeds if int(replication.get("connected_slaves", 0)) else ())
            return SlotMap.single(self.seeds[0])
        ranges = self.ranges()
        self.replicated = frozenset(nodes[0] for _, _, nodes in ranges if len(nodes) > 1)
        return SlotMap((first, last, nodes[0]) for first, last, nodes in ranges)

    def ranges(self) -> list[tuple[int, int, list[Node]]]:
        """First slot, last slot, and the master followed by its replicas, as the first node that answers sees it."""
        node, rows = self._ask_any("CLUSTER", "SLOTS")
        return [(first, last, [_node(entry, node) for entry in nodes]) for first, last, *nodes in rows]

    def _ask_any(self, *words: str) -> tuple[Node, Any]:
        """The first node that answers a command, of those known and those configured, and its reply."""
        failure: TargetError | None = None
        for node in dict.fromkeys((*(self._slots.nodes if self._slots else ()), *self.seeds)):
            try:
                return node, self.command(node, *words)
            except TargetError as error:
                if not error.transient:
                    raise
                failure = failure or error
        assert failure is not None
        raise failure


def _node(entry: list[Any], asked: Node) -> Node:
    """The node of a CLUSTER SLOTS entry; one that announces no address is where the answer came from."""
    host = (entry[0] or b"").decode()
    return Node(host if host not in {"", "?"} else asked.host, int(entry[1]))


def describe_cluster(target: Target) -> dict[str, Any]:
    """The JSON document `loader.cluster/v1`: each master with its slots, keys (null: no answer) and replicas."""
    ranges = target.ranges() if target.cluster else [(0, SLOTS - 1, [target.seeds[0]])]
    masters: dict[Node, dict[str, Any]] = {}
    for first, last, (master, *replicas) in ranges:
        entry = masters.setdefault(master, {"node": str(master), "slots": 0, "keys": None, "replicas": len(replicas)})
        entry["slots"] += last + 1 - first
    state = "ok"
    for node, entry in masters.items():
        try:
            entry["keys"] = target.command(node, "DBSIZE")
            # CLUSTER SLOTS leaves out a replica that has received nothing yet.
            entry["replicas"] = int(_info(target.command(node, "INFO", "replication"))["connected_slaves"])
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


def _info(text: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


def redirection(text: str, asked: Node) -> Node:
    """The node that `MOVED slot host:port` or `ASK slot host:port` names; no host means the one that was asked."""
    host, _, port = text.split()[2].rpartition(":")
    return Node(host if host not in {"", "?"} else asked.host, int(port))


def said(error: Exception) -> str:
    """An error reply as the server wrote it: redis-py takes the first word away."""
    code = getattr(error, "status_code", None)
    return f"{code} {error}" if code else str(error).strip() or type(error).__name__


def _response(connection: Connection) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
