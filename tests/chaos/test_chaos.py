"""The scripts that break a lab at random: a short run of one, and whether their comparisons see what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

import loader
from hands import CATCH_UP, FOLLOW
from oracle import HIDDEN, Judge, Rows
from promises import LONG_AGO, Command, Void, current, oldest, promises
from proof import PLANTS
from stage import Broken, compare

CHAOS = Path(__file__).with_name("chaos.py")


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


KEY = b"item_1"
ONE, TWO, THREE = (b"1", b"one"), (b"1", b"two"), (b"1", None)


def rows(*changes):
    """A row that was `ONE` from the beginning, and what became of it: states, each with when it had come."""
    made = Rows([b"id", b"name"])
    made.note(KEY, ONE)
    for state, came in changes:
        made.note(KEY, state, came - 0.5, came)
    return made


def hash_of(state):
    return rows().hash_of(state)


def command(began, ended, *words, code=0, **more):
    return Command(
        "item", words or ("sync",), began, ended, code, more.pop("document", {"chunks": {"retried": 0}}), **more
    )


def said(rows, commands, found, *, hides=False, chained=False, voids=()):
    """What is wrong about the hash of a row, in short."""
    finding = Judge(rows, promises(commands, hides=hides, chained=chained), voids).look(KEY, found)
    return finding and next(
        w for w in ("missing", "has a value of", "none of those known", "still there") if w in finding.what
    )


def test_a_hash_may_not_be_older_than_the_last_run_that_ended_well():
    """A row was changed before a run began: its old value is no more right, its new one is."""
    changed = rows((TWO, 5))

    assert said(changed, [command(10, 12)], hash_of(ONE)) == "has a value of"
    assert said(changed, [command(10, 12)], hash_of(TWO)) is None
    assert said(changed, [command(10, 12)], {b"id": b"9"}) == "none of those known"
    assert said(changed, [command(4, 12)], hash_of(ONE)) is None, "it may have been read before"
    assert said(changed, [command(1, 2), command(10, 12, code=1)], hash_of(ONE)) is None


def test_a_finding_tells_the_run_and_the_row():
    (promise,) = promises([command(10, 12)], hides=False, chained=False)
    finding = Judge(rows((TWO, 5)), [promise]).look(KEY, hash_of(ONE))

    assert str(finding) == (
        "`sync` said ok at 12.0 (began 10.0): b'item_1' in slot 1828 has a value of the beginning,"
        " {b'id': b'1', b'name': b'one'}, and its row has {b'id': b'1', b'name': b'two'} since 5.0"
    )


def test_a_hash_may_be_newer():
    """What came after a run began may be in Redis, whoever wrote it: a run that was killed, or none that is known."""
    changed = rows((TWO, 11), (ONE, 20), (TWO, 30))

    for state in (ONE, TWO):
        assert said(changed, [command(10, 12), command(31, 32, code=-9)], hash_of(state)) is None


def test_a_row_that_has_been_there_all_the_time_has_a_hash():
    """One that was deleted and came back need not have."""
    assert said(rows(), [command(10, 12)], {}) == "missing"
    assert said(rows((TWO, 20)), [command(10, 12)], {}) == "missing"
    assert said(rows((None, 20), (TWO, 21)), [command(10, 12)], {}) is None
    assert said(rows((None, 11), (TWO, 11.9)), [command(10, 12)], {}) is None
    assert said(rows(), [command(10, 12, code=-9)], {}) is None


def test_a_run_says_nothing_of_a_row_that_was_away_meanwhile():
    """But the run before it does, where the row was there."""
    away = rows((TWO, 5), (None, 21), (TWO, 21.8))

    assert said(away, [command(20, 22)], hash_of(ONE)) is None
    assert said(away, [command(10, 12), command(20, 22)], hash_of(ONE)) == "has a value of"


def test_the_hash_of_a_deleted_row_stays_until_a_prune():
    """A prune that began after the row had gone has seen it; so has a sync with --prune."""
    gone = rows((None, 5))

    assert said(gone, [command(10, 12)], hash_of(ONE)) is None
    assert said(gone, [command(3, 4, "prune")], hash_of(ONE)) is None
    for words in (("prune", "--max-delete", "100%"), ("sync", "--prune"), ("verify",)):
        assert said(gone, [command(10, 12, *words)], hash_of(ONE)) == "still there", words
    assert said(gone, [command(10, 12, "prune", code=1)], hash_of(ONE)) is None


def test_a_row_that_is_hidden_loses_its_hash():
    """A job with soft_delete deletes it; a row that was really deleted is another matter."""
    both = [command(1, 2), command(10, 12)]

    assert said(rows((HIDDEN, 5)), both, hash_of(ONE), hides=True) == "still there"
    assert said(rows((HIDDEN, 5)), both[1:], hash_of(ONE), hides=True) is None, "it cannot know since when to look"
    assert said(rows((HIDDEN, 11)), both, hash_of(ONE), hides=True) is None
    assert said(rows((HIDDEN, 5), (None, 6)), both, hash_of(ONE), hides=True) is None
    emptied = Void("evictions", LONG_AGO, 4, frozenset([1]))
    assert said(rows((HIDDEN, 5)), both, hash_of(ONE), hides=True, voids=[emptied]) is None


def test_clean_runs_of_changed_only_delete_what_is_gone():
    """A run had met the row, the next one deletes its hash; not where a run between them was killed or had to retry."""
    gone, first, last = rows((None, 15)), command(10, 12), command(20, 22)

    assert said(gone, [first, last], hash_of(ONE), chained=True) == "still there"
    assert said(gone, [last], hash_of(ONE), chained=True) is None
    assert said(rows((None, 11)), [first, last], hash_of(ONE), chained=True) is None
    for between in (
        command(16, 17, code=-9, document=None),
        command(16, 17, "backfill"),
        command(16, 17, document={"chunks": {"retried": 1}}),
        command(16, 17, told="the run starts over"),
        command(19, 21, "prune", code=1),
    ):
        assert said(gone, [first, between, last], hash_of(ONE), chained=True) is None, between
    locked = command(16, 17, code=5)
    assert said(gone, [first, locked, last], hash_of(ONE), chained=True) == "still there"


def test_a_follower_deletes_what_is_gone_since_it_was_followed_first():
    """Whatever else was typed between, for it goes on from where it was; one that is told to end promises nothing."""
    first, last, gone = command(10, 12, *CATCH_UP), command(20, 22, *CATCH_UP), rows((None, 15))

    assert said(gone, [first, command(16, 17, code=-9), last], hash_of(ONE)) == "still there"
    assert said(gone, [last], hash_of(ONE)) is None
    assert said(rows((HIDDEN, 15)), [first, last], hash_of(ONE)) == "still there"
    assert said(rows((TWO, 15)), [last], hash_of(ONE)) == "has a value of"
    assert said(rows((TWO, 15)), [command(20, 22, *FOLLOW)], hash_of(ONE)) is None


def test_a_hash_may_be_torn_where_a_run_did_not_end():
    """A row's HMSET and its HDEL are two commands, so a run that was killed may have left a field of the row before."""
    to_null = rows((THREE, 15))

    assert said(to_null, [command(10, 12)], {b"id": b"1", b"name": b"x"}) == "none of those known"
    changed = rows((TWO, 15), (THREE, 16))
    mixed = {b"id": b"1", b"name": b"two"}
    assert said(changed, [command(10, 12)], mixed) is None, "it is what the row was once"
    older = rows((TWO, 5), ((b"2", None), 15))
    mixed = {b"id": b"2", b"name": b"two"}
    assert said(older, [command(10, 12)], mixed) == "none of those known"
    assert said(older, [command(10, 12), command(20, 21, code=-9)], mixed) is None
    assert (
        said(older, [command(10, 12), command(20, 21, code=-9)], {b"id": b"2", b"name": b"one"})
        == "none of those known"
    )


