"""Many jobs in one process: they share connections and looks, run at once, and are compared over one SCAN."""

import json
import threading
from contextlib import closing
from dataclasses import replace

import pytest

from loader.cli.main import app_of
from loader.doctor.diagnose import diagnose
from loader.doctor.findings import Level
from loader.errors import Stopped
from loader.jobs import prune as prune_module
from loader.jobs import verify as verify_module
from loader.jobs.execute import execute
from loader.jobs.pace import paced
from loader.jobs.shared_scan import SharedScan
from loader.jobs.together import _Together, at_once, run_together
from loader.lab.process import wait
from loader.model import Run, Waiting
from loader.mysql.connection import Connection
from loader.outcome import Outcome
from loader.pipeline import job_context, masters
from loader.pipeline import pool as pool_module
from loader.pipeline.options import Options
from loader.pipeline.pool import Pool
from loader.redis import topology
from loader.redis.client import RedisClient
from loader.redis.singles import Singles
from loader.state import history
from loader.state.lock import Lock
from support.database import Ear

COUNT = 12


@pytest.fixture
def pool():
    """The connections that jobs share; none stays open."""
    with closing(Pool()) as pool:
        yield pool


def many(world, count=COUNT, **more):
    """The config of jobs of tables of three rows each."""
    for number in range(count):
        world.sql(
            f"CREATE TABLE m{number} (id int PRIMARY KEY, v varchar(20))",
            f"INSERT INTO m{number} VALUES (1, 'a'), (2, NULL), (3, 'c')",
        )
    return world.config_of({f"m{number}": {"table": f"m{number}", **more} for number in range(count)})


def sync(config, options, jobs=None):
    return list(
        run_together(
            list(jobs or config.jobs.values()), options, 2, lambda job, options: execute(config, job, options, Ear())
        )
    )


def connections(world):
    return int(world.sql("SHOW GLOBAL STATUS LIKE 'Connections'")[0][1])


