"""Breaks everything at random while the loader works, and compares every row at rest.

A workload inserts, updates and deletes in five tables; two hands type commands of the loader, now and again for the
same job; one fault after the other comes out of a shuffled table, see `faults.py`. After every few faults, and at the
end, all comes to rest, and before anything is mended every hash is held against what the commands that ended well
have promised of it, see `oracle.py`. Then each job is synced, pruned and verified once more, and every row is compared
with its hash, not by way of the loader.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from havoc import Chaos, Script
from loader.lab.lab import Lab
from proof import prove
from stage import Broken, clock, compare
from workload import TABLES


def act(lab: Lab, args: argparse.Namespace) -> Sequence[str]:
    """The whole piece; what is wrong at its end, a line each."""
    chaos = Chaos(lab, args.seed, Script(rest=args.rest))
    try:
        print(f"the tables are made after {clock():.0f} s", flush=True)
        wrong = [*chaos.rage(60 * args.minutes, args.every), *chaos.compare()]
        chaos.end()
        wrong += [*chaos.wrong_ends(), *chaos.settle_up()]
    finally:
        chaos.close()
    counts = {name: compare(lab, name, table.key, table.wanted) for name, table in TABLES.items()}
    print("", *chaos.summary(counts), sep="\n")
    return [*wrong, *(f"{table}: {count}" for table, count in counts.items() if not count.exact)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/chaos.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20, metavar="N", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="other faults; default %(default)s")
    parser.add_argument("--every", type=float, default=15, metavar="S", help="seconds from fault to fault; %(default)s")
    parser.add_argument("--rest", type=int, default=4, metavar="N", help="faults from rest to rest; %(default)s")
    parser.add_argument("--prove", action="store_true", help="plant faults in a copy of the loader, and find them")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if args.prove:
        sys.exit(prove())
    with tempfile.TemporaryDirectory(prefix="loader-chaos-") as name:
        lab = Lab(Path(name) / "lab")
        try:
            lab.up(nodes=9, replicas=2)
            wrong = act(lab, args)
        except Broken as broken:
            wrong = [str(broken)]
        finally:
            lab.down()
    if wrong:
        sys.exit("\n".join(["", "chaos: wrong:", *wrong]))
    print("all exact")


if __name__ == "__main__":
    main()
