"""The account of what is loaded: what is lost by what stands in the markers, and what cannot be told any more."""

import pytest

from loader.errors import StartOver
from loader.model import Chunk, ChunkLoaded, Reject
from loader.pipeline import ledger
from loader.pipeline.ledger import Ledger
from loader.state.markers import lacking


def loaded(number, *marks, rejects=()):
    return ChunkLoaded(
        chunk=Chunk(number), read=1, written=1, rejects=rejects, nodes={}, bytes=1, seconds=0.0, began=0.0, marks=marks
    )


def test_what_a_master_has_lost():
    """Chunks whose number does not stand there; of a marker that is gone nothing is said here."""
    account = Ledger()
    first, second, both = loaded(1, ("a", "w", 1)), loaded(2, ("b", "w", 2)), loaded(3, ("a", "w", 3), ("b", "w", 3))
    for each in (first, second, both):
        account.add(each)
    assert account.lost({"a": {"w": 3}, "b": {"w": 3}}) == []
    assert account.lost({"a": {"w": 2}, "b": {"w": 3}}) == [both]
    assert account.lost({"a": {}, "b": {"w": 2}}) == [first, both]
    assert account.lost({"a": None, "b": {"w": 3}}) == []
    assert account.by_marker() == {"a": {"w": 3}, "b": {"w": 3}}


def test_what_is_counted_out_vouches_for_nothing():
    """It will be written again, with numbers of its own."""
    account = Ledger()
    account.add(loaded(1, ("a", "w", 1)))
    account.add(loaded(2, ("a", "w", 2)))
    account.strike(lambda event: event.chunk.number == 2)
    assert list(account.marks()) == [("a", "w", 1)]
    assert account.lost({"a": {"w": 1}}) == []


def test_chunks_that_are_not_remembered_one_by_one():
    """Where one of them is lost, the run starts over."""
    account = Ledger(2)
    for number in range(1, 6):
        account.add(loaded(number, ("a", "w", number)))
    assert [event.chunk.number for event in account.lost({"a": {"w": 3}})] == [4, 5]
    with pytest.raises(StartOver, match="lost writes"):
        account.lost({"a": {"w": 2}})
    account.strike(lambda event: event.chunk.number in {4, 5})
    assert list(account.marks()) == [("a", "w", 3)]


def test_chunks_since_a_moment(monkeypatch):
    """By when they were heard of."""
    now = [10.0]
    monkeypatch.setattr(ledger.time, "monotonic", lambda: now[0])
    account = Ledger()
    account.add(loaded(1))
    now[0] = 20.0
    account.add(loaded(2))
    assert [event.chunk.number for event in account.since(15.0)] == [2]
    assert [event.chunk.number for event in account.since(10.0)] == [1, 2]


def test_rejects_count_as_well():
    """A table whose rows are all refused does not fill the memory: fewer chunks are remembered, one at least."""
    account = Ledger(10)
    for number in range(1, 5):
        account.add(loaded(number, rejects=(Reject(b"k", "why"),) * 4))
    assert [event.chunk.number for _, event in account._newest] == [3, 4]
    account.strike(lambda event: event.chunk.number == 4)
    account.add(loaded(5, rejects=(Reject(b"k", "why"),) * 4))
    assert [event.chunk.number for _, event in account._newest] == [3, 5]
    account.add(loaded(6, rejects=(Reject(b"k", "why"),) * 50))
    assert [event.chunk.number for _, event in account._newest] == [6]


def test_chunks_since_a_moment_that_not_all_are_known_of(monkeypatch):
    """Where some of them cannot be written again one by one, the run starts over."""
    now = [10.0]
    monkeypatch.setattr(ledger.time, "monotonic", lambda: now[0])
    account = Ledger(1)
    for number in (1, 2, 3):
        account.add(loaded(number))
        now[0] += 10
    assert [event.chunk.number for event in account.since(25.0)] == [3]
    with pytest.raises(StartOver, match="another run may have had it"):
        account.since(20.0)


def test_a_number_that_is_too_small_or_not_there():
    """Greater ones are later ones: behind them all is there that was before."""
    assert not lacking({"a": {"w": 5}}, [("a", "w", 4)])
    assert not lacking({"a": {"w": 5}}, [("a", "w", 5)])
    assert lacking({"a": {"w": 5}}, [("a", "w", 6)])
    assert lacking({"a": {"w": 5}}, [("a", "other", 1)])


def test_numbers_that_come_in_any_order():
    """Workers are heard of in any order; the greatest number of each vouches for the others."""
    account = Ledger()
    account.vouch([("a", "w", 5), ("a", "v", 1)])
    account.vouch([("a", "w", 3)])
    assert account.by_marker() == {"a": {"w": 5, "v": 1}}
