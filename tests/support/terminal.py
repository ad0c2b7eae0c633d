"""A terminal of a width, at which a person types a command."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ROWS = 40


@dataclass(frozen=True, slots=True)
class Shown:
    """How a command ended, and all that its terminal got."""

    code: int
    raw: str

    @property
    def text(self):
        """The lines that stay, without colours: those of a bar are drawn over."""
        text = re.sub(r"\r\x1b\[2K|\r?\x1b\[1A\x1b\[2K", "\r", self.raw.replace("\r\n", "\n"))
        return "\n".join(line.rpartition("\r")[2] for line in ESCAPES.sub("", text).split("\n"))

    @property
    def lines(self):
        return self.text.splitlines()

    def widest(self):
        """The columns of the widest line."""
        return max(map(len, self.lines), default=0)


class Terminal:
    """A command that runs at a terminal: what it shows is read until it ends."""

    def __init__(self, *words, columns=80, cwd=None, **changes):
        self._here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        hidden = ("LOADER_", "PYTHON", "COLUMNS", "NO_COLOR")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "loader", *words],
            cwd=cwd,
            env=kept | {"TERM": "xterm"} | changes,
            stdin=subprocess.DEVNULL,
            stdout=there,
            stderr=there,
        )
        os.close(there)
        self.raw = b""

    def read(self):
        """Read what has come; whether the command may show more."""
        with suppress(OSError):  # on Linux the end of a terminal is an error
            if data := os.read(self._here, 65536):
                self.raw += data
                return True
        return False

    def until(self, text):
        """Read until a text is shown."""
        while text not in self.raw.decode(errors="replace"):
            assert self.read(), self.raw.decode(errors="replace")

    def finish(self):
        """Read until the command's end."""
        while self.read():
            pass
        os.close(self._here)
        return Shown(self.process.wait(timeout=60), self.raw.decode(errors="replace"))


def typed(*words, **how):
    """What a terminal of some `columns` shows of a command."""
    return Terminal(*words, **how).finish()
