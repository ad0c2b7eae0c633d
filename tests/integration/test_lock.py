"""One run per job: who holds the lock, who is refused, who takes over, and who has to stop."""

import itertools
import json
import socket
import threading
import time

import pytest
import redis

from loader.config.load import Config
from loader.config.servers import TargetConfig
from loader.errors import LoaderError
from loader.jobs import prune
from loader.jobs.rows import JobRows
from loader.lab.process import wait
from loader.model import ChunkLoaded
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from loader.redis.client import RedisClient
from loader.state.checkpoint import StateStore
from loader.state.lock import Lock
from loader.wire.slots import slot_of
from support.command import redis_server
from support.database import Ear
from support.tables import desk_of_big, table

KEY = "loader:{job}:lock"


@pytest.fixture
def big_desk(world, tmp_path):
    return desk_of_big(world, tmp_path)


@pytest.fixture
def target(world):
    with RedisClient(settings(world)) as target:
        yield target


def settings(world):
    config: Config = world.config(table="t")
    target: TargetConfig = config.target
    return target


def lock_of(world, run="one", shard=None):
    return Lock(settings(world), "job", run, shard)


def holder(world):
    return {part.decode(): json.loads(text) for part, text in world.redis.hgetall(KEY).items()}


def test_the_second_is_refused_and_told_who_has_it(world, target):
    """The lock is one run's until it lets it go; exit code 5."""
    first = lock_of(world)
    first.take(target)
    with pytest.raises(LoaderError, match="locked by run one") as caught:
        lock_of(world, "two").take(target)
    assert caught.value.exit_code == 5
    assert f"host {socket.gethostname()}" in str(caught.value)
    assert "lock expires in 30 s" in str(caught.value)
    first.drop(target)
    lock_of(world, "two").take(target)
    assert holder(world)["1/1"]["run"] == "two"


def test_shards_of_one_number_go_side_by_side(world, target):
    """Different shards do not share a row; anything else does."""
    lock_of(world, "a", (1, 3)).take(target)
    lock_of(world, "b", (2, 3)).take(target)
    for shard in ((1, 3), (2, 2), (3, 4), None):
        with pytest.raises(LoaderError, match="locked by run"):
            lock_of(world, "c", shard).take(target)
    assert set(holder(world)) == {"1/3", "2/3"}


def test_p11_a_dead_owner_on_this_machine_is_taken_over_at_once(world, target):
    """The pid of the holder is free, or is another process's now."""
    lock_of(world, "dead").take(target)
    entry = holder(world)["1/1"]
    for change in ({"pid": 2**22 + 1}, {"started": 1}):
        world.redis.hset(KEY, "1/1", json.dumps(entry | change))
        lock_of(world, "heir").take(target)
        assert holder(world)["1/1"]["run"] == "heir"


@pytest.mark.parametrize("change", [{"world": "another boot"}, {"world": ""}, {}])
def test_an_owner_that_may_live_is_not_taken_over(world, target, change):
    """Another machine, another namespace, or a process that lives: its lock has to end."""
    lock_of(world, "first").take(target)
    entry = holder(world)["1/1"] | change
    if change:
        entry |= {"pid": 2**22 + 1}
    world.redis.hset(KEY, "1/1", json.dumps(entry))
    with pytest.raises(LoaderError, match="locked by run first"):
        lock_of(world, "second").take(target)


def test_a_lock_ends_by_itself(world, target, monkeypatch):
    """Not renewed for its time: the next may have it, and the first may not write any more."""
    now = [time.monotonic()]
    monkeypatch.setattr("loader.state.lock._now", lambda: now[0])
    monkeypatch.setattr("loader.state.lock.TTL", 0.3)
    first = lock_of(world)
    first.take(target)
    assert first.lapsed() is None
    now[0] += 0.4
    assert "has not been renewed" in str(first.lapsed())
    wait(lambda: not world.redis.exists(KEY), "the end of the lock")
    lock_of(world, "second").take(target)


