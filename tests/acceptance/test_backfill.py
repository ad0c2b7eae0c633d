"""Backfills: parallel, killed at any moment and resumed, bound to their plan and to a target that has the rows."""

import json
import random
import signal
import time

import pytest
import redis

from loader.config.load import load_config
from loader.lab.process import wait
from loader.model import ChunkLoaded
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from loader.pipeline.throttle import Throttle
from support.command import HOST, finish, redis_server
from support.daemons import Running
from support.database import Clock, Ear
from support.tables import desk_of_big

ROWS = 60_000


@pytest.fixture
def desk(world, tmp_path):
    return desk_of_big(world, tmp_path)


def holds_every_row(world):
    """Whether each row of `big` has its hash, and nothing else is there."""
    rows = {f"big_{number}".encode(): name.encode() for number, name in world.sql("SELECT id, name FROM big")}
    hashes = {key: fields[b"name"] for key, fields in world.hashes().items()}
    return rows == hashes


def wait_for_checkpoint(world):
    wait(lambda: checkpoint(world) is not None, "a checkpoint")


def wait_for_hashes(world, count):
    """Wait until there are so many, and for a moment that nobody knows."""
    wait(lambda: sum(1 for _ in world.redis.scan_iter("big_*", count=5000)) >= count, f"{count} hashes")
    time.sleep(random.uniform(0, 0.05))


def checkpoint(world):
    text = world.redis.get("loader:{big}:checkpoint")
    return json.loads(text) if text else None


def test_a_backfill_loads_all_and_leaves_nothing_behind(desk):
    """All rows, in chunks by several workers; no checkpoint and no marker stays."""
    result = desk.run("backfill", "big", "-o", "json", "--workers", "4")
    assert result.code == 0
    assert result.document["rows"]["written"] == ROWS
    assert result.document["chunks"] == {"total": 60, "done": 60, "retried": 0}
    assert result.document["resumed"] is False
    assert holds_every_row(desk.world)
    assert desk.world.state() == set()


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_backfill_goes_on_where_it_was(desk, seed):
    """SIGKILL at a random moment, then the rest: together every row, and at most a chunk a worker twice."""
    chance = random.Random(seed)
    process = desk.start("backfill", "big", "-o", "json", "--workers", "2", "--rate", "20000")
    wait_for_checkpoint(desk.world)
    wait_for_hashes(desk.world, chance.randrange(25_000))
    process.kill()
    process.communicate()
    saved = checkpoint(desk.world)
    there = len(desk.world.hashes())
    result = desk.run("backfill", "big", "-o", "json", "--workers", "2")
    assert result.code == 0
    assert result.document["resumed"] is bool(saved)
    assert holds_every_row(desk.world)
    assert result.document["rows"]["written"] + there <= ROWS + 2 * 1000
    assert checkpoint(desk.world) is None


def test_a_stopped_backfill_saves_what_is_loaded(desk):
    """SIGTERM: exit 143 in time, the checkpoint is there, and the next run loads the rest."""
    process = desk.start("backfill", "big", "-o", "json", "--rate", "5000")
    wait_for_checkpoint(desk.world)
    process.send_signal(signal.SIGTERM)
    stopped = finish(process)
    first = stopped.document
    assert (stopped.code, first["status"]) == (143, "stopped")
    second = desk.run("backfill", "big", "-o", "json").document
    assert second["resumed"]
    assert first["rows"]["written"] + second["rows"]["written"] == ROWS
    assert holds_every_row(desk.world)


@pytest.fixture
def half(desk):
    """A backfill that was stopped in the middle."""
    process = desk.start("backfill", "big", "-o", "json", "--rate", "5000")
    try:
        wait_for_checkpoint(desk.world)
    finally:
        process.kill()
        process.communicate()
    return desk


def test_a_changed_plan_is_refused_with_the_reason(half):
    """What was loaded under another plan is not the rest of this one; --restart begins anew."""
    half.write({"big": {"table": "big", "chunk_rows": 1000, "nulls": "empty"}})
    refused = half.run("backfill", "big")
    assert refused.code == 2
    assert "checkpoint of another plan: nulls was 'omit' and is 'empty'" in refused.err
    assert "--restart" in refused.err
    result = half.run("backfill", "big", "--restart", "-o", "json")
    assert (result.code, result.document["resumed"], result.document["rows"]["written"]) == (0, False, ROWS)


def test_a_changed_column_is_refused(half):
    """The types of the columns are part of the plan."""
    half.world.sql("ALTER TABLE big MODIFY name varchar(50) NOT NULL")
    refused = half.run("backfill", "big")
    assert refused.code == 2
    assert "column types was" in refused.err


