"""Masters that lose what they have acknowledged: what a run counted there is written again, or the run is not ok."""

import os
import signal
from contextlib import contextmanager

import pytest
import redis

import loader.lab.redis
from loader.jobs import session
from loader.jobs.rejects import Retried, retry
from loader.jobs.verify import verify
from loader.lab.lab import Lab
from loader.lab.process import Server, program, stop, wait
from loader.model import ChunkLoaded, Notice
from loader.pipeline.run_state import RunState
from loader.redis.servers import lives
from loader.state.markers import GONE, LOST, Markers
from loader.wire.slots import slot_of
from support.command import HOST, redis_server
from support.faults import ROWS, Load, storm_on

KINDS = {
    "sync": {},
    "changed_only": {"changed_only": True},
    "incremental": {"incremental": {"column": "at", "lag": "1s"}},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Three masters with two replicas each, which lose what is not in a snapshot when they are killed."""
    with pytest.MonkeyPatch.context() as patch:
        conf = loader.lab.redis.REDIS_CONF.replace("appendonly yes", "appendonly no").replace(
            "timeout 5000", "timeout 1500"
        )
        conf += "cluster-allow-replica-migration no\n"
        patch.setattr(loader.lab.redis, "REDIS_CONF", conf)
        lab = Lab(tmp_path_factory.mktemp("lossy"))
        lab.up(nodes=9, replicas=2)
        yield lab
        lab.down()


@pytest.fixture
def storm(lab, tmp_path):
    wait(lambda: all_replicas_are_seen(lab), "two replicas for each master")
    with storm_on(lab, tmp_path) as storm:
        storm.world.sql(
            "ALTER TABLE big ADD COLUMN at TIMESTAMP(6) NOT NULL DEFAULT '2020-01-01' ON UPDATE CURRENT_TIMESTAMP(6)",
            "ALTER TABLE big ADD INDEX (at)",
        )
        yield storm


def all_replicas_are_seen(lab):
    with redis.Redis(HOST, lab.redis_ports["n1"]) as client:
        return all(len(row) == 5 for row in client.execute_command("CLUSTER", "SLOTS"))


def config(storm, kind="sync"):
    settings = storm.world.config(table="big", deadline="120s", fields=["id", "name"], **KINDS[kind])
    return settings.model_copy(update={"target": storm.config().target})


def load(storm, kind="sync", rate=1500, **options):
    return Load(config(storm, kind), rate=rate, **options)


def told(load, text):
    return any(text in event.text for event in load.ear.events if isinstance(event, Notice))


def check(storm, run):
    """The run is ok, and each row has its hash, by an independent look."""
    assert (run.status, run.error) == ("ok", None)
    assert run.read == run.written + run.unchanged == ROWS
    storm.settle()
    assert differing(storm) == []


def differing(storm):
    """Keys whose hash is not that of a row, or that have none."""
    rows = storm.world.sql("SELECT id, name FROM big")
    wanted = {f"big_{n}".encode(): {b"id": b"%d" % n, b"name": name.encode()} for n, name in rows}
    hashes = storm.world.hashes()
    return [key for key in wanted.keys() | hashes.keys() if wanted.get(key) != hashes.get(key)]


def save(client):
    """Have a server write a snapshot."""
    saved = client.lastsave()
    wait(
        lambda: client.lastsave() > saved or client.bgsave(), "a second to pass, which is how snapshots are told apart"
    )
    wait(lambda: not client.info("persistence")["rdb_bgsave_in_progress"], "the snapshot")


@contextmanager
def no_failover(storm):
    """The replicas leave a master alone that is gone for a moment."""
    names = storm.names("replica")
    for setting in ("yes", "no"):
        for name in names:
            with storm.client(name) as client:
                client.config_set("cluster-replica-no-failover", setting)
        if setting == "yes":
            yield


def restart(storm, name):
    """Kill a master, and start it again with what its snapshot has."""
    storm.lab.kill(name)
    wait(lambda: not next(row for row in storm.lab.status() if row.name == name).running, "its end")
    storm.lab.start(name)


def away_from_state(storm):
    """A master that has not the job's own state."""
    owner = storm.world.redis.get_node_from_key("{job}").port
    return next(name for name in storm.names("master") if storm.lab.redis_ports[name] != owner)


@pytest.mark.parametrize(("kind", "options"), [*((kind, {}) for kind in KINDS), ("sync", {"resume": True})])
def test_a2_a_master_comes_back_from_an_older_snapshot(storm, kind, options):
    """Before anyone misses it: what was counted there since is written again. The next run finds all in place."""
    running = load(storm, kind, **options)
    running.reach(600)
    name = away_from_state(storm) if kind == "changed_only" else storm.names("master")[0]
    with no_failover(storm):
        with storm.client(name) as client:
            save(client)
        running.reach(1500)
        restart(storm, name)
        run = running.finish()
    assert told(running, "written again: a master has lost writes of this run")
    assert run.starts == 1
    check(storm, run)
    storm.world.sql("UPDATE big SET name = 'other' WHERE id % 10 = 0")
    check_again(storm, kind)


def check_again(storm, kind):
    run = load(storm, kind, rate=None).finish()
    assert (run.status, run.error) == ("ok", None)
    assert differing(storm) == []


def test_a2_two_lives_in_one_run(storm):
    """It is killed twice, and each time comes back from the same snapshot."""
    running = load(storm)
    name = storm.names("master")[0]
    running.reach(300)
    with no_failover(storm):
        with storm.client(name) as client:
            save(client)
        for _ in range(2):
            running.reach(900)
            restart(storm, name)
        check(storm, running.finish())


@pytest.mark.parametrize("kind", KINDS)
def test_a2_between_the_last_chunk_and_the_end(storm, monkeypatch, kind):
    """All is counted, and then some of it is lost: the run starts over, and a baseline vouches for nothing else."""
    finish, name = RunState.finish, storm.names("master")[0]

    def finish_late(self, marks):
        monkeypatch.undo()
        restart(storm, name)
        finish(self, marks)

    running = load(storm, kind)
    running.reach(300)
    with no_failover(storm):
        with storm.client(name) as client:
            save(client)
        monkeypatch.setattr(RunState, "finish", finish_late)
        run = running.finish()
    assert told(running, "the run starts over: a master has lost writes of this run")
    check(storm, run)
    check_again(storm, kind)


def test_a2_a_master_that_slots_have_moved_to(storm):
    """It comes back as it was before them: what was written elsewhere, and moved there, no longer exists."""
    running = load(storm, rate=600)
    running.reach(600)
    giver, taker = storm.names("master")[:2]
    with no_failover(storm):
        with storm.client(taker) as client, storm.client(giver) as old:
            save(client)
            ids = [each.execute_command("CLUSTER", "MYID").decode() for each in (old, client)]
            choice = ["--cluster-from", ids[0], "--cluster-to", ids[1], "--cluster-slots", 200, "--cluster-yes"]
            storm.cluster("reshard", f"{HOST}:{storm.lab.redis_ports[taker]}", *choice)
            wait(lambda: is_noted(client) or not running.running, "the run to have noticed it")
        restart(storm, taker)
        run = running.finish()
    assert run.starts == 2
    check(storm, run)


def is_noted(client):
    """Whether a master has a marker in which moved slots are noted."""
    return any(".moved." in str(client.hgetall(key)) for key in client.scan_iter("loader:passing:*"))


def test_a2_before_a_backfill_is_resumed(storm):
    """What the checkpoint does not owe no longer exists: everything is loaded again."""
    running = load(storm, resume=True)
    running.reach(300)
    name = away_from_state(storm)
    with no_failover(storm):
        with storm.client(name) as client:
            save(client)
        running.reach(900)
        running.ear.throttle.stop()
        assert running.finish().status == "stopped"
        restart(storm, name)
        storm.settle()
    again = load(storm, resume=True, rate=None)
    run = again.finish()
    assert told(again, "the target has lost writes since the checkpoint")
    assert not run.resumed
    check(storm, run)


def test_a2_a_standalone_server(storm, tmp_path):
    """The same where there is no cluster, no replica, and no file but the snapshot."""
    (tmp_path / "alone").mkdir()
    with redis_server(tmp_path / "alone") as port, redis.Redis(HOST, port) as client:
        running = storm.load(rate=1500, target={"url": f"redis://{HOST}:{port}"})
        running.reach(600)
        save(client)
        running.reach(1500)
        with redis.Redis(HOST, port) as killer:
            process = killer.info("server")["process_id"]
        os.kill(process, signal.SIGKILL)
        server = Server("redis", port)
        words = ["--port", str(port), "--bind", HOST, "--dir", str(tmp_path / "alone"), "--save", ""]

        def started():
            server.spawn([program("redis-server", "valkey-server"), *words], tmp_path / "again.log")
            wait(lambda: not server.running or answers(port), "redis to answer")
            return server.running

        wait(started, "the port to be free")
        try:
            run = running.finish()
            assert told(running, "lost writes of this run")
            assert (run.status, run.read, run.written) == ("ok", ROWS, ROWS)
            keys = [key for key in client.scan_iter() if key.startswith(b"big_")]
            assert len(keys) == ROWS
        finally:
            stop([server])


def answers(port):
    try:
        with redis.Redis(HOST, port) as client:
            return client.ping()
    except redis.ConnectionError:
        return False


def replicas_of(storm, master):
    return [row.name for row in storm.lab.status() if row.master == master]


def cut_off(storm, master, replica):
    """Have a replica stand still, and nothing more of its master wait in its socket."""
    with storm.client(replica) as client:
        (link,) = client.client_list(_type="master")
    storm.lab.kill(replica, signal.SIGSTOP)
    with storm.client(master) as client:
        client.client_kill_filter(addr=link["laddr"])
        wait(lambda: client.info("replication")["connected_slaves"] == 1, "the master to have let it go")


@pytest.mark.parametrize("kind", KINDS)
def test_a3_who_takes_over_lacks_what_another_replica_had(storm, kind):
    """Counted with one replica of two; the master and that one die: what the other lacks is written again."""
    running = load(storm, kind)
    running.reach(600)
    master = storm.names("master")[0]
    lagging, other = replicas_of(storm, master)
    cut_off(storm, master, lagging)
    node = str(storm.node(master))
    wait(lambda: counted_exposed(running, node) > 3 or not running.running, "chunks that it lacks")
    storm.lab.kill(other)
    storm.lab.kill(master)
    storm.lab.kill(lagging, signal.SIGCONT)
    run = running.finish()
    assert told(running, "lost writes of this run")
    check(storm, run)
    storm.world.sql("UPDATE big SET name = 'other' WHERE id % 10 = 0")
    check_again(storm, kind)


def counted_exposed(load, node):
    return sum(node in event.exposed for event in load.ear.events if isinstance(event, ChunkLoaded))


@pytest.mark.parametrize("kind", ["changed_only", "incremental"])
def test_a3_after_the_end_of_the_run(storm, kind):
    """It said which replica lacks what; where that one takes over, the next run takes nothing for known."""
    master = storm.names("master")[0]
    lagging, other = replicas_of(storm, master)
    running = load(storm, kind)
    running.reach(600)
    cut_off(storm, master, lagging)
    assert running.finish().status == "ok"
    assert told(running, f"redis {storm.node(master)}: some of its replicas lack writes of")
    storm.lab.kill(other)
    storm.lab.kill(master)
    storm.lab.kill(lagging, signal.SIGCONT)
    wait(lambda: storm.leads(lagging), "it to take over")
    run = load(storm, kind, rate=None).finish()
    assert run.written == ROWS
    check(storm, run)


def test_a3_a_replica_that_comes_back_covers_what_it_lacked(storm):
    """Nothing is said of chunks that all replicas have in the end."""
    running = load(storm)
    running.reach(600)
    master = storm.names("master")[0]
    lagging, _ = replicas_of(storm, master)
    cut_off(storm, master, lagging)
    wait(lambda: counted_exposed(running, str(storm.node(master))) > 3 or not running.running, "chunks that it lacks")
    storm.lab.kill(lagging, signal.SIGCONT)
    with storm.client(master) as client:
        wait(lambda: client.info("replication")["connected_slaves"] == 2, "it to be back")
    check(storm, running.finish())
    assert not told(running, "some of its replicas lack")
    assert not told(running, "written again")


def evict(client):
    """Have a server throw some keys away, and be as it was before."""
    before = client.info("stats")["evicted_keys"]
    client.config_set("maxmemory-policy", "allkeys-random")

    def throw():
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 100_000)  # buffers do not count
        return client.info("stats")["evicted_keys"] > before + 20

    try:
        wait(throw, "keys to be thrown away")
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize("kind", ["changed_only", "incremental"])
@pytest.mark.parametrize("after", ["reset", "restart", "failover"])
def test_a5_evictions_that_no_counter_tells_of(storm, kind, after):
    """Between two runs the counter was reset, by command or by a new life: the next run takes nothing for known."""
    assert load(storm, kind, rate=None).finish().status == "ok"
    name = away_from_state(storm)
    with storm.client(name) as client:
        evict(client)
        if after == "reset":
            client.config_resetstat()
        if after == "restart":
            save(client)
    if after == "restart":
        with no_failover(storm):
            restart(storm, name)
        storm.settle()
    if after == "failover":
        replica = replicas_of(storm, name)[0]
        storm.fail_over(replica)
        storm.settle()
        storm.fail_over(name)
        storm.settle()
    assert differing(storm) != []
    check(storm, load(storm, kind, rate=None).finish())


