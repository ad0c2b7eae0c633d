"""The table that is followed for a job, and those of its columns that make the job's key."""

from collections.abc import Sequence
from dataclasses import replace

from loader.config.models import JobConfig
from loader.errors import Kind, PlanError, SourceError, StartOver
from loader.model import Column, Table
from loader.mysql import catalog
from loader.mysql.connection import Connection
from loader.mysql.outer_query import grouped_by, why_unfit
from loader.mysql.plan import Plan
from loader.mysql.planner import query_of
from loader.mysql.prepared import Origin, origins
from loader.records import dataclass


@dataclass(frozen=True, slots=True)
class FollowedKey:
    """The followed table, and its columns that make the key, in the key's order.

    `result` is the table, or the result of the job's query, with what is known of these columns.
    """

    table: Table
    columns: tuple[Column, ...]
    result: Table
    is_query: bool

    @property
    def is_unique(self) -> bool:
        """Whether each key has one row at most."""
        names = {column.name for column in self.columns}
        keys = (self.table.primary_key, *self.table.unique_keys)
        return not self.is_query and any(names.issuperset(key) for key in keys if key)

    def facts(self) -> dict[str, str]:
        """What the hashes of a query's job depend on besides its plan: a column may change without a word."""
        if not self.is_query:
            return {}
        return {"followed table": ", ".join(f"{column.name} {column}" for column in self.table.columns)}

    def check(self, source: Connection) -> None:
        """Raise `StartOver` if a table of which a query reads no longer has the columns that it had."""
        if not self.is_query:
            return
        name = self.table.name
        now = catalog.definition(source, name)
        if not now.columns:
            raise SourceError(f"table {name} no longer exists", kind=Kind.VANISHED)
        if _described(now) != _described(self.table):
            raise StartOver(f"table {name}: its columns were changed")


def followed_key(source: Connection, plan: Plan, table: Table) -> FollowedKey:
    """The table whose changes are those of a job; a `PlanError` if they do not say which of its rows have changed.

    `table` is the one of the plan: the result, if the job has a query.
    """
    job = plan.job
    if job.query is None:
        if table.is_view:
            raise PlanError(f"job {job.name!r}: follow: {table.name} is a view: the binlog names only the tables below")
        columns = tuple(column for name in plan.key_columns if (column := table.column(name)))
        return FollowedKey(table, columns, table, is_query=False)
    name, query = followed_table(job), query_of(job)
    if why := why_unfit(query, name, source.database):
        raise PlanError(f"job {job.name!r}: its query cannot be followed: {why}")
    followed = catalog.table(source, name)
    if followed.is_view:
        raise PlanError(f"job {job.name!r}: follow: {name} is a view: name the table whose rows make the key")
    selected = origins(source, query)
    columns = _columns(job, followed, [_selected(selected, key) for key in plan.key_columns], source.database)
    _check_groups(job, followed, selected, columns)
    named = {key.lower(): column for key, column in zip(plan.key_columns, columns, strict=True)}
    known = (replace(named.get(each.name.lower(), each), name=each.name) for each in table.columns)
    return FollowedKey(followed, columns, replace(table, columns=tuple(known)), is_query=True)


def followed_table(job: JobConfig) -> str:
    """The table that is followed for a job."""
    return job.table or (job.follow and job.follow.table) or ""


def _described(table: Table) -> list[str]:
    return [f"{column.name} {column}" for column in table.columns]


def _selected(selected: Sequence[Origin], name: str) -> Origin:
    return next(each for each in selected if each.name.lower() == name.lower())


def _columns(job: JobConfig, table: Table, keys: Sequence[Origin], database: str) -> tuple[Column, ...]:
    """The columns of the table that a query gives as the columns of the key."""
    found: list[Column] = []
    for key in keys:
        column = table.column(key.column)
        if key.table != table.name or key.database.lower() != database.lower() or column is None:
            seen = f"column {key.column} of {key.database}.{key.table}" if key.table and key.database else "computed"
            raise PlanError(
                f"job {job.name!r}: its query cannot be followed: {key.name} of the key has to be a plain column of"
                f" table {table.name!r}, and is {seen}"
            )
        found.append(column)
    return tuple(found)


def _check_groups(job: JobConfig, table: Table, selected: Sequence[Origin], columns: Sequence[Column]) -> None:
    """Raise a `PlanError` if a query groups rows so that a group may take its key from any of them."""
    alias = next(each.alias for each in selected if each.table == table.name)
    own = [each.column if each.table == table.name else "" for each in selected]
    groups = grouped_by(query_of(job), alias, own, [column.name for column in table.columns])
    wanted = [tuple(column.name for column in columns), table.primary_key, *table.unique_keys]
    if groups is not None and not any(key and groups.issuperset(map(str.lower, key)) for key in wanted):
        raise PlanError(
            f"job {job.name!r}: its query cannot be followed: its GROUP BY has to name"
            f" {', '.join(dict.fromkeys(wanted[0]))}, so that each group has one key"
        )
