"""Whatever stands in the loader's own keys: it is written anew and told of, or one line names it and what mends it."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import redis

from loader.config.load import Config
from loader.daemon.service import Daemon
from loader.doctor.findings import examine
from loader.doctor.job_state import KEPT, JobState
from loader.doctor.redis import RedisProbe
from loader.errors import LoaderError
from loader.jobs import rejects, verify
from loader.jobs.execute import execute
from loader.jobs.follow import Following
from loader.jobs.status import job_status
from loader.model import Notice
from loader.pipeline.options import Options
from loader.pipeline.throttle import StopRequest
from loader.redis.client import RedisClient
from loader.state.lock import Lock
from loader.state.stored_json import LATEST
from loader.state.tidy import Tidy
from loader.state_keys import KINDS, OWN, kind_of
from loader.web.activity import RunTracker
from loader.web.dashboard import Dashboard
from loader.web.health import Health
from support.command import redis_server
from support.database import Ear, Halter

JOBS = {
    "plain": {"table": "t", "key": "plain_{id}", "schedule": {"every": "1h"}, "chunk_rows": 1},
    "inc": {"table": "t", "key": "inc_{id}", "incremental": {"column": "at", "lag": "1s"}, "full_every": "1d"},
    "changed": {"table": "t", "key": "changed_{id}", "changed_only": True, "chunk_rows": 1},
    "half": {"table": "t", "key": "half_{id}", "chunk_rows": 1},
    "followed": {"table": "t", "key": "followed_{id}", "follow": True},
}
SLOT = 1_700_000_000
DEEP = 100_000


def shapes(good):
    """Garbage by name: some is none of ours whatever stands beside it, some is nearly what a loader wrote."""
    total = {
        "empty": b"",
        "not UTF-8": b"\xff\x00\xfe",
        "broken": b"{",
        "null": b"null",
        "a number": b"-5",
        "a text": b'"x"',
        "a list": b'[1, {"a": 2}]',
        "no fields": b"{}",
        "deep": b"[" * DEEP,
        "huge": b"x" * 100_000,
        "many digits": b"9" * 5000,
    }
    try:
        values = json.loads(good)
        assert isinstance(values, dict)
    except (ValueError, AssertionError):
        return total, {}
    first, *_ = [name for name in values if name != "version"]
    near = {
        "negative": each(values, lambda value: -5 if is_number(value) else value),
        "great": each(values, lambda value: 10**30 if is_number(value) else value),
        "the last moment": each(values, lambda value: LATEST if is_number(value) else value),
        "endless": each(values, lambda value: float("inf") if is_number(value) else value),
        "texts": each(values, lambda value: "x" if is_number(value) else value),
        "numbers": each(values, lambda value: 5 if isinstance(value, str) else value),
        "half signs": each(values, lambda value: "\ud800" if isinstance(value, str) else value),
        "empty inside": each(values, lambda value: value, {}),
        "lists": each(values, lambda value: value, []),
        "a field less": {name: value for name, value in values.items() if name != first},
        "a field more": values | {"more": 1},
        "the future": values | {"version": 99},
    }
    return total, {name: json.dumps(value).encode() for name, value in near.items()}


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def each(value, change, inside=None):
    """All values inside changed, but for the version; or all that hold others emptied."""
    if isinstance(value, dict):
        return {
            name: inner
            if name == "version"
            else inside
            if inside is not None and isinstance(inner, dict | list)
            else each(inner, change, inside)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [each(inner, change, inside) for inner in value]
    return change(value)


class Lab:
    """Jobs that have left all there is of state in a Redis of their own, which can be had back as it was."""

    def __init__(self, world, client, port):
        world.sql(
            "CREATE TABLE t (id INT PRIMARY KEY, v INT, at DATETIME NOT NULL, KEY (at))",
            "INSERT INTO t VALUES (1, 1, NOW() - INTERVAL 1 DAY), (2, 2, NOW() - INTERVAL 1 DAY)",
        )
        source = f"mysql://loader@127.0.0.1:{world.lab.mysql_port}/{world.name}"
        self.config = Config.model_validate(
            {
                "version": 1,
                "source": {"url": source, "password": world.lab.password},
                "target": {"url": f"redis://127.0.0.1:{port}"},
                "jobs": JOBS,
            }
        )
        self.client = client
        self.heard = set()  # keys and types of what was told of
        for name in JOBS:
            assert self.sync(name)[0].exit_code == 0
        follow(self, "followed")
        client.set("loader:{followed}:wanted", "a")
        client.set("plain_1", "foreign")
        assert self.sync("plain", Options(slot=SLOT, resume=True))[0].exit_code == 3
        self.stop_halfway()
        with RedisClient(self.config.target) as target:
            Lock(self.config.target, "plain", "gone").take(target)
            client.hset("loader:{plain}:fence", "gone", target.name)
        client.delete("plain_1")
        for key, value in (("paused", '{"since": 1}'), ("prune", "a")):
            client.set(f"loader:{{inc}}:{key}", value)
        held = json.loads(client.hget("loader:{plain}:lock", "1/1"))
        client.hset("loader:{plain}:lock", "1/1", json.dumps(held | {"pid": 2**22 + 1}))
        client.hset("loader:passing:changed:{0}", mapping={"run": "a", "name": "loader-abc"})
        client.persist("loader:{plain}:lock")
        self.kept = {key: client.dump(key) for key in client.keys("*")}
        world.sql("UPDATE t SET v = 3, at = NOW() WHERE id = 2")  # which a run must not miss
        self.own = {}  # a key of each kind, with its job
        for key in sorted(key.decode() for key in self.kept if key.startswith(b"loader:")):
            self.own.setdefault(OWN.fullmatch(key)["name"] or OWN.fullmatch(key)["spread"], key)
        self.own["slot"], self.own["digests"] = "loader:{plain}:slot", "loader:{changed}:digests"
        self.target = RedisClient(self.config.target)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.target.close()

    def stop_halfway(self):
        """Leave the checkpoint of a backfill that was told to stop behind its first chunk."""
        halt = StopRequest()
        assert self.sync("half", Options(resume=True, workers=1, halt=halt), Halter(halt))[0].exit_code == 143

    def restore(self):
        with self.client.pipeline() as pipe:
            pipe.flushall()
            for key, value in self.kept.items():
                pipe.restore(key, 0, value)
            pipe.execute()

    def sync(self, name, options=None, ear=None):
        """A run, and what was said."""
        ear = ear or Ear()
        run = execute(self.config, self.config.jobs[name], options or Options(), ear)
        said = [event.text for event in ear.events if isinstance(event, Notice)]
        return run, [*said, *([run.error] if run.error else [])]

    def hashes(self, name):
        return {key: self.client.hgetall(key) for key in self.client.keys(f"{name}_*")}

    def is_right(self, name):
        """Whether the job's hashes are those of the rows as they are since its state was kept."""
        return {fields[b"v"] for fields in self.hashes(name).values()} == {b"1", b"3"}


