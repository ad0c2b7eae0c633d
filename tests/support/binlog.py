"""A server of its own that writes a binlog, and what a stream tells of some statements."""

import os
import secrets
import signal
from contextlib import contextmanager

import pymysql

from loader.config.servers import SourceConfig
from loader.lab import mysql
from loader.lab.process import Helper, Server, free_ports, stop, wait
from loader.mysql.binlog import BinlogStream, Changes, TransactionEnd
from loader.mysql.connection import Connection
from loader.mysql.dump import Position, replica_of

MARK = ("test", "mark")


class BinlogServer:
    """A server that writes a binlog, of a database `test` whose tables all are followed by their first column."""

    def __init__(self, directory):
        self.directory = directory
        self.passwords = {user: secrets.token_urlsafe(24) for user in ("loader", "owner")}
        init_file = directory / "init.sql"
        init_file.write_text(
            mysql.init_sql(
                self.passwords,
                "CREATE TABLE test.mark (id INT PRIMARY KEY AUTO_INCREMENT, note INT);",
            )
        )
        with Helper(mysql.install_command(), directory) as installing:
            installing.finish()
        (port,) = free_ports(1)
        self._server = Server("mysql", port)
        self._command = [*mysql.command(directory / "mysql", port, init_file), "--local-infile=1"]
        self.start()
        init_file.unlink()
        self._command = [word for word in self._command if not word.startswith("--init-file")]
        self.marks = 0

    def start(self, *options):
        """Start the server, and wait until it answers."""
        command = [*self._command, *options]
        self._server.spawn(command, self.directory / "mysql.log")
        wait(lambda: mysql.answers(self.directory / "mysql", self._server), "the server to answer")

    def stop(self):
        stop([self._server])

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        wait(lambda: not self._server.running, "the server to end")

    @property
    def pid(self):
        return self._server.pid

    @property
    def port(self):
        return self._server.port

    def connect(self, **options):
        """A connection of the owner, who may do anything."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user="owner",
            password=self.passwords["owner"],
            database="test",
            charset="utf8mb4",
            autocommit=True,
            **options,
        )

    def sql(self, *statements):
        """Rows of the last statement; all are sent over one connection."""
        connection = self.connect(local_infile=True)
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()

    @property
    def is_mariadb(self):
        return "MariaDB" in self.sql("SELECT VERSION()")[0][0]

    def position(self):
        """Where the binlog ends now, by file and offset."""
        statement = "SHOW MASTER STATUS" if self.is_mariadb else "SHOW BINARY LOG STATUS"
        file, offset, *_ = self.sql(statement)[0]
        return Position(file, offset)

    def end(self):
        """The file and the offset of that."""
        position = self.position()
        return position.file, position.offset

    def gtids(self):
        """Where it ends now, by GTIDs."""
        variable = "gtid_binlog_pos" if self.is_mariadb else "gtid_executed"
        return Position(gtids=self.sql(f"SELECT @@GLOBAL.{variable}")[0][0].replace("\n", ""))

    def source_config(self, user="loader", password=None, port=None):
        """The server as a `source` of a config; `port`: of what stands before it."""
        return {
            "url": f"mysql://{user}@127.0.0.1:{port or self.port}/test",
            "password": self.passwords[user] if password is None else password,
        }

    def source(self, **options):
        """A connection of the loader."""
        return Connection(SourceConfig.model_validate(self.source_config() | options))

    @contextmanager
    def stream(self, start, *tables, key=(0,), name="test", t=None, large=None, **options):
        """A stream from a position on; of tables, of `test` unless named, whose raw keys are those columns."""
        names = [table if isinstance(table, tuple) else ("test", table) for table in tables]
        followed = {name: lambda _: key for name in names} | {MARK: lambda _: (0,)}
        followed |= {("test", "t"): t} if t else {}
        with BinlogStream(self.source(**options), start, replica_of(name), followed, large) as stream:
            yield stream

    def mark(self):
        """Do the last change that `told` waits for."""
        self.marks += 1
        self.sql(f"INSERT INTO mark VALUES ({self.marks}, 0)")
        return self.marks.to_bytes(4, "little")

    def told(self, start, *tables, mark=b"", **options):
        """All values that a stream from a position on tells, up to a mark or else now, but for the heartbeats."""
        mark, told = mark or self.mark(), []
        with self.stream(start, *tables, **options) as stream:
            for value in stream:
                if isinstance(value, Changes) and value.followed.table.table == "mark":
                    if mark in value.keys:
                        mark = b""
                elif type(value).__name__ != "Heartbeat":
                    told.append(value)
                if not mark and isinstance(value, TransactionEnd):
                    return told
        raise AssertionError


def keys_of(told, table="t"):
    """The raw keys of a table, each once."""
    changes = [value for value in told if isinstance(value, Changes) and value.followed.table.table == table]
    return set().union(*(value.keys for value in changes))


def numbers(raw_keys):
    return sorted(int.from_bytes(raw, "little") for raw in raw_keys)
