"""The spelling of names and values in SQL, and comparisons as MySQL makes them."""

import re
from collections.abc import Sequence

from loader.errors import PlanError
from loader.model import Column, KeyValues, is_literal
from loader.mysql.forms import BINARIES, BYTES, INDEXED, INTEGERS, TEXTS, TIMES, WORDS, is_any

INTEGER = re.compile(r"-?[0-9]{1,255}", re.ASCII)
CLOCK_CHANGE = 7200  # seconds by which clocks change, at most
LAST_TIMESTAMP = 2_147_483_647  # the second after which FROM_UNIXTIME may be NULL


def peek(query: str, rows: int) -> str:
    """The statement for some rows of a query; zero rows to learn its columns."""
    return f"SELECT * FROM (\n{query}\n) AS q\nLIMIT {rows}"


def quote(name: str) -> str:
    """A name in quotes, so that MySQL accepts any."""
    return "`" + name.replace("`", "``") + "`"


def text_of(column: Column) -> str:
    """The expression for the text that MySQL sends for a column."""
    name = quote(column.name)
    if column.charset:
        return f"CONVERT({name} USING utf8mb4)"
    return f"CONVERT(CAST({name} AS CHAR) USING utf8mb4)"


def beyond(columns: Sequence[Column], values: KeyValues) -> str:
    """The condition `columns > values`, spelled out: MySQL finds no index range for a comparison of rows."""
    return f"{_compare(columns, values, '>', '>')}{_hint(columns[0], '>=', values[0])}"


def within(columns: Sequence[Column], values: KeyValues) -> str:
    """The condition `columns <= values`, spelled out."""
    return f"{_compare(columns, values, '<', '<=')}{_hint(columns[0], '<=', values[0])}"


def as_literal(column: Column) -> str:
    """The expression with which MySQL writes a key value as a literal for `beyond` and `within`."""
    name = operand(column)
    if column.type in TEXTS:
        return f"CONCAT('_{column.charset} X''', HEX({name}), '''')"
    if column.type in BINARIES:
        return f"CONCAT('X''', HEX({name}), '''')"
    if column.type in INDEXED:
        return f"CAST(CAST({name} AS UNSIGNED) AS CHAR)"  # column + 0 is a double, too short for a SET of 64
    if column.type in TIMES | WORDS:
        return f"CONCAT('''', CAST({name} AS CHAR), '''')"
    return f"CAST({name} AS CHAR)"


def fits(walk: Sequence[Column], values: KeyValues) -> bool:
    """Whether key values are literals of the columns that a table is walked along."""
    return len(values) == len(walk) and all(
        is_literal(value) and (column.type not in INTEGERS or INTEGER.fullmatch(value))
        for column, value in zip(walk, values, strict=True)
    )


def checked(values: Sequence[str | None]) -> KeyValues:
    """Literals from MySQL, checked to be nothing else."""
    for value in values:
        if value is None or not is_literal(value):
            raise PlanError(f"MySQL gave a key value that is not a literal: {value!r}")
    return tuple(map(str, values))


def _compare(columns: Sequence[Column], values: KeyValues, strict: str, last: str) -> str:
    name, value = operand(columns[0]), values[0]
    if len(columns) == 1:
        return f"{name} {last} {value}"
    return f"({name} {strict} {value} OR ({name} = {value} AND {_compare(columns[1:], values[1:], strict, last)}))"


def operand(column: Column) -> str:
    """The side of a comparison with a literal: of a TIMESTAMP its number, because a local time may occur twice."""
    return f"UNIX_TIMESTAMP({quote(column.name)})" if column.type == "timestamp" else quote(column.name)


def at_least(stamp: Column, moment: str) -> str:
    """The condition that a time column is not before a moment, a literal."""
    return f"{operand(stamp)} >= {moment}{_hint(stamp, '>=', moment)}"


def _hint(column: Column, sign: str, value: str) -> str:
    """A redundant condition for which MySQL can use the index, for a TIMESTAMP compared by number.

    It uses the local time itself, or `CLOCK_CHANGE` seconds more if clocks are set back around it.
    """
    if column.type != "timestamp":
        return ""
    at = int(value.partition(".")[0]) + (sign == "<=")
    low, high = at - CLOCK_CHANGE, at + CLOCK_CHANGE
    if low < 0 or high > LAST_TIMESTAMP:
        return ""
    steady = f"TIMESTAMPDIFF(SECOND, FROM_UNIXTIME({low}), FROM_UNIXTIME({high})) = {high - low}"
    moment = f"FROM_UNIXTIME(IF({steady}, {at}, {low if sign == '>=' else high}))"
    return f" AND {quote(column.name)} {sign} {moment}"


def checksum(columns: Sequence[Column]) -> str:
    """A number of a row, of the columns of its key; texts that may be of several character sets are made of one."""
    texts = [column for column in columns if column.charset or (is_any(column) and column.type not in BYTES)]
    mixed = len(texts) > 1 and ({each.charset for each in texts} != {texts[0].charset} or not texts[0].charset)
    cells = (text_of(column) if mixed and column in texts else quote(column.name) for column in columns)
    return f"CRC32(CONCAT_WS(',', {', '.join(cells)}))"
