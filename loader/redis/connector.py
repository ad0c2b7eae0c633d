"""Making connections to the nodes of a Redis, and finding out why one cannot be reached."""

import secrets
from collections.abc import Iterator
from itertools import count
from typing import Any

from loader.config.servers import TargetConfig
from loader.errors import Kind, TargetError, is_local
from loader.model import Node
from loader.net.greetings import REDIS, TLS, speaker
from loader.net.probe import overhear, speaks_tls, wants_certificate
from loader.net.tls import UNSHOWN, client_context
from loader.redis.connections import TcpConnection, TlsConnection, UnixConnection
from loader.redis.driver import NoBackoff, Retry, exceptions
from loader.redis.errors import ANSWERED, ENCRYPTED, error_text, reason_of
from loader.redis.topology import Topology

CONNECT = 5.0  # seconds in which a TCP connection must be established


class Connector:
    """Makes the connections of one client, each with its own name (see CLIENT LIST), and explains failures.

    The connections of a client that is made `beside` another have the same names; another `name` may be given.
    """

    def __init__(
        self, settings: TargetConfig, topology: Topology, beside: "Connector | None" = None, name: str = ""
    ) -> None:
        own = name or f"loader-{secrets.token_hex(6)}"
        self.name: str = beside.name if beside else own  # the beginning of all names
        self._numbers: Iterator[int] = beside._numbers if beside else count(1)  # noqa: SLF001  # one count for both
        self._settings = settings
        self._topology = topology

    def make(self, node: Node, patience: float) -> Any:
        """A connection to a node, not opened yet, with a time limit in seconds."""
        settings = self._settings
        options: dict[str, Any] = {
            "username": settings.user,
            "password": settings.secret or None,
            "db": settings.db,
            "socket_timeout": patience,
            "socket_connect_timeout": min(patience, CONNECT),
            "client_name": f"{self.name}-{next(self._numbers)}",
            "protocol": 2,
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),
        }
        connection: Any
        if not node.port:
            connection = UnixConnection(path=node.host, **options)  # type: ignore[abstract]
        else:
            host, port = settings.reached_at(node.host, node.port)
            options |= {"host": host, "port": port, "socket_keepalive": True}
            connection = TlsConnection(**options) if settings.tls else TcpConnection(**options)
            if settings.tls:
                connection.context = client_context(settings, "target")
        connection.time.begin(patience)
        return connection

    def unreached(self, error: Exception, node: Node, failure: TargetError) -> TargetError:
        """The failure to connect to a node, with its cause: an announced address may be one for other networks."""
        if who := self._other_than_redis(error, node):
            return TargetError(
                f"redis {node}: no Redis server answers there, but {who}: see target.url", kind=Kind.REFUSED
            )
        if why := self._spoken_wrongly(error, node):
            return TargetError(f"redis {node}: {error_text(error).removesuffix('.')}: {why}", kind=Kind.REFUSED)
        if failure.kind is not Kind.UNAVAILABLE or isinstance(error, exceptions.BusyLoadingError):
            return failure
        by, dialled = self._topology.announcers.get(node), self._dialled(node)
        message = (
            f"redis {node} (announced by {by}): cannot connect: {reason_of(error)}: does it run? Else"
            " see cluster-announce-ip (or -hostname) of that node, which has to work from here, or target.addresses"
        )
        if by is None or node in self._topology.seeds or node in self._topology.reached:
            message = f"{failure}: see whether the server runs, and target.url (rediss:// for TLS)"
        if dialled != node:
            message = (
                f"redis {node} (reached at {dialled} by target.addresses): cannot connect: {reason_of(error)}:"
                " see whether the server runs, and target.addresses"
            )
        unreached = TargetError(message, kind=Kind.UNAVAILABLE)
        unreached.node, unreached.waited = str(node), failure.waited
        return unreached

    def _is_odd(self, error: Exception, node: Node) -> bool:
        """Whether a server that was never reached closes connections, or answers, as Redis does not."""
        if node in self._topology.reached or is_local(error) or isinstance(error, ANSWERED):
            return False
        return isinstance(error, exceptions.ConnectionError | exceptions.InvalidResponse)

    def _other_than_redis(self, error: Exception, node: Node) -> str:
        """The kind of server that answers instead of Redis; empty if unknown."""
        dialled = self._dialled(node)
        return speaker(overhear(dialled.host, dialled.port), REDIS, TLS) if self._is_odd(error, node) else ""

    def _spoken_wrongly(self, error: Exception, node: Node) -> str:
        """Advice for a server that was never reached and expects TLS or plaintext; empty if unknown."""
        if not node.port or not self._is_odd(error, node):
            return ""
        host, port = self._settings.reached_at(node.host, node.port)
        if not self._settings.tls:
            return ENCRYPTED if speaks_tls(host, port) else ""
        if self._settings.tls_cert:
            return ""
        return UNSHOWN if wants_certificate(host, port, client_context(self._settings, "target")) else ""

    def _dialled(self, node: Node) -> Node:
        return Node(*self._settings.reached_at(node.host, node.port))
