"""Kills a backfill with SIGKILL at random moments, resumes it, and compares every row.

A chain is a backfill into an empty cluster that is killed and resumed until it ends. After each kill and at its end,
the servers themselves say how many rows are there and how many HMSETs it took: what is above the rows was written
twice, and may be one chunk a worker and kill at most. At the end each hash must be its row, and nothing else be there.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis
import pymysql
from pymysql.cursors import SSCursor
from redis.cluster import RedisCluster
from redis.crc import key_slot

from loader.lab import Lab
from loader.server import HOST

CONFIG = """\
version: 1
source:
  url: mysql://loader@{host}:{mysql}/test
  password_file: {password_file}
target:
  url: redis://{host}:{redis}
jobs:
  big:
    table: big
    chunk_rows: {chunk_rows}
"""
TABLE = """\
CREATE TABLE big (id int unsigned PRIMARY KEY, name varchar(60) NOT NULL, note varchar(40), amount decimal(12,2)
 NOT NULL, born datetime NOT NULL) CHARACTER SET utf8mb4"""
# Doubles the table; every seventh row has a NULL.
DOUBLE = """\
INSERT INTO big SELECT id + {have}, CONCAT('名 ', MD5(id + {have})), IF((id + {have}) % 7, MD5(id * 3 + {have}), NULL),
 (id + {have}) / 7, TIMESTAMP('2000-01-01') + INTERVAL (id + {have}) SECOND FROM big WHERE id + {have} <= {rows}"""
CHECKPOINT = "loader:{big}:checkpoint"
COLUMNS = (b"id", b"name", b"note", b"amount", b"born")
TOGETHER = 20_000  # rows that are compared at a time
QUIET = 4  # looks in a row that find nothing new until the servers are at rest: they still read what a dead one sent
PAUSE = 0.05  # seconds between two of them
LATEST = 300  # seconds that a backfill may take


class Broken(Exception):
    """A rule does not hold."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the servers say at one moment."""

    rows: int  # hashes that are there
    calls: int  # HMSETs since the chain began
    state: int  # keys of the loader's own
    done: int  # chunks that are loaded, as the checkpoint says; -1 without one

    @property
    def twice(self) -> int:
        return self.calls - self.rows


