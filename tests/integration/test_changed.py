"""Writing only what was changed: the cache is MySQL's rows all the same, whatever happened between two runs."""

import json
import random
from dataclasses import replace

import pytest

from loader.errors import Kind, TargetError
from loader.jobs import recheck
from loader.jobs.prune import Pruned, prune
from loader.jobs.rejects import retry
from loader.jobs.verify import verify
from loader.lab.process import wait
from loader.model import Notice
from loader.pipeline import deleter
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from loader.pipeline.run_notes import LOST_DIGESTS
from loader.pipeline.run_state import RunState
from loader.redis import connections, singles
from loader.redis.client import RedisClient
from loader.redis.servers import Life, lives
from loader.redis.writer import PipelineWriter
from loader.report.text import run_text
from loader.state import digests
from loader.state.baseline import Baselines, doubt
from loader.state.digests import ChunkEntry, Digests, Rows, pack, unpack
from loader.state.earlier import EarlierFacts
from loader.state.lock import Lock
from loader.state.markers import Markers
from loader.wire import encoder
from support.database import Ear
from support.faults import replicas_are_seen

JOB = {"table": "t", "key": "t_{id}", "changed_only": True, "chunk_rows": 10}


def fill(world, rows=50, columns="id int PRIMARY KEY, v varchar(40)"):
    world.sql(f"CREATE TABLE t ({columns})")
    if rows:
        world.sql("INSERT INTO t (id, v) VALUES " + ",".join(f"({n}, 'v{n}')" for n in range(1, rows + 1)))


def outcome(world, ear=None, **job):
    """Rows written, unchanged and deleted by one run, after which the hashes are the table's rows."""
    run = world.sync(ear, **JOB | job)
    assert (run.status, run.error) == ("ok", None)
    assert run.read == run.written + run.unchanged
    assert world.hashes() == expected(world)
    return run.written, run.unchanged, run.deleted


def expected(world, condition="TRUE"):
    rows = world.sql(f"SELECT id, v FROM t WHERE {condition}")
    return {f"t_{n}".encode(): {b"id": str(n).encode()} | ({} if v is None else {b"v": v.encode()}) for n, v in rows}


def entries(world):
    """The index: chunk number → entry, and the numbers of the blobs that there are."""
    fields = world.redis.hgetall("loader:{job}:digests")
    index = {int(name): json.loads(text) for name, text in fields.items() if name.isdigit()}
    blobs = {int(key.rpartition(b":")[2]) for key in world.state() if key.startswith(b"loader:digest:job:")}
    return index, blobs


def notes(ear):
    return [event.text for event in ear.events if hasattr(event, "text")]


@pytest.mark.parametrize("kind", ["compiled", "plain"])
def test_only_what_differs_is_written(world, monkeypatch, kind):
    """Changed and new rows are written, wherever they stand; the hashes of rows that are gone are deleted."""
    if kind == "plain":
        monkeypatch.setattr("loader.pipeline.transfer.Encoder", encoder.Encoder)
    fill(world)
    assert outcome(world) == (50, 0, 0)
    assert outcome(world) == (0, 50, 0)
    world.sql("UPDATE t SET v = 'other' WHERE id IN (3, 33)", "DELETE FROM t WHERE id IN (1, 20, 50)")
    world.sql("UPDATE t SET v = NULL WHERE id = 7", "INSERT INTO t VALUES (0, 'first'), (51, 'last'), (90, 'far')")
    assert outcome(world) == (6, 44, 3)
    assert outcome(world) == (0, 50, 0)
    world.sql("UPDATE t SET id = 60 WHERE id = 30")
    assert outcome(world) == (1, 49, 1)
    assert "50 rows read, 0 written, 0 rejected, 50 unchanged in" in run_text(world.sync(**JOB))
    world.sql("DELETE FROM t")
    assert outcome(world) == (0, 0, 50)
    assert outcome(world) == (0, 0, 0)


def test_an_empty_table_has_no_digests(world):
    """The first rows of a table that was empty are written, and known from then on."""
    fill(world, 0)
    assert outcome(world) == (0, 0, 0)
    world.sql("INSERT INTO t VALUES (5, 'x')")
    assert outcome(world) == (1, 0, 0)
    assert outcome(world) == (0, 1, 0)