@pytest.mark.parametrize("kind", KINDS)
def test_a5_a_master_of_later_throws_keys_away(storm, kind):
    """It became one in the run: the run says so, or begins again, and the next one takes nothing for known."""
    running = load(storm, kind, rate=600)
    running.reach(600)
    master = storm.names("master")[0]
    replica = replicas_of(storm, master)[0]
    storm.fail_over(replica)
    running.reach(900)
    with storm.client(replica) as client:
        evict(client)
    run = running.finish()
    if run.starts > 1:  # its own state was thrown away
        check(storm, run)
    else:
        assert run.exit_code == 3
        assert "redis evicted keys" in run.error
    check(storm, load(storm, kind, rate=None).finish())


@pytest.mark.parametrize("kind", KINDS)
def test_a5_counters_are_reset_after_evictions_in_a_run(storm, kind):
    """They do not tell what they did: the run is not ok, or began again, and the next one takes nothing for known."""
    running = load(storm, kind, rate=600)
    running.reach(1200)
    with storm.client(away_from_state(storm)) as client:
        evict(client)
        client.config_resetstat()
    run = running.finish()
    assert (run.exit_code, "the counters were reset" in str(run.error)) == (3, True) or run.starts > 1, run
    check(storm, load(storm, kind, rate=None).finish())


