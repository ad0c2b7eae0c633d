"""From a Redis key back to its row: which values its columns have, and the condition that finds the row. Pure.

A key may be this job's where its literals and the text of each column fit: `stu_00000001` for `stu_{sid}`, but neither
`stu_1`, which a ZEROFILL of eight digits never makes, nor `stu_x_1`. Where any text fits, or nothing stands before the
first column, the hash has to show whose it is. Where two texts stand side by side a key can be taken apart in several
ways; all of them are looked for, or the whole key where they are too many, and the row that is found says which key it
makes.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from loader.model import Column, Table
from loader.mysql.forms import BINARIES, BYTES, NUMBERS, TIMES, WORDS, checker, form_of, is_any, is_told, width_of
from loader.mysql.plan import Plan
from loader.mysql.sql import quote, text_of
from loader.state_keys import PREFIX

TOGETHER = 500  # keys in one statement: MariaDB makes a subquery of a thousand
READINGS = 64  # ways to take one key apart that are looked for; of more, MySQL compares the whole key with each row
PLAIN = NUMBERS | TIMES | WORDS | BYTES  # compared by their values
RESERVED = PREFIX.encode()  # the loader's own keys

EXACT = frozenset({"utf8mb4", "utf8mb3", "utf8", "ascii", "latin1", "ucs2", "utf16", "utf16le", "utf32"})
# character sets whose text is the same after the way to UTF-8 and back


class KeyMatcher:
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
        self._texts = {column: (re.compile(form_of(column), re.DOTALL), checker(column)) for column in self._columns}
        self._checks = [
            (place, self._texts[column][1]) for place, column in enumerate(self._columns, 1) if not is_told(column)
        ]
        self._begins = isinstance(self._pieces[0], bytes)
        self._shown = [
            [name for name, cell in plan.layout.fields if cell == piece]
            for piece in plan.layout.key
            if not isinstance(piece, bytes)
        ]

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
        match = self._whole.fullmatch(key)
        if match is None:
            return False
        for place, check in self._checks:
            if not check(match[place]):
                return len(self._columns) > 1 and any(True for _ in self._readings(key))
        return True

    @property
    def is_certain(self) -> bool:
        """Whether a key that fits is the job's: a literal begins it, and no column of it holds any text."""
        return self._begins and not any(map(is_any, self._columns))

    def proves(self, key: bytes, found: Mapping[bytes, bytes], names: Collection[bytes]) -> bool:
        """Whether the fields of a hash show that the job, whose fields have these `names`, has written it under a key.

        It has no others, and those that are columns of the key are in it as the key has them. Where nothing stands
        before the first column, there has to be one.
        """
        if not all(name in names for name in found) or not (self._begins or any(self._shown)):
            return False
        shown = iter(self._shown)
        form = b""
        for piece in self._pieces:
            if isinstance(piece, bytes):
                form += re.escape(piece)
                continue
            fields = next(shown)
            values = {found.get(name) for name in fields}
            if None in values or len(values) > 1:
                return False
            form += b"".join(map(re.escape, filter(None, values))) if fields else b"(?:" + form_of(piece) + b")"
        return re.fullmatch(form, key, re.DOTALL) is not None

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
            texts = ", ".join(f"'{key.hex().upper()}'" for key in whole)
            parts.append(f"{self._joined()} IN ({texts})")
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
        """The expression of the whole key, in hexadecimal."""
        pieces = (f"'{piece.hex()}'" if isinstance(piece, bytes) else hex_of(piece) for piece in self._pieces)
        return f"UPPER(CONCAT({', '.join(pieces)}))"

    def _readings(self, key: bytes) -> Iterator[tuple[bytes, ...]]:
        """Each way to take a key apart: the text of each column."""
        return self._rest(key, 0, 0, set())

    def _rest(self, key: bytes, piece: int, at: int, dead: set[tuple[int, int]]) -> Iterator[tuple[bytes, ...]]:
        """Each way to take the rest of a key for the rest of the pieces; `dead` are the places without any."""
        if piece == len(self._pieces):
            if at == len(key):
                yield ()
            return
        if (piece, at) in dead:
            return
        wanted, found = self._pieces[piece], False
        for end in self._ends(key, piece, at):
            if isinstance(wanted, bytes) or self._is_text(wanted, key[at:end]):
                for rest in self._rest(key, piece + 1, end, dead):
                    found = True
                    yield rest if isinstance(wanted, bytes) else (key[at:end], *rest)
        if not found:
            dead.add((piece, at))

    def _is_text(self, column: Column, text: bytes) -> bool:
        form, check = self._texts[column]
        return form.fullmatch(text) is not None and check(text)

    def _ends(self, key: bytes, piece: int, at: int) -> Iterator[int]:
        """Where a piece that starts at `at` may end: a column's text before the next literal."""
        wanted, following = self._pieces[piece], self._pieces[piece + 1 : piece + 2]
        if isinstance(wanted, bytes):
            if key.startswith(wanted, at):
                yield at + len(wanted)
        elif not following:
            yield len(key)
        elif isinstance(following[0], bytes):
            while (at := key.find(following[0], at)) >= 0:
                yield at
                at += 1
        else:
            yield from range(at, len(key) + 1)


def escape_glob(text: str) -> str:
    """The glob that a text fits and nothing else."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)


def comparable(column: Column) -> str:
    """What of a column is compared with `literal`: itself, so that an index serves, else the text that MySQL sends."""
    if column.type in PLAIN or column.charset in EXACT:
        return quote(column.name)
    return f"{text_of(column)} COLLATE utf8mb4_bin"


def hex_of(column: Column) -> str:
    """The expression of the bytes that MySQL sends for a column, in hexadecimal."""
    if column.type == "bit":
        return f"LPAD(HEX({quote(column.name)} + 0), {2 * (width_of(column) or 1)}, '0')"
    return f"HEX({quote(column.name) if column.type in BINARIES else text_of(column)})"


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
