"""Where a person types: a directory with a config, the real command, and what it left behind."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import redis

from loader.lab.process import HOST, Server, free_ports, program, stop, wait
from loader.redis.acl import REDIS_RIGHTS

MARK = "S3CR3T"  # every password that a test chooses holds it, and no output ever may
MYSQL_PASSWORD = f"{MARK}-marker-mysql"
REDIS_PASSWORD = f"{MARK}-marker-redis"
RIGHTS = ["on", f">{REDIS_PASSWORD}", "~*", *REDIS_RIGHTS.split()]
STU = {"stu": {"table": "stu", "key": "stu_{sid}"}}


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def documents(self):
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def document(self):
        (document,) = self.documents
        return document

    @property
    def messages(self):
        """What stderr says: its lines but those of the log, of which only the errors of runs count."""
        return [told for line in self.err.splitlines() if (told := _message(line))]


def _message(line):
    if not line.startswith("{"):
        return line
    log = json.loads(line)
    return f"error: {log['error']}" if log["event"] == "run" and log["level"] == "error" else ""


def start(*words, cwd=None, stdout=subprocess.PIPE, within=(), **changes):
    """The command, started in an environment without our own variables but those in `changes`.

    `within` are words before it that say where it runs.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOADER_", "PYTHON"))}
    return subprocess.Popen(
        [*within, sys.executable, "-m", "loader", *words],
        cwd=cwd,
        env=kept | {"COLUMNS": "80"} | changes,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finish(process, seconds=60):
    """Wait for a command's end. Whatever it was, it showed no traceback and no password."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"no end within {seconds} s: {process.communicate()}")
    out = out or ""
    assert "Traceback" not in out + err, err
    assert MARK not in out + err, out + err
    return Result(process.returncode, out, err)


class Desk:
    """A directory with a `loader.yaml` for a world, read by accounts whose passwords would be noticed in any output."""

    def __init__(self, world, directory):
        self.world = world
        self.directory = directory
        self.redis_port = world.lab.redis_ports["n1"]
        world.sql(
            f"CREATE USER IF NOT EXISTS marked@'%' IDENTIFIED BY '{MYSQL_PASSWORD}'",
            f"GRANT SELECT ON {world.name}.* TO marked@'%'",
            "CREATE TABLE stu LIKE test.stu",
            "INSERT INTO stu SELECT * FROM test.stu",
        )
        for port in world.lab.redis_ports.values():
            with redis.Redis(HOST, port) as node:
                node.execute_command(
                    "ACL", "SETUSER", "marked", "on", f">{REDIS_PASSWORD}", "~*", *REDIS_RIGHTS.split()
                )
        self.write()

    def mysql(self, port=None, database=None):
        return f"mysql://marked@{HOST}:{port or self.world.lab.mysql_port}/{database or self.world.name}"

    def write(self, jobs=None, *, source=None, target=None, listen=None, daemon=None):
        """Write ./loader.yaml: the job `stu` between the world's servers, but for what is said otherwise."""
        config = {
            "version": 1,
            "source": {"url": self.mysql(), "password": MYSQL_PASSWORD} | (source or {}),
            "target": {"url": f"redis://marked@{HOST}:{self.redis_port}", "password": REDIS_PASSWORD} | (target or {}),
            "daemon": {"listen": listen} | (daemon or {}),
            "jobs": jobs or STU,
        }
        self.text(json.dumps(config, ensure_ascii=False, indent=1))

    def text(self, text):
        """Write ./loader.yaml as it is."""
        (self.directory / "loader.yaml").write_text(text, encoding="utf-8")

    def start(self, *words, **changes):
        return start(*words, cwd=self.directory, **changes)

    def run(self, *words, **changes):
        return finish(self.start(*words, **changes))

    def contents(self):
        """All that the cluster holds, but for the loader's own state."""
        client = self.world.redis
        keys = client.keys("*", target_nodes=client.PRIMARIES)
        return {key: client.dump(key) for key in keys if not key.startswith(b"loader:")}


def shell(fix):
    """Do what is to be pasted into a shell, as someone who may."""
    assert fix.startswith("redis-cli ")
    command = program("redis-cli", "valkey-cli") + fix.removeprefix("redis-cli")
    done = subprocess.run(command, shell=True, capture_output=True, check=True, text=True)
    assert "ERR" not in done.stdout


@contextmanager
def redis_server(directory, *options, answers=lambda port: redis.Redis(HOST, port)):
    """A standalone Redis in a directory; `{port}` in an option is its port, `answers` makes a client of it."""
    (port,) = free_ports(1)
    server = Server("redis", port)
    listen = [] if "--tls-port" in options else ["--port", str(port)]
    words = ["--bind", HOST, "--dir", str(directory), "--save", "", *listen, *(o.format(port=port) for o in options)]
    server.spawn([program("redis-server", "valkey-server"), *words], directory / f"redis-{port}.log")

    def ready():
        try:
            with answers(port) as client:
                return client.info("server")["process_id"] == server.pid
        except redis.ConnectionError:
            return not server.running

    try:
        wait(ready, "redis to answer")
        assert server.running, (directory / f"redis-{port}.log").read_text()
        yield port
    finally:
        stop([server])
