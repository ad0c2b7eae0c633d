"""Log lines for people: the time, the job, what happened; no dictionary, no control characters."""

import pytest

from loader.errors import Kind
from loader.model import Run
from loader.outcome import Outcome
from loader.report.console import PeopleRenderer, harmless
from loader.report.log import run_facts

AT = "2026-11-29T16:51:20.123456Z"


def line(event, *, level="info", color=False, **facts):
    said = harmless(
        None, "", {"job": "products", "run": "r1", "timestamp": AT, "level": level, "event": event, **facts}
    )
    return PeopleRenderer(color=color)(None, "", said)


def ended(**facts):
    run = Run("products", "r1", seconds=0.09, **facts)
    return {name: value for name, value in run_facts(run).items() if name != "began"}


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (
            {"read": 2000, "written": 1998, "rejected": 2, "outcome": Outcome(Kind.REJECTS)},
            "rejects 1,998 of 2,000 written, 2 rejected, 0.09 s",
        ),
        ({"read": 5, "written": 5}, "ok 5 of 5 written, 0.09 s"),
        (
            {"read": 5, "written": 1, "unchanged": 4, "deleted": 3, "resumed": True, "dry_run": True},
            "ok 1 of 5 written, 4 unchanged, 3 deleted, nothing was sent, resumed, 0.09 s",
        ),
        ({"outcome": Outcome(Kind.FAULT, "mysql a:1: no")}, "failed after 0.09 s: mysql a:1: no"),
    ],
)
def test_the_end_of_a_run(run, text):
    """Its status, how many rows of how many, and the time it took."""
    assert line("run", **ended(**run)) == f"16:51:20 products {text}"


@pytest.mark.parametrize(
    ("event", "facts", "text"),
    [
        (
            "loading",
            {
                "percent": 45,
                "rows": 1200,
                "rows_per_second": 40,
                "chunks": 1,
                "eta_seconds": 300,
                "waits_for": "--rate",
            },
            "loading: 45%, 1,200 rows, 40 rows/s, 1 chunk, 5 min left, waits: --rate",
        ),
        (
            "waiting",
            {"chunk": 3, "attempt": 1, "seconds": 0.5, "reason": "redis away"},
            "chunk 3 is tried again in 0.50 s",
        ),
        ("daemon started", {"jobs": 2, "pid": 7, "port": None}, "daemon started: 2 jobs, pid 7"),
        ("going on", {"waited_seconds": 3.0}, "going on: waited 3.0 s"),
        ("a\x1b[2Jb", {}, "a\\x1b[2Jb"),
    ],
)
def test_other_events(event, facts, text):
    """The facts of an event are told in words."""
    assert line(event, **facts).startswith(f"16:51:20 products {text}")


def test_colours_and_marks():
    """Warnings and errors are marked in words too, so that nothing is told by colour alone."""
    assert line("odd", level="warning") == "16:51:20 products warning: odd"
    assert line("odd", level="error", color=True) == "16:51:20 \x1b[36mproducts\x1b[0m \x1b[31merror: \x1b[0modd"
    assert line("odd", exception="Traceback:\n  x\n").splitlines()[1:] == ["Traceback:", "  x"]
