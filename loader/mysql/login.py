"""Logging in to MySQL: only a server that is known to be the right one gets the password.

PyMySQL answers any request of a server, even with the password itself. Here each request is checked first: `_auth`,
`_process_auth`, `_read_packet` and `_sock` are the internals of PyMySQL that this module uses, see
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html.
"""

import ipaddress
import select
import time
from functools import lru_cache
from typing import Any

from loader.config.servers import SourceConfig
from loader.errors import Kind, SourceError
from loader.mysql.driver import CLIENT, FieldDescriptorPacket, MysqlPacket, _auth, connections
from loader.mysql.errors import CHANGED
from loader.net.greetings import HEARD, MYSQL, speaker
from loader.net.limit import LEAST
from loader.net.probe import FIRST_WORD, overhear

# Ways to log in that give the server the password itself, or encrypted with a key of its choice.
CLEAR = frozenset({b"mysql_clear_password", b"dialog", b"sha256_password"})
CACHED = b"caching_sha2_password"  # by a digest, except for the first login after a start
ALL_OF_IT = b"\x04"
OUTDATED = b"mysql_old_password"
PROTOCOL = 10  # of MySQL, since 1998
# Advice for each.
CLEARTEXT = "source.allow_cleartext if the network is trusted"
SEALED = ("verified TLS (source.tls, tls_ca)", "a unix_socket in source.url", CLEARTEXT)


@lru_cache(512)
def _described(column: bytes, encoding: str) -> FieldDescriptorPacket:
    """The description of a column of a result; nobody changes it."""
    return FieldDescriptorPacket(column, encoding)


class LoginConnection(connections.Connection):  # type: ignore[misc]  # PyMySQL ships no types
    """A connection that gives the password only to a server that is known to be the right one."""

    _auth_plugin_name: str

    def __init__(self, settings: SourceConfig, **options: Any) -> None:
        self.pinned = settings.server_public_key
        super().__init__(**options, server_public_key=self.pinned.read_bytes() if self.pinned else None)
        self._settings = settings
        self.server_capabilities = 0

    def _read_packet(self, packet_type: Any = MysqlPacket) -> Any:
        """The next packet; the same few columns are described again and again."""
        if packet_type is not FieldDescriptorPacket:
            return super()._read_packet(packet_type)
        return _described(super()._read_packet(MysqlPacket).get_all_data(), self.encoding)

    @property
    def offers_tls(self) -> bool:
        """Whether the server can speak TLS."""
        return bool(self.server_capabilities & CLIENT.SSL)

    @property
    def lacks(self) -> str:
        """What an account may be that the config does not do for, for people; empty if there is nothing."""
        if self._settings.tls_cert:
            return ""
        if not self.offers_tls:
            return "needs TLS, which this server does not offer"
        return f"has REQUIRE {'X509: set source.tls_cert and tls_key' if self._settings.tls else 'SSL: set source.tls'}"

    @property
    def is_sealed(self) -> bool:
        """Whether only the right server can read what is sent, or the config allows otherwise."""
        settings = self._settings
        return bool(settings.unix_socket or (settings.tls and settings.tls_verify) or settings.allow_cleartext)

    @property
    def where(self) -> str:
        """The beginning of messages about this connection."""
        settings = self._settings
        return f"mysql {settings.endpoint}: cannot connect"

    @property
    def is_near(self) -> bool:
        """Whether the bytes stay on this machine."""
        return ipaddress.ip_address(self._sock.getpeername()[0].partition("%")[0]).is_loopback

    def refusal(self, why: object, *ways: str) -> SourceError:
        """The error for a refused way to log in, with ways to fix it."""
        return SourceError(f"{self.where}: {why}: {', or '.join(ways)}", kind=Kind.REFUSED)

    def _get_server_information(self) -> None:
        self._recognize()
        super()._get_server_information()
        self._current_timeout = None  # the socket's timeout may be another one, see `_recognize`
        if self.protocol_version != PROTOCOL:
            raise self.refusal(f"the server speaks version {self.protocol_version} of the protocol", "see source.url")
        if self._auth_plugin_name.encode() in CLEAR and not self.is_sealed:
            self._auth_plugin_name = "mysql_native_password"  # under TLS, the name of the user would be sent with it

    def _recognize(self) -> None:
        """Check the first bytes; a `SourceError` names the kind of another server, or says that it is not a server."""
        settings, ends = self._settings, time.monotonic() + self._read_timeout
        patience = min(FIRST_WORD, self._read_timeout / 3)
        if select.select([self._sock], [], [], patience)[0]:
            heard = self._rfile.peek(HEARD)
            if not heard:
                raise SourceError(
                    f"{self.where}: the connection was closed without an answer: see source.url, and any proxy in front"
                    " of the server",
                    kind=Kind.UNAVAILABLE,
                )
        else:
            port = 0 if settings.unix_socket else settings.port
            heard = overhear(settings.unix_socket or settings.host, port, patience)
            self._sock.settimeout(max(LEAST, ends - time.monotonic()))  # the time left for the greeting
        if who := speaker(heard, MYSQL):
            raise self.refusal(f"no MySQL server answers there, but {who}", "see source.url")

    def _get_auth_plugin_handler(self, plugin_name: str | bytes) -> "_Login":
        return _Login(self, plugin_name.encode() if isinstance(plugin_name, str) else plugin_name)


class _Login:
    """One way to log in, as the server requests it; PyMySQL calls it a handler."""

    def __init__(self, connection: LoginConnection, way: bytes) -> None:
        self._connection = connection
        self._way = way

    def authenticate(self, packet: Any) -> Any:
        """Answer a server's packet; return its next one. A `SourceError` if the answer would be the password."""
        connection, way = self._connection, self._way.decode(errors="replace")
        if self._way == OUTDATED:
            raise connection.refusal(f"the server wants {way}, which reveals the password", CHANGED)
        if self._way in CLEAR and connection.password and not connection.is_sealed:
            raise connection.refusal(f"the server asks for the password itself ({way}), which is refused", *SEALED)
        try:
            return self._answer(packet)
        except RuntimeError as error:  # a package is missing
            raise connection.refusal(f"{way}: {error}", CHANGED) from error
        except ValueError as error:
            if connection.pinned:
                raise connection.refusal("source.server_public_key holds no RSA key", SEALED[0]) from error
            raise

    def _answer(self, packet: Any) -> Any:
        connection = self._connection
        if self._way != CACHED or not connection.password:
            return connection._process_auth(self._way, packet)  # noqa: SLF001
        if packet.is_auth_switch_request():
            connection.salt = packet.read_all().removesuffix(b"\0")
            connection.write_packet(_auth.scramble_caching_sha2(connection.password, connection.salt))
            packet = connection._read_packet()  # noqa: SLF001
        if not packet.is_extra_auth_data():
            return packet
        known = connection.is_sealed or connection.ssl or connection.pinned or connection.is_near
        if packet.get_all_data()[1:2] == ALL_OF_IT and not known:
            raise connection.refusal(
                f"the server asks for the password, encrypted with a key that nothing verifies ({CACHED.decode()};"
                " it does so once after each start)",
                "source: {tls: true}",
                "source.server_public_key",
                CLEARTEXT,
            )
        return _auth.caching_sha2_password_auth(connection, packet)
