"""Every way to reach the servers: TCP, sockets, TLS, accounts, database numbers; never less than was asked for."""

import shutil
import tempfile
from pathlib import Path

import pymysql
import pytest
import redis

from loader.lab import mysql
from loader.lab.process import Helper, Server, free_ports, stop, wait
from loader.redis.acl import REDIS_RIGHTS
from support.command import HOST, REDIS_PASSWORD, Desk, redis_server
from support.pki import NOT_VERIFIED, tls_options


@pytest.fixture
def desk(world, tmp_path):
    return Desk(world, tmp_path)


@pytest.fixture(scope="module")
def sockets():
    """A directory whose path is short enough for a socket."""
    directory = Path(tempfile.mkdtemp(prefix="loader-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def standalone(pki, sockets):
    """The port of a Redis that is no cluster, with an account `writer` of one prefix, and a socket beside it."""
    with redis_server(sockets, "--unixsocket", str(sockets / "redis.sock")) as port:
        with redis.Redis(HOST, port) as node:
            rights = ["~stu_*", "~loader:*", *REDIS_RIGHTS.split()]
            node.execute_command("ACL", "SETUSER", "writer", "on", f">{REDIS_PASSWORD}", *rights)
        yield port


@pytest.fixture
def empty(standalone):
    """Clients of the standalone server's databases, emptied."""
    clients = [redis.Redis(HOST, standalone, db=number) for number in range(4)]
    clients[0].flushall()
    yield clients
    for each in clients:
        each.close()


def synced(desk, target, **source):
    """The documents of a sync to another target and of one hash that was read back."""
    desk.write(target={"password": ""} | target, source=source)
    done = desk.run("sync", "stu", "-o", "json")
    assert (done.code, done.messages) == (0, [])
    read = desk.run("get", "stu", "5", "-o", "json")
    assert (read.code, read.err) == (0, "")
    assert read.document["fields"] == {"sid": "00000005", "sname": "沈浪", "address": "上海市"}
    return done.document, read.document


def test_standalone(desk, empty, standalone):
    """A server that is no cluster is a cluster of one."""
    node = f"{HOST}:{standalone}"

    done, read = synced(desk, {"url": f"redis://{node}"})
    missing = desk.run("get", "stu", "9", "-o", "json")
    shown = desk.run("cluster", "-o", "json")

    assert (done["nodes"], read["node"]) == ({node: 5}, node)
    assert len(empty[0].keys("stu_*")) == 5
    assert (missing.code, missing.document["fields"]) == (1, None)
    assert shown.document == {
        "schema": "loader.cluster/v1",
        "state": "ok",
        "slots": 16384,
        "masters": [{"node": node, "slots": 16384, "keys": empty[0].dbsize(), "replicas": 0}],
    }


def test_unix_socket(desk, empty, sockets):
    """The socket's path stands for host and port."""
    path = str(sockets / "redis.sock")

    done, read = synced(desk, {"url": f"unix://{path}?db=2"})

    assert (done["nodes"], read["node"]) == ({path: 5}, path)
    assert [len(each.keys("*_0*")) for each in empty] == [0, 0, 5, 0]


def test_account_and_database(desk, empty, standalone):
    """An account that may write only its prefix is enough; the database is the one named."""
    synced(desk, {"url": f"redis://writer@{HOST}:{standalone}/3", "password": REDIS_PASSWORD})
    assert [len(each.keys("*_0*")) for each in empty] == [0, 0, 0, 5]

    desk.write({"other": {"table": "stu", "key": "other_{sid}"}}, target={"url": f"redis://writer@{HOST}:{standalone}"})
    result = desk.run("sync", "other")

    assert result.code == 2
    assert result.messages[0].startswith(f"error: redis {HOST}:{standalone}: NOPERM ")
    assert [len(each.keys("*_0*")) for each in empty] == [0, 0, 0, 5]


def test_database_that_is_not_there(desk, standalone):
    """A database number beyond the server's is a fault of the config."""
    desk.write(target={"url": f"redis://{HOST}:{standalone}/99", "password": ""})

    result = desk.run("sync", "stu")

    assert result.code == 2
    assert result.messages[0].endswith(": see the database in target.url")


def test_redis_tls(desk, pki, tmp_path):
    """TLS is verified: with the wrong authority, or the system's, nothing is sent; a client certificate is shown."""

    def tls(port):
        names = {"ssl_certfile": pki / "client.crt", "ssl_keyfile": pki / "client.key", "ssl_ca_certs": pki / "ca.crt"}
        return redis.Redis(HOST, port, ssl=True, **names)

    with redis_server(tmp_path, *tls_options(pki, "yes"), answers=tls) as port:
        url = f"rediss://{HOST}:{port}"
        mine = {"tls_cert": str(pki / "client.crt"), "tls_key": str(pki / "client.key")}
        for trust in ({"tls_ca": str(pki / "other.crt")}, {}):
            desk.write(target={"url": url, "password": ""} | mine | trust)
            result = desk.run("sync", "stu")
            assert result.code == 2
            assert NOT_VERIFIED in result.err
            assert result.messages[0].endswith(": see tls_ca and tls_verify")
            with tls(port) as node:
                assert node.dbsize() == 0

        done, _ = synced(desk, {"url": url, "tls_ca": str(pki / "ca.crt")} | mine)
        assert done["nodes"] == {f"{HOST}:{port}": 5}
        synced(desk, {"url": url, "tls_verify": False} | mine)


def test_cluster_tls(desk, pki, tmp_path):
    """The nodes of a cluster are reached by TLS too."""

    def tls(port):
        return redis.Redis(HOST, port, ssl=True, ssl_ca_certs=pki / "ca.crt")

    options = [*tls_options(pki), "--tls-cluster", "yes", "--cluster-enabled", "yes"]
    with redis_server(tmp_path, *options, answers=tls) as port:
        with tls(port) as node:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait(lambda: node.cluster("INFO")["cluster_state"] == "ok", "the cluster")

        done, _ = synced(desk, {"url": f"rediss://{HOST}:{port}", "tls_ca": str(pki / "ca.crt"), "cluster": True})

        assert done["nodes"] == {f"{HOST}:{port}": 5}


def seen_by_doctor(desk, check):
    (seen,) = [each["seen"] for each in desk.run("doctor", "-o", "json").document["checks"] if each["check"] == check]
    return seen


@pytest.fixture(scope="module")
def tls_mysql(pki, sockets):
    """A database server that speaks TLS with a certificate of ours: its port."""
    with Helper(mysql.install_command(), sockets) as installing:
        installing.finish()
    init = sockets / "init.sql"
    accounts = "CREATE USER secured@'%' REQUIRE SSL;\nGRANT SELECT ON test.* TO secured@'%';\n"
    rows = "CREATE TABLE test.stu (sid int PRIMARY KEY);\nINSERT INTO test.stu VALUES (1), (2);\n"
    init.write_text(f"CREATE DATABASE test;\n{accounts}{rows}")
    server = Server("mysql", *free_ports(1))
    command = mysql.command(sockets / "mysql", server.port, init)
    files = {"ca": "ca.crt", "cert": "server.crt", "key": "server.key"}
    command += [f"--ssl-{option}={pki / name}" for option, name in files.items()]
    server.spawn(command, sockets / "mysql.log")
    try:
        wait(lambda: not server.running or mysql.answers(sockets / "mysql", server), "mysql to answer")
        yield server.port
    finally:
        stop([server])


def test_mysql_tls(desk, pki, tls_mysql, empty, standalone):
    """TLS is verified, and never given up for plaintext."""
    url = f"mysql://secured@{HOST}:{tls_mysql}/test"
    target = {"url": f"redis://{HOST}:{standalone}", "password": ""}
    with pytest.raises(pymysql.err.OperationalError):
        pymysql.connect(host=HOST, port=tls_mysql, user="secured", ssl_disabled=True)

    desk.write(source={"url": url, "password": "", "tls_ca": str(pki / "ca.crt")}, target=target)
    done = desk.run("sync", "stu", "-o", "json")
    assert (done.code, done.document["rows"]["written"]) == (0, 2)
    assert seen_by_doctor(desk, "mysql.tls").startswith("in use, TLS_")

    empty[0].flushall()
    for trust in ({"tls_ca": str(pki / "other.crt")}, {"tls": True}):
        desk.write(source={"url": url, "password": ""} | trust, target=target)
        result = desk.run("sync", "stu")
        assert result.code == 2
        assert NOT_VERIFIED in result.err
        assert len(result.messages) == 1
    desk.write(source={"tls": True}, target=target)
    result = desk.run("sync", "stu")
    assert result.code == 2
    assert ("server doesn't support it" in result.err) or (NOT_VERIFIED in result.err)
    assert empty[0].keys("stu*") == []


def test_mysql_unix_socket(desk, empty, standalone):
    """The socket's path is a parameter of the url."""
    path = desk.world.lab.directory / "mysql" / "mysql.sock"
    url = f"mysql://marked@localhost/{desk.world.name}?unix_socket={path}"

    done, _ = synced(desk, {"url": f"redis://{HOST}:{standalone}"}, url=url)

    assert done["rows"]["written"] == 5
    assert seen_by_doctor(desk, "mysql.tls") == "not in use; the connection does not leave this machine"
