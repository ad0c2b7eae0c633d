"""Kills a backfill with SIGKILL at random moments, resumes it, and compares every row.

A chain is a backfill into an empty cluster that is killed and resumed until it ends. After each kill and at its end,
the servers themselves say how many rows are there and how many HMSETs it took: what is above the rows was written
twice, and may be one chunk a worker and kill at most. At the end each hash must be its row, and nothing else be there.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.cluster import RedisCluster

from loader.lab.lab import Lab
from loader.lab.process import HOST
from stage import Broken, Stage

CHECKPOINT = "loader:{big}:checkpoint"
HISTORY = {b"loader:{big}:runs", b"loader:{big}:success"}  # stays
QUIET = 4  # looks in a row that find nothing new until the servers are at rest: they still read what a dead one sent
PAUSE = 0.05  # seconds between two of them
LATEST = 300  # seconds that a backfill may take


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


class Counted(Stage):
    """A stage whose servers are asked what they hold."""

    def __init__(self, lab: Lab, rows: int, chunk_rows: int, workers: int) -> None:
        super().__init__(lab, rows, chunk_rows, workers)
        self.said = ""  # on stderr, by the backfill that was killed last
        self.redis = RedisCluster(host=HOST, port=lab.redis_ports["n1"])

    def backfill(self, seconds: float) -> dict[str, Any] | None:
        """The document of a backfill; None where it was killed after so many seconds."""
        process = self.start()
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
        own = set(self.redis.keys("loader:*", target_nodes=RedisCluster.PRIMARIES))
        state = len(own - HISTORY)
        held = self.redis.dbsize(target_nodes=RedisCluster.PRIMARIES)
        text = self.redis.get(CHECKPOINT)
        saved = json.loads(text) if text else None
        done = saved["number"] - 1 - len(saved["owed"]) if saved else -1
        return Seen(rows=held - len(own), calls=calls, state=state, done=done)


def chain(stage: Counted, number: int, kills: int, chance: random.Random, whole: float) -> int:
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


def check(document: dict[str, Any], before: Seen, now: Seen, stage: Counted) -> None:
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
            stage = Counted(lab, args.rows, args.chunk_rows, args.workers)
            stage.fill()
            print(f"{args.rows:,} rows are made after {time.monotonic() - started:.0f} s\n")
            print("chain  kill   second  chunks        rows rows twice\n" + " " * 24 + "done       there    after it")
            kill(stage, args.kills, args.seed)
        except Broken as broken:
            sys.exit(f"kill: broken: {broken}")
        finally:
            lab.down()
    print(f"\n{args.kills} kills, nothing lost, in {time.monotonic() - started:.0f} s")


def kill(stage: Counted, kills: int, seed: int) -> None:
    """Chains until there were so many kills; one without a kill says first how long a backfill takes."""
    chance = random.Random(seed)  # reproducible, not secret
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
