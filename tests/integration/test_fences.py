"""What was sent under a lock that was lost: it does not land over what another run has written since."""

import json
import signal
import subprocess
import sys
import threading

import pytest
import redis

import loader.redis.fences
from loader.config.load import Config
from loader.errors import Kind, LoaderError
from loader.jobs import session
from loader.jobs.prune import Pruned, prune
from loader.jobs.rejects import retry
from loader.jobs.verify import verify
from loader.lab.process import wait
from loader.model import ChunkLoaded, Notice
from loader.pipeline.job_context import JobContext
from loader.pipeline.lost_chunks import LostChunks
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from loader.pipeline.worker import ChunkWorker
from loader.redis.client import RedisClient
from loader.redis.connections import FORGET
from loader.redis.sockets import NodePool
from loader.state.baseline import Baselines
from loader.state.lock import Lock
from loader.state.markers import Markers
from support.command import HOST, redis_server
from support.database import Ear, standalone_config
from support.faults import Load
from support.proxy import UP, Proxy
from support.tables import table

LOCK, FENCE = "loader:{job}:lock", "loader:{job}:fence"
IMPATIENT = "from loader.state import lock; lock.TTL = 3.0; lock.RENEW = 0.3; from loader.cli.main import main; main()"


@pytest.fixture
def alone(tmp_path):
    """A plain client of a standalone Redis, and its port."""
    (tmp_path / "alone").mkdir()
    with redis_server(tmp_path / "alone") as port, redis.Redis(HOST, port) as client:
        yield client, port


def told(load, text):
    return any(text in event.text for event in load.ear.events if isinstance(event, Notice))


def values(world):
    return {fields[b"v"] for fields in world.hashes().values()}


def steal(world, run="thief"):
    """Have another run hold the lock, as it is after a failover that forgot it."""
    entry = {"token": run, "run": run, "host": "elsewhere", "pid": 1, "world": "elsewhere", "since": "", "until": 2**50}
    world.redis.hset(LOCK, "1/1", json.dumps(entry))


def test_rows_under_way_when_the_lock_is_lost_are_read_again(world, alone, monkeypatch):
    """They land behind another run's, which is over by then: asked after the acknowledgement, the chunk is repeated."""
    client, port = alone
    table(world, 50)
    with Proxy(port) as proxy:
        settings = standalone_config(world, target=proxy.port)
        proxy.reset(hold=(UP, b"HMSET"))
        load = Load(settings, workers=1)
        wait(lambda: any(way.held for way in list(proxy._ways.values())), "rows to be under way")
        world.sql("UPDATE t SET v = 1000")
        run = run_job(standalone_config(world, target=port), settings.jobs["job"], Options(), Ear())
        assert run.exit_code == 5  # the lock is held
        monkeypatch.setattr("loader.state.lock.RENEW", 0.1)
        client.delete(LOCK, FENCE)
        grants = load.ear.throttle.grant()
        monkeypatch.setattr("loader.state.lock._now", lambda: 10.0**9)
        wait(lambda: load.ear.throttle.grant() > grants, "the lock to be taken again")
        monkeypatch.undo()
        proxy.release()
        run = load.finish()
    assert run.status == "ok"
    assert {client.hget(key, "v") for key in client.scan_iter("t_*")} == {b"1000"}


def test_bytes_that_no_socket_took_yet_are_not_sent(world, alone, monkeypatch):
    """While a node takes nothing, the lock lapses: what is left of a batch is asked for before it is sent."""
    _, port = alone
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v longtext)", "INSERT INTO t VALUES (1, REPEAT('a', 20000000))")
    settings = standalone_config(world, target=port)
    lapse = []

    def move(self, link, *, receive=True):
        if link.unsent and len(link.unsent[0]) < 20_000_000 and not lapse:
            lapse.append(len(link.unsent[0]))
            monkeypatch.setattr("loader.state.lock._now", lambda: 10.0**9)
        before = sum(map(len, link.unsent))
        try:
            return original(self, link, receive=receive)
        finally:
            if lapse and load.ear.throttle.lapsed():
                assert sum(map(len, link.unsent)) == before

    original = NodePool._move
    monkeypatch.setattr(NodePool, "_move", move)
    load = Load(settings, workers=1)
    wait(lambda: load.reasons or not load.running, "the chunk to fail")
    monkeypatch.undo()
    run = load.finish()
    assert (run.status, run.chunks_retried) == ("ok", 1), run.error


