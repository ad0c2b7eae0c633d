"""A bad network in the middle of a load: cut after every byte, stalled, slow, or dead without a word."""

import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress

import pytest
import redis

from loader.model import ChunkLoaded, Waiting
from loader.mysql.connection import Connection
from loader.pipeline import retry
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from support.command import HOST, redis_server
from support.database import Ear, standalone_config
from support.proxy import DOWN, UP, Proxy

ROWS = {
    b"t_1": {b"id": b"1", b"name": "张三丰".encode(), b"note": b"x" * 40},
    b"t_2": {b"id": b"2", b"name": b"a 'b' \"c\""},
    b"t_3": {b"id": b"3", b"name": b"", b"note": b"\r\n"},
}


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """A standalone Redis."""
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture
def client(port):
    with redis.Redis(HOST, port) as client:
        client.flushall()
        yield client


@pytest.fixture
def table(world):
    """Three rows, one of them with a NULL."""
    world.sql("CREATE TABLE t (id int PRIMARY KEY, name varchar(20), note text)")
    world.sql(
        "INSERT INTO t VALUES (1, '张三丰', REPEAT('x', 40)), (2, %s, NULL), (3, '', '\\r\\n')", args=["a 'b' \"c\""]
    )
    return world


@pytest.fixture
def hasty(monkeypatch):
    """Pauses between two attempts as short as can be."""
    monkeypatch.setattr(retry, "PAUSE_FIRST", 0.001)


def run(settings, ear=None, **options):
    return run_job(settings, settings.jobs["job"], Options(workers=1, **options), ear or Ear())


def stored(client):
    return {key: client.hgetall(key) for key in client.scan_iter() if not key.startswith(b"loader:")}


@pytest.fixture
def every(request):
    """Whether no byte is left out."""
    return request.config.getoption("--every-byte")


def places(first, last, step=1):
    """Where to cut, (direction, n), between two counts of the bytes that went each way."""
    return [(direction, n) for direction in (UP, DOWN) for n in range(first[direction], last[direction], step)]


def cut_at(places, proxy, client, settings, **options):
    """Load through a proxy that cuts there, once each: how many runs failed and were right when they were repeated."""
    failed = 0
    for place in places:
        client.flushall()
        proxy.reset(cut=place)
        done = run(settings, **options)
        assert done.seconds < 9.5, (place, done)  # nothing is waited for until it is given up: that would take 10
        if done.status != "ok":
            assert done.exit_code == 4, (place, done)
            failed += 1
            proxy.reset()
            done = run(settings, **options)
        assert (done.status, done.read, done.written, done.rejected) == ("ok", 3, 3, 0), (place, done)
        assert stored(client) == ROWS, (place, done)
    return failed


@pytest.mark.parametrize(("resume", "step"), [(False, 6), (True, 20)])
def test_n1_redis_is_cut_off_after_any_byte(table, port, client, hasty, every, resume, step):
    """Whatever was sent and whatever was acknowledged: the run goes on, and every row is exact and counted once.

    Some bytes of the planning, the lock and the markers, more of the connection that the rows take; `scripts/cuts.sh`
    leaves none out.
    """
    with Proxy(port) as proxy:
        settings = standalone_config(table, target=proxy.port)
        assert run(settings, resume=resume).status == "ok"
        rows, end = proxy.begun[-2], Counter(proxy.seen)  # the last one looks at what masters have thrown away
        before = places(Counter(), rows, 1 if every else 20 * step)
        where = [*before, *places(rows, end, 1 if every else 10 * step)]
        assert cut_at(where, proxy, client, settings, resume=resume) == 0
        proxy.reset()
        assert run(settings, resume=resume).status == "ok"  # it clears away what the last one was cut off from
        assert [key for key in client.scan_iter() if key.startswith(b"loader:")] == []


def statement_and_rows(proxy, settings):
    """How many bytes went each way when a worker has logged in, and when it has read a chunk."""
    proxy.reset()
    with Connection(settings.source) as source:
        before = Counter(proxy.seen)
        source.fetch("SELECT `id`, `name`, `note`\nFROM `t`")
        return before, Counter(proxy.seen)


def test_n1_mysql_is_cut_off_after_any_byte(table, port, client, hasty, every):
    """The same for MySQL, from a worker's login on; a run that is cut off in its plan fails as one to be repeated."""
    with Proxy(table.lab.mysql_port) as proxy:
        settings = standalone_config(table, mysql=proxy.port, target=port)
        logged_in, read = statement_and_rows(proxy, settings)
        proxy.reset()
        assert run(settings).status == "ok"
        planned, end = proxy.begun[1], Counter(proxy.seen)
        cut_at(places(Counter(), planned, 1 if every else 240), proxy, client, settings)
        where = [
            *places(planned, planned + logged_in, 1 if every else 60),
            *places(planned + logged_in, planned + read, 1 if every else 6),
            *places(planned + read, end, 1 if every else 60),
        ]
        assert cut_at(where, proxy, client, settings) == 0


def reasons(ear):
    return [event.reason for event in ear.events if isinstance(event, Waiting)]


