"""What a writer leaves behind where it is cut off, and what it takes note of."""

import pytest
import redis

from loader.errors import Kind, LoaderError, TargetError
from loader.lab.process import wait
from loader.model import Batch
from loader.redis.client import RedisClient
from loader.redis.sockets import NodePool
from loader.redis.writer import PipelineWriter
from loader.state.markers import Markers
from loader.wire.resp import pack
from loader.wire.slots import slot_of

KEY = b"links_1"


@pytest.fixture
def target(world):
    with RedisClient(world.config(table="t").target) as target:

        def replicated():  # CLUSTER SLOTS leaves out a replica that has received nothing yet
            target.refresh(force=True)
            return all(map(target.topology.replicas_of, target.slots.nodes))

        wait(replicated, "a replica of each master")
        yield target


def send(writer, value):
    """Send one row; the node that it goes to."""
    slots = writer.begin()
    writer.send(slots.owners[slot_of(KEY)], Batch(pack([b"HMSET", KEY, b"f", value]), 1, 1))
    return slots.node_of(slot_of(KEY))


def test_what_is_under_way_when_a_writer_is_closed_is_fenced(world, target):
    """It may be carried out later: before anything else is sent there, the server forgets the connection."""
    writer = PipelineWriter(target)
    node = send(writer, b"old")
    (link,) = writer._links
    name = link.name
    writer.close()
    assert target.fences.failed(node) == [name]
    target.command(node, "PING")
    assert target.fences.is_settled(target.slots.nodes)
    writer = PipelineWriter(target)
    send(writer, b"new")
    writer.drain()
    writer.close()
    assert target.fences.is_settled(target.slots.nodes)


def test_a_wait_that_timed_out_is_fenced(target):
    """What a node has not answered it may carry out later."""
    node = target.slots.nodes[0]
    links = NodePool(target, lambda _: 1, lambda *_: None)
    with pytest.raises(TargetError, match="no reply for"):
        list(links.numbers({node: [[b"WAIT", b"9", b"3000"]]}, 0.1))
    links.close()
    assert not target.fences.is_settled(target.slots.nodes)


def test_a_chunk_that_no_replica_has_is_not_counted(target, monkeypatch):
    """What WAIT says is looked at."""

    def unheard(links, commands, *_):
        return ((node, [0] * len(words)) for node, words in commands.items())

    monkeypatch.setattr(NodePool, "numbers", unheard)
    writer = PipelineWriter(target)
    send(writer, b"one")
    writer.drain()
    with pytest.raises(TargetError, match="no replica acknowledged") as caught:
        writer.await_replicas()
    assert caught.value.transient
    writer.close()


def test_a_marker_whose_slot_has_moved(target, monkeypatch):
    """A master keeps it in another slot, and is asked again, where replicas are waited for at the end."""
    node = target.slots.nodes[0]
    markers = Markers(target, "loader:marker:job", "run")
    markers.leave()
    first = markers.place(node)
    commands = target.commands

    def moved(node, words, **options):
        replies = commands(node, words, **options)
        return [redis.ResponseError("ASK 1 127.0.0.1:1"), *replies[1:]] if first in words[0] else replies

    monkeypatch.setattr(target, "commands", moved)
    with pytest.raises(TargetError, match="ASK") as raised:
        markers.reach_all(node, 1)
    assert raised.value.transient
    assert markers.place(node) not in {None, first}
    assert markers.reach_all(node, 5)
    monkeypatch.undo()
    markers.forget()


def test_nothing_is_sent_that_the_guard_refuses(world, target):
    """It is asked once more right before bytes are given to a socket."""
    answers = [None, LoaderError("the lock has lapsed", kind=Kind.UNAVAILABLE)]

    def guard():
        if answers and (error := answers.pop(0)):
            raise error

    writer = PipelineWriter(target)
    writer.guard(guard)
    with pytest.raises(LoaderError, match="has lapsed"):
        send(writer, b"late")
    writer.close()
    assert not answers
    assert not world.redis.exists(KEY)


def test_a_mark_that_is_lost_fails_the_chunk(world, target):
    """A master that came back from an older snapshot has not the number that was noted before."""
    markers = Markers(target, "loader:passing:job", "run")
    markers.leave()
    writer = PipelineWriter(target, marking=markers.field(0))
    send(writer, b"one")
    writer.drain()
    ((key, field, number),) = writer.await_replicas().marks
    assert world.redis.hget(key, field) == b"%d" % number
    send(writer, b"two")
    writer.drain()
    writer.await_replicas()
    world.redis.hset(key, field, number)
    send(writer, b"three")
    writer.drain()
    with pytest.raises(TargetError, match="has lost writes that it had acknowledged") as caught:
        writer.await_replicas()
    assert caught.value.transient
    writer.close()


def test_a_marker_of_another_run_is_none_of_ours(world, target):
    """Someone else writes there."""
    markers = Markers(target, "loader:passing:job", "run")
    markers.leave()
    assert all(there == {} for there in markers.read().values())
    world.redis.hset(markers.keys[0], "run", "another")
    assert [there is None for there in markers.read().values()] == [True, False, False]