@pytest.mark.parametrize("gone", [(LOCK,), (LOCK, FENCE)], ids=["lock", "both"])
@pytest.mark.parametrize("kind", [{}, {"changed_only": True}, {"incremental": {"column": "at", "lag": "1s"}}])
def test_a_lock_that_goes_while_its_holder_lives(world, kind, gone, monkeypatch):
    """Evicted, or deleted by hand: another run has it meanwhile, and what the first one wrote since is written again.

    Or the first one says that it is not ok. The other run's baseline does not stand where the first may have written.
    """
    table(world, 5000)
    stamp = "TIMESTAMP NOT NULL DEFAULT '2020-01-01' ON UPDATE CURRENT_TIMESTAMP"
    world.sql(f"ALTER TABLE t ADD COLUMN at {stamp}, ADD INDEX (at)")
    settings = world.config(table="t", chunk_rows=100, key="t_{id}", **kind)
    load = Load(settings, rate=1000)
    load.reach(500)
    for key in gone:
        world.redis.delete(key)
    world.sql("UPDATE t SET v = 1000")
    other = Load(settings)
    second = other.finish()
    first = load.finish()
    assert {first.status, second.status} <= {"ok", "failed"}
    assert "ok" in {first.status, second.status}
    for each in (first, second):
        assert each.exit_code in {0, 5}, each.error
    if first.status == "ok":
        assert told(load, "another run may have had it") or first.starts > 1
    assert values(world) == {b"1000"}
    world.sql("UPDATE t SET v = 2000 WHERE id <= 10")
    again = Load(settings).finish()
    assert again.status == "ok"
    assert values(world) == {b"1000", b"2000"}


def test_chunks_written_while_another_run_may_have_had_the_lock(world, monkeypatch):
    """They are owed again once the lock is found to have been gone, though nobody took it; the baseline is void."""
    table(world, 3000)
    monkeypatch.setattr("loader.state.lock.RENEW", 0.5)
    settings = world.config(table="t", chunk_rows=100, key="t_{id}", changed_only=True)
    load = Load(settings, rate=500)
    load.reach(300)
    world.redis.delete(LOCK)
    wait(lambda: told(load, "written again: the lock was lost"), "chunks to be owed again")
    run = load.finish()
    assert (run.status, run.written, len(world.hashes())) == ("ok", 3000, 3000)
    with RedisClient(settings.target) as target:
        left = Baselines(target, "job").read()
        assert left is None or left.void


def test_a_lock_that_went_since_its_last_renewal(world, monkeypatch):
    """It is asked for once more when all is written: what was written meanwhile is written again."""
    table(world, 300)
    settings = world.config(table="t", chunk_rows=100)
    loaded = ChunkWorker.load

    def load_and_lose(self, chunk, notify):
        event = loaded(self, chunk, notify)
        if chunk.number == 2:
            monkeypatch.undo()
            world.redis.delete(LOCK)
        return event

    monkeypatch.setattr(ChunkWorker, "load", load_and_lose)
    load = Load(settings, workers=1)
    run = load.finish()
    assert (run.status, run.written, run.chunks_retried > 0) == ("ok", 300, True)
    assert told(load, "written again: the lock was lost")


def test_a_lock_lost_to_another_run_voids_its_baseline(world, monkeypatch):
    """Whatever stands there, this run may have written over it."""
    table(world, 3000)
    settings = world.config(table="t", chunk_rows=100, key="t_{id}", changed_only=True)
    assert run_job(settings, settings.jobs["job"], Options(), Ear()).status == "ok"
    monkeypatch.setattr("loader.state.lock.RENEW", 0.1)
    load = Load(settings, rate=500, full=True)
    load.reach(300)
    steal(world)
    run = load.finish()
    assert (run.status, run.exit_code) == ("failed", 5)
    with RedisClient(settings.target) as target:
        assert Baselines(target, "job").read().void
    world.redis.delete(LOCK)


