"""Breaks everything at random while the loader works, and compares every row at the end.

A workload inserts, updates and deletes in three tables; two hands type commands of the loader, now and again for the
same job; one fault after the other comes out of a shuffled table, see `faults.py`. At the end all is mended and at
rest, each job is synced, pruned and verified once more, and every row is compared with its hash, not by way of the
loader.

What happens is drawn from the seed beforehand: which faults and commands, in which order, with which numbers. When
exactly, and so to whom, differs from run to run.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from faults import FAULTS, Draw
from loader.lab import Lab
from stage import Broken, Count, Done, Fleet, compare, connect, run, start, until, write_config

NODE_TIMEOUT = 1000  # milliseconds until a master counts as dead
PACE = 0.01  # seconds between two statements of the workload
LATEST = 240.0  # seconds that a command may take: its own deadline is 120
HANDS = 2
OK, REJECTS, LOCKED = 0, 3, 5
DELETE_ALL = ("--max-delete", "100%")

JOBS = """\
  item: {table: item, chunk_rows: 500}
  word: {table: word, key: "word_{code}", chunk_rows: 500}
  pair: {table: pair, key: "pair_{a}:{b}", chunk_rows: 500}
"""
KEYS = {"item": ["id"], "word": ["code"], "pair": ["a", "b"]}
UTF8 = "CHARACTER SET utf8mb4 COLLATE"
TABLES = f"""\
CREATE TABLE item (id int unsigned PRIMARY KEY, name varchar(60) NOT NULL, note text, data blob, amount decimal(12,2),
 born datetime(6)) {UTF8} utf8mb4_general_ci;
CREATE TABLE word (code varchar(40) PRIMARY KEY, meaning text, freq bigint) {UTF8} utf8mb4_general_ci;
CREATE TABLE pair (a int, b varchar(20), v blob, PRIMARY KEY (a, b)) {UTF8} utf8mb4_bin"""
ROWS = {"item": 20_000, "word": 3_000, "pair": 5_000}
LETTERS = "abcABCéß名🙂 '\"\\\n\r\t{}[]*?%_:,-0"
# The commands that hands type, and how often each comes.
COMMANDS = {
    ("sync",): 6,
    ("sync", "--rate", "4000"): 4,
    ("sync", "--prune", *DELETE_ALL): 3,
    ("backfill",): 3,
    ("backfill", "--rate", "4000"): 4,
    ("backfill", "--restart", "--rate", "8000"): 3,
    ("verify",): 2,
    ("verify", "--repair"): 3,
    ("prune", *DELETE_ALL): 3,
}


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that was drawn."""

    name: str
    draw: Draw


@dataclass(frozen=True, slots=True)
class Window:
    """When a fault began and was over."""

    name: str
    began: float
    ended: float


@dataclass(slots=True)
class Typed:
    """A command that a hand typed."""

    job: str
    words: tuple[str, ...]
    began: float
    process: "subprocess.Popen[str]"
    signalled: set[int] = field(default_factory=set)  # exit codes that a signal to it may have led to
    ended: float = 0.0
    done: Done | None = None


def strikes(chance: random.Random) -> Iterator[Strike]:
    """Faults without end: the whole table, shuffled, again and again."""
    while True:
        names = list(FAULTS)
        chance.shuffle(names)
        yield from (Strike(name, Draw(chance.random(), chance.random(), chance.random())) for name in names)


