"""What changed_only saves on a million rows, and what it takes.

A first sync into an empty cluster, then one where nothing was changed, by turns; then one with a thousand rows changed
and a hundred deleted. Each time is a whole command's. The digests are then asked what they take of Redis' memory.
"""

import argparse
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
from stage import Broken, connect, run, verify, write_config

TABLE = """\
CREATE TABLE many (sid int(8) unsigned zerofill PRIMARY KEY, sname varchar(20) NOT NULL, address varchar(20) NOT NULL)
 CHARACTER SET utf8mb4"""
DOUBLE = """\
INSERT INTO many SELECT sid + {have}, CONCAT('张三', sid % 10), '湖南长沙' FROM many WHERE sid + {have} <= {rows}"""
JOB = "  stu: {table: many, key: 'stu_{sid}', changed_only: true}"
SHARE = 0.25  # of the first sync's time that the second may take
BYTES = 20.0  # of Redis' memory that the digests of a row may take
CHANGED, DELETED = 1000, 100


def fill(lab: Lab, rows: int) -> None:
    """The table, with so many rows."""
    with closing(connect(lab)) as mysql, mysql.cursor() as cursor:
        cursor.execute(TABLE)
        cursor.execute("INSERT INTO many VALUES (1, '张三1', '湖南长沙')")
        have = 1
        while have < rows:
            cursor.execute(DOUBLE.format(have=have, rows=rows))
            have *= 2
        cursor.execute("ANALYZE TABLE many")


def sync(lab: Lab, **expected: int) -> float:
    """Seconds that the command took; its rows have to be what is expected."""
    began = time.monotonic()
    done = run(lab, "sync", "stu", "-o", "json")
    seconds = time.monotonic() - began
    rows: dict[str, int] = done.document["rows"]
    print(f"{seconds:>8.2f} s  {', '.join(f'{count:,} {what}' for what, count in rows.items())}", flush=True)
    if done.code or any(rows[what] != count for what, count in expected.items()):
        raise Broken(f"{expected} are expected of {done}")
    return seconds


def taken(redis: "RedisCluster[Any]", rows: int) -> float:
    """Bytes of Redis' memory that the digests of a row take."""
    keys = [key for key in redis.keys("loader:*", target_nodes=RedisCluster.PRIMARIES) if b"digest" in key]
    return sum(redis.memory_usage(key, samples=0) for key in keys) / rows


def measure(lab: Lab, rows: int, rounds: int) -> None:
    redis = RedisCluster(host=HOST, port=lab.redis_ports["n1"])
    first, second = [], []
    for _ in range(rounds):
        redis.flushall(target_nodes=RedisCluster.PRIMARIES)
        first.append(sync(lab, written=rows, unchanged=0))
        second.append(sync(lab, written=0, unchanged=rows, deleted=0))
    share = statistics.median(second) / statistics.median(first)
    print(f"a second sync takes {share:.3f} of the time of the first")
    with closing(connect(lab)) as mysql, mysql.cursor() as cursor:
        step = rows // CHANGED
        cursor.execute(f"UPDATE many SET address = '北京' WHERE sid % {step} = 1 LIMIT {CHANGED}")
        cursor.execute(f"DELETE FROM many WHERE sid % {step * CHANGED // DELETED} = 2 LIMIT {DELETED}")
    sync(lab, written=CHANGED, deleted=DELETED, unchanged=rows - CHANGED - DELETED)
    sync(lab, written=0, deleted=0, unchanged=rows - DELETED)
    verify(lab, "stu")
    size = taken(redis, rows)
    print(f"the digests take {size:.1f} bytes a row")
    if share > SHARE or size > BYTES:
        raise Broken(f"{SHARE} of the time and {BYTES:g} bytes a row are allowed")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/changed.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="R", help="of the table; default %(default)s")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often; default %(default)s")
    args = parser.parse_args()
    if args.rows < CHANGED:
        parser.error(f"--rows is {CHANGED} or more")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="loader-changed-") as name:
        lab = Lab(Path(name) / "lab")
        try:
            lab.up()
            write_config(lab, JOB)
            fill(lab, args.rows)
            measure(lab, args.rows, args.rounds)
        except Broken as broken:
            sys.exit(f"changed: broken: {broken}")
        finally:
            lab.down()


if __name__ == "__main__":
    main()
