"""Faults of `chaos` in which a node loses what it had acknowledged, so that promises made before may be taken back.

A run under way has to notice it all the same: what says ok later holds.
"""

import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from promises import GRACE, LONG_AGO, Void
from scene import Draw, Scene, Working, one
from stage import Broken, clock, connect, until

FLUSH = 2.5  # seconds within which Redis writes to its file what it has acknowledged
TRANSIT = 0.5  # seconds in which a replica has what another one has
BEARING = 15_000  # milliseconds for which nodes do not miss one another, while one is away on purpose


def master_killed(scene: Scene, draw: Draw) -> str:
    name = one(scene.fleet.masters(), draw.a)
    slots, killed = scene.fleet.slots(name), clock()
    scene.fleet.kill(name)
    at_once = draw.b < 0.25  # before anyone misses it: what it had not written to its file is lost
    if not at_once:
        _until_replaced(scene, name)
        time.sleep(draw.seconds(0, 2))
    scene.fleet.start(name)
    if at_once:
        scene.void(Void(f"{name} was started again at once", killed - FLUSH, clock() + GRACE, slots))
    return f"{name}, started again {'at once' if at_once else 'after a replica took over'}"


def cluster_down(scene: Scene, draw: Draw) -> str:
    names, seconds, killed = list(scene.lab.redis_ports), draw.seconds(1, 4), clock()
    scene.fleet.kill(*names)
    time.sleep(seconds)
    scene.fleet.start(*names)
    scene.void(Void("all nodes were killed", killed - FLUSH, clock() + GRACE))
    return f"all nodes killed, for {seconds:.1f} s"


def killed_behind(scene: Scene, draw: Draw) -> str:
    return _behind(scene, draw, by_force=False)


def takeover_behind(scene: Scene, draw: Draw) -> str:
    return _behind(scene, draw, by_force=True)


def _behind(scene: Scene, draw: Draw, *, by_force: bool) -> str:
    """No replica of a master gets anything for a while, then one takes over: what none had was never counted.

    A run that ends meanwhile says that it is through: then it is done at once, and no other run mends it.
    """
    run, name = scene.work(), one(scene.fleet.masters(), draw.a)
    replicas = scene.fleet.replicas(name)
    heir, seconds = one(replicas, draw.b), draw.seconds(5, 9)
    scene.hush()
    scene.fleet.bear(BEARING)
    with scene.fleet.node(heir) as node:
        connection = node.connection_pool.get_connection()
        try:
            with _cut_off(scene, replicas, name):
                _wait(scene, run, seconds)
                if by_force:
                    connection.send_command("CLUSTER", "FAILOVER", "TAKEOVER")
                else:
                    _kill(scene, name)
            if by_force:
                connection.read_response()
        finally:
            node.connection_pool.release(connection)
    scene.fleet.bear()
    _until_replaced(scene, name)
    if by_force:
        scene.fleet.settle()
    else:
        scene.fleet.start(name)
    how = f"{heir} took over by force" if by_force else "the master was killed"
    return f"of {name} for up to {seconds:.1f} s beside {run}, then {how}"


def lone_replica(scene: Scene, draw: Draw) -> str:
    """One replica gets nothing for a while; its master and the others are killed, and it takes over."""
    masters = [name for name in scene.fleet.masters() if len(scene.fleet.replicas(name)) > 1]
    if not masters:
        return "skipped: no master has two replicas"
    run, name = scene.work(), one(masters, draw.a)
    replicas, slots = scene.fleet.replicas(name), scene.fleet.slots(name)
    heir, seconds, began = one(replicas, draw.b), draw.seconds(2, 5), clock()
    others = [replica for replica in replicas if replica != heir]
    if draw.b * 7 % 1 < 0.5:  # else the others take note that it is away
        scene.fleet.bear(BEARING)
    with _cut_off(scene, [heir], name):
        time.sleep(seconds)
        _kill(scene, name, *others)
    scene.fleet.bear()
    _until_replaced(scene, name)
    scene.void(Void(f"{heir} took over alone", began - TRANSIT, clock() + GRACE, slots))
    scene.shake(slots=slots)
    scene.fleet.start(name, *others)
    return f"{heir} was cut off for {seconds:.1f} s beside {run}; {', '.join([name, *others])} killed"