def commands(chance: random.Random) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Jobs and commands without end; `item`, which is the largest, is in half of them."""
    while True:
        job = chance.choice(["item", "item", "word", "pair"])
        (words,) = chance.choices(list(COMMANDS), list(COMMANDS.values()))
        yield job, words


class Workload(threading.Thread):
    """Changes the tables until it is told to stop; what a fault undoes is not done again.

    Its lab is a view of its own: one is not for several threads.
    """

    def __init__(self, lab: Lab, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.done = self.refused = 0
        self._lab = lab
        self._chance = chance
        self._ended = threading.Event()

    def stop(self) -> None:
        self._ended.set()
        self.join(60)

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                with connect(self._lab, connect_timeout=5, read_timeout=20) as mysql, mysql.cursor() as cursor:
                    self._change(cursor)
            except (pymysql.MySQLError, OSError):  # the server is away, or the table is
                self.refused += 1
                time.sleep(0.1)

    def _change(self, cursor: Any) -> None:
        while not self._ended.wait(PACE):
            statement, values = self._statement()
            try:
                cursor.execute(statement, values)
                self.done += 1
            except pymysql.err.IntegrityError:
                self.refused += 1

    def _statement(self) -> tuple[str, list[Any]]:
        kind, table = self._chance.random(), self._chance.choice(["item", "item", "word", "pair"])
        row = make_row(table, self._chance)
        if kind < 0.25:
            keys = " AND ".join(f"{column} = %s" for column in KEYS[table])
            return f"DELETE FROM {table} WHERE {keys}", row[: len(KEYS[table])]
        if kind < 0.4 and table == "item":  # the row's key changes
            return "UPDATE IGNORE item SET id = %s WHERE id = %s", [self._chance.randrange(30_000), row[0]]
        return insert("REPLACE", table, len(row)), row


def insert(verb: str, table: str, columns: int) -> str:
    names = {"item": "id, name, note, data, amount, born", "word": "code, meaning, freq", "pair": "a, b, v"}[table]
    return f"{verb} INTO {table} ({names}) VALUES ({', '.join(['%s'] * columns)})"


def make_row(table: str, chance: random.Random) -> list[Any]:
    """A row of random values, its key first; the same key comes again and again."""

    def text(most: int) -> str:
        return "".join(chance.choices(LETTERS, k=chance.randint(0, most)))

    def maybe(value: Any) -> Any:
        return value if chance.random() < 0.8 else None

    if table == "item":
        born = f"20{chance.randrange(100):02}-02-03 04:05:06.{chance.randrange(1_000_000):06}"
        amount = f"{chance.randrange(10**9) / 100:.2f}"
        note, data = maybe(text(200)), maybe(chance.randbytes(chance.randint(0, 100)))
        return [chance.randrange(30_000), text(60), note, data, maybe(amount), maybe(born)]
    if table == "word":
        return [text(4).strip() + str(chance.randrange(100)), maybe(text(50)), maybe(chance.randrange(-(2**63), 2**63))]
    return [chance.randrange(-500, 500), text(2).strip() + "x", maybe(chance.randbytes(chance.randint(0, 50)))]


def fill(lab: Lab, chance: random.Random) -> None:
    with connect(lab) as mysql, mysql.cursor() as cursor:
        for statement in TABLES.split(";"):
            cursor.execute(statement)
        for table, rows in ROWS.items():
            made = [make_row(table, chance) for _ in range(rows)]
            cursor.executemany(insert("REPLACE", table, len(made[0])), made)


class Chaos:
    """A lab, what is done in it, and what came of that."""

    def __init__(self, lab: Lab, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311  # reproducible, not secret
        self.lab = lab
        self.began = time.monotonic()
        write_config(lab, JOBS, silence="5s")
        fill(lab, random.Random(chance.random()))  # noqa: S311
        self.fleet = Fleet(lab, NODE_TIMEOUT)
        self.windows: list[Window] = []
        self.typed: list[Typed] = []
        self._strikes = strikes(random.Random(chance.random()))  # noqa: S311
        self._work = Workload(Lab(lab.directory), random.Random(chance.random()))  # noqa: S311
        self._commands = [commands(random.Random(chance.random())) for _ in range(HANDS)]  # noqa: S311
        self._busy = threading.Event()
        self._lock = threading.Lock()
        self._hands = [threading.Thread(target=self._type, args=[each], daemon=True) for each in self._commands]

    def rage(self, seconds: float, every: float) -> None:
        """A fault every so many seconds, with the workload and the hands going on."""
        self._busy.set()
        for thread in (self._work, *self._hands):
            thread.start()
        first = time.monotonic()
        for number, strike in enumerate(self._strikes):
            time.sleep(max(0.0, first + number * every - time.monotonic()))
            if time.monotonic() - first > seconds:
                return
            self._strike(strike)

    def rest(self) -> None:
        """End the workload and the hands, each with what it has begun, and wait until all servers are in place."""
        self._busy.clear()
        self._work.stop()
        for hand in self._hands:
            hand.join(LATEST)
        for row in self.lab.status():
            if not row.running:
                self.lab.start(row.name)
        self.fleet.settle()

    def close(self) -> None:
        self._busy.clear()
        for typed in self.typed:
            typed.process.kill()

    def hit(self, which: float, number: signal.Signals) -> str:
        """Send a signal to a command at work, and say to which."""
        until(self._at_work, "a command to be at work")
        working = self._at_work()
        if not working:
            return "nobody: it had just ended"
        typed = working[int(which * len(working))]
        typed.signalled |= {-number, 128 + number}
        typed.process.send_signal(number)
        return f"`{' '.join(typed.words)}` of {typed.job}, after {time.monotonic() - typed.began:.1f} s"

    def _at_work(self) -> list[Typed]:
        with self._lock:
            return [typed for typed in self.typed if not typed.ended and time.monotonic() - typed.began > 0.5]

    def _strike(self, strike: Strike) -> None:
        began = time.monotonic()
        detail = FAULTS[strike.name].act(self, strike.draw)
        self.windows.append(Window(strike.name, began, time.monotonic()))
        print(f"{len(self.windows):>4} {began - self.began:>7.1f} s  {strike.name:<18} {detail}", flush=True)

    def _type(self, words: Iterator[tuple[str, tuple[str, ...]]]) -> None:
        while self._busy.is_set():
            job, (command, *options) = next(words)
            typed = Typed(
                job, (command, *options), time.monotonic(), start(self.lab, command, job, *options, "-o", "json")
            )
            with self._lock:
                self.typed.append(typed)
            try:
                out, error = typed.process.communicate(timeout=LATEST)
            except subprocess.TimeoutExpired:
                typed.process.kill()
                out, error = typed.process.communicate()
                error += f"\nit did not end within {LATEST:g} s"
            typed.done = Done((command, job, *options), typed.process.returncode, out, error)
            typed.ended = time.monotonic()

    # the verdict

    def faults_of(self) -> Iterator[str]:
        """What is wrong about the commands that were typed, a sentence each."""
        for typed in self.typed:
            if typed.done and (why := self._wrong(typed, typed.done)):
                beside = ", ".join(w.name for w in self.windows if _overlap(w, typed)) or "no fault"
                yield f"{why}, beside {beside}: {typed.done}"

    def _wrong(self, typed: Typed, done: Done) -> str:
        if "Traceback" in done.error:
            return "a traceback"
        if "did not end within" in done.error:
            return "no end"
        if done.code not in self._allowed(typed):
            return f"exit code {done.code}"
        for line in done.out.splitlines():
            document = json.loads(line)
            if document["schema"] == "loader.run/v1":
                rows = document["rows"]
                if rows["read"] != rows["written"] + rows["unchanged"] + rows["rejected"]:
                    return "rows that do not add up"
        return ""

    def _allowed(self, typed: Typed) -> set[int]:
        """The exit codes that a command may have: by its kind, by what was typed beside it, and by the faults."""
        codes = {OK} | typed.signalled
        if typed.words[0] == "verify":
            codes.add(REJECTS)
        with self._lock:
            others = [t for t in self.typed if t is not typed and t.job == typed.job]
        if any(t.began < typed.ended and typed.began < (t.ended or typed.ended) for t in others):
            codes.add(LOCKED)
        for window in self.windows:
            fault = FAULTS[window.name]
            if _overlap(window, typed):
                codes.update(fault.codes)
            if typed.words[0] == "backfill" and window.began < typed.ended and typed.job == "item":
                codes.update(fault.lasting)
        return codes

    def settle_up(self) -> list[str]:
        """Sync, prune and verify each job once more; what went wrong."""
        wrong = []
        for job in KEYS:
            for words in (("sync", job), ("prune", job, *DELETE_ALL), ("verify", job)):
                done = run(self.lab, *words, "-o", "json")
                if done.code or "Traceback" in done.error:
                    wrong.append(f"at rest: {done}")
        return wrong

    def summary(self, counts: dict[str, Count], seconds: float) -> Iterator[str]:
        kinds = Counter(window.name for window in self.windows)
        yield f"faults    {len(self.windows)} survived: " + ", ".join(
            f"{n} {name}" for name, n in sorted(kinds.items())
        )
        ends = Counter((typed.words[0], typed.done.code) for typed in self.typed if typed.done)
        yield f"commands  {sum(ends.values())}: " + ", ".join(
            f"{n} {command} → {code}" for (command, code), n in sorted(ends.items())
        )
        yield f"workload  {self._work.done:,} statements, {self._work.refused:,} refused"
        for table, count in counts.items():
            yield f"{table:<9} {count}"
        yield f"took      {seconds:.0f} s"


def _overlap(window: Window, typed: Typed) -> bool:
    return window.began < typed.ended and typed.began < window.ended


def act(lab: Lab, args: argparse.Namespace) -> Sequence[str]:
    """The whole piece; what is wrong at its end, a line each."""
    chaos = Chaos(lab, args.seed)
    try:
        print(f"the tables are made after {time.monotonic() - chaos.began:.0f} s", flush=True)
        chaos.rage(60 * args.minutes, args.every)
        chaos.rest()
        wrong = [*chaos.faults_of(), *chaos.settle_up()]
    finally:
        chaos.close()
    counts = {table: compare(lab, table, key) for table, key in KEYS.items()}
    print("", *chaos.summary(counts, time.monotonic() - chaos.began), sep="\n")
    return [*wrong, *(f"{table}: {count}" for table, count in counts.items() if not count.exact)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/chaos.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20, metavar="N", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="other faults; default %(default)s")
    parser.add_argument("--every", type=float, default=15, metavar="S", help="seconds from fault to fault; %(default)s")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="loader-chaos-") as name:
        lab = Lab(Path(name) / "lab")
        try:
            lab.up()
            wrong = act(lab, args)
        except Broken as broken:
            wrong = [str(broken)]
        finally:
            lab.down()
    if wrong:
        sys.exit("\n".join(["", "chaos: wrong:", *wrong]))
    print("all exact")


if __name__ == "__main__":
    main()
