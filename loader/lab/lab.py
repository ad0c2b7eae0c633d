"""A throwaway MySQL or MariaDB and a Redis Cluster on this machine, all in one directory.

Servers listen on loopback ports that the kernel chose, and the lab talks to them through their own programs. Redis is
version 6 or newer, which has accounts.
"""

import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from loader.errors import LabError
from loader.lab import mysql, redis
from loader.lab.cluster import Cluster, check_size
from loader.lab.files import LabFiles
from loader.lab.process import HOST, Helper, Server, stop
from loader.lab.servers import LabServers
from loader.records import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """The state of one server; `master` and `slots` are empty for servers that have neither."""

    name: str
    role: str  # mysql, master, replica
    address: str
    pid: int
    running: bool
    master: str = ""  # the name of the replica's master
    slots: str = ""  # "0-5460 10923"


class Lab:
    """The servers whose state is in `directory`, which need not exist yet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._files = LabFiles(self.directory)
        self._servers = LabServers(self._files)

    @property
    def config(self) -> Path:
        """The config that loads the lab's `stu` into the lab's cluster."""
        return self._files.config

    @property
    def names(self) -> list[str]:
        """The servers, MySQL first."""
        self._servers.load()
        return [server.name for server in self._servers]

    @property
    def mysql_port(self) -> int:
        """The port of MySQL."""
        self._servers.load()
        return self._servers.mysql.port

    @property
    def redis_ports(self) -> dict[str, int]:
        """The port of each Redis node, by its name."""
        self._servers.load()
        return {node.name: node.port for node in self._servers.nodes}

    @property
    def password(self) -> str:
        """The password of `loader`, which may only read the database `test`."""
        return self._files.password("mysql")

    @property
    def redis_password(self) -> str:
        """The password of the nodes' user `loader`, which may do no more than the loader needs."""
        return self._files.password("redis")

    @property
    def owner_password(self) -> str:
        """The password of `owner`, which may do anything."""
        return self._files.password("owner")

    def up(self, nodes: int = 6, replicas: int = 1, sql: Sequence[Path] = ()) -> list[str]:
        """Start the servers that are not running and return their names: at first all, none when the lab was up.

        `sql` are files that fill the database `test` the first time.
        """
        check_size(nodes, replicas)
        if self._files.exist:
            self._servers.load()
            if self._servers.are_complete:
                return self._revive()
            self.down()  # of an `up` that was broken off
        elif self.directory.exists() and any(self.directory.iterdir()):
            raise LabError(f"{self.directory} is in use and not by a lab: name an empty or a new directory")
        fill = "".join(_statements(path) + ";" for path in sql)
        try:
            self._create(nodes, replicas, fill)
        except BaseException:
            stop(self._servers)
            raise
        return [server.name for server in self._servers]

    def down(self) -> bool:
        """Stop the lab's processes and remove its directory; False if there was no lab."""
        if not self.directory.exists():
            return False
        self._servers.load()
        stop(self._servers)
        shutil.rmtree(self.directory)
        return True

    def status(self) -> list[Row]:
        """One row for each server, MySQL first; roles are as the cluster sees them."""
        self._servers.load()
        view = self._cluster.view()
        names = {member.id: node.name for member in view for node in self._servers.nodes if node.port == member.port}
        members = {names.get(member.id): member for member in view}
        rows = []
        for server in self._servers:
            role, master, slots = "mysql" if server.name == "mysql" else "unknown", "", ""
            if member := members.get(server.name):
                role = "replica" if member.is_replica else "master"
                master, slots = names.get(member.master, ""), member.slots
            address = f"{HOST}:{server.port}"
            rows.append(Row(server.name, role, address, server.pid, server.running, master, slots))
        return rows

    def is_settled(self) -> bool:
        """Whether the running nodes agree on the topology and every replica follows its master."""
        self._servers.load()
        return self._cluster.is_settled()

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a server a signal; waits for nothing."""
        self._servers.load()
        server = self._servers.find(name)
        if not server.running:
            raise LabError(f"{name} does not run: `loader lab start {name}` starts it")
        os.kill(server.pid, number)

    def start(self, name: str) -> bool:
        """Start a server on its old port and wait until it answers; False when it was running."""
        self._servers.load()
        server = self._servers.find(name)
        if server.running:
            return False
        self._servers.launch([server])
        return True

    def add_replica(self, name: str | None = None, master: str | None = None, *, wipe: bool = False) -> str:
        """Join a node, by default a new one, as a replica and return its name.

        The master is by default the one with the fewest live replicas. A node that was in the cluster must be
        wiped first: its files except redis.conf are deleted, and the others forget it.
        """
        self._servers.load()
        node = self._servers.find_node(name) if name is not None else self._servers.next_node()
        chosen = self._cluster.master_for(node, self._servers.find_node(master) if master else None)
        if name is None:
            self._servers.add(node)
            self._servers.launch([node], fresh=True)
        else:
            self._prepare(node, wipe=wipe)
        self._cluster.add_replica(node, chosen)
        self._cluster.wait_until_settled()
        return node.name

    def _prepare(self, node: Server, *, wipe: bool) -> None:
        """Start a node that was in the cluster, after a check that it is empty, or a wipe."""
        if wipe:
            ids = self._cluster.ids_without_slots(node)
            stop([node])
            self._files.empty(node)
            self._cluster.forget(ids)
        elif why := self._contents(node):
            raise LabError(
                f"{node.name} is not empty: {why}; `loader lab add-replica {node.name} --wipe` empties it first"
            )
        if not node.running:
            self._servers.launch([node])

    def _contents(self, node: Server) -> str:
        """Why a node does not count as empty; the empty string if it does."""
        if node.running:
            return self._cluster.contents(node)
        joined = (self._files.home(node) / "nodes.conf").exists()
        return "it was in a cluster and still has its files" if joined else ""

    def _create(self, nodes: int, replicas: int, fill: str) -> None:
        """Make the directory, the database and the cluster, as much as possible side by side."""
        for find in (mysql.install_command, redis.server_program, redis.cli_program):
            find()  # complains before anything is made
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._servers.create([f"n{i + 1}" for i in range(nodes)])
        self._files.write_secrets(fill)
        with Helper(mysql.install_command(), self.directory) as installing:
            self._servers.launch(self._servers.nodes, fresh=True)
            with self._cluster.creating(replicas) as creating:
                installing.finish()
                self._servers.launch([self._servers.mysql], fresh=True)
                creating.finish()
        self._servers.check_filled()
        self._files.init_sql.unlink()
        self._cluster.wait_until_settled()
        self._files.write_config(self._servers.mysql.port, [node.port for node in self._servers.nodes])
        self._servers.complete()

    def _revive(self) -> list[str]:
        """Start the servers that died."""
        dead = [server for server in self._servers if not server.running]
        if dead:
            self._servers.launch(dead)
            self._cluster.wait_until_settled()
        return [server.name for server in dead]

    @property
    def _cluster(self) -> Cluster:
        return Cluster(self._servers.nodes, self.directory)


def _statements(file: Path) -> str:
    """The text of a file of SQL."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise LabError(f"{file}: it cannot be read: not UTF-8 text") from None
