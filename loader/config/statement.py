"""Turns a SELECT that concatenates Redis commands into the job that makes the same hashes. Pure.

It reads one CONCAT (or CONCAT_WS) of `hmset` or `hset`, a key and pairs of field and value, FROM one table, with a
WHERE. Anything else raises ValueError with a message for a person.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeGuard

from loader.config.parsers import KeyParts
from loader.records import dataclass

TOKEN = re.compile(
    r"(?P<space>\s+|#[^\n]*|--(?=\s|$)[^\n]*|/\*.*?\*/)"
    r"|(?P<text>'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\")"
    r"|(?P<name>`(?:[^`]|``)+`)"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?![\w.]))"
    r"|(?P<word>[\w$]+)"
    r"|(?P<sign>.)",
    re.DOTALL,
)
ESCAPES = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "%": "\\%", "_": "\\_"}  # of MySQL
QUOTES, BLANKS = "\"'", " \t"  # of a line for redis-cli
WRITES = {"hmset", "hset"}
ENDS = ("where", "order")
QUERIES = {"select", "with", "values", "table"}
FOREIGN = {"group", "having", "limit", "union", "for", "lock", "into", "procedure", "window", "join", "partition"}


class Token(NamedTuple):
    """A token of SQL, and its position."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The keyword or function that it may be."""
        return self.text.lower() if self.kind == "word" else ""


@dataclass(frozen=True, slots=True)
class Statement:
    """One job as a script spells it: `fields` pairs a field with a column or an expression; `place` is `file:line`."""

    place: str
    table: str
    database: str | None
    key: KeyParts
    fields: tuple[tuple[str, str], ...]
    where: str | None = None


class _Value(NamedTuple):
    """A piece of a command that comes from the row: the column's name, else an expression."""

    column: str | None
    sql: str


Piece = str | _Value


def tokens_of(sql: str) -> list[Token]:
    """The tokens of some SQL, without comments."""
    found = [Token(str(match.lastgroup), match[0], match.start(), match.end()) for match in TOKEN.finditer(sql)]
    return [token for token in found if token.kind != "space"]


def statements_in(sql: str) -> Iterator[list[Token]]:
    """The tokens of each statement."""
    statement: list[Token] = []
    for token in tokens_of(sql):
        if token.text == ";":
            yield statement
            statement = []
        else:
            statement.append(token)
    yield statement


def one_statement(sql: str) -> str:
    """Some SQL without the semicolon at its end; a ValueError if it is empty, several statements, or cut off."""
    tokens = tokens_of(sql)
    if cut := next((token.text for token in tokens if token.kind == "sign" and token.text in "'\"`"), ""):
        raise ValueError(f"has a {cut} that is not closed; if YAML took the rest for a comment, put it all in quotes")
    end = len(sql)
    while tokens and tokens[-1].text == ";":
        end = tokens.pop().start
    if not tokens:
        raise ValueError("must not be empty")
    if any(token.text == ";" for token in tokens):
        raise ValueError("has a semicolon within, which ends a statement; keep one statement")
    return sql if end == len(sql) else sql[:end].rstrip()


def no_query(sql: str) -> str:
    """Why no rows can be selected from a statement, for people; empty if they can."""
    verb = next((token.text for token in tokens_of(sql) if token.text != "("), "")
    if verb.lower() == "call":
        return "it is read like a table, and the rows of a CALL cannot be: write the SELECT of the procedure"
    if verb.lower() not in QUERIES:
        return f"it is read like a table, so it has to be a SELECT, and cannot begin with {verb}"
    return ""


def read_select(sql: str, tokens: Sequence[Token], place: str) -> Statement:
    """The job that a SELECT describes; `tokens` are its tokens in `sql`."""
    source = _outside(tokens, {"from"})
    if source is None:
        raise ValueError("reads no table")
    table, database, alias, rest = _table(tokens[source + 1 :])
    selected = list(tokens[1:source])
    if len(selected) > 2 and selected[-2].word == "as":
        selected = selected[:-2]
    elif len(selected) > 1 and selected[-2].text == ")" and selected[-1].kind != "sign":
        selected = selected[:-1]
    if len(_split(selected)) != 1:
        raise ValueError("selects several columns; it has to select one CONCAT that makes a whole command")
    owner = {(alias or table).lower()}
    pieces = list(_pieces(sql, selected, owner, database))
    command = _command(pieces)
    key = _key(command[0])
    fields: dict[str, str] = {}
    for field, value in zip(command[1::2], command[2::2], strict=True):
        fields[_literal(field, "the name of a field")] = _expression(value)
    return Statement(place, table, database, key, tuple(fields.items()), _where(sql, rest, owner, database))


