"""Jobs that are followed and that runs want too: who has the lock, who waits, and that nothing is missed by that."""

import threading
from contextlib import contextmanager
from itertools import pairwise

import pytest

from loader.daemon import followers
from loader.daemon.followers import Followers
from loader.errors import Kind, LoaderError, TargetError
from loader.jobs.follow import Following
from loader.model import ChunkLoaded, FollowProgress, Notice
from loader.pipeline.followed_job import FollowedJob
from loader.pipeline.job_context import open_job
from loader.pipeline.load_guard import LoadGuard
from loader.pipeline.options import Options
from loader.pipeline.run import new_id, run_job
from loader.pipeline.throttle import StopRequest
from loader.report.log import Log
from loader.state.markers import Markers
from support.database import Ear, Halter
from support.following import Running, caught_up, config_of, differences, following, jobs_of

TWO = {"a": {"table": "f", "key": "f_{id}"}, "b": {"table": "g", "key": "g_{id}"}}
A, B = "loader:{a}:wanted", "loader:{b}:wanted"
LONG = 60_000  # milliseconds that nobody wants to wait for


@pytest.fixture
def tables(server):
    """Two tables of 2,000 rows."""
    for name in ("f", "g"):
        server.sql(
            f"DROP TABLE IF EXISTS {name}",
            f"CREATE TABLE {name} (id INT PRIMARY KEY, n INT)",
            f"INSERT INTO {name} VALUES " + ", ".join(f"({number}, {number})" for number in range(1, 2001)),
        )
    return server


@pytest.fixture
def both(tables, world):
    """The config of two jobs, which have all rows."""
    config = jobs_of(tables, world, **TWO)
    caught_up(config)
    return config


@contextmanager
def locked(config, name):
    """A run that has the lock of a job."""
    with open_job(config, config.jobs[name], Options()) as context:
        context.lock(new_id())
        yield


def changed(tables, table, value):
    tables.sql(f"UPDATE {table} SET n = {value} WHERE id = 1")


def shows(world, table, value):
    return lambda: world.redis.hget(f"{table}_1", "n") == b"%d" % value


def told(running):
    return [event.text for event in running.ear.events if isinstance(event, Notice)]


def test_a_run_comes_while_another_is_let_in(tables, world, both, monkeypatch):
    """A job that is wanted while the follower opens all again is let go too; the follower does not end by that."""
    real = Following._is_changing

    def change(self, contexts):
        is_changing = real(self, contexts)
        if is_changing and "b" not in self._lent:
            world.redis.set(B, "a run", px=LONG)
        return is_changing

    monkeypatch.setattr(Following, "_is_changing", change)
    running = following(both)
    world.redis.set(A, "a run", px=LONG)
    running.until(lambda: running.following._lent == {"a", "b"})
    monkeypatch.undo()
    changed(tables, "f", 5)
    changed(tables, "g", 5)
    world.redis.delete(A)
    running.until(shows(world, "f", 5))
    assert shows(world, "g", 1)()
    world.redis.delete(B)
    running.until(shows(world, "g", 5))
    assert {each.job for each in running.stop()} == {"a", "b"}


def test_a_run_has_a_job_from_the_start(tables, world, both):
    """The others are followed, which is told; that one as soon as the run is over."""
    changed(tables, "f", 5)
    changed(tables, "g", 5)
    with locked(both, "a"):
        running = Running(both)
        running.until(shows(world, "g", 5))
        assert shows(world, "f", 1)()
        (why,) = told(running)
        assert why.startswith("not followed for now: job 'a' is locked by run")
    running.until(shows(world, "f", 5))
    running.stop()
    assert told(running) == [why]


def test_who_has_to_catch_up_does_not_wait_for_a_run(both):
    """It is refused if a job is locked; and any follower if all are."""
    with locked(both, "a"), pytest.raises(LoaderError, match="job 'a' is locked by run") as refused:
        caught_up(both)
    assert refused.value.kind is Kind.LOCKED
    with locked(both, "a"), locked(both, "b"), pytest.raises(LoaderError, match="job 'a' is locked by run"):
        Following(both, list(both.jobs.values()), lambda _: Ear()).run()


def test_who_has_to_catch_up_does_so_with_all(tables, world, both, monkeypatch):
    """A job that was let go meanwhile is waited for: nothing has caught up before."""
    busy = ["MySQL has too much to do"]
    monkeypatch.setattr(LoadGuard, "busy", lambda _: busy[0])
    changed(tables, "f", 5)
    changed(tables, "g", 5)
    running = Running(both, until_caught_up=True)
    running.until(lambda: running.following.is_following)
    world.redis.set(A, "a run", px=LONG)
    running.until(lambda: running.following._lent == {"a"})
    busy[0] = ""
    running.until(shows(world, "g", 5))
    running.until(lambda: any(isinstance(each, FollowProgress) and each.is_caught_up for each in running.ear.events))
    assert shows(world, "f", 1)()
    world.redis.delete(A)
    running.until(lambda: running.results)
    assert {each.job for each in running.stop()} == {"a", "b"}
    assert shows(world, "f", 5)()


