"""A lab to break: a table in its MySQL, loads of it that go on while something happens, and what is then in Redis."""

import signal
import subprocess
import threading
from contextlib import contextmanager, suppress

import pytest
import redis
from redis.cluster import ClusterNode, RedisCluster

import loader.lab.redis
import loader.pipeline.transfer
from loader.config.servers import TargetConfig
from loader.errors import LabError
from loader.lab.lab import Lab
from loader.lab.process import program, wait
from loader.model import ChunkLoaded, Node, Waiting
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from loader.wire.slots import SLOTS
from support.command import HOST
from support.database import Ear, World

ROWS = 6_000
CHUNK = 100
CRAWL = 90  # rows a second
NODE_TIMEOUT = 1500  # milliseconds: a failover then takes about 3 seconds


class Load:
    """A load of all rows in a thread: it crawls while something happens to it, then goes as fast as it can."""

    def __init__(self, config, *, rate=None, **options):
        self.ear = Ear()
        self._rate = rate
        options["rate"] = rate
        self.run = None
        self._work = lambda: run_job(config, config.jobs["job"], Options(chunk_rows=CHUNK, **options), self.ear)
        self._thread = threading.Thread(target=self._go, daemon=True)
        self._thread.start()

    def _go(self):
        self.run = self._work()

    @property
    def running(self):
        return self._thread.is_alive()

    @property
    def rows(self):
        return sum(event.read for event in self.ear.events if isinstance(event, ChunkLoaded))

    @property
    def reasons(self):
        """Why chunks were tried again."""
        return [event.reason for event in self.ear.events if isinstance(event, Waiting)]

    def reach(self, rows):
        """Wait until so many more rows are loaded, at the load's rate; what happens then has a minute's time."""
        goal = self.rows + rows
        wait(lambda: self.ear.throttle or not self.running, "the load to begin")
        self.ear.throttle._rate = self._rate
        wait(lambda: self.rows >= goal or not self.running, f"{goal} rows")
        assert self.running, self.run
        self.ear.throttle._rate = CRAWL

    def finish(self, seconds=60):
        """The run, once it has ended."""
        if self.ear.throttle:
            self.ear.throttle._rate = None
        self._thread.join(seconds)
        assert not self.running, self.reasons
        if self.run.outcome.is_success and self.run.starts == 1 and not self.run.resumed:
            assert self.ear.throttle.rows == self.run.read, "rows that were read more than once are shown once"
        return self.run


