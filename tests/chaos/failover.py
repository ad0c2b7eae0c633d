"""Kills a master at random moments of a load, fifty times, and compares every row after each.

A backfill begins in an empty cluster; amid it a master dies, and its replica takes over. Whatever was counted as
written must be there at its end: `loader verify` says so, and so does a comparison of every row that is not the
loader's. One time in three the backfill is killed too, while the cluster is still without the master, and resumed: so
what its checkpoint counts must be there as well. The dead node is back and in sync before the next load.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from loader.lab.lab import Lab
from stage import Broken, Done, Fleet, Nodes, Stage, until, verify

NODE_TIMEOUT = 1000  # milliseconds until a master counts as dead
LATEST = 180.0  # seconds that a backfill may take
LOAD = 3.0  # seconds that a load is made to take, by its rate
UNREACHABLE = 4  # exit code of a run that no node answered, while a person was waiting
FIRST = 100  # rows, which are more keys than the loader's own
BOTH = 1 / 3  # how often the backfill is killed too


@dataclass(frozen=True, slots=True)
class Kill:
    """What is decided about one kill."""

    moment: float  # seconds after the first rows
    which: float  # of the masters, from 0 to 1
    also: float | None  # seconds after the master's death until the backfill is killed


def decide(chance: random.Random) -> Kill:
    moment, which = chance.uniform(0, LOAD), chance.random()
    both, also = chance.random(), chance.uniform(0, 2)
    return Kill(moment, which, also if both < BOTH else None)


class Theatre(Stage):
    """A stage whose nodes die."""

    def __init__(self, lab: Lab, rows: int) -> None:
        super().__init__(lab, rows, chunk_rows=5000, workers=2)
        self.fleet = Fleet(lab, NODE_TIMEOUT)

    def act(self, number: int, kill: Kill) -> None:
        """One load with one kill; a line says what came of it."""
        self.clear()
        process = self.start("--rate", str(int(self.rows / LOAD)))
        try:
            with Nodes(self.lab) as nodes:
                until(lambda: sum(nodes.each("DBSIZE")) > FIRST, "the first rows")
            time.sleep(kill.moment)
            masters = self.fleet.masters()
            victim = masters[int(kill.which * len(masters))]
            self.lab.kill(victim)
            killed = time.monotonic()
            if kill.also is not None:
                time.sleep(kill.also)
                process.kill()
                process.communicate()
                process = self.start()
            done = self._ended(process)
            while done.code == UNREACHABLE and time.monotonic() < killed + LATEST:  # it began while the master was away
                process = self.start()
                done = self._ended(process)
        finally:
            process.kill()
            process.communicate()
        seconds = time.monotonic() - killed
        document = done.document
        rows = document["rows"]
        if done.code or document["status"] != "ok" or rows["read"] != rows["written"] + rows["unchanged"]:
            raise Broken(f"not all was loaded by {done}")
        verify(self.lab, "big")
        self.compare()
        until(lambda: len(self.fleet.masters()) == len(masters), "a replica to take over")
        self.fleet.start(victim)
        also = "-" if kill.also is None else f"{kill.also:.1f}"
        print(
            f"{number:>4}  {victim:>4} {kill.moment:>7.2f} {also:>7} {document['chunks']['retried']:>8}"
            f" {document['resumed']!s:>8} {rows['written']:>9,} {seconds:>8.1f}  all equal",
            flush=True,
        )

    def _ended(self, process: "subprocess.Popen[str]") -> Done:
        try:
            out, error = process.communicate(timeout=LATEST)
        except subprocess.TimeoutExpired:
            raise Broken(f"a backfill did not end within {LATEST:g} s") from None
        return Done(("backfill", "big"), process.returncode, out, error)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/failover.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="how many; default %(default)s")
    parser.add_argument("--rows", type=int, default=100_000, metavar="R", help="of the table; default %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="other moments; default %(default)s")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    chance = random.Random(args.seed)  # reproducible, not secret
    with tempfile.TemporaryDirectory(prefix="loader-failover-") as name:
        lab = Lab(Path(name) / "lab")
        try:
            lab.up()
            theatre = Theatre(lab, args.rows)
            theatre.fill()
            print("kill  node  second  loader  retried  resumed   written  seconds\n" + " " * 20 + "killed   chunks")
            for number in range(1, args.kills + 1):
                theatre.act(number, decide(chance))
        except Broken as broken:
            sys.exit(f"failover: broken: {broken}")
        finally:
            lab.down()
    compared = args.kills * args.rows
    print(f"\n{args.kills} kills, {compared:,} rows compared, none lost, in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
