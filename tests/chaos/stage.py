"""What the scripts share that break a lab on purpose: its nodes, the loader's command, and a comparison of their own.

Nothing here goes by way of the loader's own code, but for the lab: the servers themselves are asked.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import hiredis
import pymysql
import redis
from pymysql.converters import conversions
from pymysql.cursors import SSCursor
from redis.cluster import RedisCluster
from redis.crc import key_slot

from loader.lab.lab import Lab
from loader.lab.process import HOST

CONFIG = """\
version: 1
source:
  url: mysql://loader@{host}:{mysql}/test
  password_file: {mysql_password}
  read_timeout: {silence}
target:
  url: redis://loader@{redis}
  password_file: {redis_password}
  timeout: {silence}
daemon: {{listen: "{host}:0"}}
jobs:
{jobs}
"""
BIG = "  big: {{table: big, chunk_rows: {chunk_rows}}}"
TABLE = """\
CREATE TABLE big (id int unsigned PRIMARY KEY, name varchar(60) NOT NULL, note varchar(40), amount decimal(12,2)
 NOT NULL, born datetime NOT NULL) CHARACTER SET utf8mb4"""
# Doubles the table; every seventh row has a NULL.
DOUBLE = """\
INSERT INTO big SELECT id + {have}, CONCAT('名 ', LEFT(SHA2(id + {have}, 256), 32)),
 IF((id + {have}) % 7, LEFT(SHA2(id * 3 + {have}, 256), 32), NULL),
 (id + {have}) / 7, TIMESTAMP('2000-01-01') + INTERVAL (id + {have}) SECOND FROM big WHERE id + {have} <= {rows}"""
TOGETHER = 20_000  # rows that are compared at a time
PATIENCE = 60.0  # seconds that servers have to come to rest
_STARTED = time.monotonic()


def clock() -> float:
    """Seconds since the script began."""
    return time.monotonic() - _STARTED


class Broken(Exception):
    """A rule does not hold."""


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Return once the condition holds; a node that does not answer yet is no reason to stop waiting."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(redis.RedisError, ValueError):  # ValueError: of a lab whose node says that it is loading
            if condition():
                return
        if time.monotonic() > deadline:
            raise Broken(f"timed out after {seconds:g} s waiting for {what}")
        time.sleep(0.05)


def connect(lab: Lab, **options: Any) -> "pymysql.connections.Connection[Any]":
    """The lab's database by the account that may do all; values as text, as MySQL sends it."""
    return pymysql.connect(
        host=HOST,
        port=lab.mysql_port,
        user="owner",
        password=lab.owner_password,
        database="test",
        charset="utf8mb4",
        autocommit=True,
        use_unicode=False,
        conv={key: value for key, value in conversions.items() if type(key) is not int},
        **options,
    )


def write_config(lab: Lab, jobs: str, silence: str = "10s") -> None:
    """Have the lab's config hold these jobs; a server may be silent for so long."""
    text = CONFIG.format(
        host=HOST,
        mysql=lab.mysql_port,
        mysql_password=json.dumps(str(lab.directory / "mysql.password")),
        silence=silence,
        redis=",".join(f"{HOST}:{port}" for port in lab.redis_ports.values()),
        redis_password=json.dumps(str(lab.directory / "redis.password")),
        jobs=jobs,
    )
    lab.config.write_text(text, encoding="utf-8")


