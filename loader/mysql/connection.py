"""MySQL, and with `login` the only room that knows PyMySQL.

PyMySQL connects, authenticates, sends the query and reads the column definitions. From there `Stream` takes the row
packets as they come, from the connection's buffered reader (`LoginConnection._rfile`), and gives the closing packet
back, so that PyMySQL ends the result itself and raises what the server said.
Whatever else it raises is an answer of no MySQL.
"""

import io
import os
import random
import re
import select
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, wraps
from math import inf
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from zlib import crc32

import pymysql
from pymysql.constants import FIELD_TYPE, FLAG
from pymysql.converters import conversions
from pymysql.cursors import DictCursor, SSCursor

from loader.config.models import SourceConfig
from loader.errors import ConfigError, Exit, LoaderError, PlanError, SourceError, StartOver, is_local
from loader.model import Bar, Barred, Column, Shape, Table, TableSummary
from loader.mysql import session
from loader.mysql.errors import ADVICE, Kind, advice, kind_of, statement
from loader.mysql.forms import INTEGERS, TIMES, UNKNOWN
from loader.mysql.login import LoginConnection
from loader.mysql.write_statements import may_write
from loader.net import limit
from loader.net.limit import allowed, until
from loader.net.tls import PLAIN, client_context, meaning

BUFFER = 256 * 1024  # bytes read at a time; larger reads save nothing more
# Seconds of idleness before a sign of life, seconds between signs, and signs without an answer that end a connection:
# what forgets idle connections does so after minutes, and MySQL may think that long about a statement.
KEEP_ALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
TICK = 1.0  # seconds between two looks at how long a server has been silent
PROBE = 2.0  # seconds that a server which is silent has to let somebody else in
SLOWEST = 128  # bytes of a small result that may take a second longer: less is no connection
CLIENT_SIDE = 2000  # from here on, errors are not the server's own words
HEADER = 4
CONNECTING, AMID_ROWS = "cannot connect", "query ended early"
THIS_TABLE = "table_schema = DATABASE() AND table_name = %s"
# Why an index is not read along, a word of `Bar`; what older servers do not know stands in comments that they skip.
BAR = (
    "CASE WHEN comment = 'disabled' THEN 'disabled'"
    " /*M!100600 WHEN ignored = 'YES' THEN 'ignored' */"
    " /*!80000 WHEN is_visible = 'NO' AND NOT FIND_IN_SET('use_invisible_indexes=on', @@optimizer_switch)"
    " THEN 'invisible' */"
    " WHEN index_type = 'HASH' THEN 'hash' ELSE '' END"
)
ORDERED = frozenset({"BTREE", "LSMTREE"})
ROW_START, ROW_END = "ROW START", "ROW END"  # what MariaDB says of the columns of a period of system time

NO_SELECT = frozenset({1142, 1143})  # from a table, or a column of it
DENIED = 1045
LOGIN = frozenset({DENIED, 1698})  # another password may be the right one
GENERATED = re.compile(r"\b(virtual|stored|persistent)\b")  # in what MySQL says about a column
# What a result says of its columns, see `_result_column`.
RESULT_TYPES = {
    FIELD_TYPE.TINY: "tinyint", FIELD_TYPE.SHORT: "smallint", FIELD_TYPE.INT24: "mediumint", FIELD_TYPE.LONG: "int",
    FIELD_TYPE.LONGLONG: "bigint", FIELD_TYPE.DECIMAL: "decimal", FIELD_TYPE.NEWDECIMAL: "decimal",
    FIELD_TYPE.FLOAT: "float", FIELD_TYPE.DOUBLE: "double", FIELD_TYPE.BIT: "bit", FIELD_TYPE.YEAR: "year",
    FIELD_TYPE.DATE: "date", FIELD_TYPE.NEWDATE: "date", FIELD_TYPE.TIME: "time", FIELD_TYPE.DATETIME: "datetime",
    FIELD_TYPE.TIMESTAMP: "timestamp", FIELD_TYPE.STRING: "char", FIELD_TYPE.VAR_STRING: "varchar",
    FIELD_TYPE.VARCHAR: "varchar", FIELD_TYPE.TINY_BLOB: "blob", FIELD_TYPE.BLOB: "blob",
    FIELD_TYPE.MEDIUM_BLOB: "blob", FIELD_TYPE.LONG_BLOB: "blob", FIELD_TYPE.JSON: "json",
}  # fmt: skip
BINARY_TYPES = {"char": "binary", "varchar": "varbinary", "blob": "longblob"}
BINARY_CHARSET = 63  # of bytes and numbers
UTF8MB4_BYTES = 4  # that a length counts for each character
NOT_FIXED = 31  # decimals of what may have any number of them
WORD_FLAGS = FLAG.UNSIGNED | FLAG.BINARY  # which MariaDB sets for a CHAR that is a UUID or an address
WORD_SIZES = {36: "uuid", 15: "inet4", 39: "inet6"}
CACHED = 0.1  # seconds for which InnoDB does not look anew at transactions since somebody asked last
LOOKS = 20  # times that they are asked for until the answer is new
NO_COLUMN = 1054
NO_SERVER, LOST = 2003, 2013
NO_PROCESS = 1227
SYNTAX = 1064
IDLE = "'Sleep', 'Daemon', 'Binlog Dump', 'Binlog Dump GTID'"  # what a connection does that runs no statement
Row = tuple[str | None, ...]
P = ParamSpec("P")
T = TypeVar("T")


