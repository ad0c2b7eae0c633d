"""The servers that tests share."""

import pytest

from loader.lab.lab import Lab
from support.database import World
from support.pki import issue
from support.tables import STU_SQL


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


@pytest.fixture
def world(lab, tmp_path):
    """A new database of the lab, and what its cluster holds since."""
    world = World(lab, tmp_path)
    yield world
    world.close()


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