def test_a_lock_is_renewed_and_taken_again_if_nobody_has_it(world, target, monkeypatch):
    """Renewal goes on; a lock that was lost with its key is simply taken again."""
    monkeypatch.setattr("loader.state.lock.RENEW", 0.1)
    lost = []
    first = lock_of(world)
    first.take(target)
    first.keep(lost.append)
    for _ in range(3):
        world.redis.pexpire(KEY, 20_000)
        wait(lambda: world.redis.pttl(KEY) > 25_000, "a renewal")
    assert first.lapsed() is None
    world.redis.delete(KEY)
    wait(lambda: world.redis.exists(KEY), "the lock to be taken again")
    assert (first.lapsed(), holder(world)["1/1"]["run"], lost) == (None, "one", [])
    world.redis.hset(KEY, "1/1", json.dumps(holder(world)["1/1"] | {"token": "other", "run": "thief"}))
    wait(lambda: lost, "the loss")
    (error,) = lost
    assert (error.exit_code, "lost the lock" in str(error)) == (5, True)
    assert first.lapsed() is error
    first.drop(target)
    assert holder(world)["1/1"]["run"] == "thief"


def test_an_owner_whom_proc_does_not_show_is_not_taken_over(world, target, monkeypatch):
    """Where /proc hides the processes of others, a signal tells that there is one."""
    lock_of(world, "first").take(target)

    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr("os.kill", forbidden)
    monkeypatch.setattr("loader.process.start_time", lambda _: None)
    with pytest.raises(LoaderError, match="locked by run first"):
        lock_of(world, "second").take(target)


def test_a_run_may_take_its_own_lock_again(world, target):
    """A first grant whose answer was lost, or a drop that did not arrive, locks no run out of its own job."""
    lock_of(world, "one").take(target)
    lock_of(world, "one").take(target)


def test_the_lock_of_a_run_of_this_process_that_is_over(world, target, monkeypatch):
    """It could not let its lock go, as Redis was away: the next run takes it over, and never that of one under way."""
    first = lock_of(world, "one")
    first.take(target)
    with pytest.raises(LoaderError, match="locked by run one"):
        lock_of(world, "two").take(target)
    with monkeypatch.context() as patch:
        patch.setattr(target, "ask", lambda *_: (None, None))
        first.drop(target)
    assert holder(world)["1/1"]["run"] == "one"
    lock_of(world, "two").take(target)
    assert holder(world)["1/1"]["run"] == "two"


def test_a_full_redis_lets_the_lock_be_renewed(tmp_path):
    """Renewing takes no memory: who waits for room keeps the lock."""
    with redis_server(tmp_path) as port, redis.Redis("127.0.0.1", port) as client:
        alone = TargetConfig(url=f"redis://127.0.0.1:{port}")
        with RedisClient(alone) as target:
            held = Lock(alone, "job", "one")
            held.take(target)
            client.hset(KEY, "1/1", json.dumps(json.loads(client.hget(KEY, "1/1")) | {"until": 0}))  # as after its time
            client.pexpire(KEY, 20_000)
            client.config_set("maxmemory", 1)
            held.take(target)
            assert client.pttl(KEY) > 25_000
            assert held.lapsed() is None
            with pytest.raises(LoaderError, match="locked by run one"):
                Lock(alone, "job", "two").take(target)


def test_shards_that_join_keep_each_others_time(world, target):
    """A lock that was renewed without writing is as long for one who comes beside it."""
    first = lock_of(world, "a", (1, 2))
    first.take(target)
    world.redis.hset(KEY, "1/2", json.dumps(holder(world)["1/2"] | {"until": 0}))  # as after its time
    first.take(target)
    lock_of(world, "b", (2, 2)).take(target)
    with pytest.raises(LoaderError, match="locked by run a"):
        lock_of(world, "c", (1, 2)).take(target)


@pytest.mark.parametrize("value", ["garbage", None])
def test_a_lock_that_is_none(world, target, value):
    """Said with the key, and what to do."""
    if value:
        world.redis.hset(KEY, "1/1", value)
    else:
        world.redis.set(KEY, "x")
    with pytest.raises(LoaderError, match=r"loader:\{job\}:lock .* this program .*: `DEL loader:\{job\}:lock`"):
        lock_of(world).take(target)