def test_a_resumed_backfill_promises_no_more_than_where_it_was_begun():
    """What was written before it was killed is as of then."""
    fresh, resumed = {"resumed": False}, {"resumed": True}
    killed = command(10, 12, "backfill", code=-9, document=None)
    changed = rows((TWO, 15))

    assert said(changed, [killed, command(20, 22, "backfill", document=resumed)], hash_of(ONE)) is None
    assert said(changed, [killed, command(20, 22, "backfill", document=fresh)], hash_of(ONE)) == "has a value of"
    whole = command(10, 12, "backfill", document=fresh)
    assert said(changed, [whole, command(20, 22, "backfill", document=resumed)], hash_of(ONE)) == "has a value of"
    assert oldest([killed], []) == 10
    assert oldest([whole], []) == LONG_AGO


def test_what_redis_lost_takes_promises_back():
    """Of the runs that had ended by then, for the slots that are concerned; a run that was under way had to notice."""
    lost = Void("an old snapshot", 11, 20, frozenset([1828]))

    for ended, wrong in ((10.5, "missing"), (12, None), (21, "missing")):
        assert said(rows(), [command(10, ended)], {}, voids=[lost]) == wrong
    assert said(rows(), [command(10, 25, "sync", "--prune")], {}, voids=[lost]) is None, "it pruned since it looked"
    assert said(rows(), [command(10, 12)], {}, voids=[Void("elsewhere", 11, 20, frozenset([1]))]) == "missing"
    foreign = Void("a foreign key", LONG_AGO, 20, keys=frozenset([KEY]), begun=True)
    assert said(rows(), [command(19, 25)], {}, voids=[foreign]) is None
    assert said(rows(), [command(21, 25)], {}, voids=[foreign]) == "missing"
    failover = Void("a failover", LONG_AGO, 20, soft=True)
    assert said(rows(), [command(19, 25)], {}, voids=[failover]) == "missing"
    assert said(rows(), [command(19, 25, "verify")], {}, voids=[failover]) is None


