"""The key to read a table along in chunks, why there is none, and the part that --range selects."""

import re
from collections.abc import Collection, Sequence
from decimal import Decimal

from loader.errors import ConfigError
from loader.model import Bar, Barred, Column, Table
from loader.mysql.forms import BINARIES, INDEXED, NUMBERS, TEXTS, TIMES, WORDS
from loader.mysql.sql import quote

WALKABLE = NUMBERS | TIMES | INDEXED | TEXTS | BINARIES | WORDS
UNEVEN = {"timestamp": "for which an hour comes twice when clocks are set back"}  # by type, why a column has no walk
BARS = {
    Bar.INVISIBLE: "is invisible",
    Bar.IGNORED: "is ignored",
    Bar.DISABLED: "is disabled",
    Bar.HASH: "is a hash, which has no order",
    Bar.PREFIX: "holds only the beginning of each value",
}
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?)?|-?[0-9]+:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
)


def chunk_columns(table: Table, within: Collection[str] | None = None) -> tuple[Column, ...]:
    """The columns of a key that MySQL can continue from: the primary key, else a unique one.

    If columns are given, it is made of these.
    """
    for key in (table.primary_key, *table.unique_keys):
        if within is not None and not set(key) <= set(within):
            continue
        columns = [column for name in key if (column := table.column(name))]
        if columns and not _hindrance(table, key):
            return tuple(columns)
    return ()


def walkless(table: Table) -> str:
    """Why a table cannot be walked, for people; empty if it can."""
    if chunk_columns(table):
        return ""
    others = [f"the unique one on ({', '.join(key)}), {_hindrance(table, key)}" for key in table.unique_keys]
    if table.primary_key:
        why = _hindrance(table, table.primary_key)
        return ", nor ".join([f"the primary key of table {table.name!r} cannot be walked along, {why}", *others])
    seen = " that the account may read" * bool(table.withheld)
    return ": not ".join([f"table {table.name!r} has no key to walk along{seen}", *others])


def walk_fix(table: Table, key_columns: Sequence[str]) -> str | None:
    """The change in ALTER TABLE that makes a table walkable; None if nothing certainly does."""
    for key in (table.primary_key, *table.unique_keys):
        barred = table.bar(key)
        fix = barred and let_in(barred)
        if fix and all(map(_is_walkable, filter(None, map(table.column, key)))):
            return fix
    columns = [column for name in key_columns if (column := table.column(name))]
    if table.primary_key or not all(map(_is_walkable, columns)) or any(_is_long(column) for column in columns):
        return None
    order = "USING BTREE " if any(each.bar is Bar.HASH for each in table.barred) else ""  # not MEMORY's default
    return f"ADD PRIMARY KEY {order}({', '.join(map(quote, key_columns))})"


def let_in(barred: Barred) -> str | None:
    """The change in ALTER TABLE that makes MySQL read along an index; None if nothing certainly does."""
    name, columns = quote(barred.name), ", ".join(map(quote, barred.columns))
    match barred.bar:
        case Bar.INVISIBLE:
            return f"ALTER INDEX {name} VISIBLE"
        case Bar.IGNORED:
            return f"ALTER INDEX {name} NOT IGNORED"
        case Bar.DISABLED:
            return "ENABLE KEYS"
        case Bar.HASH if barred.name == "PRIMARY":
            return f"DROP PRIMARY KEY, ADD PRIMARY KEY USING BTREE ({columns})"
    return None


def _hindrance(table: Table, key: tuple[str, ...]) -> str:
    """Why a key cannot be walked along, for people; empty if it can."""
    barred = table.bar(key)
    if barred:
        return f"since its index {BARS[barred.bar]}"
    odd = next((column for name in key if (column := table.column(name)) and not _is_walkable(column)), None)
    if odd is None:
        return ""
    why = UNEVEN.get(odd.type, "which is not compared as it is printed")
    return f"since column {odd.name!r} is a {odd.type}, {why}"


def _is_long(column: Column) -> bool:
    """Whether a column is too long for a key that holds all of it."""
    return column.type.endswith(("text", "blob"))


def _is_walkable(column: Column) -> bool:
    """Whether MySQL compares a column in the order that it sorts it by: not a SET too large for a double's 53 bits."""
    return column.type in WALKABLE and (column.type != "set" or column.full_type.count(",") < 53)


def range_condition(table: Table, walk: tuple[Column, ...], text: str) -> str:
    """The condition for `--range LO:HI`; a `ConfigError` if it is invalid."""
    if not walk:
        raise ConfigError(f"--range goes along a key: {walkless(table)}")
    column = walk[0]
    places = [place for place, char in enumerate(text) if char == ":"]
    if column.type in TIMES:  # whose values contain colons themselves
        places = [at for at in places if all(TIME.fullmatch(end) for end in (text[:at], text[at + 1 :]) if end)]
    else:
        places = places[:1]
    if len(places) != 1 or text == ":":
        raise ConfigError(f"--range {text!r}: write LO:HI, both included; either may be left out")
    low, high = text[: places[0]], text[places[0] + 1 :]
    ends = [(">=", low), ("<=", high)]
    if low and high and _is_reversed(column, low, high):
        raise ConfigError(f"--range {text!r}: {low} comes after {high}, so that no row is in it: write LO:HI")
    return " AND ".join(f"{quote(column.name)} {sign} {_typed(column, value)}" for sign, value in ends if value)


def _is_reversed(column: Column, low: str, high: str) -> bool:
    """Whether no value is between two that a person typed; for text, only if any collation sorts it so."""
    if column.type in NUMBERS | INDEXED:
        return all(map(NUMBER.fullmatch, (low, high))) and Decimal(low) > Decimal(high)
    if column.type in BINARIES:
        return low.encode() > high.encode()
    if column.type not in TEXTS | TIMES - {"time"} or not (low + high).isascii():
        return False
    return low > high and low.casefold() > high.casefold() and (column.type in TIMES or (low + high).isalnum())


def _typed(column: Column, value: str) -> str:
    """A value that a person typed, as a literal for a column."""
    if column.type in NUMBERS | INDEXED:
        if not NUMBER.fullmatch(value):
            raise ConfigError(f"--range: {value!r} is not a number like those in column {column.name!r}")
        return value
    return f"{'' if column.type in BINARIES else '_utf8mb4 '}X'{value.encode().hex()}'"