def status(lab, name):
    return list(job_status(lab.target, lab.config.source, lab.config.jobs[name]).unread)


def doctor(lab, name):
    patient = RedisProbe(lab.config, lab.target, dict.fromkeys(lab.target.slots.nodes, ()), {}, {}, {})
    found = examine("job", KEPT, JobState(lab.config, lab.config.jobs[name], patient, is_read=True), name)
    return [f"{each.seen} {each.fix or ''}" for each in found if each.level == "fail"]


def tidy(lab, name):
    """What a run does at its start."""
    found = Tidy(lab.target, name)
    found.look()
    return list(found.told.values())


def page(lab, name):
    survey = Dashboard(lab.config, RunTracker(), Health([lab.config.source], lab.config.target))
    try:
        with survey._target.open() as target:
            survey.seed(target)
        _, told = survey._look()
        survey.runs([name], 5)
        return list(told)
    finally:
        survey.close()


def resume(lab, name):
    """What a daemon does at its start."""
    said = []
    log = SimpleNamespace(logger=lambda _: SimpleNamespace(warning=lambda _, error: said.append(error)))
    taken = SimpleNamespace(take_up=lambda name, slot: said.append(f"takes up {slot}"))
    Daemon._resume(SimpleNamespace(config=lab.config, schedule=taken, _halt=StopRequest(), _log=log))
    return said