def test_a5_a_baseline_over_counters_that_are_whole(storm):
    """Runs, looks and restarts of other things void nothing."""
    assert load(storm, "changed_only", rate=None).finish().written == ROWS
    with storm.client(storm.names("master")[0]) as client:
        client.bgsave()
        wait(lambda: not client.info("persistence")["rdb_bgsave_in_progress"], "the snapshot")
    for _ in range(2):
        run = load(storm, "changed_only", rate=None).finish()
        assert (run.written, run.unchanged) == (0, ROWS)


@pytest.mark.parametrize("marked", [False, True])
def test_a2_amid_a_repair(storm, monkeypatch, marked):
    """Hashes that were repaired are lost before the end, with the marker or without: the command fails and says so."""
    assert load(storm, rate=None).finish().status == "ok"
    settings = config(storm)
    name = away_from_state(storm)
    check, leave = session.JobSession.check, Markers.leave
    with no_failover(storm):
        with storm.client(name) as client:
            keys = client.keys("big_*")[:50]
            for key in keys:
                client.hset(key, "name", "wrong")
            save(client)

        def leave_and_save(self):
            leave(self)
            with storm.client(name) as client:
                save(client)

        def check_late(self):
            monkeypatch.undo()
            restart(storm, name)
            check(self)

        monkeypatch.setattr(session.JobSession, "check", check_late)
        if marked:
            monkeypatch.setattr(Markers, "leave", leave_and_save)
        with pytest.raises(loader.errors.LoaderError, match=LOST if marked else GONE):
            verify(settings, settings.jobs["job"], repair=True)
    storm.settle()
    assert differing(storm) != []
    assert verify(settings, settings.jobs["job"], repair=True).repaired == 50
    assert differing(storm) == []


