"""MySQL's description of all tables of a database at once, by a few statements however many there are."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from loader.errors import LoaderError, SourceError
from loader.model import Table
from loader.mysql import catalog
from loader.mysql.catalog import COLUMNS, INDEXES
from loader.mysql.connection import Connection, Row, understood
from loader.mysql.sql import quote

AT_ONCE = 100  # tables whose rights one statement tries


@understood
def tables(connection: Connection, names: Sequence[str]) -> dict[str, Table | LoaderError]:
    """The description of each table that `catalog.table` would give, or the reason why the account may not read it."""
    kinds = {
        name: (kind, rows)
        for name, kind, rows in connection.fetch(
            "SELECT table_name, table_type, table_rows FROM information_schema.tables WHERE table_schema = DATABASE()"
        )
    }
    indexes = _by_table(
        connection,
        f"SELECT {INDEXES} FROM information_schema.statistics WHERE table_schema = DATABASE()"
        " ORDER BY table_name, index_name, seq_in_index",
    )
    columns = _by_table(
        connection,
        f"SELECT {COLUMNS} FROM information_schema.columns WHERE table_schema = DATABASE()"
        " ORDER BY table_name, ordinal_position",
    )
    found: dict[str, Table | LoaderError] = {}
    for first in range(0, len(names), AT_ONCE):
        some = names[first : first + AT_ONCE]
        together = all(name in kinds for name in some) and _all_readable(connection, some)
        for name in some:
            if not together:
                found[name] = _alone(connection, name)
                continue
            kind, rows = kinds[name]
            has_history = kind == "SYSTEM VERSIONED"
            found[name] = replace(
                catalog.defined(name, indexes[name], columns[name]),
                rows_estimate=None if rows is None or has_history else int(rows),
                is_view=kind == "VIEW",
                has_history=has_history,
            )
    return found


def _by_table(connection: Connection, sql: str) -> defaultdict[str, list[Row]]:
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for row in connection.fetch(sql):
        rows[str(row[-1])].append(row)
    return rows


def _all_readable(connection: Connection, names: Sequence[str]) -> bool:
    """Whether the account may read all columns of all these tables."""
    each = (f"SELECT 1 FROM (SELECT * FROM {quote(name)} LIMIT 0) AS t" for name in names)
    try:
        connection.fetch(" UNION ALL ".join(each))
    except SourceError:  # of one of them at least: which one, and why, is found out by asking about each
        return False
    return True


def _alone(connection: Connection, name: str) -> Table | LoaderError:
    try:
        return catalog.table(connection, name)
    except LoaderError as error:
        if not error.kind.is_refusal:
            raise
        return error
