"""What an incremental sync takes: a table of a million rows, some of them changed, and the command timed from outside.

Every round changes other rows, waits until the changes of the round before are older than the lag, and compares the
hashes of a sample with MySQL. A sync of five rows, timed in between, says what the command takes before it has work.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pymysql
from redis.cluster import RedisCluster

from loader.lab.lab import Lab
from loader.lab.process import HOST

LAG = 1  # seconds
SAMPLE = 100
NUMBERS = " CROSS JOIN ".join(
    f"({' UNION ALL '.join(f'SELECT {digit} d' for digit in range(10))}) t{place}" for place in range(7)
)
NUMBER = " + ".join(f"{10**place} * t{place}.d" for place in range(7))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--changed", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="incremental-") as name:
        directory = Path(name)
        lab = Lab(directory / "lab")
        lab.up()
        try:
            return measure(lab, directory, options)
        finally:
            lab.down()


def measure(lab: Lab, directory: Path, options: argparse.Namespace) -> int:
    mysql = pymysql.connect(
        host=HOST, port=lab.mysql_port, user="owner", password=lab.owner_password, database="test", autocommit=True
    )
    redis = RedisCluster(host=HOST, port=lab.redis_ports["n1"], decode_responses=True)
    with mysql.cursor() as cursor:
        fill(cursor, "big", options.rows)
        fill(cursor, "five", 5)
        path = write_config(lab, directory)
        wall, document = sync(path, "big")
        print(f"full: {document['rows']['read']:,} rows in {wall:.2f} s")
        sync(path, "five")
        walls, idle = [], []
        for number in range(options.rounds):
            time.sleep(LAG + 1)
            chosen = f"sid % {options.rows // options.changed} = {number}"
            cursor.execute(f"UPDATE big SET address = 'round {number}' WHERE {chosen}")
            wall, document = sync(path, "big")
            walls.append(wall)
            idle.append(sync(path, "five")[0])
            print(f"round {number}: {cursor.rowcount:,} changed, {document['rows']['read']:,} read, {wall:.3f} s")
            cursor.execute(f"SELECT sid, address FROM big WHERE {chosen} ORDER BY RAND() LIMIT {SAMPLE}")
            for sid, address in cursor.fetchall():
                if redis.hget(f"big_{sid}", "address") != address:
                    print(f"big_{sid} is not as in MySQL")
                    return 1
    print(
        f"median of {options.rounds}: {statistics.median(walls):.3f} s"
        f" (least {min(walls):.3f}, most {max(walls):.3f}); with five rows {statistics.median(idle):.3f} s"
    )
    return 0


def fill(cursor: pymysql.cursors.Cursor, name: str, rows: int) -> None:
    """A table like `stu`, whose rows were all changed at other moments of the weeks before."""
    cursor.execute(
        f"CREATE TABLE {name} (sid int unsigned NOT NULL PRIMARY KEY, sname varchar(20) NOT NULL, address varchar(20)"
        " NOT NULL, changed datetime(6) NOT NULL DEFAULT current_timestamp(6) ON UPDATE current_timestamp(6),"
        " INDEX (changed))"
    )
    cursor.execute(
        f"INSERT INTO {name} SELECT n, CONCAT('name ', n), 'Changsha', NOW(6) - INTERVAL {rows} - n + 60 SECOND"
        f" FROM (SELECT 1 + {NUMBER} AS n FROM {NUMBERS}) s WHERE n <= {rows} ORDER BY n"
    )


def write_config(lab: Lab, directory: Path) -> Path:
    job = {"incremental": {"column": "changed", "lag": f"{LAG}s"}}
    path = directory / "loader.yaml"
    password, redis_password = directory / "mysql.password", directory / "redis.password"
    for file, secret in ((password, lab.password), (redis_password, lab.redis_password)):
        file.touch(mode=0o600)
        file.write_text(secret)
    document = {
        "version": 1,
        "source": {"url": f"mysql://loader@{HOST}:{lab.mysql_port}/test", "password_file": str(password)},
        "target": {
            "url": f"redis://loader@{HOST}:{lab.redis_ports['n1']}",
            "password_file": str(redis_password),
        },
        "jobs": {"big": {"table": "big"} | job, "five": {"table": "five"} | job},
    }
    path.write_text(json.dumps(document))
    return path


def sync(path: Path, job: str) -> tuple[float, dict[str, dict[str, int]]]:
    """Run the command; its wall time, and the document it printed."""
    started = time.monotonic()
    done = subprocess.run(
        [str(Path(sys.executable).parent / "loader"), "-c", str(path), "sync", job, "-o", "json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    return time.monotonic() - started, json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