@pytest.mark.parametrize(
    "columns",
    [
        "id varchar(40) COLLATE utf8mb4_general_ci PRIMARY KEY, v text",
        "n int AUTO_INCREMENT PRIMARY KEY, id varchar(40) NOT NULL UNIQUE, v text",
    ],
)
def test_keys_of_text(world, columns):
    """Chunks go along a key whose columns all are in the hash's key, which need not be the primary one."""
    job = {"fields": ["id", "v"]}
    world.sql(f"CREATE TABLE t ({columns})")
    world.sql("INSERT INTO t (id, v) VALUES " + ",".join(f"('k{n}', 'v{n}')" for n in range(100, 150)))
    assert outcome(world, **job) == (50, 0, 0)
    assert outcome(world, **job) == (0, 50, 0)
    world.sql("UPDATE t SET id = 'K120' WHERE id = 'k120'", "UPDATE t SET v = 'x' WHERE id = 'k130'")
    world.sql("DELETE FROM t WHERE id = 'k149'")
    assert outcome(world, **job) == (2, 47, 2)


def test_keys_of_two_columns(world):
    """Chunks have bounds in both."""
    world.sql("CREATE TABLE t (a varchar(9), b int, v int, PRIMARY KEY (a, b))")
    world.sql("INSERT INTO t VALUES " + ",".join(f"('{'xy'[n % 2]}', {n}, {n})" for n in range(50)))
    job = JOB | {"key": "t_{a}:{b}"}
    assert world.sync(**job).written == 50
    world.sql("UPDATE t SET v = 0 WHERE b = 20", "DELETE FROM t WHERE b = 49", "UPDATE t SET a = 'y' WHERE b = 30")
    run = world.sync(**job)
    assert (run.written, run.unchanged, run.deleted) == (2, 47, 2)
    assert world.hashes().keys() == {f"t_{a}:{b}".encode() for a, b in world.sql("SELECT a, b FROM t")}


@pytest.mark.parametrize(
    ("columns", "key", "reason"),
    [
        ("id int PRIMARY KEY, v varchar(40)", "t_{v}", "all columns of the primary key"),
        ("id int, v varchar(40)", "t_{id}", "all columns of the primary key"),
        ("id int, v int, PRIMARY KEY (id, v)", "t_{id}{v}", "make the same one: put '_' between them, or"),
        ("id char(36), v char(36), PRIMARY KEY (id, v)", "t_{id}_{v}", "make the same one: leave"),
    ],
)
def test_a_key_that_two_rows_may_share_is_refused(world, columns, key, reason):
    """Digests say what a hash was written from only where it is one row's: exit 2, and what to do."""
    world.sql(f"CREATE TABLE t ({columns})")
    run = world.sync(**JOB | {"key": key})
    assert run.exit_code == 2
    assert reason in run.error
    assert "leave changed_only out" in run.error


def test_a_key_whose_columns_can_be_told_apart_is_not(world):
    """Several texts in a key are no harm where none of them but one could hold what stands between."""
    world.sql("CREATE TABLE t (id enum('a','b_c'), v binary(2), PRIMARY KEY (id, v))")
    world.sql("INSERT INTO t VALUES ('a', 'xy'), ('b_c', '_')")
    job = JOB | {"key": "t_{id}_{v}"}
    assert [world.sync(**job).written for _ in range(2)] == [2, 0]


def dying(monkeypatch, at, error):
    """Have the writer fail after rows were sent: the so manieth time that it is drained with any."""
    count = 0
    drain = PipelineWriter.drain

    def drain_and_fail(self):
        nonlocal count
        acks = drain(self)
        count += sum(acks.rows.values()) > 0
        if count == at:
            raise error
        return acks

    monkeypatch.setattr(PipelineWriter, "drain", drain_and_fail)


