"""From a Redis key back to its row: which values its columns have, and the condition that finds the row. Pure.

A key is this job's where its literals and the text of each column fit: `stu_00000001` for `stu_{sid}`, but neither
`stu_1`, which a ZEROFILL of eight digits never makes, nor `stu_x_1`. Where two texts stand side by side a key can be
taken apart in several ways; all of them are looked for, or the whole key where they are too many, and the row that is
found says which key it makes.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from loader.keys import PREFIX
from loader.model import Column, Table
from loader.plan import BINARIES, INTEGERS, NUMBERS, TIMES, WORDS, Plan, quote

TOGETHER = 500  # keys in one statement: MariaDB makes a subquery of a thousand
READINGS = 64  # ways to take one key apart that are looked for; of more, MySQL compares the whole key with each row
BYTES = BINARIES | {"bit"}  # of such columns a key has bytes, which need not be text
PLAIN = NUMBERS | TIMES | WORDS | BYTES  # compared by their values
RESERVED = PREFIX.encode()  # the loader's own keys

DATE = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}"
FRACTION = rb"(?:\.[0-9]{1,6})?"
EXACT = frozenset({"utf8mb4", "utf8mb3", "utf8", "ascii", "latin1", "ucs2", "utf16", "utf16le", "utf32"})
# character sets whose text is the same after the way to UTF-8 and back
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
        self._text = all(column.type not in BYTES for column in self._columns)

    @property
    def pattern(self) -> str:
        """The glob of SCAN that all keys of the job fit, and maybe others."""
        first = self._pieces[0]
        prefix = first.decode() if isinstance(first, bytes) else ""
        return escape_glob(prefix) + "*"

    def owns(self, key: bytes) -> bool:
        """Whether a key is one that this job makes of some row, be the row there or not, and no other job does."""
        return not key.startswith((RESERVED, *self._others)) and self.fits(key)

    def fits(self, key: bytes) -> bool:
        """Whether the row of a key can be looked up: it is made of the literals and of texts that the columns have."""
        if self._whole.fullmatch(key) is None:
            return False
        if self._text:
            return not _is_no_text(key)
        return len(list(islice(self._readings(key), READINGS + 1))) <= READINGS

    def condition(self, keys: Sequence[bytes]) -> str:
        """The condition that holds for the rows of keys that fit; maybe for others too."""
        readings: dict[tuple[bytes, ...], None] = {}
        whole: list[bytes] = []
        for key in keys:
            found = list(islice(self._readings(key), READINGS + 1))
            if len(found) > READINGS:
                whole.append(key)
            else:
                readings |= dict.fromkeys(found)
        parts = [self._alternatives(readings)] if readings else []
        if whole:
            values = ", ".join(f"_utf8mb4 X'{key.hex()}'" for key in whole)
            parts.append(f"{self._joined()} COLLATE utf8mb4_bin IN ({values})")
        return "(" + " OR ".join(parts) + ")" if parts else "FALSE"

    def _alternatives(self, readings: Iterable[tuple[bytes, ...]]) -> str:
        if len(self._columns) == 1:
            column = self._columns[0]
            return f"{comparable(column)} IN ({', '.join(literal(column, value) for (value,) in readings)})"
        return " OR ".join(
            "("
            + " AND ".join(
                f"{comparable(c)} = {literal(c, value)}" for c, value in zip(self._columns, reading, strict=True)
            )
            + ")"
            for reading in readings
        )

    def _joined(self) -> str:
        """The expression of the whole key; no column of it is binary."""
        pieces = (
            f"_utf8mb4 X'{piece.hex()}'" if isinstance(piece, bytes) else text_of(piece) for piece in self._pieces
        )
        return f"CONCAT({', '.join(pieces)})"

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


def escape_glob(text: str) -> str:
    """The glob that a text fits and nothing else."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)


def form_of(column: Column) -> bytes:
    """The regular expression of the texts that MySQL writes for a column."""
    if column.type in INTEGERS:
        width = column.zerofill_width
        if width:
            return rb"[0-9]{%d}|[1-9][0-9]{%d,}" % (width, width)
        return rb"0|[1-9][0-9]*" if "unsigned" in column.full_type else rb"0|-?[1-9][0-9]*"
    if column.type == "bit":
        return rb".{%d}" % -(-int(column.full_type.partition("(")[2].partition(")")[0] or 1) // 8)
    return FORMS.get(column.type, rb".*")


def comparable(column: Column) -> str:
    """What of a column is compared with `literal`: itself, so that an index serves, else the text that MySQL sends."""
    if column.type in PLAIN or column.charset in EXACT:
        return quote(column.name)
    return f"{text_of(column)} COLLATE utf8mb4_bin"


def text_of(column: Column) -> str:
    """The expression of the text that MySQL sends for a column."""
    name = quote(column.name)
    if column.charset:
        return f"CONVERT({name} USING utf8mb4)"
    return f"CONVERT(CAST({name} AS CHAR) USING utf8mb4)"


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
    value = f"_utf8mb4 X'{text.hex()}'"
    if column.charset in EXACT:
        return f"CONVERT({value} USING {column.charset}) COLLATE {column.collation}"
    return value


def _is_no_text(key: bytes) -> bool:
    """Whether these bytes are not what MySQL sends for text, which is always UTF-8."""
    try:
        key.decode()
    except UnicodeDecodeError:
        return True
    return False
