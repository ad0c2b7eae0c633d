"""Follows a table that changes all the time while servers die and a network is cut, and compares every row.

After each kind of fault the changes pause, the follower catches up, and each row is compared with its hash by other
means than the loader's: nothing may be missing, different or extra, without a sync in between.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import pymysql

from cut import Cut
from loader.lab.lab import Lab
from stage import Broken, Fleet, compare, connect, start, until, write_config

TABLE = "CREATE TABLE many (id INT UNSIGNED PRIMARY KEY, name VARCHAR(40), n BIGINT NOT NULL) CHARACTER SET utf8mb4"
DOUBLE = """\
INSERT INTO many SELECT id + {have}, LEFT(SHA2(id + {have}, 256), 32), 0 FROM many WHERE id + {have} <= {rows}"""
JOB = "  many: {table: many, key: 'many_{id}', follow: true}"
NODE_TIMEOUT = 1000  # milliseconds until a master counts as dead
SILENT = 40.0  # seconds for which MySQL is frozen, or the network cut: longer than the follower waits for a server
CALM = 1.0  # seconds between two faults


class Changes:
    """Changes rows, some in transactions of many, until it is stopped; MySQL may go away meanwhile."""

    def __init__(self, lab: Lab, rows: int) -> None:
        self._lab, self._rows, self._new = lab, rows, rows
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        chance = random.Random(self._rows)  # reproducible, not secret
        while not self._stopping.is_set():
            with suppress(pymysql.MySQLError, OSError), connect(self._lab) as mysql, mysql.cursor() as cursor:
                while not self._stopping.is_set():
                    for statement in self._statements(chance):
                        cursor.execute(statement)
                        self.count += 1
                    time.sleep(0.001)
            self._stopping.wait(0.2)

    def _statements(self, chance: random.Random) -> list[str]:
        row, kind = chance.randrange(1, self._rows), chance.random()
        self._new += 1
        if kind < 0.7:
            return [f"UPDATE many SET n = n + 1 WHERE id = {row}"]
        if kind < 0.8:
            return [f"INSERT IGNORE INTO many VALUES ({self._new}, 'new', 0)"]
        if kind < 0.9:
            return [f"DELETE FROM many WHERE id = {row}"]
        if kind < 0.95:
            return [f"UPDATE IGNORE many SET id = {self._new} WHERE id = {row}"]
        return ["BEGIN", *(f"UPDATE many SET n = n + 1 WHERE id = {row + more}" for more in range(50)), "COMMIT"]


class Theatre:
    """A lab whose table is followed, and whose parts die."""

    def __init__(self, lab: Lab, rows: int) -> None:
        self.lab, self.rows = lab, rows
        write_config(lab, JOB, silence="3s")
        self.fleet = Fleet(lab, NODE_TIMEOUT)
        self.follower: subprocess.Popen[str] | None = None
        self.cut = Cut.make()

    def keep_commits(self) -> None:
        """Have MySQL lose no commit when it dies: what it loses is in Redis already."""
        with connect(self.lab) as mysql, mysql.cursor() as cursor:
            cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1, GLOBAL sync_binlog = 1")

    def fill(self) -> None:
        """Make the table."""
        with connect(self.lab) as mysql, mysql.cursor() as cursor:
            cursor.execute(TABLE)
            cursor.execute("INSERT INTO many VALUES (1, 'one', 0)")
            have = 1
            while have < self.rows:
                cursor.execute(DOUBLE.format(have=have, rows=self.rows))
                have *= 2

    def act(self, name: str, fault: Callable[[], None], times: int) -> None:
        """Some faults of one kind while rows change; a line says what came of it."""
        began = time.monotonic()
        self.follower = self._start()
        try:
            until(self._is_locked, "the follower to have started")
            with Changes(self.lab, self.rows) as changes:
                for _ in range(times):
                    time.sleep(CALM)
                    fault()
                time.sleep(CALM)
            self.end()
            self._catch_up()
        finally:
            self.follower.kill()
            self.follower.communicate()
        count = compare(self.lab, "many", ["id"])
        if not count.exact:
            raise Broken(f"{name}: {count}")
        print(
            f"{name:28} {times:>3}  {changes.count:>9,} changes  {time.monotonic() - began:>6.1f} s  {count}",
            flush=True,
        )

    def kill_follower(self) -> None:
        """SIGKILL, and the next one goes on at once."""
        assert self.follower
        self.follower.kill()
        self.follower.communicate()
        self.follower = self._start()

    def kill_master(self) -> None:
        """A replica takes over; the dead node comes back as its replica."""
        masters = self.fleet.masters()
        victim = random.choice(masters)
        self.lab.kill(victim)
        until(lambda: victim not in self.fleet.masters() and len(self.fleet.masters()) == len(masters), "a failover")
        time.sleep(CALM)
        self.fleet.start(victim)

    def restart_mysql(self) -> None:
        """SIGKILL, and it comes back."""
        self.lab.kill("mysql")
        time.sleep(CALM)
        self.lab.start("mysql")
        self.keep_commits()

    def freeze_mysql(self) -> None:
        """MySQL is silent, as behind a cut network."""
        pid = int((self.lab.directory / "mysql" / "mysql.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        time.sleep(SILENT)
        os.kill(pid, signal.SIGCONT)

    def cut_network(self) -> None:
        """Packets of the follower vanish, and nobody is told."""
        assert self.cut
        self.cut.drop()
        time.sleep(SILENT)
        self.cut.heal()

    def end(self) -> None:
        """The follower ends well when it is told to."""
        assert self.follower
        if self.follower.poll() is not None:
            raise Broken(f"the follower ended with {self.follower.returncode}: {self.follower.communicate()}")
        until(self._is_locked, "the follower to have started")
        self.follower.send_signal(signal.SIGTERM)
        out = self.follower.communicate(timeout=60)
        if self.follower.returncode:
            raise Broken(f"the follower ended with {self.follower.returncode}: {out}")

    def _is_locked(self) -> bool:
        """Whether this very follower has the job's lock."""
        assert self.follower
        with self.fleet.cluster() as cluster:
            return any(json.loads(each)["pid"] == self.follower.pid for each in cluster.hvals("loader:{many}:lock"))

    def _catch_up(self) -> None:
        self.follower = start(self.lab, "follow", "many", "--until-caught-up")
        out = self.follower.communicate(timeout=120)
        if self.follower.returncode:
            raise Broken(f"the follower ended with {self.follower.returncode}: {out}")

    def _start(self) -> "subprocess.Popen[str]":
        lead = self.cut.lead if self.cut else ()
        return start(self.lab, "--log-level", "error", "follow", "many", lead=lead)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/followed.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000, metavar="R", help="of the table; default %(default)s")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="of the follower; default %(default)s")
    parser.add_argument("--failovers", type=int, default=10, metavar="N", help="default %(default)s")
    parser.add_argument("--restarts", type=int, default=5, metavar="N", help="of MySQL; default %(default)s")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="loader-followed-") as name, ExitStack() as stack:
        lab = Lab(Path(name) / "lab")
        try:
            lab.up()
            theatre = Theatre(lab, args.rows)
            if theatre.cut:
                stack.callback(theatre.cut.close)
            theatre.fill()
            theatre.keep_commits()
            theatre.act("followers killed", theatre.kill_follower, args.kills)
            theatre.act("masters killed", theatre.kill_master, args.failovers)
            theatre.act("MySQL killed", theatre.restart_mysql, args.restarts)
            theatre.act("MySQL silent for 40 s", theatre.freeze_mysql, 1)
            if theatre.cut:
                theatre.act("network cut for 40 s", theatre.cut_network, 1)
            else:
                print("network cut: skipped, it takes root, `ip` and `iptables`")
        except Broken as broken:
            sys.exit(f"followed: broken: {broken}")
        finally:
            lab.down()


if __name__ == "__main__":
    main()