def sync(lab, name, **options):
    run, said = lab.sync(name, Options(**options))
    assert run.exit_code or lab.is_right(name), said
    return said


def slot(lab, name):
    return sync(lab, name, slot=SLOT + 3600, resume=True)


def backfill(lab, name):
    return sync(lab, name, resume=True)


def repair(lab, name):
    verify.verify(lab.config, lab.config.jobs[name], repair=True)
    assert lab.is_right(name)
    return []


def retry(lab, name):
    rejects.retry(lab.config, lab.config.jobs[name])
    return []


def follow(lab, name):
    ear = Ear()
    Following(lab.config, [lab.config.jobs[name]], lambda _: ear).run(until_caught_up=True)
    assert not hasattr(lab, "kept") or lab.is_right(name)
    return [event.text for event in ear.events if isinstance(event, Notice)]


READERS = {  # what reads a key of a kind: at once, and in longer
    "lock": ((status, doctor), (sync,)),
    "fence": ((doctor,), (sync,)),
    "runs": ((status, doctor, tidy), (page, sync)),
    "success": ((status, doctor, tidy), (page, sync)),
    "claim": ((status, doctor), (sync, repair)),
    "fields": ((doctor, tidy), (sync, repair)),
    "checkpoint": ((doctor,), (backfill, slot)),
    "slot": ((doctor,), (resume, slot)),
    "paused": ((status, doctor), (slot,)),
    "rejects": ((doctor,), (retry, sync)),
    "baseline": ((doctor, tidy), (repair, sync)),
    "digests": ((doctor,), (sync,)),
    "prune": ((), (sync,)),
    "marker": ((), (backfill,)),
    "passing": ((), (sync,)),
    "position": ((status,), (follow,)),
    "following": ((), (follow,)),
    "wanted": ((), (follow,)),
    "standing": ((), (sync,)),
    "digest": ((), (sync,)),
}
SILENT = {repair}  # what it leaves is told of by the next run
QUIET = {
    "prune",
    "marker",
    "standing",
    "passing",
    "following",
    "wanted",
}  # that stand for themselves, or are written anew by every run
MENDS = ("DEL ", "loader rejects purge ", "loader backfill ", "loader prune", "rewritten", "everything is loaded")
TYPES = ("string", "list", "set", "zset", "hash", "stream")
FIELDS = {"lock": "1/1", "fence": "gone", "rejects": "plain_1", "digests": "1"}
SOME = ("empty", "not UTF-8", "a number", "huge", "many digits")  # where nothing reads them at once


def named(key, said):
    """Whether what was said names the key, and a command."""
    return any(key in text and any(word in text for word in MENDS) for text in said)


def told(lab, key, look, name):
    """What a command says; it may fail of no more than an error that names the key and what mends it."""
    try:
        return look(lab, name)
    except LoaderError as error:
        said = [str(error)]
    assert named(key, said), said
    assert "\n" not in said[0]
    return said


def put(client, key, kind, shape, field=None):
    client.delete(key)
    {
        "string": lambda: client.set(key, shape),
        "list": lambda: client.rpush(key, shape),
        "set": lambda: client.sadd(key, shape),
        "zset": lambda: client.zadd(key, {shape: 1}),
        "hash": lambda: client.hset(key, field or shape, shape),
        "stream": lambda: client.xadd(key, {b"f": shape}),
    }[kind]()


def good(lab, kind, key):
    """What a loader has left of a kind, and the field that it stands in."""
    if KINDS[kind].type == "string":
        return lab.client.get(key), None
    if KINDS[kind].type == "list":
        return lab.client.lindex(key, 0), None
    field = FIELDS.get(kind, "run")
    return lab.client.hget(key, field), field


