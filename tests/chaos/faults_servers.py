"""Faults of `chaos`: what a node refuses, a MySQL that goes or changes, a loader that is ended, a network cut."""

import signal
import time
from typing import Any

import pymysql
import redis

from scene import Draw, Scene, one
from stage import clock, connect, until


def connections_cut(scene: Scene, draw: Draw) -> str:
    times = 3 + int(draw.a * 8)
    killed = 0
    for _ in range(times):
        for name in scene.lab.redis_ports:
            with scene.fleet.node(name) as node:
                killed += node.execute_command("CLIENT", "KILL", "USER", "loader")
        time.sleep(0.3)
    return f"{killed} to Redis, in {times} strokes"


def out_of_memory(scene: Scene, draw: Draw) -> str:
    masters = scene.fleet.masters()
    names = masters if draw.a < 0.3 else [one(masters, draw.b)]
    seconds = draw.seconds(2, 6)
    for name in names:
        with scene.fleet.node(name) as node:
            node.config_set("maxmemory", "1mb")
    time.sleep(seconds)
    for name in scene.lab.redis_ports:
        with scene.fleet.node(name) as node:
            node.config_set("maxmemory", 0)
    return f"{', '.join(names)} for {seconds:.1f} s"


def snapshot_fails(scene: Scene, draw: Draw) -> str:
    """A node that cannot save its data to disk takes no writes (MISCONF)."""
    name, seconds = one(scene.fleet.masters(), draw.a), draw.seconds(2, 5)
    in_the_way = scene.lab.directory / name / "dump.rdb"
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()
    with scene.fleet.node(name) as node:
        node.config_set("save", "3600 1")
        _save(node, "err")
        time.sleep(seconds)
        in_the_way.rmdir()
        _save(node, "ok")
        node.config_set("save", "")
    return f"{name} for {seconds:.1f} s"


def _save(node: "redis.Redis[Any]", end: str) -> None:
    until(lambda: not node.info("persistence")["aof_rewrite_in_progress"], "a rewrite to end")
    node.bgsave()
    until(lambda: node.info("persistence")["rdb_last_bgsave_status"] == end, f"a snapshot to end with {end}")


def mysql_connections_killed(scene: Scene, draw: Draw) -> str:
    times = 2 + int(draw.a * 5)
    killed = 0
    with connect(scene.lab) as mysql, mysql.cursor() as cursor:
        for _ in range(times):
            cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'loader'")
            for (ident,) in cursor.fetchall():
                try:
                    cursor.execute(f"KILL {int(ident)}")
                    killed += 1
                except pymysql.MySQLError:  # it has left by itself
                    pass
            time.sleep(0.3)
    return f"{killed}, in {times} strokes"


def mysql_killed(scene: Scene, draw: Draw) -> str:
    seconds = draw.seconds(0, 3)
    scene.lab.kill("mysql")
    until(lambda: not scene.lab.status()[0].running, "mysql to be gone")
    time.sleep(seconds)
    scene.lab.start("mysql")
    return f"started again after {seconds:.1f} s"


def mysql_paused(scene: Scene, draw: Draw) -> str:
    seconds = draw.seconds(1, 8)
    scene.lab.kill("mysql", signal.SIGSTOP)
    time.sleep(seconds)
    scene.lab.kill("mysql", signal.SIGCONT)
    return f"for {seconds:.1f} s"


def column_added(scene: Scene, draw: Draw) -> str:
    """Sometimes one that all rows have a value in at once."""
    name, default = f"more{time.monotonic_ns()}", "新" if draw.a < 0.5 else None
    sent, clause = clock(), "" if default is None else f" DEFAULT '{default}'"
    with connect(scene.lab) as mysql, mysql.cursor() as cursor:
        cursor.execute(f"ALTER TABLE item ADD COLUMN {name} varchar(20){clause}")
    scene.widen("item", name, default, sent)
    return name + clause


def table_renamed(scene: Scene, draw: Draw) -> str:
    seconds = draw.seconds(0.2, 2)
    with connect(scene.lab) as mysql, mysql.cursor() as cursor:
        cursor.execute("RENAME TABLE item TO item_gone")
        time.sleep(seconds)
        cursor.execute("RENAME TABLE item_gone TO item")
    return f"away and back after {seconds:.1f} s"


def loader_killed(scene: Scene, draw: Draw) -> str:
    time.sleep(draw.seconds(0, 1))
    return scene.hit(draw.a, signal.SIGKILL)


def loader_stopped(scene: Scene, draw: Draw) -> str:
    time.sleep(draw.seconds(0, 1))
    return scene.hit(draw.a, signal.SIGTERM)


def network_cut(scene: Scene, draw: Draw) -> str:
    """Packets of one hand's loader vanish for a while; sometimes it is killed meanwhile, with rows on their way."""
    if scene.cut is None:
        return "skipped: no network of its own can be made here"
    run = scene.work(cut=True)
    killed = ""
    scene.cut.drop()
    try:
        if draw.a < 0.5:
            time.sleep(draw.b * 2)
            killed = f", {scene.hit(0, signal.SIGKILL, cut=True)} was killed"
        time.sleep(draw.seconds(2, 15))
    finally:
        scene.cut.heal()
    return f"beside {run} for {draw.seconds(2, 15):.1f} s{killed}"


def lock_lost(scene: Scene, draw: Draw) -> str:
    """The lock of a run under way is deleted."""
    del draw
    run = scene.work()
    if run is None:
        return "of nobody: there was no run"
    scene.shake(jobs=[run.job])
    with scene.fleet.cluster() as cluster:
        there = cluster.delete(f"loader:{{{run.job}}}:lock")
    return f"of {run}" + ("" if there else ", which had none")


def counters_reset(scene: Scene, draw: Draw) -> str:
    del draw
    scene.work()
    for name in scene.lab.redis_ports:
        with scene.fleet.node(name) as node:
            node.config_resetstat()
    return "on all nodes"
