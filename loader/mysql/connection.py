"""The connection to MySQL, over PyMySQL.

PyMySQL connects, authenticates, sends the query and reads the column definitions. From there `Stream` takes the row
packets as they come, from the connection's buffered reader (`LoginConnection._rfile`), and gives the closing packet
back, so that PyMySQL ends the result itself and raises the server's error; `failures` says what an error means.
"""

import io
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from loader.config.servers import SourceConfig
from loader.errors import ConfigError, Kind, LoaderError, SourceError
from loader.mysql import session
from loader.mysql.driver import SERVER_STATUS, DictCursor, MySQLError, SSCursor, conversions
from loader.mysql.errors import code_of
from loader.mysql.failures import ASKING, CONNECTING, Nonsense, failure_of
from loader.mysql.login import LoginConnection
from loader.mysql.sql import quote
from loader.mysql.stream import PacketBuffer, PacketReader, Stream, WatchedSocket, keep_alive
from loader.net.limit import allowed, until
from loader.net.tls import client_context

CLIENT_SIDE = 2000  # from here on, errors are not the server's own words
SYNTAX = 1064
Row = tuple[str | None, ...]
P = ParamSpec("P")
T = TypeVar("T")


def understood(method: Callable[Concatenate["Connection", P], T]) -> Callable[Concatenate["Connection", P], T]:
    """Make an answer that makes no sense to a method of `Connection` the server's fault."""

    @wraps(method)
    def wrapped(source: "Connection", /, *args: P.args, **kwargs: P.kwargs) -> T:
        with source.asking():
            return method(source, *args, **kwargs)

    return wrapped


