"""The position of a followed job, as it stands in Redis."""

import json
from dataclasses import asdict

import pytest

from loader.errors import StateError
from loader.state.position import VERSION, FollowedPosition, position_of

POSITION = FollowedPosition("MySQL", "binlog.000001", 4, None, {"key": "k"}, "run", seen=100.0, lag=3.0)


class Target:
    """A target that holds one text."""

    def __init__(self, **changes):
        self.text = json.dumps({"version": VERSION, **asdict(POSITION), **changes}).encode()

    def ask(self, key, *words):
        return None, self.text


@pytest.mark.parametrize("gtids", ["", "0-1-5,7-2-9", "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5:7:tag:1"])
def test_gtids_of_both_servers(gtids):
    """A position is read back as it was stored."""
    assert position_of(Target(gtids=gtids), "job").gtids == gtids


@pytest.mark.parametrize("gtids", ["x", "0-1", "3E11FA47-71CA-11E1-9E33-C80AA9429562:5-1"])
def test_gtids_that_are_none(gtids):
    """What no server writes is named, with the command that fixes it."""
    with pytest.raises(StateError, match=r"`DEL loader:\{job\}:position`"):
        position_of(Target(gtids=gtids), "job")


def test_how_old_it_is():
    """All that was committed up to when it was stored, less its lag, is in Redis."""
    assert POSITION.current == 97.0
    assert POSITION.settled(("m",), 110.0).lag == 10.0
    assert POSITION.lost("why").is_taken is False
