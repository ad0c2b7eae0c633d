"""The lock as Dask workers see it: they may write while the run has it, and a chunk is theirs."""

import pytest

from loader.errors import Kind, LoaderError, TargetError
from loader.lab.process import HOST, free_ports
from loader.model import Node
from loader.redis.client import RedisClient
from loader.state.lent_lock import LentLock, NotLocked, TakenOver
from loader.state.lock import Lock
from loader.wire.slots import SlotMap

CLIENT = "loader-c0ffee"


@pytest.fixture
def held(world):
    """A client of Redis, and the lock of a run, which holds it."""
    config = world.config(table="t")
    with RedisClient(config.target) as target:
        lock = Lock(config.target, "job", "run")
        lock.take(target)
        yield target, lock
        lock.end()


def lent(target, lock, name):
    return LentLock(target, "job", lock.token, f"{CLIENT}-{name}")


def test_a_chunk_has_one_owner(held):
    """The last one that has claimed it, who is told of all before; any other may not write, whatever it claimed."""
    one, other = lent(*held, "aa"), lent(*held, "bb")
    assert one.claim(7) == frozenset()
    one.confirm()
    assert other.claim(7) == {f"{CLIENT}-aa"}
    other.confirm()
    with pytest.raises(TakenOver, match="another worker has taken over chunk 7"):
        one.confirm()
    assert one.claim(8) == frozenset()
    one.confirm()


def test_another_run_has_the_lock(held, world):
    """Neither a claim nor a write is allowed any more, for good."""
    target, lock = held
    worker = lent(target, lock, "aa")
    worker.claim(1)
    assert lock.drop(target)
    later = Lock(world.config(table="t").target, "job", "another")
    later.take(target)
    for ask in (worker.confirm, lambda: worker.claim(1)):
        with pytest.raises(NotLocked, match="is not that of run") as refused:
            ask()
        assert (refused.value.kind, refused.value.transient) == (Kind.LOCKED, False)
    later.drop(target)
    later.end()


def test_the_lock_is_asked_of_a_dead_node(held):
    """It answers no more: the owner of the slot is looked up without asking for the lock, which it has by now."""
    target, lock = held
    worker = lent(target, lock, "aa")
    worker.claim(1)
    target.admit = worker.confirm
    owners = target.slots
    (dead,) = free_ports(1)
    target.topology.slots = SlotMap.single(Node(HOST, dead))
    with pytest.raises(TargetError, match="refused"):
        worker.confirm()
    target.refresh(force=True)
    assert target.slots.nodes == owners.nodes
    worker.confirm()


def test_a_lock_that_nobody_confirms(held, monkeypatch):
    """Nothing is written once Redis has not said for long enough that it is held; it may be held still."""
    target, lock = held
    worker = lent(target, lock, "aa")
    worker.claim(1)
    assert worker.lapsed() is None
    monkeypatch.setattr(worker, "_until", 0.0)
    monkeypatch.setattr(worker, "_asking", True)
    lapsed = worker.lapsed()
    assert isinstance(lapsed, LoaderError)
    assert (str(lapsed), lapsed.transient) == ("the lock of job 'job' has not been confirmed in time", True)