def test_a_lock_that_is_lost_amid_a_prune(world, monkeypatch):
    """It ends at once, with exit code 5, and deletes nothing more."""
    table(world, 100)
    config = world.config(table="t")
    run_job(config, config.jobs["job"], Options(), Ear())
    world.sql("DELETE FROM t")
    monkeypatch.setattr("loader.state.lock.RENEW", 0.1)
    without_row = JobRows.without_row

    def steal(self, keys, **how):
        entry = holder(world)["1/1"] | {"token": "other", "run": "thief", "world": "elsewhere"}
        world.redis.hset(KEY, "1/1", json.dumps(entry))
        wait(lambda: self.session.throttle.lapsed() is not None, "the loss")
        return without_row(self, keys, **how)

    monkeypatch.setattr(JobRows, "without_row", steal)
    with pytest.raises(LoaderError, match="lost the lock") as caught:
        prune.prune(config, config.jobs["job"], prune.Pruned("job"), max_delete=100)
    assert caught.value.exit_code == 5
    assert len(world.hashes()) == 100


def test_x1_two_runs_of_a_job(big_desk):
    """The second ends at once with exit code 5 and has written nothing; when the first was killed, the third runs."""
    first = big_desk.start("sync", "big", "--rate", "100")  # ten minutes
    wait(lambda: big_desk.world.redis.exists("loader:{big}:lock"), "the lock")
    for words in ("sync", "backfill", "prune", "verify --repair", "rejects retry"):
        second = big_desk.run(*words.split(), "big")
        assert (second.code, "locked by run" in second.err) == (5, True), second
        assert first.poll() is None  # its end was not waited for
    first.kill()
    first.communicate()
    third = big_desk.run("sync", "big", "-o", "json")
    assert (third.code, third.document["rows"]["written"]) == (0, 60_000)
    assert big_desk.world.state() == set()


def test_who_left_its_lock_without_a_word_is_shut_out(world, target):
    """What its connections may still have under way is forgotten before the next run writes."""
    with RedisClient(settings(world)) as dead:
        lock_of(world, "dead").take(dead)
        nodes = dead.slots.nodes
        for node in nodes:
            dead.command(node, "PING")
        world.redis.hset(KEY, "1/1", json.dumps(holder(world)["1/1"] | {"pid": 2**22 + 1}))
        lock_of(world, "heir").take(target)
        for node in nodes:
            with redis.Redis(node.host, node.port) as client:
                assert dead.name not in str(client.client_list())


def test_a_run_that_left_something_under_way_stays_fenced(world, target):
    """Whoever takes the lock later has to shut it out."""
    first, fence = lock_of(world), "loader:{job}:fence"
    first.take(target)
    assert world.redis.hkeys(fence) == [b"one"]
    first.drop(target)
    assert world.redis.hkeys(fence) == []
    first = lock_of(world)
    first.take(target)
    away = next(node for node in target.slots.nodes if node != target.slots.node_of(slot_of(KEY.encode())))
    target.fences.add(away, f"{target.name}-77")
    first.drop(target)
    assert (holder(world), world.redis.hkeys(fence)) == ({}, [b"one"])


def is_still(world):
    """Whether nothing arrives for a while."""
    before = len(world.hashes())
    time.sleep(0.5)
    return len(world.hashes()) == before


def test_x1_an_owner_that_slept_too_long_stops(world, monkeypatch):
    """Its clock has passed the end of its lock, and another run has it: no further row is written, exit code 5."""
    table(world, 10_000)
    config = world.config(table="t", chunk_rows=100)
    written = []

    class Sleep(Ear):
        def notify(self, event):
            super().notify(event)
            if len(self.events) == 10:
                monkeypatch.setattr("loader.state.lock._now", lambda: time.monotonic() + 100_000)
                entry = holder(world)["1/1"] | {"token": "other", "run": "thief", "world": "elsewhere"}
                world.redis.hset(KEY, "1/1", json.dumps(entry))
                wait(lambda: is_still(world), "what is under way to arrive")
                written.append(len(world.hashes()))

    run = run_job(config, config.jobs["job"], Options(rate=5000), Sleep())
    assert (run.status, run.exit_code) == ("failed", 5)
    assert "lost the lock" in run.error
    assert "run thief" in run.error
    assert len(world.hashes()) == written[0] < 10_000