def test_another_table_of_the_name_is_refused(half):
    """The rest of a table that was put into the place of the one that was begun is not the rest of that."""
    world, created = half.world, checkpoint(half.world)["facts"]["created"]
    while str(world.sql("SELECT UTC_TIMESTAMP()")[0][0]) <= created.removesuffix(" UTC"):
        time.sleep(0.05)  # MySQL tells it to the second
    world.sql("CREATE TABLE other LIKE big", "DROP TABLE big", "RENAME TABLE other TO big")
    refused = half.run("backfill", "big")
    assert refused.code == 2
    assert "the table was altered, rebuilt or replaced" in refused.err


def test_an_emptied_master_starts_over(half):
    """A marker that is gone tells that rows are gone: nothing is skipped, and nobody has to ask for it."""
    saved = checkpoint(half.world)
    half.world.redis.delete(saved["markers"][-1])
    result = half.run("backfill", "big", "-o", "json")
    assert (result.code, result.document["resumed"], result.document["rows"]["written"]) == (0, False, ROWS)
    assert "the target was emptied since the checkpoint" in result.err


def test_a_checkpoint_of_another_version_is_refused(half):
    """What it means may have changed."""
    saved = checkpoint(half.world)
    half.world.redis.set("loader:{big}:checkpoint", json.dumps(saved | {"version": saved["version"] + 1}))
    refused = half.run("backfill", "big")
    assert refused.code == 2
    assert "cannot be read (another version wrote it)" in refused.err


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99}', '{"version": 1}', "null", "\x00\xff"])
def test_a_broken_checkpoint_is_refused(desk, text):
    """A checkpoint that this program did not write is named, not guessed at."""
    desk.world.redis.set("loader:{big}:checkpoint", text)
    refused = desk.run("backfill", "big")
    assert refused.code == 2
    assert "the checkpoint loader:{big}:checkpoint cannot be read" in refused.err
    assert "--restart" in refused.err


def test_a_rate_holds_for_all_workers_together(desk):
    """`--rate`: so many rows a second, whoever reads them."""
    started = time.monotonic()
    result = desk.run("sync", "big", "-o", "json", "--rate", "30000", "--workers", "3")
    assert result.document["rows"]["written"] == ROWS
    assert time.monotonic() - started >= 1.9


def test_a_run_waits_while_mysql_is_busy(desk):
    """`--max-load`: above the limit nothing is read, and the progress says why."""
    settings = desk.world.config(table="big", chunk_rows=100)
    job = settings.jobs["job"]

    class Enough(Exception):
        pass

    class Hasty(Ear):
        def notify(self, event):
            super().notify(event)
            if self.throttle.busy:
                reasons.append(self.throttle.reason)
                raise Enough

    reasons = []
    with pytest.raises(Enough):
        run_job(settings, job, Options(max_load=("Threads_connected", 0)), Hasty())
    assert reasons[0].startswith("--max-load Threads_connected=0: it is ")
    ear = Ear()
    run = run_job(settings, job, Options(max_load=("Threads_connected", 10_000)), ear)
    assert (run.status, run.written) == ("ok", ROWS)
    assert sum(isinstance(event, ChunkLoaded) for event in ear.events) == 600


def test_shards_divide_the_table(desk):
    """The shards of N together are the table, none has a row of another."""
    counts = [
        desk.run("sync", "big", "-o", "json", "--shard", f"{part}/3").document["rows"]["written"] for part in (1, 2, 3)
    ]
    assert sum(counts) == ROWS
    assert min(counts) > ROWS / 4
    assert holds_every_row(desk.world)


@pytest.mark.parametrize("words", [("--shard", "0/3"), ("--shard", "4/3"), ("--max-load", "x"), ("--workers", "0")])
def test_options_that_are_none(desk, words):
    """Each is a usage error."""
    assert desk.run("backfill", "big", *words).code == 2


def test_a_slow_node_is_spared_and_named(monkeypatch):
    """The reason that workers wait is the slow node, for as long as it took."""
    clock = Clock()
    monkeypatch.setattr("loader.pipeline.throttle.time", clock)
    throttle = Throttle()
    assert throttle.reason == ""
    throttle.spare("127.0.0.1:7001", 0.3)
    assert throttle.reason == "127.0.0.1:7001 took 0.3 s to reply"
    throttle.pace(1)
    assert clock.now == pytest.approx(1000.3)
    clock.sleep(0.001)
    assert throttle.reason == ""