def questions(world):
    return int(world.sql("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])


def calls(world):
    """Commands that the masters have carried out, but for those of rows, of replicas and of this count."""
    stats = world.redis.info("commandstats", target_nodes="primaries").values()
    left_out = {f"cmdstat_{name}" for name in ("hmset", "hdel", "replconf", "ping", "info")}
    return sum(figures["calls"] for node in stats for name, figures in node.items() if name not in left_out)


def named_clients(world):
    """How many connections of loaders the cluster's masters have accepted, as far as they had a name."""
    return sum(
        stats["cmdstat_client|setname"]["calls"]
        if "cmdstat_client|setname" in stats
        else stats["cmdstat_client"]["calls"]
        for stats in world.redis.info("commandstats", target_nodes="primaries").values()
    )


def test_a_run_of_a_small_table_asks_little_of_mysql(world, pool):
    """A table is described once before its rows are read and once after, and what is known of a session stays known."""
    config, options = many(world), Options(pool=pool, resume=True)
    asked = lambda: int(world.sql("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])  # noqa: E731
    sync(config, options)
    before = asked()
    assert all(run.written == 3 for run in sync(config, options))
    assert (asked() - before) / COUNT <= 10  # of all together, the one that asks is another


def test_jobs_share_connections(world, pool):
    """Twice as many jobs take no more connections; each row is there."""
    config = many(world)
    options = Options(pool=pool)
    sync(config, options)
    before = connections(world), named_clients(world)
    runs = sync(config, options)
    after = connections(world), named_clients(world)
    pool.close()
    assert [(run.job, run.exit_code, run.written) for run in runs] == [(f"m{n}", 0, 3) for n in range(COUNT)]
    assert len(world.hashes()) == 3 * COUNT
    assert after[0] - before[0] <= 4
    assert after[1] - before[1] <= 2 * COUNT  # one a job had been fourteen
    assert world.state() == set()


@pytest.mark.parametrize(
    ("changed_only", "most"),
    [(False, (8.5, 19, 55, 9.5)), (True, (11.5, 26, 57, 9.5))],
    ids=["all", "changed"],
)
def test_a_tiny_table_takes_few_round_trips(world, pool, monkeypatch, changed_only, most):
    """Once connections are open, and nothing has changed; besides the commands of its rows.

    At `most` so many trips, commands sent, commands carried out by masters (with those of scripts), and statements.
    """
    for module, name in [(pool_module, "FRESH"), (pool_module, "IDLE"), (masters, "YOUNG"), (topology, "AGE")]:
        monkeypatch.setattr(module, name, 600.0)  # a slow machine looks no more often
    config = many(world, changed_only=changed_only)
    sent = []
    options = Options(pool=pool)
    sync(config, options)

    ask, ask_each = Singles.ask, Singles.ask_each

    def asked(self, node, commands):
        sent.append(len(commands))
        return ask(self, node, commands)

    def asked_each(self, commands):
        if len(commands) > 1:  # else they are counted above
            sent.append(sum(map(len, commands.values())))
        return ask_each(self, commands)

    monkeypatch.setattr(Singles, "ask", asked)
    monkeypatch.setattr(Singles, "ask_each", asked_each)
    before, counted = questions(world), calls(world)
    sync(config, options)
    after, done = questions(world), calls(world) - counted
    took = len(sent), sum(sent), done, after - before
    assert all(each / COUNT <= limit for each, limit in zip(took, most, strict=True)), took


def test_runs_come_in_the_order_of_the_jobs(world):
    """Though the first one takes longest; two of them were under way at the same time."""
    config = many(world, 4)
    late, met = threading.Event(), threading.Barrier(2)

    def run_one(job, _):
        if job.name in {"m0", "m1"}:
            met.wait(30)
        if job.name == "m0":
            assert late.wait(30)
        if job.name == "m3":
            late.set()
        return Run(job=job.name, id=job.name)

    assert [run.job for run in run_together(list(config.jobs.values()), Options(), 2, run_one)] == list(config.jobs)


def test_jobs_of_one_prefix_run_one_after_the_other(world):
    """The later one has the last word, as if they had run alone."""
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v varchar(20))")
    jobs = {name: {"table": "t", "key": "t_{id}", "fields": ["v"]} for name in ("a", "b", "c")}
    config = world.config_of(jobs)
    told, another = [], threading.Event()

    def run_one(job, _):
        if len(told) % 2:
            another.set()
        told.append(f"{job.name} begins")
        another.wait(0.3)  # for one beside it, should there be any
        told.append(f"{job.name} ends")
        return Run(job=job.name, id=job.name)

    list(run_together(list(config.jobs.values()), Options(), 3, run_one))
    assert told == [f"{name} {what}" for name in ("a", "b", "c") for what in ("begins", "ends")]


def test_a_signal_stops_jobs_that_run_at_once(world):
    """Those under way say so, those that have not begun do not begin."""
    config = many(world, 4)
    options = Options()
    began = []

    def run_one(job, options):
        began.append(job.name)
        if len(began) == 2:
            together.stop(Stopped.by("SIGINT"))
        wait(lambda: options.halt.now, "the stop")
        return Run(job=job.name, id=job.name, outcome=Outcome(Stopped.kind, "the run is stopping"))

    together = _Together(list(config.jobs.values()), options, run_one)
    runs = list(together.runs(2))
    assert [(run.job, run.exit_code, run.error) for run in runs] == [
        (name, 130, "stopped by SIGINT") for name in ("m0", "m1")
    ]


def test_how_many_jobs_run_at_once(world, pool):
    """As many as there are workers; one if a rate is for all, or if the account may have few connections."""
    config = many(world, 4)
    jobs = list(config.jobs.values())
    assert at_once(config, jobs, Options(workers=3, pool=pool)) == 3
    assert at_once(config, jobs, Options(workers=3, rate=10, pool=pool)) == 1
    assert at_once(config, jobs[:1], Options(workers=3, pool=pool)) == 1
    connection = pool.source(config.source)
    connection._most = 4
    pool.leave_source(connection)
    assert at_once(config, jobs, Options(workers=3, pool=pool)) == 2


def test_only_clean_connections_are_handed_on(world, pool):
    """Not one within a transaction, nor one that is closed; a client only if its job has ended well."""
    config = world.config_of({"m": {"table": "m"}})
    one = pool.source(config.source)
    pool.leave_source(one)
    assert pool.source(config.source) is one
    one.fetch("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    pool.leave_source(one)
    two = pool.source(config.source)
    assert two is not one
    two.close()
    pool.leave_source(two)
    assert pool.source(config.source) is not two
    first = pool.target(config.target)
    first.refresh(force=True)
    pool.leave_target(first, well=True)
    second = pool.target(config.target)
    assert second.name == first.name
    second.fences.add(second.slots.nodes[0], "loader-of-another")
    pool.leave_target(second, well=True)
    third = pool.target(config.target)
    assert third.name != first.name
    pool.leave_target(third, well=False)
    assert pool.target(config.target).name != third.name


def test_a_client_with_a_lock_that_stays_is_not_handed_on(world, pool, monkeypatch):
    """The next holder of the lock shuts out its connections, by their name."""
    config = many(world, 1)
    (job,) = config.jobs.values()
    drop = Lock.drop
    monkeypatch.setattr(Lock, "release", lambda *_: False)
    monkeypatch.setattr(Lock, "drop", lambda lock, target: drop(lock, target) and False)
    with pool.reach(config.target) as client:
        name = client.name
    assert execute(config, job, Options(pool=pool), Ear()).exit_code == 0
    with pool.reach(config.target) as client:
        assert client.name != name


def test_a_connection_that_was_closed_meanwhile_is_not_used(world, pool):
    """Redis closes idle ones: the next job connects anew, and retries nothing."""
    config = many(world, 1)
    (job,) = config.jobs.values()
    assert execute(config, job, Options(pool=pool), Ear()).exit_code == 0
    for node in world.redis.get_primaries():
        world.redis.execute_command("CLIENT KILL TYPE normal SKIPME yes", target_nodes=node)
    ear = Ear()
    run = execute(config, job, Options(pool=pool), ear)
    assert (run.exit_code, run.written) == (0, 3)
    assert not [event for event in ear.events if isinstance(event, Waiting)]


def test_a_lock_of_this_process_is_no_key_that_expires(world, monkeypatch):
    """While others run here, hashes need not be asked for their time to live; a stranger's key that expires counts."""
    monkeypatch.setattr("loader.state.lock._under_way", set())  # other tests leave some
    config = many(world, 1)
    with RedisClient(config.target) as target:
        lock = Lock(config.target, "other", "some-run")
        lock.take(target)
        assert not job_context._has_mortal(target, config.jobs)
        world.redis.set("stranger", "1", ex=1000)
        assert job_context._has_mortal(target, config.jobs)
        lock.drop(target)


def test_doctor_says_which_schedules_are_not_kept(world):
    """By the last run of each job: one that began, or lasted, longer than its interval after its due time."""
    config = many(world, 3, schedule={"every": "5s"})
    with RedisClient(config.target) as target:
        now = history.History(target, "m0").now()
        for name, began, seconds in (("m0", now - 6, 1), ("m1", now - 1, 1), ("m2", now - 8, 7)):
            run = Run(job=name, id="r", slot=int(now) - 15 if name == "m0" else int(began))
            entry = replace(history.entry_of(run), began=began, ended=began + seconds)
            history.History(target, name).add(entry)
        pace = paced(target, config.jobs, 4)
        assert (sorted(pace.behind), pace.total) == (["m0", "m2"], 3)
    findings = {finding.check: finding for finding in diagnose(config, [], []) if finding.job is None}
    assert findings["redis.schedules"].level is Level.WARN
    assert findings["redis.schedules"].seen.startswith("2 of 3 schedules are not kept (m0, m2): ")


def scans(world):
    stats = world.redis.info("commandstats", target_nodes="primaries")
    return sum(node.get("cmdstat_scan", {"calls": 0})["calls"] for node in stats.values())


def test_several_jobs_are_compared_over_one_scan(world, pool):
    """Each finds the hash that no row makes, and no other; as many SCANs as for one job."""
    config = many(world, 6)
    sync(config, Options(pool=pool))
    jobs = list(config.jobs.values())
    before = scans(world)
    verify_module.verify(config, jobs[0])
    alone = scans(world) - before
    scan = SharedScan(jobs)
    verdicts = [verify_module.verify(config, job, scan=scan) for job in jobs]
    assert scans(world) - before == 2 * alone
    assert [(verdict.rows, verdict.is_equal) for verdict in verdicts] == [(3, True)] * 6
    world.redis.hset("m3_9", "v", "x")
    scan = SharedScan(jobs)
    verdicts = [verify_module.verify(config, job, scan=scan) for job in jobs]
    assert [verdict.extra for verdict in verdicts] == [0, 0, 0, 1, 0, 0]


def test_a_row_that_comes_after_the_shared_scan_is_no_difference(world, pool):
    """The scan is older than the comparison: the slots that differ are looked at again."""
    config = many(world, 2)
    sync(config, Options(pool=pool))
    scan = SharedScan(list(config.jobs.values()))
    assert verify_module.verify(config, config.jobs["m0"], scan=scan).is_equal
    world.sql("INSERT INTO m1 VALUES (4, 'd')")
    world.redis.hset("m1_4", mapping={"id": "4", "v": "d"})
    verdict = verify_module.verify(config, config.jobs["m1"], scan=scan)
    assert (verdict.rows, verdict.is_equal) == (4, True)


def test_several_jobs_are_pruned_over_one_scan(world, pool, monkeypatch):
    """The hash without a row is deleted, and no other, whether keys are listed or only counted."""
    config = many(world, 4)
    for most in (1_000_000, 2):
        monkeypatch.setattr("loader.jobs.shared_scan.LISTED", most)
        sync(config, Options(pool=pool))
        world.redis.hset("m2_9", "v", "x")
        before = len(world.hashes())
        scan, found = SharedScan(list(config.jobs.values())), {}
        for name, job in config.jobs.items():
            found[name] = prune_module.Pruned(name)
            prune_module.prune(config, job, found[name], max_delete=50, scan=scan)
        assert {name: (each.keys, each.deleted) for name, each in found.items()} == {
            "m0": (3, 0),
            "m1": (3, 0),
            "m2": (4, 1),
            "m3": (3, 0),
        }
        assert len(world.hashes()) == before - 1


@pytest.mark.parametrize("changed_only", [False, True])
def test_the_state_of_a_run_is_asked_for_at_once(world, pool, changed_only):
    """A tiny table takes few commands, and none that grows with the number of jobs."""
    config = many(world, 2, changed_only=changed_only)
    options = Options(pool=pool)
    sync(config, options)
    sync(config, options)
    stats = lambda: world.redis.info("commandstats", target_nodes="primaries")  # noqa: E731
    total = lambda name: sum(node.get(f"cmdstat_{name}", {"calls": 0})["calls"] for node in stats().values())  # noqa: E731
    before = {name: total(name) for name in ("lrange", "pttl", "cluster|slots")}
    sync(config, options)
    assert total("lrange") - before["lrange"] == 2
    assert total("cluster|slots") - before["cluster|slots"] <= 2


def test_the_command_line_runs_all_jobs(world, tmp_path, capsys):
    """One document a job, in their order."""
    config = many(world, 3)
    path = tmp_path / "loader.yaml"
    path.write_text(
        json.dumps(
            {
                "version": 1,
                "source": {
                    "url": f"mysql://loader@127.0.0.1:{world.lab.mysql_port}/{world.name}",
                    "password": world.lab.password,
                },
                "target": {"url": f"redis://loader@127.0.0.1:{world.lab.redis_ports['n1']}"}
                | ({"password": world.lab.redis_password} if world.lab.redis_password else {}),
                "jobs": {name: {"table": name} for name in config.jobs},
            }
        )
    )
    with pytest.raises(SystemExit) as ended:
        app_of()(["-c", str(path), "sync", "--all", "-o", "json", "--progress", "none"])
    out = capsys.readouterr().out
    assert ended.value.code == 0, out
    assert [json.loads(line)["job"] for line in out.splitlines()] == ["m0", "m1", "m2"]


def test_a_connection_of_this_module_is_closed(world):
    """A pool that keeps nothing closes what it is given."""
    config = world.config_of({"m": {"table": "m"}})
    pool = Pool(keeps=False)
    connection = Connection(config.source)
    pool.leave_source(connection)
    assert not connection.is_clean