def test_rows_that_were_read_before_the_lock_lapsed_are_not_written(world, monkeypatch):
    """The process sleeps between reading and sending, and another run has come and gone: the chunk is read anew."""
    table(world, 100)
    config = world.config(table="t")
    slept = []

    def sleep(self, seconds, *_):
        if not slept:
            slept.append(seconds)
            monkeypatch.setattr("loader.state.lock._now", lambda: time.monotonic() + 100_000)
            world.redis.delete(KEY)
            world.sql("UPDATE t SET v = 1000")
            wait(lambda: world.redis.exists(KEY), "the lock to be taken again")

    monkeypatch.setattr("loader.state.lock.RENEW", 0.1)
    monkeypatch.setattr("loader.pipeline.throttle.Throttle.sleep", sleep)
    ear = Ear()
    run = run_job(config, config.jobs["job"], Options(rate=10**6, workers=1), ear)
    assert (run.status, run.written, run.chunks_retried) == ("ok", 100, 1), run.error
    assert {fields[b"v"] for fields in world.hashes().values()} == {b"1000"}


def test_a_pause_that_nobody_used_is_survived(world, monkeypatch):
    """The lock lapsed and is free: it is taken again, the chunk is read anew, and the run ends well."""
    table(world, 5000)
    config = world.config(table="t", chunk_rows=100)
    slept = []

    class Sleep(Ear):
        def notify(self, event):
            super().notify(event)
            if len(self.events) == 10 and not slept:
                slept.append(monkeypatch.setattr("loader.state.lock._now", lambda: time.monotonic() + 100_000))
                world.redis.delete(KEY)

    run = run_job(config, config.jobs["job"], Options(rate=5000), Sleep())
    assert slept
    assert (run.status, run.written) == ("ok", 5000), run.error


def test_a_master_emptied_amid_a_run(world):
    """Markers are gone: the run begins again by itself, and at its end every row is there."""
    table(world, 10_000)
    config = world.config(table="t", chunk_rows=500)
    ear, begun = Ear(), itertools.count(1)
    emptied = threading.Event()

    class Flush(Ear):
        def expect(self, rows, throttle):
            admit = throttle.admit

            def admitted():  # half of the chunks are left for after
                if next(begun) > 10:
                    assert emptied.wait(60)
                admit()

            throttle.admit = admitted

        def notify(self, event):
            ear.notify(event)
            if sum(isinstance(each, ChunkLoaded) for each in ear.events) == 8 and not emptied.is_set():
                world.redis.flushall(target_nodes=[world.redis.get_primaries()[0]])
                emptied.set()

    run = run_job(config, config.jobs["job"], Options(), Flush())
    assert emptied.is_set()
    assert (run.status, run.read, run.written) == ("ok", 10_000, 10_000), run.error
    assert len(world.hashes()) == 10_000
    assert any("markers are gone" in str(event) for event in ear.events)
    assert world.state() == set()


def test_a_run_whose_markers_stay_lets_its_lock_go(world, monkeypatch):
    """Where Redis refuses for good to forget them, the run has failed and says so; its lock is free."""
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    config = world.config(table="t")

    def refuse(*_):
        raise LoaderError("no")

    with monkeypatch.context() as patched:
        patched.setattr(StateStore, "forget", refuse)
        failed = run_job(config, config.jobs["job"], Options(), Ear())

    assert (failed.exit_code, failed.error) == (1, "no")
    assert holder(world) == {}
    assert run_job(config, config.jobs["job"], Options(), Ear()).exit_code == 0
