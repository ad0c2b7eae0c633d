"""The servers that tests share."""

from pathlib import Path

import pytest

from loader.lab import Lab
from world import World

STU_SQL = Path(__file__).parents[1] / "sql" / "stu.sql"


def pytest_addoption(parser):
    parser.addoption("--every-byte", action="store_true", help="cut connections after every byte, not only some")


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
