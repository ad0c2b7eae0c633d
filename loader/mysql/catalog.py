"""MySQL's description of tables, columns, indexes and results."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn
from zlib import crc32

from loader.errors import Kind, LoaderError, PlanError, SourceError
from loader.formats import utc
from loader.model import Bar, Barred, Column, Table, TableSummary
from loader.mysql.connection import Connection, Row, understood
from loader.mysql.driver import FIELD_TYPE, FLAG
from loader.mysql.errors import NO_PROCESS, code_of, text_of
from loader.mysql.forms import INTEGERS, TIMES, UNKNOWN
from loader.mysql.sql import quote
from loader.records import dataclass

TableName = tuple[str, str]  # its database and its own
SYSTEM_DATABASES = "('information_schema', 'mysql', 'performance_schema', 'sys')"
THIS_TABLE = "table_schema = DATABASE() AND table_name = %s"
# Why MySQL does not read along an index, a word of `Bar`; fields unknown to older servers are in comments they skip.
BAR = (
    "CASE WHEN comment = 'disabled' THEN 'disabled'"
    " /*M!100600 WHEN ignored = 'YES' THEN 'ignored' */"
    " /*!80000 WHEN is_visible = 'NO' AND NOT FIND_IN_SET('use_invisible_indexes=on', @@optimizer_switch)"
    " THEN 'invisible' */"
    " WHEN index_type = 'HASH' THEN 'hash' ELSE '' END"
)
INDEXES = f"index_name, column_name, sub_part, nullable, non_unique, index_type, {BAR}, table_name"
COLUMNS = (
    "column_name, data_type, column_type, character_set_name, is_nullable, extra, collation_name,"
    " generation_expression, table_name"
)
ORDERED = frozenset({"BTREE", "LSMTREE"})
ROW_START, ROW_END = "ROW START", "ROW END"  # MariaDB's mark of the columns of a system-time period
GENERATED = re.compile(r"\b(virtual|stored|persistent)\b")  # in MySQL's description of a column
# A result's description of its columns, see `_result_column`.
RESULT_TYPES = {
    FIELD_TYPE.TINY: "tinyint", FIELD_TYPE.SHORT: "smallint", FIELD_TYPE.INT24: "mediumint", FIELD_TYPE.LONG: "int",
    FIELD_TYPE.LONGLONG: "bigint", FIELD_TYPE.DECIMAL: "decimal", FIELD_TYPE.NEWDECIMAL: "decimal",
    FIELD_TYPE.FLOAT: "float", FIELD_TYPE.DOUBLE: "double", FIELD_TYPE.BIT: "bit", FIELD_TYPE.YEAR: "year",
    FIELD_TYPE.DATE: "date", FIELD_TYPE.NEWDATE: "date", FIELD_TYPE.TIME: "time", FIELD_TYPE.DATETIME: "datetime",
    FIELD_TYPE.TIMESTAMP: "timestamp", FIELD_TYPE.STRING: "char", FIELD_TYPE.VAR_STRING: "varchar",
    FIELD_TYPE.VARCHAR: "varchar", FIELD_TYPE.TINY_BLOB: "blob", FIELD_TYPE.BLOB: "blob",
    FIELD_TYPE.MEDIUM_BLOB: "blob", FIELD_TYPE.LONG_BLOB: "blob", FIELD_TYPE.JSON: "json",
}  # fmt: skip
BINARY_TYPES = {"char": "binary", "varchar": "varbinary", "blob": "longblob"}
BINARY_CHARSET = 63  # of bytes and numbers
UTF8MB4_BYTES = 4  # types whose length counts for each character
NOT_FIXED = 31  # decimals of a type with any number of them
WORD_FLAGS = FLAG.UNSIGNED | FLAG.BINARY  # which MariaDB sets for a CHAR that is a UUID or an address
WORD_SIZES = {36: "uuid", 15: "inet4", 39: "inet6"}
NO_SELECT = frozenset({1142, 1143})  # from a table, or a column of it


@understood
def listing(connection: Connection) -> list[TableSummary]:
    """The tables and views of the database that the account may see, by name."""
    tables = connection.fetch(
        "SELECT table_name, table_type, table_rows, data_length + index_length, table_comment"
        " FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type <> 'SEQUENCE'"
        " ORDER BY table_name"
    )
    keys, stamps, generated = (defaultdict[str, list[str]](list) for _ in range(3))
    for table, column in connection.fetch(
        "SELECT table_name, column_name FROM information_schema.statistics"
        " WHERE table_schema = DATABASE() AND index_name = 'PRIMARY' ORDER BY table_name, seq_in_index"
    ):
        keys[str(table)].append(str(column))
    for table, column, extra, made in connection.fetch(
        "SELECT table_name, column_name, LOWER(extra), generation_expression FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND extra <> '' ORDER BY ordinal_position"
    ):
        if made == ROW_END and column in keys[str(table)]:
            keys[str(table)].remove(str(column))
        if "on update" in str(extra) or made == ROW_START:
            stamps[str(table)].append(str(column))
        if GENERATED.search(str(extra)):
            generated[str(table)].append(str(column))
    return [
        TableSummary(
            name=str(name),
            is_view=kind == "VIEW",
            rows=None if rows is None else int(rows),
            bytes=None if size is None else int(size),
            comment="" if kind == "VIEW" else str(comment or ""),
            primary_key=tuple(keys[str(name)]),
            stamps=tuple(stamps[str(name)]),
            generated=tuple(generated[str(name)]),
        )
        for name, kind, rows, size, comment in tables
    ]


@understood
def base_tables(connection: Connection, *, everywhere: bool) -> list[TableName]:
    """Database and name of each table, no views, in the connection's database, or in all but the server's own."""
    within = f"NOT IN {SYSTEM_DATABASES}" if everywhere else "= DATABASE()"
    rows = connection.fetch(
        "SELECT table_schema, table_name FROM information_schema.tables"
        f" WHERE table_schema {within} AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
        " ORDER BY table_schema, table_name"
    )
    return [(str(database), str(name)) for database, name in rows]


@understood
def table(connection: Connection, name: str) -> Table:
    """MySQL's description of a table; a `PlanError` if there is none that the account may read."""
    withheld = _withheld(connection, name)
    return replace(definition(connection, name), withheld=withheld)


