"""What a job will do: which cells make keys and fields, how the table is walked, and the SQL that does it. Pure.

Every statement is composed here. Names are quoted, key values come back from MySQL as literals that hold no free text
(digits, or hexadecimal with the column's character set), and `where`, `query` and field expressions are the job's own
SQL, taken as it is.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from loader.config.models import JobConfig
from loader.config.parsers import KeyParts
from loader.config.statement import hexed_columns, no_query, one_statement, tokens_of, unquoted
from loader.errors import ConfigError, PlanError
from loader.model import Chunk, Column, KeyValues, Layout, Shape, Table
from loader.mysql.chunk_key import chunk_columns, range_condition, walkless
from loader.mysql.forms import BYTES, INTEGERS, is_any
from loader.mysql.joint import Joint
from loader.mysql.sql import as_literal, at_least, beyond, peek, quote, text_of, within
from loader.words import counted

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEYWORDS = frozenset({"null", "true", "false", "current_date", "current_time", "current_timestamp", "current_user"})


class Results:
    """What the results of one plan look like: as the first of them did, whichever worker read it."""

    def __init__(self) -> None:
        self._first: dict[None, Shape] = {}

    def changes(self, shape: Shape) -> str:
        """What of a result is not as in the first, in words; empty where nothing is."""
        first = self._first.setdefault(None, shape)  # atomic: workers share it
        pairs = zip(first, shape, strict=True)
        return ", ".join(f"{now[0]} is of another type" for before, now in pairs if before != now)


@dataclass(frozen=True, slots=True)
class Plan:
    """A job on its table: `layout` for the encoder, `walk` for the chunks (empty: one pass), `warnings` for people.

    `cells` are the select list, one expression a cell; `rows_estimate` is MySQL's for the whole table.
    """

    job: JobConfig
    layout: Layout
    key_columns: tuple[str, ...]
    cells: tuple[str, ...]
    walk: tuple[Column, ...]
    conditions: tuple[str, ...]
    warnings: tuple[str, ...]
    rows_estimate: int | None
    names: tuple[str, ...]  # of the result's columns, which have to stay these
    ranges: tuple[str, ...]  # those of the conditions that MySQL finds in the index alone
    columns: tuple[Column, ...]  # those read, computed or compared with, and those walked along
    joint: Joint  # how the key is joined of columns
    filtered: bool  # a `where` keeps some rows out, no one knows how many
    whole: "Plan | None" = None  # what this plan reads the changed rows of
    results: Results = field(default_factory=Results, compare=False, repr=False)

    def select(self, chunk: Chunk) -> str:
        """The statement that reads a chunk."""
        if self.job.query is not None:
            return self.job.query
        conditions = [*self.conditions]
        if chunk.after is not None:
            conditions.append(beyond(self.walk, chunk.after))
        if chunk.upto is not None:
            conditions.append(within(self.walk, chunk.upto))
        return self._statement(self.cells, conditions)

    def bound(self, after: KeyValues | None, rows: int, upto: KeyValues | None = None) -> str:
        """The statement for the key that stands `rows` rows after `after`, as literals; no row: fewer are left.

        No key beyond `upto` is looked at.
        """
        conditions = [*self.conditions]
        if after is not None:
            conditions.append(beyond(self.walk, after))
        if upto is not None:
            conditions.append(within(self.walk, upto))
        order = ", ".join(quote(column.name) for column in self.walk)
        statement = self._statement([as_literal(column) for column in self.walk], conditions)
        return f"{statement}\nORDER BY {order} LIMIT 1 OFFSET {rows - 1}"

    def last(self, after: KeyValues | None) -> str:
        """The statement for the greatest key of the table, as literals; no row: none is beyond `after`."""
        conditions = [] if after is None else [beyond(self.walk, after)]
        order = ", ".join(f"{quote(column.name)} DESC" for column in self.walk)
        statement = self._statement([as_literal(column) for column in self.walk], conditions)
        return f"{statement}\nORDER BY {order} LIMIT 1"

    @property
    def field_names(self) -> frozenset[str]:
        """The fields that a hash may have."""
        return frozenset(name.decode() for name, _ in self.layout.fields)

    @property
    def expected(self) -> int | None:
        """How many rows are to come, by MySQL's estimate; None where conditions leave some out."""
        return None if self.conditions else self.rows_estimate

    def extent(self) -> str:
        """The statement for the least and the greatest key of a walk along one integer."""
        name = quote(self.walk[0].name)
        return self._statement([f"CAST(MIN({name}) AS CHAR)", f"CAST(MAX({name}) AS CHAR)"], self.ranges)

    def in_span(self, span: tuple[int, int], rows: int) -> str:
        """The statement for the first rows of a span, ends included, of the first column of the walk, an integer."""
        return f"{self._statement(self.cells, [*self.conditions, self._span(span)])}\n{self._order} LIMIT {rows}"

    def end_in_span(self, span: tuple[int, int], rows: int) -> str:
        """The statement for the value of that column in the last of those rows; no row: there are fewer."""
        value = self._statement([as_literal(self.walk[0])], [*self.conditions, self._span(span)])
        return f"{value}\n{self._order} LIMIT 1 OFFSET {rows - 1}"

    def count(self, condition: str = "") -> str:
        """The statement for the number of rows that the job takes; of those alone that satisfy one more condition."""
        more = [condition] if condition else []
        if self.job.query is not None:
            return "\nWHERE ".join([f"SELECT COUNT(*) FROM (\n{self.job.query}\n) AS q", *more])
        return self._statement(["COUNT(*)"], [*self.conditions, *more])

    def share(self, wanted: tuple[int, int], *without: tuple[int, int]) -> str:
        """The statement for the rows whose key's checksum, divided by a number, leaves another; not those of others."""
        checksum = _checksum(self.walk or self.joint.columns)
        parts, part = wanted
        others = "".join(f" AND {checksum} % {number} <> {rest}" for number, rest in without)
        return self.matching(f"{checksum} % {parts} = {part}{others}")

    def facts(self) -> dict[str, str]:
        """What a checkpoint is bound to: where any of it changes, what was loaded before is not what is loaded now.

        Of a column that is its type, members of an ENUM as they are spelled, its collation, which says the character
        set too, and whether `SELECT *` has it. Defaults, comments, keys and rights change no value that is there; what
        makes NULL something else rebuilds the table; see `Connection.identity` for what else tells of that.
        """
        if self.whole:
            return self.whole.facts()
        incremental = {"incremental": self.job.incremental.column} if self.job.incremental else {}
        return incremental | {
            "statement": self.select(Chunk(1)),
            "column types": ", ".join(f"{column.name} {column}" for column in self.columns),
            "key": repr(self.layout.key),
            "fields": repr(self.layout.fields),
            "nulls": self.job.nulls,
            "ttl": f"{self.layout.ttl} ± {self.layout.ttl_jitter}",
            "walk": ", ".join(column.name for column in self.walk),
        }

    def first(self, rows: int) -> str:
        """The statement that reads some rows, to be looked at."""
        if self.job.query is not None:
            return peek(self.job.query, rows)
        return f"{self._statement(self.cells, self.conditions)}\nLIMIT {rows}"

    def matching(self, condition: str) -> str:
        """The statement for those of the job's rows that satisfy one more condition."""
        if self.job.query is not None:
            return f"SELECT * FROM (\n{self.job.query}\n) AS q\nWHERE {condition}"
        return self._statement(self.cells, [*self.conditions, condition])

    def changes(self, table: Table) -> str:
        """What of the table is no longer as it was planned for, in words; empty where all is."""
        now = {column.name: column for column in table.columns}
        told = []
        for column in self.columns:
            if column.name not in now:
                told.append(f"column {column.name} was dropped")
            elif str(now[column.name]) != str(column):
                told.append(f"column {column.name} was {column} and is {now[column.name]}")
        if self.job.fields is None:
            known = {column.name for column in self.columns}
            told += [f"column {name} was added" for name in now if name not in known and not now[name].hidden]
        walk = chunk_columns(table, self.key_columns if self.job.changed_only else None)
        before, after = [column.name for column in (self.whole or self).walk], [column.name for column in walk]
        if not self.job.key:
            before, after = [*before, *self.key_columns], [*after, *table.primary_key]
        if before != after and not told:
            told.append("it has another key")
        return f"table {table.name}: {', '.join(told)}" if told else ""

    def _span(self, span: tuple[int, int]) -> str:
        return f"{quote(self.walk[0].name)} BETWEEN {span[0]} AND {span[1]}"

    @property
    def _order(self) -> str:
        return f"ORDER BY {', '.join(quote(column.name) for column in self.walk)}"

    def _statement(self, cells: Sequence[str], conditions: Sequence[str]) -> str:
        lines = [f"SELECT {', '.join(cells)}", f"FROM {quote(self.job.table or '')}"]
        if conditions:
            lines.append("WHERE " + "\n  AND ".join(conditions))
        return "\n".join(lines)