def cases(lab, kind, key):
    """Each type with each shape: a name, how it is put there, whether it is none of ours in any case."""
    lab.restore()
    before, field = good(lab, kind, key)
    total, near = shapes(before)
    own = KINDS[kind].type
    if not READERS[kind][0]:
        total = {name: total[name] for name in SOME}
    for each in TYPES:
        for name, shape in total.items() if each == own or READERS[kind][0] else [("empty", b"")]:
            yield f"{each}: {name}", lambda each=each, shape=shape: put(lab.client, key, each, shape, field), True
    if own == "hash":
        for name, shape in total.items():
            yield f"named {name}", lambda shape=shape: lab.client.hset(key, shape, shape), False
    for name, shape in near.items():
        yield f"{own}: {name}", lambda shape=shape: put(lab.client, key, own, shape, field), False


def looks(lab, key, kind, place):
    """What each command says that reads a key; one alone about another type that all were asked about.

    The longer ones are asked once about what is told of alike.
    """
    job = OWN.fullmatch(key)["job"] or key.split(":")[2]
    at_once, longer = READERS[kind]

    def said(look):
        lab.restore()
        place()
        return look, told(lab, key, look, job)

    lab.restore()
    place()
    alike = key, lab.client.type(key)
    foreign = alike[1].decode() != KINDS[kind].type
    heard = [said(look) for look in (at_once[:1] if foreign and alike in lab.heard else at_once)]
    yield from heard
    if not (heard and named(key, heard[0][1]) and alike in lab.heard):
        yield from map(said, longer)
    lab.heard.add(alike)


@pytest.fixture
def lab_of_state(world, tmp_path):
    with redis_server(tmp_path) as port, redis.Redis("127.0.0.1", port) as client, Lab(world, client, port) as lab:
        yield lab


def test_every_kind_is_tried(lab_of_state):
    """All that jobs leave is of a kind that is known, and each kind is among what they left here.

    But for the chunks that workers of Dask claim: a run by Dask deletes what is there before it begins.
    """
    assert lab_of_state.own.keys() == READERS.keys() == KINDS.keys() - {"chunks"}
    assert all(kind_of(key.decode()) for key in lab_of_state.kept if key.startswith(b"loader:"))


def test_garbage_in_each_key(lab_of_state, monkeypatch):
    """No command fails of it but with one line that names the key and what mends it; where it says ok, all is right."""
    lab, tried = lab_of_state, Counter()
    monkeypatch.setattr("loader.mysql.dump.HEARTBEAT", 0.05)
    monkeypatch.setattr("loader.pipeline.follow.IDLE", 0.05)
    monkeypatch.setattr("loader.jobs.recheck.PAUSE", 0)
    for kind, key in [*lab.own.items(), ("baseline", "loader:{inc}:baseline")]:
        for name, place, total in cases(lab, kind, key):
            for look, said in looks(lab, key, kind, place):
                if total and kind not in QUIET and look not in SILENT:
                    assert named(key, said), (key, name, look.__name__, said)
                tried[kind, look] += 1
    assert tried.keys() == {(kind, look) for kind, (at_once, longer) in READERS.items() for look in (*at_once, *longer)}


def test_what_is_written_anew_is_told_once(lab_of_state):
    """The next run finds what this one has left."""
    lab = lab_of_state
    for kind in ("success", "fields", "slot", "rejects", "baseline", "digests", "digest", "passing"):
        key = lab.own[kind]
        job, run = OWN.fullmatch(key)["job"] or key.split(":")[2], slot if kind == "slot" else sync
        lab.restore()
        put(lab.client, key, "stream", b"x")
        assert [key in text for text in run(lab, job) if key in text] == [True]
        assert [text for text in sync(lab, job, slot=SLOT + 7200) if key in text] == []


def test_a_watermark_that_is_ahead_of_mysql(lab_of_state):
    """It is none, unless a clock was set: whatever was changed would be missed until then."""
    lab, key = lab_of_state, "loader:{inc}:baseline"
    baseline = json.loads(lab.client.get(key))
    baseline["more"]["mark"]["at"] = baseline["more"]["mark"]["now"] + 100_000
    lab.client.set(key, json.dumps(baseline))
    assert [text for text in sync(lab, "inc") if "the watermark in the baseline of job 'inc' cannot be read" in text]
