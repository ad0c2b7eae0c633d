"""Several jobs that are verified or pruned: they wait for their next look together."""

import json

import pytest

from loader.cli.main import app_of
from loader.config.load import Config
from loader.errors import Exit, LoaderError, Stopped
from loader.jobs import prune as prune_module
from loader.jobs import recheck, turns
from loader.jobs import verify as verify_module
from loader.jobs.execute import execute
from loader.jobs.prune import Pruned
from loader.jobs.rows import JobRows
from loader.jobs.session import JobSession
from loader.jobs.shared_scan import SharedScan
from loader.jobs.turns import in_turn
from loader.pipeline.options import Options
from loader.redis.client import RedisClient
from loader.state.checkpoint import StateStore
from loader.state.holders import holders
from loader.state.lock import Lock
from loader.state.markers import GONE, Markers
from support.database import Clock, Ear
from support.proxy import Proxy

COUNT = 8
PAUSE = 1000.0


class Pauses(Clock):
    """The clock of those that wait: it notes each pause, and what is to happen in it."""

    def __init__(self):
        super().__init__()
        self.all = []
        self.within = {}  # by the number of the pause
        self.early = []  # pauses that were not over when a key was looked at again

    def sleep(self, seconds):
        if seconds > 0:
            super().sleep(seconds)
            self.all.append(seconds)
            self.within.get(len(self.all), lambda: None)()


@pytest.fixture
def pauses(monkeypatch):
    clock = Pauses()
    monkeypatch.setattr(turns, "time", clock)
    monkeypatch.setattr(recheck, "time", clock)
    monkeypatch.setattr(recheck, "PAUSE", PAUSE)
    clock.pop = pop = recheck.Waiting.pop
    note = lambda seconds: clock.early.append(seconds) if seconds > 0 else None  # noqa: E731
    monkeypatch.setattr(recheck.Waiting, "pop", lambda self, _: pop(self, note))
    return clock


def many(world, count=COUNT, more="w int", **settings):
    """The config of jobs of tables of three rows each, which are in Redis."""
    for number in range(count):
        world.sql(
            f"CREATE TABLE m{number} (id int PRIMARY KEY, v varchar(20), {more})",
            f"INSERT INTO m{number} (id, v) VALUES (1, 'a'), (2, NULL), (3, 'c')",
        )
    config = world.config_of({f"m{number}": {"table": f"m{number}", **settings} for number in range(count)})
    return synced(config)


def source(world, port=None):
    url = f"mysql://loader@127.0.0.1:{port or world.lab.mysql_port}/{world.name}"
    return {"url": url, "password": world.lab.password}


def target(world):
    return {"url": f"redis://loader@127.0.0.1:{world.lab.redis_ports['n1']}", "password": world.lab.redis_password}


def synced(config):
    for job in config.jobs.values():
        assert execute(config, job, Options(), Ear()).exit_code == 0
    return config


def verified(config, scan=None, **options):
    """How the verification of each job ended, by name."""
    jobs = list(config.jobs.values())
    scan = scan or SharedScan(jobs)
    works = in_turn(jobs, lambda job, turn: verify_module.verify_in_turn(config, job, turn, scan=scan, **options))
    return {job.name: ended for job, ended in works}


def pruned(config, **options):
    """How the prune of each job ended, by name: its result, or why it failed."""
    jobs = list(config.jobs.values())
    scan, results = SharedScan(jobs), {job.name: Pruned(job.name) for job in jobs}

    def begin(job, turn):
        return prune_module.prune_in_turn(config, job, results[job.name], turn, max_delete=50, scan=scan, **options)

    return {job.name: ended or results[job.name] for job, ended in in_turn(jobs, begin)}


def counts(verdicts):
    return {name: (each.missing, each.different, each.extra) for name, each in verdicts.items()}


def spoil(world, number):
    """One difference of each kind."""
    world.redis.delete(f"m{number}_1")
    world.redis.hset(f"m{number}_3", "v", "x")
    world.redis.hset(f"m{number}_9", "v", "x")


def scans(world):
    stats = world.redis.info("commandstats", target_nodes="primaries")
    return sum(node.get("cmdstat_scan", {"calls": 0})["calls"] for node in stats.values())


def locked(config):
    """The jobs that are locked now."""
    with RedisClient(config.target) as target:
        return [name for name in config.jobs if holders(target, name)]