def test_a_rate_is_neither_more_nor_less(monkeypatch):
    """So many rows take so long, whatever the parts that they come in."""
    clock = Clock()
    monkeypatch.setattr("loader.pipeline.throttle.time", clock)
    throttle = Throttle(rate=1000)
    for rows in (100, 400, 0, 1500, 1):
        throttle.pace(rows)
    assert clock.now == pytest.approx(1002.0)


def test_a_backfill_that_cannot_fit_does_not_begin(desk, tmp_path):
    """Less room below `maxmemory` than the rows need: refused with the figures; rows that are there count."""
    with redis_server(tmp_path, "--maxmemory", "4mb") as port, redis.Redis(HOST, port) as client:
        desk.write({"big": {"table": "big"}}, target={"url": f"redis://{HOST}:{port}", "password": ""})
        refused = desk.run("backfill", "big")
        assert (refused.code, client.keys("big*")) == (1, [])
        assert "bytes are needed and" in refused.err
        assert "left below maxmemory: raise maxmemory" in refused.err
        client.config_set("maxmemory", 0)
        assert desk.run("backfill", "big").code == 0
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 2_000_000)
        assert desk.run("backfill", "big").code == 0


def test_r1_out_of_memory_is_waited_out(desk, tmp_path):
    """OOM: nothing is lost and nothing skipped; the run says what it waits for, and ends once there is room."""
    with redis_server(tmp_path, "--maxmemory", "4mb") as port, redis.Redis(HOST, port) as client:
        desk.write(
            {"big": {"table": "big", "chunk_rows": 5000}}, target={"url": f"redis://{HOST}:{port}", "password": ""}
        )
        running = Running(desk.start("--log-format", "json", "sync", "big", "-o", "json", "--progress", "log"))
        refused = "OOM command not allowed"
        wait(lambda: any(refused in str(line) for line in list(running.lines)), "the reason")
        assert running.process.poll() is None
        client.config_set("maxmemory", 0)
        done = json.loads(running.process.stdout.read())
        running.finish()
        assert (running.process.returncode, done["rows"]["written"], len(client.keys("big*"))) == (0, ROWS, ROWS)


def test_a_reject_is_told_of_until_it_is_written(desk):
    """A row that was refused before the kill is still a reject of the run that goes on: exit 3, counted and named."""
    desk.world.redis.rpush("big_7", "foreign")
    process = desk.start("backfill", "big", "-o", "json", "--rate", "5000", "--workers", "1")
    wait_for_checkpoint(desk.world)
    process.kill()
    process.communicate()
    result = desk.run("backfill", "big")
    assert result.code == 3
    assert "1 rejected" in result.out
    assert "rejected big_7: WRONGTYPE" in result.out


@pytest.mark.parametrize("change", [{"time_zone": "+09:00"}, {"url": "test"}])
def test_a_changed_source_is_refused(half, change):
    """The rest of a table comes from the same database, in the same time zone, as its beginning."""
    if "url" in change:
        half.world.sql("CREATE TABLE IF NOT EXISTS test.big LIKE big", "GRANT SELECT ON test.* TO marked@'%'")
        change = {"url": half.mysql(database="test")}
    half.write({"big": {"table": "big", "chunk_rows": 1000}}, source=change)
    refused = half.run("backfill", "big")
    half.world.sql("DROP TABLE IF EXISTS test.big")
    assert refused.code == 2
    assert "checkpoint of another plan" in refused.err


def test_shards_backfill_side_by_side(desk):
    """Each shard has a checkpoint and markers of its own."""
    both = [desk.start("backfill", "big", "-o", "json", "--shard", f"{part}/2") for part in (1, 2)]
    results = [finish(process) for process in both]
    assert [result.code for result in results] == [0, 0]
    assert sum(result.document["rows"]["written"] for result in results) == ROWS
    assert holds_every_row(desk.world)
    assert desk.world.state() == set()


def test_the_pods_of_an_indexed_job(desk):
    """Each takes its shard from its index; one that is killed is started again, and all together load the table."""

    def pod(index, *words):
        return desk.start("backfill", "big", "-o", "json", "--shard", "*/4", *words, JOB_COMPLETION_INDEX=str(index))

    desk.write({"big": {"table": "big", "chunk_rows": 500}})
    victim = pod(2, "--rate", "5000")
    wait(lambda: desk.world.redis.exists("loader:{big}:checkpoint:3/4"), "a checkpoint")
    others = [pod(index) for index in (0, 1, 3)]
    victim.kill()
    victim.communicate()
    assert [finish(process).code for process in others] == [0, 0, 0]
    again = finish(pod(2))
    while again.code == 5:  # as Kubernetes does, until the lock of the killed one has expired
        again = finish(pod(2))

    assert (again.code, again.document["resumed"]) == (0, True)
    assert holds_every_row(desk.world)
    refused = desk.run("backfill", "big", "--shard", "*/4")
    assert (refused.code, "JOB_COMPLETION_INDEX" in refused.err) == (2, True)