def test_n2_redis_takes_rows_and_does_not_answer(table, port, client):
    """Silence for the configured time means that nobody knows: the chunk is written again, on a new connection."""
    with Proxy(port) as proxy:
        settings, ear = standalone_config(table, target=proxy.port, silence="1s"), Ear()
        proxy.reset(hold=(DOWN, b"+OK\r\n+OK\r\n"))
        done = run(settings, ear)
    assert (done.status, done.written, done.chunks_retried) == ("ok", 3, 1)
    assert reasons(ear) == [f"redis {HOST}:{proxy.port}: no reply for 1 s"]
    assert stored(client) == ROWS


@pytest.mark.parametrize("mark", [b"x" * 40, b"\x013\0\2\r\n"])  # amid the rows, and before the last
def test_n2_mysql_falls_silent(table, port, client, mark):
    """The same for MySQL: after the configured time the chunk is read again."""
    with Proxy(table.lab.mysql_port) as proxy:
        settings, ear = standalone_config(table, mysql=proxy.port, target=port, silence="1s"), Ear()
        run(settings)
        client.flushall()
        proxy.reset(hold=(DOWN, mark))
        done = run(settings, ear)
    assert (done.status, done.written, done.chunks_retried) == ("ok", 3, 1), done
    assert "timed out" in reasons(ear)[0]
    assert done.seconds < 10
    assert stored(client) == ROWS


def test_n3_rows_that_were_given_up_arrive_late(table, port, client):
    """What a connection still had under way never lands over what was written after it."""

    class Newer(Ear):
        def notify(self, event):
            super().notify(event)
            if isinstance(event, Waiting):
                table.sql("UPDATE t SET name = 'newer'")

    with Proxy(port) as proxy:
        settings = standalone_config(table, target=proxy.port, silence="1s")
        proxy.reset(hold=(UP, b"HMSET"))
        done = run(settings, Newer())
        proxy.release()
        time.sleep(0.3)
    assert (done.status, done.written, done.chunks_retried) == ("ok", 3, 1)
    assert stored(client) == {key: fields | {b"name": b"newer"} for key, fields in ROWS.items()}


@pytest.mark.parametrize(
    ("side", "drip"),
    [
        ("redis", (UP, b"HMSET", 0.01)),
        ("redis", (DOWN, b"+OK\r\n+OK\r\n", 0.1)),
        ("mysql", (UP, b"SELECT `id`", 0.04)),
        ("mysql", (DOWN, ROWS[b"t_1"][b"name"], 0.004)),
    ],
)
def test_n4_bytes_come_one_by_one(table, port, client, side, drip):
    """As long as anything comes, nothing is given up, however long the whole takes."""
    with Proxy(port if side == "redis" else table.lab.mysql_port) as proxy:
        ends = {"target": proxy.port} if side == "redis" else {"mysql": proxy.port, "target": port}
        proxy.reset(drip=drip)
        started = time.monotonic()
        silence = {("mysql", UP): "20s", ("redis", UP): "2s"}.get((side, drip[0]), "1s")  # a statement is one thing
        done = run(standalone_config(table, **ends, silence=silence))
    assert (done.status, done.written, done.chunks_retried) == ("ok", 3, 0), done
    assert time.monotonic() - started > (0.3 if drip[1] in ROWS[b"t_1"].values() else 1)  # rows are few bytes
    assert stored(client) == ROWS


@contextmanager
def slow_line(port, rate):
    """A port whose connections bring so many bytes a second to the server, and take no more in than they bring."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        listener.bind((HOST, 0))
        listener.listen()

        def bring(source, sink, pause):
            with suppress(OSError):
                while data := source.recv(20_000):
                    sink.sendall(data)
                    time.sleep(len(data) / rate if pause else 0)
            for each in (source, sink):
                each.close()

        def serve():
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = socket.create_connection((HOST, port))
                    for words in ((client, server, True), (server, client, False)):
                        threading.Thread(target=bring, args=words, daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_n4_a_line_that_is_slower_than_the_timeout(table, port, client):
    """What waits to be sent is not silence: a batch may be under way for longer than a node may be silent."""
    table.sql("CREATE TABLE wide (id int PRIMARY KEY, text longtext)")
    table.sql("INSERT INTO wide VALUES (1, REPEAT('x', 4000000))")
    with slow_line(port, 1_000_000) as slow:
        settings = standalone_config(table, target=slow, silence="1s", table="wide")
        started = time.monotonic()
        done = run(settings)
    assert (done.status, done.written, done.chunks_retried) == ("ok", 1, 0), done
    assert time.monotonic() - started > 2
    assert client.hlen("wide_1") == 2


@pytest.mark.parametrize("side", ["redis", "mysql"])
def test_n6_idle_connections_die_without_a_word(table, port, client, side):
    """Something between forgot the connections between two chunks: they are made anew, and nothing is lost."""
    with Proxy(port if side == "redis" else table.lab.mysql_port) as proxy:

        class Forgetful(Ear):
            def notify(self, event):
                if isinstance(event, ChunkLoaded) and not self.events:
                    proxy.freeze()
                super().notify(event)

        ends = {"target": proxy.port} if side == "redis" else {"mysql": proxy.port, "target": port}
        done = run(standalone_config(table, **ends, silence="1s", chunk_rows=1), Forgetful())
    assert (done.status, done.read, done.written) == ("ok", 3, 3), done
    assert done.chunks_retried > 0
    assert done.seconds < 10
    assert stored(client) == ROWS
