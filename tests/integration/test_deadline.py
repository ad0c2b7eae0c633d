"""A run ends when its deadline has passed, whatever hangs; and nothing that hangs holds up more than its own time."""

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from math import inf

import pytest
import redis

from loader.config.servers import SourceConfig, TargetConfig
from loader.errors import Kind, LoaderError, SourceError, TargetError
from loader.jobs.execute import execute
from loader.jobs.verify import verify
from loader.model import ChunkLoaded
from loader.mysql.connection import Connection
from loader.net import limit
from loader.pipeline import retry
from loader.pipeline.options import Options
from loader.pipeline.retry import retry_transient
from loader.pipeline.run import run_job
from loader.pipeline.throttle import Throttle
from loader.pipeline.worker import ChunkWorker
from loader.redis.client import RedisClient
from loader.state.lock import Lock
from support.command import HOST, STU, Desk, redis_server
from support.database import Clock, Ear
from support.proxy import DOWN, Proxy

DEADLINE = 2
SOON = 8  # seconds after its deadline within which a run ends; on a machine with nothing else to do, 5


class Servers:
    """A table of a few chunks and a standalone Redis; both servers may fall silent, each connection of theirs."""

    def __init__(self, world, port):
        self.world = world
        with redis.Redis(HOST, port) as client:
            self._redis = client.info("server")["process_id"]
        world.sql("CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1,1),(2,2),(3,3),(4,4)")
        config = world.config(table="t", chunk_rows=1, deadline=f"{DEADLINE}s")
        target = TargetConfig.model_validate({"url": f"redis://{HOST}:{port}"})
        self.config = config.model_copy(update={"target": target})
        self.job = self.config.jobs["job"]

    def silence(self, *names, number=signal.SIGSTOP):
        if "mysql" in names:
            self.world.lab.kill("mysql", number)
        if "redis" in names:
            os.kill(self._redis, number)

    def mend(self):
        self.silence("mysql", "redis", number=signal.SIGCONT)


@pytest.fixture
def servers(world, tmp_path):
    (tmp_path / "alone").mkdir()
    with redis_server(tmp_path / "alone") as port:
        servers = Servers(world, port)
        try:
            yield servers
        finally:
            servers.mend()


class First(Ear):
    """Does something when the first chunk is loaded, and knows when."""

    def __init__(self, action):
        super().__init__()
        self.action = action
        self.began = 0.0

    def notify(self, event):
        super().notify(event)
        if isinstance(event, ChunkLoaded) and not self.began:
            self.began = time.monotonic()
            self.action()


@pytest.mark.parametrize("names", [["mysql"], ["mysql", "redis"]])
def test_what_falls_silent_amid_a_run_is_waited_for_until_the_deadline(servers, names):
    """Logins, statements, commands, looks at the nodes and the end of the run share one time."""
    ear = First(lambda: servers.silence(*names))
    run = execute(servers.config, servers.job, Options(resume=True), ear)
    took = time.monotonic() - ear.began
    assert (run.status, run.exit_code) == ("failed", 4)
    assert DEADLINE - 0.5 < took < DEADLINE + SOON


def test_what_is_silent_from_the_start(servers):
    """Of a run, and of a comparison."""
    servers.silence("mysql", "redis")
    began = time.monotonic()
    run = execute(servers.config, servers.job, Options(), Ear())
    assert run.exit_code == 4
    with pytest.raises(SourceError):
        verify(servers.config, servers.job, repair=True)
    assert time.monotonic() - began < 2 * (DEADLINE + SOON)


def test_a_slow_statement_is_no_silence(world):
    """A server that lets others in is at work, and may take its time; one that does not has failed."""
    with Connection(world.config(table="t").source) as source, limit.trying(1.0):
        assert source.fetch("SELECT SLEEP(1.6)") == [("0",)]


def test_who_fell_silent_has_failed_since_then(monkeypatch):
    """What was waited for in vain is no time to try again in; so is that of an inner attempt."""
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr("loader.pipeline.throttle.time", clock)
    tries = []

    def silent():
        tries.append(clock.now)
        clock.sleep(4.0)
        error = TargetError("no", kind=Kind.UNAVAILABLE)
        error.waited = 4.0
        raise error

    with pytest.raises(TargetError) as caught:
        retry_transient(silent, 10.0, Throttle())
    assert tries[-1] - 1000 < 10
    assert caught.value.waited >= 10
    tries.clear()
    with pytest.raises(TargetError):
        retry_transient(lambda: retry_transient(silent, 10.0, Throttle()), 8.0, Throttle())
    assert len(tries) == 3


