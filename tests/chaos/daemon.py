"""Runs the daemon with twenty jobs beside a workload and two failovers, and holds what it did against what it had to.

No run of a job begins while another of it goes on; every slot that came was run, or skipped with a reason; when the
workload has ended, each job's hashes are its rows; and the process is no larger at the end than after its first minute.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle, pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import pymysql

from loader.lab.lab import Lab
from loader.lab.process import HOST
from stage import Broken, Fleet, connect, start, until, verify, write_config

NODE_TIMEOUT = 1000  # milliseconds until a master counts as dead
EVERY = (1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 10, 10, 12, 15, 15, 20, 30, 30, 45, 60)  # seconds, a job each
ROWS = (200, 1000, 3000, 8000)
PACE = 0.01  # seconds between two statements of the workload
AWAY = 10.0  # seconds that a killed master stays away
FLAT = 0.05  # how much larger the process may be at the end than after its first minute
LOOK = 30.0  # seconds over which its size is averaged
LEAVE = 30.0  # seconds that the daemon may take to end
TABLE = """\
CREATE TABLE {name} (id int unsigned PRIMARY KEY, name varchar(60) NOT NULL, note varchar(40), amount decimal(12,2)
 NOT NULL, changed timestamp(6) NOT NULL DEFAULT current_timestamp(6) ON UPDATE current_timestamp(6), KEY (changed))
 CHARACTER SET utf8mb4"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way of keeping up: what a job's config says of it, and whether a deleted row's hash goes with it."""

    name: str
    config: str
    deletes: bool = False


KINDS = (
    Kind("plain", "chunk_rows: 500"),
    Kind("incremental", "incremental: {column: changed, lag: 2s}, chunk_rows: 500"),
    Kind("changed_only", "changed_only: true, chunk_rows: 500", deletes=True),
)


@dataclass(frozen=True, slots=True)
class Part:
    """A job of the show, with its table."""

    name: str
    every: int
    rows: int
    kind: Kind

    @property
    def config(self) -> str:
        return f"  {self.name}: {{table: {self.name}, schedule: {{every: {self.every}s}}, {self.kind.config}}}"


def parts() -> list[Part]:
    return [
        Part(f"t{number}", every, rows, kind)
        for number, (every, rows, kind) in enumerate(zip(EVERY, cycle(ROWS), cycle(KINDS), strict=False), 1)
    ]