@understood
def definition(connection: Connection, name: str) -> Table:
    """Columns and keys of a table as they are now; no columns if it no longer exists."""
    # The columns come last: if the table goes away in between, that is noticed.
    kinds = connection.fetch(
        f"SELECT table_type, table_rows, UNIX_TIMESTAMP(create_time) FROM information_schema.tables WHERE {THIS_TABLE}",
        [name],
    )
    indexes = connection.fetch(
        f"SELECT {INDEXES} FROM information_schema.statistics WHERE {THIS_TABLE} ORDER BY index_name, seq_in_index",
        [name],
    )
    columns = connection.fetch(
        f"SELECT {COLUMNS} FROM information_schema.columns WHERE {THIS_TABLE} ORDER BY ordinal_position",
        [name],
    )
    kind, rows, _ = kinds[0] if len(kinds) == 1 else ("", None, None)  # of names that differ only by case, neither
    has_history = kind == "SYSTEM VERSIONED"
    return replace(
        defined(name, indexes, columns),
        # The estimate for a table with a history counts that too, so it is useless.
        rows_estimate=None if rows is None or has_history else int(rows),
        is_view=kind == "VIEW",
        has_history=has_history,
        created=max((float(text) for *_, text in kinds if text), default=None),
        generated=", ".join(f"{row[0]} as {row[7]} {row[5]}" for row in columns if row[7]),
    )


