"""How fast a job is followed: commit to cache at a steady pace, a row that changes all the time, a queue worked off.

Servers of its own: MySQL or MariaDB with a binlog, a cluster of three masters with a replica each. The follower is the
command itself; after each part all rows are compared with all hashes, without a sync in between.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from redis.cluster import RedisCluster

from loader.lab.lab import Lab
from loader.lab.process import HOST
from stage import Broken, connect, start, until, verify, write_config

TABLE = """\
CREATE TABLE many (id INT UNSIGNED PRIMARY KEY, name VARCHAR(30) NOT NULL, n BIGINT NOT NULL)
 CHARACTER SET utf8mb4"""
DOUBLE = "INSERT INTO many SELECT id + {have}, name, 0 FROM many WHERE id + {have} <= {rows}"
JOB = "  many: {table: many, key: 'many_{id}', follow: true}"
SAMPLED = 1000  # rows whose changes are timed, and that nobody else changes
FIRST_PACE, FIRST_SECONDS = 1000, 20.0  # changes a second while all rows are read first, and how long there are some
PACE = 2000  # changes a second
MEDIAN, SLOWEST = 20.0, 200.0  # milliseconds from commit to cache: half of the changes, 99 of 100
HOT, HOT_WRITES = 10_000, 1500  # updates of one row in five seconds, and writes that they may cost
CATCH_UP, COST = 60_000, 2.0  # changes a second at least, and microseconds of CPU a change at most
IDLE, MEMORY = 1.0, 80.0  # percent of a core, and MB


class Follower:
    """`loader follow many`, as a process of its own."""

    def __init__(self, lab: Lab, *words: str) -> None:
        self._process = start(lab, "follow", "many", "-o", "json", *words)

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        words = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """MB in memory."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def end(self) -> dict[str, Any]:
        """What it says once it is told to end."""
        self._process.send_signal(signal.SIGTERM)
        return self.finish()

    def finish(self, seconds: float = 600.0) -> dict[str, Any]:
        """What it says when it has ended."""
        out, err = self._process.communicate(timeout=seconds)
        if self._process.returncode:
            raise Broken(f"loader follow exited with {self._process.returncode}: {err}")
        document: dict[str, Any] = json.loads(out)
        return document


def fill(lab: Lab, rows: int) -> None:
    """The table, with so many rows."""
    with closing(connect(lab)) as mysql, mysql.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS many")
        cursor.execute(TABLE)
        cursor.execute("INSERT INTO many VALUES (1, 'a name', 0)")
        have = 1
        while have < rows:
            cursor.execute(DOUBLE.format(have=have, rows=rows))
            have *= 2
        cursor.execute("ANALYZE TABLE many")


def change(lab: Lab, rows: int, pace: float, seconds: float) -> None:
    """Updates, inserts and deletes of single rows at a steady pace, each a transaction."""
    with closing(connect(lab)) as mysql, mysql.cursor() as cursor:
        cursor.execute("SELECT MAX(id) FROM many")
        new = int(cursor.fetchall()[0][0])
        began, done = time.monotonic(), 0
        while (now := time.monotonic()) < began + seconds:
            time.sleep(max(0.0, began + done / pace - now))
            kind, row = random.random(), random.randrange(SAMPLED + 1, rows)
            if kind < 0.8:
                cursor.execute(f"UPDATE many SET n = n + 1 WHERE id = {row}")
            elif kind < 0.9:
                new += 1
                cursor.execute(f"INSERT INTO many VALUES ({new}, 'new', 0)")
            else:
                cursor.execute(f"DELETE FROM many WHERE id = {row}")
            done += 1
        print(f"{done / seconds:>10,.0f} changes/s were made", flush=True)


def latencies(lab: Lab, redis: "RedisCluster[Any]", seconds: float) -> list[float]:
    """Milliseconds from the end of a COMMIT until the hash has its value, of one row after the other."""
    found = []
    with closing(connect(lab)) as mysql, mysql.cursor() as cursor:
        end, value = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            value += 1
            row = value % SAMPLED + 1
            cursor.execute(f"UPDATE many SET n = {value} WHERE id = {row}")
            began, wanted = time.monotonic(), str(value).encode()
            while redis.hget(f"many_{row}", "n") != wanted:
                if time.monotonic() > began + 30:
                    raise Broken(f"row {row} did not come")
                time.sleep(0.0005)
            found.append((time.monotonic() - began) * 1000)
    return found


def measure_first(lab: Lab, rows: int) -> None:
    """Part 1: all rows are read while they change, and followed from then on."""
    writer = multiprocessing.Process(target=change, args=(lab, rows, FIRST_PACE, FIRST_SECONDS))
    writer.start()
    follower = Follower(lab)
    writer.join()
    document = follower.end()
    catch_up(lab)
    verify(lab, "many")
    print(f"first start: {rows:,} rows read while they changed; {document['changes']:,} changes followed", flush=True)