def test_p11_two_dead_holders(world):
    """Both shards of a job were killed: the next run takes both over at once."""
    with RedisClient(world.config(table="t").target) as target:
        for number in (1, 2):
            Lock(world.config(table="t").target, "job", f"shard{number}", (number, 2)).take(target)
        for part in ("1/2", "2/2"):
            entry = json.loads(world.redis.hget(LOCK, part))
            world.redis.hset(LOCK, part, json.dumps(entry | {"pid": 2**22 + 1}))
        heir = Lock(world.config(table="t").target, "job", "heir")
        heir.take(target)
        assert set(world.redis.hgetall(LOCK)) == {b"1/1"}
        assert set(world.redis.hgetall(FENCE)) == {b"heir"}
        heir.drop(target)
        assert not world.redis.exists(FENCE)


def names(world):
    return {each["name"].rpartition("-")[0] for node in world.redis.get_primaries() for each in clients(node)}


def clients(node):
    with redis.Redis(node.host, node.port) as client:
        return client.client_list()


def test_who_takes_a_lock_over_closes_the_connections_of_its_holder(world):
    """On every master, before anything else; the fence is taken away once all have done so."""
    settings = world.config(table="t").target
    with RedisClient(settings) as dead, RedisClient(settings) as living:
        Lock(settings, "job", "dead").take(dead)
        links = [dead.open(node) for node in dead.slots.nodes]
        assert world.redis.hgetall(FENCE) == {b"dead": dead.name.encode()}
        world.redis.delete(LOCK)
        assert dead.name in names(world)
        heir = Lock(settings, "job", "heir")
        heir.take(living)
        assert dead.name not in names(world)
        assert set(world.redis.hgetall(FENCE)) == {b"heir"}
        heir.drop(living)
        for connection, *_ in links:
            connection.disconnect()


def test_a_live_shard_is_not_shut_out(world):
    """Only who holds no lock is."""
    settings = world.config(table="t").target
    with RedisClient(settings) as one, RedisClient(settings) as other:
        first, second = Lock(settings, "job", "one", (1, 2)), Lock(settings, "job", "two", (2, 2))
        first.take(one)
        second.take(other)
        assert {one.name, other.name} <= names(world)
        assert set(world.redis.hgetall(FENCE)) == {b"one", b"two"}
        first.drop(one)
        assert set(world.redis.hgetall(FENCE)) == {b"two"}
        second.drop(other)


def test_who_leaves_something_under_way_stays_on_the_fence(world):
    """The lock is free, but a command may still be carried out: whoever comes next shuts it out first."""
    settings = world.config(table="t").target
    with RedisClient(settings) as target:
        held = Lock(settings, "job", "one")
        held.take(target)
        target.fences.add(target.slots.nodes[1], f"{target.name}-2")
        held.drop(target)
        assert not world.redis.exists(LOCK)
        assert set(world.redis.hgetall(FENCE)) == {b"one"}
    with RedisClient(settings) as target:
        heir = Lock(settings, "job", "heir")
        heir.take(target)
        assert set(world.redis.hgetall(FENCE)) == {b"heir"}
        heir.drop(target)


def test_a_lock_is_not_held_before_a_replica_knows_it(world, monkeypatch):
    """Else a failover might give it to two: what is raised passes, and is waited for."""
    settings = world.config(table="t").target
    with RedisClient(settings) as target:
        held = Lock(settings, "job", "one")
        with monkeypatch.context() as patch:
            patch.setattr(RedisClient, "ask_known", lambda self, key, *words, **_: (self.ask(key, *words)[1], False))
            for _ in range(2):
                with pytest.raises(LoaderError, match="no replica acknowledged the lock of job 'job'") as caught:
                    held.take(target)
                assert caught.value.kind is Kind.UNREPLICATED
                assert held.lapsed()
        held.take(target)
        assert not held.lapsed()
        held.drop(target)