def test_a_row_that_is_again_what_it_was_after_a_run_that_died(world, monkeypatch):
    """A → B, the run dies with B written, back to A: the hash is A's, though that is what the last run had left."""
    fill(world)
    outcome(world)
    world.sql("UPDATE t SET v = 'B' WHERE id = 25")
    with monkeypatch.context() as patch:
        dying(patch, 1, TargetError("died"))
        assert world.sync(**JOB).status == "failed"
    assert world.hashes()[b"t_25"][b"v"] == b"B"
    world.sql("UPDATE t SET v = 'v25' WHERE id = 25", "DELETE FROM t WHERE id = 24")
    assert outcome(world) == (9, 40, 1)
    assert outcome(world) == (0, 49, 0)


def test_what_a_run_wrote_that_did_not_end_is_written_again(world, monkeypatch):
    """No baseline vouches for the last writes of a run that died, so chunks that it completed are dirty too."""
    fill(world)
    outcome(world)
    world.sql("UPDATE t SET v = 'B'")
    with monkeypatch.context() as patch:
        dying(patch, 4, TargetError("died"))
        assert world.sync(**JOB).written >= 10
    assert outcome(world) == (50, 0, 0)


def test_a_chunk_that_failed_in_passing_is_written_whole(world, monkeypatch):
    """The second attempt does not take what the first may have written for unchanged."""
    fill(world)
    outcome(world)
    world.sql("UPDATE t SET v = 'B' WHERE id = 25", "DELETE FROM t WHERE id = 26")
    with monkeypatch.context() as patch:
        dying(patch, 1, TargetError("cut", kind=Kind.UNAVAILABLE))
        assert outcome(world) == (9, 40, 1)
    assert outcome(world) == (0, 49, 0)


def test_a_master_that_was_emptied_is_filled_again(world):
    """Markers are gone, and digests maybe: everything is written, and a note says why."""
    fill(world)
    outcome(world)
    index = world.redis.get_node_from_key("{job}")
    for node in world.redis.get_primaries():
        world.redis.flushall(target_nodes=node)
        assert len(world.hashes()) < 50
        ear = Ear()
        assert outcome(world, ear) == (50, 0, 0)
        told = any("all rows are written: the target was emptied" in text for text in notes(ear))
        assert told == (node != index)  # without index and baseline it is as for the first time
        assert outcome(world) == (0, 50, 0)


def test_keys_that_redis_threw_away_are_written_again(world, monkeypatch):
    """Where a master has evicted keys since the last run, nothing is taken for known."""
    fill(world)
    outcome(world)

    def later(target, **how):
        return {node: replace(life, evicted=life.evicted + 1) for node, life in lives(target).items()}

    monkeypatch.setattr("loader.pipeline.masters.lives", later)
    ear = Ear()
    assert outcome(world, ear) == (50, 0, 0)
    assert any("has evicted keys" in text for text in notes(ear))
    assert outcome(world) == (0, 50, 0)


def test_another_plan_forgets_the_digests(world):
    """What was written by other fields or another condition says nothing of what is to be written now."""
    fill(world)
    outcome(world)
    ear = Ear()
    job = JOB | {"fields": {"w": "v"}, "chunk_rows": 25}
    run = world.sync(ear, **job)
    assert (run.written, run.unchanged) == (50, 0)
    assert any("the plan has changed" in text for text in notes(ear))
    assert world.sync(**job).unchanged == 50
    index, blobs = entries(world)
    assert (set(index), len(index)) == (blobs, 2)


def test_a_table_that_was_rebuilt_is_held_against_the_digests(world):
    """All its rows are read anyway, and those that are what they were need not be written."""
    fill(world)
    world.sql("GRANT PROCESS ON *.* TO loader@'%'")
    try:
        outcome(world)
        world.sql("ALTER TABLE t ENGINE=InnoDB")
        assert outcome(world) == (0, 50, 0)
    finally:
        world.sql("REVOKE PROCESS ON *.* FROM loader@'%'")


def test_a_row_that_leaves_the_where_loses_its_hash(world):
    """It is gone as far as the job goes."""
    fill(world)
    where = {"where": "v <> 'out'"}
    assert world.sync(**JOB | where).written == 50
    world.sql("UPDATE t SET v = 'out' WHERE id IN (5, 50)")
    run = world.sync(**JOB | where)
    assert (run.written, run.unchanged, run.deleted) == (0, 48, 2)
    assert world.hashes() == expected(world, "v <> 'out'")