def test_a_run_beside_one_without_its_lock_promises_no_more_than_that_one():
    """Which may write what it has read until it notices."""
    changed, later = rows((TWO, 15)), command(20, 25)

    assert said(changed, [command(10, 22, code=1, shaken=True), later], hash_of(ONE)) is None
    assert said(changed, [command(10, 19, code=1, shaken=True), later], hash_of(ONE)) == "has a value of"
    assert said(changed, [command(10, 22, code=1), later], hash_of(ONE)) == "has a value of"


@pytest.mark.parametrize(("repaired", "wrong"), [(1, "missing"), (0, None)])
def test_a_verification_that_mended_all_promises_too(repaired, wrong):
    found = {"missing": 1, "different": 0, "extra": 0, "repaired": repaired}

    assert said(rows(), [command(10, 12, "verify", "--repair", code=3, document=found)], {}) == wrong


def test_a_hash_of_no_row_at_all_is_seen():
    finding = Judge(rows(), []).look(b"item_2", {b"id": b"2"})

    assert "no row has ever made it" in str(finding)


def test_a_new_column_is_a_new_value():
    """All rows have its default at once, and one that was read before and noted after has it too."""
    made = rows()
    made.widen(b"more", b"x", 4.5, 5)
    made.note(KEY, TWO, 4, 6)

    assert said(made, [command(10, 12)], {**hash_of(TWO), b"more": b"x"}) is None
    assert said(made, [command(10, 12)], hash_of(TWO)) == "has a value of"
    assert said(made, [command(5.5, 12)], hash_of(TWO)) is None


def test_what_no_later_comparison_needs_is_forgotten():
    """The last promises from before it are kept, and what rows were since they began."""
    made = rows((TWO, 5), (ONE, 15), (TWO, 25))
    kept = promises([command(n, n + 1) for n in (1, 10, 20, 30)], hides=False, chained=False)
    made.forget(min(promise.began for promise in current(kept, last=35)))

    assert [version.state for version in made.versions[KEY]] == [ONE, TWO]
    assert [promise.began for promise in current(kept, last=15)] == [1, 10, 20, 30]
    assert [promise.began for promise in current(kept, last=35)] == [20, 30]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_faults_can_be_planted_for_the_proof(plant, tmp_path):
    """The code has a place for each, and what comes of it is Python still; a copy without the place is refused."""
    package, files = Path(loader.__file__).parent, {patch.file for patch in plant.patches}
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text((package / file).read_text())
    plant.put(tmp_path)

    for file in files:
        planted = (tmp_path / file).read_text()
        assert planted != (package / file).read_text()
        compile(planted, file, "exec")
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    with pytest.raises(Broken, match="nothing can be planted"):
        plant.put(tmp_path)
