"""What changes under a run: the run begins again with a new plan, or says why it cannot end well."""

import threading

import pytest

from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from support.command import Desk, redis_server
from support.database import Ear, World, process_right
from support.tables import table


class Meddler(Ear):
    """Does something to the servers after so many events of each beginning, `times` in all."""

    def __init__(self, act, *, after=5, times=1):
        super().__init__()
        self._act, self._after, self._left = act, after, times
        self._heard = 0

    def expect(self, rows, throttle):
        super().expect(rows, throttle)
        self._heard = 0

    def notify(self, event):
        super().notify(event)
        self._heard += event is not None
        if self._heard == self._after and self._left:
            self._left -= 1
            self._act()


def meddle(world, act, options=None, **job):
    config = world.config(table="t", chunk_rows=500, **job)
    ear = Meddler(act) if callable(act) else act
    return run_job(config, config.jobs["job"], options or Options(), ear), ear


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ("ALTER TABLE t ADD COLUMN w int NOT NULL DEFAULT 7", b"w", b"7"),
        ("ALTER TABLE t MODIFY v int(4) unsigned zerofill", b"v", b"0003"),
        ("ALTER TABLE t CHANGE v renamed int", b"renamed", b"3"),
        ("ALTER TABLE t DROP COLUMN v", b"v", None),
    ],
    ids=["added", "retyped", "renamed", "dropped"],
)
def test_s12_a_table_altered_amid_a_run(world, resume, change, field, value):
    """Every row is as the new table has it, those loaded before the change too, and the run says what happened."""
    table(world, 10_000)
    run, ear = meddle(world, lambda: world.sql(change), Options(resume=resume))
    assert (run.status, run.read, run.written) == ("ok", 10_000, 10_000), run.error
    hashes = world.hashes()
    assert len(hashes) == 10_000
    stale = {b"v"} if value is None or field == b"renamed" else set()  # those of the first beginning: for `verify`
    assert hashes[b"t_4"].get(field) == value or field in stale
    assert all(set(hash_) - stale == set(hashes[b"t_4"]) - stale for hash_ in hashes.values())
    assert any("the run starts over: table t" in str(event) for event in ear.events)
    assert world.state() == set()


@pytest.mark.parametrize("options", [Options(), Options(resume=True)], ids=["sync", "backfill"])
def test_s12_a_table_replaced_amid_a_run(world, options):
    """Another table of the same columns is renamed into its place, as nightly jobs do: every row is that table's."""
    table(world, 5_000)
    world.sql("CREATE TABLE u LIKE t", "INSERT INTO u SELECT id, v + 9 FROM t")
    with process_right(world):  # else it is told by the second in which they were made
        run, ear = meddle(world, lambda: world.sql("RENAME TABLE t TO old, u TO t"), options)
    assert (run.status, run.read, run.starts) == ("ok", 5_000, 2), run.error
    assert any("table t was replaced during the run" in str(event) for event in ear.events)
    assert {int(fields[b"v"]) for fields in world.hashes().values()} == {v for (v,) in world.sql("SELECT v FROM t")}


def test_s12_a_column_that_the_job_names_is_dropped(world):
    """There is no new plan: exit 2, and the column is named."""
    table(world, 10_000)
    run, _ = meddle(world, lambda: world.sql("ALTER TABLE t DROP COLUMN v"), fields=["v"])
    assert (run.status, run.exit_code) == ("failed", 2)
    assert "no column 'v'" in run.error


def test_a_target_that_is_emptied_again_and_again(world):
    """After three beginnings the run has failed, and says why; the lock is free."""
    table(world, 10_000)

    def empty():
        for node in world.redis.get_primaries():
            world.redis.flushall(target_nodes=[node])

    run, _ = meddle(world, Meddler(empty, times=9))
    assert (run.status, run.exit_code) == ("failed", 1)
    assert "markers are gone" in run.error
    assert world.state() == set()


def test_r2_a_node_that_throws_keys_away(world, tmp_path):
    """Said before, and where it happened exit 3, or 1 where the lock goes again and again: a row may be gone."""
    table(world, 10_000)
    desk = Desk(world, tmp_path)
    with redis_server(tmp_path, "--maxmemory", "1700kb", "--maxmemory-policy", "allkeys-lru") as port:
        target = {"url": f"redis://127.0.0.1:{port}", "password": None}
        desk.write({"t": {"table": "t"}}, target=target)
        result = desk.run("sync", "t", "-o", "json")
    assert (result.code, result.document["status"]) in {(3, "rejects"), (1, "failed")}
    assert "evicted keys" in result.document["error"]
    assert f"127.0.0.1:{port} evicts keys once it is full: its maxmemory-policy is allkeys-lru" in result.err


def test_s11_a_table_that_is_away_when_the_run_begins_again(world):
    """Renamed away just then, and back after two seconds: waited for."""
    table(world, 10_000)

    class Renamer(Meddler):
        def notify(self, event):
            if "starts over" in str(event):
                world.sql("RENAME TABLE t TO away")
                threading.Timer(2, lambda: World.sql(other, "RENAME TABLE away TO t")).start()
            super().notify(event)

    other = World(world.lab, world.directory)
    other.sql(f"USE {world.name}")
    run, _ = meddle(world, Renamer(lambda: world.sql("ALTER TABLE t ADD COLUMN w int")))
    other.sql(f"USE {other.name}")
    other.close()
    assert (run.status, run.read) == ("ok", 10_000), run.error