class Stage:
    """A lab with a table, and a cluster to load it into."""

    def __init__(self, lab: Lab, rows: int, chunk_rows: int, workers: int) -> None:
        self.rows, self.chunk_rows, self.workers = rows, chunk_rows, workers
        self.said = ""  # on stderr, by the backfill that was killed last
        self._lab = lab
        self.redis = RedisCluster(host=HOST, port=lab.redis_ports["n1"])
        self._config = lab.directory / "big.yaml"
        password_file = json.dumps(str(lab.directory / "mysql.password"))
        ports = {"mysql": lab.mysql_port, "redis": lab.redis_ports["n1"]}
        self._config.write_text(
            CONFIG.format(host=HOST, password_file=password_file, chunk_rows=chunk_rows, **ports), encoding="utf-8"
        )

    def fill(self) -> None:
        """Make the table."""
        with self._connect() as mysql, mysql.cursor() as cursor:
            cursor.execute(TABLE)
            cursor.execute("INSERT INTO big VALUES (1, 'one', NULL, 0.5, '1999-12-31 23:59:59')")
            have = 1
            while have < self.rows:
                cursor.execute(DOUBLE.format(have=have, rows=self.rows))
                have *= 2
            cursor.execute("ANALYZE TABLE big")

    def clear(self) -> None:
        """Empty the cluster and its counters."""
        self.redis.flushall(target_nodes=RedisCluster.PRIMARIES)
        self.redis.config_resetstat(target_nodes=RedisCluster.PRIMARIES)

    def backfill(self, seconds: float) -> dict[str, Any] | None:
        """The document of a backfill; None where it was killed after so many seconds."""
        words = ["backfill", "big", "--workers", str(self.workers), "--output", "json", "--progress", "none"]
        process = subprocess.Popen(
            [sys.executable, "-m", "loader", "--config", str(self._config), *words],
            env={name: value for name, value in os.environ.items() if not name.startswith("LOADER_")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        try:
            out, error = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            self.said = process.communicate()[1]
            return None
        finally:
            process.kill()
        if process.returncode:
            raise Broken(f"a backfill ended with exit code {process.returncode}: {out}{error}")
        document: dict[str, Any] = json.loads(out)
        return document

    def look(self) -> Seen:
        """What the servers say once they are at rest."""
        same, calls = 0, -1
        while same < QUIET:
            time.sleep(PAUSE)
            stats = self.redis.info("commandstats", target_nodes=RedisCluster.PRIMARIES)
            now = sum(node.get("cmdstat_hmset", {"calls": 0})["calls"] for node in stats.values())
            same, calls = (same + 1 if now == calls else 0), now
        state = len(self.redis.keys("loader:*", target_nodes=RedisCluster.PRIMARIES))
        held = self.redis.dbsize(target_nodes=RedisCluster.PRIMARIES)
        text = self.redis.get(CHECKPOINT)
        saved = json.loads(text) if text else None
        done = saved["number"] - 1 - len(saved["owed"]) if saved else -1
        return Seen(rows=held - state, calls=calls, state=state, done=done)

    def compare(self) -> None:
        """Every hash is its row, and there are as many as rows; a `Broken` names the first that is not."""
        nodes = Nodes(self.redis)
        count = 0
        for keys, rows in self._table():
            count += len(keys)
            for key, row, found in zip(keys, rows, nodes.hashes(keys), strict=True):
                expected = {name: value for name, value in zip(COLUMNS, row, strict=True) if value is not None}
                if dict(zip(found[::2], found[1::2], strict=True)) != expected:
                    raise Broken(f"{key.decode()} is {found} and its row {row}")
        nodes.close()
        there = self.look().rows
        if not count == there == self.rows:
            raise Broken(f"of {self.rows:,} rows {count:,} were compared, and {there:,} hashes are there")

    def _connect(self) -> "pymysql.connections.Connection[Any]":
        return pymysql.connect(
            host=HOST,
            port=self._lab.mysql_port,
            user="owner",
            password=self._lab.owner_password,
            database="test",
            charset="utf8mb4",
            autocommit=True,
            use_unicode=False,
            conv={},  # as text, as MySQL sends it
        )

    def _table(self) -> Iterator[tuple[list[bytes], Sequence[tuple[bytes | None, ...]]]]:
        with self._connect() as mysql, mysql.cursor(SSCursor) as cursor:
            cursor.execute("SELECT id, name, note, amount, born FROM big")
            while rows := cursor.fetchmany(TOGETHER):
                yield [b"big_" + row[0] for row in rows], rows


class Nodes:
    """A socket to each master, to ask for many hashes at once; not by way of the loader's own code."""

    def __init__(self, client: RedisCluster) -> None:
        self._node_of = client.nodes_manager.get_node_from_slot
        self._sockets: dict[str, socket.socket] = {}

    def hashes(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        """HGETALL of keys, in their order."""
        asked: dict[str, list[int]] = {}
        for number, key in enumerate(keys):
            asked.setdefault(self._node_of(key_slot(key)).name, []).append(number)
        found: list[list[bytes]] = [[] for _ in keys]
        for node, numbers in asked.items():
            command = b"".join(b"*2\r\n$7\r\nHGETALL\r\n$%d\r\n%b\r\n" % (len(keys[n]), keys[n]) for n in numbers)
            for number, reply in zip(numbers, self._ask(node, command, len(numbers)), strict=True):
                found[number] = reply
        return found

    def close(self) -> None:
        for each in self._sockets.values():
            each.close()

    def _ask(self, node: str, command: bytes, count: int) -> list[list[bytes]]:
        if node not in self._sockets:
            host, _, port = node.rpartition(":")
            self._sockets[node] = socket.create_connection((host, int(port)), timeout=60)
        self._sockets[node].sendall(command)
        reader = hiredis.Reader()
        replies: list[list[bytes]] = []
        while len(replies) < count:
            reply = reader.gets()
            if reply is False:
                reader.feed(self._sockets[node].recv(1 << 20))
            elif isinstance(reply, Exception):
                raise reply
            else:
                replies.append(reply)
        return replies


def chain(stage: Stage, number: int, kills: int, chance: random.Random, whole: float) -> int:
    """A backfill killed up to so many times, and resumed to its end; the kills it took. A line is printed for each."""
    stage.clear()
    before = stage.look()
    killed = 0
    line = said = ""
    while True:
        moment = chance.uniform(0, whole) if killed < kills else LATEST
        document = stage.backfill(moment)
        now = stage.look()
        if line:
            print(f"{line} {now.twice - before.twice:>11,}{said}", flush=True)
        most = killed * stage.workers * stage.chunk_rows
        if now.twice > most:
            raise Broken(f"{now.twice:,} rows were written twice by {killed} kills, and {most:,} are allowed")
        if now.rows < before.rows:
            raise Broken(f"{before.rows:,} rows were there, and now {now.rows:,}")
        if document:
            break
        if moment == LATEST:
            raise Broken(f"a backfill did not end within {LATEST} s")
        killed += 1
        line = f"{number:>5} {killed:>5} {moment:>8.2f} {now.done if now.done >= 0 else '-':>7} {now.rows:>11,}"
        if now.rows == stage.rows and now.done < 0:  # it had nothing left to do but to end
            print(f"{line} {0:>11,}", flush=True)
            break
        before, said = now, "".join(f"\n      {text}" for text in stage.said.splitlines())
    if document:
        check(document, before, now, stage)
    stage.compare()
    seconds = document["seconds"] if document else moment
    print(f"{number:>5} {'end':>5} {seconds:>8.2f} {'all':>7} {now.rows:>11,} {now.twice:>11,}  all equal", flush=True)
    return killed


def check(document: dict[str, Any], before: Seen, now: Seen, stage: Stage) -> None:
    """What the last run says of itself is what the servers say."""
    if document["resumed"] is not (before.done >= 0):
        raise Broken(f"resumed is {document['resumed']}, and the checkpoint counted {before.done} chunks")
    written = document["rows"]["written"]
    if written != now.calls - before.calls:
        raise Broken(f"{written:,} rows are said to be written, by {now.calls - before.calls:,} HMSETs")
    if (now.rows, now.state) != (stage.rows, 0):
        raise Broken(f"{now.rows:,} rows and {now.state} keys of state are there at the end")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/kill.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="how many; default %(default)s")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="R", help="of the table; default %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="other moments; default %(default)s")
    parser.add_argument("--chunk-rows", type=int, default=50_000, metavar="C", help="default %(default)s")
    parser.add_argument("--workers", type=int, default=2, metavar="W", help="default %(default)s")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="loader-kill-") as name:
        lab = Lab(Path(name) / "lab")
        try:
            lab.up()
            stage = Stage(lab, args.rows, args.chunk_rows, args.workers)
            stage.fill()
            print(f"{args.rows:,} rows are made after {time.monotonic() - started:.0f} s\n")
            print("chain  kill   second  chunks        rows rows twice\n" + " " * 24 + "done       there    after it")
            kill(stage, args.kills, args.seed)
        except Broken as broken:
            sys.exit(f"kill: broken: {broken}")
        finally:
            lab.down()
    print(f"\n{args.kills} kills, nothing lost, in {time.monotonic() - started:.0f} s")


def kill(stage: Stage, kills: int, seed: int) -> None:
    """Chains until there were so many kills; one without a kill says first how long a backfill takes."""
    chance = random.Random(seed)  # noqa: S311  # reproducible, not secret
    began = time.monotonic()
    stage.clear()
    stage.backfill(LATEST)
    whole = time.monotonic() - began
    done = number = 0
    while done < kills:
        number += 1
        done += chain(stage, number, kills - done, chance, whole)


if __name__ == "__main__":
    main()
