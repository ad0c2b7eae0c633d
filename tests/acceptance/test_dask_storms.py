"""Backfills by a Dask cluster while servers die and slots move: nothing is lost, and all ends well."""

from contextlib import ExitStack, contextmanager

import pytest
import redis

from loader.lab.process import wait
from loader.wire.slots import slot_of
from support.command import Desk, finish
from support.dask import dask_servers
from support.faults import Migration, broken_lab, storm_on

LOCK = b"loader:{big}:lock"
SLOW = {"big": {"table": "big", "chunk_rows": 200, "fields": {"name": "name", "nap": "SLEEP(0.001)"}}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with broken_lab(tmp_path_factory.mktemp("storms")) as lab:
        yield lab


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with dask_servers(tmp_path_factory.mktemp("dask")) as servers:
        servers.add()
        servers.add()
        yield servers


@pytest.fixture
def storm(lab, tmp_path):
    with storm_on(lab, tmp_path) as storm:
        yield storm


def begin(storm, cluster, directory):
    """Begin a backfill of six thousand rows, which takes 3 s, and wait until some of them are there."""
    storm.world.sql("CREATE TABLE IF NOT EXISTS test.stu (sid INT PRIMARY KEY)")
    desk = Desk(storm.world, directory)
    desk.write(SLOW, target={"url": storm.url.replace("//", "//marked@")})
    process = desk.start("backfill", "big", "-o", "json", "--dask", cluster.address)
    reach(storm, 600)
    return process


def reach(storm, count):
    """Wait for so many hashes on all masters together."""

    def there():
        nodes = [storm.client(name) for name in storm.names("master")]
        try:
            return sum(node.dbsize() for node in nodes) >= count
        except redis.RedisError:
            return False
        finally:
            for node in nodes:
                node.close()

    wait(there, f"{count} hashes")


def check(storm, done):
    """All rows were read and written, and are there; nothing is left of the run."""
    assert done.code == 0, done.document
    assert done.document["rows"]["written"] == 6000
    storm.settle()
    rows = storm.world.sql("SELECT id, name FROM big")
    hashes = {key: fields[b"name"] for key, fields in storm.world.hashes().items()}
    assert hashes == {b"big_%d" % number: name.encode() for number, name in rows}
    assert storm.world.state() == set()


def keys(storm, name, pattern):
    """The keys of a node that fit a pattern."""
    with storm.client(name) as client:
        return client.keys(pattern)


def owner(storm, slot):
    """The master of a slot."""
    node = storm.world.redis.nodes_manager.get_node_from_slot(slot)
    return next(name for name, port in storm.lab.redis_ports.items() if port == node.port)


@contextmanager
def moving(storm, slots):
    """The moves of these slots from each master to another one; they are finished at the end."""
    with ExitStack() as stack:
        clients = {name: stack.enter_context(storm.client(name)) for name in storm.names("master")}
        moves = []
        for name, client in clients.items():
            goal = next(clients[other] for other in clients if other != name)
            moves.append(Migration(client, goal, [slot for slot in slots if owner(storm, slot) == name]))
        try:
            yield moves
        finally:
            for move in moves:
                move.finish()


def test_slots_move(storm, cluster, tmp_path):
    """Those of rows and markers, which have to go elsewhere; and that of lock and owners, whose end is waited for."""
    process = begin(storm, cluster, tmp_path)
    own = slot_of(LOCK)
    markers = {slot_of(key) for name in storm.names("master") for key in keys(storm, name, "loader:marker:*")}
    assert len(markers) == 3
    with moving(storm, (markers | set(range(0, 16384, 400))) - {own}) as moves:
        for move in moves:
            move.move(1)
        reach(storm, 2500)
    with moving(storm, [own]) as moves:
        assert any(move.move(1) for move in moves)
        with storm.client(owner(storm, own)) as node:
            wait(lambda: "errorstat_TRYAGAIN" in node.info("errorstats"), "somebody to need both halves")
    check(storm, finish(process))


def test_a_master_dies(storm, cluster, tmp_path):
    """That of the lock and the owners of chunks: its replica takes over, client and workers find it."""
    process = begin(storm, cluster, tmp_path)
    storm.lab.kill(owner(storm, slot_of(LOCK)))
    check(storm, finish(process))


def test_mysql_is_restarted(storm, cluster, tmp_path):
    """Killed and started again: the chunks under way are read again."""
    process = begin(storm, cluster, tmp_path)
    storm.world.mysql.close()
    storm.lab.kill("mysql")
    wait(lambda: storm.lab.start("mysql"), "mysql to end and to start")
    storm.world.mysql.connect()
    storm.world.sql(f"USE {storm.world.name}")
    check(storm, finish(process))