def test_jobs_wait_for_their_looks_together(world, pauses):
    """Two pauses for all, as for one job, and one SCAN; each key is looked at again only after its pause."""
    config = many(world)
    for number in range(COUNT):
        spoil(world, number)
    before = scans(world)
    assert counts(verified(config)) == {f"m{number}": (1, 1, 1) for number in range(COUNT)}
    assert (pauses.all, pauses.early) == ([PAUSE] * (recheck.LOOKS - 1), [])
    assert scans(world) - before == len(world.redis.get_primaries())


def test_each_key_waits_for_its_whole_pause(world, pauses, monkeypatch):
    """Those of one job too, whose first looks are apart."""
    config = many(world, 2, chunk_rows=1)
    world.redis.delete("m0_1")
    world.redis.delete("m0_3")
    compare = JobRows.compare

    def slow(rows, *args):
        pauses.now += 1
        return compare(rows, *args)

    monkeypatch.setattr(JobRows, "compare", slow)
    assert counts(verified(config)) == {"m0": (2, 0, 0), "m1": (0, 0, 0)}
    assert (len(pauses.all), pauses.early) == (2, [])


def test_what_heals_in_the_pause_is_no_difference(world, pauses):
    """In the first pause or in the second, on either side."""
    config = many(world)
    for number in range(COUNT):
        spoil(world, number)
    pauses.within[1] = lambda: (
        world.redis.hset("m1_1", mapping={"id": "1", "v": "a"}),
        world.redis.hset("m1_3", "v", "c"),
        world.redis.delete("m1_9"),
        world.sql("INSERT INTO m2 (id, v) VALUES (9, 'x')"),
    )
    pauses.within[2] = lambda: (
        world.sql("DELETE FROM m3 WHERE id = 1", "UPDATE m3 SET v = 'x' WHERE id = 3"),
        world.redis.delete("m3_9"),
    )
    found = counts(verified(config))
    assert (found.pop("m1"), found.pop("m2"), found.pop("m3")) == ((0, 0, 0), (1, 1, 0), (0, 0, 0))
    assert set(found.values()) == {(1, 1, 1)}
    assert pauses.early == []


def test_a_row_that_comes_back_in_the_pause_keeps_its_hash(world, pauses):
    """The other hashes without a row go, after two pauses for all; no job is locked in a pause, a run may come."""
    config = many(world)
    for number in range(COUNT):
        world.sql(f"DELETE FROM m{number} WHERE id = 3")
    held, runs = [], []
    pauses.within[1] = lambda: (
        held.append(locked(config)),
        world.sql("INSERT INTO m2 (id, v) VALUES (3, 'c')"),
        runs.append(execute(config, config.jobs["m4"], Options(), Ear())),
    )
    pauses.within[2] = lambda: (held.append(locked(config)), world.sql("INSERT INTO m5 (id, v) VALUES (3, 'c')"))
    before = scans(world)
    found = pruned(config)
    assert [name for name, each in found.items() if not each.deleted] == ["m2", "m5"]
    assert {each.deleted for each in found.values()} == {0, 1}
    assert scans(world) - before == len(world.redis.get_primaries())
    assert (len(pauses.all), pauses.early, held, runs[0].exit_code) == (2, [], [[], []], 0)
    assert {key for key in world.hashes() if key.endswith(b"_3")} == {b"m2_3", b"m5_3"}
    assert locked(config) == []


def test_a_row_that_comes_back_after_the_pauses_keeps_its_hash(world, pauses, monkeypatch):
    """The rows are looked up under the lock right before the deletion."""
    config = many(world, 2)
    world.sql("DELETE FROM m0 WHERE id = 3", "DELETE FROM m1 WHERE id = 3")
    without_row, looks = JobRows.without_row, []

    def late(rows, keys, **how):
        found = without_row(rows, keys, **how)
        looks.append(rows.session.plan.job.name)
        if looks.count("m1") == recheck.LOOKS + 1:  # the last one before the deletion
            assert locked(config) == ["m1"]
            world.sql("INSERT INTO m1 (id, v) VALUES (3, 'c')")
        return found

    monkeypatch.setattr(JobRows, "without_row", late)
    assert [each.deleted for each in pruned(config).values()] == [1, 0]
    assert b"m1_3" in world.hashes()


