"""A network for the loader alone, which a test can cut: packets vanish then, both ways and without a word."""

import os
import shutil
import socket
import struct
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("ip", "tc", "iptables")
PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
SPEED = "100mbit"  # towards the servers: what is under way waits in the kernel of who sends it
ROOM = 4 << 20  # bytes that wait there for one connection at most
TICKS = os.sysconf("SC_CLK_TCK")  # a second


def _obstacle():
    """Why there can be no such network here; the empty string where nothing is in the way."""
    if os.geteuid():
        return "only root may make network namespaces"
    absent = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    return f"{' and '.join(absent)} not installed" if absent else ""


needs_network = pytest.mark.skipif(bool(_obstacle()), reason=_obstacle())


@dataclass(frozen=True, slots=True)
class Queue:
    """What one end's kernel holds of a connection: bytes not acknowledged, bytes not read, seconds to the next try.

    `guest` is its port at the namespace's end, `host` at the other.
    """

    guest: int
    host: int
    unsent: int
    unread: int
    due: float


class Network:
    """A namespace, and a line from it to this machine over a router, which is a namespace too.

    `host` is this machine's address there, `guest` the namespace's own. `within` before a command has it run there, as
    the same process.
    """

    def __init__(self, number):
        self.name = f"loader-net{number}"
        self.host, self._near, self._far, self.guest = (f"10.77.{number}.{last}" for last in (1, 2, 5, 6))
        self.within = [shutil.which("ip", path=PATH), "netns", "exec", self.name]
        self._router = f"{self.name}r"

    def lay(self):
        """Make the namespaces and the line, in place of those that a killed process left."""
        self.remove()
        for name in (self.name, self._router):
            _do("ip", "netns", "add", name)
        _do("ip", "link", "add", self.name, "type", "veth", "peer", "name", "near", "netns", self._router)
        _in(self._router, "ip", "link", "add", "far", "type", "veth", "peer", "name", "line", "netns", self.name)
        for name, device, address in (
            (None, self.name, self.host),
            (self._router, "near", self._near),
            (self._router, "far", self._far),
            (self.name, "line", self.guest),
        ):
            _in(name, "ip", "address", "add", f"{address}/30", "dev", device)
            _in(name, "ip", "link", "set", device, "up")
        _do("ip", "route", "add", f"{self.guest}/32", "via", self._near)
        _in(self.name, "ip", "route", "add", "default", "via", self._far)
        _in(self._router, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        _in(self.name, "sh", "-c", f"echo 4096 {ROOM} {ROOM} >/proc/sys/net/ipv4/tcp_wmem")
        slow = ["tbf", "rate", SPEED, "burst", "64kb", "limit", "64mb"]
        _in(self._router, "tc", "qdisc", "add", "dev", "near", "root", *slow)
        self.choke()
        self.cut()
        self.heal()

    def remove(self):
        """Take all of it away; it may be there in part, or not at all."""
        for words in (("link", "delete", self.name), ("netns", "delete", self._router), ("netns", "delete", self.name)):
            _do("ip", *words, check=False)

    def choke(self):
        """From now on large packets to this machine vanish, while small ones, like acknowledgements, go both ways."""
        self._drop("-i", "far", "-m", "length", "--length", "200:")

    def cut(self):
        """From now on every packet vanishes, both ways."""
        self._drop()

    def heal(self):
        """Let packets through again."""
        _in(self._router, "iptables", "-w", "-F")

    def queues(self, ports):
        """What the namespace holds of its connections to ports of this machine, those of dead processes too."""
        return _queues(_in(self.name, "cat", "/proc/net/tcp"), self.guest, self.host, ports)

    def arrived(self, ports):
        """What this machine holds of the same connections."""
        return _queues(Path("/proc/net/tcp").read_text(), self.guest, self.host, ports)

    def _drop(self, *which):
        _in(self._router, "iptables", "-w", "-I", "FORWARD", *which, "-j", "DROP")


@contextmanager
def network():
    """A network that nobody else has; the test is skipped where none can be made, and nothing of it stays."""
    with socket.socket(socket.AF_UNIX) as reservation:
        net = Network(_reserved(reservation))
        try:
            try:
                net.lay()
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
            yield net
        finally:
            net.remove()


def _reserved(reservation):
    """A number from 1 to 254 that no other process on this machine has, until the socket is closed."""
    for number in range(1, 255):
        try:
            reservation.bind(f"\0loader-network-{number}")
        except OSError:
            continue
        return number
    raise AssertionError("all networks are in use")


def _in(name, *words):
    """Do something in a namespace; None is this one."""
    return _do(*(("ip", "netns", "exec", name) if name else ()), *words)


def _do(*words, check=True):
    environment = os.environ | {"PATH": PATH}
    done = subprocess.run(words, env=environment, capture_output=True, check=check, encoding="utf-8")
    return done.stdout


def _queues(table, guest, host, ports):
    """The connections between two addresses in the text of /proc/net/tcp, see proc(5)."""
    found = []
    for line in table.splitlines()[1:]:
        _, local, remote, _, waiting, timer, *_ = line.split()
        ends = dict(map(_end, (local, remote)))
        if ends.keys() == {guest, host} and ends[host] in ports:
            unsent, unread = (int(text, 16) for text in waiting.split(":"))
            found.append(Queue(ends[guest], ends[host], unsent, unread, int(timer.partition(":")[2], 16) / TICKS))
    return found


def _end(text):
    """An address and a port, as 0100007F:0050."""
    address, port = (int(part, 16) for part in text.split(":"))
    return socket.inet_ntoa(struct.pack("=I", address)), port
