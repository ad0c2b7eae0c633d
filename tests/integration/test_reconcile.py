"""Both sides held against each other: what is reported, mended and deleted, and what is left alone."""

import json
import random
import time
from dataclasses import replace
from itertools import count

import pytest
from redis.cluster import RedisCluster

from loader.errors import ConfigError, Kind, TargetError
from loader.jobs import keyspace, recheck, session, verify
from loader.jobs import prune as prune_module
from loader.jobs.editor import HashEditor
from loader.jobs.execute import execute
from loader.jobs.keyspace import Keyspace
from loader.jobs.rows import JobRows
from loader.model import ChunkLoaded
from loader.mysql.sample import sample
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from loader.redis.client import RedisClient
from loader.redis.servers import lives
from loader.report.documents import prune_document, verify_document
from loader.report.text import prune_text, verify_text
from loader.state.rejects import Rejects
from loader.wire.slots import SlotMap
from support.checks import check, loaded, prune, seen
from support.command import Desk
from support.database import Ear
from support.tables import fill

ROWS = 50_000
LISTED = {"reason": "why", "first": 1.0, "last": 2.0, "attempts": 1}


@pytest.fixture(autouse=True)
def pause(monkeypatch):
    """Nobody brings rows to Redis meanwhile, so there is little to wait for."""
    monkeypatch.setattr(recheck, "PAUSE", 0.02)
    return monkeypatch


@pytest.fixture
def big(world):
    fill(world, ROWS)
    return loaded(world, table="big")


class Audience(Ear):
    """Hears how far a verify or a prune is."""

    def count(self, done, noun="row"):
        self.events.append((done, noun, self.throttle.rows))


def corrupt(world, seed):
    """Corrupt some keys, in four ways; what `verify` has to say of it."""
    chance = random.Random(seed)
    numbers = chance.sample(range(1, ROWS + 1), 1500)
    keys = [b"big_%08d" % number for number in numbers]
    missing, wrong, stale = keys[:500], keys[500:1000], keys[1000:]
    extra = [b"big_%08d" % number for number in chance.sample(range(ROWS + 1, 10 * ROWS), 500)]
    with world.redis.pipeline() as pipe:
        for key in missing:
            pipe.delete(key)
        for key in wrong:
            pipe.hset(key, "name", "somebody else")
        for key in stale:
            pipe.hset(key, "no column has this", "x")
        for key in extra:
            pipe.hset(key, mapping={"id": "1", "name": "a ghost"})
        pipe.execute()
    kinds = ((missing, "missing"), (wrong, "different"), (stale, "different"), (extra, "extra"))
    return {(key, kind) for keys, kind in kinds for key in keys}


def test_what_was_corrupted_is_reported_and_repaired_and_nothing_else(world, big):
    """One key in twenty-five of 50,000 rows: each named, no other; `repair` touches these alone; then all is equal."""
    clean = check(big)
    assert (clean.rows, clean.is_equal) == (ROWS, True)
    expected = corrupt(world, 1)
    before = versions(world)
    audience = Audience()
    found = check(big, heard=audience)
    assert seen(found) == expected
    first = next(rows for _, noun, rows in audience.events if noun == "key")
    assert first == ROWS, "rows that are looked at again are shown once"
    assert (found.rows, found.missing, found.different, found.extra) == (ROWS, 500, 1000, 500)
    details = {each.detail for each in found.shown if each.kind == "different"}
    assert details == {"wrong name", "stale no column has this"}
    assert versions(world) == before
    repaired = check(big, repair=True)
    assert (seen(repaired), repaired.repaired) == (expected, 2000)
    after = versions(world)
    touched = {key for key in before | after if before.get(key) != after.get(key)}
    assert touched == {key for key, _ in expected}
    assert check(big).is_equal


def versions(world):
    """What each key of the job holds, as a number."""
    found = {}
    keys = world.redis.keys("big_*", target_nodes=RedisCluster.PRIMARIES)
    for start in range(0, len(keys), 5000):
        part = keys[start : start + 5000]
        with world.redis.pipeline() as pipe:
            for key in part:
                pipe.hgetall(key)
            found |= {key: hash(frozenset(each.items())) for key, each in zip(part, pipe.execute(), strict=True)}
    return found


@pytest.fixture
def small(world):
    fill(world, 1000)
    return loaded(world, table="big")


def test_rows_and_hashes_that_change_meanwhile_do_not_count(world, small, monkeypatch):
    """What differs is looked at again: a row that reaches Redis between two looks was never different."""
    compare, without_row, late = JobRows.compare, JobRows.without_row, []

    def compare_late(*args):
        found = compare(*args)
        if "rows" not in late:
            late.append("rows")
            for number in range(1, 11):
                world.redis.hset(f"big_{number:08d}", "name", "new")
        return found

    def without_row_late(*args, **how):
        found = without_row(*args, **how)
        if "keys" not in late:
            late.append("keys")
            assert found == [b"big_00001000"]
            world.sql("INSERT INTO big VALUES (1000, 'name 1000', 'note 1000')")
        return found

    monkeypatch.setattr(JobRows, "compare", compare_late)
    monkeypatch.setattr(JobRows, "without_row", without_row_late)
    world.sql("UPDATE big SET name = 'new' WHERE id <= 10", "DELETE FROM big WHERE id = 1000")

    verdict = check(small)
    assert late == ["rows", "keys"]
    assert (verdict.rows, verdict.is_equal) == (999, True), verdict.shown


def test_a_key_of_another_type_is_different_and_stays(world, small):
    """A string where a hash should be: said, and not touched by `repair`."""
    world.redis.delete("big_00000005")
    world.redis.set("big_00000005", "mine")
    verdict = check(small, repair=True)
    assert seen(verdict) == {(b"big_00000005", "different")}
    assert (verdict.repaired, verdict.shown[0].detail) == (0, "it holds no hash")
    assert world.redis.get("big_00000005") == b"mine"


