"""Processes on this machine that outlive the command that started them.

A server is identified by its process id together with its start time, so that nothing is ever stopped that was not
started here.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from loader.errors import LabError
from loader.process import start_time
from loader.records import dataclass

HOST = "127.0.0.1"
BUS = 10_000  # the cluster bus listens this far above a node's port
READY_TIME = 60.0  # seconds until a server must answer: mysqld recovers after a kill in 2, on a busy machine in 20
SHUTDOWN = 3.0  # seconds until SIGKILL follows SIGTERM: mysqld needs 1, and what is ended is deleted
TAIL = 8  # lines of a log that an error shows

PACKAGES = {
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
}


@dataclass(slots=True)
class Server:
    """One process of the lab, running or not; port 0 is not chosen yet."""

    name: str
    port: int = 0
    pid: int = 0
    started: int = 0  # clock ticks since boot

    def spawn(self, command: list[str], log: Path) -> None:
        """Start the process, detached, its output appended to a file."""
        output = (os.POSIX_SPAWN_OPEN, 1, os.fspath(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), output, (os.POSIX_SPAWN_DUP2, 1, 2)]
        self.pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions, setsid=True)
        self.started = start_time(self.pid) or 0

    @property
    def running(self) -> bool:
        """Whether the process lives and is still the one that was started."""
        return self.pid > 0 and start_time(self.pid) == self.started


def write(file: Path, text: str) -> None:
    """Write a file; an error names it."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(error.errno, f"it cannot be written: {error.strerror}", str(file)) from error


class Helper:
    """A program that runs for a while beside the lab's own work, and must succeed."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self._what = shlex.join(command)
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            env=os.environ | {"TMPDIR": os.fspath(directory)},  # a starting MySQL deletes all others' tables in /tmp
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()

    def finish(self) -> None:
        """Wait until it ends; an exit code other than 0 is an error with its last lines."""
        try:
            output, _ = self._process.communicate(timeout=READY_TIME)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self._what} did not end within {READY_TIME:g} s") from None
        if self._process.returncode:
            raise LabError(f"{self._what} ended with exit code {self._process.returncode}:\n{tail(output)}")


def stop(servers: Iterable[Server]) -> None:
    """Stop processes that are still the ones started: SIGTERM, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        living = [server for server in servers if server.running]
        for server in living:
            with suppress(ProcessLookupError):
                os.kill(server.pid, number)
        deadline = time.monotonic() + SHUTDOWN
        while any(server.running for server in living) and time.monotonic() < deadline:
            time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Ports that are free now, each with a free one for the cluster bus."""
    ports: list[int] = []
    with ExitStack() as held:  # until all are chosen, so that no two are the same
        while len(ports) < count:
            first, bus = (held.enter_context(socket.socket()) for _ in range(2))
            first.bind((HOST, 0))
            port = first.getsockname()[1]
            with suppress(OSError, OverflowError):  # taken; above 65535
                bus.bind((HOST, port + BUS))
                ports.append(port)
    return ports


def wait(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; `what` describes it in the error."""
    deadline = time.monotonic() + READY_TIME
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"timed out after {READY_TIME:g} s waiting for {what}")
        time.sleep(0.02)


def program(*names: str) -> str:
    """The path of the first of these programs that is installed."""
    places = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", str(Path(sys.executable).parent)]
    for name in names:
        if path := shutil.which(name, path=os.pathsep.join(places)):
            return path
    raise LabError(f"{' or '.join(names)} not found: on Debian and Ubuntu it is in the package {PACKAGES[names[0]]}")


def tail(text: str) -> str:
    """The last lines, for an error."""
    return "\n".join(text.strip().splitlines()[-TAIL:])
