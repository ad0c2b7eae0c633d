"""What `chaos` works on: six tables and their jobs, a workload that changes them, and a record of what rows were.

`visit` is loaded by what was changed, and has rows that are deleted by a flag; `stock` by what differs; `cart` is
followed, and has rows that its job does not take.
"""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pymysql

from loader.lab.lab import Lab
from oracle import HIDDEN, Rows, State
from promises import LONG_AGO
from stage import Broken, clock, connect

PACE = 0.01  # seconds between two statements
MANY = 0.005  # how often a change is of many rows
PATIENCE = 90.0  # seconds that the workload may take to pause: MySQL may be about to start

# The lag is longer than MySQL may be paused between the stamp of a row and its commit.
JOBS = """\
  item: {table: item, chunk_rows: 500}
  word: {table: word, key: "word_{code}", chunk_rows: 500, write: restore}
  pair: {table: pair, key: "pair_{a}:{b}", chunk_rows: 500}
  visit:
    table: visit
    fields: [id, name, note]
    chunk_rows: 500
    incremental: {column: updated_at, lag: 15s}
    soft_delete: "gone = 1"
  stock: {table: stock, key: "stock_{shelf}:{code}", chunk_rows: 500, changed_only: true}
  cart:
    table: cart
    fields: [id, name, note]
    where: "gone = 0"
    chunk_rows: 500
    follow: {on_lost_position: backfill}
    write: restore
"""
HIDING = {"visit"}  # jobs that are told which rows lose their hash
CHAINED = {"stock"}  # jobs that keep account of the hashes they have written
FOLLOWED = "cart"
UTF8 = "CHARACTER SET utf8mb4 COLLATE"
LETTERS = "abcABCéß名🙂 '\"\\\n\r\t{}[]*?%_:,-0"


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its definition, the columns of its key, those that are written, and how many rows it has at first.

    `read` are the columns of its hashes, `*` for all there are; `stamp` is set by every change; `flag` hides a row.
    `text` is a column that is changed in many rows at a time, of a part of the `range` that the key's first column has.
    """

    name: str
    definition: str
    key: tuple[str, ...]
    written: tuple[str, ...]
    rows: int
    read: str = "*"
    stamp: str = ""
    flag: str = ""
    text: str = ""
    range: range = range(0)

    @property
    def select(self) -> str:
        """All rows, each with its flag at the end where there is one."""
        return f"SELECT {self.read}{', ' + self.flag if self.flag else ''} FROM {self.name}"

    @property
    def wanted(self) -> str:
        """The rows that have a hash."""
        return f"SELECT {self.read} FROM {self.name}" + (f" WHERE {self.flag} = 0" if self.flag else "")

    @property
    def matching(self) -> str:
        """The condition for one key."""
        return " AND ".join(f"{column} = %s" for column in self.key)

    def replace(self, count: int) -> str:
        """The statement that writes a row, of so many values."""
        stamp = [(self.stamp, "NOW(6)")] if self.stamp else []
        names = ", ".join([*self.written, *(name for name, _ in stamp)])
        values = ", ".join([*["%s"] * count, *(value for _, value in stamp)])
        return f"REPLACE INTO {self.name} ({names}) VALUES ({values})"

    def hash_key(self, names: Sequence[str], row: Sequence[bytes]) -> bytes:
        """The key of a row's hash."""
        return f"{self.name}_".encode() + b":".join(row[names.index(column)] for column in self.key)