def test_nothing_is_tried_again_once_a_worker_has_failed():
    """Its error is the run's."""
    throttle = Throttle()
    throttle.failure = LoaderError("the first")

    def fail():
        raise TargetError("no", kind=Kind.UNAVAILABLE)

    with pytest.raises(LoaderError, match="the first"):
        retry_transient(fail, 10.0, throttle)


def test_what_may_be_waited_for():
    """No longer than whoever tries has left, but for a moment; where all is to be over, not even that."""
    now = time.monotonic()
    assert limit.allowed(10) == 10
    with limit.trying(4.0):
        assert limit.allowed(10) == 4
        assert limit.allowed(3) == 3
        with limit.trying(8.0, now + 2):
            assert limit.allowed(10, now) == pytest.approx(2)
            assert limit.allowed(10, now + 5) == limit.GRACE
            assert limit.end() == inf
            with limit.until(now + 0.2):
                assert limit.allowed(10, now + 1) == limit.LEAST
                assert limit.end() == now + 0.2
    assert limit.allowed(10) == 10


def test_redis_drips(world, tmp_path):
    """A command has one time, login and reply and all, not one for each byte."""
    with redis_server(tmp_path) as port, Proxy(port) as proxy:
        proxy.reset(drip=(DOWN, b"# Cluster", 0.2))
        began = time.monotonic()
        with pytest.raises(TargetError, match="Timeout") as caught:
            RedisClient(TargetConfig.model_validate({"url": f"redis://{HOST}:{proxy.port}", "timeout": "1s"}))
        assert caught.value.transient
        assert time.monotonic() - began < 2


def test_mysql_drips(world):
    """So has a small result; rows may come one by one."""
    with Proxy(world.lab.mysql_port) as proxy:
        account = {"password": world.lab.password, "read_timeout": "1s"}
        settings = SourceConfig.model_validate({"url": f"mysql://loader@{HOST}:{proxy.port}/{world.name}"} | account)
        proxy.reset(drip=(DOWN, b"drip", 0.2))
        with Connection(settings) as source:
            began = time.monotonic()
            with pytest.raises(SourceError, match="timed out"):
                source.fetch("SELECT 'dripping for a long time'")
            assert time.monotonic() - began < 2.5


@contextmanager
def answering(reply):
    """The port of a server that answers everything with the same bytes."""
    with socket.create_server((HOST, 0)) as listener:

        def serve():
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    while client.recv(4096):
                        client.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_a_reply_that_does_not_fit_into_memory(world, tmp_path):
    """One line says which server it was."""
    with answering(b"*2147483647\r\n") as port:
        desk = Desk(world, tmp_path)
        desk.write(STU, target={"url": f"redis://{HOST}:{port}", "password": "", "timeout": "1s"})
        limited = ["prlimit", f"--as={700 * 2**20}"]
        result = desk.run("status", within=limited)
    (line,) = result.messages
    assert line.startswith(f"error: redis {HOST}:{port}: a reply does not fit into this machine's memory")
    assert result.code == 1


def test_a_worker_that_does_not_end_leaves_the_fence(world, monkeypatch):
    """What it has sent may be carried out later: whoever comes next shuts it out, and it sends nothing more itself."""
    world.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1),(2)")
    stuck, go, refused = threading.Event(), threading.Event(), []

    def hang(lane, chunk, _):
        if chunk.number == 1:
            stuck.wait(10)
            raise LoaderError("the other one fails")
        stuck.set()
        go.wait(20)
        try:
            lane._throttle.check()
        except LoaderError as error:
            refused.append(str(error))
        go.clear()

    monkeypatch.setattr(ChunkWorker, "load", hang)
    config = world.config(table="t", chunk_rows=1)
    run = run_job(config, config.jobs["job"], Options(workers=2), Ear())
    assert run.error == "the other one fails"
    assert world.redis.hkeys("loader:{job}:fence") == [run.id.encode()]
    assert not world.redis.exists("loader:{job}:lock")
    go.set()
    deadline = time.monotonic() + 10
    while go.is_set() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert refused == ["the run of job 'job' is over"]
    with RedisClient(config.target) as target:
        lock = Lock(config.target, "job", "next")
        lock.take(target)
        lock.drop(target)
    assert not world.redis.exists("loader:{job}:fence")
