"""The statements in a binlog: what they do to a transaction, and which tables they change without row events. Pure."""

import re
from collections.abc import Iterable
from enum import Enum, auto

from loader.wire.binlog import Query

TableName = tuple[str, str]  # database and table


class Effect(Enum):
    """What a statement in the binlog does."""

    BEGIN = auto()  # the transaction goes on
    COMMIT = auto()
    ROLLBACK = auto()
    INNER = auto()  # within a transaction, which goes on
    XA_COMMIT = auto()
    XA_ROLLBACK = auto()
    DEFINITION = auto()  # it defines something, and is a transaction of its own unless one has begun
    DATA = auto()  # it changes rows, and which ones is not said


# Spaces and comments before a word; of a comment that a server executes, its beginning.
_BLANK = rb"(?:\s|/\*(?![!M]).*?\*/|/\*M?!\d*|(?:#|--\s)[^\n]*(?:\n|$))*"
_FIRST_WORDS = re.compile(_BLANK + rb"([A-Z]+)\b(?:" + _BLANK + rb"([A-Z]+)\b)?", re.IGNORECASE | re.DOTALL)
_SET_STATEMENT = re.compile(rb".*?\bSTATEMENT\b.*?\bFOR\b", re.IGNORECASE | re.DOTALL)
_EFFECTS = {
    "BEGIN": Effect.BEGIN, "START TRANSACTION": Effect.BEGIN, "XA START": Effect.BEGIN, "XA BEGIN": Effect.BEGIN,
    "COMMIT": Effect.COMMIT, "ROLLBACK": Effect.ROLLBACK,
    "SAVEPOINT": Effect.INNER, "ROLLBACK TO": Effect.INNER, "RELEASE": Effect.INNER, "XA END": Effect.INNER,
    "XA COMMIT": Effect.XA_COMMIT, "XA ROLLBACK": Effect.XA_ROLLBACK,
}  # fmt: skip
_DEFINING = frozenset({
    "ALTER", "ANALYZE", "CREATE", "DROP", "FLUSH", "GRANT", "INSTALL", "OPTIMIZE", "RENAME", "REPAIR", "REVOKE", "SET",
    "TRUNCATE", "UNINSTALL",
})  # fmt: skip
_TEMPORARY = re.compile(
    _BLANK + rb"\w+" + _BLANK + rb"(?:OR" + _BLANK + rb"REPLACE" + _BLANK + rb")?TEMPORARY\b", re.IGNORECASE | re.DOTALL
)
_DROPS_DATABASE = re.compile(_BLANK + rb"DROP" + _BLANK + rb"(?:DATABASE|SCHEMA)\b", re.IGNORECASE | re.DOTALL)
# Statements that put other rows into a table, or take rows away, without a row event.
_MOVES_ROWS = re.compile(
    _BLANK
    + rb"(?:TRUNCATE\b|DROP\b|RENAME\b|CREATE"
    + _BLANK
    + rb"OR\b|ALTER\b.*\b(?:(?:DROP|TRUNCATE|EXCHANGE|CONVERT|TO)\s+PARTITION|DISCARD|IMPORT"
    rb"|RENAME\s+(?!COLUMN\b|INDEX\b|KEY\b))\b)",
    re.IGNORECASE | re.DOTALL,
)


def effect_of(statement: bytes) -> Effect:
    """What a statement does; one that is not known counts as one that changes rows."""
    match = _FIRST_WORDS.match(statement)
    if match is None:
        return Effect.DATA
    first, second = (word.decode().upper() if word else "" for word in match.groups())
    if (first, second) == ("SET", "STATEMENT"):
        settings = _SET_STATEMENT.match(statement)
        return effect_of(statement[settings.end() :]) if settings else Effect.DATA
    effect = _EFFECTS.get(f"{first} {second}") or _EFFECTS.get(first)
    return effect or (Effect.DEFINITION if first in _DEFINING else Effect.DATA)


def words_of(statement: bytes) -> str:
    """The first two words of a statement: of more, values may be a part."""
    match = _FIRST_WORDS.match(statement)
    return " ".join(word.decode().upper() for word in match.groups() if word) if match else "a statement"


def moves_rows(statement: bytes) -> bool:
    """Whether a statement that names a table may add rows to it, or take some away, without a row event."""
    settings = _SET_STATEMENT.match(statement) if words_of(statement) == "SET STATEMENT" else None
    return _MOVES_ROWS.match(statement, settings.end() if settings else 0) is not None


def tables_named(query: Query, followed: Iterable[TableName]) -> tuple[TableName, ...]:
    """The followed tables that a defining statement may be about.

    A name counts wherever it stands, in a comment or a text too: looking at a table once more costs little. A statement
    may be in any character set; if it is not ASCII, it counts as naming each table whose name is not.
    """
    text = query.statement.lower()
    if _TEMPORARY.match(text):
        return ()
    drops_database = _DROPS_DATABASE.match(text) is not None
    here = query.schema.decode(errors="replace").lower()
    return tuple(
        (schema, table)
        for schema, table in followed
        if (drops_database or _stands_in(table, text))
        and ((not drops_database and schema.lower() == here) or _stands_in(schema, text))
    )


def _stands_in(name: str, text: bytes) -> bool:
    if not name.isascii() and not text.isascii():
        return True
    plain = name.lower().encode()
    quoted = {plain, plain.replace(b"`", b"``"), plain.replace(b'"', b'""')}
    return any(re.search(rb"(?<![\w$])" + re.escape(each) + rb"(?![\w$])", text) for each in quoted)
