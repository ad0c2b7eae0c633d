"""The parts of jobs: patterns of table names, and the names, keys and origins of parts. No server is asked.

A job with `tables`, or with several sources, stands for parts: each is a job of one table of one source, with a name, a
lock, a checkpoint and a history of its own. Until its tables are known, a job with `tables` is *open*.
"""

import re
from collections.abc import Sequence
from fnmatch import translate
from urllib.parse import quote

from loader.config.parsers import KeyParts, key_parts
from loader.records import dataclass

PLACEHOLDERS = frozenset({"source", "database", "table"})  # in keys; replaced by names
PRIMARY_KEY = "pk"  # in keys; stands for the columns of the primary key
SEPARATOR = "_"  # between these columns if no text stands before them
PLAIN = re.compile(r"[\w.~$@+=-]+")  # of a table's name: what suits state keys and paths of urls
PAGES = frozenset({"rejects", "run", "retry", "pause", "resume"})  # of a job, below its own
DOTS = re.compile(r"\.+")  # alone in the path of a url they mean another place


@dataclass(frozen=True, slots=True)
class Origin:
    """From where a job's rows come: the name of a source, and a database of it, both empty for those of `source`.

    A part names its job in `part_of`, and in `piece` the open job, of one source, that it was made from. A job that is
    `placed` by `tables` or `source` has placeholders in its key.
    """

    source: str = ""
    database: str = ""
    part_of: str = ""
    piece: str = ""
    placed: bool = False

    def of_part(self, part_of: str, piece: str, database: str) -> "Origin":
        """The origin of a part that was made from an open job."""
        return Origin(self.source, database, part_of, piece, placed=True)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob, or a regular expression between slashes; one with a dot is about `database.table`."""

    text: str

    @property
    def is_expression(self) -> bool:
        """Whether it is a regular expression."""
        return len(self.text) > 1 and self.text[0] == self.text[-1] == "/"

    @property
    def names_database(self) -> bool:
        """Whether it says which databases it is about; a regular expression does by an escaped dot."""
        return r"\." in self.text if self.is_expression else "." in self.text

    def compiled(self) -> re.Pattern[str]:
        """The whole pattern as a regular expression; a ValueError if it is none."""
        if self.is_expression:
            try:
                return re.compile(self.text[1:-1])
            except re.error as error:
                raise ValueError(f"{self.text!r} is not a regular expression: {error}") from None
        database, dot, table = self.text.partition(".")
        if (not table and dot) or not database:
            raise ValueError(f"{self.text!r} is not a pattern: write table_*, database_*.table_*, or /expression/")
        return re.compile(rf"{translate(database)[:-2]}\.{translate(table)}" if dot else translate(self.text))

    def matcher(self) -> "Matcher":
        """Tests names with it."""
        return Matcher(self.compiled(), whole=self.names_database)


@dataclass(frozen=True, slots=True)
class Matcher:
    """A compiled pattern, of `database.table` if it is about the `whole` name."""

    compiled: re.Pattern[str]
    whole: bool

    def fits(self, database: str, table: str) -> bool:
        """Whether a table is meant."""
        return self.compiled.fullmatch(f"{database}.{table}" if self.whole else table) is not None


class Selection:
    """The tables that a job means: those of its `tables` without those of its `exclude`."""

    def __init__(self, tables: Sequence[str], exclude: Sequence[str]) -> None:
        self._wanted = [Pattern(text).matcher() for text in tables]
        self._unwanted = [Pattern(text).matcher() for text in exclude]

    def takes(self, database: str, table: str, own: str) -> bool:
        """Whether a table is meant; `own` is the source's database, to which patterns without a dot are confined."""
        return any((each.whole or database == own) and each.fits(database, table) for each in self._wanted) and not any(
            each.fits(database, table) for each in self._unwanted
        )


def piece_of_name(name: str) -> str:
    """A name of MySQL's as a piece of a part's name: other characters than plain ones are percent-encoded."""
    if DOTS.fullmatch(name):
        return "%2E" * len(name)
    if name in PAGES:
        return f"%{ord(name[0]):02X}{name[1:]}"
    return "".join(
        text if PLAIN.fullmatch(text) else quote(text, safe="") for text in re.split(f"({PLAIN.pattern})", name)
    )


def table_of(text: str) -> tuple[str, str]:
    """Database and table of `other_db.t`; the database is empty if none is named. Backticks keep a dot in a name."""
    quoted = re.fullmatch(r"(?:(`(?:[^`]|``)+`|[^`.]+)\.)?(`(?:[^`]|``)+`|[^`.]+)", text)
    if not quoted:
        return "", text
    return _unquoted(quoted[1] or ""), _unquoted(quoted[2])


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`") if name[:1] == "`" else name


def placed_key(template: str, names: dict[str, str]) -> str:
    """A key template with the names of source, database and table in place of their placeholders."""
    filled = ""
    for literal, column in key_parts(template):
        filled += _escaped(literal)
        if column is not None:
            filled += _escaped(names[column]) if column in names else f"{{{column}}}"
    return filled


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def check_placed_key(template: str) -> None:
    """Raise a ValueError if a key with placeholders names no column of rows."""
    columns = {column for _, column in key_parts(template) if column}
    if columns <= PLACEHOLDERS:
        raise ValueError("names no column of the rows, so that all would share one key; write one in braces, or {pk}")


def with_primary_key(parts: KeyParts, columns: Sequence[str]) -> KeyParts:
    """A parsed key with the columns of a primary key for `{pk}`, joined by the last character of the text before it."""
    result: list[tuple[str, str | None]] = []
    for literal, column in parts:
        if column != PRIMARY_KEY:
            result.append((literal, column))
            continue
        joiner = literal[-1:] if literal and not literal[-1].isalnum() else SEPARATOR
        result += [(literal if number == 0 else joiner, name) for number, name in enumerate(columns)]
    return tuple(result)
