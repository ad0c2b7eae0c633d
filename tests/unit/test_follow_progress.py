"""How following is shown, and how old a job is that is followed."""

import json

import pytest

from loader.model import FollowBegan, FollowEnded, FollowProgress, Notice
from loader.report import follow_progress
from loader.report.follow_progress import FollowReporter
from loader.report.log import Log
from loader.state.position import SILENCE, FollowedPosition, Reach


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock, set by hand."""
    now = [0.0]
    monkeypatch.setattr(follow_progress.time, "monotonic", lambda: now[0])
    return now


def test_lines(clock, capsys):
    """A log has a line at each turn, and every ten seconds while changes come; none while nothing happens."""
    reporter = FollowReporter("stu", "log", Log("json", "info", color=False))
    told = [
        (0, FollowBegan(("stu", "orders"), "binlog.000001:4")),
        (1, FollowProgress(is_caught_up=True)),
        (10, FollowProgress(is_caught_up=True)),
        (15, FollowProgress(0.5, changes=100, keys=90, written=80, deleted=10)),
        (20, FollowProgress(0.5, changes=200, keys=190, written=80, deleted=10)),
        (21, FollowProgress(is_caught_up=True, changes=200)),
        (22, Notice("waiting: redis is away")),
        (22, FollowProgress(1.0, changes=200, waiting="redis is away")),
        (25, FollowProgress(0.1, changes=300)),
        (26, FollowProgress(is_caught_up=True, changes=300)),
        (27, FollowEnded("binlog.000001:99", FollowProgress(is_caught_up=True, changes=300))),
    ]
    for clock[0], event in told:
        reporter.notify(event)

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    turns = ["following begins", "caught up", "following", "waiting: redis is away", "going on", "caught up"]
    assert [line["event"] for line in lines] == [*turns, "following ends"]
    assert {line["job"] for line in lines} == {"stu, orders"}
    assert (lines[2]["changes_per_second"], lines[2]["lag_seconds"], lines[2]["deleted"]) == (20, 0.5, 10)
    assert lines[4]["waited_seconds"] == 3.0


def test_the_line_of_a_terminal(clock, capsys):
    """The line is taken away at the end, and passes and logs stand apart from it."""
    reporter = FollowReporter("stu", "bar", Log("console", "info", color=False))
    reporter.notify(FollowBegan(("stu",), "binlog.000001:4"))
    clock[0] = 1.0
    reporter.notify(FollowProgress(2.0, changes=100, waiting="redis is away"))
    reporter.notify(FollowEnded("binlog.000001:99", FollowProgress()))
    reporter.close()
    assert "following" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("position", "is_running", "age"),
    [
        ({"seen": 1000.0, "lag": 0.0}, True, 0.0),
        ({"seen": 1000.0, "lag": 2.0}, True, 2.0),
        ({"seen": 1000.0, "lag": 2.0}, False, 7.0),
        ({"seen": 1000.0, "lag": 2.0, "reach": Reach(waiting="redis is away")}, True, 7.0),
        ({"seen": 1005.0 - SILENCE, "lag": 0.0}, True, SILENCE),  # it is stuck
        ({"seen": 0.0}, True, None),
        ({"seen": 1000.0, "owed": "the target was emptied"}, True, None),
    ],
)
def test_age(position, is_running, age):
    """A job is as old as its follower was behind, and older once nothing is heard of it."""
    assert FollowedPosition("s", "f", 4, None, {}, "r", **position).age(1005.0, is_running=is_running) == age