def test_a_replica_is_asked_whether_it_knows_a_lock_until_one_does(world, monkeypatch):
    """Each renewal only prolongs it; if it was gone meanwhile, a replica has to know of the new one."""
    settings = world.config(table="t").target
    with RedisClient(settings) as target:
        held, ask, waited = Lock(settings, "job", "one"), RedisClient.ask_known, []

        def noted(self, *words, waits):
            waited.append(waits)
            return ask(self, *words, waits=waits)

        monkeypatch.setattr(RedisClient, "ask_known", noted)
        held.take(target)
        held.confirm()
        assert (waited, held.shared) == ([True, False], False)
        world.redis.delete(LOCK)
        held.confirm()
        assert (waited, held.shared) == ([True, False, False, True], True)
        assert not held.release(target)
        assert world.redis.exists(LOCK)
        held.drop(target)
        assert not world.redis.exists(LOCK)


def test_a_lock_is_released_in_one_step_only_by_who_holds_it(world):
    """One that has been lost is left alone, and asked for once more to find out who has it."""
    settings = world.config(table="t").target
    with RedisClient(settings) as target:
        held, own = Lock(settings, "job", "one"), Lock(settings, "own", "two")
        own.take(target)
        assert own.release(target)
        assert own.lapsed()
        assert not world.redis.exists("loader:{own}:lock") + world.redis.exists("loader:{own}:fence")
        held.take(target)
        steal(world)
        assert not held.release(target)
        assert world.redis.exists(LOCK)
        with pytest.raises(LoaderError, match="lost the lock"):
            held.confirm()
        world.redis.delete(LOCK, "loader:{job}:fence")


def test_a_retry_asks_first_whether_the_lock_is_held(world, monkeypatch):
    """A connection that failed may have been closed by who took the lock over: nothing is sent on a new one."""
    table(world, 3000)
    settings = world.config(table="t", chunk_rows=100)
    load = Load(settings, rate=1000, workers=1)
    load.reach(300)
    steal(world)
    for node in world.redis.get_primaries():
        with redis.Redis(node.host, node.port) as client:
            client.client_kill_filter(_type="normal", skipme=True)
    before = len(world.hashes())
    run = load.finish()
    assert run.exit_code == 5
    assert "lost the lock" in run.error
    assert len(world.hashes()) <= before + 100
    world.redis.delete(LOCK)


@pytest.mark.parametrize("command", ["prune", "repair", "retry"])
def test_a_lock_that_is_lost_amid_other_commands(world, monkeypatch, command):
    """What they send is sent under the lock alone, and is not ok where that was lost."""
    table(world, 100)
    settings = world.config(table="t")
    job = settings.jobs["job"]
    assert run_job(settings, job, Options(), Ear()).status == "ok"
    monkeypatch.setattr("loader.state.lock.RENEW", 0.1)
    send, stolen = session.KeyFilterWriter.await_replicas, threading.Event()

    def finish(self):
        found = send(self)
        if not stolen.is_set():
            stolen.set()
            steal(world)
            wait(lambda: target_of(self).guard_fails(), "the loss")
        return found

    def target_of(only):
        class Of:
            @staticmethod
            def guard_fails():
                try:
                    only._target.guard()
                except LoaderError:
                    return True
                return False

        return Of

    monkeypatch.setattr(session.KeyFilterWriter, "await_replicas", finish)
    if command == "prune":
        world.sql("DELETE FROM t WHERE id > 90")
        act = lambda: prune(settings, job, Pruned("job"), max_delete=100)  # noqa: E731
    elif command == "repair":
        world.redis.hset("t_5", "v", "wrong")
        act = lambda: verify(settings, job, repair=True)  # noqa: E731
    else:
        world.redis.hset(
            "loader:{job}:rejects", "t_5", json.dumps({"reason": "no", "first": 1, "last": 1, "attempts": 1})
        )
        act = lambda: retry(settings, job)  # noqa: E731
    with pytest.raises(LoaderError, match="lost the lock") as caught:
        act()
    assert caught.value.exit_code == 5
    assert stolen.is_set()