def test_a_row_that_comes_back_before_its_hash_is_deleted(world, monkeypatch):
    """Its hash stays, and is no more known than one that nobody wrote: it goes when the row goes again."""
    fill(world)
    outcome(world)
    world.sql("DELETE FROM t WHERE id = 25")
    made_of = deleter.made_of

    def late(*args):
        world.sql("INSERT INTO t VALUES (25, 'back')")
        return made_of(*args)

    with monkeypatch.context() as patch:
        patch.setattr(deleter, "made_of", late)
        run = world.sync(**JOB)
    assert (run.status, run.unchanged, run.deleted) == ("ok", 49, 0)
    assert world.redis.hget("t_25", "v") == b"v25"
    world.sql("DELETE FROM t WHERE id = 25")
    assert outcome(world)[2] == 1
    assert world.hashes() == expected(world)


def test_a_row_that_redis_refuses_is_tried_again(world):
    """A reject is not known; once the foreign key is gone, the row is written by the next run."""
    fill(world)
    outcome(world)
    world.redis.delete("t_25")
    world.redis.set("t_25", "foreign")
    world.sql("UPDATE t SET v = 'B' WHERE id IN (25, 35)")
    for written in (1, 0):
        run = world.sync(**JOB)
        assert (run.written, run.rejected, run.unchanged, run.deleted) == (written, 1, 49 - written, 0)
    assert world.redis.get("t_25") == b"foreign"
    world.redis.delete("t_25")
    assert outcome(world) == (1, 49, 0)
    assert outcome(world) == (0, 50, 0)


def test_a_chunk_that_has_grown_is_made_several(world):
    """Its rows are written once more then; rows that are gone by then lose their hashes."""
    fill(world, 0)
    world.sql("INSERT INTO t VALUES (1, 'a'), (1000, 'b')")
    outcome(world)
    world.sql("INSERT INTO t VALUES " + ",".join(f"({n}, 'v{n}')" for n in range(100, 150)))
    assert outcome(world) == (50, 2, 0)
    world.sql("DELETE FROM t WHERE id IN (100, 149, 1000)", "UPDATE t SET v = 'x' WHERE id = 120")
    assert outcome(world) == (49, 0, 3)
    index, blobs = entries(world)
    assert len(index) == 5
    assert set(index) == blobs
    assert outcome(world) == (0, 49, 0)


def test_small_neighbours_are_made_one(world):
    """The index of a table whose rows are appended and deleted, as a queue's are, does not grow."""
    fill(world, 0)
    for start in range(0, 100, 5):
        world.sql("INSERT INTO t VALUES " + ",".join(f"({n}, 'v{n}')" for n in range(start, start + 5)))
        world.sql(f"DELETE FROM t WHERE id < {start - 10}")
        written, unchanged, deleted = outcome(world)
        assert (written, unchanged, deleted) == (5, min(start, 10), 5 * (start > 10))
    index, blobs = entries(world)
    assert set(index) == blobs
    assert len(index) <= 4


def test_others_that_write_hashes_void_what_is_known(world, monkeypatch):
    """After `sync --where`, `rejects retry`, `verify --repair`, a deletion by `prune` or without changed_only."""
    monkeypatch.setattr(recheck, "PAUSE", 0.01)
    fill(world)
    config = world.config(**JOB)
    job = config.jobs["job"]
    plain = world.config(**JOB | {"changed_only": False})

    def part():
        assert run_job(config, job, Options(where="id = 25"), Ear()).written == 1

    def pruned():
        world.redis.hset("t_99", "id", "99")
        done = Pruned("job")
        prune(config, job, done, max_delete=50)
        assert done.deleted == 1

    for change in (
        part,
        pruned,
        lambda: retry(config, job),
        lambda: verify(config, job, repair=True),
        lambda: run_job(plain, plain.jobs["job"], Options(), Ear()),
    ):
        outcome(world)
        assert outcome(world) == (0, 50, 0)
        world.sql("UPDATE t SET v = 'B' WHERE id = 25")
        change()
        world.sql("UPDATE t SET v = 'v25' WHERE id = 25")
        assert outcome(world) == (50, 0, 0)


