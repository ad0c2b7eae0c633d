"""The scripts that break a lab at random: a short run of one, and whether their comparison sees what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from stage import compare

CHAOS = Path(__file__).parents[1] / "scripts" / "chaos.py"


def test_a_short_chaos():
    """Whatever breaks, no row is lost, no command ends as it may not, and the rows of each add up."""
    words = ["--minutes", "0.3", "--every", "3", "--seed", "22"]
    done = subprocess.run([sys.executable, CHAOS, *words], capture_output=True, check=False, text=True, timeout=200)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith("\nall exact\n")
    assert int(done.stdout.partition("\nfaults    ")[2].split()[0]) >= 3


@pytest.fixture
def pairs(lab, world):
    """A table of two rows in the lab's own database, and their hashes."""
    world.sql(
        "CREATE TABLE test.pairs (a int, b varchar(9), c int, PRIMARY KEY (a, b))",
        "INSERT INTO test.pairs VALUES (1, 'x:y', NULL), (2, '名', 5)",
    )
    world.redis.hset("pairs_1:x:y", mapping={"a": 1, "b": "x:y"})
    world.redis.hset("pairs_2:名", mapping={"a": 2, "b": "名", "c": 5})
    yield world.redis
    world.sql("DROP TABLE test.pairs")


def test_the_comparison_of_the_scripts_is_not_blind(lab, pairs):
    """A hash that is gone, has another value, a field too many, or no row: each is seen."""

    def seen():
        count = compare(lab, "pairs", ["a", "b"])
        return count.rows, count.missing, count.different, count.extra

    assert seen() == (2, 0, 0, 0)
    pairs.hset("pairs_2:名", "c", 6)
    assert seen() == (2, 0, 1, 0)
    pairs.hset("pairs_2:名", mapping={"c": 5, "d": ""})
    assert seen() == (2, 0, 1, 0)
    pairs.delete("pairs_1:x:y", "pairs_2:名")
    pairs.hset("pairs_1:x", "a", 1)
    assert seen() == (2, 2, 0, 1)