def defined(name: str, indexes: Sequence[Row], columns: Sequence[Row]) -> Table:
    """A table by the rows of information_schema about it, of `INDEXES` and `COLUMNS`."""
    # If names differ only by case, information_schema may return the columns of both tables.
    names = {row[-1] for row in columns}
    exact = name if name in names else next(iter(names), name)
    made = {str(row[0]): str(row[-2]) for row in columns if row[-1] == exact}
    parts: dict[str, list[Row]] = {}
    for row in indexes:
        if row[-1] == exact:
            parts.setdefault(str(row[0]), []).append(row[1:-1])
    each = [_index(index, found, made) for index, found in parts.items()]
    unique = {index.name: index.columns for index in each if index.is_key}
    walked = {index.columns for index in each if index.is_key and not index.bar}
    return Table(
        name=name,
        columns=tuple(_column(row) for row in columns if row[-1] == exact),
        primary_key=unique.pop("PRIMARY", ()),
        unique_keys=tuple(dict.fromkeys(unique.values())),
        indexes=tuple((index.name, index.first) for index in each if index.first and index.is_ordered),
        barred=tuple(
            Barred(index.name, index.columns, index.bar, index.is_key)
            for index in each
            if index.bar and index.columns and not (index.is_key and index.columns in walked)
        ),
    )


def identity(connection: Connection, table: Table) -> dict[str, str]:
    """Distinguishes a table from another of the same name and columns, and from itself before a change.

    `created` is when it was made or altered, to the second; `generated` is how columns are computed; `inside` are
    InnoDB's numbers of it and its partitions now, which TRUNCATE changes; an account with the PROCESS right sees them.
    A view has only those of its columns.
    """
    found = {"generated": table.generated}
    if table.created is not None:
        found["created"] = utc(table.created)
    if inside := _numbers(connection, table.name):
        found["inside"] = inside
    return found


@understood
def time_zone(connection: Connection) -> str:
    """The time zone of a session, in MySQL's words."""
    if not connection.zone:  # nobody else can change it
        connection.zone = str(connection.single("SELECT @@SESSION.time_zone")[0])
    return connection.zone