def test_a_blob_that_is_not_what_the_index_says_makes_its_chunk_dirty(world):
    """One that is gone, cut short or older, as after a failover that lost the newest writes."""
    fill(world)
    outcome(world)
    index, _ = entries(world)
    keys = [f"loader:digest:job:{number}" for number in sorted(index)]
    old = world.redis.get(keys[0])
    world.sql("UPDATE t SET v = 'B' WHERE id = 1")
    outcome(world)
    world.sql("UPDATE t SET v = 'v1' WHERE id = 1")
    world.redis.set(keys[0], old)
    world.redis.delete(keys[1])
    world.redis.set(keys[2], world.redis.get(keys[2])[:-3])
    assert outcome(world) == (30, 20, 0)
    assert outcome(world) == (0, 50, 0)


def test_hashes_that_a_ttl_has_left(world):
    """They are written once, live from then on, and are known."""
    fill(world)
    run = world.sync(**JOB | {"changed_only": False, "ttl": "1h"})
    assert run.written == 50
    assert outcome(world) == (50, 0, 0)
    assert {world.redis.ttl(key) for key in world.hashes()} == {-1}
    assert outcome(world) == (0, 50, 0)


@pytest.mark.parametrize("number", [1, 3, 5])
def test_an_entry_that_is_lost(world, number):
    """A chunk in the middle, the first or the last one: hashes of rows that went meanwhile may stay, which is said."""
    fill(world)
    assert outcome(world, chunk_rows=10) == (50, 0, 0)
    assert world.redis.hdel("loader:{job}:digests", number) == 1
    world.sql(f"DELETE FROM t WHERE id = {number * 10 - 5}")
    ear = Ear()
    run = world.sync(ear, **JOB | {"chunk_rows": 10})
    assert (run.status, run.written, run.unchanged) == ("ok", 59 - number * 10, number * 10 - 10)
    assert LOST_DIGESTS.format(job="job") in [event.text for event in ear.events if isinstance(event, Notice)]
    world.redis.delete(f"t_{number * 10 - 5}")
    ear = Ear()
    assert outcome(world, ear, chunk_rows=10) == (0, 49, 0)
    assert not [event for event in ear.events if isinstance(event, Notice)]


def test_one_hash_that_expires_among_many(world):
    """It may be the last that a ttl has left, or that of a row that comes back to a chunk that is known."""
    fill(world, 1100)
    world.redis.hset("t_1000", "id", "1000")
    world.redis.expire("t_1000", 3600)
    job = {"chunk_rows": 2000}
    assert outcome(world, **job) == (1100, 0, 0)
    assert world.redis.ttl("t_1000") == -1
    world.sql("DELETE FROM t WHERE id = 500")
    assert outcome(world, **job) == (0, 1099, 1)
    world.redis.hset("t_500", "id", "500")
    world.redis.expire("t_500", 3600)
    world.sql("INSERT INTO t VALUES (500, 'again')")
    assert outcome(world, **job) == (1, 1099, 0)
    assert world.redis.ttl("t_500") == -1
    assert outcome(world, **job) == (0, 1100, 0)


def test_a_master_that_was_started_anew_during_the_run(world, monkeypatch):
    """It has what it had saved by then, its markers too: what the run wrote is not taken for known."""
    fill(world)
    outcome(world)
    world.sql("UPDATE t SET v = 'B' WHERE id = 25")
    keep, node = RunState._keep_baseline, str(world.redis.get_node_from_key("t_25").port)

    def anew(target, **how):
        return {n: replace(life, id="another") if str(n).endswith(node) else life for n, life in lives(target).items()}

    def keep_late(self, run):
        world.redis.hset("t_25", "v", "v25")
        monkeypatch.setattr("loader.pipeline.masters.lives", anew)
        keep(self, run)

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "_keep_baseline", keep_late)
        assert world.sync(**JOB).written == 1
    assert outcome(world) == (50, 0, 0)
    assert outcome(world) == (0, 50, 0)


