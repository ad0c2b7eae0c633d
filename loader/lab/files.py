"""The files in a lab's directory: the state of its servers, their logs, passwords, and configs for their clients."""

import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from loader.errors import LabError
from loader.lab import mysql
from loader.lab.process import HOST, Server, write

LOADER_YAML = """\
version: 1
source:
  url: mysql://loader@127.0.0.1:{mysql}/test
  password_file: {mysql_password}
target:
  url: redis://loader@{redis}
  password_file: {redis_password}
jobs:
  stu:
    table: stu
    key: "stu_{{sid}}"
"""

CLIENT_CNF = """\
[client]
host=127.0.0.1
port={port}
user=owner
password={password}
default-character-set=utf8mb4

[mysql]
database=test
"""

ENVIRONMENT = """\
MYSQL_URL=mysql://loader@127.0.0.1:{mysql}/test
MYSQL_PASSWORD={mysql_password}
REDIS_URL=redis://loader@{redis}
REDIS_PASSWORD={redis_password}
"""


def sample() -> Path:
    """SQL that creates the table `stu`: a part of the package, or of the clone that it is imported from."""
    packed = Path(__file__).with_name("stu.sql")
    return packed if packed.exists() else Path(__file__).parents[2] / "sql/stu.sql"


class LabFiles:
    """The files of a lab."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.config = directory / "loader.yaml"
        self.init_sql = directory / "init.sql"  # there until MySQL has run it
        self._state = directory / "lab.json"

    @property
    def exist(self) -> bool:
        """Whether the directory is a lab's."""
        return self._state.is_file()

    def home(self, server: Server) -> Path:
        """The directory of a server's data."""
        return self._directory / server.name

    def log(self, server: Server) -> Path:
        """The log of a server."""
        return self._directory / f"{server.name}.log"

    def password(self, name: str) -> str:
        """The password of the loader in `mysql` or `redis`, or of MySQL's `owner`."""
        return self._secret(name).read_text()

    def write_secrets(self, fill: str) -> None:
        """Choose the passwords, and write the SQL that makes MySQL's accounts and fills the database `test`."""
        passwords = {user: secrets.token_urlsafe(24) for user in ("loader", "owner")}
        _write_secret(self._secret("mysql"), passwords["loader"])
        _write_secret(self._secret("owner"), passwords["owner"])
        _write_secret(self._secret("redis"), secrets.token_urlsafe(24))
        _write_secret(self.init_sql, mysql.init_sql(passwords, fill))

    def write_config(self, mysql_port: int, redis_ports: Sequence[int]) -> None:
        """Write the config that loads the lab's `stu` into the lab's cluster, and what other programs need to know.

        `env` has the addresses and the loader's passwords as variables; with `my.cnf`, `mysql` works as the owner.
        """
        redis = ",".join(f"{HOST}:{port}" for port in redis_ports)
        text = LOADER_YAML.format(
            mysql=mysql_port,
            mysql_password=json.dumps(str(self._secret("mysql")), ensure_ascii=False),
            redis=redis,
            redis_password=json.dumps(str(self._secret("redis")), ensure_ascii=False),
        )
        write(self.config, text)
        passwords = {"mysql_password": self.password("mysql"), "redis_password": self.password("redis")}
        _write_secret(self._directory / "env", ENVIRONMENT.format(mysql=mysql_port, redis=redis, **passwords))
        _write_secret(self._directory / "my.cnf", CLIENT_CNF.format(port=mysql_port, password=self.password("owner")))

    def empty(self, server: Server) -> None:
        """Delete the files of a Redis node, except redis.conf."""
        for path in self.home(server).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "redis.conf":
                path.unlink()

    def load(self) -> tuple[dict[str, Server], bool]:
        """Read the servers by their names, and whether the first start was completed."""
        try:
            state = json.loads(self._state.read_bytes())
        except FileNotFoundError:
            seen = "is not a lab's directory" if self._directory.exists() else "does not exist"
            raise LabError(f"no lab is up: {self._directory} {seen}; `loader lab up` starts one") from None
        return {server["name"]: Server(**server) for server in state["servers"]}, state["ready"]

    def save(self, servers: dict[str, Server], *, ready: bool) -> None:
        """Write the state that `load` reads, whole or not at all."""
        state = {"ready": ready, "servers": [asdict(server) for server in servers.values()]}
        new = self._state.with_suffix(".new")
        try:
            write(new, json.dumps(state, indent=1))
            new.replace(self._state)
        finally:
            new.unlink(missing_ok=True)

    def _secret(self, name: str) -> Path:
        return self._directory / f"{name}.password"


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    write(path, text)
