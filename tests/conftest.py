"""The servers that tests share."""

import pytest
from hypothesis import HealthCheck, settings

from loader.lab.lab import Lab
from loader.lab.process import free_ports
from support.binlog import BinlogServer
from support.database import World
from support.following import end_all
from support.pages import PORTS, Shell
from support.pki import issue
from support.tables import STU_SQL

LONGEST = (  # files of tests that take a minute or more, the longest first
    "test_losses.py",
    "test_reconcile.py",
    "test_types.py",
    "test_outage.py",
    "test_faults_cluster.py",
    "test_dashboard.py",
    "test_watch.py",
    "test_docs_commands.py",
    "test_tutorial.py",
    "test_chaos.py",
    "test_faults_node.py",
    "test_sync.py",
    "test_cuts.py",
    "test_fences.py",
    "test_faults_mysql.py",
)
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # the machine has other servers to run


def pytest_collection_modifyitems(items):
    """Begin with the longest files: no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_addoption(parser):
    parser.addoption("--every-byte", action="store_true", help="cut connections after every byte, not only some")
    parser.addoption("--tables", type=int, default=4, help="how many tables are made up")
    parser.addoption("--table", type=int, default=0, help="the number of the first of them")


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A database with the table `stu` and a cluster of three masters with a replica each; leave it as it was."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab.up(sql=[STU_SQL])
    yield lab
    lab.down()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server whose binlog is read, and which a test may set up as it likes."""
    server = BinlogServer(tmp_path_factory.mktemp("binlog"))
    yield server
    server.stop()


@pytest.fixture
def world(lab, tmp_path):
    """A new database of the lab, and what its cluster holds since."""
    world = World(lab, tmp_path)
    yield world
    end_all()
    world.close()


@pytest.fixture
def open_shell(tmp_path):
    """Opens shells in the test's directory for pages, with free ports in place of those that they name."""
    shells = []

    def opened(replaced=(), **variables):
        ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        shells.append(Shell(tmp_path, ports | dict(replaced), **variables))
        return shells[-1]

    yield opened
    for shell in shells:
        shell.close()


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """`ca.crt`, the `server.crt` and `client.crt` it signed, and `other.crt`, an authority that signed nothing.

    `late.crt` and `elsewhere.crt` are signed too, but out of date and of another host.
    """
    directory = tmp_path_factory.mktemp("pki")
    ca = issue("ca", directory)
    issue("server", directory, ca)
    issue("client", directory, ca)
    issue("late", directory, ca, hours=-1)
    issue("elsewhere", directory, ca, host="127.0.0.2")
    issue("other", directory)
    return directory