def test_a_master_that_is_emptied_while_a_run_begins(world, monkeypatch):
    """Right after its markers were looked at: the run's own ones are there by then, and tell of it."""
    fill(world)
    outcome(world)
    doubt, index = Baselines.doubt, world.redis.get_node_from_key("{job}")
    node = next(node for node in world.redis.get_primaries() if node != index)

    def doubt_before(self, *words):
        told = doubt(self, *words)
        monkeypatch.undo()
        world.redis.flushall(target_nodes=node)
        return told

    monkeypatch.setattr(Baselines, "doubt", doubt_before)
    outcome(world)


def test_the_digests_of_a_job_that_asks_for_none_are_forgotten(world):
    """They would take their room for ever; nothing that such a run writes is taken for known later."""
    fill(world)
    outcome(world)
    assert world.sync(**JOB | {"changed_only": False}).written == 50
    assert not [key for key in world.state() if b"digest" in key]
    assert outcome(world) == (50, 0, 0)


def test_a_baseline_that_is_doubtful_once_it_is_kept_is_void(world, monkeypatch):
    """A master lost count between the look before it was kept and the one after."""
    fill(world)
    save = Baselines.save

    def save_late(self, *words):
        save(self, *words)
        monkeypatch.setattr(
            "loader.pipeline.masters.lives",
            lambda target, **how: {n: replace(life, id="another") for n, life in lives(target).items()},
        )

    with monkeypatch.context() as patch:
        patch.setattr(Baselines, "save", save_late)
        assert outcome(world) == (50, 0, 0)
    assert json.loads(world.redis.get("loader:{job}:baseline"))["void"]
    monkeypatch.undo()
    assert outcome(world) == (50, 0, 0)
    assert outcome(world) == (0, 50, 0)


def test_a_run_begins_again_where_another_writes_the_digests(world, monkeypatch):
    """The lock may have lapsed: what is kept is then another run's."""
    fill(world)
    outcome(world)
    read, ear = digests.Digests.read, Ear()

    def read_late(self, number):
        if not notes(ear):
            world.redis.hset("loader:{job}:digests", "run", "another")
        return read(self, number)

    monkeypatch.setattr(digests.Digests, "read", read_late)
    assert outcome(world, ear) == (0, 50, 0)
    assert any("the run starts over: the digests of job 'job'" in text for text in notes(ear))


def test_what_a_failover_must_not_undo(world, monkeypatch):
    """A lock, standing markers, a dirty chunk, a void baseline: a replica has to know of them, and is asked."""
    wait(lambda: replicas_are_seen(world.lab), "the replicas")
    receive, asked = connections.receive, []

    def unheard(connection, commands):
        asked.extend(each[0] for each in commands)
        replies = receive(connection, commands)
        return [0 if each[0] == "WAIT" else reply for each, reply in zip(commands, replies, strict=True)]

    settings = world.config(table="t").target
    with RedisClient(settings) as target:
        for module in (connections, singles):
            monkeypatch.setattr(module, "receive", unheard)
        for action in (
            lambda: Digests(target, "job", "w").mark_dirty(ChunkEntry(1, None, ("9",), 5, 77, "w")),
            lambda: Baselines(target, "job").void(under_way=True),
            lambda: Markers(target, "loader:standing:job", "run", passing=False).leave(),
            lambda: Lock(settings, "job", "run").take(target),
        ):
            with pytest.raises(TargetError, match="no replica acknowledged") as caught:
                action()
            assert caught.value.transient
    assert asked.count("WAIT") >= 4