def make_plan(
    job: JobConfig,
    table: Table,
    *,
    where: str | None = None,
    key_range: str | None = None,
    shard: tuple[int, int] | None = None,
) -> Plan:
    """Fit a job to its table; a `PlanError` names what is missing. The other arguments narrow one run.

    `key_range` is `LO:HI`, both included, either of them optional, over the first column of the walk; `shard` is
    (I, N), the rows for which the checksum of their walk's columns leaves I - 1 when divided by N.
    """
    parts = _key_template(job, table)
    cells: dict[str, int] = {}  # expression → its place in the select list
    query = job.query is not None
    if query:  # the statement is sent as it is, so its own columns are the cells
        cells = {quote(column.name): place for place, column in enumerate(table.columns)}

    def cell(expression: str) -> int:
        return cells.setdefault(expression, len(cells))

    key: list[bytes | int] = []
    for literal, column in parts:
        if literal:
            key.append(literal.encode())
        if column is not None:
            key.append(cell(quote(_named(table, column, job, "key").name)))
    fields = tuple((name.encode(), cell(expression)) for name, expression in _fields(job, table))
    joint = _joint(job, table, parts)
    columns = tuple(column.name for column in joint.columns)
    walk = () if query else chunk_columns(table, columns if job.changed_only else None)
    if job.changed_only:
        _refuse_unsure(job, table, walk, joint)
    conditions = [f"({text}\n)" for text in (job.where, _condition(where)) if text]  # a comment may end the text
    conditions += [f"({job.soft_delete}\n) IS NOT TRUE"] if job.soft_delete else []
    if (where or key_range or shard) and query:
        raise ConfigError(f"job {job.name!r} is a query: --where, --range and --shard belong into the query itself")
    computed = _words([*cells, *conditions])
    ranges = () if key_range is None else (range_condition(table, walk, key_range),)
    conditions += ranges
    if shard is not None:
        conditions.append(f"{_checksum(walk or joint.columns)} % {shard[1]} = {shard[0] - 1}")
    return Plan(
        job=job,
        layout=Layout(
            cells=len(cells),
            key=tuple(key),
            fields=fields,
            nulls_empty=job.nulls == "empty",
            ttl=job.ttl,
            ttl_jitter=(job.ttl or 0) * job.ttl_jitter // 100,
        ),
        key_columns=columns,
        cells=tuple(cells),
        walk=walk,
        conditions=tuple(conditions),
        warnings=tuple(_warnings(job, table, walk, joint)),
        rows_estimate=table.rows_estimate,
        names=tuple(column.name for column in table.columns) if query else (),
        ranges=ranges,
        columns=tuple(
            column
            for column in table.columns
            if column in walk or quote(column.name) in cells or column.name.lower() in computed
        ),
        joint=joint,
        filtered=bool(job.where or where or job.soft_delete),
    )


