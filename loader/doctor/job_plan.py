"""The checks of one job's plan: its key, and how changes are found."""

from collections.abc import Iterator, Mapping, Sequence

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.doctor.findings import Check, Finding, fail, ok, warn
from loader.doctor.mysql import MysqlProbe
from loader.model import Column, Table
from loader.mysql.chunk_key import walk_fix, walkless
from loader.mysql.plan import Plan
from loader.mysql.sql import quote
from loader.pipeline import incremental as increment
from loader.records import dataclass
from loader.words import counted


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job that fits its table."""

    settings: Config
    job: JobConfig
    mysql: MysqlProbe
    table: Table
    plan: Plan

    @property
    def address(self) -> str:
        """The table as SQL names it anywhere."""
        return f"{quote(self.settings.source_of(self.job).database)}.{quote(self.table.name)}"

    def alter(self, change: str) -> str:
        """The SQL that alters the table; MariaDB must be told to keep its history."""
        keep = "SET STATEMENT system_versioning_alter_history = KEEP FOR " if self.table.has_history else ""
        return f"{keep}ALTER TABLE {self.address} {change};"


def _key(planned: PlannedJob) -> Iterator[Finding]:
    """Whether each row has its own key, and the table can be walked in chunks."""
    plan, table = planned.plan, planned.table
    others, passes = (plan.warnings, ()) if plan.walk else (plan.warnings[:-1], plan.warnings[-1:])
    for warning in others:
        if warning == plan.joint.warning:
            yield _apart(planned, warning)
        elif table.primary_key:
            yield warn(warning, _better_key(planned, table.primary_key))
        else:
            yield warn(warning, _add_key(planned))
    for warning in passes:
        yield warn(warning, _walk_fix(planned))
    if not plan.warnings:
        along = ", ".join(column.name for column in plan.walk)
        yield ok(f"unique; read in chunks of {counted(planned.job.chunk_rows, 'row')} along {along}")


def _apart(planned: PlannedJob, warning: str) -> Finding:
    """A fix that makes the columns of the key distinguishable: another separator, or the fewest in hexadecimal."""
    if key := _better_key(planned, planned.plan.key_columns):
        return warn(warning, key)
    names = " and ".join(f"HEX({quote(name)})" for name in planned.plan.joint.to_hex())
    return warn(f"{warning}; a query that selects {names} for the key does not")


def _better_key(planned: PlannedJob, names: Sequence[str]) -> str | None:
    """A key of these columns that no two rows share; None if no separator keeps them apart."""
    columns = [column for name in names if (column := planned.table.column(name))]
    separator = planned.plan.joint.separator(columns)
    own = None if separator is None else separator.join(f"{{{column.name}}}" for column in columns)
    return own and f'key: "{planned.job.prefix}{own}"'


def _add_key(planned: PlannedJob) -> str | None:
    if planned.job.query or planned.table.primary_key or planned.table.is_view:
        return None
    if planned.table.withheld:
        return _grant(planned)
    columns = ", ".join(map(quote, planned.plan.key_columns))
    return planned.alter(f"ADD PRIMARY KEY ({columns})")


def _grant(planned: PlannedJob) -> str:
    return f"GRANT SELECT ON {planned.address} TO {planned.mysql.account};"


def _walk_fix(planned: PlannedJob) -> str | None:
    if planned.job.query or planned.table.is_view:
        return None
    if planned.table.withheld:
        return _grant(planned)
    fix = walk_fix(planned.table, planned.plan.key_columns)
    return fix and planned.alter(fix)


def _incremental(planned: PlannedJob) -> Iterator[Finding]:
    """Whether the column of an incremental job records changes, and has an index."""
    incremental = planned.job.incremental
    if incremental is None:
        return
    column = planned.table.column(incremental.column)
    if column is None or column.type not in increment.STAMPS:
        seen = (
            "there is no such column" if column is None else f"it is a {column.full_type}, not a DATETIME or TIMESTAMP"
        )
        add = planned.alter(f"ADD {_stamp('updated_at', 'datetime(6)')}, ADD INDEX (`updated_at`)")
        yield fail(f"column {incremental.column}: {seen}", add)
        return
    if not planned.plan.walk:
        yield fail(f"{walkless(planned.table)}, which an incremental sync needs", _walk_fix(planned))
    yield _index(planned, column, forced=incremental.force)
    change = planned.alter(f"MODIFY {_stamp(column.name, column.full_type)}")
    if column.nullable:
        yield warn(f"column {column.name} may be NULL, and only full syncs see rows without a time", change)
    if not _is_set_anew(planned, column):
        yield warn(
            f"column {column.name} is not set by MySQL when a row is updated: every writer has to set it", change
        )
    if not planned.job.soft_delete and not planned.job.full_every:
        yield warn("the hash of a deleted row stays until a prune", "full_every: 1d")


def _index(planned: PlannedJob, column: Column, *, forced: bool) -> Finding:
    if named := increment.index_of(planned.table, column.name):
        return ok(f"column {column.name}, a {column.full_type}, with the index {named}")
    why, fix = increment.unserved(planned.table, column.name, planned.address)
    seen = f"{why}: every sync reads the whole table"
    return warn(f"{seen}, as force allows", fix) if forced else fail(seen, fix)


def _is_set_anew(planned: PlannedJob, column: Column) -> bool:
    """Whether MySQL itself sets a column with each update of a row."""
    found = planned.mysql.source.fetch(
        "SELECT CONCAT_WS(' ', extra, generation_expression) FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name = %s AND column_name = %s",
        [planned.table.name, column.name],
    )
    told = str(found[0][0] if found else "").lower()
    return "on update" in told or told.endswith("row start")


def _stamp(name: str, full_type: str) -> str:
    """The definition of a column that MySQL sets whenever a row changes."""
    _, bracket, digits = full_type.partition("(")
    now = f"CURRENT_TIMESTAMP{bracket}{digits}"
    return f"{quote(name)} {full_type} NOT NULL DEFAULT {now} ON UPDATE {now}"


PLANNED: Mapping[str, Check[PlannedJob]] = {"key": _key, "incremental": _incremental}