def test_a_master_whose_counters_are_reset_while_the_baseline_is_saved(world, monkeypatch):
    """It may have thrown keys away: it is looked at once more after that, and nothing vouches for what is there."""
    fill(world)
    outcome(world)
    world.sql("UPDATE t SET v = 'B' WHERE id = 25")
    save, saved = Baselines.save, []

    def note(*args):
        save(*args)
        saved.append(True)

    def late(target, **how):
        return {node: replace(life, connections=0) if saved else life for node, life in lives(target).items()}

    with monkeypatch.context() as patch:
        patch.setattr(Baselines, "save", note)
        patch.setattr("loader.pipeline.masters.lives", late)
        run = world.sync(**JOB)
    assert (run.exit_code, run.unchanged) == (3, 49)
    assert "the counters were reset during the run" in run.error
    assert saved
    assert json.loads(world.redis.get("loader:{job}:baseline"))["void"]
    assert outcome(world) == (50, 0, 0)


def test_doubts_about_a_master():
    """It may have thrown keys away: it has counted some, or has not counted all the time."""
    before = Life("one", 3, "", 10, 20)
    now = replace(before, connections=12, client=22)
    assert doubt(now, before) == ""
    assert doubt(replace(now, evicted=4), before) == "has evicted keys"
    assert "counters reset" in doubt(replace(now, connections=2), before)
    assert "restarted" in doubt(now, None)


def left(world):
    """All that a run leaves for the next one to build on."""
    read = {b"string": world.redis.get, b"hash": world.redis.hgetall}
    return {key: read[world.redis.type(key)](key) for key in world.state()}


def test_a_run_that_changes_nothing_leaves_everything_as_it_was(world):
    """Baseline, markers and digests stay those of the last run that wrote, and vouch for what it wrote."""
    fill(world)
    outcome(world)
    before = left(world)
    assert {key.split(b":")[1] for key in before} >= {b"standing", b"digest"}
    for _ in range(2):
        assert outcome(world) == (0, 50, 0)
        assert left(world) == before
    world.sql("UPDATE t SET v = 'B' WHERE id = 25")
    assert outcome(world) == (1, 49, 0)
    after = left(world)
    same = {key for key in before if after[key] == before[key]}
    assert {key.rpartition(b":")[0] for key in same} == {b"loader:digest:job"}
    assert outcome(world) == (0, 50, 0)
    assert left(world) == after


def test_a_master_that_is_emptied_after_a_run_that_changed_nothing(world):
    """The markers that such a run was built on are gone with the hashes."""
    fill(world)
    outcome(world)
    for node in world.redis.get_primaries():
        assert outcome(world) == (0, 50, 0)
        world.redis.flushall(target_nodes=node)
        assert outcome(world) == (50, 0, 0)


def test_a_master_that_is_emptied_within_a_run_that_changes_nothing(world, monkeypatch):
    """The run's own markers tell of it, and it begins again."""
    fill(world)
    outcome(world)
    keep, ear = RunState._keep_baseline, Ear()

    def keep_late(self, run):
        keep(self, run)
        monkeypatch.undo()
        world.redis.flushall(target_nodes=world.redis.get_node_from_key("t_25"))

    monkeypatch.setattr(RunState, "_keep_baseline", keep_late)
    assert outcome(world, ear) == (50, 0, 0)
    assert any("the run starts over: the target was emptied" in text for text in notes(ear))


def test_a_run_that_dies_before_its_first_change_spoils_nothing(world, monkeypatch):
    """It has not entered itself as the writer yet; what it would have written is written by the next."""
    fill(world)
    outcome(world)
    world.sql("UPDATE t SET v = 'B' WHERE id = 45")

    def die(*_):
        raise TargetError("died")

    with monkeypatch.context() as patch:
        patch.setattr(Digests, "mark_dirty", die)
        assert world.sync(**JOB).status == "failed"
    assert outcome(world) == (1, 49, 0)


def test_a_run_that_dies_with_its_first_change(world, monkeypatch):
    """It has entered itself by then, so that nothing vouches for the chunk."""
    fill(world)
    outcome(world)
    world.sql("UPDATE t SET v = 'B' WHERE id = 45")
    write = Digests.write

    def write_and_die(self, *words):
        write(self, *words)
        raise TargetError("died")

    with monkeypatch.context() as patch:
        patch.setattr(Digests, "write", write_and_die)
        assert world.sync(**JOB).status == "failed"
    fields = world.redis.hgetall("loader:{job}:digests")
    assert (fields[b"run"] != fields[b"base"], b"size" in fields) == (True, False)
    world.sql("UPDATE t SET v = 'v45' WHERE id = 45")
    assert outcome(world) == (10, 40, 0)