def start(path, *words):
    """The command, whose lock lapses after three seconds."""
    return subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, "-c", str(path), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("ended", [signal.SIGCONT, signal.SIGKILL])
def test_a_run_that_stood_still_past_its_lock(world, alone, tmp_path, ended):
    """A large row is half sent when the process is stopped; another run writes a newer value and says ok.

    Let go on, or killed, the first one's old value does not land over it.
    """
    client, port = alone
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v longtext)", "INSERT INTO t VALUES (1, REPEAT('o', 40000000))")
    with Proxy(port) as proxy:
        paths = []
        for number, each in enumerate((proxy.port, port)):
            settings: Config = standalone_config(world, target=each)
            path = tmp_path / f"{number}.yaml"
            text = {
                "version": 1,
                "source": {"url": f"mysql://loader@{HOST}:{world.lab.mysql_port}/{world.name}"}
                | {"password": world.lab.password},
                "target": {"url": f"redis://{HOST}:{each}", "timeout": "20s"},
                "jobs": {"job": {"table": "t"}},
            }
            assert settings.jobs.keys() == text["jobs"].keys()
            path.write_text(json.dumps(text))
            paths.append(path)
        proxy.reset(hold=(UP, b"HMSET"))
        first = start(paths[0], "sync", "job", "-o", "json")
        wait(lambda: any(way.held for way in list(proxy._ways.values())), "the row to be under way")
        first.send_signal(signal.SIGSTOP)
        world.sql("UPDATE t SET v = 'new'")
        wait(lambda: not client.exists(LOCK), "the lock to lapse")
        second = start(paths[1], "sync", "job", "-o", "json")
        out, error = second.communicate(timeout=60)
        assert second.returncode == 0, out + error
        assert client.hget("t_1", "v") == b"new"
        proxy.release()
        first.send_signal(ended)
        out, error = first.communicate(timeout=60)
        assert first.returncode in {0, 5, -9}, out + error
        if ended == signal.SIGCONT:
            assert "Traceback" not in error
        assert client.hget("t_1", "v") == b"new"
        wait(lambda: not [way for way in proxy._ways.values() if way.pending], "the proxy to have nothing left")
        assert client.hget("t_1", "v") == b"new"


def test_rejects_of_a_chunk_that_is_owed_again_count_once(world, monkeypatch):
    """A row that Redis refuses, in a chunk that is written again after the lock was lost; in the checkpoint as well."""
    table(world, 1000)
    monkeypatch.setattr("loader.state.lock.RENEW", 0.5)
    settings = world.config(table="t", chunk_rows=100)
    world.redis.set("t_5", "foreign")
    load = Load(settings, rate=200, workers=1, resume=True)
    wait(lambda: any(isinstance(e, ChunkLoaded) for e in load.ear.events), "the first chunk")
    world.redis.delete(LOCK)
    wait(lambda: told(load, "written again: the lock was lost"), "chunks to be owed again")
    counts = set()

    def ended():
        if checkpoint := world.redis.get("loader:{job}:checkpoint"):
            counts.add(json.loads(checkpoint)["rejected"])
        return not load.running

    wait(ended, "the end")
    run = load.finish()
    assert (run.exit_code, run.read, run.written, run.rejected) == (3, 1000, 999, 1)
    assert counts <= {0, 1}
    assert 1 in counts


def renewing_late(monkeypatch):
    """An event before which locks are taken, but not renewed: what is written by then is in doubt if one was gone."""
    begin, ask = threading.Event(), Lock._ask

    def late(self, *args):
        return None if self._renewed and not begin.is_set() else ask(self, *args)

    monkeypatch.setattr(Lock, "_ask", late)
    monkeypatch.setattr("loader.state.lock.RENEW", 0.2)
    return begin


