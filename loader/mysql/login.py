"""How the loader logs in to MySQL: nobody gets the password but a server that is known to be the right one.

PyMySQL answers whatever a server asks, with the password itself where it asks for that. Here each question is looked
at first: `_auth`, `_process_auth`, `_read_packet` and `_sock` are what this room knows of PyMySQL's inside, see
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html.
"""

import ipaddress
import select
import time
from typing import Any

from pymysql import _auth, connections
from pymysql.constants import CLIENT

from loader.config.servers import SourceConfig
from loader.errors import Kind, SourceError
from loader.mysql.errors import CHANGED
from loader.net.greetings import HEARD, MYSQL, speaker
from loader.net.limit import LEAST
from loader.net.probe import FIRST_WORD, overhear

# Ways to log in by which the server gets the password itself, or a key of its choice encrypts it.
CLEAR = frozenset({b"mysql_clear_password", b"dialog", b"sha256_password"})
CACHED = b"caching_sha2_password"  # by a digest, but for the first login after a start, which asks for all of it
ALL_OF_IT = b"\x04"
OUTDATED = b"mysql_old_password"
PROTOCOL = 10  # of MySQL, since 1998
# What to do about it.
CLEARTEXT = "source.allow_cleartext where the network is trusted"
SEALED = ("verified TLS (source.tls, tls_ca)", "a unix_socket in source.url", CLEARTEXT)


class LoginConnection(connections.Connection):  # type: ignore[misc]  # PyMySQL ships no types
    """A connection that gives the password away to nobody but a server that is known to be the right one."""

    _auth_plugin_name: str

    def __init__(self, settings: SourceConfig, **options: Any) -> None:
        self.pinned = settings.server_public_key
        super().__init__(**options, server_public_key=self.pinned.read_bytes() if self.pinned else None)
        self._settings = settings
        self.server_capabilities = 0

    @property
    def offers_tls(self) -> bool:
        """Whether the server can speak TLS."""
        return bool(self.server_capabilities & CLIENT.SSL)

    @property
    def lacks(self) -> str:
        """What an account may ask for and the config does not name, in words; empty where there is nothing."""
        if self._settings.tls_cert:
            return ""
        if not self.offers_tls:
            return "TLS, which this server does not offer, and an account may need"
        return f"{'a tls_cert' if self._settings.tls else 'TLS'}, which an account may REQUIRE"

    @property
    def is_sealed(self) -> bool:
        """Whether nobody but the right server gets what is sent, or the config allows whatever comes of it."""
        settings = self._settings
        return bool(settings.unix_socket or (settings.tls and settings.tls_verify) or settings.allow_cleartext)

    @property
    def where(self) -> str:
        """How a message about this connection begins."""
        settings = self._settings
        return f"mysql {settings.endpoint}: cannot connect"

    @property
    def is_near(self) -> bool:
        """Whether what is sent does not leave this machine."""
        return ipaddress.ip_address(self._sock.getpeername()[0].partition("%")[0]).is_loopback

    def refusal(self, why: object, *ways: str) -> SourceError:
        """The error that the loader does not log in as the server asks it to, and what would help."""
        return SourceError(f"{self.where}: {why}: {', or '.join(ways)}", kind=Kind.REFUSED)

    def _get_server_information(self) -> None:
        self._recognize()
        super()._get_server_information()
        self._current_timeout = None  # that of the socket may be another one, see `_recognize`
        if self.protocol_version != PROTOCOL:
            raise self.refusal(f"the server speaks version {self.protocol_version} of the protocol", "see source.url")
        if self._auth_plugin_name.encode() in CLEAR and not self.is_sealed:
            self._auth_plugin_name = "mysql_native_password"  # under TLS it would be sent with the name of the user

    def _recognize(self) -> None:
        """Look at what is heard first; a `SourceError` names who else it is, or says that it is nobody."""
        settings, ends = self._settings, time.monotonic() + self._read_timeout
        patience = min(FIRST_WORD, self._read_timeout / 3)
        if select.select([self._sock], [], [], patience)[0]:
            heard = self._rfile.peek(HEARD)
            if not heard:
                raise SourceError(
                    f"{self.where}: the connection is closed without a word: see source.url, and what stands before"
                    " the server",
                    kind=Kind.UNAVAILABLE,
                )
        else:
            port = 0 if settings.unix_socket else settings.port
            heard = overhear(settings.unix_socket or settings.host, port, patience)
            self._sock.settimeout(max(LEAST, ends - time.monotonic()))  # what is left for the greeting
        if who := speaker(heard, MYSQL):
            raise self.refusal(f"no MySQL server answers there, but {who}", "see source.url")

    def _get_auth_plugin_handler(self, plugin_name: str | bytes) -> "_Login":
        return _Login(self, plugin_name.encode() if isinstance(plugin_name, str) else plugin_name)


class _Login:
    """One way to log in, as the server asks for it; what PyMySQL calls its handler."""

    def __init__(self, connection: LoginConnection, way: bytes) -> None:
        self._connection = connection
        self._way = way

    def authenticate(self, packet: Any) -> Any:
        """Answer a server's packet; its next one. A `SourceError` where the answer would be the password."""
        connection, way = self._connection, self._way.decode(errors="replace")
        if self._way == OUTDATED:
            raise connection.refusal(f"the server wants {way}, from which the password can be told", CHANGED)
        if self._way in CLEAR and connection.password and not connection.is_sealed:
            raise connection.refusal(f"the server asks for the password itself ({way}), which it does not get", *SEALED)
        try:
            return self._answer(packet)
        except RuntimeError as error:  # a package is missing
            raise connection.refusal(f"{way}: {error}", CHANGED) from error
        except ValueError as error:
            if connection.pinned:
                raise connection.refusal("source.server_public_key holds no key of RSA", SEALED[0]) from error
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
                f"the server asks for the password, encrypted by a key that nothing vouches for ({CACHED.decode()};"
                " it does so once after each start)",
                "source: {tls: true}",
                "source.server_public_key",
                CLEARTEXT,
            )
        return _auth.caching_sha2_password_auth(connection, packet)