class Connection:
    """One MySQL connection, set up so that every server default that could change a value or a result is known.

    A reply may take `read_timeout` of the settings, or `patience` seconds if that is longer; if a server is silent
    until the caller has no more time, it is given up only if it accepts no other connection either. If the server has
    closed an idle connection, the next statement uses a new one. `is_mariadb` tells the server's kind. Raises
    `SourceError`: transient if the server is unreachable, exit code 2 if it refuses the account, or if a variable that
    changes results does not have the value that was set.
    """

    def __init__(self, settings: SourceConfig, patience: int = 0) -> None:
        self.address = settings.endpoint
        self.moved = 0.0  # when rows last came, on the monotonic clock
        self.database = settings.database
        self.user = settings.user or ""
        self._settings = settings
        self.asked = settings, patience
        self.patience = max(settings.read_timeout, patience)
        self._is_lost = False  # it was to be opened again, which failed
        self._open()

    def _open(self) -> None:
        """Connect, and set up the session as results require."""
        settings = self._settings
        self._began = time.monotonic()
        self._wire: WatchedSocket | None = None  # once it has accepted the login
        self._most: int | None = None  # connections that the account may have, once it is known
        self.zone = ""  # the session's, once it is known, see `catalog.time_zone`
        self.lacks_process = False  # once it is known: a session keeps the rights that it began with
        most = allowed(settings.connect_timeout)
        with self.asking(CONNECTING):
            self._connection = LoginConnection(
                settings,
                host=settings.host,
                port=settings.port,
                unix_socket=settings.unix_socket,
                user=settings.user,
                password=settings.secret.encode(),  # as str it would have to be latin-1
                database=settings.database,
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=most,
                read_timeout=min(most, settings.read_timeout),  # of the login: after that, see `WatchedSocket`
                write_timeout=settings.read_timeout,
                conv={key: value for key, value in conversions.items() if type(key) is not int},  # text stays text
                program_name="loader",
                defer_connect=True,
                **_tls(settings),
            )
            self._connection.connect()
            self.is_mariadb = "MariaDB" in self._connection.get_server_info()
        keep_alive(self._connection._rfile.fileno())  # noqa: SLF001
        self._wire = WatchedSocket(self._connection._sock, self.patience, self._lives)  # noqa: SLF001
        self._connection._rfile.close()  # noqa: SLF001
        self._reader = PacketReader(io.BufferedReader(self._wire))
        self._connection._rfile = self._reader  # noqa: SLF001
        try:
            self._state()
        except BaseException:
            self.close()
            raise

    def _state(self) -> None:
        """Set the variables that results depend on, and check that they have these values."""
        settings = self._settings
        wanted = session.stated(mariadb=self.is_mariadb, zone=settings.time_zone, read_timeout=settings.read_timeout)
        self._stated = wanted if self._sets(wanted) else self._one_by_one(wanted)
        lost = [each for each in self.astray() if each.variable.vital]
        if lost:
            raise SourceError(
                f"mysql {self.address}: its session cannot be relied on: {'; '.join(map(str, lost))}:"
                " use MySQL's own address in source.url, or make the proxy in between keep sessions apart",
                kind=Kind.REFUSED,
            )

    def _sets(self, variables: Sequence[session.Variable]) -> bool:
        """Set variables, all or none; false if the server lacks some, or lets nobody set one."""
        try:
            self.fetch(session.setting(variables))
        except SourceError as error:
            if code_of(error.__cause__) in session.UNKNOWN | session.FORBIDDEN and any(
                each.since for each in variables
            ):
                return False
            raise
        return True

    def _one_by_one(self, wanted: Sequence[session.Variable]) -> tuple[session.Variable, ...]:
        """Set those that every server has, then each of the others; return those that the server has."""
        each_has = tuple(each for each in wanted if not each.since)
        self._sets(each_has)
        found = []
        for variable in wanted:
            if variable.since:
                try:
                    self.fetch(session.setting([variable]))
                except SourceError as error:
                    if code_of(error.__cause__) not in session.UNKNOWN | session.FORBIDDEN:
                        raise
                    if code_of(error.__cause__) in session.UNKNOWN:
                        continue
                found.append(variable)
        return (*each_has, *found)

    def astray(self) -> list[session.Astray]:
        """The variables that are not what was set."""
        return session.astray(self._stated, self.single(session.asking(self._stated), len(self._stated)))

    @property
    def is_clean(self) -> bool:
        """Whether it is open, outside any transaction, and awaits nothing: so that somebody else may use it."""
        login = self._connection
        if not login.open or (login._result and login._result.unbuffered_active):  # noqa: SLF001
            return False
        status = login.server_status or 0
        return not status & SERVER_STATUS.SERVER_STATUS_IN_TRANS and bool(
            status & SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection.open:
            self._connection.close()

    @contextmanager
    def asking(self, doing: str = ASKING) -> Iterator[None]:
        """Turn any error within into a `LoaderError`; an error of neither MySQL nor a socket is nonsense."""
        try:
            yield
        except (LoaderError, MemoryError):
            raise
        except Exception as error:
            raise self.failure(error, doing) from error

    def cursor(self, kind: Any = None) -> Any:
        """A cursor, on a new connection if the server has closed this one while it was idle."""
        wire, connection = self._wire, self._connection
        if self._is_lost or (wire and connection.open and wire.is_over()):
            connection._force_close()  # noqa: SLF001
            self._is_lost = False
            try:
                self._open()
            except BaseException:
                self._is_lost = True
                raise
        return self._connection.cursor(kind)

    def fetch(self, sql: str, args: Sequence[str] | None = None) -> list[Row]:
        """Rows of a small result, every value as the server's text."""
        with self.asking(), self.cursor() as cursor, self._small():
            cursor.execute(sql, args)
            rows: list[Row] = list(cursor.fetchall())
            columns = len(cursor.description or ())
            if any(len(row) != columns for row in rows) or (not columns and sql.startswith(("SELECT", "SHOW"))):
                raise Nonsense("a result that lacks columns")
            return rows

    def single(self, sql: str, columns: int = 1) -> Row:
        """The only row of a result with this many columns."""
        rows = self.fetch(sql)
        with self.asking():
            if [len(row) for row in rows] != [columns]:
                raise Nonsense(f"{len(rows)} rows instead of one with {columns} columns")
            return rows[0]

    def use(self, database: str) -> None:
        """Make a database the one that names of tables are of, also after the connection was replaced."""
        if database != self.database:
            self.fetch(f"USE {quote(database)}")
            self.database = database
            self._settings = self._settings.at_database(database)
            self.asked = self._settings, self.asked[1]

    @understood
    def lag(self) -> int | None:
        """Seconds that this server is behind the one it replicates; None if it does not replicate."""
        for words in ("REPLICA", "SLAVE"):  # older servers know only the older word
            try:
                with self.cursor(DictCursor) as cursor:
                    cursor.execute(f"SHOW {words} STATUS")
                    status = cursor.fetchone()
            except (MySQLError, OSError) as error:
                if code_of(error) == SYNTAX and words == "REPLICA":
                    continue
                raise self.failure(
                    error, "cannot see its replication (REPLICATION CLIENT, or REPLICA MONITOR)"
                ) from error
            break
        if not status:
            raise ConfigError(f"mysql {self.address}: is not a replica: see source.replica")
        seconds = status.get("Seconds_Behind_Source", status.get("Seconds_Behind_Master"))
        return None if seconds is None else int(seconds)

    @understood
    def is_read_only(self) -> bool:
        """Whether the server is read-only: a replica, whose rows may arrive later than their stamps say."""
        (value,) = self.single("SELECT @@GLOBAL.read_only")
        return value not in {"0", "OFF"}

    @understood
    def most_connections(self) -> int | None:
        """Connections that the account may have at the same time; None if it has no limit of its own."""
        if self._most is None:  # it is that of the login
            (value,) = self.single("SELECT @@SESSION.max_user_connections")
            self._most = int(value or 0)
        return self._most if self._most > 0 else None

    def stream(self, sql: str) -> "Stream":
        """Row packets of a statement; the connection does nothing else until the stream is left."""
        with self.asking():
            cursor = self.cursor(SSCursor)
            cursor.execute(sql)
        return Stream(self, cursor, self._reader)

    def command(self, command: bytes, what: str) -> PacketBuffer:
        """Send a command that is answered by packets without end; the connection does nothing else from then on."""
        with self.asking():
            self._connection._write_bytes(struct.pack("<I", len(command)) + command)  # noqa: SLF001
        return PacketBuffer(self, self._reader, what)

    def _small(self) -> AbstractContextManager[None]:
        return self._wire.small() if self._wire else nullcontext()

    def _lives(self, seconds: float) -> bool:
        """Whether the server accepts another connection: then it is busy, and silent because of that."""
        try:
            with until(time.monotonic() + seconds):
                Connection(self._settings).close()
        except LoaderError as error:
            code = code_of(error.__cause__)
            return code is not None and code < CLIENT_SIDE
        return True

    def failure(self, error: Exception, doing: str) -> LoaderError:
        """The error to raise for one that was caught, and how long the server had been silent."""
        login = getattr(self, "_connection", None)  # none while the first one is made
        failure = failure_of(error, doing, self.address, self._settings.user, login)
        failure.waited = self._wire.silent if self._wire else time.monotonic() - self._began
        return failure


def _tls(settings: SourceConfig) -> dict[str, Any]:
    """TLS or, if the config says so, none: never PyMySQL's default, which tries and falls back."""
    return {"ssl": client_context(settings, "source")} if settings.tls else {"ssl_disabled": True}
