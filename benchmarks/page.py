"""Measures the status page of a daemon with many jobs, and what looking at it each second costs the daemon's own work.

The daemon has a job of many rows each few seconds. In windows that take turns the page is asked for every second, or
not; the seconds that the runs of both took are compared by their medians, and so is the CPU that the process used.
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
import urllib.request
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from loader.config.load import load_config
from loader.lab.lab import Lab
from loader.lab.process import HOST
from loader.model import Run
from loader.redis.client import RedisClient
from loader.state.history import VERSION, entry_of
from stage import Broken, connect, start, until, write_config

RUNS = 50  # of each job
ROWS = 300_000
EVERY = 3  # seconds between two runs of the job of many rows
WINDOW = 2 * EVERY  # seconds
MOST = 0.1  # seconds that a page may take


def main() -> int:
    """Measure, and say what was found; 1 where a page takes too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--parts", type=int, default=0, help="of a job of many tables, besides the other jobs")
    parser.add_argument("--pairs", type=int, default=8, help="windows with the page looked at, and without")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        lab = Lab(Path(directory) / "lab")
        lab.up()
        try:
            return measure(lab, chosen.jobs, chosen.parts, chosen.pairs)
        except Broken as error:
            print(f"page: {error}", file=sys.stderr)
            return 1
        finally:
            lab.down()


def measure(lab: Lab, count: int, parts: int, pairs: int) -> int:
    """Everything, in one lab."""
    with connect(lab) as mysql, mysql.cursor() as cursor:
        cursor.execute("CREATE TABLE few (id int PRIMARY KEY)")
        cursor.execute("CREATE TABLE many (id int PRIMARY KEY, name varchar(40), amount decimal(12,2))")
        cursor.execute("INSERT INTO few VALUES (1)")
        cursor.execute(f"INSERT INTO many SELECT seq, concat('name ', seq), seq / 7 FROM seq_1_to_{ROWS}")
        for number in range(parts):
            cursor.execute(f"CREATE TABLE part_{number} (id int PRIMARY KEY)")
    names = [f"job{number}" for number in range(count)]
    jobs = "\n".join(f"  {name}: {{table: few, key: '{name}_{{id}}', schedule: {{every: 1d}}}}" for name in names)
    work = f"  work: {{table: many, schedule: {{every: {EVERY}s}}}}"
    split = "  parts: {tables: part_*, schedule: {every: 1d}}\n" if parts else ""
    write_config(lab, f"{jobs}\n{split}{work}")
    remember(lab, names)
    process = start(lab, "daemon")
    assert process.stderr
    lines: list[dict[str, Any]] = []
    stderr = process.stderr
    reader = threading.Thread(target=lambda: lines.extend(json.loads(line) for line in stderr), daemon=True)
    reader.start()
    try:
        until(lambda: any(line["event"] == "run" for line in lines), "the first run")
        port = next(line["port"] for line in lines if line["event"] == "daemon started")
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        print(f"{count} jobs, {RUNS} runs of each; {parts} parts of one more")
        slow = serve(port, names)
        slowdown(port, process.pid, lines, pairs)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)
        reader.join(5)
    return 1 if slow else 0


def remember(lab: Lab, names: list[str]) -> None:
    """Give each job a history."""
    entry = entry_of(Run(job="", id="0123456789ab", read=1000, written=1000, seconds=1.5))
    with RedisClient(load_config([lab.config]).target) as target:
        for name in names:
            text = json.dumps({"version": VERSION, **asdict(replace(entry, job=name))})
            for key, words in (("runs", ["LPUSH", *[text] * RUNS]), ("success", ["SET", text])):
                whole = f"loader:{{{name}}}:{key}"
                target.ask(whole.encode(), words[0], whole, *words[1:])


def serve(port: int, names: list[str]) -> bool:
    """How long pages take, asked for each half second, so that every other has servers asked; while runs go on."""
    slow = False
    print(f"\n{'page':<18}{'median':>9}{'95 %':>9}{'most':>9}{'size':>10}")
    for path in ("/", f"/jobs/{names[7]}", f"/jobs/{names[7]}/rejects", "/api/v1/status", "/metrics"):
        get(port, path)
        taken = []
        size = 0
        for _ in range(30):
            seconds, size = get(port, path)
            taken.append(seconds)
            time.sleep(0.5 - seconds if seconds < 0.5 else 0)
        slow |= median(taken) > MOST
        told = "".join(f"{1000 * s:>6.1f} ms" for s in (median(taken), quantiles(taken, n=20)[-1], max(taken)))
        print(f"{path:<18.18}{told}{size / 1024:>6.0f} KiB", flush=True)
    return slow


def slowdown(port: int, pid: int, lines: list[dict[str, Any]], pairs: int) -> None:
    """Runs with the page asked for each second, and without, in turns."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    cpu: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * pairs):
        looked = number % 2 == (number // 2) % 2  # whether the first of a pair is looked at takes turns too
        time.sleep(EVERY - time.time() % EVERY + EVERY * 0.7)  # runs under way end before a window begins
        before, used, end = len(lines), cpu_seconds(pid), time.monotonic() + WINDOW
        while (left := end - time.monotonic()) > 0:
            taken = get(port, "/")[0] if looked else 0.0
            time.sleep(max(0.0, min(left, 1.0 - taken)))
        cpu[looked].append(cpu_seconds(pid) - used)
        ended = [line for line in lines[before:] if line["event"] == "run" and line["job"] == "work"]
        seconds[looked] += [line["seconds"] for line in ended]
    print(
        f"\nruns of {ROWS:,} rows: {len(seconds[True])} with the page asked for each second, {len(seconds[False])} not"
    )
    for what, found, unit in (("seconds of a run", seconds, "s"), ("CPU of a window", cpu, "s")):
        with_page, without = median(found[True]), median(found[False])
        spread = f"{min(found[False]):.2f} to {max(found[False]):.2f}"
        told = f"{with_page:.3f} {unit} / {without:.3f} {unit} = {with_page / without:.3f}"
        print(f"{what:<18}{told}  (without: {spread})")


def get(port: int, path: str) -> tuple[float, int]:
    """Seconds and bytes of an answer."""
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer:  # our own daemon
        size = len(answer.read())
    return time.perf_counter() - began, size


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
