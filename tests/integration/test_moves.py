"""Slots that are half moved from one master to another, for days or right now: no key is missed and called fine."""

from contextlib import contextmanager, suppress

import pytest
import redis

from loader.errors import TargetError
from loader.jobs import recheck
from loader.jobs.keyspace import Keyspace
from loader.redis.client import RedisClient
from loader.web.cluster import look_at
from loader.wire.slots import slot_of
from support.checks import check, checkup, loaded, one, prune, seen
from support.command import HOST, Desk
from support.faults import Migration
from support.tables import fill

ORPHAN, ROW = b"big_00000007", b"big_00000008"
SLOT = slot_of(ORPHAN)


@pytest.fixture(autouse=True)
def pause(monkeypatch):
    """Nobody brings rows to Redis meanwhile, so there is little to wait for."""
    monkeypatch.setattr(recheck, "PAUSE", 0.02)
    return monkeypatch


@pytest.fixture
def small(world):
    """A job of a thousand hashes, of which one has lost its row."""
    fill(world, 1000)
    config = loaded(world, table="big")
    world.sql("DELETE FROM big WHERE id = 7")
    return config


@contextmanager
def moving(config, key):
    """Have the slot of a key move from its master to the first of the others; all is undone at the end."""
    with RedisClient(config.target) as target:
        giver = target.slots.node_of(slot_of(key))
        taker = next(node for node in target.slots.nodes if node != giver)
    with redis.Redis(HOST, giver.port) as source, redis.Redis(HOST, taker.port) as goal:
        migration = Migration(source, goal, [slot_of(key)])
        try:
            yield migration
        finally:
            for slot in migration.slots:
                for client in (source, goal):
                    client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
            with suppress(redis.ResponseError):  # it has moved already
                Migration(source, goal, migration.slots, begins=False).take()
            Migration(goal, source, migration.slots, begins=False).take()


def test_what_has_moved_already_is_compared_and_pruned(world, small, tmp_path):
    """Both nodes of an open slot are asked: a hash without a row is found where it is, goes, and counts once."""
    with moving(small, ORPHAN) as migration:
        assert migration.move(1000)
        verdict = check(small)
        assert (seen(verdict), verdict.rows) == ({(ORPHAN, "extra")}, 999)
        looked = prune(small, small.jobs["job"], dry_run=True)
        assert (looked.keys, looked.extra) == (1000, 1)
        assert check(small, sample=3000).extra == 1
        assert prune(small, small.jobs["job"]).deleted == 1
        assert check(small).is_equal
        assert migration.goal.execute_command("CLUSTER", "COUNTKEYSINSLOT", SLOT) == 0


def test_a_row_whose_hash_has_moved_is_mended(world, small):
    """It is compared where it is, written there where it differs, and its node is told."""
    with moving(small, ROW) as migration:
        assert migration.move(1000)
        world.redis.hset(ROW, "name", "somebody else")
        verdict = check(small, repair=True)
        assert (seen(verdict), verdict.repaired) == ({(ROW, "different"), (ORPHAN, "extra")}, 2)
        assert check(small).is_equal


def test_a_key_that_a_move_has_left_on_both_sides(world, small):
    """Cut off between two steps of a move: it counts once, and goes from both."""
    with moving(small, ORPHAN) as migration:
        port = migration.goal.connection_pool.connection_kwargs["port"]
        migration.source.execute_command("MIGRATE", HOST, port, "", 0, 5000, "COPY", "KEYS", ORPHAN)
        done = prune(small, small.jobs["job"])
        assert (done.keys, done.extra, done.deleted) == (1000, 1, 1)
        assert migration.goal.execute_command("CLUSTER", "COUNTKEYSINSLOT", SLOT) == 0


def test_a_slot_that_only_one_side_takes_for_open(world, small):
    """Nobody reaches the key that was moved: said, and not ok."""
    with moving(small, ORPHAN) as migration:
        assert migration.move(1000)
        migration.source.execute_command("CLUSTER", "SETSLOT", SLOT, "STABLE")
        for command in (check, lambda config: prune(config, config.jobs["job"])):
            with pytest.raises(TargetError, match=f"not checked: slot {SLOT} is being moved from .*--cluster fix") as e:
                command(small)
            assert e.value.exit_code == 1


def test_open_slots_are_shown(world, small, tmp_path):
    """By `cluster`, `doctor` and the page, with both ends."""
    desk = Desk(world, tmp_path)
    with moving(small, ORPHAN) as migration, RedisClient(small.target) as target:
        ends = [
            f"{HOST}:{each.connection_pool.connection_kwargs['port']}" for each in (migration.source, migration.goal)
        ]
        words = "slot {} is being moved from {} to {}".format(SLOT, *ends)
        document = desk.run("cluster", "-o", "json").document
        assert (document["state"], document["slots"]) == ("moving", 16384)
        assert document["moving"] == [{"slot": SLOT, "from": ends[0], "to": ends[1]}]
        shown = desk.run("cluster")
        assert (shown.code, words in shown.out, "moving: 16384 of 16384 slots" in shown.out) == (0, True, True)
        status, told, fix = one(checkup(desk)[1], "redis.cluster")
        assert (status, words in told, fix.startswith("redis-cli --cluster fix ")) == ("warn", True, True)
        view = look_at(target, {})
        assert (view.state, view.problems) == ("moving", (words,))
    assert desk.run("cluster", "-o", "json").document.keys() == {"schema", "state", "slots", "masters"}


WAYS = {  # what becomes of the slot of a hash without a row, as masters are gone over, of which the last has it
    "its keys leave": (["move"], 1),
    "it leaves": (["there"], 1),
    "it leaves and is back": (["there", "", "back"], 1),
    "it never stays": (["there", "", "back"], 100),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_key_that_moves_while_keys_are_looked_for(world, small, pause, way):
    """To a master that was gone over from one that is yet to be: found by looking again, or not called fine."""
    with RedisClient(small.target) as target:
        last = target.slots.nodes[-1]
        number = next(n for n in range(1000, 8, -1) if target.slots.node_of(slot_of(b"big_%08d" % n)) == last)
    world.sql("INSERT INTO big SELECT 7, name, NULL FROM big WHERE id = 8", f"DELETE FROM big WHERE id = {number}")
    check(small, repair=True)
    world.redis.hset(f"big_{number:08d}", "id", number)
    words, times = WAYS[way]
    scan, steps = Keyspace._scan_node, words * times

    def scan_node(self, *where):
        yield from scan(self, *where)
        step = steps.pop(0) if steps else ""
        if step == "move":
            there.move(1000)
        elif step:
            (there if step == "there" else back).take()

    with moving(small, b"big_%08d" % number) as there:
        back = Migration(there.goal, there.source, there.slots, begins=False)
        pause.setattr(Keyspace, "_scan_node", scan_node)
        if times > 1:
            with pytest.raises(TargetError, match=r"not checked: .* moved while") as caught:
                prune(small, small.jobs["job"])
            assert caught.value.exit_code == 1
            steps.clear()
        assert prune(small, small.jobs["job"]).deleted == 1
    assert check(small).is_equal
