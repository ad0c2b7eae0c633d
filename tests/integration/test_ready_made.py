"""Ready-made hashes: the same bytes in Redis as HMSET leaves, whatever a row is, and nothing left of what was there."""

import random
from contextlib import contextmanager

import pytest
from redis.cluster import RedisCluster

from loader.doctor.diagnose import diagnose
from loader.errors import Kind
from loader.jobs.preview import preview
from loader.jobs.verify import verify
from loader.outcome import Status
from loader.pipeline.job_context import open_job
from loader.pipeline.options import Options
from loader.pipeline.transfer import transfer
from loader.redis.collector import CollectingWriter
from loader.report.text import plan_text
from loader.wire.slots import slot_of
from support.database import Ear
from support.faults import Migration

EDGES = [
    number + more
    for number in (
        0,
        1 << 7,
        1 << 12,
        1 << 15,
        1 << 23,
        1 << 31,
        1 << 63,
        -(1 << 12),
        -(1 << 15),
        -(1 << 23),
        -(1 << 63),
    )
    for more in (-1, 0, 1)
]
TEXTS = [
    "",
    "-",
    "-0",
    "00",
    "01",
    "+1",
    " 1",
    "1 ",
    "1.0",
    "9" * 19,
    "9" * 20,
    "名",
    "\0",
    "x" * 63,
    "x" * 64,
    "x" * 65,
]
SIZES = [*range(120, 132), 250, 4000, 4095, 4096, 5000]


@pytest.fixture
def shapes(world):
    """A table whose rows have values of all kinds that a listpack tells apart, up to and over its limits."""
    world.sql("CREATE TABLE t (id INT PRIMARY KEY, a VARBINARY(6000), b VARBINARY(6000), c INT NULL)")
    values = [*map(str, EDGES), *TEXTS, *("x" * size for size in SIZES), *(str(10**n) for n in range(25))]
    rows = [(number, value, values[-number], number % 3 or None) for number, value in enumerate(values)]
    with world.mysql.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, %s, %s, %s)", rows)
    return len(rows)


def job(prefix="t:", **more):
    return {"table": "t", "key": f"{prefix}{{id}}", "write": "restore"} | more


def dumps(world, prefix):
    """The hashes as DUMP gives them; of hash tables, whose order is by chance, the fields."""
    found = {key: fields for key, fields in world.hashes().items() if key.startswith(prefix)}
    made = {key.removeprefix(prefix): (world.redis.object("encoding", key), world.redis.dump(key)) for key in found}
    return {key: each if each[0] == b"listpack" else found[prefix + key] for key, each in made.items()}


@contextmanager
def rights(world, *words, after):
    """The loader's account with other rights for a while."""
    nodes = {"target_nodes": RedisCluster.PRIMARIES}
    world.redis.execute_command("ACL", "SETUSER", "loader", *words, **nodes)
    try:
        yield
    finally:
        world.redis.execute_command("ACL", "SETUSER", "loader", *after, **nodes)


@contextmanager
def setting(world, name, value):
    """A setting of all nodes for a while."""
    nodes = {"target_nodes": RedisCluster.PRIMARIES}
    before = next(iter(world.redis.config_get(name, **nodes).values()))
    before = before[name] if isinstance(before, dict) else before
    world.redis.config_set(name, value, **nodes)
    try:
        yield
    finally:
        world.redis.config_set(name, before, **nodes)


@pytest.mark.parametrize("nulls", ["omit", "empty"])
@pytest.mark.parametrize("longest", [None, 20, 100_000])
def test_the_same_hash_as_by_hmset(world, shapes, nulls, longest):
    """DUMP says the same, whether a row is within the limits of a listpack or not, and where those are."""
    allowed = ["+config|get"] if longest else ["-config"]
    with setting(world, "hash-max-listpack-value", longest or 64), rights(world, *allowed, after=["-config"]):
        for prefix, write in (("h:", "hmset"), ("r:", "restore")):
            run = world.sync(**job(prefix, write=write, nulls=nulls))
            assert (run.status, run.written) == (Status.OK, shapes)
        assert dumps(world, b"h:") == dumps(world, b"r:")
        ready = sum(words[0] == b"RESTORE" for words in sent(world, nulls=nulls))
        assert 0 < ready < shapes


def sent(world, **more):
    """The commands that a job's rows make."""
    config = world.config(**job(**more))
    with open_job(config, config.jobs["job"], Options()) as context:
        sink = CollectingWriter(context.target, keep=True)
        sink.restores = True
        context.on_side_connection(
            lambda source: transfer(context.plan, context.plan.first(10_000), source, sink, context.throttle)
        )
        return [words for _, words in sink.kept]


def test_it_takes_the_place_of_whatever_was_there(world, shapes):
    """A field too many, a time to live, a key of another type: all gone, in one step."""
    world.redis.hset("t:1", mapping={"id": "1", "stale": "x"})
    world.redis.expire("t:1", 1000)
    world.redis.set("t:2", "a string")
    run = world.sync(**job())

    assert (run.status, run.written, run.rejected) == (Status.OK, shapes, 0)
    assert set(world.hashes()[b"t:1"]) == {b"id", b"a", b"b", b"c"}
    assert world.redis.ttl("t:1") == -1
    assert world.redis.type("t:2") == b"hash"