def old_snapshot(scene: Scene, draw: Draw) -> str:
    """A master is killed, and comes back at once with what it had some seconds before."""
    run, name, seconds = scene.work(), one(scene.fleet.masters(), draw.a), draw.seconds(0.5, 4)
    slots, began = scene.fleet.slots(name), clock()
    home = scene.lab.directory / name
    data = next(path for path in (home / "appendonlydir", home / "appendonly.aof") if path.exists())
    copy = home / "before"
    _copy(data, copy)
    time.sleep(seconds)
    scene.fleet.bear(BEARING)
    scene.fleet.kill(name)
    _remove(data)
    copy.rename(data)
    scene.lab.start(name)
    scene.void(Void(f"{name} came back with an old snapshot", began, clock() + GRACE, slots))
    scene.shake(slots=slots)
    scene.fleet.settle()
    scene.fleet.bear()
    return f"{name}, of {clock() - began:.1f} s before, beside {run}"


def evictions(scene: Scene, draw: Draw) -> str:
    """Masters throw keys away for want of memory, and forget how many."""
    run, masters = scene.work(), scene.fleet.masters()
    names = masters if draw.a < 0.3 else [one(masters, draw.b)]
    slots, thrown = scene.fleet.slots(*names), 0
    for name in names:
        with scene.fleet.node(name) as node:
            memory = node.info("memory")
            counted = memory["used_memory"] - memory["mem_not_counted_for_evict"]
            node.config_set("maxmemory-policy", "allkeys-random")
            node.config_set("maxmemory", counted - int(draw.seconds(50_000, 400_000)))
    time.sleep(draw.seconds(0.2, 1))
    for name in names:
        with scene.fleet.node(name) as node:
            node.config_set("maxmemory", 0)
            node.config_set("maxmemory-policy", "noeviction")
            thrown += node.info("stats")["evicted_keys"]
            node.config_resetstat()
    scene.void(Void(f"{', '.join(names)} threw keys away", LONG_AGO, clock() + GRACE, slots))
    scene.shake(slots=slots)
    return f"{thrown} keys of {', '.join(names)}, beside {run}"


def foreign_key(scene: Scene, draw: Draw) -> str:
    """A key of a row is of another type: the row is rejected, and the key left alone."""
    with connect(scene.lab) as mysql, mysql.cursor() as cursor:
        cursor.execute("SELECT id FROM item ORDER BY id LIMIT 1 OFFSET %s", [int(draw.a * 5000)])
        key = b"item_" + cursor.fetchall()[0][0]
    with scene.fleet.cluster() as cluster:
        cluster.set(key, "foreign")
        time.sleep(draw.seconds(3, 6))
        kept = cluster.type(key) == b"string"
        cluster.delete(key)
    scene.void(Void("its key was of another type", LONG_AGO, clock(), keys=frozenset([key]), begun=True))
    if not kept:
        raise Broken(f"{key!r} was a string of someone else, and is gone")
    return key.decode()


@contextmanager
def _cut_off(scene: Scene, replicas: Sequence[str], master: str) -> Iterator[None]:
    """Replicas stand still, and their connections to their master are closed: so the kernel keeps nothing for them."""
    try:
        for name in replicas:
            scene.lab.kill(name, signal.SIGSTOP)
        with scene.fleet.node(master) as node:
            node.execute_command("CLIENT", "KILL", "TYPE", "replica")
        yield
    finally:
        for name in replicas:
            scene.lab.kill(name, signal.SIGCONT)


def _wait(scene: Scene, run: Working | None, seconds: float) -> None:
    """Wait for so long, but not beyond the end of a run."""
    end = clock() + seconds
    while clock() < end and (run is None or scene.is_at_work(run.job)):
        time.sleep(0.02)


def _kill(scene: Scene, *names: str) -> None:
    """Kill nodes while others stand still, who would keep waiting those that ask them."""
    for name in names:
        scene.lab.kill(name)
    time.sleep(0.2)


def _until_replaced(scene: Scene, name: str) -> None:
    until(lambda: name not in scene.fleet.masters(), f"a replica of {name} to take over")


def _copy(data: Path, copy: Path) -> None:
    """Copy a node's file, or its directory of them, as they are now."""
    _remove(copy)
    if data.is_dir():
        shutil.copytree(data, copy)
    else:
        shutil.copy(data, copy)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
