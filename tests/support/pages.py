"""Pages of the documentation: their blocks, and a shell that types the commands of a page in order.

A block is fenced, with its language. `console` has commands after `$ ` (a line that goes on begins with `> `), each
with the output it shows: `…` stands for anything, alone in its line for any lines. A block with a `title` is a file of
that name. A comment before a block, which is not rendered, says what is special: `<!-- not run: REASON -->`, or
`<!-- exit N -->` for its last command.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(
    r"^(?:<!-- (?P<note>[^\n]+?) -->\n)?```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LOOK = re.compile(
    r"loader (?:get|status|cluster|runs|verify|doctor|lab status|rejects list)\b|redis-cli .* hgetall|curl (?!.*POST)"
)
PATIENCE = 60  # seconds for one command
LOOKING = 30  # seconds in which something that is looked at becomes what the page shows
MARK = "@@ended@@"
NAMES = {
    "mysql": "mariadb",
    "redis-cli": "valkey-cli",
    "redis-server": "valkey-server",
}  # some machines have the latter

PORTS = ("9462", *(str(port) for port in range(7001, 7007)))  # that pages name

VARIES = (  # what differs from run to run, and what stands for it
    (re.compile(r"\x1b\[[\d;]*m"), ""),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:\+00:00|Z)"), "TIME"),
    (re.compile(r"\bpid \d+"), "PID"),
    (re.compile(r"\b\d[\d,.]* rows/s"), "RATE"),
    (re.compile(r"\b\d[\d.]* ?(?:s|ms)\b"), "SECONDS"),
    (re.compile(r"[ \t]+"), " "),
)


@dataclass(frozen=True, slots=True)
class Command:
    """What is typed, and the lines that the page shows of its output."""

    text: str
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its fence, `skipped` why it is not run."""

    line: int
    language: str
    title: str
    text: str
    skipped: str
    exit_code: int

    @property
    def runs(self):
        """Whether it can be run here: a console, SQL or a file, without a reason against it."""
        return not self.skipped and bool(self.title or self.language in {"console", "sql"})

    @cached_property
    def commands(self):
        """The commands of a console, with what the page shows of each."""
        if self.language != "console":
            return []
        found = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append(([line[2:]], []))
            elif line.startswith("> ") and not found[-1][1]:
                found[-1][0].append(line[2:])
            else:
                found[-1][1].append(line)
        return [Command("\n".join(typed), tuple(shown)) for typed, shown in found]


def blocks_of(page):
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for found in FENCE.finditer(text):
        note = found["note"] or ""
        skipped = note.removeprefix("not run: ") if note.startswith("not run: ") else ""
        exit_code = int(note.removeprefix("exit ")) if note.startswith("exit ") else 0
        line = text.count("\n", 0, found.start()) + 1
        blocks.append(Block(line, found["language"], found["title"] or "", found["text"], skipped, exit_code))
    return blocks


def normal(text):
    """The lines of a text, apart those that begin with a server's address: ports, and so their order, vary."""
    for pattern, word in VARIES:
        text = pattern.sub(word, text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    servers = [line for line in lines if line.startswith("ADDRESS")]
    return [line for line in lines if line not in servers], servers


def regex_of(line):
    """The regular expression of a line that is shown."""
    return r"(?:[^\n]+\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + "\n"


def fits(shown, printed):
    """Whether an output is what the page shows of it."""
    if not shown:
        return True
    (lines, servers), (printed_lines, printed_servers) = normal("\n".join(shown)), normal(printed)
    for line in servers:
        found = [each for each in printed_servers if re.fullmatch(regex_of(line), f"{each}\n")]
        if not found:
            return False
        printed_servers.remove(found[0])
    if printed_servers and "…" not in lines:
        return False
    return re.fullmatch("".join(map(regex_of, lines)), "".join(f"{line}\n" for line in printed_lines)) is not None


def _links(directory):
    """A directory with the names that pages use, for programs that have another name on this machine."""
    links = directory / ".names"
    links.mkdir()
    for name, other in NAMES.items():
        if program := shutil.which(other):
            (links / name).symlink_to(program)
    return links


class Shell:
    """A shell in a directory, into which the commands of one page are typed; `replaced` are texts in them."""

    def __init__(self, directory, replaced, **variables):
        self.directory = directory
        self._replaced = replaced
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOADER_", "PYTHON"))}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:{_links(directory)}"
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=directory,
            env=kept | {"PATH": path, "COLUMNS": "80", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"} | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )
        os.set_blocking(self._bash.stdout.fileno(), False)

    def play(self, page):
        """Type all blocks of a page that can be run."""
        for block in blocks_of(page):
            if block.runs:
                try:
                    self._run(block)
                except AssertionError as error:
                    error.add_note(f"{page.name}, block at line {block.line}")
                    raise

    def _run(self, block):
        """Do what a block says: write its file, run its SQL, or type its commands and compare what they print."""
        if block.title:
            (self.directory / block.title).write_text(self.of_here(block.text), encoding="utf-8")
            return
        if block.language == "sql":
            self.type(Command(f"mysql --defaults-file=.lab/my.cnf <<'SQL'\n{block.text}SQL"))
        for command in block.commands:
            self.type(command, block.exit_code if command is block.commands[-1] else 0)

    def type(self, command, wanted=0):
        """Run a command until it ends as wanted and prints what is shown; only those that look are repeated."""
        text, shown = self.of_here(command.text), [self.of_here(line) for line in command.shown]
        deadline = time.monotonic() + (LOOKING if LOOK.match(command.text) else 0)
        while True:
            code, printed = self._once(text)
            if code == wanted and fits(shown, printed):
                return
            assert time.monotonic() < deadline, (
                f"$ {text}\nended with {code}, not {wanted}, and printed\n{printed}\nwhere the page shows\n"
                + "\n".join(shown)
            )
            time.sleep(0.2)

    def _once(self, text):
        """The exit code of a command and what it prints, without the lines of its log."""
        self._bash.stdin.write(f"{{\n{text}\n}} </dev/null\nprintf '\\n%s %d\\n' {MARK} $?\n")
        self._bash.stdin.flush()
        printed, deadline = "", time.monotonic() + PATIENCE
        while not (end := re.search(rf"\n{MARK} (\d+)\n", printed)):
            left = deadline - time.monotonic()
            assert left > 0, f"$ {text}\ndid not end within {PATIENCE} s, and printed\n{printed}"
            if select.select([self._bash.stdout], [], [], left)[0]:
                more = self._bash.stdout.read()
                assert more, f"$ {text}\nended the shell, and printed\n{printed}"
                printed += more
        lines = [
            line for line in printed[: end.start()].splitlines() if not (line.startswith("{") and '"event": ' in line)
        ]
        return int(end[1]), "\n".join(lines)

    def of_here(self, text):
        """A text of a page with the names and ports that stand for its own here."""
        for old, new in self._replaced.items():
            text = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, text)
        return text

    def _owns(self, path):
        return path.readlink().is_relative_to(self.directory)

    def close(self):
        """End the shell, what it left running in the background, and what runs in its directory."""
        self._bash.stdin.close()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(path.name)) == self._bash.pid or self._owns(path / "cwd"):
                    os.kill(int(path.name), signal.SIGKILL)
            except (ProcessLookupError, PermissionError, FileNotFoundError):
                continue
        self._bash.wait()
        self._bash.stdout.close()