def test_a_key_that_a_changed_table_does_not_make_stays(world, pauses):
    """The table was changed in the pause: what fitted its keys before may be anybody's now."""
    config = many(world, 2)
    world.sql("DELETE FROM m0 WHERE id = 3", "DELETE FROM m1 WHERE id = 3")
    pauses.within[2] = lambda: world.sql("ALTER TABLE m1 MODIFY id int(8) ZEROFILL")
    assert {name: (each.extra, each.deleted) for name, each in pruned(config).items()} == {"m0": (1, 1), "m1": (0, 0)}
    assert b"m1_3" in world.hashes()


def test_a_prune_that_falls_due_in_the_pause_stays_due(world, pauses):
    """A run was there meanwhile, and may have seen rows go; a job that had no pause owes nothing any more."""
    config = many(
        world, 2, more="t datetime DEFAULT '2024-01-01', KEY (t)", incremental={"column": "t"}, full_every="1d"
    )
    world.sql("DELETE FROM m0 WHERE id = 3")
    with RedisClient(config.target) as target:
        stores = [StateStore(target, name) for name in config.jobs]
        for store in stores:
            store.owe_prune("before")
        pauses.within[1] = lambda: stores[0].owe_prune("meanwhile")
        assert [each.deleted for each in pruned(config).values()] == [1, 0]
        assert [store.owes_prune() for store in stores] == [True, False]


def test_differences_are_repaired_after_shared_pauses(world, pauses):
    """Each job under its lock, which it does not hold in a pause; then all is equal."""
    config = many(world)
    for number in range(COUNT):
        spoil(world, number)
    held = []
    pauses.within = dict.fromkeys((1, 2), lambda: held.append(locked(config)))
    found = verified(config, repair=True)
    assert {each.repaired for each in found.values()} == {3}
    assert (len(pauses.all), held) == (2, [[], []])
    assert all(each.is_equal for each in verified(config).values())


