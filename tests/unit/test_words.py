"""How many there are of something."""

import pytest

from loader.jobs.prune import Pruned
from loader.jobs.verify import Verdict
from loader.model import Run
from loader.report.text import cluster_text, prune_text, run_text, verify_text
from loader.words import counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(0, "row", "0 rows"), (1, "row", "1 row"), (1, "hash", "1 hash"), (2000, "hash", "2,000 hashes")],
)
def test_counted(number, noun, text):
    """One is one, and all else are several."""
    assert counted(number, noun) == text


def test_one_of_each():
    """What the commands print has the singular where there is one."""
    master = {"node": "a:1", "slots": 1, "keys": 1, "replicas": 1}
    cluster = cluster_text({"masters": [master], "state": "ok", "slots": 16384})
    assert run_text(Run("j", "r", read=1, written=1)).startswith("j: ok: 1 row read, 1 written")
    assert verify_text(Verdict("j", rows=1, hashes=1), expires=False).startswith("j: ok: 1 row and 1 hash compared")
    assert prune_text(Pruned("j", keys=1)) == "j: 1 hash, 0 without a row, 0 deleted"
    assert cluster.split("\n")[0].split() == ["a:1", "1", "slot", "1", "key", "1", "replica"]
    assert cluster.endswith("of 16384 slots, 1 key in 1 master")