TABLES = {
    table.name: table
    for table in (
        Table(
            "item",
            "id int unsigned PRIMARY KEY, name varchar(60) NOT NULL, note text, data blob, amount decimal(12,2),"
            f" born datetime(6)) {UTF8} utf8mb4_general_ci",
            ("id",),
            ("id", "name", "note", "data", "amount", "born"),
            20_000,
            text="note",
            range=range(30_000),
        ),
        Table(
            "word",
            f"code varchar(40) PRIMARY KEY, meaning text, freq bigint) {UTF8} utf8mb4_general_ci",
            ("code",),
            ("code", "meaning", "freq"),
            3_000,
        ),
        Table(
            "pair",
            f"a int, b varchar(20), v blob, PRIMARY KEY (a, b)) {UTF8} utf8mb4_bin",
            ("a", "b"),
            ("a", "b", "v"),
            5_000,
            text="v",
            range=range(-500, 500),
        ),
        Table(
            "visit",
            "id int unsigned PRIMARY KEY, name varchar(60) NOT NULL, note text, gone tinyint NOT NULL DEFAULT 0,"
            f" updated_at datetime(6) NOT NULL, KEY (updated_at)) {UTF8} utf8mb4_bin",
            ("id",),
            ("id", "name", "note"),
            5_000,
            read="id, name, note",
            stamp="updated_at",
            flag="gone",
            text="note",
            range=range(8_000),
        ),
        Table(
            "stock",
            f"shelf int, code varchar(20), v blob, PRIMARY KEY (shelf, code)) {UTF8} utf8mb4_bin",
            ("shelf", "code"),
            ("shelf", "code", "v"),
            5_000,
            text="v",
            range=range(-500, 500),
        ),
        Table(
            "cart",
            "id int unsigned PRIMARY KEY, name varchar(60) NOT NULL, note text, gone tinyint NOT NULL DEFAULT 0)"
            f" {UTF8} utf8mb4_bin",
            ("id",),
            ("id", "name", "note"),
            5_000,
            read="id, name, note",
            flag="gone",
            text="note",
            range=range(8_000),
        ),
    )
}


@dataclass(slots=True)
class Change:
    """A statement, and the condition that finds the rows which it may change, before or after.

    `sent` is when it was tried first, and `met` are the hashes' keys of the rows that there were.
    """

    table: Table
    statement: str
    values: list[Any]
    condition: str
    sought: list[Any]
    sent: float = 0.0
    met: set[bytes] = field(default_factory=set)