def changed_since(plan: Plan, stamp: Column, moment: str) -> Plan:
    """The plan that reads those rows alone whose stamp, a DATETIME or TIMESTAMP, is a literal moment or a later one.

    It is walked along the stamp and then the key, so that any number of rows may have the same stamp.
    """
    return replace(
        plan,
        walk=(stamp, *(column for column in plan.walk if column.name != stamp.name)),
        conditions=(*plan.conditions, at_least(stamp, moment)),
        columns=(*plan.columns, *([stamp] if stamp not in plan.columns else [])),
        whole=plan,
    )


def no_longer(plan: Plan) -> Plan | None:
    """The plan that reads the keys of changed rows that the job leaves out; None where it takes all rows."""
    if plan.whole is None or not plan.whole.conditions:
        return None
    taken = " AND ".join(plan.whole.conditions)
    return replace(keys_only(plan), conditions=(f"({taken}) IS NOT TRUE", plan.conditions[-1]))


def keys_only(plan: Plan) -> Plan:
    """The plan that reads no more of a row than its key."""
    if plan.job.query is not None:
        return plan
    cells = tuple(dict.fromkeys(quote(name) for name in plan.key_columns))
    place = {old: cells.index(plan.cells[old]) for old in plan.layout.key if isinstance(old, int)}
    key = tuple(piece if isinstance(piece, bytes) else place[piece] for piece in plan.layout.key)
    return replace(plan, cells=cells, layout=Layout(cells=len(cells), key=key, fields=((b"k", 0),)), results=Results())


