"""Measures a config of many tiny tables: what each command takes for a table, and how many runs a second a daemon does.

The tables have five shapes and a few rows each. Redis' own counts say how many commands arrived; a daemon then runs all
tables every few seconds, more often than it can if need be, so that its greatest rate shows.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from loader.lab.lab import Lab
from loader.lab.process import HOST
from stage import Broken, Done, connect, run, start, until, write_config

SHAPES = {
    "author": (
        "id int unsigned PRIMARY KEY, name varchar(40) NOT NULL, born date",
        "({n}, 'author {n}', '1970-01-01' + INTERVAL {n} DAY)",
    ),
    "price": (
        "item int NOT NULL, country char(2) NOT NULL, amount decimal(10,2) NOT NULL, PRIMARY KEY (item, country)",
        "({n}, 'DE', {n} / 8)",
    ),
    "parcel": (
        "code varchar(24) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, weight double, sent datetime(3)",
        "('P-{n}', {n} * 0.5, '2024-05-06 07:08:09.125')",
    ),
    "note": (
        "id bigint PRIMARY KEY, title varchar(80) NOT NULL, body text, hidden tinyint NOT NULL DEFAULT 0",
        "({n}, '第 {n} 号', NULL, 0)",
    ),
    "stamp": ("id smallint PRIMARY KEY, mark varbinary(16), at timestamp NULL", "({n}, x'00ff', NULL)"),
}
"""Columns, and the nth row, of each shape."""
ROWS = 9  # of a table at most
JOB = "  many: {{tables: 'shop_*', key: '{{table}}:{{pk}}'{more}}}"
TICK = os.sysconf("SC_CLK_TCK")
SETTLING = 5.0  # seconds of the daemon that are not measured


@dataclass(frozen=True, slots=True)
class Took:
    """A command that ended well: its seconds, and the commands that arrived at the masters, by name."""

    seconds: float
    commands: Counter[str]
    done: Done


class Bench:
    """The lab with its tables."""

    def __init__(self, lab: Lab, tables: int) -> None:
        self.lab = lab
        self.tables = tables
        self.rows = 0
        ports = [int(row.address.rpartition(":")[2]) for row in lab.status() if row.role == "master"]
        self._masters = [redis.Redis(HOST, port, decode_responses=True) for port in ports]

    def fill(self) -> None:
        """Make the tables."""
        with closing(connect(self.lab)) as mysql, mysql.cursor() as cursor:
            for number in range(self.tables):
                shape = list(SHAPES)[number % len(SHAPES)]
                columns, row = SHAPES[shape]
                rows = 1 + number % ROWS
                cursor.execute(f"CREATE TABLE shop_{number:03}_{shape} ({columns}) CHARACTER SET utf8mb4")
                values = ", ".join(row.format(n=n) for n in range(1, rows + 1))
                cursor.execute(f"INSERT INTO shop_{number:03}_{shape} VALUES {values}")
                self.rows += rows

    def write(self, more: str = "") -> None:
        """The config of one job for all tables, with `more` keys."""
        write_config(self.lab, JOB.format(more=more))

    def flush(self) -> None:
        """Forget all that is in Redis."""
        for master in self._masters:
            master.flushall()

    def took(self, *words: str) -> Took:
        """Run a command."""
        before, began = self.commands(), time.monotonic()
        done = run(self.lab, *words)
        seconds = time.monotonic() - began
        if done.code:
            raise Broken(f"exit code 0 is expected of {done}")
        return Took(seconds, self.commands() - before, done)

    def commands(self) -> Counter[str]:
        """Commands that came over the network or from scripts so far, by name, of all masters.

        They are not reset: masters whose counters were reset may have evicted keys, and everything would be written.
        """
        counts: Counter[str] = Counter()
        for master in self._masters:
            for name, figures in master.info("commandstats").items():
                counts[name.removeprefix("cmdstat_")] += int(figures["calls"])
        return counts

    def close(self) -> None:
        """Leave the servers."""
        for master in self._masters:
            master.close()


def commands(bench: Bench, rounds: int) -> None:
    """What the commands take, the best of some rounds."""
    base = bench.took("check").seconds
    print(f"check             {1000 * base:8.0f} ms, which asks no server")
    plain = tell(bench, "sync --all, first", rounds, lambda: bench.took("sync", "--all", "-o", "json"), fresh=True)
    tell(bench, "sync --all, again", rounds, lambda: bench.took("sync", "--all", "-o", "json"))
    bench.write(", changed_only: true")
    bench.took("sync", "--all")
    same = tell(bench, "  unchanged only", rounds, lambda: bench.took("sync", "--all", "-o", "json"))
    if (unchanged := same.done.document["rows"]["unchanged"]) != bench.rows:
        raise Broken(f"{bench.rows} rows are unchanged, not {unchanged}")
    print(f"                  {same.seconds / plain.seconds:8.2f} of the time of the first, by changed_only: true")
    verified = tell(bench, "verify --all", rounds, lambda: bench.took("verify", "--all", "-o", "json"))
    pages = verified.commands["scan"]
    print(f"                  {pages:8,} SCAN commands for all masters and tables")


def tell(bench: Bench, name: str, rounds: int, measure: Callable[[], Took], *, fresh: bool = False) -> Took:
    """Print the best of some measurements; each begins with an empty Redis if it is to be `fresh`."""
    best: Took | None = None
    for _ in range(rounds):
        if fresh:
            bench.flush()
        took = measure()
        best = took if best is None or took.seconds < best.seconds else best
    assert best
    calls = sum(count for name, count in best.commands.items() if name not in {"hmset", "hset", "info", "config"})
    print(
        f"{name:17} {1000 * best.seconds / bench.tables:8.1f} ms a table, {best.seconds:.2f} s,"
        f" {calls / bench.tables:.0f} Redis commands a table, with those in scripts",
        flush=True,
    )
    return best


@contextmanager
def daemon(lab: Lab, lead: Sequence[str] = ()) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A daemon: its pid, and the lines that it has logged so far."""
    process = start(lab, "--log-level", "info", "daemon", lead=lead)
    assert process.stderr
    stderr, lines = process.stderr, list[dict[str, Any]]()

    def read() -> None:
        for line in stderr:
            lines.append(json.loads(line) if line.startswith("{") else {"event": line.strip()})

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield process.pid, lines
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        reader.join()


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def measure_daemon(bench: Bench, every: int, seconds: float, more: str = "", lead: Sequence[str] = ()) -> None:
    """The runs of a daemon, from its second round on."""
    bench.flush()
    bench.write(f", schedule: {{every: {every}s}}{more}")
    with daemon(bench.lab, lead) as (pid, lines):
        done = lambda: sum(line["event"] == "run" for line in lines)  # noqa: E731
        until(lambda: done() >= bench.tables, "the first runs of all tables", 300)
        time.sleep(SETTLING)
        ran, used, began = done(), cpu(pid), time.monotonic()
        time.sleep(seconds)
        ran, used, took = done() - ran, cpu(pid) - used, time.monotonic() - began
        late = [line["why"] for line in lines if line["event"] == "schedules are not kept"]
        failed = [line for line in lines if line.get("level") == "error" or line.get("status") == "failed"]
    if failed:
        raise Broken(f"of the daemon, {failed[0]}")
    cost = f"{1000 * used / ran:.1f} ms of CPU each" if ran else ""
    pace = f"{ran / took:8.1f} runs a second of {bench.tables / every:.0f}"
    print(f"{'daemon':17} {pace}, {used / took:.2f} cores, {cost}")
    print(f"                  {late[-1]}" if late else "                  all schedules are kept", flush=True)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="scripts/many.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--tables", type=int, default=345, metavar="N", help="how many; default %(default)s")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each command; default %(default)s")
    parser.add_argument("--every", type=int, default=5, metavar="S", help="of the daemon; default %(default)s")
    parser.add_argument("--seconds", type=float, default=20, metavar="S", help="of the daemon; default %(default)s")
    parser.add_argument("--only", choices=("commands", "daemon"), help="measure only these")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="loader-many-") as name:
        lab = Lab(Path(name) / "lab")
        try:
            lab.up()
            bench = Bench(lab, args.tables)
            began = time.monotonic()
            bench.fill()
            print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
            print(f"{bench.tables} tables, {bench.rows:,} rows, made in {time.monotonic() - began:.1f} s", flush=True)
            bench.write()
            if args.only != "daemon":
                commands(bench, args.rounds)
            if args.only != "commands":
                measure_daemon(bench, args.every, args.seconds)
            bench.close()
        except Broken as broken:
            sys.exit(f"many: broken: {broken}")
        finally:
            lab.down()


if __name__ == "__main__":
    main()