def measure_latency(lab: Lab, redis: "RedisCluster[Any]", rows: int, seconds: float) -> None:
    """Part 2: commit to cache at a steady pace."""
    follower = Follower(lab)
    time.sleep(2)
    writer = multiprocessing.Process(target=change, args=(lab, rows, PACE, seconds))
    cpu, began = follower.cpu(), time.monotonic()
    writer.start()
    found = latencies(lab, redis, seconds)
    writer.join()
    used = (follower.cpu() - cpu) / (time.monotonic() - began)
    follower.end()
    catch_up(lab)
    verify(lab, "many")
    p50, p99 = statistics.median(found), statistics.quantiles(found, n=100)[98]
    print(
        f"commit to cache: {p50:.1f} ms half of the time, {p99:.1f} ms 99 of 100 times; {used:.0%} of a core",
        flush=True,
    )
    allow(p50 <= MEDIAN and p99 <= SLOWEST, f"{MEDIAN:g} and {SLOWEST:g} ms")


def measure_hot_row(lab: Lab, redis: "RedisCluster[Any]") -> None:
    """Part 3: one row that changes all the time."""
    follower = Follower(lab)
    time.sleep(2)
    with closing(connect(lab)) as mysql, mysql.cursor() as cursor:
        began = time.monotonic()
        for value in range(1, HOT + 1):
            cursor.execute(f"UPDATE many SET n = {1_000_000 + value} WHERE id = 5")
            time.sleep(max(0.0, began + value * 5 / HOT - time.monotonic()))
    until(lambda: redis.hget("many_5", "n") == str(1_000_000 + HOT).encode(), "the last value", 30)
    written = follower.end()["written"]
    print(f"{HOT:,} updates of one row: {written:,} writes", flush=True)
    allow(written <= HOT_WRITES, f"{HOT_WRITES:,}")


def catch_up(lab: Lab) -> tuple[float, float, dict[str, Any]]:
    """Seconds, and seconds of CPU, of a follower until it has caught up; what it says."""
    began = time.monotonic()
    before = os.times()
    document = Follower(lab, "--until-caught-up").finish()
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - began, cpu, document


def measure_catch_up(lab: Lab, rows: int) -> None:
    """Part 4: as many changes as rows, made while nobody followed."""
    idle, start_up, _ = catch_up(lab)
    with closing(connect(lab)) as mysql, mysql.cursor() as cursor:
        for first in range(0, rows + 1, 1000):
            cursor.execute(f"UPDATE many SET n = n + 7 WHERE id > {first} AND id <= {first + 1000}")
    seconds, cpu, document = catch_up(lab)
    verify(lab, "many")
    changes = document["changes"]
    rate, cost = changes / (seconds - idle), (cpu - start_up) / changes * 1e6
    print(f"{changes:,} queued changes: {rate:,.0f} changes/s, {cost:.2f} µs of CPU each", flush=True)
    allow(rate >= CATCH_UP and cost <= COST, f"{CATCH_UP:,} changes/s and {COST:g} µs")


def measure_idle(lab: Lab, seconds: float) -> None:
    """Part 5: nothing to do."""
    follower = Follower(lab)
    time.sleep(3)
    before = follower.cpu()
    time.sleep(seconds)
    used, memory = (follower.cpu() - before) / seconds * 100, follower.memory()
    follower.end()
    print(f"idle: {used:.2f} % of a core, {memory:.0f} MB", flush=True)
    allow(used <= IDLE and memory <= MEMORY, f"{IDLE:g} % and {MEMORY:g} MB")


def allow(good: bool, limit: str) -> None:  # noqa: FBT001
    """End if a figure is over its limit."""
    if not good:
        raise Broken(f"{limit} are allowed")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/follow.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="R", help="of the table; default %(default)s")
    parser.add_argument("--seconds", type=float, default=300, metavar="S", help="at a steady pace; default %(default)s")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="loader-follow-") as name:
        lab = Lab(Path(name) / "lab")
        try:
            lab.up()
            write_config(lab, JOB)
            fill(lab, args.rows)
            redis: RedisCluster[Any] = RedisCluster(host=HOST, port=lab.redis_ports["n1"])
            measure_first(lab, args.rows)
            measure_latency(lab, redis, args.rows, args.seconds)
            measure_hot_row(lab, redis)
            measure_catch_up(lab, args.rows)
            measure_idle(lab, 20)
        except Broken as broken:
            sys.exit(f"follow: broken: {broken}")
        finally:
            lab.down()


if __name__ == "__main__":
    main()