class Workload(threading.Thread):
    """Inserts, updates and, where its job notices, deletes rows, until it is told to stop."""

    def __init__(self, lab: Lab, jobs: list[Part], chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.done = 0
        self._lab, self._jobs, self._chance = lab, jobs, chance
        self._ended = threading.Event()

    def stop(self) -> None:
        self._ended.set()
        self.join(60)

    def run(self) -> None:
        while not self._ended.is_set():
            with suppress(pymysql.MySQLError, OSError), connect(self._lab) as mysql, mysql.cursor() as cursor:
                while not self._ended.wait(PACE):
                    self._change(cursor)
                    self.done += 1

    def _change(self, cursor: Any) -> None:
        job = self._chance.choice(self._jobs)
        row = self._chance.randrange(1, job.rows * 11 // 10)
        if job.kind.deletes and self._chance.random() < 0.2:
            cursor.execute(f"DELETE FROM {job.name} WHERE id = %s", [row])
            return
        note = self._chance.choice([None, "note"])
        words = f"INSERT INTO {job.name} (id, name, note, amount) VALUES (%s, %s, %s, %s)"
        values = [row, f"名 {self._chance.random()}", note, self._chance.randrange(10**6) / 100]
        cursor.execute(f"{words} ON DUPLICATE KEY UPDATE name = VALUES(name), note = VALUES(note)", values)


class Play:
    """The lab, the daemon in it, and what it said."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.jobs = parts()
        self.chance = random.Random(seed)  # reproducible, not secret
        self.fleet = Fleet(lab, NODE_TIMEOUT)
        self.lines: list[dict[str, Any]] = []
        self.sizes: list[tuple[float, int]] = []  # seconds since the start, KiB
        self.wrong: list[str] = []
        self.workload = Workload(Lab(lab.directory), self.jobs, self.chance)
        self._fill()
        write_config(lab, "\n".join(job.config for job in self.jobs), silence="5s")

    def _fill(self) -> None:
        with connect(self.lab) as mysql, mysql.cursor() as cursor:
            for job in self.jobs:
                cursor.execute(TABLE.format(name=job.name))
                rows = [(n, f"名 {n}", None if n % 7 else "note", n / 7) for n in range(1, job.rows + 1)]
                cursor.executemany(f"INSERT INTO {job.name} (id, name, note, amount) VALUES (%s, %s, %s, %s)", rows)

    def act(self, seconds: float) -> None:
        """The whole piece; `wrong` holds what came out wrong."""
        self.process = start(self.lab, "--log-level", "debug", "daemon")  # which tells of each slot that is skipped
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._weigh, daemon=True).start()
        try:
            self.workload.start()
            began = time.monotonic()
            for moment in (seconds / 3, seconds * 2 / 3):
                time.sleep(max(0.0, began + moment - time.monotonic()))
                self._fail_over()
            time.sleep(max(0.0, began + seconds - time.monotonic()))
            self.workload.stop()
            self.fleet.settle()
            self._quiesce()
            self._stop()
        finally:
            self.process.kill()
        for job in self.jobs:
            verify(self.lab, job.name)
        self.wrong += [*self._overlaps(), *self._slots(), *self._memory()]

    def _listen(self) -> None:
        for line in self.process.stderr or ():
            if line.startswith("{"):
                self.lines.append(json.loads(line))
            else:
                self.wrong.append(f"the daemon said: {line.strip()}")

    def _weigh(self) -> None:
        began = time.monotonic()
        with suppress(OSError, IndexError):
            while True:
                text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
                size = int(text.partition("VmRSS:")[2].split()[0])
                self.sizes.append((time.monotonic() - began, size))
                for line in [each for each in list(self.lines) if "port" in each][:1]:  # Prometheus asks beside
                    with urllib.request.urlopen(f"http://{HOST}:{line['port']}/metrics", timeout=5) as answer:
                        answer.read()
                time.sleep(1)

    def _fail_over(self) -> None:
        masters = self.fleet.masters()
        victim = self.chance.choice(masters)
        self.fleet.kill(victim)
        until(lambda: len(self.fleet.masters()) == len(masters), "a replica to take over")
        print(f"{victim} was killed, and its replica has taken over", flush=True)
        time.sleep(AWAY)
        self.fleet.start(victim)

    def _quiesce(self) -> None:
        """Wait until each job has begun a run after the last change, and ended it well."""
        since = time.time()

        def behind() -> set[str]:
            done = {r["job"] for r in self._runs() if _seconds(r["began"]) > since and r["status"] == "ok"}
            return {job.name for job in self.jobs} - done

        until(lambda: not behind(), "all jobs to run once more", 3 * max(EVERY))

    def _stop(self) -> None:
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(2 * LEAVE)
        took = time.monotonic() - began
        if code or took > LEAVE:
            self.wrong.append(f"the daemon ended with {code} after {took:.1f} s")
        time.sleep(0.5)  # its last lines are heard
        print(f"stopped with {code} after {took:.1f} s", flush=True)

    # the verdict

    def _overlaps(self) -> list[str]:
        """Runs of a job that began while another one went on."""
        spans: dict[str, list[tuple[float, float]]] = {}
        for run in self._runs():
            spans.setdefault(run["job"], []).append((_seconds(run["began"]), _seconds(run["timestamp"])))
        return [
            f"two runs of {job} at once, at {begin}"
            for job, times in spans.items()
            for (_, end), (begin, _) in pairwise(sorted(times))
            if begin < end
        ]

    def _slots(self) -> list[str]:
        """Slots that are accounted for not at all, or twice."""
        (first,) = (line for line in self.lines if line["event"] == "daemon started")
        (last,) = (line for line in self.lines if line["event"] == "daemon stopping")
        wrong = []
        for job in self.jobs:
            seen: Counter[int] = Counter()
            seen.update({_slot(run) for run in self._runs() if run["job"] == job.name})
            for line in self.lines:
                if line["event"] == "slot skipped" and line["job"] == job.name:
                    seen.update(_slot(line) + n * job.every for n in range(line["count"]))
            start, end = _seconds(first["timestamp"]), _seconds(last["timestamp"])
            due = set(range(int(start // job.every + 1) * job.every, int(end) + 1, job.every))
            edge = {slot for slot in due ^ set(seen) if min(abs(slot - start), abs(slot - end)) < 1}
            if missed := sorted(due - set(seen) - edge):
                wrong.append(f"{job.name}: slots without a trace: {missed[:5]} of {len(missed)}")
            if twice := [slot for slot, count in seen.items() if count > 1]:
                wrong.append(f"{job.name}: slots told of twice: {twice[:5]} of {len(twice)}")
            if strange := sorted(set(seen) - due - edge):
                wrong.append(f"{job.name}: slots that never came: {strange[:5]}")
        return wrong

    def _memory(self) -> list[str]:
        first, last = self._size(60), self._size(self.sizes[-1][0] - LOOK)
        print(f"memory    {first / 1024:.1f} MiB after a minute, {last / 1024:.1f} MiB at the end")
        return [f"the daemon grew by {last / first - 1:.1%}"] if last > first * (1 + FLAT) else []

    def _size(self, since: float) -> float:
        return mean(size for moment, size in self.sizes if since <= moment <= since + LOOK)

    def summary(self) -> None:
        ends = Counter(run["status"] for run in self._runs())
        skips: Counter[str] = Counter()
        for line in self.lines:
            if line["event"] == "slot skipped":
                skips[line["reason"]] += line["count"]
        print("runs      " + ", ".join(f"{count:,} {end}" for end, count in sorted(ends.items())))
        print("skipped   " + (", ".join(f"{count:,} {reason}" for reason, count in sorted(skips.items())) or "none"))
        rows = sum(line.get("read", 0) for line in self._runs())
        print(f"rows      {rows:,} read; {self.workload.done:,} changes beside")
        late = sorted(run["late_seconds"] for run in self._runs())
        print(f"late      {late[len(late) // 2]:.1f} s in the middle, {late[-1]:.1f} s at most")

    def _runs(self) -> list[dict[str, Any]]:
        return [line for line in list(self.lines) if line["event"] == "run"]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _slot(line: dict[str, Any]) -> int:
    return int(_seconds(line["slot"]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/daemon.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="two at least; default %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="another workload; default %(default)s")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="loader-daemon-") as name:
        lab = Lab(Path(name) / "lab")
        try:
            lab.up()
            play = Play(lab, args.seed)
            play.act(60 * args.minutes)
            play.summary()
            wrong = play.wrong
        except Broken as broken:
            wrong = [str(broken)]
        finally:
            lab.down()
    if wrong:
        sys.exit("\n".join(["", "daemon: wrong:", *wrong]))
    print("no overlap, every slot accounted for, every job equal to its table")


if __name__ == "__main__":
    main()
