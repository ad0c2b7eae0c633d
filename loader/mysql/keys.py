"""From a Redis key back to its row: the values of its columns, and the condition that finds the row. Pure.

A key may be this job's if its literals and the text of each column fit: `stu_00000001` for `stu_{sid}`, but neither
`stu_1`, which a ZEROFILL of eight digits never makes, nor `stu_x_1`. If any text fits, or the first column has no
literal before it, the hash must show which job it belongs to. If two texts are adjacent, a key can be parsed in several
ways; all of them are looked up, or the whole key if there are too many, and the row that is found says which key it
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

TOGETHER = 500  # keys in one statement: MariaDB turns a thousand into a subquery
READINGS = 64  # ways to parse one key that are looked up; with more, MySQL compares the whole key with each row
PLAIN = NUMBERS | TIMES | WORDS | BYTES  # types compared by their values
RESERVED = PREFIX.encode()  # the loader's own keys

EXACT = frozenset({"utf8mb4", "utf8mb3", "utf8", "ascii", "latin1", "ucs2", "utf16", "utf16le", "utf32"})
# character sets whose text survives the conversion to UTF-8 and back


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
        """The glob for SCAN that matches all keys of the job, and maybe others."""
        first = self._pieces[0]
        prefix = first.decode() if isinstance(first, bytes) else ""
        return escape_glob(prefix) + "*"

    def owns(self, key: bytes) -> bool:
        """Whether this job, and no other, makes a key for some row, whether or not that row exists."""
        return not key.startswith((RESERVED, *self._others)) and self.fits(key)

    def fits(self, key: bytes) -> bool:
        """Whether the row of a key can be looked up: its parts are the literals and possible texts of the columns."""
        match = self._whole.fullmatch(key)
        if match is None:
            return False
        for place, check in self._checks:
            if not check(match[place]):
                return len(self._columns) > 1 and any(True for _ in self._readings(key))
        return True

    @property
    def is_certain(self) -> bool:
        """Whether a key that fits is certainly the job's: it begins with a literal, and no column may hold any text."""
        return self._begins and not any(map(is_any, self._columns))

    def proves(self, key: bytes, found: Mapping[bytes, bytes], names: Collection[bytes]) -> bool:
        """Whether the fields of a hash show that the job, whose fields have these `names`, has written it under a key.

        It has no other fields, and those that are columns of the key have the key's values. If the first column has no
        literal before it, there must be at least one such field.
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
        """A condition that is true for the rows of keys that fit, and maybe for others."""
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

    def key_of(self, values: Sequence[bytes]) -> bytes:
        """The key that these texts of the columns make."""
        texts = iter(values)
        return b"".join(piece if isinstance(piece, bytes) else next(texts) for piece in self._pieces)

    def rows_with(self, values: Iterable[tuple[bytes, ...]]) -> str:
        """The condition that holds for the rows whose columns have one of these texts each."""
        return f"({self._alternatives(values)})"

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the key, in its order."""
        return tuple(self._columns)

    def _alternatives(self, readings: Iterable[tuple[bytes, ...]]) -> str:
        if len(self._columns) == 1:
            column = self._columns[0]
            if column.type in NUMBERS:
                return f"{comparable(column)} IN ({b', '.join(value for (value,) in readings).decode()})"
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
        """The expression for the whole key, in hexadecimal."""
        pieces = (f"'{piece.hex()}'" if isinstance(piece, bytes) else hex_of(piece) for piece in self._pieces)
        return f"UPPER(CONCAT({', '.join(pieces)}))"

    def _readings(self, key: bytes) -> Iterator[tuple[bytes, ...]]:
        """All ways to parse a key: the text of each column."""
        return self._rest(key, 0, 0, set())

    def _rest(self, key: bytes, piece: int, at: int, dead: set[tuple[int, int]]) -> Iterator[tuple[bytes, ...]]:
        """All ways to parse the rest of a key with the remaining pieces; `dead` are the positions without any."""
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
        """Possible ends of a piece that starts at `at`: a column's text before the next literal."""
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
    """The glob that matches a text and nothing else."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)


def comparable(column: Column) -> str:
    """The side of a comparison with `literal`: the column, so that an index is used, else the text MySQL sends."""
    if column.type in PLAIN or column.charset in EXACT:
        return quote(column.name)
    return f"{text_of(column)} COLLATE utf8mb4_bin"


def hex_of(column: Column) -> str:
    """The expression for the bytes that MySQL sends for a column, in hexadecimal."""
    if column.type == "bit":
        return f"LPAD(HEX({quote(column.name)} + 0), {2 * (width_of(column) or 1)}, '0')"
    return f"HEX({quote(column.name) if column.type in BINARIES else text_of(column)})"


def literal(column: Column, text: bytes) -> str:
    """A column's text from MySQL, as a literal to compare the column with."""
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