def test_another_writer_that_came_before_the_first_change(world, monkeypatch):
    """The lock may have lapsed: the digests that the run was built on are not those that it is about to change."""
    fill(world)
    outcome(world)
    world.sql("UPDATE t SET v = 'B' WHERE id = 45")
    mark_dirty, ear = Digests.mark_dirty, Ear()

    def mark_late(self, entry):
        if not notes(ear):
            world.redis.hset("loader:{job}:digests", "run", "another")
        mark_dirty(self, entry)

    monkeypatch.setattr(Digests, "mark_dirty", mark_late)
    assert outcome(world, ear)[0] == 1
    assert any("the run starts over: the digests of job 'job'" in text for text in notes(ear))


def test_a_baseline_that_is_voided_within_a_run_that_changes_nothing_stays_void(world, monkeypatch):
    """The run was built on it, and does not say again what another one has called in question."""
    fill(world)
    outcome(world)
    keep = RunState._keep_baseline

    def keep_late(self, run):
        self._baselines.void()
        keep(self, run)

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "_keep_baseline", keep_late)
        assert outcome(world) == (0, 50, 0)
    assert outcome(world) == (50, 0, 0)


def test_when_a_baseline_still_says_all(world):
    """As long as the facts are those it has noted, each master lives on, and each has one of its markers."""
    fill(world)
    outcome(world)
    with RedisClient(world.config(**JOB).target) as target:
        baselines = Baselines(target, "job")
        kept = baselines.read()
        now = [*lives(target).values()]
        assert baselines.covers(kept, dict(kept.facts), now)
        for facts, masters, other in (
            ({**kept.facts, "created": "today"}, now, kept),
            (EarlierFacts(kept.facts), now, replace(kept, facts=EarlierFacts(kept.facts))),
            (kept.facts, now[1:], kept),
            (kept.facts, [*now[1:], replace(now[0], id="another")], kept),
            (kept.facts, now, replace(kept, markers=kept.markers[1:])),
        ):
            assert not baselines.covers(other, facts, masters)


def test_any_changes_in_any_order(world):
    """Rows come, change, go and come back, runs die in between: each run that ends leaves the table's rows."""
    chance = random.Random(7)
    fill(world, 30)
    outcome(world)
    for _ in range(12):
        for _ in range(chance.randrange(12)):
            key = chance.randrange(60)
            if chance.random() < 0.4:
                world.sql(f"DELETE FROM t WHERE id = {key}")
            else:
                world.sql(f"REPLACE INTO t VALUES ({key}, '{chance.choice('ab')}')")
        if chance.random() < 0.4:
            with pytest.MonkeyPatch.context() as patch:
                dying(patch, chance.randrange(1, 4), TargetError("died"))
                world.sync(**JOB)
        else:
            outcome(world, chunk_rows=chance.choice([4, 10]))
    outcome(world)


def test_a_blob_holds_rows_and_nothing_else_is_one():
    """What is packed is unpacked; bytes that were cut or are of another version are no blob."""
    rows = Rows(b"12345678" * 2, b"\1\0\0\0a\2\0\0\0bc")
    blob = pack(rows)
    assert unpack(blob) == rows
    assert list(rows.split_keys()) == [b"a", b"bc"]
    assert rows.without({b"a"}) == Rows(b"12345678", b"\2\0\0\0bc")
    for other in (None, b"", blob[:3], blob[:20], blob[:-1], b"\2" + blob[1:], b"x"):
        assert unpack(other) is None


def test_digests_take_at_most_twenty_bytes_a_row():
    """With the keys, of a chunk of the usual size of rows like those of `stu`."""
    keys = [b"stu_%08d" % n for n in range(10_000)]
    noted = b"".join(len(key).to_bytes(4, "little") + key for key in keys)
    assert len(pack(Rows(random.Random(1).randbytes(8 * len(keys)), noted))) < 13 * len(keys)