def test_a_pass_locks_no_other_job(tables, world):
    """While all rows of one job are read, which may take hours, a run of another that is to be followed is let in."""
    config = jobs_of(tables, world, **TWO)
    caught_up(config.model_copy(update={"jobs": {"a": config.jobs["a"]}}))
    running = Running(config, Options(rate=100, chunk_rows=10))
    running.until(lambda: any(isinstance(event, ChunkLoaded) for event in running.ear.events))
    changed(tables, "f", 5)
    run = run_job(config, config.jobs["a"], Options(), Ear())
    assert (run.status, run.read) == ("ok", 2000)
    assert shows(world, "f", 5)()
    assert running.results == []
    running.stop()
    assert not world.redis.exists("g_2000")


class Taker(Ear):
    """Has another run take the lock of the job before all rows are read."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.context = None

    def notify(self, event):
        super().notify(event)
        if isinstance(event, Notice) and "all rows are read" in event.text:
            self.context = open_job(self.config, self.config.jobs["job"], Options())
            self.context.lock(new_id())


def test_a_pass_does_not_take_up_what_was_read_before_its_position(tables, world):
    """Chunks of a backfill that was stopped are read again: rows may have changed since, before the position."""
    config = config_of(tables, world)
    job, halt = config.jobs["job"], StopRequest()
    run = run_job(config, job, Options(resume=True, halt=halt, chunk_rows=500), Halter(halt))
    assert 0 < run.chunks_done < 4
    assert world.redis.exists("loader:{job}:checkpoint")
    changed(tables, "f", 777)
    taker = Taker(config)
    with pytest.raises(LoaderError, match="locked by run"):
        Following(config, [job], lambda _: taker).run(until_caught_up=True)
    taker.context.close()

    caught_up(config)
    assert shows(world, "f", 777)()
    assert differences(config) == (0, 0, 0)


@pytest.mark.parametrize("fails", [False, True])
def test_another_run_may_have_had_the_lock(tables, world, monkeypatch, fails):
    """What it may have written over is written again before a position is stored, also if Redis is away meanwhile."""
    monkeypatch.setattr("loader.pipeline.follow.LOOK_EVERY", 1000.0)
    config = config_of(tables, world)
    running = following(config)
    real, restore, failures = Markers.read, FollowedJob.restore, []

    def fail(*_):
        failures.append(TargetError("redis is away", kind=Kind.UNAVAILABLE))
        monkeypatch.setattr(Markers, "read", real)
        raise failures[-1]

    def look(self, source):
        if fails and self.is_doubtful and not failures:
            monkeypatch.setattr(Markers, "read", fail)
        return restore(self, source)

    monkeypatch.setattr(FollowedJob, "restore", look)
    changed(tables, "f", 33)
    running.until(shows(world, "f", 33))
    world.redis.hset("f_1", "n", "1")  # what that run had read before, and wrote then
    world.redis.delete("loader:{job}:lock")
    running.until(shows(world, "f", 33))
    running.stop()
    assert len(failures) == fails
    assert differences(config) == (0, 0, 0)


def test_a_fault_of_this_program_does_not_end_following(monkeypatch, world, caplog):
    """It is told, and tried again; pauses grow while a follower fails soon, whatever it had begun."""
    config = world.config_of({"a": {"table": "f", "key": "f_{id}", "follow": True}})
    pauses, reasons, done = [], [], threading.Event()

    class Failing(Following):
        is_following = True

        def run(self):
            if len(pauses) == 3:
                done.set()
                raise LoaderError("mysql is away", kind=Kind.UNAVAILABLE)
            raise AssertionError("a row")

    class Stopping(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)
            return super().wait(0 if len(pauses) < 4 else timeout)

    monkeypatch.setattr(followers, "Following", Failing)
    monkeypatch.setattr(followers.threading, "Event", Stopping)
    log = Log("json", "info", color=False)
    each = Followers(lambda _: Ear(), lambda jobs, why: reasons.append(([*jobs], why)), log)
    each.set(config)
    assert done.wait(30)
    each.stop(30)
    assert reasons == [(["a"], "unexpected AssertionError")] * 3 + [(["a"], "mysql is away")]
    assert caplog.text.count("following failed: please report this") == 3
    assert all(before * 1.1 < after for before, after in pairwise(pauses[:4])), pauses