def test_a2_amid_a_retry(storm, monkeypatch):
    """A row stays on the list of rejects where what was written of it is lost."""
    settings = config(storm)
    name = away_from_state(storm)
    with storm.client(name) as client:
        slots = [row for row in client.execute_command("CLUSTER", "SLOTS") if row[2][1] == storm.lab.redis_ports[name]]
        key = next(k for n in range(1, 1000) if any(a <= slot_of(k := b"big_%d" % n) <= b for a, b, *_ in slots))
        client.set(key, "foreign")
        assert load(storm, rate=None).finish().exit_code == 3
        client.delete(key)
    check = session.JobSession.check

    def check_late(self):
        monkeypatch.undo()
        restart(storm, name)
        check(self)

    with no_failover(storm):
        with storm.client(name) as client:
            save(client)
        monkeypatch.setattr(session.JobSession, "check", check_late)
        with pytest.raises(loader.errors.LoaderError, match=GONE):
            retry(settings, settings.jobs["job"])
    storm.settle()
    assert retry(settings, settings.jobs["job"]) == Retried("job", written=1)
    assert differing(storm) == []


def test_lives_of_masters(storm):
    """A failover there and back begins another life, though the process is the same."""
    with loader.redis.client.RedisClient(storm.config().target) as target:
        before = lives(target)
        master = storm.names("master")[0]
        replica = replicas_of(storm, master)[0]
        storm.fail_over(replica)
        storm.settle()
        storm.fail_over(master)
        storm.settle()
        target.refresh(force=True)
        after = lives(target)
        node = storm.node(master)
        assert after[node].id != before[node].id
        assert after[node].id.split()[0] == before[node].id.split()[0]
        assert {after[n].id == before[n].id for n in before.keys() & after.keys() - {node}} == {True}
