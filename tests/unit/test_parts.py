"""The results of a job's parts, told as one."""

import pytest

from loader.errors import Kind
from loader.model import Run
from loader.outcome import Outcome
from loader.report.parts import Gathered, Parts, run_of

WHOLE = {"a/1": "a", "a/2": "a", "a/3": "a"}


def test_a_job_is_told_once_all_its_parts_have_ended():
    """Others are told at once; a part that failed may have no result."""
    gathered = Gathered(["a/1", "b", "a/2", "a/3"], WHOLE)
    assert list(gathered.add("a/1", "ok", 1)) == []
    assert list(gathered.add("b", "ok", 2)) == [("b", [2], None)]
    assert list(gathered.add("a/3", "failed", None)) == []
    ((name, results, parts),) = gathered.add("a/2", "rejects", 4)
    assert (name, results, parts.end, parts.failed) == ("a", [1, 4], "failed", ["a/3"])
    assert parts.document == {"parts": {"total": 3, "ok": 1, "rejects": 1, "failed": 1}, "failed": ["a/3"]}
    assert (gathered.ends, gathered.jobs) == (["ok", "failed"], 2)
    assert list(gathered.rest()) == []


def test_parts_that_a_signal_left_out():
    """The job is told with those that had ended; a job that was not begun is not."""
    gathered = Gathered(["a/1", "a/2", "a/3", "b"], WHOLE)
    assert list(gathered.add("a/1", "stopped", 1)) == []
    ((name, results, parts),) = gathered.rest()
    assert (name, results, str(parts)) == ("a", [1], "3 parts: 1 stopped, 2 not begun")
    assert gathered.ends == ["stopped"]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_some_failed_parts_are_named(count):
    """A line for people names three."""
    told = str(Parts(9, {f"a/{number}": "failed" for number in range(count)}))
    assert told.count("a/") == min(count, 3)
    assert (" and 2 more" in told) == (count == 5)


def test_runs_add_up():
    """The outcome is that of the worst; the time lasts from the first begin to the last end."""
    runs = [
        Run("a/1", "one", read=3, written=2, unchanged=1, seconds=2.0, started=10.0, nodes={"n1": 2}),
        Run("a/2", "two", outcome=Outcome(Kind.FAULT, "broken"), full=False, seconds=1.0, started=13.0, nodes={}),
        Run("a/3", "three", read=4, written=4, resumed=True, seconds=1.0, started=10.5, nodes={"n1": 1, "n2": 3}),
    ]
    run = run_of("a", runs)
    assert (run.job, run.id, run.error, run.seconds) == ("a", "two", "broken", 4.0)
    assert (run.read, run.written, run.unchanged, run.full, run.resumed) == (7, 6, 1, False, True)
    assert run.nodes == {"n1": 3, "n2": 3}
