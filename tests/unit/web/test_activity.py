"""What the daemon remembers of its runs for the status page: progress, the grid of chunks, rows a minute."""

import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.errors import Kind
from loader.model import Chunk, ChunkLoaded, ChunkOwed, Reject, Run, RunBegan, RunEnded, Waiting
from loader.outcome import Outcome
from loader.pipeline.throttle import Throttle
from loader.state.history import KEPT, entry_of
from loader.web import activity as room
from loader.web.activity import RunTracker
from loader.web.views import CELLS, MINUTES


def loaded(number, rows=10, *, rejects=0, retried=0, nodes=None):
    refused = tuple(Reject(b"k%d" % n, "why") for n in range(rejects))
    return ChunkLoaded(
        Chunk(number), rows, rows - rejects, refused, nodes or {"n1": rows - rejects}, 100, 0.5, 0.0, retried=retried
    )


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1_000_000_000.0
        monkeypatch.setattr(room.time, "time", lambda: self.now)
        monkeypatch.setattr(room.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def begin(record, run="r", expected=1000, throttle=None):
    ear = record.listen("job")
    ear.notify(RunBegan("job", run))
    ear.expect(expected, throttle or Throttle())
    return ear


def end(ear, run="r", **facts):
    ear.notify(RunEnded(Run(job="job", id=run, **facts)))


def test_progress(clock):
    """The rate is that of the last seconds, not of the whole run; a wait is told until it is over."""
    record = RunTracker()
    throttle = Throttle()
    ear = begin(record, expected=1000, throttle=throttle)
    assert record.progress("job").rows == 0
    for second in range(1, 31):
        clock.now += 1
        throttle.rows += 2 if second <= 15 else 20
        ear.notify(None)
    progress = record.progress("job")
    assert (progress.rows, progress.expected, progress.chunks) == (330, 1000, 0)
    assert progress.rate == pytest.approx(20)
    assert progress.eta == pytest.approx(670 / 20)
    ear.notify(Waiting(Chunk(1), 1, 5.0, "redis n1: gone"))
    assert record.progress("job").waits == "redis n1: gone"
    ear.notify(loaded(1, 330))
    assert record.progress("job").waits == ""
    throttle.busy = "--max-load Threads_running=1: it is 2"
    assert record.progress("job").waits == throttle.busy
    assert record.progress("job").chunks == 1
    end(ear)
    assert record.progress("job") is None


def test_a_run_that_starts_over_and_one_that_is_refused(clock):
    """The first begins at 0 again, in the grid too; the second disturbs nothing of the one under way."""
    record = RunTracker()
    ear = begin(record)
    ear.notify(loaded(1))
    ear.notify(loaded(2))
    ear.expect(500, Throttle())
    assert (record.progress("job").rows, record.progress("job").expected, record.grid("job")) == (0, 500, None)
    ear.notify(loaded(1))
    other = record.listen("job")
    other.notify(RunBegan("job", "refused"))
    other.notify(RunEnded(Run(job="job", id="refused", outcome=Outcome(Kind.LOCKED))))
    assert record.grid("job").run == "r"
    assert not record.grid("job").ended
    ear.notify(loaded(2))
    assert len(record.grid("job").cells) == 2
    end(ear, chunks=2)
    assert record.progress("job") is None


def test_states_of_chunks(clock):
    """Each chunk is told as what became of it; those that a run leaves are owed."""
    record = RunTracker()
    ear = begin(record)
    ear.notify(loaded(1))
    ear.notify(loaded(2, retried=1))
    ear.notify(loaded(3, rejects=2))
    ear.notify(Waiting(Chunk(5), 1, 1.0, "why"))
    grid = record.grid("job")
    assert [cell.state for cell in grid.cells] == ["loaded", "retried", "rejects", "owed", "waiting"]
    assert (grid.ended, grid.of) == (False, None)
    end(ear, chunks=7)
    grid = record.grid("job")
    assert [cell.state for cell in grid.cells[3:]] == ["owed"] * 4
    assert (grid.ended, grid.of, sum(cell.rows for cell in grid.cells)) == (True, 7, 30)


def test_a_chunk_that_is_lost(clock):
    """Its rows no longer count, on the page and in the grid, until it is loaded again."""
    record = RunTracker()
    ear = begin(record)
    ear.notify(loaded(1, 10))
    ear.notify(loaded(2, 20))
    ear.notify(ChunkOwed(loaded(1, 10)))
    assert (record.progress("job").rows, record.progress("job").chunks) == (20, 1)
    assert [(cell.state, cell.rows) for cell in record.grid("job").cells] == [("owed", 0), ("loaded", 20)]
    ear.notify(loaded(1, 10))
    assert (record.progress("job").rows, record.progress("job").chunks) == (30, 2)
    assert [(cell.state, cell.rows) for cell in record.grid("job").cells] == [("retried", 10), ("loaded", 20)]


@given(st.integers(1, 5000), st.randoms(use_true_random=False))
def test_the_grid_is_bounded(count, random):
    """However many chunks, in whatever order: each is in one cell, rows and rejects add up, and cells are few."""
    record = RunTracker()
    ear = begin(record)
    numbers = list(range(1, count + 1))
    for at in range(0, count, 8):  # workers end in any order, but near to one another
        part = numbers[at : at + 8]
        random.shuffle(part)
        numbers[at : at + 8] = part
    for number in numbers:
        ear.notify(loaded(number, 3, rejects=number % 2))
    cells = record.grid("job").cells
    assert len(cells) <= CELLS
    assert [cell.first for cell in cells[1:]] == [cell.last + 1 for cell in cells[:-1]]
    assert (cells[0].first, cells[-1].last) == (1, count)
    assert sum(cell.rows for cell in cells) == 3 * count
    assert sum(cell.rejects for cell in cells) == (count + 1) // 2
    assert "owed" not in {cell.state for cell in cells}


def test_rows_a_minute(clock):
    """Each run counts once, heard of here or learned from the history, in the minutes that it took."""
    record = RunTracker()
    clock.now = 1_000_000_020.0 - 1_000_000_020.0 % 60 + 30
    ear = begin(record)
    ear.notify(loaded(1, 600))
    run = Run(job="job", id="r", read=600)
    run.began = clock.now
    own = replace(entry_of(run), ended=clock.now)
    theirs = replace(own, run="other", began=clock.now - 135, ended=clock.now - 75, rows={"read": 1200})
    old = replace(own, run="old", began=clock.now - 9000, ended=clock.now - 8000)
    for _ in range(2):
        record.learn("job", [own, theirs, old])
    rates = record.rates("job", clock.now)
    assert len(rates) == MINUTES
    assert rates[-4:] == (0, pytest.approx(15), pytest.approx(5), pytest.approx(20))
    assert sum(rates[:-4]) == 0
    assert record.rates("job", clock.now + 3600 + 600) == (0,) * MINUTES


def test_nodes_and_due_times(clock):
    """Rows by node are those of all jobs; a time that is taken away is gone."""
    record = RunTracker()
    begin(record).notify(loaded(1, 10, nodes={"n1": 4, "n2": 6}))
    begin(record, "s").notify(loaded(1, 10, nodes={"n1": 1}))
    assert record.written() == {"n1": 5, "n2": 6}
    record.rescheduled("job", 5.0)
    assert record.due("job") == 5.0
    record.rescheduled("job", None)
    assert record.due("job") is None
    record.keep(["else"])
    assert record.grid("job") is None


def test_memory_is_bounded(clock):
    """A job that runs every second for days, at whose page nobody looks, and one of 100,000 chunks, stay small."""
    record = RunTracker()
    for number in range(10_000):
        clock.now += 30
        ear = begin(record, f"r{number}")
        ear.notify(loaded(1))
        end(ear, f"r{number}", chunks=1)
    heard = record._jobs["job"]
    assert len(heard.runs) <= 2 * KEPT
    assert len(heard.minutes) <= MINUTES + 1
    ear = begin(record, "long")
    for number in range(1, 100_001):
        ear.notify(loaded(number))
    assert len(heard.chunks._cells) <= CELLS
    assert len(heard.going._looks) < 100
    end(ear, "long", chunks=100_004, outcome=Outcome(Kind.TERMINATED))
    cells = record.grid("job").cells
    assert (len(cells) <= CELLS, cells[0].first, cells[-1].last) == (True, 1, 100_004)
    assert ({cell.state for cell in cells[:-1]}, cells[-1].state) == ({"loaded"}, "owed")


def test_a_run_that_goes_on_where_another_was_cut_off(clock):
    """It hears of the chunks that were owed alone: once it has ended well, those in between are loaded too."""
    record = RunTracker()
    for kind, states in ((None, ["loaded"] * 4), (Kind.FAULT, ["loaded", "owed", "loaded", "loaded"])):
        ear = begin(record)
        for number in (3, 5, 6):
            ear.notify(loaded(number))
        end(ear, chunks=3, resumed=True, outcome=Outcome(kind))
        assert [(cell.first, cell.state) for cell in record.grid("job").cells] == list(
            zip(range(3, 7), states, strict=True)
        )


def test_many_threads():
    """Runs tell while pages read; nothing is lost."""
    record = RunTracker()
    ears = [begin(record, f"r{number}") for number in range(4)]
    end_at = time.monotonic() + 60

    def tell(ear):
        for number in range(1, 301):
            ear.notify(loaded(number, 1))

    threads = [threading.Thread(target=tell, args=(ear,)) for ear in ears]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and time.monotonic() < end_at:
        record.grid("job")
        record.rates("job", time.time())
        record.progress("job")
    assert record.written() == {"n1": 1200}