class Storm:
    """A world of a lab that is broken; `target` is how its loads reach Redis."""

    def __init__(self, lab, directory):
        self.lab = lab
        self.world = World(lab, directory)
        self.deadline = "120s"
        digits = " UNION ALL ".join(f"SELECT {n} AS n" for n in range(10))
        self.world.sql(
            "CREATE TABLE big (id int PRIMARY KEY, name varchar(60) NOT NULL)",
            "INSERT INTO big SELECT 1 + a.n + 10*b.n + 100*c.n + 1000*d.n, CONCAT('name ', RAND())"
            f" FROM ({digits}) a, ({digits}) b, ({digits}) c, ({digits}) d WHERE d.n < 6",
        )

    @property
    def url(self):
        return "redis://" + ",".join(f"{HOST}:{port}" for port in self.lab.redis_ports.values())

    def config(self, **target):
        account = {"url": self.url.replace("//", "//loader@"), "password": self.lab.redis_password}
        settings = TargetConfig.model_validate({"timeout": "3s"} | (target if "url" in target else account | target))
        return self.world.config(table="big", deadline=self.deadline).model_copy(update={"target": settings})

    def load(self, rate=800, *, target=None, **options):
        return Load(self.config(**(target or {})), rate=rate, **options)

    def client(self, name):
        """A plain client of one node."""
        return redis.Redis(HOST, self.lab.redis_ports[name], socket_timeout=20)

    def names(self, role):
        return [row.name for row in self.lab.status() if row.role == role]

    def replica_of(self, name):
        return next(row.name for row in self.lab.status() if row.master == name)

    def node(self, name):
        return Node(HOST, self.lab.redis_ports[name])

    def leads(self, name):
        """Whether a node is a master that takes writes."""
        with self.client(name) as client:
            return client.info("replication")["role"] == "master" and client.cluster("info")["cluster_state"] == "ok"

    def fail_over(self, name, *how):
        """Have the replica of that name take the place of its master, and wait until it has."""
        with self.client(name) as client:
            client.execute_command("CLUSTER", "FAILOVER", *how)
        wait(lambda: self.leads(name), f"{name} to lead")

    def settle(self):
        """Start what is dead, wait until the nodes agree, and look at the cluster anew."""
        for row in self.lab.status():
            if row.running:
                self.lab.kill(row.name, signal.SIGCONT)
        try:
            if not self.lab.up():
                self._agree()
            wait(lambda: replicas_are_seen(self.lab), "the replicas")
        except LabError as error:
            error.add_note("\n".join(self._views()))
            raise
        self.world.redis.close()
        nodes = [ClusterNode(HOST, port) for port in self.lab.redis_ports.values()]
        self.world.redis = RedisCluster(startup_nodes=nodes)

    def _agree(self):
        try:
            wait(self.lab.is_settled, "the cluster to settle")
        except LabError:
            self.claim_lost_slots()
            wait(self.lab.is_settled, "the cluster to settle")

    def claim_lost_slots(self):
        """Have masters own again what all others say is theirs: one that moved may be lost to its new owner alone."""
        views = {name: slot_owners(port) for name, port in self.lab.redis_ports.items()}
        for name, view in views.items():
            port = self.lab.redis_ports[name]
            others = [each for other, each in views.items() if other != name]
            lost = [
                slot for slot in range(SLOTS) if slot not in view and all(each.get(slot) == port for each in others)
            ]
            if lost:
                with self.client(name) as client:
                    client.execute_command("CLUSTER", "ADDSLOTS", *lost)

    def _views(self):
        """What each node says of the cluster, for who has to find out why it does not settle."""
        for name, port in self.lab.redis_ports.items():
            with redis.Redis(HOST, port, socket_timeout=5) as client, suppress(redis.RedisError):
                state = client.execute_command("CLUSTER", "INFO")
                yield f"{name} {state}\n{client.execute_command('CLUSTER', 'NODES')}"

    def is_exact(self):
        """Whether each row has its hash, field by field, and nothing else is there."""
        rows = self.world.sql("SELECT id, name FROM big")
        hashes = self.world.hashes()
        return hashes == {f"big_{n}".encode(): {b"id": b"%d" % n, b"name": name.encode()} for n, name in rows}

    def check(self, run):
        """All rows were read and written, none is lost."""
        assert (run.status, run.error, run.rejected) == ("ok", None, 0)
        assert run.read == run.written == ROWS
        self.settle()
        assert self.is_exact()

    def cluster(self, *words):
        """What `redis-cli --cluster` says."""
        call = [program("redis-cli", "valkey-cli"), "--cluster", *map(str, words)]
        done = subprocess.run(call, capture_output=True, check=False, encoding="utf-8", timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class Migration:
    """Some slots of a master under way to another node, as `CLUSTER SETSLOT` and `MIGRATE` do it, key by key."""

    def __init__(self, source, goal, slots, *, begins=True):
        self.source, self.goal, self.slots = source, goal, slots
        self._ids = {client: client.execute_command("CLUSTER", "MYID").decode() for client in (source, goal)}
        if begins:
            self.begin()

    def begin(self):
        for slot in self.slots:
            self.goal.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self._ids[self.source])
            self.source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self._ids[self.goal])

    def take(self):
        """All of it, and wait until both nodes know: who has not heard of the newest epoch takes an old one."""
        self.begin()
        self.finish()
        wait(lambda: _masters(self.source) == _masters(self.goal), "the nodes to agree")

    def move(self, count):
        """Move some keys of each slot; whether there were any."""
        port = self.goal.connection_pool.connection_kwargs["port"]
        moved = False
        for slot in self.slots:
            keys = self.source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, count)
            if keys:
                moved = True
                self.source.execute_command("MIGRATE", HOST, port, "", 0, 5000, "KEYS", *keys)
        return moved

    def finish(self):
        """Move the rest, and have the slots owned by their goal."""
        while self.move(1000):
            pass
        for slot in self.slots:
            for client in (self.goal, self.source):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self._ids[self.goal])


def _masters(client):
    """What a node knows of the masters: the epochs of their configs."""
    return {each["node_id"]: each["epoch"] for each in client.cluster("nodes").values() if "master" in each["flags"]}


def wait_for_reason(load, text):
    """Wait until a chunk was tried again for a reason."""
    try:
        wait(lambda: any(text in reason for reason in load.reasons) or not load.running, text)
    except LabError as error:
        raise AssertionError(load.reasons, load.ear.throttle and load.ear.throttle.reason) from error
    assert load.running, load.run


@contextmanager
def broken_lab(directory):
    """Three masters with a replica each that find a dead node out soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader.lab.redis, "REDIS_CONF", loader.lab.redis.REDIS_CONF.replace("5000", str(NODE_TIMEOUT)))
        lab = Lab(directory)
        lab.up()
        for port in lab.redis_ports.values():
            with redis.Redis(HOST, port) as client, suppress(redis.ReadOnlyError):
                client.flushall()  # so that each replica receives something
        wait(lambda: replicas_are_seen(lab), "the replicas to have told how far they are")
        yield lab
        lab.down()


def slot_owners(port):
    """The ports of the owners of slots, as one node knows them."""
    with redis.Redis(HOST, port) as client:
        rows = client.execute_command("CLUSTER", "SLOTS")
    return {slot: row[2][1] for row in rows for slot in range(row[0], row[1] + 1)}


def replicas_are_seen(lab):
    """Whether CLUSTER SLOTS has them: it leaves out those that no node has heard of yet that they received anything."""
    for port in lab.redis_ports.values():
        with redis.Redis(HOST, port) as client:
            if any(len(row) < 4 for row in client.execute_command("CLUSTER", "SLOTS")):
                return False
    return True


@contextmanager
def storm_on(lab, directory):
    """A world of that lab; whatever was broken is whole again afterwards."""
    storm = Storm(lab, directory)
    try:
        yield storm
    finally:
        storm.settle()
        storm.world.close()
