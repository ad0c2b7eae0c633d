"""A lab to break: a table in its MySQL, loads of it that go on while something happens, and what is then in Redis."""

import signal
import subprocess
import threading
from contextlib import contextmanager

import pytest
import redis
from redis.cluster import ClusterNode, RedisCluster

import loader.lab
from desk import HOST
from loader.lab import Lab
from loader.model import ChunkLoaded, Node, Waiting
from loader.run import Options, run_job
from loader.server import program, wait
from loader.settings import Target as Settings
from world import Ear, World

ROWS = 10_000
CHUNK = 100
NODE_TIMEOUT = 1500  # milliseconds: a failover then takes about 3 seconds


class Load:
    """A load of all rows in a thread, `rate` rows a second of 100 each chunk."""

    def __init__(self, config, **options):
        self.ear = Ear()
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
        """Wait until so many more rows are loaded."""
        goal = self.rows + rows
        wait(lambda: self.rows >= goal or not self.running, f"{goal} rows")
        assert self.running, self.run

    def finish(self, seconds=60):
        """The run, once it has ended."""
        self._thread.join(seconds)
        assert not self.running, self.reasons
        return self.run


class Storm:
    """A world of a lab that is broken; `target` is how its loads reach Redis."""

    def __init__(self, lab, directory):
        self.lab = lab
        self.world = World(lab, directory)
        digits = " UNION ALL ".join(f"SELECT {n} AS n" for n in range(10))
        self.world.sql(
            "CREATE TABLE big (id int PRIMARY KEY, name varchar(60) NOT NULL)",
            "INSERT INTO big SELECT 1 + a.n + 10*b.n + 100*c.n + 1000*d.n, CONCAT('name ', RAND())"
            f" FROM ({digits}) a, ({digits}) b, ({digits}) c, ({digits}) d",
        )

    @property
    def url(self):
        return "redis://" + ",".join(f"{HOST}:{port}" for port in self.lab.redis_ports.values())

    def config(self, **target):
        account = {"url": self.url.replace("//", "//loader@"), "password": self.lab.redis_password}
        settings = Settings.model_validate({"timeout": "3s"} | (target if "url" in target else account | target))
        return self.world.config(table="big").model_copy(update={"target": settings})

    def load(self, rate=4000, *, target=None, **options):
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
        if not self.lab.up():
            wait(self.lab._settled, "the cluster to settle")
        self.world.redis.close()
        nodes = [ClusterNode(HOST, port) for port in self.lab.redis_ports.values()]
        self.world.redis = RedisCluster(startup_nodes=nodes)

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


@contextmanager
def broken_lab(directory):
    """Three masters with a replica each that find a dead node out soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader.lab, "REDIS_CONF", loader.lab.REDIS_CONF.replace("5000", str(NODE_TIMEOUT)))
        lab = Lab(directory)
        lab.up()
        yield lab
        lab.down()


@contextmanager
def storm_on(lab, directory):
    """A world of that lab; whatever was broken is whole again afterwards."""
    storm = Storm(lab, directory)
    try:
        yield storm
    finally:
        storm.settle()
        storm.world.close()
