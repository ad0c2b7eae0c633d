"""A replica as the source: what its primary changes comes through it, and one takes the other's place."""

import threading

import pytest
from test_barrier import commits_wait, told
from test_follow import config_of, differences, following

from loader.errors import PositionLost
from loader.jobs.follow import Following
from loader.lab.process import wait
from loader.model import RunEnded
from loader.mysql import barrier
from support.binlog import BinlogServer
from support.database import Ear
from support.proxy import Proxy

ROWS = 400


@pytest.fixture(scope="module")
def replica(server, tmp_path_factory):
    """A replica of the server, with a binlog of its own that has the primary's transactions."""
    replica = BinlogServer(tmp_path_factory.mktemp("replica"))
    replica.stop()
    replica.passwords["loader"] = server.passwords["loader"]
    account = f"{{0}}_HOST = '127.0.0.1', {{0}}_PORT = {server.port}, {{0}}_USER = 'loader', {{0}}_PASSWORD = '{{1}}',"
    accounts = ["SET sql_log_bin = 0", f"ALTER USER loader@'%' IDENTIFIED BY '{server.passwords['loader']}'"]
    if server.is_mariadb:
        replica.start("--server-id=2", "--log-slave-updates", "--slave-parallel-threads=4")
        replica.sql(
            *accounts,
            "RESET MASTER",
            f"SET GLOBAL gtid_slave_pos = '{server.gtids().gtids}'",
            f"CHANGE MASTER TO {account.format('MASTER', server.passwords['loader'])} MASTER_USE_GTID = slave_pos",
            "START SLAVE",
        )
    else:
        replica.start("--server-id=2", "--replica-preserve-commit-order=OFF")
        replica.sql(
            *accounts,
            "RESET BINARY LOGS AND GTIDS",
            f"SET GLOBAL gtid_purged = '{server.gtids().gtids}'",
            f"CHANGE REPLICATION SOURCE TO {account.format('SOURCE', server.passwords['loader'])}"
            " SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1",
            "START REPLICA",
        )
    yield replica
    replica.stop()


@pytest.fixture
def pair(server, replica):
    """A primary with a table of some rows, and a replica that has it."""
    server.sql(
        "DROP TABLE IF EXISTS f",
        "CREATE TABLE f (id INT UNSIGNED PRIMARY KEY, n INT)",
        "INSERT INTO f VALUES " + ", ".join(f"({number}, 0)" for number in range(ROWS)),
    )
    level(server, replica)
    return server, replica


def level(server, replica):
    """Wait until the replica has what the primary has."""
    wait(lambda: replica.gtids().gtids == server.gtids().gtids, "the replica")


def change(server):
    """Some transactions at once, so that a replica may run them side by side."""

    def work(first):
        connection = server.connect()
        with connection, connection.cursor() as cursor:
            for number in range(first, ROWS, 4):
                cursor.execute(f"UPDATE f SET n = n + 1 WHERE id = {number}")

    workers = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def test_a_replica_is_followed(pair, world):
    """What the primary changes comes through its replica, also if it is behind for a while."""
    primary, replica = pair
    config = config_of(replica, world)
    running = following(config)
    change(primary)
    running.until(lambda: world.redis.hget("f_399", "n") == b"1")
    word = "SLAVE" if primary.is_mariadb else "REPLICA"
    replica.sql(f"STOP {word} SQL_THREAD")
    primary.sql("DELETE FROM f WHERE id = 7", "UPDATE f SET n = 8 WHERE id = 8")
    replica.sql(f"START {word} SQL_THREAD")
    running.until(lambda: not world.redis.exists("f_7") and world.redis.hget("f_8", "n") == b"8")
    running.stop()
    level(primary, replica)
    assert differences(config) == (0, 0, 0)


def runs(ear):
    """How often all rows were read."""
    return len([event for event in ear.events if isinstance(event, RunEnded)])


class Address:
    """Where one of the two servers answers."""

    def __init__(self, primary):
        self._proxy = Proxy(primary.port)
        self._primary = primary

    def __enter__(self):
        return self

    def __exit__(self, *words):
        self._proxy.__exit__(*words)

    def source_config(self):
        """This address as a `source` of a config."""
        return self._primary.source_config(port=self._proxy.port)

    def lead_to(self, server):
        self._proxy.server_port = server.port
        self._proxy.reset()


@pytest.mark.parametrize("is_stopped", [False, True], ids=["meanwhile", "between"])
def test_a_replica_takes_the_place_of_its_primary(pair, world, is_stopped):
    """A position by GTIDs holds on each server that has them: another one goes on from there."""
    primary, replica = pair
    with Address(primary) as address:
        config = config_of(address, world)
        running = following(config)
        for number, server in enumerate([replica, primary], 5):
            if is_stopped:
                running.stop()
            primary.sql(f"UPDATE f SET n = 5 WHERE id = {number}")
            level(primary, replica)
            address.lead_to(server)
            if is_stopped:
                running = following(config)
                assert runs(running.ear) == 0
            primary.sql(f"UPDATE f SET n = 9 WHERE id = 1{number}")
            running.until(lambda number=number: world.redis.hget(f"f_1{number}", "n") == b"9")
            assert world.redis.hget(f"f_{number}", "n") == b"5"
        running.stop()
        assert differences(config) == (0, 0, 0)


def test_a_replica_that_is_behind(pair, world):
    """A server that lacks what was followed is refused, not followed from somewhere else."""
    primary, replica = pair
    word = "SLAVE" if primary.is_mariadb else "REPLICA"
    replica.sql(f"STOP {word}")
    try:
        with Address(primary) as address:
            config = config_of(address, world)
            running = following(config)
            primary.sql("UPDATE f SET n = 6 WHERE id = 6")
            running.until(lambda: world.redis.hget("f_6", "n") == b"6")
            address.lead_to(replica)
            wait(lambda: running.errors, "it to be refused")
            assert isinstance(running.errors[0], PositionLost)
            with pytest.raises(PositionLost, match="it is another server, or was reset"):
                Following(config, list(config.jobs.values()), lambda _: Ear()).run(until_caught_up=True)
    finally:
        replica.sql(f"START {word}")


def test_a_commit_that_nobody_saw(pair, world, monkeypatch):
    """What stood in the binlog of a server that is gone is not waited for on the one that takes its place."""
    monkeypatch.setattr(barrier, "PATIENCE", 1)
    primary, replica = pair
    word = "SLAVE" if primary.is_mariadb else "REPLICA"
    change = threading.Thread(target=primary.sql, args=("UPDATE f SET n = 6 WHERE id = 6",))
    with Address(primary) as address:
        running = following(config_of(address, world))
        replica.sql(f"STOP {word}")
        try:
            with commits_wait(primary):
                change.start()
                running.until(lambda: (1, 0) in told(running))
                address.lead_to(replica)
                if primary.is_mariadb:  # it goes on from what is stored, of which the other has all
                    running.until(lambda: "another server has taken its place" in str(running.ear.events))
                else:
                    wait(lambda: running.errors, "it to be refused")
        finally:
            replica.sql(f"START {word}")
            change.join()
        if primary.is_mariadb:
            running.until(lambda: world.redis.hget("f_6", "n") == b"6")
            running.stop()
        else:
            assert isinstance(running.errors[0], PositionLost)