def test_a_chunk_that_is_heard_of_after_the_doubt(world, monkeypatch):
    """It was written before the lock was found to have been gone, and was still on its way to the account."""
    table(world, 300)
    renewing = renewing_late(monkeypatch)
    doubts, chunks = [], []
    take_doubt, load = JobContext.take_doubt, ChunkWorker.load

    def taken(self):
        since = take_doubt(self)
        doubts.append(since)
        return since

    def late(self, chunk, notify):
        event = load(self, chunk, notify)
        chunks.append(chunk.number)
        if len(chunks) == 2:
            world.redis.delete(LOCK)
            renewing.set()
            wait(lambda: any(doubts), "the doubt to be heard of")
            for key in world.hashes():
                world.redis.hset(key, "v", "another run's")
        return event

    monkeypatch.setattr(JobContext, "take_doubt", taken)
    monkeypatch.setattr(ChunkWorker, "load", late)
    run = Load(world.config(table="t", chunk_rows=100, key="t_{id}"), workers=1).finish()
    assert (run.status, run.read, run.written) == ("ok", 300, 300)
    assert chunks.count(2) == 2
    assert b"another run's" not in values(world)


def test_a_lock_that_goes_again_and_again(world, monkeypatch):
    """A full Redis that throws the lock away with every chunk: the run says so, and does not go on for ever."""
    table(world, 300)
    doubts, load = [], ChunkWorker.load

    def taken(self):
        return doubts.pop() if doubts else None

    def again(self, chunk, notify):
        doubts.append(0.0)
        return load(self, chunk, notify)

    monkeypatch.setattr(JobContext, "take_doubt", taken)
    monkeypatch.setattr(ChunkWorker, "load", again)
    run = Load(world.config(table="t"), workers=1).finish()
    assert (run.status, run.exit_code) == ("failed", 1)
    assert "another run may have had it, as 20 times before in this run" in run.error


def test_a_part_of_a_chunk_that_has_grown(world, monkeypatch):
    """It is written whole again where another run may have written over it, before the parts take the chunk's place."""
    table(world, 100)
    renewing = renewing_late(monkeypatch)
    world.sql("UPDATE t SET id = id * 3 ORDER BY id DESC")
    settings = world.config(table="t", chunk_rows=100, key="t_{id}", changed_only=True)
    assert Load(settings).finish().status == "ok"
    world.sql("INSERT INTO t SELECT id - 1, v FROM t", "INSERT INTO t SELECT id - 2, v FROM t WHERE id % 3 = 0")
    assert Load(settings).finish().status == "ok"  # the run after one that has met so many rows makes parts
    load, doubts, chunks, take_doubt = ChunkWorker.load, [], [], JobContext.take_doubt

    def taken(self):
        doubts.append(take_doubt(self))
        return doubts[-1]

    def disturbed(self, chunk, notify):
        chunks.append(chunk.number)
        if len(chunks) == 2:
            world.redis.delete(LOCK)
            renewing.set()
            wait(lambda: any(doubts), "the doubt to be heard of")
            for key in world.hashes():
                world.redis.hset(key, "v", "another run's")
        return load(self, chunk, notify)

    monkeypatch.setattr(JobContext, "take_doubt", taken)
    monkeypatch.setattr(ChunkWorker, "load", disturbed)
    run = Load(settings, workers=1).finish()
    assert run.status == "ok"
    assert chunks.count(chunks[0]) == 2, chunks
    assert b"another run's" not in values(world)
    assert len(world.hashes()) == 300


