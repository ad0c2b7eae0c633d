"""A throwaway MySQL or MariaDB and a Redis Cluster on this machine, all in one directory.

Servers listen on loopback ports that the kernel chose, and the lab talks to them through their own programs. Redis is
version 6 or newer, which has accounts.
"""

import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from loader.errors import Kind, LabError
from loader.lab import mysql
from loader.lab.process import HOST, Helper, Server, free_ports, program, stop, tail, wait
from loader.redis.acl import REDIS_RIGHTS
from loader.words import counted

MASTERS = 3  # the fewest that can agree on a failover
JOIN_TRIES = 20
PORT_TRIES = 5

REDIS_CONF = """\
port {port}
bind 127.0.0.1
dir "{directory}"
cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 5000
appendonly yes
save ""
repl-diskless-sync-delay 0
user loader on #{password_hash} ~* {rights}
"""

LOADER_YAML = """\
version: 1
source:
  url: mysql://loader@127.0.0.1:{mysql}/test
  password_file: {mysql_password}
target:
  url: redis://loader@{redis}
  password_file: {redis_password}
jobs:
  stu:
    table: stu
    key: "stu_{{sid}}"
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What `status` says of one server; `master` and `slots` are empty where there are none."""

    name: str
    role: str  # mysql, master, replica
    address: str
    pid: int
    running: bool
    master: str = ""  # the name of the replica's master
    slots: str = ""  # "0-5460 10923"


@dataclass(frozen=True, slots=True)
class _Member:
    """A line of CLUSTER NODES."""

    id: str
    port: int
    flags: frozenset[str]
    master: str  # the id, "-" for a master
    slots: str

    @property
    def live(self) -> bool:
        return not self.flags & {"fail", "noaddr", "handshake"}


