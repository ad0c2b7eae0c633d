"""Backfills by a Dask cluster: a real scheduler, which does not know the loader, and real workers."""

import json
import signal

import pytest

from loader.lab.process import wait
from support.command import finish
from support.dask import dask_servers
from support.tables import desk_of_big

ROWS = 60_000


@pytest.fixture
def desk(world, tmp_path):
    return desk_of_big(world, tmp_path)


@pytest.fixture
def cluster(tmp_path):
    with dask_servers(tmp_path / "dask") as servers:
        yield servers


def holds_every_row(world):
    """Whether each row of `big` has its hash, and nothing else is there."""
    rows = {f"big_{number}".encode(): name.encode() for number, name in world.sql("SELECT id, name FROM big")}
    hashes = {key: fields[b"name"] for key, fields in world.hashes().items()}
    return rows == hashes


def test_a_cluster_loads_all_and_leaves_nothing_behind(desk, cluster):
    """All rows, in chunks by two workers; no checkpoint, no marker, no owner of a chunk and no connection stays."""
    cluster.add()
    cluster.add()
    result = desk.run("backfill", "big", "-o", "json", "--dask", cluster.address)
    assert result.code == 0, result
    assert result.document["rows"]["written"] == ROWS
    assert result.document["chunks"] == {"total": 60, "done": 60, "retried": 0}
    assert holds_every_row(desk.world)
    assert desk.world.state() == set()