def changes(chance: random.Random) -> Iterator[Change]:
    """Changes of rows without end; one now and then is of many rows."""
    while True:
        kind, name = chance.random(), chance.choice(["item", "item", "word", "pair", "visit", "stock", "cart", "cart"])
        table, row = TABLES[name], make_row(name, chance)
        stamped = f", {table.stamp} = NOW(6)" if table.stamp else ""
        key, where = row[: len(table.key)], table.matching
        if kind < MANY and table.text:
            least = chance.choice(table.range)
            span, sought = f"{table.key[0]} BETWEEN %s AND %s", [least, least + len(table.range) // 10]
            text = "".join(chance.choices(LETTERS, k=500))
            yield Change(
                table, f"UPDATE {name} SET {table.text} = %s{stamped} WHERE {span}", [text, *sought], span, sought
            )
        elif kind < 0.15 and table.flag:
            yield Change(table, f"UPDATE {name} SET {table.flag} = 1{stamped} WHERE {where}", key, where, key)
        elif kind < 0.25:
            yield Change(table, f"DELETE FROM {name} WHERE {where}", key, where, key)
        elif kind < 0.4 and table.key == ("id",):  # the row's key changes
            both = [chance.randrange(table.range.stop), *key]
            statement = f"UPDATE IGNORE {name} SET id = %s{stamped} WHERE id = %s"
            yield Change(table, statement, both, "id IN (%s, %s)", both)
        else:
            yield Change(table, table.replace(len(row)), row, where, key)


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
    if table in {"visit", "cart"}:
        return [chance.randrange(8_000), text(60), maybe(text(80))]
    if table == "word":
        return [text(4).strip() + str(chance.randrange(100)), maybe(text(50)), maybe(chance.randrange(-(2**63), 2**63))]
    return [chance.randrange(-500, 500), text(2).strip() + "x", maybe(chance.randbytes(chance.randint(0, 50)))]


def keep_commits(cursor: Any) -> None:
    """Have MySQL write what is committed before it says so, so that a kill undoes nothing that a loader has read."""
    cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 2")


def fill(lab: Lab, chance: random.Random) -> dict[str, Rows]:
    """Make the tables; the record of their rows."""
    with connect(lab) as mysql, mysql.cursor() as cursor:
        keep_commits(cursor)
        for table in TABLES.values():
            cursor.execute(f"CREATE TABLE {table.name} ({table.definition}")
            made = [make_row(table.name, chance) for _ in range(table.rows)]
            cursor.executemany(table.replace(len(made[0])), made)
        return {table.name: _recorded(cursor, table) for table in TABLES.values()}


def _recorded(cursor: Any, table: Table) -> Rows:
    names, found = read(cursor, table)
    rows = Rows([name.encode() for name in names])
    for key, state in found.items():
        rows.note(key, state)
    return rows


def read(
    cursor: Any, table: Table, condition: str = "", values: Sequence[Any] = ()
) -> tuple[list[str], dict[bytes, State]]:
    """The fields of hashes, and the rows as they are now, by the keys of their hashes."""
    cursor.execute(table.select + condition, values)
    names = [column[0] for column in cursor.description]
    found = {}
    for row in cursor.fetchall():
        key = table.hash_key(names, row)
        found[key] = row if not table.flag else HIDDEN if row[-1] != b"0" else row[:-1]
    return names[:-1] if table.flag else names, found


class Workload(threading.Thread):
    """Changes the tables until it is told to stop, and keeps account of what the rows were.

    No one else changes rows. What was under way when MySQL went is done once more, for no one can say whether it was.
    Its lab is a view of its own: one is not for several threads.
    """

    def __init__(self, lab: Lab, chance: random.Random, rows: dict[str, Rows]) -> None:
        super().__init__(daemon=True)
        self.done = self.refused = 0
        self.rows = rows
        self.lock = threading.Lock()  # over the record
        self._lab = lab
        self._changes = changes(chance)
        self._pending: Change | None = None
        self._ended = threading.Event()
        self._go = threading.Event()
        self._idle = threading.Event()
        self._go.set()

    def stop(self) -> None:
        """End it."""
        self._ended.set()
        self._go.set()
        if self.is_alive():
            self.join(60)

    def pause(self) -> None:
        """Have it pause with nothing under way."""
        self._idle.clear()
        self._go.clear()
        if self.is_alive() and not self._idle.wait(PATIENCE):
            raise Broken(f"the workload did not come to rest within {PATIENCE:g} s")

    def go_on(self) -> None:
        """Go on after a pause."""
        self._go.set()

    def widen(self, table: str, name: bytes, default: bytes | None, sent: float) -> None:
        """A table got one more column."""
        with self.lock:
            self.rows[table].widen(name, default, sent, clock())

    def check(self) -> Iterator[str]:
        """See whether the record says of the rows what MySQL says, at rest; a sentence for each table that differs."""
        with connect(self._lab) as mysql, mysql.cursor() as cursor:
            for name, rows in self.rows.items():
                found = read(cursor, TABLES[name])[1]
                known = {k: v[-1].state for k, v in rows.versions.items() if v[-1].state is not None}
                odd = [key for key in found.keys() | known.keys() if found.get(key) != known.get(key)]
                for key in odd:
                    rows.note(key, found.get(key), LONG_AGO, clock())
                if odd:
                    yield f"the record of {len(odd)} rows of {name} is wrong: {odd[0]!r} is {found.get(odd[0])}"

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                with connect(self._lab, connect_timeout=5, read_timeout=20) as mysql, mysql.cursor() as cursor:
                    keep_commits(cursor)
                    self._work(cursor)
            except (pymysql.MySQLError, OSError):  # the server is away, or the table is
                self.refused += 1
                time.sleep(0.1)

    def _work(self, cursor: Any) -> None:
        while not self._ended.wait(PACE):
            if not self._pending:
                if not self._go.is_set():
                    self._idle.set()
                    self._go.wait()
                    continue
                self._pending = next(self._changes)
            self._change(cursor, self._pending)
            self._pending = None

    def _change(self, cursor: Any, change: Change) -> None:
        """Carry out a change; rows are read before and after it, for a collation may have others than were named."""
        sought = f" WHERE {change.condition}", change.sought
        change.met |= read(cursor, change.table, *sought)[1].keys()
        change.sent = change.sent or clock()
        try:
            cursor.execute(change.statement, change.values)
            self.done += 1
        except pymysql.err.IntegrityError:
            self.refused += 1
        names, after = read(cursor, change.table, *sought)
        came = clock()
        rows = self.rows[change.table.name]
        with self.lock:
            if len(names) > len(rows.names):
                rows.names = tuple(name.encode() for name in names)
            for key in change.met | after.keys():
                rows.note(key, after.get(key), change.sent, came)