class Lab:
    """The servers whose state is in `directory`, which need not exist yet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._servers: dict[str, Server] = {}
        self._ready = False

    @property
    def config(self) -> Path:
        """The config that loads the lab's `stu` into the lab's cluster."""
        return self.directory / "loader.yaml"

    @property
    def names(self) -> list[str]:
        """The servers, MySQL first."""
        self._load()
        return list(self._servers)

    @property
    def mysql_port(self) -> int:
        """Where MySQL listens."""
        self._load()
        return self._servers["mysql"].port

    @property
    def redis_ports(self) -> dict[str, int]:
        """Where each Redis node listens, by its name."""
        self._load()
        return {s.name: s.port for s in self._nodes()}

    @property
    def password(self) -> str:
        """The password of `loader`, who may only read the database `test`."""
        return (self.directory / "mysql.password").read_text()

    @property
    def redis_password(self) -> str:
        """The password of the nodes' user `loader`, who may do no more than the loader needs."""
        return (self.directory / "redis.password").read_text()

    @property
    def owner_password(self) -> str:
        """The password of `owner`, who may do anything."""
        return (self.directory / "owner.password").read_text()

    def up(self, nodes: int = 6, replicas: int = 1, sql: Sequence[Path] = ()) -> list[str]:
        """Start what does not run and return the names: all of them at first, none when the lab was up.

        `sql` are files that fill the database `test` the first time.
        """
        if nodes // (replicas + 1) < MASTERS:
            msg = (
                f"a cluster needs at least {MASTERS} masters: {counted(nodes, 'node')} with"
                f" {counted(replicas, 'replica')} each make {nodes // (replicas + 1)};"
                f" at least {MASTERS * (replicas + 1)} nodes are required"
            )
            raise LabError(msg, kind=Kind.CONFIG)
        if self._file.is_file():
            self._load()
            if self._ready:
                return self._revive()
            self.down()  # of an `up` that was broken off
        elif self.directory.exists() and any(self.directory.iterdir()):
            raise LabError(f"{self.directory} is in use and not by a lab: name an empty or a new directory")
        fill = "".join(path.read_text(encoding="utf-8") + ";" for path in sql)
        try:
            self._create(nodes, replicas, fill)
        except BaseException:
            stop(self._servers.values())
            raise
        return list(self._servers)

    def down(self) -> bool:
        """End the lab's processes and remove its directory; False when there was no lab."""
        if not self.directory.exists():
            return False
        self._load()
        stop(self._servers.values())
        shutil.rmtree(self.directory)
        return True

    def status(self) -> list[Row]:
        """One row a server, MySQL first; roles are as the cluster sees them."""
        self._load()
        view = self._view()
        names = {m.id: s.name for m in view for s in self._nodes() if s.port == m.port}
        members = {names.get(m.id): m for m in view}
        rows = []
        for server in self._servers.values():
            role, master, slots = "mysql" if server.name == "mysql" else "unknown", "", ""
            if member := members.get(server.name):
                role = "replica" if "slave" in member.flags else "master"
                master, slots = names.get(member.master, ""), member.slots
            address = f"{HOST}:{server.port}"
            rows.append(Row(server.name, role, address, server.pid, server.running, master, slots))
        return rows

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a server a signal; waits for nothing."""
        self._load()
        server = self._find(name)
        if not server.running:
            raise LabError(f"{name} does not run: `loader lab start {name}` starts it")
        os.kill(server.pid, number)

    def start(self, name: str) -> bool:
        """Start a server on its old port and wait until it answers; False when it was running."""
        self._load()
        if self._find(name).running:
            return False
        self._launch([name])
        return True

    def add_replica(self, name: str | None = None, master: str | None = None, *, wipe: bool = False) -> str:
        """Join a node, by default a new one, as a replica and return its name.

        The master is by default the one with the fewest live replicas. A node that was in the cluster must be
        wiped first: its files except redis.conf are deleted, and the others forget it.
        """
        self._load()
        if name is None:
            name = f"n{1 + max(int(s.name[1:]) for s in self._nodes())}"
            chosen = self._master_for(name, master)
            self._servers[name] = Server(name)
            self._launch([name], fresh=True)
        else:
            server = self._find(name, redis=True)
            chosen = self._master_for(name, master)
            if wipe:
                self._wipe(server)
            elif why := self._contents(server):
                raise LabError(f"{name} is not empty: {why}; `loader lab add-replica {name} --wipe` empties it first")
            if not server.running:
                self._launch([name])
        addresses = [f"{HOST}:{self._servers[name].port}", f"{HOST}:{chosen.port}"]
        role = ["--cluster-slave", "--cluster-master-id", chosen.id]
        self._join([*addresses, *role])
        wait(self._settled, "the cluster to settle")
        return name

    def _join(self, words: Sequence[str]) -> None:
        """Add a node; after a failover the others may take a moment to agree, and redis-cli wants that first."""
        for last in (*[False] * (JOIN_TRIES - 1), True):
            try:
                with Helper([_redis_cli(), "--cluster", "add-node", *words], self.directory) as joining:
                    joining.finish()
            except LabError as error:
                if last or "don't agree" not in str(error):
                    raise
                time.sleep(1)
            else:
                return

    # the first start

    def _create(self, nodes: int, replicas: int, fill: str) -> None:
        """Make the directory, the database and the cluster, as much as possible side by side."""
        for find in (mysql.install_command, _redis_server, _redis_cli):
            find()  # complains before anything is made
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = [f"n{i + 1}" for i in range(nodes)]
        self._servers = {name: Server(name) for name in ["mysql", *names]}
        self._ready = False
        self._save()
        passwords = {user: secrets.token_urlsafe(24) for user in ("loader", "owner")}
        _write_secret(self.directory / "mysql.password", passwords["loader"])
        _write_secret(self.directory / "owner.password", passwords["owner"])
        _write_secret(self.directory / "redis.password", secrets.token_urlsafe(24))
        _write_secret(self._init_file, mysql.init_sql(passwords, fill))
        with Helper(mysql.install_command(), self.directory) as installing:
            self._launch(names, fresh=True)
            addresses = [f"{HOST}:{self._servers[name].port}" for name in names]
            count = ["--cluster-replicas", str(replicas), "--cluster-yes"]
            with Helper([_redis_cli(), "--cluster", "create", *addresses, *count], self.directory) as creating:
                installing.finish()
                self._launch(["mysql"], fresh=True)
                creating.finish()
        if mysql.refused(self._log(self._servers["mysql"])):
            raise self._failure(self._servers["mysql"], "refused its SQL")
        self._init_file.unlink()
        wait(self._settled, "the cluster to settle")
        self.config.write_text(self._config_text(), encoding="utf-8")
        self._ready = True
        self._save()

    def _config_text(self) -> str:
        return LOADER_YAML.format(
            mysql=self._servers["mysql"].port,
            mysql_password=json.dumps(str(self.directory / "mysql.password"), ensure_ascii=False),
            redis=",".join(f"{HOST}:{node.port}" for node in self._nodes()),
            redis_password=json.dumps(str(self.directory / "redis.password"), ensure_ascii=False),
        )

    # processes

    def _launch(self, names: Sequence[str], *, fresh: bool = False) -> None:
        """Start servers side by side and wait until each answers.

        A fresh server gets a port, and another one if that is taken before it listens; the others keep theirs.
        """
        for attempt in range(PORT_TRIES):
            if fresh:
                for name, port in zip(names, free_ports(len(names)), strict=True):
                    self._servers[name].port = port
            elif attempt:
                time.sleep(1)
            for name in names:
                self._spawn(self._servers[name])
            self._save()
            names = [name for name in names if not self._comes_up(self._servers[name])]
            if not names:
                return
        raise self._failure(self._servers[names[0]])

    def _spawn(self, server: Server) -> None:
        """Start a server's process, detached, with its output appended to its log."""
        home = self.directory / server.name
        if server.name == "mysql":
            argv = mysql.command(home, server.port, self._init_file)
        else:
            home.mkdir(exist_ok=True)
            conf = home / "redis.conf"
            conf.write_text(self._redis_conf(server.port, home), encoding="utf-8")
            argv = [_redis_server(), str(conf)]
        server.spawn(argv, self.directory / f"{server.name}.log")

    def _redis_conf(self, port: int, home: Path) -> str:
        return REDIS_CONF.format(
            port=port,
            directory=str(home).replace("\\", "\\\\").replace('"', '\\"'),
            password_hash=hashlib.sha256(self.redis_password.encode()).hexdigest(),
            rights=REDIS_RIGHTS,
        )

    def _comes_up(self, server: Server) -> bool:
        """Wait until a server answers; False when its port was taken."""
        wait(lambda: not server.running or self._answers(server), f"{server.name} to answer")
        if server.running:
            return True
        if "in use" in tail(self._log(server)):
            return False
        raise self._failure(server)

    def _answers(self, server: Server) -> bool:
        if server.name == "mysql":
            return mysql.answers(self.directory / "mysql", server)
        text = self._ask(server, "INFO", "PING")
        return f"process_id:{server.pid}\n" in text and text.endswith("PONG\n")

    def _revive(self) -> list[str]:
        """Start the servers that died."""
        dead = [server.name for server in self._servers.values() if not server.running]
        if dead:
            self._launch(dead)
            wait(self._settled, "the cluster to settle")
        return dead

    # the cluster

    def _ask(self, server: Server, *commands: str) -> str:
        """What redis-cli prints for commands; nothing when the node does not answer."""
        call = [_redis_cli(), "-h", HOST, "-p", str(server.port)]
        with suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                call, input="\n".join(commands), capture_output=True, check=False, encoding="utf-8", timeout=10
            )
            return done.stdout.replace("\r\n", "\n")
        return ""

    def _members(self, server: Server) -> list[_Member]:
        """The cluster as one node sees it."""
        members = []
        for line in self._ask(server, "CLUSTER NODES").splitlines():
            ident, address, flags, master, _, _, _, _, *slots = line.split()
            port = int(address.partition("@")[0].rpartition(":")[2])
            members.append(_Member(ident, port, frozenset(flags.split(",")), master, " ".join(slots)))
        return members

    def _view(self, without: str = "") -> list[_Member]:
        """The cluster as the running nodes other than that one see it."""
        nodes = [server for server in self._nodes() if server.running and server.name != without]
        return max(map(self._members, nodes), key=len, default=[])

    def _settled(self) -> bool:
        """Whether the running nodes agree on the topology and every replica follows its master."""
        views = set()
        for server in self._nodes():
            if server.running:
                text = self._ask(server, "CLUSTER INFO", "INFO replication")
                if "cluster_state:ok" not in text or ("role:slave" in text and "master_link_status:up" not in text):
                    return False
                members = self._members(server)
                if not all(m.live for m in members if any(s.running and s.port == m.port for s in self._nodes())):
                    return False
                views.add(frozenset((m.id, m.port, m.master, m.slots) for m in members if "noaddr" not in m.flags))
        return len(views) == 1

    def _master_for(self, name: str, wanted: str | None) -> _Member:
        """The master that a node shall replicate."""
        port = self._find(wanted, redis=True).port if wanted else None
        view = self._view(without=name)
        replicas = [m.master for m in view if m.live and m.port != self._servers.get(name, Server(name)).port]
        masters = [m for m in view if m.live and m.master == "-" and m.slots]
        if not masters:
            raise LabError("no master of the cluster runs: `loader lab up` starts what is dead")
        if wanted is None:
            order = [server.port for server in self._nodes()]
            return min(masters, key=lambda m: (replicas.count(m.id), order.index(m.port)))
        for member in masters:
            if member.port == port and wanted != name:
                return member
        names = ", ".join(s.name for s in self._nodes() if s.name != name and any(m.port == s.port for m in masters))
        raise LabError(f"{wanted} is no master that {name} could replicate; the masters are {names}")

    def _contents(self, server: Server) -> str:
        """Why a node does not count as empty; the empty string when it does."""
        if not server.running:
            joined = (self.directory / server.name / "nodes.conf").exists()
            return "it was in a cluster and still has its files" if joined else ""
        known, keys = len(self._members(server)) - 1, self._ask(server, "DBSIZE").strip()
        return (
            f"it knows {counted(known, 'other node')} and holds {counted(int(keys), 'key')}"
            if known or keys != "0"
            else ""
        )

    def _wipe(self, server: Server) -> None:
        """Stop a node, delete its files except redis.conf and let the others forget it."""
        view = self._view(without=server.name)
        old = [m for m in view if m.port == server.port]
        if slots := " ".join(m.slots for m in old if m.slots):
            raise LabError(
                f"{server.name} owns the slots {slots}, which a wipe would lose: kill it and wait for a failover"
            )
        stop([server])
        for path in (self.directory / server.name).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "redis.conf":
                path.unlink()
        for other in self._nodes():
            if other.running:
                self._ask(other, *(f"CLUSTER FORGET {m.id}" for m in old))

    # the state

    @property
    def _file(self) -> Path:
        return self.directory / "lab.json"

    @property
    def _init_file(self) -> Path:
        return self.directory / "init.sql"

    def _nodes(self) -> list[Server]:
        return [server for name, server in self._servers.items() if name != "mysql"]

    def _find(self, name: str, *, redis: bool = False) -> Server:
        if name not in self._servers or (redis and name == "mysql"):
            known = ", ".join(server.name for server in (self._nodes() if redis else self._servers.values()))
            raise LabError(f"no {'node' if redis else 'server'} {name} in this lab: it has {known}", kind=Kind.CONFIG)
        return self._servers[name]

    def _load(self) -> None:
        """Read the state, which another process may have changed."""
        try:
            state = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            seen = "is no lab's directory" if self.directory.exists() else "does not exist"
            raise LabError(f"no lab is up: {self.directory} {seen}; `loader lab up` starts one") from None
        self._servers = {server["name"]: Server(**server) for server in state["servers"]}
        self._ready = state["ready"]

    def _save(self) -> None:
        state = {"ready": self._ready, "servers": [asdict(server) for server in self._servers.values()]}
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(state, indent=1))
        new.replace(self._file)

    def _log(self, server: Server) -> str:
        return (self.directory / f"{server.name}.log").read_text(errors="replace")

    def _failure(self, server: Server, what: str = "did not come up") -> LabError:
        path = self.directory / f"{server.name}.log"
        return LabError(f"{server.name} {what}; its log {path} ends with\n{tail(self._log(server))}")


def _redis_server() -> str:
    return program("redis-server", "valkey-server")


def _redis_cli() -> str:
    return program("redis-cli", "valkey-cli")


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
