"""The network is cut amid a run, which ends: what it had sent never comes to lie over what a newer run has written.

The rows are large, so that the kernel of the cut run holds several whole ones that it could send later.
"""

import signal
from contextlib import contextmanager

import pytest

import loader.lab.redis
from loader.lab.lab import Lab
from loader.lab.process import wait
from support.command import Desk, finish
from support.database import World
from support.netns import needs_network, network
from support.proxy import Proxy
from support.tables import STU_SQL

pytestmark = needs_network

ROWS = 40
BYTES = 270_000  # of a row: more than a buffer of commands, so each is sent as soon as it is read
LATE = 3.0  # seconds that a run of all rows takes, and more

JOBS = {
    "sync": {},
    "backfill": {},
    "changed_only": {"changed_only": True},
    "incremental": {"incremental": {"column": "at", "lag": "1s"}},
}


def killed(process):
    """The run is killed."""
    process.kill()
    return -signal.SIGKILL


def stopped(process):
    """The run is told to stop."""
    process.terminate()
    return 128 + signal.SIGTERM


def given_up(process):
    """The run ends by itself, at its job's deadline."""
    return 4


class Outage:
    """A desk at either end of a network: runs at the far end are cut off, those at the near end never are."""

    def __init__(self, net, desk, proxy, kind, **job):
        self.net = net
        self.desk = desk
        self.world = desk.world
        self.kind = kind
        self.command = ["backfill" if kind == "backfill" else "sync", "job"]
        self.world.sql(
            "CREATE TABLE big (id int PRIMARY KEY, v int NOT NULL, pad mediumtext NOT NULL, at datetime(6) NOT NULL"
            " DEFAULT NOW(6) ON UPDATE NOW(6), INDEX by_at (at))",
            "CREATE TABLE ten (n int)",
            "INSERT INTO ten VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
            f"INSERT INTO big (id, v, pad) SELECT 1 + a.n + 10 * b.n, 0, REPEAT(CHAR(97 + a.n), {BYTES})"
            f" FROM ten a, ten b WHERE 10 * b.n + a.n < {ROWS}",
        )
        self.ports = set(self.world.lab.redis_ports.values())
        fields = {"table": "big", "key": "big_{id}", "fields": ["id", "v", "pad"], "deadline": "10s"}
        desk.write(
            {"job": fields | JOBS[kind] | job},
            source={
                "url": f"mysql://marked@{net.host}:{proxy.port}/{self.world.name}",
                "allow_cleartext": True,  # the network is the test's own
                "connect_timeout": "2s",
                "read_timeout": "3s",
            },
            target={
                "url": "redis://marked@" + ",".join(f"{net.host}:{port}" for port in self.ports),
                "timeout": "${SILENCE}",  # by which a run that is cut off notices it
            },
        )

    def set(self, v):
        """Give every row that version."""
        self.world.sql(f"UPDATE big SET v = {v}")

    def far(self, *words):
        """A run at the far end."""
        return self.desk.start(*(words or self.command), within=self.net.within, SILENCE="1s")

    def near(self, within=()):
        """A run that is not cut off, at the near end unless it is said otherwise, once it has ended."""
        return finish(self.desk.start(*self.command, "-o", "json", within=within, SILENCE="10s"))

    def run(self, **where):
        """The document of such a run, which ends well."""
        result = self.near(**where)
        assert result.code == 0, result.err
        return result.document

    @contextmanager
    def cut_amid(self, *words):
        """A run at the far end whose network is cut while its kernel holds rows for Redis that it could send later."""
        before = self._hashes_set()
        process = self.far(*words)
        try:
            wait(lambda: self._hashes_set() >= before + 6 or process.poll() is not None, "the first rows")
            assert process.poll() is None, process.communicate()
            self.net.choke()
            wait(lambda: self._holds_rows() or process.poll() is not None, "rows in a queue")
            self.net.cut()
            assert process.poll() is None, process.communicate()
            yield process
        finally:
            process.kill()
            process.communicate()

    def heal(self):
        """Mend the network, and wait until all that was under way has arrived or is gone."""
        self.net.heal()
        self.settle()

    def settle(self):
        """Wait until nothing is under way: what was sent before has been carried out, or never will be."""
        wait(lambda: not any(queue.unsent for queue in self.net.queues(self.ports)), "empty queues")
        wait(lambda: not any(queue.unread for queue in self.net.arrived(self.ports)), "servers that have read it all")
        for client in self._masters():
            client.ping()

    def is_late(self):
        """Whether the far end's kernel will try none of what it holds again before a whole run could be over."""
        return all(queue.due > LATE for queue in self.net.queues(self.ports) if queue.unsent)

    def stale(self):
        """The rows whose hash is not what MySQL has: number, and what is wrong."""
        hashes = self.world.hashes()
        found = {}
        for n, v, pad in self.world.sql("SELECT id, v, pad FROM big"):
            fields = hashes.pop(b"big_%d" % n, {})
            if fields != {b"id": b"%d" % n, b"v": b"%d" % v, b"pad": pad.encode()}:
                found[n] = fields.get(b"v", b"nothing")
        assert not hashes
        return found

    def check(self):
        """Every hash is its row, and so it is after one more run, which finds nothing to write where it may tell."""
        assert self.stale() == {}
        run = self.run()
        assert self.stale() == {}
        if self.kind == "changed_only":
            assert (run["rows"]["written"], run["rows"]["unchanged"]) == (0, ROWS)

    def _masters(self):
        return [node.redis_connection for node in self.world.redis.get_primaries()]

    def _hashes_set(self):
        stats = [client.info("commandstats").get("cmdstat_hmset", {"calls": 0}) for client in self._masters()]
        return sum(each["calls"] for each in stats)

    def _holds_rows(self):
        """Whether the kernel of the far end holds a row to its end that nothing will have it throw away.

        That would be a reply that its process has not read, or one that is still to come.
        """
        replied = {queue.guest for queue in self.net.arrived(self.ports) if not queue.unsent}
        queues = [queue for queue in self.net.queues(self.ports) if queue.guest in replied and not queue.unread]
        return any(queue.unsent > BYTES + 1000 for queue in queues)