def result(connection: Connection, sql: str, job: str, option: str = "") -> Table:
    """The columns of a statement's result, with their types; a `PlanError` if MySQL refuses it.

    That names the option of the command line if the statement is fine without it.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return Table(job, tuple(map(_result_column, cursor._result.fields or ())))  # noqa: SLF001
    except LoaderError:
        raise
    except Exception as error:
        failure = connection.failure(error, "query refused")
        if failure.kind is not Kind.VANISHED and (failure.transient or failure.kind.is_refusal):
            raise failure from error
        at = f"{option}: MySQL refuses it"
        if not option:
            at = f"job {job!r}: MySQL refuses its SELECT, see its fields and where or query"
        message = f"{at}: {text_of(error)}"
        raise _misfit(message, failure.kind) from error


def grant(connection: Connection, table: str, columns: Sequence[str] = ()) -> str:
    """The statement that allows the loader to read a table, or some of its columns."""
    which = f" ({', '.join(map(quote, columns))})" if columns else ""
    return f"GRANT SELECT{which} ON {connection.database}.{quote(table)} TO the loader's account"


def _withheld(connection: Connection, name: str) -> str:
    """Why columns of a table are hidden from an account that may read others; empty if all are visible."""
    try:
        connection.fetch(f"SELECT * FROM {quote(name)} LIMIT 0")
    except SourceError as error:
        if code_of(error.__cause__) not in NO_SELECT:
            _refuse(connection, name, error)
        hidden = text_of(error.__cause__)
    else:
        return ""
    try:
        connection.fetch(f"SELECT 1 FROM {quote(name)} LIMIT 0")
    except SourceError as error:
        _refuse(connection, name, error)
    return hidden


def _refuse(connection: Connection, name: str, error: SourceError) -> NoReturn:
    """Raise why no column of a table can be read."""
    if code_of(error.__cause__) in NO_SELECT:
        raise SourceError(
            f"mysql {connection.address}: no right to read table {name!r} (or there is no such table): "
            f"{grant(connection, name)}",
            kind=Kind.ACCESS,
        ) from error
    if error.kind is not Kind.VANISHED and (error.transient or error.kind.is_refusal):
        raise error
    raise _misfit(f"mysql {connection.address}: table {name!r}: {text_of(error.__cause__)}", error.kind) from error


def _numbers(connection: Connection, name: str) -> str:
    """InnoDB's number of a table, or a digest of its partitions' numbers; empty if hidden, or if it has none."""
    if connection.lacks_process:
        return ""
    listed = "innodb_sys_tables" if connection.is_mariadb else "innodb_tables"
    path = "/".join(_file_name(each) for each in (connection.database, name))
    try:
        numbers = connection.fetch(
            f"SELECT table_id FROM information_schema.{listed} WHERE name LIKE %s OR name LIKE %s ORDER BY table_id",
            [path, f"{path}#p#%"],
        )
    except SourceError as error:
        if code_of(error.__cause__) == NO_PROCESS:
            connection.lacks_process = True
            return ""
        raise
    text = ", ".join(str(number) for (number,) in numbers)
    return text if len(numbers) < 2 else f"{len(numbers)}, {crc32(text.encode()):08x}"


def _misfit(message: str, kind: Kind) -> PlanError:
    return PlanError(message, kind=Kind.MISSING if kind is Kind.VANISHED else Kind.CONFIG)


@dataclass(frozen=True, slots=True)
class _Index:
    """An index as information_schema has it: `first` is the column it is ordered by, empty for an expression."""

    name: str
    columns: tuple[str, ...]
    first: str
    is_key: bool
    is_ordered: bool
    bar: Bar | None


def _index(name: str, parts: Sequence[Row], made: Mapping[str, str]) -> _Index:
    """An index of these parts; `made` says how columns are computed.

    Current rows all have the same end of their period, so a key is unique without it; but rows that differ only in the
    beginning of their period are not distinct by what a person would call a key. A prefix that is unique makes the
    values unique.
    """
    columns = [column for column, *_ in parts]
    kind, bar = parts[0][-2:]
    periods = [made.get(str(column), "") for column in columns]
    of_rows = tuple(str(column or "") for column, period in zip(columns, periods, strict=True) if period != ROW_END)
    is_key = (
        bool(of_rows)
        and None not in columns
        and ROW_START not in periods
        and all(nullable != "YES" and repeats == "0" for _, _, nullable, repeats, *_ in parts)
    )
    is_prefix = is_key and any(part is not None for _, part, *_ in parts)
    return _Index(
        name=name,
        columns=of_rows,
        first=str(columns[0] or ""),
        is_key=is_key,
        is_ordered=kind in ORDERED and not bar,
        bar=Bar(bar) if bar else Bar.PREFIX if is_prefix else None,
    )


def _column(row: Sequence[str | None]) -> Column:
    name, kind, full, charset, nullable, extra, collation, *_ = row
    return Column(
        name=str(name),
        type=str(kind).lower(),
        full_type=str(full),
        charset=charset,
        nullable=nullable == "YES",
        hidden="INVISIBLE" in str(extra),
        collation=collation,
    )


def _result_column(field: Any) -> Column:
    """A column of a result, as its definition describes it; text arrives as utf8mb4, however it is stored."""
    kind, digits = RESULT_TYPES.get(field.type_code, UNKNOWN), ""
    if kind in {"char", "varchar", "blob"}:
        kind, digits = _text_type(kind, field)
    elif kind == "bit" or (kind in INTEGERS and field.flags & FLAG.ZEROFILL):
        digits = f"({field.length})"
    elif kind in TIMES | {"timestamp"} and 0 < field.scale < NOT_FIXED:
        digits = f"({field.scale})"
    marks = " unsigned" * bool(field.flags & FLAG.UNSIGNED) + " zerofill" * bool(field.flags & FLAG.ZEROFILL)
    return Column(field.name, kind, f"{kind}{digits}{marks if kind in INTEGERS else ''}", None)


def _text_type(kind: str, field: Any) -> tuple[str, str]:
    """The type of a text or of bytes, and their length in brackets."""
    if field.charsetnr == BINARY_CHARSET:
        return BINARY_TYPES[kind], "" if kind == "blob" else f"({field.length})"
    size = field.length // UTF8MB4_BYTES
    if kind == "char" and field.flags & WORD_FLAGS == WORD_FLAGS and size in WORD_SIZES:
        return WORD_SIZES[size], ""
    return ("longtext", "") if kind == "blob" else ("varchar", f"({size})")


def _file_name(name: str) -> str:
    """The LIKE pattern for a name as InnoDB spells it, in the characters that a file name may have."""
    return re.sub(r"[^A-Za-z0-9_]", "@%", name).replace("_", r"\_")