class _Nonsense(Exception):
    """A server's answer that MySQL would not give."""


def _understood(method: Callable[Concatenate["Connection", P], T]) -> Callable[Concatenate["Connection", P], T]:
    """Have an answer that makes no sense to a method of `Connection` be the server's fault."""

    @wraps(method)
    def wrapped(source: "Connection", /, *args: P.args, **kwargs: P.kwargs) -> T:
        with source.asking():
            return method(source, *args, **kwargs)

    return wrapped


class Connection:
    """One MySQL connection, set up so that every server default that could change a value or a result is known.

    A reply may take `read_timeout` of the settings, or `patience` seconds where that is longer; a server that is silent
    for so long that whoever tries has no more time is given up only where it lets nobody else in either. Where the
    server has ended the connection while nothing was asked of it, the next statement goes over a new one.
    Raises `SourceError`: transient where the server is unreachable, exit code 2 where it refuses the account, or where
    a variable that changes results is not what was set.
    """

    def __init__(self, settings: SourceConfig, patience: int = 0) -> None:
        self.address = settings.unix_socket or f"{settings.host}:{settings.port}"
        self.moved = 0.0  # when rows last came, on the monotonic clock
        self._database = settings.database
        self._settings = settings
        self._patience = max(settings.read_timeout, patience)
        self._open()

    def _open(self) -> None:
        """Connect, and have the session be what results depend on."""
        settings = self._settings
        self._began = time.monotonic()
        self._wire: _Socket | None = None  # once it has let us in
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
                read_timeout=min(most, settings.read_timeout),  # of the login: after that, see `_Socket`
                write_timeout=settings.read_timeout,
                conv={key: value for key, value in conversions.items() if type(key) is not int},  # text stays text
                program_name="loader",
                defer_connect=True,
                **_tls(settings),
            )
            self._connection.connect()
        _keep_alive(self._connection._rfile.fileno())  # noqa: SLF001
        self._wire = _Socket(self._connection._sock, self._patience, self._lives)  # noqa: SLF001
        self._connection._rfile.close()  # noqa: SLF001
        self._reader = _Reader(io.BufferedReader(self._wire))
        self._connection._rfile = self._reader  # noqa: SLF001
        try:
            self._state()
        except BaseException:
            self.close()
            raise

    def _state(self) -> None:
        """Set the variables that results depend on, and make sure that they are so."""
        settings = self._settings
        wanted = session.stated(mariadb=self.is_mariadb, zone=settings.time_zone, read_timeout=settings.read_timeout)
        self._stated = wanted if self._sets(wanted) else self._one_by_one(wanted)
        lost = [each for each in self.astray() if each.variable.vital]
        if lost:
            raise SourceError(
                f"mysql {self.address}: its session cannot be relied on: {'; '.join(map(str, lost))}:"
                " name MySQL itself in source.url, or have what stands between keep sessions apart",
                exit_code=Exit.CONFIG,
            )

    def _sets(self, variables: Sequence[session.Variable]) -> bool:
        """Set variables, all or none; false where the server has not all of them, or lets nobody set one."""
        try:
            self.fetch(session.setting(variables))
        except SourceError as error:
            if _code(error.__cause__) in session.UNKNOWN | session.FORBIDDEN and any(each.since for each in variables):
                return False
            raise
        return True

    def _one_by_one(self, wanted: Sequence[session.Variable]) -> tuple[session.Variable, ...]:
        """Set those that each server has, then each of the others; those that the server has."""
        each_has = tuple(each for each in wanted if not each.since)
        self._sets(each_has)
        found = []
        for variable in wanted:
            if variable.since:
                try:
                    self.fetch(session.setting([variable]))
                except SourceError as error:
                    if _code(error.__cause__) not in session.UNKNOWN | session.FORBIDDEN:
                        raise
                    if _code(error.__cause__) in session.UNKNOWN:
                        continue
                found.append(variable)
        return (*each_has, *found)

    def astray(self) -> list[session.Astray]:
        """The variables that are not what was set."""
        return session.astray(self._stated, self.single(session.asking(self._stated), len(self._stated)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the server."""
        if self._connection.open:
            self._connection.close()

    @contextmanager
    def asking(self, doing: str = "query refused") -> Iterator[None]:
        """Have any error within be a `LoaderError`: what is none of MySQL's or a socket's is nonsense."""
        try:
            yield
        except (LoaderError, MemoryError):
            raise
        except Exception as error:
            raise self._error(error, doing) from error

    def _cursor(self, kind: Any = None) -> Any:
        """A cursor, on a new connection where the server has ended this one while it was idle."""
        wire, connection = self._wire, self._connection
        if wire and connection.open and wire.is_over():
            connection._force_close()  # noqa: SLF001
            self._open()
        return self._connection.cursor(kind)

    def fetch(self, sql: str, args: Sequence[str] | None = None) -> list[Row]:
        """Rows of a small result, every value as the server's text."""
        with self.asking(), self._cursor() as cursor, self._small():
            cursor.execute(sql, args)
            rows: list[Row] = list(cursor.fetchall())
            columns = len(cursor.description or ())
            if any(len(row) != columns for row in rows) or (not columns and sql.startswith(("SELECT", "SHOW"))):
                raise _Nonsense("a result that lacks columns")
            return rows

    def single(self, sql: str, columns: int = 1) -> Row:
        """The only row of a result of so many columns."""
        rows = self.fetch(sql)
        with self.asking():
            if [len(row) for row in rows] != [columns]:
                raise _Nonsense(f"{len(rows)} rows where there is one of {columns} columns")
            return rows[0]

    @_understood
    def lag(self) -> int | None:
        """Seconds that this server is behind the one it replicates; None while it does not replicate."""
        for words in ("REPLICA", "SLAVE"):  # the older servers know only the older word
            try:
                with self._cursor(DictCursor) as cursor:
                    cursor.execute(f"SHOW {words} STATUS")
                    status = cursor.fetchone()
            except (pymysql.MySQLError, OSError) as error:
                if _code(error) == SYNTAX and words == "REPLICA":
                    continue
                raise self._error(
                    error, "cannot see its replication (REPLICATION CLIENT, or REPLICA MONITOR)"
                ) from error
            break
        if not status:
            raise ConfigError(f"mysql {self.address}: is no replica: see source.replica")
        seconds = status.get("Seconds_Behind_Source", status.get("Seconds_Behind_Master"))
        return None if seconds is None else int(seconds)

    @_understood
    def oldest_writer(self) -> int | None:
        """Seconds since the oldest of what changes rows began, or a little more; 0 without any, None if hidden.

        That is a transaction that has locked anything, be there a row changed or not, or a statement that may write: it
        stamps rows with the time it began at, however long it looks for them, computes or waits.

        They are seen with the PROCESS right. The beginning of a transaction is told in the server's local time: where
        its clocks were set back during the last day, they count as so much older. The server's answer is an old one
        while others ask all the time: one that holds a transaction of our own is new.
        """
        now, before = "UTC_TIMESTAMP()", "UTC_TIMESTAMP() - INTERVAL 1 DAY"
        now_there = f"CONVERT_TZ({now}, '+00:00', 'SYSTEM')"
        ahead = "TIMESTAMPDIFF(SECOND, {0}, CONVERT_TZ({0}, '+00:00', 'SYSTEM'))"
        running = self._oldest_statement()  # asked first: one that ends meanwhile has committed, or left a transaction
        self.fetch("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self.fetch("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        try:
            for _ in range(LOOKS):
                seen, age = self.single(
                    "SELECT MAX(trx_mysql_thread_id = CONNECTION_ID()),"
                    " MAX(IF(trx_rows_modified > 0 OR trx_lock_structs > 0,"
                    f" TIMESTAMPDIFF(SECOND, trx_started, {now_there}), NULL)) + 1"
                    f" + GREATEST(0, {ahead.format(f'({before})')} - {ahead.format(now)})"
                    " FROM information_schema.innodb_trx",
                    2,
                )
                if seen == "1":
                    return max(0, running, int(age or 0))
                time.sleep(random.uniform(1, 2) * CACHED)  # noqa: S311  # out of step with who asks too
        except SourceError as error:
            if _code(error.__cause__) == NO_PROCESS:
                return None
            raise
        finally:
            self.fetch("COMMIT")
        raise SourceError(f"mysql {self.address}: tells old news of its transactions", transient=True)

    def _oldest_statement(self) -> int:
        """Seconds that the longest running statement that may write has taken, rounded up; 0 without one.

        Whoever runs it: a client, an event, or what applies the statements of another server.
        """
        running = self.fetch(
            f"SELECT time + 1, CONVERT({self._running[1]} USING ascii) FROM {self._running[0]}"
            f" WHERE id <> CONNECTION_ID() AND info IS NOT NULL AND command NOT IN ({IDLE}) ORDER BY time DESC"
        )
        return next((int(age or 0) for age, text in running if may_write(text or "")), 0)

    @cached_property
    def _running(self) -> tuple[str, str]:
        """The table of what the server does now, and its column of the statements.

        MySQL cannot show some statements in the older table, and fails: those with bytes that are no text.
        """
        if self.is_mariadb:
            return "information_schema.processlist", "info_binary"
        ((there,),) = self.fetch("SELECT @@performance_schema")
        return "performance_schema.processlist" if there == "1" else "information_schema.processlist", "info"

    @property
    def is_mariadb(self) -> bool:
        """Whether it is a MariaDB server."""
        return "MariaDB" in self._connection.get_server_info()

    @_understood
    def is_read_only(self) -> bool:
        """Whether the server takes no writes of its own: a replica, whose rows may come later than their stamps say."""
        (value,) = self.single("SELECT @@GLOBAL.read_only")
        return value not in {"0", "OFF"}

    @_understood
    def most_connections(self) -> int | None:
        """Connections that the account may have at the same time; None where it has no limit of its own."""
        (value,) = self.single("SELECT @@SESSION.max_user_connections")
        most = int(value or 0)
        return most if most > 0 else None

    @_understood
    def listing(self) -> list[TableSummary]:
        """The tables and views of the database that the account may see, by name."""
        tables = self.fetch(
            "SELECT table_name, table_type, table_rows, data_length + index_length, table_comment"
            " FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type <> 'SEQUENCE'"
            " ORDER BY table_name"
        )
        keys, stamps, generated = (defaultdict[str, list[str]](list) for _ in range(3))
        for table, column in self.fetch(
            "SELECT table_name, column_name FROM information_schema.statistics"
            " WHERE table_schema = DATABASE() AND index_name = 'PRIMARY' ORDER BY table_name, seq_in_index"
        ):
            keys[str(table)].append(str(column))
        for table, column, extra, made in self.fetch(
            "SELECT table_name, column_name, LOWER(extra), generation_expression FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND extra <> '' ORDER BY ordinal_position"
        ):
            if made == ROW_END and column in keys[str(table)]:
                keys[str(table)].remove(str(column))
            if "on update" in str(extra) or made == ROW_START:
                stamps[str(table)].append(str(column))
            if GENERATED.search(str(extra)):
                generated[str(table)].append(str(column))
        return [
            TableSummary(
                name=str(name),
                is_view=kind == "VIEW",
                rows=None if rows is None else int(rows),
                bytes=None if size is None else int(size),
                comment="" if kind == "VIEW" else str(comment or ""),
                primary_key=tuple(keys[str(name)]),
                stamps=tuple(stamps[str(name)]),
                generated=tuple(generated[str(name)]),
            )
            for name, kind, rows, size, comment in tables
        ]

    @_understood
    def table(self, name: str) -> Table:
        """What MySQL says about a table; a `PlanError` where there is none that the account may read."""
        quoted = _quote(name)
        try:
            self.fetch(f"SELECT 1 FROM {quoted} LIMIT 0")
        except SourceError as error:
            code = _code(error.__cause__)
            if code in NO_SELECT:
                raise SourceError(
                    f"mysql {self.address}: no right to read table {name!r} (or there is no such table): "
                    f"{self.grant(name)}{self._elsewhere(name)}",
                    exit_code=Exit.CONFIG,
                ) from error
            if kind_of(code) is not Kind.GONE and (error.transient or error.exit_code == Exit.CONFIG):
                raise
            message = f"mysql {self.address}: table {name!r}: {_text(error.__cause__)}{self._elsewhere(name)}"
            raise _misfit(message, code) from error
        # Of a table with a history the estimate counts that too, so it says nothing.
        found = self.fetch(f"SELECT table_type, table_rows FROM information_schema.tables WHERE {THIS_TABLE}", [name])
        kind, rows = found[0] if len(found) == 1 else ("", None)
        has_history = kind == "SYSTEM VERSIONED"
        return replace(
            self.definition(name),
            rows_estimate=None if rows is None or has_history else int(rows),
            is_view=kind == "VIEW",
            has_history=has_history,
            withheld=self._withheld(quoted),
        )

    def _elsewhere(self, name: str) -> str:
        """What is to be done where the name may hold that of a database too, in words."""
        database, dot, table = name.partition(".")
        if not (database and dot and table):
            return ""
        if database == self._database:
            return f": the database is that of source.url, so write table: {table}"
        return (
            f": a table is named without its database, which is {self._database!r} by source.url:"
            f' name {database!r} there, or write query: "SELECT … FROM {name}"'
        )

    def _withheld(self, quoted: str) -> str:
        """Why columns of a table are hidden from an account that may read others; empty where all are seen."""
        try:
            self.fetch(f"SELECT * FROM {quoted} LIMIT 0")
        except SourceError as error:
            if _code(error.__cause__) not in NO_SELECT:
                raise
            return _text(error.__cause__)
        return ""

    def grant(self, table: str, columns: Sequence[str] = ()) -> str:
        """The statement that lets the loader read a table, or some of its columns."""
        which = f" ({', '.join(map(_quote, columns))})" if columns else ""
        return f"GRANT SELECT{which} ON {self._database}.{_quote(table)} TO the loader's account"

    @_understood
    def definition(self, name: str) -> Table:
        """Columns and keys of a table as they are now; no columns where it is not there any more."""
        # The columns come last: where the table goes away in between, it is seen to be gone.
        indexes = self.fetch(
            f"SELECT index_name, column_name, sub_part, nullable, non_unique, index_type, {BAR}, table_name"
            f" FROM information_schema.statistics WHERE {THIS_TABLE} ORDER BY index_name, seq_in_index",
            [name],
        )
        columns = self.fetch(
            "SELECT column_name, data_type, column_type, character_set_name, is_nullable, extra, collation_name,"
            " generation_expression, table_name FROM information_schema.columns"
            f" WHERE {THIS_TABLE} ORDER BY ordinal_position",
            [name],
        )
        # Where names differ by letter case alone, information_schema may answer with the columns of both tables.
        names = {row[-1] for row in columns}
        exact = name if name in names else next(iter(names), name)
        made = {str(row[0]): str(row[-2]) for row in columns if row[-1] == exact}
        parts: dict[str, list[Row]] = {}
        for row in indexes:
            if row[-1] == exact:
                parts.setdefault(str(row[0]), []).append(row[1:-1])
        each = [_index(index, found, made) for index, found in parts.items()]
        unique = {index.name: index.columns for index in each if index.is_key}
        walked = {index.columns for index in each if index.is_key and not index.bar}
        return Table(
            name=name,
            columns=tuple(_column(row) for row in columns if row[-1] == exact),
            primary_key=unique.pop("PRIMARY", ()),
            unique_keys=tuple(dict.fromkeys(unique.values())),
            indexes=tuple((index.name, index.first) for index in each if index.first and index.is_ordered),
            barred=tuple(
                Barred(index.name, index.columns, index.bar, index.is_key)
                for index in each
                if index.bar and index.columns and not (index.is_key and index.columns in walked)
            ),
        )

    def identity(self, name: str) -> dict[str, str]:
        """What tells a table from one of the same name and columns, and from itself before it was altered or emptied.

        `created` is when it was made or altered, to the second; `generated` how columns are computed; `inside` are
        InnoDB's numbers of it and its partitions, which TRUNCATE changes, and who has the PROCESS right sees. A view
        has none but its columns'.
        """
        columns = self.fetch(
            "SELECT column_name, generation_expression, extra FROM information_schema.columns"
            f" WHERE {THIS_TABLE} AND generation_expression <> '' ORDER BY ordinal_position",
            [name],
        )
        found = {"generated": ", ".join(f"{column} as {text} {kind}" for column, text, kind in columns)}
        created = self.fetch(
            f"SELECT UNIX_TIMESTAMP(create_time) FROM information_schema.tables WHERE {THIS_TABLE}", [name]
        )
        if moments := [float(text) for (text,) in created if text]:
            found["created"] = f"{datetime.fromtimestamp(max(moments), UTC):%Y-%m-%d %H:%M:%S} UTC"
        if inside := self._numbers(name):
            found["inside"] = inside
        return found

    def _numbers(self, name: str) -> str:
        """InnoDB's number of a table, or a digest of those of its partitions; empty where it is hidden, or has none."""
        listed = "innodb_sys_tables" if self.is_mariadb else "innodb_tables"
        path = "/".join(_file_name(each) for each in (self._database, name))
        try:
            numbers = self.fetch(
                f"SELECT table_id FROM information_schema.{listed} WHERE name LIKE %s OR name LIKE %s"
                " ORDER BY table_id",
                [path, f"{path}#p#%"],
            )
        except SourceError as error:
            if _code(error.__cause__) == NO_PROCESS:
                return ""
            raise
        text = ", ".join(str(number) for (number,) in numbers)
        return text if len(numbers) < 2 else f"{len(numbers)}, {crc32(text.encode()):08x}"

    def result(self, sql: str, job: str) -> Table:
        """The columns of a statement's result, with the types that it says; a `PlanError` where MySQL refuses it."""
        try:
            with self._cursor() as cursor:
                cursor.execute(sql)
                return Table(job, tuple(map(_result_column, cursor._result.fields or ())))  # noqa: SLF001
        except LoaderError:
            raise
        except Exception as error:
            failure = self._error(error, "query refused")
            if kind_of(_code(error)) is not Kind.GONE and (failure.transient or failure.exit_code == Exit.CONFIG):
                raise failure from error
            message = f"job {job!r}: MySQL refuses its SELECT, see its fields and where or query: {_text(error)}"
            raise _misfit(message, _code(error)) from error

    def stream(self, sql: str) -> "Stream":
        """Row packets of a statement; the connection does nothing else until the stream is left."""
        with self.asking():
            cursor = self._cursor(SSCursor)
            cursor.execute(sql)
        return Stream(self, cursor, self._reader)

    def _small(self) -> AbstractContextManager[None]:
        return self._wire.small() if self._wire else nullcontext()

    def _lives(self, seconds: float) -> bool:
        """Whether the server lets somebody else in: then it is at work, and silent for that."""
        try:
            with until(time.monotonic() + seconds):
                Connection(self._settings).close()
        except LoaderError as error:
            code = _code(error.__cause__)
            return code is not None and code < CLIENT_SIDE
        return True

    def _error(self, error: Exception, doing: str) -> LoaderError:
        failure = self._meaning(error, doing)
        failure.waited = self._wire.silent if self._wire else time.monotonic() - self._began
        return failure

    def _meaning(self, error: Exception, doing: str) -> LoaderError:
        code, text = _code(error), _text(error)
        kind = Kind.PASSES if isinstance(error, OSError) else kind_of(code)
        if doing == AMID_ROWS and kind is Kind.OTHER:
            text = re.sub(r"'[^']*'", "'…'", text)  # may quote a row
        message = f"mysql {self.address}: {doing}: {text}"
        if not isinstance(error, OSError) and (code is None or not isinstance(error, pymysql.MySQLError)):
            return self._nonsense(error, doing)
        if code == DENIED and (lacking := self._connection.lacks):
            message += f": without {lacking}"
        if refused := meaning(error):
            refused += ": see source.tls" if refused == PLAIN else ""
            return SourceError(f"{message}: {refused}", exit_code=Exit.CONFIG)
        user = self._settings.user or ""
        mends = ADVICE[NO_SERVER] if doing == CONNECTING and code == LOST else advice(code, user)
        message += f": {mends}" if mends else ""
        if code == NO_COLUMN:
            return StartOver(message)
        failure = SourceError(message, transient=kind.transient and not is_local(error), exit_code=kind.exit_code)
        failure.fix, failure.brief = statement(code, user), kind is Kind.LIMITED
        return failure

    def _nonsense(self, error: Exception, doing: str) -> SourceError:
        """What it means that an answer makes no sense: it is no MySQL, or one that is broken, or someone in between."""
        message = f"mysql {self.address}: {doing}: "
        if "LOAD_LOCAL" in str(error):
            return SourceError(
                f"{message}the server asks for a file of this machine (LOAD DATA LOCAL), which it does not get:"
                " see source.url",
                exit_code=Exit.CONFIG,
            )
        if isinstance(error, UnicodeError) and not isinstance(error, UnicodeDecodeError):  # a name that none can have
            return SourceError(f"{message}{error}: see source.url", exit_code=Exit.CONFIG)
        told = isinstance(error, pymysql.MySQLError | _Nonsense)
        why = " ".join(_text(error).split()) if told else f"a packet that cannot be read, {type(error).__name__}"
        if doing == CONNECTING:
            return SourceError(f"{message}no MySQL server answers there ({why}): see source.url", exit_code=Exit.CONFIG)
        message += f"the answer is none of MySQL ({why}): see source.url"
        return SourceError(message, transient=True, exit_code=Exit.FAILED)


class Stream:
    """The row packets of one result in `buffer[start:end]`, refilled by `fill`.

    Left without `finish`, it drops the connection: draining would read the rest of the table.
    """

    def __init__(self, source: Connection, cursor: Any, reader: "_Reader") -> None:
        described = cursor.description or ()
        self.names: tuple[str, ...] = tuple(column[0] for column in described)
        self.shape: Shape = tuple((name, kind, size, scale) for name, kind, _, size, _, scale, _ in described)
        self.buffer = bytearray(BUFFER)
        self.start = self.end = 0
        self._source = source
        self._cursor = cursor
        self._reader = reader
        # Column count, a packet a column, EOF: so PyMySQL awaits this number next, and gets it with the closing packet.
        self._sequence = (len(self.names) + 3) % 256
        self._finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            self._hand_back(bytearray(b"\x05\0\0\0\xfe\0\0\0\0"))  # an EOF of our own: PyMySQL lets go of the result
            self._source.close()

    def fill(self, wanted: int) -> None:
        """Wait for more bytes; at least `wanted` fit into the buffer. The server going away is a transient error."""
        rest = self.end - self.start
        if self.start:
            self.buffer[:rest] = self.buffer[self.start : self.end]
            self.start, self.end = 0, rest
        size = max(BUFFER, wanted)
        if len(self.buffer) != size and rest <= size:
            self.buffer = self.buffer[:rest] + bytearray(size - rest)
        with memoryview(self.buffer)[rest:] as free:
            try:
                got = self._reader.readinto1(free)
            except OSError as error:
                raise self._source._error(error, "lost while reading rows") from error  # noqa: SLF001
        if not got:
            raise SourceError(
                f"mysql {self._source.address}: the server closed the connection amid rows", transient=True
            )
        self.end += got
        self._source.moved = time.monotonic()

    def finish(self) -> None:
        """Give the packet at `start`, which ends the result, back to PyMySQL; raises what it says if it is an error."""
        while self.end - self.start < HEADER + int.from_bytes(self.buffer[self.start : self.start + 3], "little"):
            self.fill(0)
        self._finished = True
        try:
            with self._source.asking(AMID_ROWS):
                self._hand_back(self.buffer[self.start : self.end])
        except LoaderError:
            self._cursor._result.unbuffered_active = False  # noqa: SLF001  # else PyMySQL waits for the rest
            self._source.close()
            raise

    def _hand_back(self, packet: bytearray) -> None:
        packet[3] = self._sequence
        self._reader.put_back(packet)
        self._cursor.fetchone()
        self._cursor.close()


class _Socket(io.RawIOBase):
    """What comes from a server once it has let us in: it may be silent for so many seconds.

    Where less is allowed, it has to `live`, as another connection tells.
    """

    def __init__(self, connection: socket.socket, patience: float, lives: Callable[[float], bool]) -> None:
        self.silent = 0.0  # seconds that were waited for in vain
        self._socket = connection
        self._patience = patience
        self._lives = lives
        self._ends = inf  # of a small result
        self._small = False
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._socket.fileno()

    def readinto(self, free: Any) -> int:
        if not self._has(0):
            self._wait()
        got = self._socket.recv_into(free)
        if self._small:
            self._check(got)
        return got

    def is_over(self) -> bool:
        """Whether the server has ended the connection, or said farewell, while nothing was asked of it."""
        if not self._has(0):
            return False
        usual = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):  # what came was TLS's own
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(usual)
        return True

    @contextmanager
    def small(self) -> Iterator[None]:
        """Have a result be whole soon after it has begun: bytes that come one by one do not prolong it."""
        self._small, self._ends = True, inf
        try:
            yield
        finally:
            self._small = False

    def _check(self, got: int) -> None:
        now = time.monotonic()
        if self._ends == inf:
            self._ends = now + allowed(self._patience)
        self._ends += got / SLOWEST
        if now > self._ends:
            raise TimeoutError("timed out")

    def _has(self, seconds: float) -> bool:
        pending = self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0
        return bool(pending or self._poll.poll(seconds * 1000))

    def _wait(self) -> None:
        """Wait for the next bytes; a `TimeoutError` where the server has been silent for too long."""
        since = lived = time.monotonic()
        pause = 0.0  # between two looks whether it lives
        while not self._has(min(TICK, allowed(TICK))):
            now, over = time.monotonic(), limit.end()
            most = allowed(self._patience, lived)
            probing = min(PROBE, most / 2)
            in_vain = now - since >= self._patience or now >= over
            if not in_vain and most < self._patience and over == inf and now - lived >= max(pause, most - probing):
                in_vain = not self._lives(probing)
                lived, pause = time.monotonic(), PROBE
            if in_vain:
                self.silent = time.monotonic() - since
                raise TimeoutError("timed out")


class _Reader:
    """PyMySQL's buffered reader, with a way to put bytes back."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._back = b""
        self._direct = False
        self.close = reader.close

    def read(self, size: int) -> bytes:
        if not self._back:
            data: bytes = self._reader.read(size)
            return data
        data, self._back = self._back[:size], self._back[size:]
        return data

    def readinto1(self, free: memoryview) -> int:
        """Read once: first what the reader holds already, which is far less than `free` takes, then past the reader.

        Its own `readinto1` fills up its buffer for a small `free`, and for a larger one waits for more than it holds.
        """
        if self._direct:
            count: int = self._reader.raw.readinto(free)
            return count
        data = self._reader.read1(len(free))
        free[: len(data)] = data
        self._direct = True
        return len(data)

    def put_back(self, data: bytes | bytearray) -> None:
        """Have `read` give these bytes first; the stream is over."""
        self._back = bytes(data)
        self._direct = False


def is_login(error: LoaderError) -> bool:
    """Whether MySQL refuses the user or the password."""
    return _code(error.__cause__) in LOGIN


def _quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _tls(settings: SourceConfig) -> dict[str, Any]:
    """TLS or, said so in the config, none: never PyMySQL's default, which tries and falls back."""
    return {"ssl": client_context(settings, "source")} if settings.tls else {"ssl_disabled": True}


def _misfit(message: str, code: int | None) -> PlanError:
    gone = kind_of(code) is Kind.GONE
    error = PlanError(message, transient=gone, exit_code=Exit.CONFIG)
    error.gone = gone
    return error


@dataclass(frozen=True, slots=True)
class _Index:
    """An index as information_schema has it: `first` is a column that it is ordered by, empty for an expression."""

    name: str
    columns: tuple[str, ...]
    first: str
    is_key: bool
    is_ordered: bool
    bar: Bar | None


def _index(name: str, parts: Sequence[Row], made: Mapping[str, str]) -> _Index:
    """An index of these parts; `made` says how columns are computed.

    Of the rows that are not history the end of their period is the same, so a key is one without it; but rows that
    differ in the beginning of their period alone are not told apart by what a person would call a key. A prefix that
    tells rows apart is of values that do.
    """
    columns = [column for column, *_ in parts]
    kind, bar = parts[0][-2:]
    periods = [made.get(str(column), "") for column in columns]
    of_rows = tuple(str(column or "") for column, period in zip(columns, periods, strict=True) if period != ROW_END)
    is_key = (
        bool(of_rows)
        and None not in columns
        and ROW_START not in periods
        and all(nullable != "YES" and repeats == "0" for _, _, nullable, repeats, *_ in parts)
    )
    is_prefix = is_key and any(part is not None for _, part, *_ in parts)
    return _Index(
        name=name,
        columns=of_rows,
        first=str(columns[0] or ""),
        is_key=is_key,
        is_ordered=kind in ORDERED and not bar,
        bar=Bar(bar) if bar else Bar.PREFIX if is_prefix else None,
    )


def _column(row: Sequence[str | None]) -> Column:
    name, kind, full, charset, nullable, extra, collation, *_ = row
    return Column(
        name=str(name),
        type=str(kind).lower(),
        full_type=str(full),
        charset=charset,
        nullable=nullable == "YES",
        hidden="INVISIBLE" in str(extra),
        collation=collation,
    )


def _result_column(field: Any) -> Column:
    """A column of a result, as its definition describes it; texts come as utf8mb4, whatever they are stored as."""
    kind, digits = RESULT_TYPES.get(field.type_code, UNKNOWN), ""
    if kind in {"char", "varchar", "blob"}:
        kind, digits = _text_type(kind, field)
    elif kind == "bit" or (kind in INTEGERS and field.flags & FLAG.ZEROFILL):
        digits = f"({field.length})"
    elif kind in TIMES | {"timestamp"} and 0 < field.scale < NOT_FIXED:
        digits = f"({field.scale})"
    marks = " unsigned" * bool(field.flags & FLAG.UNSIGNED) + " zerofill" * bool(field.flags & FLAG.ZEROFILL)
    return Column(field.name, kind, f"{kind}{digits}{marks if kind in INTEGERS else ''}", None)


def _text_type(kind: str, field: Any) -> tuple[str, str]:
    """The type of a text or of bytes, and their length in brackets."""
    if field.charsetnr == BINARY_CHARSET:
        return BINARY_TYPES[kind], "" if kind == "blob" else f"({field.length})"
    size = field.length // UTF8MB4_BYTES
    if kind == "char" and field.flags & WORD_FLAGS == WORD_FLAGS and size in WORD_SIZES:
        return WORD_SIZES[size], ""
    return ("longtext", "") if kind == "blob" else ("varchar", f"({size})")


def _file_name(name: str) -> str:
    """The pattern for LIKE that a name fits as InnoDB spells it, in the characters that a file's may have."""
    return re.sub(r"[^A-Za-z0-9_]", "@%", name).replace("_", r"\_")


def _keep_alive(descriptor: int) -> None:
    """Have the kernel look whether a connection still leads anywhere."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.family != socket.AF_UNIX:
            for option, value in KEEP_ALIVE.items():
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _code(error: BaseException | None) -> int | None:
    code = error.args[0] if error is not None and error.args else None
    return code if isinstance(code, int) else None


def _text(error: BaseException | None) -> str:
    if isinstance(error, pymysql.MySQLError) and len(error.args) > 1:
        return f"{' '.join(str(error.args[1]).split())} ({error.args[0]})"
    return str(error) or type(error).__name__
