"""A person at the command line: the real command, a database and keys of one's own, servers to break."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pymysql
import pytest
import redis

from loader.server import HOST, Server, free_ports, program, stop, wait

MARK = "S3CR3T"  # all passwords that tests choose hold it, and no output ever may
MYSQL_PASSWORD = f"{MARK}-marker-mysql"
REDIS_PASSWORD = f"{MARK}-marker-redis"

numbers = count(1)


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def documents(self):
        """The JSON documents on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def document(self):
        """The one JSON document on stdout."""
        (document,) = self.documents
        return document


def environment(**changes):
    """The environment of a command: nothing of ours but what is named; None takes a variable away."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOADER_", "PYTHON"))}
    return {name: value for name, value in {**kept, "COLUMNS": "80", **changes}.items() if value is not None}


def popen(*words, cwd=None, **changes):
    """The command, started; its output is to be taken with `finish`."""
    return subprocess.Popen(
        [sys.executable, "-m", "loader", *words],
        cwd=cwd,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finish(process, seconds=60):
    """Wait for the end of a command. Whatever it was: it showed no traceback and no password."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"no end within {seconds} s: {out}{err}")
    assert "Traceback" not in out + err, err
    assert MARK not in out + err, out + err
    return Result(process.returncode, out, err)


def run(*words, cwd=None, **changes):
    """Run the command to its end; keywords are environment variables."""
    return finish(popen(*words, cwd=cwd, **changes))


class World:
    """A fresh database on the lab's MySQL, a key prefix on its cluster, and a directory with a config."""

    def __init__(self, lab, directory, client):
        self.lab = lab
        self.directory = directory
        self.client = client
        self.database = f"w{next(numbers)}_{os.getpid()}"
        self.prefix = f"{self.database}:"
        self.sql(f"CREATE DATABASE {self.database} CHARACTER SET utf8mb4", database=None)
        self.sql(f"GRANT SELECT ON {self.database}.* TO marked@'%'")

    def sql(self, *statements, database=""):
        """Run statements as the owner; the rows of the last one."""
        connection = pymysql.connect(
            host=HOST,
            port=self.lab.mysql_port,
            user="owner",
            password=self.lab.owner_password,
            database=self.database if database == "" else database,
            autocommit=True,
        )
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()

    def students(self):
        """The table `stu` as the lab has it."""
        self.sql("CREATE TABLE stu LIKE test.stu", "INSERT INTO stu SELECT * FROM test.stu")

    def source(self, **changes):
        """The config of the lab's MySQL."""
        url = f"mysql://marked@{HOST}:{self.lab.mysql_port}/{self.database}"
        return {"url": url, "password": MYSQL_PASSWORD} | changes

    def target(self, **changes):
        """The config of the lab's cluster."""
        return {"url": f"redis://marked@{HOST}:{self.lab.redis_ports['n1']}", "password": REDIS_PASSWORD} | changes

    def config(self, jobs=None, *, source=None, target=None):
        """Write ./loader.yaml: the lab's servers unless said otherwise; by default the job `stu`."""
        document = {
            "version": 1,
            "source": self.source(**(source or {})),
            "target": self.target(**(target or {})),
            "jobs": jobs or {"stu": {"table": "stu", "key": self.prefix + "stu_{sid}"}},
        }
        path = self.directory / "loader.yaml"
        path.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
        return path

    def popen(self, *words, **changes):
        """The command, started in the world's directory."""
        return popen(*words, cwd=self.directory, **changes)

    def run(self, *words, **changes):
        """Run the command in the world's directory."""
        return finish(self.popen(*words, **changes))

    def keys(self):
        """The world's keys in the cluster, sorted, without its prefix."""
        found = self.client.scan_iter(match=f"{self.prefix}*", count=1000)
        return sorted(key.decode().removeprefix(self.prefix) for key in found)

    def hash(self, key):
        """The fields of one of the world's hashes."""
        return self.client.hgetall(self.prefix + key)

    def contents(self):
        """All that the cluster holds, to be compared: keys per master, and the world's own with their values."""
        dumps = {key: self.client.dump(self.prefix + key) for key in self.keys()}
        return self.client.dbsize(target_nodes=self.client.PRIMARIES), dumps

    def close(self):
        """Leave nothing behind."""
        for key in self.keys():
            self.client.delete(self.prefix + key)
        self.sql(f"DROP DATABASE {self.database}", database=None)


@pytest.fixture(scope="session")
def marked(lab):
    """The lab, with accounts on both sides whose passwords would be noticed in any output."""
    connection = pymysql.connect(host=HOST, port=lab.mysql_port, user="owner", password=lab.owner_password)
    with connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE USER marked@'%' IDENTIFIED BY '{MYSQL_PASSWORD}'")
        cursor.execute("GRANT SELECT ON test.* TO marked@'%'")
    for port in lab.redis_ports.values():
        with redis.Redis(HOST, port) as node:
            node.execute_command("ACL", "SETUSER", "marked", "on", f">{REDIS_PASSWORD}", "~*", "&*", "+@all")
    return lab


@pytest.fixture(scope="session")
def client(lab):
    """Redis's own client of the lab's cluster."""
    with redis.RedisCluster(HOST, lab.redis_ports["n1"]) as client:
        yield client


@pytest.fixture
def world(marked, client, tmp_path):
    """A place of one's own, with the lab's five students."""
    world = World(marked, tmp_path, client)
    world.students()
    world.config()
    yield world
    world.close()


@contextmanager
def redis_server(directory, *options, ready):
    """A Redis server of its own on a free port, without a file; `ready(port)` says whether it answers."""
    server = Server("redis", *free_ports(1))
    log = directory / f"redis-{server.port}.log"
    command = [program("redis-server", "valkey-server"), "--bind", HOST, "--dir", str(directory), "--save", ""]
    words = [option.format(port=server.port) for option in options]
    server.spawn([*command, *([] if "--port" in options else ["--port", str(server.port)]), *words], log)
    try:
        wait(lambda: not server.running or ready(server.port), "redis to answer")
        assert server.running, log.read_text()
        yield server.port
    finally:
        stop([server])


def places(text):
    """The places that an error names: `line:column` of each line."""
    return re.findall(r"^\S+?:(\d+:\d+): error: ", text, re.MULTILINE)


def lines(text):
    """The lines of a message."""
    return text.strip().splitlines()


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