def hexed_columns(query: str) -> frozenset[str]:
    """The columns of a query that are nothing but the HEX() of something, if it is a plain SELECT."""
    tokens = tokens_of(query)
    source = _outside(tokens, {"from"})
    if not tokens or tokens[0].word != "select" or source is None or _outside(tokens, {"union", "except", "intersect"}):
        return frozenset()
    found = set()
    for item in _split(tokens[1:source]):
        call = item[:-2] if len(item) > 2 and item[-2].word == "as" else item[:-1]
        if call and call[0].word == "hex" and _is_call(call):
            found.add(_name(item[-1]))
    return frozenset(found)


def unquoted(token: Token) -> str:
    """The text or name in quotes, as MySQL reads it."""
    quote, inner = token.text[0], token.text[1:-1].replace(token.text[0] * 2, token.text[0])
    if quote == "`":
        return inner
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[1]), inner, flags=re.DOTALL)


def _outside(tokens: Sequence[Token], words: set[str]) -> int | None:
    """The position of the first of the keywords outside parentheses."""
    depth = 0
    for place, token in enumerate(tokens):
        depth += (token.text == "(") - (token.text == ")")
        if not depth and token.word in words:
            return place
    return None


def _split(tokens: Sequence[Token]) -> list[list[Token]]:
    """The parts between commas outside parentheses."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
        if token.text == "," and not depth:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _table(tokens: Sequence[Token]) -> tuple[str, str | None, str | None, list[Token]]:
    """Table, database and alias after FROM, and the tokens that follow them."""
    rest = list(tokens)
    if not rest or rest[0].kind not in {"name", "word"}:
        raise ValueError("reads no table")
    table, database, alias = _name(rest.pop(0)), None, None
    if len(rest) > 1 and rest[0].text == "." and rest[1].kind in {"name", "word"}:
        database, table = table, _name(rest[1])
        rest = rest[2:]
    if rest and rest[0].word == "as":
        rest.pop(0)
    if rest and rest[0].kind in {"name", "word"} and rest[0].word not in {*ENDS, *FOREIGN}:
        alias = _name(rest.pop(0))
    if (place := _outside(rest, FOREIGN)) is not None:
        raise ValueError(f"{rest[place].text.upper()} does not fit a job of a table; write a job with a query instead")
    if rest and rest[0].word not in ENDS:
        raise ValueError("reads more than one table; write a job with a query instead")
    return table, database, alias, rest


def _name(token: Token) -> str:
    return unquoted(token) if token.kind == "name" else token.text


def _where(sql: str, tokens: Sequence[Token], owner: set[str], database: str | None) -> str | None:
    """The condition; the order of rows does not matter to hashes."""
    order = _outside(tokens, {"order"})
    condition = list(tokens[:order])
    return _sql(sql, condition[1:], owner, database) if condition else None


def _sql(sql: str, tokens: Sequence[Token], owner: set[str], database: str | None) -> str:
    """The text of some tokens, without the table's name before its columns."""
    text, at, place = "", tokens[0].start, 0
    nested = any(token.word == "select" for token in tokens)
    while place < len(tokens):
        length = _qualifier(tokens[place:], owner, database)
        if length and nested:
            raise ValueError("a subquery names columns of the SELECT around it; write a job with a query instead")
        if length:
            text += sql[at : tokens[place].start]
            at = tokens[place + length].start
        place += length or 1
    return text + sql[at : tokens[-1].end]


def _qualifier(tokens: Sequence[Token], owner: set[str], database: str | None) -> int:
    """How many tokens before a column only qualify it."""
    names = [_name(token).lower() if token.kind in {"name", "word"} else token.text for token in tokens[:5]]
    if database and names[1:4:2] == [".", "."] and names[0] == database.lower() and names[2] in owner:
        return 4
    return 2 if len(names) > 2 and names[1] == "." and names[0] in owner else 0


def _pieces(sql: str, tokens: Sequence[Token], owner: set[str], database: str | None) -> Iterator[Piece]:
    """The literals and row values that a CONCAT joins, in order."""
    if not tokens:
        raise ValueError("a CONCAT has an empty argument")
    if all(token.kind == "text" for token in tokens):
        yield "".join(map(unquoted, tokens))
    elif len(tokens) == 1 and tokens[0].kind == "number":
        yield tokens[0].text
    elif tokens[0].word in {"concat", "concat_ws"} and _is_call(tokens):
        arguments = _split(tokens[2:-1])
        joint = ""
        if tokens[0].word == "concat_ws":
            first, *arguments = arguments
            (between,) = _pieces(sql, first, owner, database)
            if not isinstance(between, str):
                raise ValueError("the separator of CONCAT_WS is not a plain text")
            joint = between
        for number, argument in enumerate(arguments):
            if number and joint:
                yield joint
            yield from _pieces(sql, argument, owner, database)
    else:
        rest = tokens[_qualifier(tokens, owner, database) :]
        is_column = len(rest) == 1 and rest[0].kind in {"name", "word"}
        yield _Value(_name(rest[0]) if is_column else None, _sql(sql, tokens, owner, database))