@pytest.fixture
def strangers(world):
    """Keys of hashes that no row of the table can make."""
    keys = [
        "big_x_1",
        "big_1",
        "big_000000001",
        "big_00000001:x",
        "big_",
        "big_-0000001",
        "bigger",
        "big_0000000\uff11",
    ]
    for key in keys:
        world.redis.hset(key, "name", "of someone else")
    return keys


def test_keys_of_others_are_left_alone(world, small, strangers):
    """Neither extra nor pruned: what no row of this table can make, other types, the loader's own, another job's."""
    world.redis.set("big_00009999", "no hash")
    assert check(small).is_equal
    pruned = prune(small, small.jobs["job"], max_delete=100)
    assert (pruned.keys, pruned.extra, pruned.deleted, pruned.unsure.count) == (1000, 0, 0, 0)
    assert all(world.redis.exists(key) for key in [*strangers, "big_00009999"])


def test_keys_of_others_are_left_alone_if_too_many_are_found_to_keep(world, small, strangers, monkeypatch):
    """The keys of the slots are read once more then, and those of others are among them."""
    monkeypatch.setattr(recheck, "PENDING", 5)
    world.sql("DELETE FROM big WHERE id <= 30")
    pruned = prune(small, small.jobs["job"], max_delete=100)
    assert (pruned.keys, pruned.extra, pruned.deleted) == (1000, 30, 30)
    assert all(world.redis.exists(key) for key in strangers)


def test_a_job_with_a_longer_prefix_keeps_its_keys(world):
    """`a_` and `a_b_`: with text keys, every key of the second fits the first."""
    world.sql("CREATE TABLE a (k varchar(20) PRIMARY KEY)", "INSERT INTO a VALUES ('x'), ('y')")
    config = loaded(world, table="a")
    pair = config.model_copy(
        update={"jobs": {**config.jobs, "other": world.config(table="b", key="a_b_{k}").jobs["job"]}}
    )
    world.redis.hset("a_b_z", "k", "b_z")
    assert check(pair).is_equal
    assert prune(pair, pair.jobs["job"], max_delete=100).extra == 0
    assert seen(check(config)) == {(b"a_b_z", "extra")}


def test_hashes_without_a_row_are_pruned(world, small):
    """Deleted rows lose their hash; a run of it that only looks deletes nothing."""
    world.sql("DELETE FROM big WHERE id <= 30")
    looked = prune(small, small.jobs["job"], dry_run=True)
    assert (looked.keys, looked.extra, looked.deleted, len(world.hashes())) == (1000, 30, 0, 1000)
    pruned = prune(small, small.jobs["job"])
    assert (pruned.keys, pruned.extra, pruned.deleted, pruned.refused) == (1000, 30, 30, "")
    assert set(world.hashes()) == {b"big_%08d" % number for number in range(31, 1001)}
    assert check(small).is_equal


def test_a_table_that_is_empty_by_mistake_empties_nothing(world, small):
    """More than `--max-delete` of the hashes without a row: refused, all are there; so is a repair."""
    world.sql("DELETE FROM big WHERE id <= 51")
    pruned = prune(small, small.jobs["job"])
    assert (pruned.extra, pruned.deleted) == (51, 0)
    assert "more than --max-delete 5%" in pruned.refused
    world.sql("DELETE FROM big")
    verdict = check(small, repair=True)
    assert (verdict.extra, verdict.repaired) == (1000, 0)
    assert "loader prune job --dry-run" in verdict.refused
    assert len(world.hashes()) == 1000
    assert prune(small, small.jobs["job"], max_delete=100).deleted == 1000
    assert world.hashes() == {}


def test_a_row_that_came_back_keeps_its_hash(world, small, monkeypatch):
    """Looked up again right before deletion: an insert between the first look and the last is seen."""
    world.sql("DELETE FROM big WHERE id <= 30")
    first = prune_module.delete

    def late(*args):
        world.sql("INSERT INTO big VALUES (7, 'back', NULL)")
        first(*args)

    monkeypatch.setattr(prune_module, "delete", late)
    assert prune(small, small.jobs["job"]).deleted == 29
    assert world.redis.exists("big_00000007")


@pytest.mark.parametrize("most", [1, 3, 4])
def test_no_more_is_deleted_than_is_allowed(most):
    """What `--max-delete` allows, whatever goes after the hashes were counted."""
    gone = []

    class Editor:
        def unlink(self, keys, moving):
            gone.extend(keys)
            return len(keys)

    class Still:
        moving = frozenset()

    done = prune_module.Pruned("job")
    prune_module.delete(Editor(), Still(), iter([[b"a", b"b", b"c"], [b"d", b"e"]]), most, done)
    assert (done.deleted, gone) == (most, [b"a", b"b", b"c", b"d"][:most])


def test_a_run_that_failed_prunes_nothing(world, small):
    """`sync --prune` deletes once all is through, and not where the run has ended before."""
    world.sql("DELETE FROM big WHERE id <= 10")

    class Failing(Ear):
        def notify(self, event):
            if isinstance(event, ChunkLoaded):
                raise ConfigError("no more")

    run = execute(small, small.jobs["job"], Options(), Failing(), prune=100.0)
    assert (run.status, run.error, run.deleted) == ("failed", "no more", 0)
    assert len(world.hashes()) == 1000


def test_a_node_that_refuses_to_be_read(world, small):
    """What cannot be looked at is no difference: it is said, and nothing is mended."""
    world.redis.execute_command("ACL", "SETUSER", "loader", "-hgetall", target_nodes=RedisCluster.PRIMARIES)
    try:
        with pytest.raises(TargetError, match="NOPERM") as caught:
            check(small)
    finally:
        world.redis.execute_command("ACL", "SETUSER", "loader", "+hgetall", target_nodes=RedisCluster.PRIMARIES)
    assert caught.value.exit_code == 2