def test_the_time_to_live_comes_with_the_hash(world, shapes):
    """Within the jitter, and without an EXPIRE behind it."""
    world.redis.config_resetstat(target_nodes=RedisCluster.PRIMARIES)
    run = world.sync(**job("r:", ttl="1000s", ttl_jitter="10%", where="LENGTH(a) < 60 AND LENGTH(b) < 60"))

    assert (run.status, run.error) == (Status.OK, None)
    stats = world.redis.info("commandstats", target_nodes=RedisCluster.PRIMARIES)
    assert not any("cmdstat_expire" in each or "cmdstat_hmset" in each for each in stats.values())
    lives = [world.redis.ttl(key) for key in world.hashes()]
    assert all(800 <= life <= 1100 for life in lives)
    assert len(set(lives)) > 20


def test_without_the_right(world, shapes):
    """Refused at the start, with the right to grant; `auto` writes by HMSET, and says so."""
    with rights(world, "-restore", after=["+restore"]):
        run = world.sync(**job())
        assert (run.outcome.kind, run.written) == (Kind.ACCESS, 0)
        assert "lacks +restore; write: hmset does without" in str(run.error)
        config = world.config(**job())
        assert any(each.check == "redis.rights" and "+restore" in (each.fix or "") for each in checked(config))
        ear = Ear()
        run = world.sync(ear, **job(write="auto"))
        assert (run.status, run.written) == (Status.OK, shapes)
        assert "rows are written by HMSET" in plan_of(world, write="auto").plan.warnings[0]
    assert plan_of(world, write="auto").plan.layout.listpack


def checked(config):
    return list(diagnose(config, [], list(config.jobs.values())))


def test_doctor_says_whether_it_pays(world):
    """Of many small columns it does; of few it does not; keys of another type are told of before they are replaced."""
    columns = [f"c{number}" for number in range(12)]
    world.sql(
        f"CREATE TABLE wide (id INT PRIMARY KEY, {' INT, '.join(columns)} INT)",
        "INSERT INTO wide VALUES (1" + ", 5" * 12 + ")",
    )
    wide = {"table": "wide", "key": "w:{id}"}

    def said(check, **more):
        return next(each for each in checked(world.config(**wide | more)) if each.check == check)

    assert said("job.write").seen == (
        "13 fields; Redis keeps 100% of 1 row compactly, up to 128 fields of 64 bytes:"
        " `write: restore` would save half of Redis's work"
    )
    assert said("job.write", fields=["id", "c1"]).seen.endswith("`write: hmset` is right")
    assert said("job.write", write="restore").seen.startswith("ready-made: 13 fields")
    world.redis.set("w:1", "a string")
    assert "would replace them" in said("job.types", write="restore").seen


def plan_of(world, **more):
    config = world.config(**job(**more))
    return preview(config, config.jobs["job"])


def test_a_plan_shows_what_the_hash_is(world, shapes):
    """As HMSET, which a person can read, and says that it travels as RESTORE."""
    text = plan_text(plan_of(world))

    assert "HMSET t:0 " in text
    assert "RESTORE" in text


def test_slots_that_move(world, shapes):
    """Rows are redirected, one by one, as HMSET is."""
    key = b"t:7"
    nodes = {node.name: node for node in world.redis.get_primaries()}
    giver = world.redis.get_node_from_key(key)
    taker = next(node for name, node in nodes.items() if name != giver.name)
    source, goal = (world.redis.get_redis_connection(node) for node in (giver, taker))
    migration = Migration(source, goal, [slot_of(key)])
    try:
        run = world.sync(**job())
        assert (run.status, run.written) == (Status.OK, shapes)
        assert goal.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot_of(key)) == 1
    finally:
        migration.move(1000)
        migration.finish()
        Migration(goal, source, migration.slots).finish()
    config = world.config(**job())
    assert verify(config, config.jobs["job"]).is_equal


@pytest.mark.parametrize("more", [{"changed_only": True}, {"where": "id % 2"}, {"chunk_rows": 7}])
def test_other_ways_to_sync(world, shapes, more):
    """Changed rows are written ready-made too; a comparison, and a repair, find the hashes right."""
    config = world.config(**job(**more))
    world.sync(**job(**more))
    chance = random.Random(1)
    for number in chance.sample(range(shapes), 20):
        world.sql(f"UPDATE t SET a = 'changed', c = NULL WHERE id = {number}")
    world.sync(**job(**more))
    assert verify(config, config.jobs["job"]).is_equal
    some = min(world.hashes())
    world.redis.hset(some, "a", "spoilt")
    world.redis.delete(other := max(world.hashes()))
    world.redis.rpush(other, "a list, which an HMSET cannot write over")
    assert verify(config, config.jobs["job"], repair=True).repaired == 2
    assert verify(config, config.jobs["job"]).is_equal