def _is_call(tokens: Sequence[Token]) -> bool:
    """Whether a function's parentheses end with the last token."""
    if len(tokens) < 3 or tokens[1].text != "(":
        return False
    depth = 0
    for place, token in enumerate(tokens[1:], 1):
        depth += (token.text == "(") - (token.text == ")")
        if not depth:
            return place == len(tokens) - 1
    return False


def _command(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Key, fields and values of the command, split as `redis-cli` splits a line."""
    words = list(_words(pieces))
    plain = ["".join(word).lower() if all(isinstance(piece, str) for piece in word) else "" for word in words]  # type: ignore[arg-type]
    at = next((place for place, word in enumerate(plain) if word in WRITES), None)
    if at is None or (at and not plain[0].endswith("redis-cli")):
        raise ValueError("makes no HMSET or HSET")
    command = words[at + 1 :]
    if len(command) < 3 or not len(command) % 2:
        raise ValueError(
            f"{plain[at].upper()} needs a key and pairs of field and value; this makes {len(command)} words"
        )
    return command


def _words(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces of each word, split as `redis-cli` and shells split a line; a row's value is never split."""
    word: list[Piece] = []
    quote = ""
    for sign in _signs(pieces):
        if not isinstance(sign, str):
            word.append(sign)
        elif quote or sign in QUOTES:
            word.append("" if sign == quote or not quote else sign)
            quote = "" if sign == quote else quote or sign
        elif sign not in BLANKS:
            word.append(sign)
        elif word:
            yield word
            word = []
    if quote:
        raise ValueError(f"a {quote} in the command is never closed")
    if word:
        yield word


def _signs(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """The characters of literals, one by one, and the values between them."""
    for piece in pieces:
        if isinstance(piece, str) and set(piece) & set("\n\r\0"):
            raise ValueError("puts a line break into the command; a row has to make one line")
        if isinstance(piece, str) and "\\" in piece:
            raise ValueError("a backslash in the command means one thing to redis-cli and another to a shell")
        yield from piece if isinstance(piece, str) else [piece]


def _key(word: Sequence[Piece]) -> KeyParts:
    parts: list[tuple[str, str | None]] = []
    literal = ""
    for piece in word:
        if isinstance(piece, str):
            literal += piece
        elif piece.column is None:
            raise ValueError(f"the key is computed by {piece.sql}; write a job with a query instead")
        else:
            parts.append((literal, piece.column))
            literal = ""
    if not parts:
        raise ValueError(f"all rows share the key {literal!r}")
    return (*parts, (literal, None)) if literal else tuple(parts)


def _literal(word: Sequence[Piece], what: str) -> str:
    text = "".join(piece for piece in word if isinstance(piece, str))
    if not text or not all(isinstance(piece, str) for piece in word):
        raise ValueError(f"{what} comes from the row, or is empty")
    return text


def _has_blanks(piece: Piece) -> TypeGuard[_Value]:
    """Whether a value may contain blanks that the statement itself adds."""
    if isinstance(piece, str):
        return False
    return any(token.kind == "text" and bool(set(BLANKS) & set(token.text)) for token in tokens_of(piece.sql))


def _expression(word: Sequence[Piece]) -> str:
    """The column, or the SQL of a value of several pieces."""
    word = [piece for piece in word if piece]  # a quote opens and is empty
    if len(word) > 1 and (blank := next(filter(_has_blanks, word), None)):
        raise ValueError(f"{blank.sql} stands beside other text and may begin words of its own, such as another field")
    joined: list[str] = []
    literal = ""
    for piece in (*word, None):
        if isinstance(piece, str):
            literal += piece
            continue
        if literal:
            joined.append("'" + literal.replace("\\", "\\\\").replace("'", "''") + "'")
            literal = ""
        if piece is not None:
            joined.append(piece.sql)
    only = word[0] if len(word) == 1 else None
    if isinstance(only, _Value) and only.column is not None:
        return only.column
    if len(joined) == 1:
        return joined[0]
    return f"CONCAT({', '.join(joined)})" if joined else "''"