def test_the_loaders_own_keys_are_left_alone(world):
    """A job whose key is any text makes none that begins with `loader:`."""
    world.sql("CREATE TABLE t (k varchar(40) PRIMARY KEY)", "INSERT INTO t VALUES ('a')")
    config = loaded(world, table="t", key="{k}")
    world.redis.hset("loader:{other}:rejects", "k", "loader:{other}:rejects")
    assert check(config).is_equal
    assert prune(config, config.jobs["job"], max_delete=100).extra == 0
    assert world.redis.exists("loader:{other}:rejects")


def test_a_prefix_that_looks_like_a_pattern(world):
    """SCAN is asked for the prefix as it is written."""
    world.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    config = loaded(world, table="t", key="t[1]?_{id}")
    world.sql("DELETE FROM t WHERE id = 2")
    assert seen(check(config)) == {(b"t[1]?_2", "extra")}


def test_a_key_that_is_no_text_is_left_alone(world):
    """MySQL sends text as UTF-8 alone: other bytes are not the job's, and break no statement."""
    world.sql("CREATE TABLE t (k varchar(40) PRIMARY KEY)", "INSERT INTO t VALUES ('a')")
    config = loaded(world, table="t")
    world.redis.hset(b"t_\xff", "k", "x")
    assert check(config).is_equal
    assert prune(config, config.jobs["job"], max_delete=100).extra == 0


def test_a_deletion_that_the_lock_does_not_cover(world, small, monkeypatch):
    """The lock lapses between the last look and the deletion, and is had again: the row is looked up anew."""
    world.sql("DELETE FROM big WHERE id <= 2")
    missing, lapsed = JobRows.missing, []

    def late(rows, keys, **how):
        found = missing(rows, keys, **how)
        if not lapsed:
            lapsed.append(world.sql("INSERT INTO big VALUES (1, 'back', NULL)"))
            grant = rows.session.throttle.grant
            rows.session.throttle.grant = lambda: grant() + 1
        return found

    monkeypatch.setattr(JobRows, "missing", late)
    with session.JobSession(small, small.jobs["job"], "run") as sides:
        assert HashEditor(JobRows(sides)).unlink([b"big_00000001", b"big_00000002"]) == 1
    assert lapsed
    assert world.redis.exists("big_00000001")


def test_a_row_that_came_back_while_redis_was_away(world, small, monkeypatch):
    """A deletion that has to be tried again looks the row up again."""
    world.sql("DELETE FROM big WHERE id <= 30")
    send, failures = HashEditor._send, []

    def failing(self, commands, grant):
        if not failures:
            failures.append(world.sql("INSERT INTO big VALUES (7, 'back', NULL)"))
            raise TargetError("gone", kind=Kind.UNAVAILABLE)
        return send(self, commands, grant)

    monkeypatch.setattr(HashEditor, "_send", failing)
    assert prune(small, small.jobs["job"]).deleted == 29
    assert world.redis.exists("big_00000007")


