"""The plan of a job, and its SQL: every statement that reads rows is composed here. Pure.

Names are quoted, key values come back from MySQL as literals that hold no free text (digits, or hexadecimal with the
column's character set), and `where`, `query` and field expressions are the job's own SQL, taken as it is.
"""

from collections.abc import Sequence
from dataclasses import field, replace

from loader.config.models import JobConfig
from loader.config.parts import with_primary_key
from loader.model import Chunk, Column, KeyValues, Layout, Shape, Table
from loader.mysql.chunk_key import chunk_columns
from loader.mysql.joint import Joint
from loader.mysql.sql import as_literal, at_least, beyond, checksum, peek, quote, within
from loader.records import dataclass


class Results:
    """The form of one plan's results: that of the first one, whichever worker read it."""

    def __init__(self) -> None:
        self._first: dict[None, Shape] = {}

    def changes(self, shape: Shape) -> str:
        """How a result differs from the first, for people; empty if it does not."""
        first = self._first.setdefault(None, shape)  # atomic: workers share it
        pairs = zip(first, shape, strict=True)
        return ", ".join(f"{now[0]} is of another type" for before, now in pairs if before != now)


@dataclass(frozen=True, slots=True)
class Plan:
    """A job on its table: `layout` for the encoder, `walk` for the chunks (empty: one pass), `warnings` for people.

    `cells` are the select list, one expression per cell; `rows_estimate` is MySQL's for the whole table.
    """

    job: JobConfig
    layout: Layout
    key_columns: tuple[str, ...]
    cells: tuple[str, ...]
    walk: tuple[Column, ...]
    conditions: tuple[str, ...]
    warnings: tuple[str, ...]
    rows_estimate: int | None
    names: tuple[str, ...]  # the result's columns, which must stay the same
    ranges: tuple[str, ...]  # conditions for which MySQL uses the index alone
    columns: tuple[Column, ...]  # columns that are read, computed or compared with, and walked along
    joint: Joint  # how columns are joined to the key
    filtered: bool  # a `where` leaves out an unknown number of rows
    whole: "Plan | None" = None  # the condition by which this plan reads changed rows
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
        """The statement for the key `rows` rows after `after`, as literals; no row: fewer are left.

        No key beyond `upto` is read.
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
        """The expected number of rows, by MySQL's estimate; None if conditions leave some out."""
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
        """The statement for the number of rows that the job takes, or of those that satisfy one more condition."""
        more = [condition] if condition else []
        if self.job.query is not None:
            return "\nWHERE ".join([f"SELECT COUNT(*) FROM (\n{self.job.query}\n) AS q", *more])
        return self._statement(["COUNT(*)"], [*self.conditions, *more])

    def share(self, wanted: tuple[int, int], *without: tuple[int, int]) -> str:
        """The statement for the rows whose key's checksum, divided by a number, leaves another; not those of others."""
        number = checksum(self.walk or self.joint.columns)
        parts, part = wanted
        others = "".join(f" AND {number} % {divisor} <> {rest}" for divisor, rest in without)
        return self.matching(f"{number} % {parts} = {part}{others}")

    def facts(self) -> dict[str, str]:
        """The facts that a checkpoint is bound to: if any of them changes, the loaded rows are not those of the plan.

        For a column that is its type, members of an ENUM as they are spelled, its collation, which includes the
        character set, and whether `SELECT *` has it. Defaults, comments, keys and rights change no existing value; a
        change of what NULL becomes rebuilds the table; see `Connection.identity` for other signs of that.
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
        """The statement that reads some rows, for inspection."""
        if self.job.query is not None:
            return peek(self.job.query, rows)
        return f"{self._statement(self.cells, self.conditions)}\nLIMIT {rows}"

    def matching(self, condition: str) -> str:
        """The statement for those of the job's rows that satisfy one more condition."""
        if self.job.query is not None:
            return f"SELECT * FROM (\n{self.job.query}\n) AS q\nWHERE {condition}"
        return self._statement(self.cells, [*self.conditions, condition])

    def changes(self, table: Table) -> str:
        """How the table has changed since it was planned for, for people; empty if it has not."""
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
        if (named := self._named_by_primary_key(table)) is not None:
            before, after = [*before, *(name.lower() for name in self.key_columns)], [*after, *named]
        if before != after and not told:
            told.append("it has another key")
        return f"table {table.name}: {', '.join(told)}" if told else ""

    def _named_by_primary_key(self, table: Table) -> list[str] | None:
        """The columns of the keys, in lower case, if they depend on the table's primary key."""
        parts = self.job.key_parts if self.job.is_placed else ()
        if self.job.key and not parts:
            return None
        columns = [column for _, column in with_primary_key(parts, table.primary_key)] if parts else table.primary_key
        return [name.lower() for name in columns if name]

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


def changed_since(plan: Plan, stamp: Column, moment: str) -> Plan:
    """The plan that reads only rows whose stamp, a DATETIME or TIMESTAMP, is not before a literal moment.

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
    """The plan that reads the keys of changed rows that the job leaves out; None if it takes all rows."""
    if plan.whole is None or not plan.whole.conditions:
        return None
    taken = " AND ".join(plan.whole.conditions)
    return replace(keys_only(plan), conditions=(f"({taken}) IS NOT TRUE", plan.conditions[-1]))


def keys_only(plan: Plan) -> Plan:
    """The plan that reads only the key of each row."""
    if plan.job.query is not None:
        return plan
    cells = tuple(dict.fromkeys(quote(name) for name in plan.key_columns))
    place = {old: cells.index(plan.cells[old]) for old in plan.layout.key if isinstance(old, int)}
    key = tuple(piece if isinstance(piece, bytes) else place[piece] for piece in plan.layout.key)
    return replace(plan, cells=cells, layout=Layout(cells=len(cells), key=key, fields=((b"k", 0),)), results=Results())
