"""Whether each row of a query depends on those rows of a table alone that make its key. Pure.

The binlog names the rows of one table that have changed. A query can be followed if the rows that it gives for a key
change with these rows only: not if it counts on others of the table too, as LIMIT, window functions and joins of a
table with itself do. What it reads of other tables does not matter here.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from loader.config.statement import QUERIES, Token, tokens_of, unquoted

BEFORE_TABLE = frozenset({"from", "join", "straight_join", ",", "("})
OF_OTHER_ROWS = {
    "limit": "LIMIT", "fetch": "FETCH", "over": "a window function", "window": "a window function",
    "union": "UNION", "intersect": "INTERSECT", "except": "EXCEPT",
}  # fmt: skip
AGGREGATES = frozenset({
    "count", "sum", "avg", "min", "max", "group_concat", "bit_and", "bit_or", "bit_xor", "std", "stddev", "stddev_pop",
    "stddev_samp", "var_pop", "var_samp", "variance", "json_arrayagg", "json_objectagg",
})  # fmt: skip
AFTER_GROUPS = frozenset({"with", "having", "window", "order", "limit", "into", "for", "lock", "procedure"})


def why_unfit(query: str, table: str, database: str) -> str:
    """Why other rows of a table may change what a query gives for a key, for people; empty if they cannot."""
    tokens = tokens_of(query)
    outer = [token for token, _ in _outer(tokens)]
    if any(_is_with(tokens, place, table) for place in range(len(tokens))):
        return f"its WITH gives the name of table {table!r} to something else"
    if not any(_is_table(outer, place, table, database) for place in range(len(outer))):
        return f"it has to name table {table!r} in the FROM of its outermost SELECT"
    mentions = [_is_table(tokens, place, table, database) for place in range(len(tokens))].count(True)
    reads = f"it names table {table!r} {mentions} times" if mentions > 1 else _reads_others(outer)
    if reads:
        return f"{reads}, so a row of it may change what is read for others"
    if not _groups(outer) and any(_is_aggregate(outer, place) for place in range(len(outer))):
        return "it makes one row of all, so it has to have a GROUP BY with the columns of the key"
    return ""


def _reads_others(outer: Sequence[Token]) -> str:
    """The clause of a SELECT that looks at several rows at once, for people; empty if there is none."""
    for before, token in zip([None, *outer], outer, strict=False):
        if token.word in OF_OTHER_ROWS and not (before and before.text == "."):
            return f"it has {OF_OTHER_ROWS[token.word]}"
        if before and before.text + token.text == ":=":
            return "it sets variables"
    return ""


def grouped_by(query: str, alias: str, selected: Sequence[str], columns: Collection[str]) -> frozenset[str] | None:
    """The columns of a table, in lower case, by which the rows of a query are grouped; None if they are not.

    `selected` are the columns of the result, as the table names them, empty if they are not of it; `columns` all of the
    table, which the query calls `alias`.
    """
    tokens = list(_outer(tokens_of(query)))
    begin = _groups([token for token, _ in tokens])
    if not begin:
        return None
    depth, found = tokens[begin - 1][1], set[str]()
    names = {name.lower() for name in columns}
    for item in _items(tokens[begin:], depth):
        if len(item) == 1 and item[0].kind == "number" and item[0].text.isdecimal():
            place = int(item[0].text) - 1
            found.add(selected[place].lower() if place < len(selected) else "")
        elif [token.text for token in item[1:-1]] in ([], ["."]) and item[-1].kind in {"word", "name"}:
            of_table = len(item) == 1 or _name(item[0]).lower() == alias.lower()
            found.add(_name(item[-1]).lower() if of_table else "")
    return frozenset(found & names)


def _outer(tokens: Sequence[Token]) -> Iterator[tuple[Token, int]]:
    """The tokens outside subqueries, each with the number of parentheses around it."""
    inside: list[bool] = []
    for place, token in enumerate(tokens):
        following = tokens[place + 1].word if place + 1 < len(tokens) else ""
        if token.text == "(":
            inside.append(any(inside) or following in QUERIES)
        if not any(inside):
            yield token, len(inside)
        if token.text == ")" and inside:
            inside.pop()


def _groups(tokens: Sequence[Token]) -> int:
    """The place after GROUP BY; 0 if there is none."""
    for place in range(len(tokens) - 1):
        if tokens[place].word == "group" and tokens[place + 1].word == "by":
            return place + 2
    return 0


def _items(tokens: Sequence[tuple[Token, int]], depth: int) -> Iterator[list[Token]]:
    """The parts between commas, up to the next clause."""
    item: list[Token] = []
    for token, level in tokens:
        if level == depth and token.word in AFTER_GROUPS:
            break
        if level == depth and token.text == ",":
            yield item
            item = []
        else:
            item.append(token)
    if item:
        yield item


def _is_table(tokens: Sequence[Token], place: int, table: str, database: str) -> bool:
    """Whether a token names a table after FROM or JOIN, and is no column, nor stands before one."""
    token = tokens[place]
    if token.kind not in {"word", "name"} or _name(token).lower() != table.lower():
        return False
    texts: Mapping[int, str] = {
        at: tokens[at].text.lower() for at in (place - 2, place - 1, place + 1) if _has(tokens, at)
    }
    if texts.get(place + 1) == ".":
        return False
    if texts.get(place - 1) == ".":
        return _has(tokens, place - 2) and _name(tokens[place - 2]).lower() == database.lower()
    return texts.get(place - 1) in BEFORE_TABLE


def _is_with(tokens: Sequence[Token], place: int, table: str) -> bool:
    """Whether a token is the name of a table that a WITH defines."""
    token = tokens[place]
    before, after = (
        tokens[max(place - 1, 0)].text.lower(),
        [each.text.lower() for each in tokens[place + 1 : place + 3]],
    )
    is_defined = before in {"with", "recursive", ","} and (after == ["as", "("] or after[:1] == ["("])
    return is_defined and token.kind in {"word", "name"} and _name(token).lower() == table.lower()


def _has(tokens: Sequence[Token], place: int) -> bool:
    return 0 <= place < len(tokens)


def _is_aggregate(tokens: Sequence[Token], place: int) -> bool:
    return tokens[place].word in AGGREGATES and _has(tokens, place + 1) and tokens[place + 1].text == "("


def _name(token: Token) -> str:
    return unquoted(token) if token.kind == "name" else token.text
