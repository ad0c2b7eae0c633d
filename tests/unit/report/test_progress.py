"""What the bar and the progress lines count and tell, whatever goes wrong on the way."""

import pytest

import loader.report.progress as shown
from loader.model import Chunk, ChunkLoaded, ChunkOwed, Waiting
from loader.pipeline.throttle import Throttle
from loader.report.log import Log
from loader.report.progress import LINE_EVERY, Reporter

CLOSED, REFUSED = "redis n1: the server closed the connection", "redis n1: cannot connect"


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1_000.0
        monkeypatch.setattr(shown.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def reporter(level="info", throttle=None):
    made = Reporter("stu", "log", Log("console", level, color=False))
    made.expect(100, throttle or Throttle())
    return made


def loaded(number, rows):
    return ChunkLoaded(Chunk(number), rows, rows, (), {}, 0, 0.1, 0.0)


def lines(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if "warning" in line]


def test_a_reason_is_told_once(clock, capsys):
    """Many chunks and tries fail for one reason: that is a line, and after a while another; each reason has its own."""
    made = reporter()
    for attempt in range(1, 6):
        for chunk in (7, 8):
            made.notify(Waiting(Chunk(chunk), attempt, 0.5, CLOSED if attempt == 1 else REFUSED))
    first, second = lines(capsys)
    assert first.endswith(f"chunk 7 is tried again in 0.50 s: {CLOSED}")
    assert second.endswith(f"chunk 7 is tried again in 0.50 s: {REFUSED}")
    clock.now += LINE_EVERY
    made.notify(Waiting(Chunk(8), 9, 1.0, REFUSED))
    assert len(lines(capsys)) == 1


def test_each_try_is_told_to_those_who_search_for_faults(clock, capsys):
    """At level debug each chunk and each try has its line."""
    made = reporter("debug")
    for chunk in (7, 8):
        made.notify(Waiting(Chunk(chunk), 1, 0.5, CLOSED))
    assert len(lines(capsys)) == 2


def test_rows_that_are_lost_do_not_count(clock):
    """A chunk that is written again counts once."""
    made = reporter()
    for event in (loaded(1, 40), loaded(2, 40), ChunkOwed(loaded(1, 40))):
        made.notify(event)
    assert "40% 40 of about 100 rows" in made._drawn(80).replace(",", "").replace("━", "")
    made.notify(loaded(1, 40))
    assert "80 of about 100 rows" in made._drawn(80)


def test_why_a_run_does_not_get_to_its_chunks(clock, capsys):
    """The bar tells it at once, until the rows are expected; the log leaves it to the end of the run."""
    made = reporter()
    made.notify(Waiting(None, 1, 0.5, REFUSED))
    assert REFUSED in made._drawn(200)
    assert lines(capsys) == []
    made.expect(100, Throttle())
    assert "waits" not in made._drawn(200)


def test_the_newest_reason_is_shown(clock):
    """The run itself waits for a server, for which its chunks have waited before."""
    throttle = Throttle()
    made = reporter(throttle=throttle)
    made.notify(Waiting(Chunk(1), 1, 0.5, CLOSED))
    assert CLOSED in made._drawn(200)
    throttle.trouble = REFUSED
    assert REFUSED in made._drawn(200)
