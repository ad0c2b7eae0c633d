"""Fits a job to its table: the cells of keys and fields, the walk along the table, and warnings. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from loader.config.models import JobConfig
from loader.config.parsers import KeyParts
from loader.config.parts import PRIMARY_KEY, with_primary_key
from loader.config.statement import hexed_columns, no_query, one_statement, tokens_of, unquoted
from loader.errors import ConfigError, PlanError
from loader.model import Column, Layout, Table
from loader.mysql.chunk_key import chunk_columns, range_condition, walkless
from loader.mysql.joint import Joint
from loader.mysql.plan import Plan
from loader.mysql.sql import checksum, quote

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEYWORDS = frozenset({"null", "true", "false", "current_date", "current_time", "current_timestamp", "current_user"})


class _SelectList:
    """The expressions that the statement reads, each once; a query is sent as it is, so they are its own columns."""

    def __init__(self, job: JobConfig, table: Table) -> None:
        own = [quote(column.name) for column in table.columns] if job.query is not None else []
        self._places = {expression: place for place, expression in enumerate(own)}

    def place(self, expression: str) -> int:
        """The index of an expression, which is added if necessary."""
        return self._places.setdefault(expression, len(self._places))

    @property
    def expressions(self) -> tuple[str, ...]:
        """All of them, in their order."""
        return tuple(self._places)


def make_plan(
    job: JobConfig,
    table: Table,
    *,
    where: str | None = None,
    key_range: str | None = None,
    shard: tuple[int, int] | None = None,
) -> Plan:
    """Fit a job to its table; a `PlanError` names what is missing. The other arguments narrow one run.

    `key_range` is `LO:HI`, both included and optional, over the first column of the walk; `shard` is (I, N), the rows
    for which the checksum of their walk's columns leaves I - 1 when divided by N.
    """
    is_query = job.query is not None
    parts, cells = _key_template(job, table), _SelectList(job, table)
    layout = _layout(job, table, parts, cells)
    joint = _joint(job, table, parts)
    key_columns = tuple(column.name for column in joint.columns)
    walk = () if is_query else chunk_columns(table, key_columns if job.changed_only else None)
    if job.changed_only:
        _refuse_unsure(job, table, walk, joint)
    conditions = _conditions(job, where)
    if (where or key_range or shard) and is_query:
        raise ConfigError(f"job {job.name!r} is a query: put --where, --range and --shard into the query itself")
    ranges = () if key_range is None else (range_condition(table, walk, key_range),)
    share = () if shard is None else (f"{checksum(walk or joint.columns)} % {shard[1]} = {shard[0] - 1}",)
    return Plan(
        job=job,
        layout=layout,
        key_columns=key_columns,
        cells=cells.expressions,
        walk=walk,
        conditions=(*conditions, *ranges, *share),
        warnings=tuple(_warnings(job, table, walk, joint)),
        rows_estimate=table.rows_estimate,
        names=tuple(column.name for column in table.columns) if is_query else (),
        ranges=ranges,
        columns=_columns_used(table, walk, cells, conditions),
        joint=joint,
        filtered=bool(job.where or where or job.soft_delete),
    )


def query_of(job: JobConfig) -> str:
    """The query of a job that has one; a `PlanError` if no rows can be selected from it."""
    query = job.query or ""
    if why := no_query(query):
        raise PlanError(f"job {job.name!r}: query: {why}")
    return query


def _layout(job: JobConfig, table: Table, parts: KeyParts, cells: _SelectList) -> Layout:
    """The way from a row's cells to its command."""
    key: list[bytes | int] = []
    for literal, column in parts:
        if literal:
            key.append(literal.encode())
        if column is not None:
            key.append(cells.place(quote(_named(table, column, job, "key").name)))
    fields = tuple((name.encode(), cells.place(expression)) for name, expression in _fields(job, table))
    return Layout(
        cells=len(cells.expressions),
        key=tuple(key),
        fields=fields,
        nulls_empty=job.nulls == "empty",
        ttl=job.ttl,
        ttl_jitter=(job.ttl or 0) * job.ttl_jitter // 100,
    )


def _conditions(job: JobConfig, where: str | None) -> list[str]:
    """The conditions that are SQL of the job, or of the run."""
    try:
        narrowing = None if where is None else one_statement(where)
    except ValueError as error:
        raise ConfigError(f"--where: {error}") from None
    conditions = [f"({text}\n)" for text in (job.where, narrowing) if text]  # the text may end in a comment
    if job.soft_delete:
        conditions.append(f"({job.soft_delete}\n) IS NOT TRUE")
    return conditions


def _columns_used(
    table: Table, walk: Sequence[Column], cells: _SelectList, conditions: Sequence[str]
) -> tuple[Column, ...]:
    """The columns that are read, computed or compared with, and walked along."""
    expressions = cells.expressions
    computed = _words([*expressions, *conditions])
    return tuple(
        column
        for column in table.columns
        if column in walk or quote(column.name) in expressions or column.name.lower() in computed
    )


def _words(expressions: Iterable[str]) -> frozenset[str]:
    """The words and names in some SQL, in lower case: they include the columns that it may be computed from."""
    return frozenset(
        (unquoted(token) if token.kind == "name" else token.text).lower()
        for expression in expressions
        for token in tokens_of(expression)
        if token.kind in {"name", "word"}
    )


def _key_template(job: JobConfig, table: Table) -> KeyParts:
    wants_primary_key = job.is_placed and any(column == PRIMARY_KEY for _, column in job.key_parts)
    if wants_primary_key and not table.primary_key:
        raise PlanError(
            f"job {job.name!r}: table {table.name!r} has no primary key, which {{pk}} in its key stands for:"
            " exclude it, and give it a job with its own key"
        )
    if wants_primary_key:
        return with_primary_key(job.key_parts, table.primary_key)
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
    """Raise a `PlanError` if a row could have the hash of another, or one that another chunk writes."""
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
