"""A network of its own for one hand of `chaos`, which can be cut: packets are dropped, and no one is told.

A namespace with a pair of virtual interfaces, whose loopback addresses are those of this machine: so it needs root,
`ip` and `iptables`. To the servers, who is in it comes from this machine too: Redis without a password wants that.
"""

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from loader.lab.process import HOST, program

CHAINS = ("INPUT", "OUTPUT")


class Cut:
    """The network; `lead` are the words that have a command run in it."""

    def __init__(self) -> None:
        number = os.getpid()
        self._name = f"loader{number}"
        self._ends = f"lc{number}a", f"lc{number}b"
        self._addresses = [f"10.201.{number >> 6 & 255}.{(number << 2 & 252) + last}" for last in (1, 2)]
        self._ip, self._tables = program("ip"), program("iptables")
        self.lead = (self._ip, "netns", "exec", self._name)

    @classmethod
    def make(cls) -> Self | None:
        """A new one; None where it cannot be."""
        try:
            cut = cls()
        except Exception:  # noqa: BLE001  # there is no `ip`
            return None
        try:
            cut._make()
        except (OSError, subprocess.SubprocessError):
            cut.close()
            return None
        return cut

    def _make(self) -> None:
        (outer, inner), (host, guest) = self._ends, self._addresses
        self._run("netns", "add", self._name)
        self._run("link", "add", outer, "type", "veth", "peer", "name", inner)
        self._run("link", "set", inner, "netns", self._name)
        self._run("addr", "add", f"{host}/30", "dev", outer)
        self._run("link", "set", outer, "up")
        Path(f"/proc/sys/net/ipv4/conf/{outer}/route_localnet").write_text("1")
        self._run("-n", self._name, "addr", "add", f"{guest}/30", "dev", inner)
        self._run("-n", self._name, "link", "set", inner, "up")
        self._run("-n", self._name, "route", "add", "127.0.0.0/8", "via", host, "dev", inner, "src", guest)
        self._inside("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
        self._inside(self._tables, "-w", "-L", "-n")
        self._disguise("-A")

    def drop(self) -> None:
        """Drop all packets from now on."""
        for chain in CHAINS:
            self._inside(self._tables, "-w", "-A", chain, "-j", "DROP")

    def heal(self) -> None:
        """Let packets through again."""
        for chain in CHAINS:
            self._inside(self._tables, "-w", "-F", chain)

    def settle(self, seconds: float = 90) -> bool:
        """Wait until nothing that was sent is still under way, also of processes that are gone; whether it is so."""
        deadline = time.monotonic() + seconds
        while self._waiting():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def _waiting(self) -> bool:
        lines = self._inside("cat", "/proc/net/tcp").splitlines()[1:]
        return any(int(line.split()[4].partition(":")[0], 16) for line in lines)

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._disguise("-D")
        for words in (("netns", "del", self._name), ("link", "del", self._ends[0])):
            subprocess.run([self._ip, *words], check=False, capture_output=True)

    def _disguise(self, how: str) -> None:
        """Have connections come from the loopback address, or no more."""
        rule = ("INPUT", "-s", self._addresses[1], "-j", "SNAT", "--to-source", HOST)
        subprocess.run([self._tables, "-w", "-t", "nat", how, *rule], check=how == "-A", capture_output=True)

    def _run(self, *words: str) -> None:
        subprocess.run([self._ip, *words], check=True, capture_output=True)

    def _inside(self, *words: str) -> str:
        return subprocess.run([*self.lead, *words], check=True, capture_output=True, encoding="utf-8").stdout