def test_a_run_that_ends_in_doubt(world, monkeypatch):
    """It fails before it has seen to what another run may have written over: its checkpoint owes that."""
    table(world, 1000)
    renewing = renewing_late(monkeypatch)
    settings = world.config(table="t", chunk_rows=100, key="t_{id}")
    find, load, shared = LostChunks.find, ChunkWorker.load, []

    def fail(self, chunk, notify):
        if chunk.number == 5:
            world.redis.delete(LOCK)
            renewing.set()
            wait(lambda: shared[0].shared, "the lock to be taken again")
            for key in world.hashes():
                world.redis.hset(key, "v", "another run's")
            raise LoaderError("out of order")
        return load(self, chunk, notify)

    def blind(self, *args, **options):
        shared.append(self._context)
        yield from ()

    monkeypatch.setattr(LostChunks, "find", blind)
    monkeypatch.setattr(ChunkWorker, "load", fail)
    first = Load(settings, workers=1, resume=True).finish()
    assert (first.status, first.error) == ("failed", "out of order")
    monkeypatch.setattr(LostChunks, "find", find)
    monkeypatch.setattr(ChunkWorker, "load", load)
    second = Load(settings, workers=1, resume=True).finish()
    assert (second.status, second.resumed) == ("ok", True)
    assert b"another run's" not in values(world)
    assert len(world.hashes()) == 1000


def test_a_server_without_client_kill(world, monkeypatch):
    """Whoever takes a lock over waits until no host of the one before can still have bytes to send, and goes on."""
    settings, slept = world.config(table="t").target, []
    exchange = loader.redis.fences.exchange

    def managed(connection, commands, patience):
        listed = [list(words) for words in commands]
        known = [["PING"] if words[:2] in (["CLIENT", "LIST"], ["CLIENT", "KILL"]) else words for words in listed]
        replies = exchange(connection, known, patience)
        refusal = redis.ResponseError("unknown subcommand 'LIST'. Try CLIENT HELP.")
        refusal.status_code = "ERR"
        return [
            refusal if now is not before else reply for now, before, reply in zip(known, listed, replies, strict=True)
        ]

    with RedisClient(settings) as dead, RedisClient(settings) as living:
        Lock(settings, "job", "dead").take(dead)
        world.redis.delete(LOCK)
        monkeypatch.setattr("loader.redis.fences.exchange", managed)
        monkeypatch.setattr("loader.state.lock.time.sleep", slept.append)
        heir = Lock(settings, "job", "heir")
        heir.take(living)
        assert slept == [FORGET]
        assert living.fences.unkillable
        assert set(world.redis.hgetall(FENCE)) == {b"heir"}
        heir.drop(living)


def test_a_run_that_is_refused_leaves_the_baseline_alone(world):
    """It never had the lock: the run that has it goes on, and what it leaves stands."""
    table(world, 2000)
    settings = world.config(table="t", chunk_rows=100, key="t_{id}", changed_only=True)
    assert run_job(settings, settings.jobs["job"], Options(), Ear()).status == "ok"
    load = Load(settings, rate=1000, full=True)
    load.reach(300)
    assert run_job(settings, settings.jobs["job"], Options(), Ear()).exit_code == 5
    assert load.finish().status == "ok"
    run = run_job(settings, settings.jobs["job"], Options(), Ear())
    assert (run.status, run.written, run.unchanged) == ("ok", 0, 2000)


def test_a_lock_that_vanished_at_the_end_of_a_repair(world, monkeypatch):
    """It is asked for once more: another run may have written since, so that the command is to be repeated."""
    table(world, 100)
    settings = world.config(table="t")
    assert run_job(settings, settings.jobs["job"], Options(), Ear()).status == "ok"
    world.redis.hset("t_5", "v", "wrong")
    check = session.JobSession.check

    def check_late(self):
        world.redis.delete(LOCK)
        check(self)

    monkeypatch.setattr(session.JobSession, "check", check_late)
    with pytest.raises(LoaderError, match="another run may have had it"):
        verify(settings, settings.jobs["job"], repair=True)


def test_markers_of_a_run_that_is_resumed(world):
    """Its chunks are marked from the first one on."""
    with RedisClient(world.config(table="t").target) as target:
        first = Markers(target, "loader:marker:job", "run")
        first.leave()
        again = Markers(target, "loader:marker:job", "run", first.keys)
        assert {again.place(node) for node in target.slots.nodes} == set(first.keys)
        first.forget()
