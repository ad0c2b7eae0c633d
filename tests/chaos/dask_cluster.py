"""Loads two million rows by a Dask cluster of processes that are killed and added, and compares every row.

First a worker is killed with SIGKILL and another added; then the client is killed and started again; then two workers
are measured against one, with a sink that discards: what they would send is thrown away.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from loader.lab.lab import Lab
from stage import Broken, Nodes, Stage, until

sys.path.append(str(Path(__file__).parents[1]))  # tests, as pytest has it

from support.dask import DaskServers, dask_servers

DISCARDS = (
    "import loader.pipeline.dask_worker as worker; real = worker.ChunkWorker;"
    " worker.ChunkWorker = lambda *way, pool, marking: real(*way, pool=pool, dry_run=True)"
)
ROUNDS = 3
LATEST = 300  # seconds that a backfill may take


class Clustered(Stage):
    """A stage whose rows are loaded by a Dask cluster."""

    def __init__(self, lab: Lab, rows: int, cluster: DaskServers) -> None:
        super().__init__(lab, rows, chunk_rows=20_000, workers=64)
        self.cluster = cluster

    def begin(self):
        """A backfill."""
        return self.start("--dask", self.cluster.address)

    def ended(self, process):
        """The document of a backfill that loads all that is left."""
        out, error = process.communicate(timeout=LATEST)
        if process.returncode:
            raise Broken(f"a backfill ended with exit code {process.returncode}: {out}{error}")
        return json.loads(out)

    def reach(self, count: int) -> None:
        """Wait until so many keys are there."""
        with Nodes(self.lab) as nodes:
            until(lambda: sum(nodes.each("DBSIZE")) >= count, f"{count:,} hashes", LATEST)


def lose_a_worker(stage: Clustered) -> None:
    """Three workers; one is killed and one is added in the middle."""
    stage.clear()
    for _ in range(3):
        stage.cluster.add()
    process = stage.begin()
    stage.reach(stage.rows // 4)
    stage.cluster.workers[0].kill()
    stage.cluster.add()
    document = stage.ended(process)
    if document["rows"]["written"] != stage.rows:
        raise Broken(f"the run counts {document['rows']}")
    stage.compare()
    print(f"a worker killed, one added: {document['seconds']:.1f} s, {stage.rows:,} rows, all equal", flush=True)


def lose_the_client(stage: Clustered) -> None:
    """The client is killed in the middle and started again."""
    stage.clear()
    process = stage.begin()
    stage.reach(stage.rows // 2)
    process.kill()
    process.communicate()
    with Nodes(stage.lab) as nodes:
        there = sum(nodes.each("DBSIZE"))
    document = stage.ended(stage.begin())
    written = document["rows"]["written"]
    if not document["resumed"] or written > stage.rows - there + 7 * stage.chunk_rows:
        raise Broken(f"{there:,} rows were there, and then {written:,} were written: {document}")
    stage.compare()
    print(f"the client killed with {there:,} rows loaded: {written:,} more, all equal", flush=True)


def measure(stage: Clustered) -> None:
    """One worker and two, with a sink that discards."""
    for worker in stage.cluster.workers:
        worker.kill()
    found = {}
    for count in (1, 2):
        stage.cluster.add(before=DISCARDS)
        stage.clear()
        stage.ended(stage.begin())  # warm
        found[count] = statistics.median(stage.ended(stage.begin())["seconds"] for _ in range(ROUNDS))
        print(f"{count} workers, discarding: {stage.rows / found[count]:,.0f} rows/s", flush=True)
    print(f"two against one: {found[1] / found[2]:.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/dask.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000, metavar="R", help="of the table; default %(default)s")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="loader-dask-") as name:
        lab = Lab(Path(name) / "lab")
        try:
            lab.up()
            with dask_servers(Path(name) / "dask") as cluster:
                stage = Clustered(lab, args.rows, cluster)
                stage.fill()
                print(f"{args.rows:,} rows are made after {time.monotonic() - started:.0f} s", flush=True)
                for part in (lose_a_worker, lose_the_client, measure):
                    part(stage)
        except Broken as error:
            sys.exit(f"broken: {error}")
        finally:
            lab.down()


if __name__ == "__main__":
    main()