def start(lab: Lab, *words: str, lead: Sequence[str] = (), home: Path | None = None) -> "subprocess.Popen[str]":
    """The loader's command with the lab's config, behind the words of `lead`, and of the package that is in `home`."""
    return subprocess.Popen(
        [*lead, sys.executable, "-m", "loader", "--config", str(lab.config), "--log-format", "json", *words],
        cwd=home,
        env={name: value for name, value in os.environ.items() if not name.startswith("LOADER_")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


@dataclass(frozen=True, slots=True)
class Done:
    """How a command of the loader ended."""

    words: tuple[str, ...]
    code: int
    out: str
    error: str

    @property
    def document(self) -> dict[str, Any]:
        """Its only document; a `Broken` where it printed something else."""
        try:
            document: dict[str, Any] = json.loads(self.out)
        except ValueError:
            raise Broken(f"no document came of {self}") from None
        return document

    def __str__(self) -> str:
        return f"`loader {' '.join(self.words)}`, which ended with {self.code}: {self.out}{self.error[-2000:]}"


def run(lab: Lab, *words: str, seconds: float = 300, home: Path | None = None) -> Done:
    """The loader's command, to its end."""
    process = start(lab, *words, home=home)
    try:
        out, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Broken(f"`loader {' '.join(words)}` did not end within {seconds:g} s") from None
    finally:
        process.kill()
    return Done(words, process.returncode, out, error)


def verify(lab: Lab, job: str) -> None:
    """The loader itself finds nothing to say against a job's hashes."""
    done = run(lab, "verify", job, "-o", "json")
    document = done.document
    if done.code or document["status"] != "ok" or any(document[w] for w in ("missing", "different", "extra")):
        raise Broken(f"differences are said by {done}")


class Fleet:
    """The lab's Redis nodes, by name."""

    def __init__(self, lab: Lab, node_timeout: int | None = None) -> None:
        """`node_timeout` is in milliseconds, and set again in nodes that come back."""
        self.lab = lab
        self._node_timeout = node_timeout
        for name in lab.redis_ports:
            self._tune(name)

    @contextmanager
    def node(self, name: str) -> Iterator["redis.Redis[Any]"]:
        with redis.Redis(HOST, self.lab.redis_ports[name], decode_responses=True, socket_timeout=5) as client:
            yield client

    def cluster(self) -> RedisCluster:
        """The cluster as a whole."""
        return RedisCluster(host=HOST, port=self.lab.redis_ports[self.masters()[0]])

    def masters(self) -> list[str]:
        """Those that own slots."""
        return [row.name for row in self.lab.status() if row.role == "master" and row.slots]

    def ids(self) -> dict[str, str]:
        """What the nodes are called in the cluster."""
        ids = {}
        for name in self.lab.redis_ports:
            with self.node(name) as node:
                ids[name] = node.execute_command("CLUSTER", "MYID")
        return ids

    def replicas(self, master: str | None = None) -> list[str]:
        """Those that follow a master, or this one, and run."""
        rows = [row for row in self.lab.status() if row.role == "replica" and row.running]
        return [row.name for row in rows if master in {None, row.master}]

    def slots(self, *names: str) -> frozenset[int]:
        """The slots that some nodes own."""
        found: set[int] = set()
        for row in self.lab.status():
            if row.name in names:
                for span in row.slots.split():
                    if span[:1].isdigit():
                        first, _, last = span.partition("-")
                        found.update(range(int(first), int(last or first) + 1))
        return frozenset(found)

    def bear(self, milliseconds: int | None = None) -> None:
        """Have the nodes that run count one as dead after so long; after as long as ever by default."""
        for name in self.lab.redis_ports:
            with suppress(redis.RedisError), self.node(name) as node:
                node.config_set("cluster-node-timeout", milliseconds or self._node_timeout or 5000)

    def kill(self, *names: str) -> None:
        """Kill nodes, and wait until they are gone."""
        for name in names:
            self.lab.kill(name)
        until(lambda: not any(row.running for row in self.lab.status() if row.name in names), f"{names} to be gone")

    def start(self, *names: str) -> None:
        """Start nodes that do not run, and wait until all is in place."""
        for name in names:
            self.lab.start(name)
            self._tune(name)
        self.settle()

    def settle(self) -> None:
        """Wait until every node runs, agrees with the others, and each replica has all that its master has."""
        until(self._settled, "the cluster to settle")

    def warm(self) -> None:
        """Have all nodes name the replicas of each master, which they do once those have received something."""
        with self.cluster() as cluster:
            for number in range(8 * len(self.lab.redis_ports)):
                cluster.set(f"warm:{number}", number)
                cluster.delete(f"warm:{number}")
        until(self._is_warm, "the replicas to be named")

    def _is_warm(self) -> bool:
        for name in self.lab.redis_ports:
            with self.node(name) as node:
                if not all(len(span) > 3 for span in node.execute_command("CLUSTER SLOTS")):  # bounds, master, replicas
                    return False
        return True

    def _settled(self) -> bool:
        views = set()
        for name in self.lab.redis_ports:
            with self.node(name) as node:
                replication = node.info("replication")
                if node.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    return False
                if replication["role"] == "slave" and not _in_sync(replication):
                    return False
                if replication["role"] == "master" and replication["connected_slaves"] == 0:
                    return False
                members = node.execute_command("CLUSTER NODES").values()
                if any({"fail", "fail?", "handshake", "noaddr"} & set(m["flags"].split(",")) for m in members):
                    return False
                views.add(frozenset((m["node_id"], m["master_id"], str(m["slots"])) for m in members))
        return len(views) == 1

    def _tune(self, name: str) -> None:
        if self._node_timeout:
            with self.node(name) as node:
                node.config_set("cluster-node-timeout", self._node_timeout)


def _in_sync(replication: dict[str, Any]) -> bool:
    return replication["master_link_status"] == "up" and not replication["master_sync_in_progress"]


class Nodes:
    """A socket to each master of one moment, to ask for many hashes at once."""

    def __init__(self, lab: Lab) -> None:
        port = next(row.address.rpartition(":")[2] for row in lab.status() if row.role == "master" and row.running)
        self._sockets: dict[int, socket.socket] = {}
        (ranges,) = self._ask(int(port), b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n", 1)
        self._owners = {slot: master[1] for first, last, master, *_ in ranges for slot in range(first, last + 1)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets.values():
            each.close()

    def each(self, *words: str) -> list[Any]:
        """The reply of each master to a command."""
        command = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words)
        return [self._ask(port, command, 1)[0] for port in sorted(set(self._owners.values()))]

    def hashes(self, keys: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        """HGETALL of keys, in their order."""
        asked: dict[int, list[int]] = {}
        for number, key in enumerate(keys):
            asked.setdefault(self._owners[key_slot(key)], []).append(number)
        found: list[dict[bytes, bytes]] = [{} for _ in keys]
        for port, numbers in asked.items():
            command = b"".join(b"*2\r\n$7\r\nHGETALL\r\n$%d\r\n%b\r\n" % (len(keys[n]), keys[n]) for n in numbers)
            for number, reply in zip(numbers, self._ask(port, command, len(numbers)), strict=True):
                found[number] = dict(zip(reply[::2], reply[1::2], strict=True))
        return found

    def keys(self, prefix: bytes) -> set[bytes]:
        """All keys that begin so."""
        return {key for keys in self.each("KEYS", f"{prefix.decode()}*") for key in keys}

    def _ask(self, port: int, command: bytes, count: int) -> list[Any]:
        if port not in self._sockets:
            self._sockets[port] = socket.create_connection((HOST, port), timeout=60)
        self._sockets[port].sendall(command)
        reader = hiredis.Reader()
        replies: list[Any] = []
        while len(replies) < count:
            reply = reader.gets()
            if reply is False:
                reader.feed(self._sockets[port].recv(1 << 20))
            elif isinstance(reply, Exception):
                raise reply
            else:
                replies.append(reply)
        return replies


@dataclass(slots=True)
class Count:
    """How many rows were compared, and what is not as it should be, with the first instance."""

    rows: int = 0
    missing: int = 0
    different: int = 0
    extra: int = 0
    first: str = ""

    @property
    def exact(self) -> bool:
        return not (self.missing or self.different or self.extra)

    def __str__(self) -> str:
        first = f" ({self.first})" if self.first else ""
        return f"{self.rows:,} rows, {self.missing} missing, {self.different} different, {self.extra} extra{first}"


def compare(lab: Lab, table: str, key: Sequence[str], wanted: str = "") -> Count:
    """Compare each row of a table with its hash; the key is `table_`, and these columns with colons between them.

    `wanted` is the statement that has the rows, where not all of their columns are in the hash.
    """
    count = Count()
    with Nodes(lab) as nodes, connect(lab) as mysql, mysql.cursor(SSCursor) as cursor:
        extra = nodes.keys(f"{table}_".encode())
        cursor.execute(wanted or f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        places = [names.index(column) for column in key]
        fields = [name.encode() for name in names]
        while rows := cursor.fetchmany(TOGETHER):
            keys = [f"{table}_".encode() + b":".join(row[place] for place in places) for row in rows]
            for each, row, found in zip(keys, rows, nodes.hashes(keys), strict=True):
                expected = {name: value for name, value in zip(fields, row, strict=True) if value is not None}
                count.rows += 1
                extra.discard(each)
                if found != expected:
                    count.missing += not found
                    count.different += bool(found)
                    count.first = count.first or f"{each!r} is {found} and its row {expected}"
    count.extra = len(extra)
    count.first = count.first or (f"{min(extra)!r} has no row" if extra else "")
    return count


class Stage:
    """A lab with the table `big`, and a cluster to load it into."""

    def __init__(self, lab: Lab, rows: int, chunk_rows: int, workers: int) -> None:
        self.lab, self.rows, self.chunk_rows, self.workers = lab, rows, chunk_rows, workers
        write_config(lab, BIG.format(chunk_rows=chunk_rows))

    def fill(self) -> None:
        """Make the table."""
        with connect(self.lab) as mysql, mysql.cursor() as cursor:
            cursor.execute(TABLE)
            cursor.execute("INSERT INTO big VALUES (1, 'one', NULL, 0.5, '1999-12-31 23:59:59')")
            have = 1
            while have < self.rows:
                cursor.execute(DOUBLE.format(have=have, rows=self.rows))
                have *= 2
            cursor.execute("ANALYZE TABLE big")

    def clear(self) -> None:
        """Empty the cluster and its counters."""
        with Nodes(self.lab) as nodes:
            nodes.each("FLUSHALL")
            nodes.each("CONFIG", "RESETSTAT")

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """A backfill."""
        options = ["--workers", str(self.workers), "--output", "json", "--progress", "none", *words]
        return start(self.lab, "backfill", "big", *options)

    def compare(self) -> None:
        """Every hash is its row, and there are as many as rows; a `Broken` names the first that is not."""
        count = compare(self.lab, "big", ["id"])
        if not count.exact or count.rows != self.rows:
            raise Broken(f"of {self.rows:,} rows: {count}")