def query_of(job: JobConfig) -> str:
    """The query of a job that has one; a `PlanError` where no rows can be selected from it."""
    query = job.query or ""
    if why := no_query(query):
        raise PlanError(f"job {job.name!r}: query: {why}")
    return query


def key_of(plan: Plan, table: Table, text: str) -> bytes:
    """The Redis key for what a person typed: the key itself, or the key columns' values, joined by commas.

    An integer may be written with or without the zeros that ZEROFILL adds.
    """
    prefix = plan.layout.key[0] if isinstance(plan.layout.key[0], bytes) else b""
    typed = text.encode(errors="surrogateescape")
    if prefix and typed.startswith(prefix):
        return typed
    columns = plan.key_columns
    values = text.split(",") if len(columns) > 1 else [text]
    if len(values) != len(columns):
        raise ConfigError(
            f"key {text!r}: job {plan.job.name!r} needs {counted(len(columns), 'value')}: {','.join(columns)}"
        )
    stored = iter(_as_stored(table, *pair) for pair in zip(columns, values, strict=True))
    return b"".join(
        piece if isinstance(piece, bytes) else next(stored).encode(errors="surrogateescape")
        for piece in plan.layout.key
    )


def _as_stored(table: Table, name: str, value: str) -> str:
    column = table.column(name)
    if column is None or column.type not in INTEGERS or not re.fullmatch(r"-?[0-9]+", value):
        return value
    number = int(value)
    return f"{number:0{column.zerofill_width}d}" if column.zerofill_width else str(number)


def _condition(where: str | None) -> str | None:
    try:
        return where and one_statement(where)
    except ValueError as error:
        raise ConfigError(f"--where: {error}") from None


def _checksum(columns: Sequence[Column]) -> str:
    """A number of a row, of the columns of its key; texts that may be of several character sets are made of one."""
    texts = [column for column in columns if column.charset or (is_any(column) and column.type not in BYTES)]
    mixed = len(texts) > 1 and ({each.charset for each in texts} != {texts[0].charset} or not texts[0].charset)
    cells = (text_of(column) if mixed and column in texts else quote(column.name) for column in columns)
    return f"CRC32(CONCAT_WS(',', {', '.join(cells)}))"