@pytest.mark.parametrize("seed", range(5))
def test_p2_stopped_at_any_moment(desk, seed):
    """SIGINT whenever it comes: what one run loaded and what the next loads are together the table, each row once."""
    process = desk.start("backfill", "big", "-o", "json", "--rate", "20000", "--chunk-rows", "500")
    wait_for_checkpoint(desk.world)
    wait_for_hashes(desk.world, random.Random(seed).randrange(25_000))
    process.send_signal(signal.SIGINT)
    first = finish(process)
    assert first.code == 130
    second = desk.run("backfill", "big", "-o", "json", "--chunk-rows", "500")
    assert second.code == 0
    assert first.document["rows"]["written"] + second.document["rows"]["written"] == ROWS
    assert holds_every_row(desk.world)


def test_a_run_waits_for_the_replica(desk):
    """`--max-lag`: while the replica does not follow, no chunk begins; a server that is none is refused."""
    replica = {
        "replica": f"mysql://owner@{HOST}:{desk.world.lab.mysql_port}/test",
        "password": desk.world.lab.owner_password,
    }
    source = {"url": f"mysql://owner@{HOST}:{desk.world.lab.mysql_port}/{desk.world.name}", **replica}
    desk.write({"big": {"table": "big", "chunk_rows": 1000}}, source=source)
    refused = desk.run("sync", "big", "--max-lag", "5")
    assert (refused.code, desk.world.hashes()) == (2, {})
    assert "is not a replica: see source.replica" in refused.err
    change, reset = (
        ("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_USER='nobody'", "RESET SLAVE ALL")
        if desk.world.is_mariadb
        else ("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=1", "RESET REPLICA ALL")
    )
    desk.world.sql(change)
    config, options, reasons = load_config([desk.directory / "loader.yaml"]), Options(max_lag=5), []

    class Waiting(Ear):
        def notify(self, event):
            super().notify(event)
            if event is None and self.throttle.reason:  # a second has passed
                reasons.append(self.throttle.reason)
                options.halt.asked = options.halt.now = True

    try:
        run = run_job(config, config.jobs["big"], options, Waiting())
    finally:
        desk.world.sql(reset)
    assert (run.status, run.read, desk.world.hashes()) == ("stopped", 0, {})
    assert reasons[0] == "--max-lag 5: the replica does not replicate"
    desk.write({"big": {"table": "big"}})
    assert "names no source.replica" in desk.run("sync", "big", "--max-lag", "5").err


@pytest.mark.parametrize("limit", ["No_such_variable=1", "Compression=1"])
def test_a_load_that_cannot_be_measured(desk, limit):
    """Said before anything is read."""
    refused = desk.run("sync", "big", "--max-load", limit)
    assert (refused.code, desk.world.hashes()) == (2, {})
    assert "--max-load: MySQL has no numeric status variable" in refused.err


def test_a_sync_between_two_backfills(half):
    """A plain run leaves the checkpoint and the markers of a backfill alone, however it ends."""
    assert half.run("sync", "big", "--where", "id < 3").code == 0
    stopped = half.start("sync", "big", "--rate", "1000")
    wait(lambda: half.world.redis.exists("loader:{big}:lock"), "the lock")
    stopped.send_signal(signal.SIGTERM)
    assert finish(stopped).code == 143
    result = half.run("backfill", "big", "-o", "json")
    assert (result.code, result.document["resumed"]) == (0, True)
    assert holds_every_row(half.world)


def test_a_checkpoint_is_void_once_a_run_begins_anew(half):
    """A master was emptied: the new markers must not vouch for the old checkpoint if this run is killed at once."""
    client = half.world.redis
    holder = client.get_node_from_key("loader:{big}:checkpoint")
    other = next(node for node in client.get_primaries() if node != holder)
    client.flushall(target_nodes=[other])
    process = half.start("backfill", "big", "--rate", "1", "--progress", "none")
    wait(lambda: client.keys("loader:*", target_nodes=[other]), "the new markers")
    process.kill()
    process.communicate()
    assert checkpoint(half.world) is None
    result = half.run("backfill", "big", "-o", "json")
    assert (result.code, result.document["resumed"]) == (0, False)
    assert holds_every_row(half.world)
