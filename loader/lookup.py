"""From a Redis key back to its row: which values its columns have, and the condition that finds the row. Pure.

A key is this job's where its literals and the text of each column fit: `stu_00000001` for `stu_{sid}`, but neither
`stu_1`, which a ZEROFILL of eight digits never makes, nor `stu_x_1`. Where two texts stand side by side a key can be
taken apart in several ways; all of them are looked for, and the row that is found says which key it makes.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from loader.model import Column, Table
from loader.plan import BINARIES, INTEGERS, NUMBERS, TEXTS, TIMES, WORDS, Plan, quote

TOGETHER = 500  # keys in one statement: MariaDB makes a subquery of a thousand
READINGS = 64  # ways to take one key apart; more only where texts are made of separators
RESERVED = b"loader:"  # the loader's own keys

DATE = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}"
FRACTION = rb"(?:\.[0-9]{1,6})?"
FORMS = {  # what MySQL writes for a column of a type; any bytes where the type is not here
    "decimal": rb"-?[0-9]+(?:\.[0-9]+)?",
    "float": rb"-?[0-9.]+(?:e[-+]?[0-9]+)?",
    "double": rb"-?[0-9.]+(?:e[-+]?[0-9]+)?",
    "year": rb"[0-9]{4}",
    "date": DATE,
    "datetime": DATE + rb" [0-9]{2}:[0-9]{2}:[0-9]{2}" + FRACTION,
    "timestamp": DATE + rb" [0-9]{2}:[0-9]{2}:[0-9]{2}" + FRACTION,
    "time": rb"-?[0-9]{2,3}:[0-9]{2}:[0-9]{2}" + FRACTION,
    "uuid": rb"[0-9a-f-]{36}",
    "inet4": rb"[0-9.]{7,15}",
    "inet6": rb"[0-9a-f:.]{2,45}",
}


class Lookup:
    """The way back from the keys of a job; `others` are longer prefixes under which other jobs have their keys."""

    def __init__(self, plan: Plan, table: Table, others: Sequence[str] = ()) -> None:
        self.plan = plan
        self._others = tuple(other.encode() for other in others)
        names = iter(plan.key_columns)
        self._columns: list[Column] = []
        self._pieces: list[bytes | Column] = []
        for piece in plan.layout.key:
            if isinstance(piece, bytes):
                self._pieces.append(piece)
            else:
                column = table.column(next(names))
                assert column
                self._pieces.append(column)
                self._columns.append(column)
        forms = (re.escape(p) if isinstance(p, bytes) else b"(" + form_of(p) + b")" for p in self._pieces)
        self._whole = re.compile(b"".join(forms), re.DOTALL)
        self._text = all(column.type not in BINARIES | {"bit"} for column in self._columns)

    @property
    def pattern(self) -> str:
        """The glob of SCAN that all keys of the job fit, and maybe others."""
        first = self._pieces[0]
        prefix = first.decode() if isinstance(first, bytes) else ""
        return re.sub(r"([*?\[\]\\^-])", r"\\\1", prefix) + "*"

    def owns(self, key: bytes) -> bool:
        """Whether a key is one that this job makes of some row, be the row there or not."""
        if key.startswith((RESERVED, *self._others)):
            return False
        return self._whole.fullmatch(key) is not None and not (self._text and _is_no_text(key))

    def condition(self, keys: Sequence[bytes]) -> str:
        """The condition that holds for the rows of keys that the job owns; maybe for others too."""
        readings = [reading for key in keys for reading in islice(self._readings(key), READINGS)]
        if len(self._columns) == 1:
            values = ", ".join(dict.fromkeys(literal(self._columns[0], value) for (value,) in readings))
            return f"{comparable(self._columns[0])} IN ({values or 'NULL'})"
        alternatives = dict.fromkeys(
            " AND ".join(
                f"{comparable(column)} = {literal(column, value)}"
                for column, value in zip(self._columns, reading, strict=True)
            )
            for reading in readings
        )
        return "(" + (" OR ".join(f"({text})" for text in alternatives) or "NULL") + ")"

    def _readings(self, key: bytes, piece: int = 0, at: int = 0) -> Iterator[tuple[bytes, ...]]:
        """Each way to take a key apart: the text of each column."""
        if piece == len(self._pieces):
            if at == len(key):
                yield ()
            return
        wanted = self._pieces[piece]
        if isinstance(wanted, bytes):
            if key.startswith(wanted, at):
                yield from self._readings(key, piece + 1, at + len(wanted))
            return
        form = re.compile(form_of(wanted), re.DOTALL)
        for end in self._ends(key, piece + 1, at):
            if form.fullmatch(key, at, end):
                for rest in self._readings(key, piece + 1, end):
                    yield (key[at:end], *rest)

    def _ends(self, key: bytes, following: int, at: int) -> Iterator[int]:
        """Where a column's text that starts at `at` may end: before the next literal."""
        if following == len(self._pieces):
            yield len(key)
            return
        literal_ = self._pieces[following]
        if not isinstance(literal_, bytes):
            yield from range(at, len(key) + 1)
            return
        while (at := key.find(literal_, at)) >= 0:
            yield at
            at += 1


def form_of(column: Column) -> bytes:
    """The regular expression of the texts that MySQL writes for a column."""
    if column.type in INTEGERS:
        width = column.zerofill_width
        if width:
            return rb"[0-9]{%d}|[1-9][0-9]{%d,}" % (width, width)
        return rb"0|[1-9][0-9]*" if "unsigned" in column.full_type else rb"0|-?[1-9][0-9]*"
    return FORMS.get(column.type, rb".*")


def comparable(column: Column) -> str:
    """What of a column is compared with `literal`: itself, so that an index serves; else its text."""
    name = quote(column.name)
    return name if column.type in _PLAIN or column.charset else f"CAST({name} AS CHAR CHARACTER SET utf8mb4)"


def literal(column: Column, text: bytes) -> str:
    """The text that MySQL wrote for a column, as a literal to compare the column with."""
    if column.type in NUMBERS:
        return text.decode()
    if column.type in TIMES | WORDS:
        return f"'{text.decode()}'"
    if column.type == "bit":
        return str(int.from_bytes(text))
    if column.type in BINARIES:
        return f"X'{text.hex()}'"
    if column.charset and column.charset != "utf8mb4":
        return f"CONVERT(_utf8mb4 X'{text.hex()}' USING {column.charset})"
    return f"_utf8mb4 X'{text.hex()}'"


def _is_no_text(key: bytes) -> bool:
    """Whether these bytes are not what MySQL sends for text, which is always UTF-8."""
    try:
        key.decode()
    except UnicodeDecodeError:
        return True
    return False


_PLAIN = NUMBERS | TIMES | WORDS | BINARIES | TEXTS | {"bit"}