KEYS = {  # columns of the primary key and rows, of which some differ by what a collation or a type does not see
    "text": ("k varchar(20)", ["'a'", "'B'", "'ß'", "'x_y'", "''", "'%'", "'*[a]?'"]),
    "bin": ("k varbinary(20)", ["X'00'", "X'ff00'", "'a'", "X'0d0a'", "'{t}x'"]),
    "latin1": ("k varchar(20) CHARACTER SET latin1", ["'é'", "'a'"]),
    "two": ("k varchar(9), n int", ["'a_1', 2", "'a', 12", "'_', -3", "'', 0"]),
    "big": ("k bigint unsigned", ["18446744073709551615", "0", "9007199254740993"]),
    "decimal": ("k decimal(20,4)", ["1.5", "-0.25", "0"]),
    "date": ("k date", ["'2024-02-29'", "'0000-00-00'"]),
    "time": ("k time(3)", ["'-838:59:59'", "'10:00:00.125'"]),
    "datetime": ("k datetime", ["'2024-03-31 02:30:00'"]),
    "timestamp": ("k timestamp(6)", ["'2024-03-31 12:30:00.000001'"]),
    "enum": ("k enum('x','y z')", ["'x'", "'y z'"]),
    "set": ("k set('x','y')", ["''", "'x,y'"]),
    "bit": ("k bit(12)", ["0", "4095", "10"]),
    "year": ("k year", ["2024", "0"]),
    "double": ("k double", ["0.1", "1e300", "-5"]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_every_kind_of_key_leads_back_to_its_row(world, kind):
    """All equal, nothing extra; without a row each hash is extra, deleted only then, and brought back by a repair."""
    columns, rows = KEYS[kind]
    names = ", ".join(part.split()[0] for part in columns.split(", "))
    values = ", ".join(f"({row})" for row in rows)
    world.sql(f"CREATE TABLE t ({columns}, v int, PRIMARY KEY ({names}))")
    world.sql(f"INSERT INTO t ({names}) VALUES {values}")
    config = loaded(world, table="t")
    hashes = world.hashes()
    assert check(config).is_equal
    assert prune(config, config.jobs["job"], dry_run=True).extra == 0
    world.sql("DELETE FROM t")
    assert seen(check(config)) == {(key, "extra") for key in hashes}
    assert prune(config, config.jobs["job"], max_delete=100).deleted == len(rows)
    assert world.hashes() == {}
    world.sql(f"INSERT INTO t ({names}) VALUES {values}")
    missing = check(config, repair=True)
    assert (seen(missing), missing.repaired) == ({(key, "missing") for key in hashes}, len(rows))
    assert world.hashes() == hashes


def test_letters_that_a_collation_does_not_tell_apart(world):
    """`A` and `a` are one row for MySQL: the hash of the other spelling is extra, and its row's is not touched."""
    world.sql("CREATE TABLE t (k varchar(9) PRIMARY KEY, v int)", "INSERT INTO t VALUES ('a', 1)")
    config = loaded(world, table="t")
    world.redis.hset("t_A", mapping={"k": "A", "v": "1"})
    verdict = check(config, repair=True)
    assert (seen(verdict), verdict.repaired) == ({(b"t_A", "extra")}, 1)
    assert set(world.hashes()) == {b"t_a"}


def test_a_query_and_a_condition(world, small):
    """A row that has left the `where`, or the query, has no hash any more."""
    only = world.config(table="big", where="id > 10")
    assert {key for key, _ in seen(check(only))} == {b"big_%08d" % number for number in range(1, 11)}
    query = world.config(query="SELECT id, name, note FROM big WHERE id > 5", key="big_{id}")
    assert {key for key, _ in seen(check(query))} == {b"big_%08d" % number for number in range(1, 6)}
    assert check(query, sample=100).different == 0


@pytest.mark.parametrize("source", ["table", "query"])
@pytest.mark.parametrize("prefix", ["t_", ""])
def test_a_hash_under_a_key_of_text_has_to_show_whose_it_is(world, source, prefix):
    """Any text fits: by its fields, and the key's column among them, an orphan is the job's; others stay, counted."""
    world.sql("CREATE TABLE t (k varchar(40) PRIMARY KEY, v int)")
    world.sql("INSERT INTO t VALUES ('a', 1), ('user:1', 2), ('gone', 3)")
    job = {"table": "t"} if source == "table" else {"query": "SELECT k, v FROM t"}
    config = loaded(world, **job, key=f"{prefix}{{k}}")
    world.sql("DELETE FROM t WHERE k = 'gone'")
    orphans = {f"{prefix}gone".encode(), f"{prefix}session:abc".encode()}
    world.redis.hset(f"{prefix}session:abc", mapping={"k": "session:abc", "v": "1"})
    strangers = {
        f"{prefix}session:def": {"user": "7", "v": "1"},
        f"{prefix}session:ghi": {"k": "ghi", "v": "1"},  # the same fields
        f"{prefix}user:2": {"v": "2"},
        f"{prefix}user:3": {"k": "user:3", "at": "0"},
        f"{prefix}user:4": {"k": "user:4", "v": "1", "at": "0"},
    }
    for key, fields in strangers.items():
        world.redis.hset(key, mapping=fields)
    world.redis.set(f"{prefix}session:string", "x")
    world.redis.hset(f"{prefix}{'x' * 41}", mapping={"k": "x" * 41, "v": "1"})  # no VARCHAR(40)
    verdict = check(config)
    assert (seen(verdict), verdict.unsure.count) == ({(key, "extra") for key in orphans}, 5)
    assert "  5 more hashes without a row stay, and may be someone else's: " in verify_text(verdict, expires=False)
    looked = prune(config, config.jobs["job"], dry_run=True)
    assert (looked.keys, looked.extra, looked.unsure.count) == (4, 2, 5)
    pruned = prune_document(prune(config, config.jobs["job"], max_delete=50))
    assert (pruned["deleted"], pruned["unsure"], verify_document(verdict)["unsure"]) == (2, 5, 5)
    assert check(config, repair=True).repaired == 0
    assert all(world.redis.exists(key) for key in [*strangers, f"{prefix}session:string", f"{prefix}{'x' * 41}"])


def test_a_key_that_says_nothing_of_whose_it_is(world):
    """Neither a literal before it nor a field that is its column: nothing is deleted, and that is told."""
    world.sql("CREATE TABLE t (k varchar(40) PRIMARY KEY, v int)", "INSERT INTO t VALUES ('a', 1), ('b', 2)")
    config = loaded(world, table="t", key="{k}", fields=["v"])
    world.sql("DELETE FROM t WHERE k = 'b'")
    pruned = prune(config, config.jobs["job"], max_delete=100)
    assert (pruned.keys, pruned.extra, pruned.unsure.count, pruned.unsure.first) == (1, 0, 1, b"b")
    assert prune_text(pruned).endswith("\n  1 more hash without a row stays, and may be someone else's: b")


def test_fields_that_the_job_had_show_whose_a_hash_is_too(world):
    """An orphan from before a field was left out is the job's still."""
    world.sql(
        "CREATE TABLE t (k varchar(40) PRIMARY KEY, v int, w int)", "INSERT INTO t VALUES ('a', 1, 1), ('b', 2, 2)"
    )
    config = world.config(table="t")
    assert execute(config, config.jobs["job"], Options(), Ear()).status == "ok"
    world.sql("DELETE FROM t WHERE k = 'b'")
    assert seen(check(loaded(world, table="t", fields=["k", "v"]))) == {(b"t_a", "different"), (b"t_b", "extra")}


RESULTS = {  # what a query gives: the type of each column, and rows; then keys that none of its rows could make
    "number": ("int(8) unsigned zerofill", ["5", "7"], ["t_6", "t_session_abc", "t_-0000001"]),
    "bytes": ("varbinary(4)", ["X'ff00'", "X'0d0a'", "'a_b'"], ["t_12345"]),
    "fixed": ("binary(2)", ["X'ff00'", "'a'"], ["t_x", "t_xyz"]),
    "moment": ("datetime(3)", ["'2024-03-31 02:30:00.125'"], ["t_2024-03-31", "t_x"]),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_query_says_what_its_keys_look_like(world, kind):
    """Its result has types as a table's columns have: its orphans are seen, be they no text, and no other keys."""
    column, rows, strangers = RESULTS[kind]
    world.sql(f"CREATE TABLE t (k {column} PRIMARY KEY, v int)")
    world.sql(f"INSERT INTO t VALUES {', '.join(f'({row}, 1)' for row in rows)}")
    config = loaded(world, query="SELECT k, v FROM t", key="t_{k}")
    hashes = set(world.hashes())
    for key in strangers:
        world.redis.hset(key, mapping={"k": key[2:], "v": "1"})
    assert check(config).is_equal
    world.sql("DELETE FROM t")
    assert seen(check(config)) == {(key, "extra") for key in hashes}
    pruned = prune(config, config.jobs["job"], max_delete=100)
    assert (pruned.keys, pruned.deleted, pruned.unsure.count) == (len(hashes), len(hashes), 0)
    assert world.hashes().keys() == {key.encode() for key in strangers}


def test_character_sets_that_do_not_mix(world):
    """Shards and samples of a key of texts in latin1 and in gbk: of a table, and of a query that gives both."""
    world.sql("CREATE TABLE t (a varchar(9) CHARACTER SET latin1, b varchar(9) CHARACTER SET gbk, PRIMARY KEY (a, b))")
    world.sql("INSERT INTO t VALUES " + ", ".join(f"('é{n}', '张{n}')" for n in range(20)))
    config = world.config(table="t")
    runs = [run_job(config, config.jobs["job"], Options(shard=(part, 2)), Ear()) for part in (1, 2)]
    assert [run.error for run in runs] == [None, None]
    assert sum(run.read for run in runs) == len(world.hashes()) == 20
    assert check(config, sample=5).is_equal
    assert check(world.config(query="SELECT a, b FROM t", key="t_{a}_{b}"), sample=5).is_equal


def test_a_sample_finds_what_is_common(world, small):
    """About so many rows and hashes; what is everywhere is seen."""
    world.sql("UPDATE big SET name = 'new'")
    verdict = check(small, sample=100)
    assert 40 <= verdict.rows <= 250
    assert verdict.different == verdict.rows
    world.sql("DELETE FROM big")
    assert check(small, sample=100).extra > 50


@pytest.mark.parametrize("kind", ["number", "text", "two", "query", "soft"])
def test_a_sample_is_drawn_from_the_rows_that_the_job_takes(world, pause, kind):
    """However few of the table these are, and wherever: some are compared, and none but where there is none."""
    if kind == "number":  # as if there were too many keys of others
        pause.setattr(keyspace, "PAGES", 0)
    key, primary = ("k", "k") if kind != "two" else ("g}_{k", "g, k")
    column = "varchar(20)" if kind == "text" else "int"
    soft = kind == "soft"
    world.sql(
        f"CREATE TABLE t (k {column}, g int NOT NULL, live int NOT NULL, v int, PRIMARY KEY ({primary}))",
        "INSERT INTO t SELECT seq, 1, seq BETWEEN 100 AND 149, 1 FROM"
        " (SELECT a.n * 100 + b.n AS seq FROM (WITH RECURSIVE d AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM d"
        " WHERE n < 99) SELECT n FROM d) a, (WITH RECURSIVE d AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM d"
        " WHERE n < 99) SELECT n FROM d) b) s",
        "ANALYZE TABLE t",
    )
    job = {"table": "t", "key": f"t_{{{key}}}", "fields": ["k", "v"], "chunk_rows": 100_000}
    job |= {"soft_delete": "live = 0"} if soft else {"where": "live = 1"}
    if kind == "query":
        job = {"query": "SELECT k, g, v FROM t WHERE live = 1", "key": "t_{k}", "fields": ["k", "v"]}
    config = loaded(world, **job)
    with world.redis.pipeline() as pipe:
        for number in range(3000):
            pipe.set(f"t_session:{number}", "x")
        pipe.execute()
    equal = check(config, sample=20)
    assert equal.is_equal
    assert 10 <= equal.rows <= 50 >= equal.hashes >= 1
    with session.JobSession(config, config.jobs["job"]) as sides:
        for _ in range(30):
            assert drawn(world, sides, 1)
    world.sql("UPDATE t SET v = 2")
    assert check(config, sample=1).different >= 1
    world.sql("DELETE FROM t")
    assert check(config, sample=20).extra >= 1
    world.clear()
    empty = check(config, sample=20)
    assert (empty.is_equal, empty.rows, empty.hashes) == (True, 0, 0)
    assert verify_text(empty, expires=False).endswith("the job has no rows and no hashes")


def drawn(world, sides, count):
    """The rows of a sample."""
    rows = []
    for statement in sample(sides.plan, count, sides.fetch, rows.__len__):
        rows += world.sql(statement)
    return rows


def test_a_sample_of_a_large_table_reads_little(world, small):
    """Where the key is a number, not more rows than were asked for, from all over the table."""
    asking = -reads(world) + reads(world)  # MySQL counts the rows of its own status too
    before = reads(world)
    with session.JobSession(small, small.jobs["job"]) as sides:
        rows = drawn(world, sides, 40)
    assert len(rows) == len(set(rows)) == 40
    assert {int(row[0]) // 250 for row in rows} >= {0, 1, 2, 3}
    assert reads(world) - before - asking <= 200


def reads(world):
    """Rows that storage engines have given so far, to whoever asked."""
    counters = world.sql("SHOW GLOBAL STATUS LIKE 'Handler_read%'")
    return sum(int(value) for name, value in counters if name in {"Handler_read_next", "Handler_read_rnd_next"})


def test_jobs_that_write_the_same_hashes_are_refused(world):
    """Whose a field is cannot be told."""
    config = world.config(table="big", fields=["name"])
    two = config.model_copy(update={"jobs": {**config.jobs, "other": world.config(table="big").jobs["job"]}})
    with pytest.raises(ConfigError, match="under the same prefix"):
        verify.verify(two, two.jobs["job"])


def test_as_typed(world, tmp_path):
    """Exit codes, JSON and words of verify, prune and sync --prune."""
    desk = Desk(world, tmp_path)
    assert desk.run("sync", "stu").code == 0
    equal = desk.run("verify", "stu", "-o", "json")
    assert (equal.code, equal.document) == (
        0,
        {
            "schema": "loader.verify/v1",
            "job": "stu",
            "status": "ok",
            "rows": 5,
            "missing": 0,
            "different": 0,
            "extra": 0,
            "repaired": 0,
        },
    )
    world.sql("DELETE FROM stu WHERE sid = 5", "UPDATE stu SET sname = 'x' WHERE sid = 1")
    world.redis.delete("stu_00000002")
    shown = desk.run("verify", "stu")
    assert shown.code == 3
    assert shown.out == (
        "stu: different: 4 rows compared, 1 missing, 1 different, 1 extra\n"
        "  missing    stu_00000002\n"
        "  different  stu_00000001  wrong sname\n"
        "  extra      stu_00000005  no row makes it\n"
    )
    refused = desk.run("prune", "stu", "-o", "json")
    assert (refused.code, refused.document["status"], refused.document["deleted"]) == (1, "refused", 0)
    assert "more than --max-delete 5%" in refused.err
    assert desk.run("prune", "stu", "--max-delete", "120%").code == 2
    synced = desk.run("sync", "stu", "--prune", "--max-delete", "50%", "-o", "json")
    assert (synced.code, synced.document["rows"]["written"], synced.document["rows"]["deleted"]) == (0, 4, 1)
    assert desk.run("verify", "--all", "-o", "json").document["status"] == "ok"


def test_rejects_are_listed_retried_and_forgotten(world, tmp_path):
    """Key, reason, times and attempts; values only when asked for; a retry loads what can be loaded by then."""
    desk = Desk(world, tmp_path)
    world.redis.set("stu_00000002", "mine")
    world.redis.set("stu_00000003", "mine")
    assert desk.run("sync", "stu").code == 3
    assert desk.run("sync", "stu").code == 3
    listed = desk.run("rejects", "list", "stu", "-o", "json").document
    assert [(each["key"], each["attempts"], each["reason"].split()[0]) for each in listed["rejects"]] == [
        ("stu_00000002", 2, "WRONGTYPE"),
        ("stu_00000003", 2, "WRONGTYPE"),
    ]
    assert "张无忌" not in desk.run("rejects", "list", "stu").out
    assert "HMSET stu_00000002 sid 00000002 sname 张无忌" in desk.run("rejects", "list", "stu", "--values").out
    world.redis.delete("stu_00000002")
    retried = desk.run("rejects", "retry", "stu", "-o", "json")
    assert (retried.code, retried.document["written"], retried.document["rejected"]) == (3, 1, 1)
    assert world.redis.hget("stu_00000002", "sname").decode() == "张无忌"
    world.sql("DELETE FROM stu WHERE sid = 3")
    retried = desk.run("rejects", "retry", "stu", "-o", "json")
    assert (retried.code, retried.document["gone"]) == (0, 1)
    world.redis.delete("stu_00000004")
    world.redis.set("stu_00000004", "mine")
    assert desk.run("sync", "stu").code == 3
    assert desk.run("rejects", "purge", "stu").out == "stu: 1 forgotten\n"
    assert desk.run("rejects", "list", "stu").out == "stu: 0 rejected rows\n"
    world.redis.delete("stu_00000004")


def test_a_row_that_was_written_is_no_reject_any_more(world, tmp_path):
    """A whole sync strikes off what it wrote."""
    desk = Desk(world, tmp_path)
    world.redis.set("stu_00000002", "mine")
    assert desk.run("sync", "stu").code == 3
    world.redis.delete("stu_00000002")
    assert desk.run("sync", "stu").code == 0
    assert json.loads(desk.run("rejects", "list", "stu", "-o", "json").out)["rejects"] == []


def test_the_list_of_rejects_whatever_the_clocks_say(world, small, monkeypatch):
    """A whole sync strikes off what it wrote, and what it could not write stays, though time goes backwards."""
    world.redis.unlink("big_00000005")
    world.redis.set("big_00000005", "mine")
    world.redis.hset("loader:{job}:rejects", "big_00000006", json.dumps(LISTED | {"last": time.time() + 1e6}))
    hours = count()
    monkeypatch.setattr(RedisClient, "time", lambda *_: 1e9 - 3600 * next(hours))
    assert run_job(small, small.jobs["job"], Options(), Ear()).status == "rejects"
    with RedisClient(small.target) as target:
        (entry,) = Rejects(target, "job").all()
    assert (entry.key, entry.attempts, entry.first <= entry.last) == (b"big_00000005", 1, True)


def test_a_prune_is_done_under_the_lock_of_its_run(world, small, monkeypatch):
    """Nobody comes in between; what it has under way is shut out with the run; and then the lock is free."""
    world.sql("DELETE FROM big WHERE id = 7")
    unlink, rivals, fences = HashEditor.unlink, [], []

    def rival():
        return run_job(small, small.jobs["job"], Options(), Ear())

    def late(editor, *args):
        rivals.append(rival())
        fences.append([editor._session.target.name.encode()])
        fences.append(world.redis.hvals("loader:{job}:fence"))
        return unlink(editor, *args)

    begin = prune_module.prune

    def at_once(*args, **how):
        rivals.append(rival())
        fences.append(world.redis.hvals("loader:{job}:fence"))
        begin(*args, **how)

    monkeypatch.setattr(prune_module, "prune", at_once)
    monkeypatch.setattr(HashEditor, "unlink", late)
    run = execute(small, small.jobs["job"], Options(), Ear(), prune=5.0)
    assert (run.status, run.exit_code, run.read, run.deleted) == ("ok", 0, 999, 1)
    assert [(each.exit_code, run.id in each.error) for each in rivals] == [(5, True), (5, True)]
    assert fences == [fences[0]] * 3  # one name for both
    assert world.redis.exists("loader:{job}:lock") + world.redis.exists("loader:{job}:fence") == 0
    assert rival().status == "ok"


def test_texts_full_of_separators(world):
    """A key that can be taken apart in very many ways is compared whole: its row is found, and so is a missing hash."""
    world.sql(
        "CREATE TABLE t (a varchar(60), b varchar(60), c varchar(60), v int, PRIMARY KEY (a, b, c))",
        "INSERT INTO t VALUES ('my_long_file_name_of_the_year_v2', 'reports_q1_q2_final_copy', 'en_US_x_y', 1),"
        " (REPEAT('w_', 20), REPEAT('_', 30), '', 2)",
    )
    config = loaded(world, table="t", key="t_{a}_{b}_{c}")
    hashes = world.hashes()
    assert check(config).is_equal
    assert prune(config, config.jobs["job"], max_delete=100).extra == 0
    for key in hashes:
        world.redis.delete(key)
    assert (check(config, repair=True).repaired, world.hashes()) == (2, hashes)


def test_keys_that_touch(world):
    """Two texts side by side: the same, without a separator at all."""
    world.sql("CREATE TABLE t (a varchar(90), b varchar(90), PRIMARY KEY (a, b))")
    world.sql("INSERT INTO t VALUES (REPEAT('x', 80), 'yy')")
    config = loaded(world, table="t", key="{a}{b}:t")
    assert check(config).is_equal
    world.sql("DELETE FROM t")
    assert check(config).extra == 1


@pytest.mark.parametrize(
    "collation",
    [
        "utf8mb3_unicode_ci",
        "latin1_general_cs",
        "latin1_german2_ci",
        "cp932_japanese_ci",
        "sjis_japanese_ci",
        "gbk_chinese_ci",
    ],
)
def test_collations_and_character_sets(world, collation):
    """Whatever text is stored as, a key leads back to its row: nothing is extra, and what is missing is mended."""
    charset = collation.partition("_")[0]
    world.sql(f"CREATE TABLE t (k varchar(20) CHARACTER SET {charset} COLLATE {collation} PRIMARY KEY, v int)")
    world.sql("INSERT INTO t VALUES ('a', 1), ('Z', 2)")
    if charset in {"cp932", "sjis"}:
        world.sql("INSERT INTO t VALUES (X'FA54', 3)" if charset == "cp932" else "INSERT INTO t VALUES (X'5C', 3)")
    config = loaded(world, table="t")
    hashes = world.hashes()
    assert check(config).is_equal
    assert prune(config, config.jobs["job"], max_delete=100).extra == 0
    for key in hashes:
        world.redis.delete(key)
    assert (check(config, repair=True).repaired, world.hashes()) == (len(hashes), hashes)


def test_a_repair_counts_only_the_jobs_own_hashes(world):
    """Foreign keys under the same prefix are no reason to delete more."""
    fill(world, 100)
    config = loaded(world, table="big")
    with world.redis.pipeline() as pipe:
        for number in range(3000):
            pipe.set(f"big_session:{number}", "x")
        pipe.execute()
    world.sql("DELETE FROM big WHERE id > 1")
    verdict = check(config, repair=True)
    assert (verdict.extra, verdict.repaired) == (99, 0)
    assert "99 of 100 hashes have no row, and --repair deletes at most 10" in verdict.refused


def test_a_key_under_another_jobs_prefix_is_missing_all_the_same(world):
    """It is not looked up for deletion, but its row has no hash: that is said, and mended."""
    world.sql("CREATE TABLE a (k varchar(20) PRIMARY KEY)", "INSERT INTO a VALUES ('x'), ('b_1')")
    config = loaded(world, table="a")
    pair = config.model_copy(
        update={"jobs": {**config.jobs, "other": world.config(table="b", key="a_b_{k}").jobs["job"]}}
    )
    world.redis.delete("a_b_1")
    verdict = check(pair, repair=True)
    assert (seen(verdict), verdict.repaired) == ({(b"a_b_1", "missing")}, 1)


def test_more_differences_than_are_remembered(world, pause):
    """A table that is read in one statement: what is beyond the limit is counted at once, and memory stays flat."""
    pause.setattr(recheck, "PENDING", 100)
    world.sql("CREATE TABLE heap (id int, v int)")
    world.sql("INSERT INTO heap VALUES " + ", ".join(f"({number}, 1)" for number in range(1000)))
    config = world.config(table="heap", key="heap_{id}")
    verdict = check(config)
    assert (verdict.rows, verdict.missing, len(verdict.shown)) == (1000, 1000, 100)


def test_rows_that_share_a_key_are_retried_as_one(world, tmp_path):
    """Counted by hash: none of them is gone."""
    world.sql("CREATE TABLE dup (id int PRIMARY KEY, g int)", "INSERT INTO dup VALUES (1, 1), (2, 1), (3, 1)")
    desk = Desk(world, tmp_path)
    desk.write({"dup": {"table": "dup", "key": "dup_{g}"}})
    world.redis.set("dup_1", "mine")
    assert desk.run("sync", "dup").code == 3
    world.redis.delete("dup_1")
    document = desk.run("rejects", "retry", "dup", "-o", "json").document
    assert (document["written"], document["gone"], document["rejected"]) == (1, 0, 0)


def test_a_master_that_fails_amid_a_scan(world, small, pause):
    """All masters are gone over again: nothing is counted twice, nothing is left out."""
    world.sql("DELETE FROM big WHERE id <= 30")
    scan = Keyspace._scan_node
    failures = []

    def failing(self, node):
        for number, keys in enumerate(scan(self, node)):
            if number == 1 and len(failures) < 2:
                failures.append(node)
                raise TargetError("gone", kind=Kind.UNAVAILABLE)
            yield keys

    pause.setattr(keyspace, "PAGE", 50)
    pause.setattr(Keyspace, "_scan_node", failing)
    done = prune(small, small.jobs["job"])
    assert (len(failures), done.keys, done.extra, done.deleted) == (2, 1000, 30, 30)


def test_a_master_that_another_one_replaces_amid_a_scan(world, small, monkeypatch):
    """It may have stood in for it with less than it had: all masters are gone over again."""
    world.sql("DELETE FROM big WHERE id <= 30")
    scan, scanned, asked = Keyspace._scan_node, [], []

    def scan_node(self, node):
        scanned.append(node)
        yield from scan(self, node) if len(scanned) > 1 else iter(())  # a replica that has nothing yet

    def ids(target, **how):
        asked.append(1)
        return {n: replace(life, id="before") if len(asked) == 1 else life for n, life in lives(target, **how).items()}

    monkeypatch.setattr(Keyspace, "_scan_node", scan_node)
    monkeypatch.setattr(keyspace, "lives", ids)
    done = prune(small, small.jobs["job"])
    assert (done.keys, done.extra, done.deleted) == (1000, 30, 30)


def test_a_replica_that_is_taken_for_a_master(world):
    """What it has is not what its master has: it passes, once the new master is known."""
    with RedisClient(world.config(table="t").target) as target:
        target.refresh(force=True)
        replica = next(node for _, _, nodes in target.topology.ranges() for node in nodes[1:])
        target.topology.slots = SlotMap.single(replica)
        with pytest.raises(TargetError, match="is no longer a master") as caught:
            lives(target)
        assert caught.value.transient


def test_several_jobs_of_which_one_cannot_be_verified(world, tmp_path):
    """The others are, all the same; a sync that could not prune does not begin."""
    desk = Desk(world, tmp_path)
    world.sql("CREATE TABLE t (id int PRIMARY KEY)")
    jobs = {"a": {"table": "stu", "key": "stu_{sid}"}, "b": {"table": "stu", "key": "stu_{sid}"}, "t": {"table": "t"}}
    desk.write(jobs)
    result = desk.run("verify", "--all", "-o", "json")
    assert result.code == 2
    assert [(document["job"], document["status"]) for document in result.documents] == [
        ("a", "failed"),
        ("b", "failed"),
        ("t", "ok"),
    ]
    assert desk.run("sync", "a", "--prune").code == 2
    assert world.hashes() == {}
    refused = desk.run("sync", "t", "--prune", "--shard", "1/2")
    assert (refused.code, "prune after all shards have finished" in refused.err) == (2, True)


def test_a_list_of_rejects_that_is_none(world, tmp_path):
    """Said with the key, and what to do; a sync that ends well mends it. What only a person can mend ends in a line."""
    desk = Desk(world, tmp_path)
    world.redis.hset("loader:{stu}:rejects", mapping={"stu_1": "garbage", "stu_2": '{"x": 1}'})
    listed = desk.run("rejects", "list", "stu")
    assert (listed.code, "`loader rejects purge stu` forgets all" in listed.err) == (2, True)
    assert desk.run("rejects", "purge", "stu").out == "stu: 2 forgotten\n"
    world.redis.hset("loader:{stu}:rejects", "stu_1", "garbage")
    assert desk.run("sync", "stu").code == 0
    assert desk.run("rejects", "list", "stu").out == "stu: 0 rejected rows\n"
    world.redis.hset("loader:{stu}:fence", "x", "y")
    world.redis.set("loader:{stu}:lock", "x")
    refused = desk.run("sync", "stu")
    assert refused.code == 2
    (line,) = [line for line in refused.messages if line.startswith("error: ")]
    told = desk.run("status", "stu", "-o", "json")
    assert (told.code, f"error: {told.document['problem']}") == (1, line)
    assert line.startswith("error: loader:{stu}:lock is not a hash")
    assert line.endswith("`DEL loader:{stu}:lock` frees the job; do not run it while a run of the job is in progress")


def test_the_values_of_rejects_in_json(world, tmp_path):
    """One document, in which each row has its command."""
    desk = Desk(world, tmp_path)
    world.redis.set("stu_00000002", "mine")
    assert desk.run("sync", "stu").code == 3
    (entry,) = desk.run("rejects", "list", "stu", "-o", "json", "--values").document["rejects"]
    assert entry["command"][:4] == ["HMSET", "stu_00000002", "sid", "00000002"]
    world.redis.delete("stu_00000002")


@pytest.mark.parametrize("kind", [{}, {"changed_only": True}, {"incremental": {"column": "at"}}])
def test_fields_that_the_job_has_no_more_are_told_of_until_a_repair(world, kind):
    """A run of the new plan leaves them in the hashes, and says so; a repair deletes them."""
    world.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v int, w int, at datetime NOT NULL DEFAULT NOW(), INDEX (at))",
        "INSERT INTO t (id, v, w) VALUES (1, 2, 3), (2, 3, 4)",
    )
    ears = [Ear(), Ear(), Ear(), Ear()]
    job = {"table": "t", "key": "t_{id}"} | kind
    before, now = world.config(**job, fields=["id", "v", "w"]), world.config(**job, fields={"id": "id", "x": "v"})
    execute(before, before.jobs["job"], Options(), ears[0])
    for ear in ears[1:3]:
        assert execute(now, now.jobs["job"], Options(), ear).status == "ok"
    assert verify.verify(now, now.jobs["job"], repair=True).repaired == 2
    assert {frozenset(fields) for fields in world.hashes().values()} == {frozenset({b"id", b"x"})}
    execute(now, now.jobs["job"], Options(), ears[3])
    told = [
        [event.text for event in ear.events if "no longer has (v, w)" in getattr(event, "text", "")] for ear in ears
    ]
    assert list(map(len, told)) == [0, 1, 1, 0]
    assert "`loader verify job --repair` deletes them" in told[1][0]


def test_a_row_whose_key_is_null_has_no_hash(world):
    """A sync rejects it, and `verify` misses its hash, repaired or not, looked at whole or in a sample."""
    world.sql("CREATE TABLE t (k int, v int)", "INSERT INTO t VALUES (1, 1), (NULL, 2), (NULL, 3)")
    config = world.config(table="t", key="t_{k}")
    assert run_job(config, config.jobs["job"], Options(), Ear()).rejected == 2
    for options in ({}, {"repair": True}, {"sample": 10}):
        verdict = check(config, **options)
        assert (verdict.rows, verdict.missing, verdict.different, verdict.extra) == (3, 2, 0, 0)
        assert "  missing    t_NULL  a column of the key is NULL" in verify_text(verdict, expires=False)