def _words(expressions: Iterable[str]) -> frozenset[str]:
    """The words and names in some SQL, in lower case: the columns that it may be computed from are among them."""
    return frozenset(
        (unquoted(token) if token.kind == "name" else token.text).lower()
        for expression in expressions
        for token in tokens_of(expression)
        if token.kind in {"name", "word"}
    )


def _key_template(job: JobConfig, table: Table) -> KeyParts:
    if job.key_parts:
        return job.key_parts
    if not table.primary_key:
        raise PlanError(
            f'job {job.name!r}: table {table.name!r} has no primary key: write a key, like "{table.name}_{{column}}"'
        )
    first, *rest = table.primary_key
    return ((f"{table.name}_", first), *(("_", column) for column in rest))


def _fields(job: JobConfig, table: Table) -> list[tuple[str, str]]:
    """Hash field and select expression of each field of the job."""
    if job.fields is None:
        return [(column.name, quote(column.name)) for column in table.columns if not column.hidden]
    if isinstance(job.fields, Mapping):
        pairs = []
        for field, text in job.fields.items():
            column = table.column(text)
            name_only = NAME.fullmatch(text) and text.lower() not in KEYWORDS
            if column is None and (name_only or job.query is not None):
                raise _missing(table, text, job, f"fields.{field}")
            pairs.append((field, quote(column.name) if column else text))
        return pairs
    return [(name, quote(_named(table, name, job, "fields").name)) for name in job.fields]


def _named(table: Table, name: str, job: JobConfig, where: str) -> Column:
    column = table.column(name)
    if column is None:
        raise _missing(table, name, job, where)
    return column


def _missing(table: Table, name: str, job: JobConfig, where: str) -> PlanError:
    names = [column.name for column in table.columns]
    close = get_close_matches(name, names, 1)
    hint = f"did you mean {close[0]!r}?" if close else "there are " + ", ".join(names)
    what = "the query gives" if job.query is not None else f"table {table.name!r} has"
    return PlanError(f"job {job.name!r}: {where}: {what} no column {name!r}: {hint}")


def _refuse_unsure(job: JobConfig, table: Table, walk: Sequence[Column], joint: Joint) -> None:
    """Raise a `PlanError` where a row could have the hash of another, or one that another chunk writes."""
    template = joint.template
    if not walk:
        why = "" if chunk_columns(table) else f" ({walkless(table)})"
        raise PlanError(
            f"job {job.name!r}: changed_only needs a key that holds all columns of the primary key of table"
            f" {table.name!r}, or of a unique one that can be walked along{why}, and {template!r} does not: change the"
            " key, or leave changed_only out"
        )
    if joint.may_clash:
        sign = joint.separator(joint.columns)
        raise PlanError(
            f"job {job.name!r}: changed_only needs a key that no two rows share, and {template!r} joins columns so that"
            f" two rows could make the same one: {f'put {sign!r} between them, or ' if sign else ''}leave changed_only"
            " out"
        )


def _joint(job: JobConfig, table: Table, parts: KeyParts) -> Joint:
    columns = tuple(_named(table, column, job, "key") for _, column in parts if column is not None)
    return Joint(columns, parts, hexed_columns(job.query) if job.query else frozenset())


def _warnings(
    job: JobConfig,
    table: Table,
    walk: tuple[Column, ...],
    joint: Joint,
) -> list[str]:
    warnings, template = [], joint.template
    names = {column.name for column in joint.columns}
    keys = [set(key) for key in (table.primary_key, *table.unique_keys) if key]
    if job.query is None and not any(key <= names for key in keys):
        warnings.append(
            f"key {template!r} is not unique in table {table.name!r}: of rows that share a key the last one read wins"
        )
    if joint.may_clash:
        warnings.append(joint.warning)
    if job.query is None and not walk:
        warnings.append(f"{walkless(table)}: it is read in one pass, and a failure starts it over")
    if job.query is not None:
        warnings.append("a query is read in one pass, and a failure starts it over")
    return warnings
