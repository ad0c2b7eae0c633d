"""The texts that MySQL writes for the values of a column: their form, their characters, their length. Pure."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from loader.model import Column

Check = Callable[[bytes], bool]

INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
NUMBERS = INTEGERS | {"decimal", "year"}
TIMES = frozenset({"date", "datetime", "time"})  # not timestamp: an hour comes twice when clocks are set back
INDEXED = frozenset({"enum", "set", "bit"})  # ordered by number, whatever their text
TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
BINARIES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
WORDS = frozenset({"uuid", "inet4", "inet6"})  # of MariaDB: compared as values, written as plain words
BYTES = BINARIES | {"bit"}  # such columns have bytes in a key, which need not be text
UNKNOWN = "unknown"  # the type of a query's column about which nothing is known

DIGITS, HEX = b"0123456789", b"0123456789abcdef"
SIGNS = {  # the characters of a type's text; any for types not listed
    "decimal": DIGITS + b"-.",
    "float": DIGITS + b"-+.e",
    "double": DIGITS + b"-+.e",
    "year": DIGITS,
    "date": DIGITS + b"-",
    "datetime": DIGITS + b"-: .",
    "timestamp": DIGITS + b"-: .",
    "time": DIGITS + b"-:.",
    "uuid": HEX + b"-",
    "inet4": DIGITS + b".",
    "inet6": HEX + b":.",
}
DATE = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}"
FRACTION = rb"(?:\.[0-9]{1,6})?"
FORMS = {  # any bytes if the type is not listed
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
MOST_DIGITS = {"tinyint": 3, "smallint": 5, "mediumint": 8, "int": 10, "bigint": 20}
WIDTHS = {"date": 10, "datetime": 19, "timestamp": 19, "year": 4, "uuid": 36}  # bytes without a fraction
LATIN1 = frozenset(bytes([byte]).decode("cp1252", errors="ignore") or chr(byte) for byte in range(256))
MEMBER = re.compile(r"'((?:[^'\\]|''|\\.)*)'", re.DOTALL)
ESCAPED = re.compile(r"''|\\(.)", re.DOTALL)
ESCAPES = {"0": "\0", "n": "\n", "r": "\r"}  # as SHOW COLUMNS writes them


def form_of(column: Column) -> bytes:
    """The regular expression that the texts of a column match; see `checker` for further conditions."""
    if column.type in INTEGERS:
        width = column.zerofill_width
        if width:
            return rb"[0-9]{%d}|[1-9][0-9]{%d,}" % (width, width)
        return rb"0|[1-9][0-9]*" if "unsigned" in column.full_type else rb"0|-?[1-9][0-9]*"
    if column.type == "bit":
        return rb".{%d}" % (width_of(column) or 0)
    return FORMS.get(column.type, rb".*")


def checker(column: Column) -> Check:
    """A check whether a text of a column's form is possible: short enough, with allowed characters, a member."""
    size, is_padded, has = _size(column), column.type == "char", _repertoire(column.charset)
    if column.type == "enum":
        return {b"", *members_of(column)}.__contains__  # empty if a value was none of them
    if column.type == "set":
        ranks = {member: rank for rank, member in enumerate(members_of(column))}
        return lambda text: not text or _are_ordered([ranks.get(each, -1) for each in text.split(b",")])
    if column.type in BYTES:
        exact = width_of(column)
        return lambda text: len(text) == exact if exact is not None else size is None or len(text) <= size
    if column.type == UNKNOWN or is_told(column):
        return lambda _: column.type != UNKNOWN

    def is_text(text: bytes) -> bool:
        try:
            signs = text.decode()
        except UnicodeDecodeError:  # text from MySQL is always UTF-8
            return False
        return (size is None or len(signs) <= size) and not (is_padded and signs.endswith(" ")) and has(signs)

    return is_text


def signs_of(column: Column) -> frozenset[int] | None:
    """The bytes that texts of a column consist of; None if any."""
    if column.type in INTEGERS:
        return frozenset(DIGITS if "unsigned" in column.full_type else DIGITS + b"-")
    if column.type in {"enum", "set"}:
        return frozenset(b"".join(members_of(column)) + b"," * (column.type == "set"))
    signs = SIGNS.get(column.type)
    return None if signs is None else frozenset(signs)


def width_of(column: Column) -> int | None:
    """How many bytes each text of a column has; None if the length varies."""
    if column.type == "bit":
        return -(-(_size(column) or 1) // 8)
    if column.type == "binary":
        return _size(column) or 1
    if column.type in INTEGERS:
        zeros = column.zerofill_width or 0
        return zeros if zeros >= MOST_DIGITS[column.type] else None
    width = WIDTHS.get(column.type)
    digits = _size(column) if column.type in {"datetime", "timestamp"} else None
    return width + 1 + digits if width and digits else width


def members_of(column: Column) -> tuple[bytes, ...]:
    """The members of an ENUM or a SET."""
    found = (match[1] for match in MEMBER.finditer(column.full_type))
    return tuple(ESCAPED.sub(_unescaped, each).encode() for each in found)


def is_any(column: Column) -> bool:
    """Whether its texts may be anything, so that others look alike."""
    return signs_of(column) is None


def is_told(column: Column) -> bool:
    """Whether the form is the only condition on its texts."""
    return not is_any(column) and column.type not in {"enum", "set"}


def _are_ordered(ranks: Sequence[int]) -> bool:
    return min(ranks) >= 0 and all(before < after for before, after in pairwise(ranks))


def _unescaped(match: re.Match[str]) -> str:
    sign = match[1]
    return "'" if sign is None else ESCAPES.get(sign, sign)


def _size(column: Column) -> int | None:
    """The number in the brackets of a type: characters, bytes, bits or digits."""
    digits = column.full_type.partition("(")[2].partition(")")[0]
    return int(digits) if digits.isdecimal() else None


def _repertoire(charset: str | None) -> Callable[[str], bool]:
    """A check whether a character set has all the characters of a text, as far as known."""
    if charset == "ascii":
        return str.isascii
    if charset == "latin1":
        return lambda text: text.isascii() or LATIN1.issuperset(text)
    if charset in {"utf8mb3", "utf8", "ucs2"}:
        return lambda text: max(text, default="") <= "\uffff"
    return lambda _: True


def is_prefix_free(texts: Sequence[bytes]) -> bool:
    """Whether none of some distinct texts begins another."""
    ordered = sorted(texts)
    return not any(after.startswith(before) for before, after in pairwise(ordered))