@pytest.fixture(scope="module")
def net():
    with network() as net:
        yield net


@pytest.fixture(scope="module")
def far_lab(net, tmp_path_factory):
    """A lab whose nodes are known by an address that both ends of the network reach."""
    changes = {
        "bind 127.0.0.1": f"bind 127.0.0.1 {net.host}\nprotected-mode no\ncluster-announce-ip {net.host}",
        "appendonly yes": "appendonly no",
    }
    conf = loader.lab.redis.REDIS_CONF
    for old, new in changes.items():
        assert old in conf
        conf = conf.replace(old, new)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader.lab.redis, "REDIS_CONF", conf)
        lab = Lab(tmp_path_factory.mktemp("outage"))
        lab.up(3, 0, sql=[STU_SQL])
        yield lab
        lab.down()


@pytest.fixture
def outage(net, far_lab, tmp_path):
    """What makes an outage of a kind of job."""
    world = World(far_lab, tmp_path)
    try:
        with Proxy(far_lab.mysql_port, net.host) as proxy:
            desk, made = Desk(world, tmp_path), []

            def make(kind, **job):
                made.append(Outage(net, desk, proxy, kind, **job))
                return made[-1]

            yield make
            for each in made:
                each.heal()
    finally:
        world.close()


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("sync", killed),
        ("changed_only", killed),
        ("incremental", killed),
        ("backfill", killed),
        ("changed_only", given_up),
        ("incremental", stopped),
    ],
)
def test_what_a_run_that_ended_had_sent_is_not_carried_out(outage, kind, end):
    """However a run ends in an outage, nothing of it comes over what a newer run from elsewhere has written."""
    there = outage(kind, **({"deadline": "6s"} if end is given_up else {}))
    if kind in {"changed_only", "incremental"}:
        there.run()
    there.set(1)
    with there.cut_amid() as process:
        code = end(process)
        assert finish(process).code == code
        there.set(2)
        there.run()
        there.heal()
    there.check()


def test_the_next_run_is_one_of_the_same_host(outage):
    """A host whose run was killed in an outage sends nothing of it behind its next run, once the network is back."""
    there = outage("changed_only")
    there.run()
    there.set(1)
    with there.cut_amid() as process:
        process.kill()
        process.wait()
        there.set(2)
        wait(there.is_late, "a moment at which nothing will be tried again soon")
        there.net.heal()
        there.run(within=there.net.within)
        there.settle()
    there.check()


def test_a_killed_run_leaves_nothing_behind(outage):
    """The kernel holds nothing of a run that was killed, so nothing could be sent later, whoever takes over and how."""
    there = outage("sync")
    with there.cut_amid() as process:
        process.kill()
        process.wait()
        assert [queue for queue in there.net.queues(there.ports) if queue.unsent] == []


def test_a_run_that_is_frozen(outage):
    """A run that was frozen until its lock ended brings nothing over a newer run, neither by itself nor its kernel."""
    there = outage("sync")
    there.set(1)
    with there.cut_amid() as process:
        process.send_signal(signal.SIGSTOP)
        there.world.redis.delete("loader:{job}:lock")
        there.set(2)
        there.run()
        there.heal()
        assert there.stale() == {}
        process.send_signal(signal.SIGCONT)
        assert finish(process).code == 0
    there.check()


def written_by_schedule(outage):
    """The daemon runs the job at its next second."""
    there = outage("changed_only", schedule={"every": "1s"})
    there.run()
    return there, ["daemon"]


def repaired(outage):
    """All rows differ, and are mended."""
    there = outage("changed_only")
    there.run()
    return there, ["verify", "job", "--repair"]


def tried_again(outage):
    """All rows were rejected, and no longer would be."""
    there = outage("changed_only")
    keys = [f"big_{n + 1}" for n in range(ROWS)]
    for key in keys:
        there.world.redis.set(key, "no hash")
    assert there.near().code == 3
    for key in keys:
        there.world.redis.delete(key)
    return there, ["rejects", "retry", "job"]


@pytest.mark.parametrize("way", [written_by_schedule, repaired, tried_again])
def test_whatever_else_writes_rows(outage, way):
    """Nothing of a killed daemon, repair or retry comes over what a newer run has written."""
    there, words = way(outage)
    there.set(1)
    with there.cut_amid(*words) as process:
        process.kill()
        process.wait()
        there.set(2)
        there.run()
        there.heal()
    there.check()
