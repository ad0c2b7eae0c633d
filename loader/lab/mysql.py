"""The lab's MySQL or MariaDB, whichever is installed: creating it, starting it, and checking that it answers."""

import os
import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from loader.lab.process import HOST, READY_TIME, Server, program

MYSQL_OPTIONS = (
    "--bind-address=127.0.0.1",
    "--socket=mysql.sock",  # both relative to the data directory: a socket's path is at most 107 bytes long
    "--pid-file=mysql.pid",
    "--skip-name-resolve",
    "--log-bin=binlog",  # so that tables can be followed
    "--server-id=1",
    "--binlog-format=ROW",
    "--sync-binlog=0",
    "--character-set-server=utf8mb4",
    "--max-allowed-packet=256M",
    "--innodb-buffer-pool-size=128M",
    "--innodb-flush-log-at-trx-commit=0",
)

GTIDS = ("--gtid-mode=ON", "--enforce-gtid-consistency=ON")  # MariaDB has them in any case

ACCOUNTS = """\
SET NAMES utf8mb4;
CREATE DATABASE IF NOT EXISTS test CHARACTER SET utf8mb4;
CREATE USER loader@'%' IDENTIFIED BY '{loader}';
GRANT SELECT ON test.* TO loader@'%';
GRANT REPLICATION SLAVE ON *.* TO loader@'%';
CREATE USER owner@'%' IDENTIFIED BY '{owner}';
GRANT ALL ON *.* TO owner@'%' WITH GRANT OPTION;
USE test;
"""

_SQL_TOKEN = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<gap>(?:\s|--\s[^\n]*|\#[^\n]*|/\*(?!!).*?\*/)+)|;""",
    re.DOTALL,
)


def install_command() -> list[str]:
    """The command that creates an empty database in the directory `mysql` below the current one."""
    mysqld, data = _mysqld(), "--datadir=./mysql"  # mariadb-install-db fails if a path has a space
    if _is_mariadb(mysqld):
        script = program("mariadb-install-db", "mysql_install_db")
        # Forced, because it fails otherwise if neither this machine's name nor localhost resolves.
        return [script, "--no-defaults", data, "--skip-test-db", "--force", *_as_root()]
    return [mysqld, "--no-defaults", "--initialize-insecure", "--secure-file-priv=", data, *_as_root()]


def command(data: Path, port: int, init_file: Path) -> list[str]:
    """The command that serves a data directory; the init file may be missing."""
    mysqld = _mysqld()
    own = [] if _is_mariadb(mysqld) else ["--mysqlx=OFF", "--secure-file-priv=", *GTIDS]
    if init_file.exists():
        own.append(f"--init-file={init_file}")
    places = [f"--datadir={data}", f"--tmpdir={data}"]  # a starting server deletes other servers' files in /tmp
    return [mysqld, "--no-defaults", *places, f"--port={port}", *MYSQL_OPTIONS, *own, *_as_root()]


def answers(data: Path, server: Server) -> bool:
    """Whether this process, not another on its port, greets; it does so after its init file."""
    with suppress(OSError):
        if (data / "mysql.pid").read_text().strip() == str(server.pid):
            with socket.create_connection((HOST, server.port), timeout=READY_TIME) as connection:
                return bool(connection.recv(1))
    return False


def init_sql(passwords: dict[str, str], sql: str) -> str:
    """An init file that makes the accounts and fills the database `test`."""
    return ACCOUNTS.format_map(passwords) + one_line_each(sql)


def refused(log: str) -> bool:
    """Whether a statement of the init file failed: the server logs it, MySQL as MY-000061, and serves anyway."""
    return re.search(r"^ERROR|\[MY-000061\]", log, re.MULTILINE) is not None


def one_line_each(sql: str) -> str:
    """The statements for an init file: one per line, each with its semicolon, without comments."""

    def fold(token: re.Match[str]) -> str:
        match token.lastgroup:
            case "text":
                return token[0].replace("\n", "\\n")
            case "gap":
                return " "
            case _:
                return ";\n"

    lines = (line.strip() for line in _SQL_TOKEN.sub(fold, sql + ";").splitlines())
    return "".join(f"{line}\n" for line in lines if line != ";")


def _mysqld() -> str:
    return program("mariadbd", "mysqld")


def _is_mariadb(mysqld: str) -> bool:
    version = subprocess.run([mysqld, "--no-defaults", "--version"], capture_output=True, check=False, text=True)
    return "MariaDB" in version.stdout


def _as_root() -> list[str]:
    """The server refuses to run as root unless told to."""
    return ["--user=root"] if os.geteuid() == 0 else []