def test_a_master_that_was_emptied_before_a_pause(world, pauses):
    """A repair that goes on after a pause would not know of it."""
    config = many(world, 2)
    spoil(world, 0)
    gone = []

    def emptied(self):
        gone.append(self.run)
        return dict.fromkeys(["node"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Markers, "read", emptied)
        pauses.within[1] = patch.undo
        found = verified(config, repair=True)
    assert str(found["m0"]) == f"{GONE}: repeat the command"
    assert (pauses.all, len(gone)) == ([], 2)


def test_a_job_that_is_locked_in_the_pause_is_tried_again(world, pauses):
    """For a while; then it fails alone."""
    config = many(world, 3)
    for number in range(3):
        world.sql(f"DELETE FROM m{number} WHERE id = 3")
    brief, long = (Lock(config.target, name, f"of {name}") for name in ("m0", "m1"))
    with RedisClient(config.target) as one, RedisClient(config.target) as other:
        pauses.within = {1: lambda: (brief.take(one), long.take(other)), 2: lambda: brief.drop(one)}
        found = pruned(config)
        long.drop(other)
    assert (found["m0"].deleted, found["m1"].exit_code, found["m2"].deleted) == (1, Exit.LOCKED, 1)
    assert len(pauses.all) == turns.HELD
    assert {key for key in world.hashes() if key.endswith(b"_3")} == {b"m1_3"}


def test_a_source_that_dies_in_the_pause_fails_its_jobs_alone(world, pauses, monkeypatch):
    """What the others have found is told; only one job waits for the server until its deadline."""
    many(world, 4)
    again, proxy = [], Proxy(world.lab.mysql_port)
    jobs = {
        f"m{number}": {
            "table": f"m{number}",
            "key": f"m{number}_{{id}}",
            "source": "away" if number in {0, 2} else "here",
            "deadline": "1s",
        }
        for number in range(4)
    }
    sources = {"here": source(world), "away": source(world, proxy.port)}
    config = Config.model_validate({"version": 1, "target": target(world), "sources": sources, "jobs": jobs})
    for number in range(4):
        spoil(world, number)
    opened = JobSession.__init__

    def noting(self, settings, job, *words, **options):
        again.append((job.name, options["again"]))
        opened(self, settings, job, *words, **options)

    monkeypatch.setattr(JobSession, "__init__", noting)
    pauses.within[1] = proxy.__exit__
    found = verified(config)
    failed = {name: each.exit_code for name, each in found.items() if isinstance(each, LoaderError)}
    assert failed == {"m0": Exit.UNREACHABLE, "m2": Exit.UNREACHABLE}
    assert counts({name: found[name] for name in ("m1", "m3")}) == {"m1": (1, 1, 1), "m3": (1, 1, 1)}
    assert [name for name, is_again in again[4:] if is_again] == ["m0", "m1", "m3", "m1", "m3"]


def test_a_signal_in_the_pause(world, pauses):
    """What has ended is told, in order, jobs that wait are stopped, and nothing stays locked."""
    config = many(world, 4)
    spoil(world, 1)

    def stop():
        raise Stopped.by("SIGINT")

    pauses.within[1] = stop
    jobs, told = list(config.jobs.values()), {}
    works = in_turn(jobs, lambda job, turn: verify_module.verify_in_turn(config, job, turn, repair=True))
    with pytest.raises(Stopped):
        told.update((job.name, ended) for job, ended in works)
    assert list(told) == ["m0", "m1", "m2", "m3"]
    assert {name for name, each in told.items() if isinstance(each, Stopped)} == {"m1"}
    assert locked(config) == []


def test_jobs_that_wait_go_on_amid_a_long_one(world, pauses, monkeypatch):
    """Between two chunks of another job, which stays open; no pause is waited for."""
    config = many(world, 2, chunk_rows=1)
    spoil(world, 0)
    compare, order = JobRows.compare, []

    def slow(rows, *args):
        order.append(rows.session.plan.job.name)
        pauses.now += PAUSE if order[-1] == "m1" else 0
        return compare(rows, *args)

    monkeypatch.setattr(JobRows, "compare", slow)
    assert counts(verified(config)) == {"m0": (1, 1, 1), "m1": (0, 0, 0)}
    assert order == ["m0"] * 3 + ["m1", "m0", "m0"] * 2 + ["m1"]  # two rows differ
    assert (pauses.all, pauses.early) == ([], [])


def test_few_keys_are_kept_in_all(world, pauses, monkeypatch):
    """No other job begins while too many keys wait."""
    config = many(world, 4)
    for number in range(4):
        spoil(world, number)
    monkeypatch.setattr(recheck, "PENDING", 5)
    assert counts(verified(config)) == {f"m{number}": (1, 1, 1) for number in range(4)}
    assert (len(pauses.all), pauses.early) == (4, [])


def test_a_single_job_stays_open_and_locked_in_its_pauses(world, pauses, monkeypatch):
    """Nobody else has a use for them."""
    config = many(world, 1)
    spoil(world, 0)
    held = []
    pauses.within = dict.fromkeys((1, 2), lambda: held.append(locked(config)))
    monkeypatch.setattr(recheck.Waiting, "pop", lambda self, _: pauses.pop(self, pauses.sleep))
    assert pruned(config)["m0"].deleted == 1
    assert (len(pauses.all), held) == (2, [["m0"]] * 2)


def command(world, tmp_path, *words):
    """The exit code of a command, over the jobs of the tables."""
    jobs = {f"m{number}": {"table": f"m{number}"} for number in range(4)}
    path = tmp_path / "loader.yaml"
    path.write_text(json.dumps({"version": 1, "source": source(world), "target": target(world), "jobs": jobs}))
    with pytest.raises((SystemExit, Stopped)) as ended:
        app_of()(["-c", str(path), *words])
    return ended.value.exit_code if isinstance(ended.value, Stopped) else ended.value.code


@pytest.mark.parametrize("words", [("verify",), ("prune", "--max-delete", "50%")])
def test_documents_come_in_the_order_of_the_jobs(world, tmp_path, pauses, capsys, words):
    """Though the first job ends last; the exit code is that of the first failure."""
    many(world, 4)
    spoil(world, 0)
    world.sql("DROP TABLE m2")
    assert command(world, tmp_path, *words, "--all", "-o", "json", "--progress", "none") == Exit.CONFIG
    out = capsys.readouterr().out
    assert [json.loads(line)["job"] for line in out.splitlines()] == ["m0", "m1", "m2", "m3"]
    assert len(pauses.all) == 2


def test_a_command_that_is_stopped_in_a_pause_tells_what_it_has(world, tmp_path, pauses, capsys):
    """And how many were stopped."""
    many(world, 4)
    spoil(world, 1)

    def stop():
        raise Stopped.by("SIGTERM")

    pauses.within[1] = stop
    assert command(world, tmp_path, "verify", "--all", "--progress", "none") == Exit.SIGTERM
    out = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in out] == ["m0", "m2", "m3", "4 jobs"]
    assert out[-1] == "4 jobs: 3 ok, 1 stopped"
