"""The processes of a lab: their names and state, how they are started, and their logs if they did not come up."""

import time
from collections.abc import Iterable, Iterator, Sequence

from loader.errors import Kind, LabError
from loader.lab import mysql, redis
from loader.lab.files import LabFiles
from loader.lab.process import Server, free_ports, tail, wait

MYSQL = "mysql"  # the name of the only server that is not a Redis node
PORT_TRIES = 5


class LabServers:
    """The servers of a lab, MySQL first; their state is written to the lab's files whenever one is started."""

    def __init__(self, files: LabFiles) -> None:
        self._files = files
        self._servers: dict[str, Server] = {}
        self.are_complete = False  # the first start is done

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    def load(self) -> None:
        """Read the state, which another process may have changed."""
        self._servers, self.are_complete = self._files.load()

    def create(self, names: Sequence[str]) -> None:
        """Record MySQL and the named nodes, none of which has been started."""
        self._servers = {name: Server(name) for name in (MYSQL, *names)}
        self.are_complete = False
        self._save()

    def complete(self) -> None:
        """Record that the first start is done."""
        self.are_complete = True
        self._save()

    def next_node(self) -> Server:
        """A node with the next free name, which is not added yet."""
        return Server(f"n{1 + max(int(node.name[1:]) for node in self.nodes)}")

    def add(self, node: Server) -> None:
        """Add a node that has not been started."""
        self._servers[node.name] = node

    @property
    def mysql(self) -> Server:
        """The MySQL server."""
        return self._servers[MYSQL]

    @property
    def nodes(self) -> list[Server]:
        """The Redis nodes."""
        return [server for server in self if server.name != MYSQL]

    def find(self, name: str) -> Server:
        """The server of a name; a `LabError` if there is no such one."""
        if name not in self._servers:
            raise LabError(f"no server {name} in this lab: it has {_names(self)}", kind=Kind.CONFIG)
        return self._servers[name]

    def find_node(self, name: str) -> Server:
        """The Redis node of a name; a `LabError` if there is no such one."""
        if name not in self._servers or name == MYSQL:
            raise LabError(f"no node {name} in this lab: it has {_names(self.nodes)}", kind=Kind.CONFIG)
        return self._servers[name]

    def launch(self, servers: Sequence[Server], *, fresh: bool = False) -> None:
        """Start servers side by side and wait until each answers.

        A fresh server gets a port, and another one if that is taken before it listens; the others keep theirs.
        """
        for attempt in range(PORT_TRIES):
            if fresh:
                for server, port in zip(servers, free_ports(len(servers)), strict=True):
                    server.port = port
            elif attempt:
                time.sleep(1)
            for server in servers:
                self._spawn(server)
            self._save()
            servers = [server for server in servers if not self._comes_up(server)]
            if not servers:
                return
        raise self._failure(servers[0])

    def check_filled(self) -> None:
        """Raise a `LabError` if MySQL refused the SQL that it was started with."""
        if mysql.refused(self._log(self.mysql)):
            raise self._failure(self.mysql, "refused its SQL")

    def _failure(self, server: Server, what: str = "did not come up") -> LabError:
        """The error that shows the end of a server's log."""
        return LabError(f"{server.name} {what}; its log {self._files.log(server)} ends with\n{tail(self._log(server))}")

    def _spawn(self, server: Server) -> None:
        """Start a server's process, detached, with its output appended to its log."""
        home = self._files.home(server)
        if server.name == MYSQL:
            command = mysql.command(home, server.port, self._files.init_sql)
        else:
            command = redis.command(home, server.port, self._files.password("redis"))
        server.spawn(command, self._files.log(server))

    def _comes_up(self, server: Server) -> bool:
        """Wait until a server answers; False when its port was taken."""
        wait(lambda: not server.running or self._answers(server), f"{server.name} to answer")
        if server.running:
            return True
        if "in use" in tail(self._log(server)):
            return False
        raise self._failure(server)

    def _answers(self, server: Server) -> bool:
        return mysql.answers(self._files.home(server), server) if server.name == MYSQL else redis.answers(server)

    def _log(self, server: Server) -> str:
        return self._files.log(server).read_text(errors="replace")

    def _save(self) -> None:
        self._files.save(self._servers, ready=self.are_complete)


def _names(servers: Iterable[Server]) -> str:
    return ", ".join(server.name for server in servers)
