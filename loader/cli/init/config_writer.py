"""The text of a config for live tables, with advice for people in its comments. Pure.

Names come from a database and may contain anything: they must read back exactly, and a comment must stay a comment.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap
from typing import Any

from loader.config.models import JobConfig
from loader.config.parsers import JOB_NAME, KeyParts, key_parts
from loader.config.statement import Statement
from loader.errors import PlanError
from loader.formats import rough_size
from loader.model import Column, Table, TableSummary
from loader.mysql.planner import make_plan
from loader.state_keys import PREFIX
from loader.words import counted

WIDTH = 100  # columns of a comment
LONGEST = 60  # characters shown of a comment of MySQL's, or of a type
SEPARATORS = ("_", ":", ".", "-", "=")  # between a table's name and its key, the first one that keeps jobs apart
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
WORDS = {
    "null",
    "true",
    "false",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
    "nan",
    "inf",
    "infinity",
}  # not plain text to some parsers
DELETED = re.compile(r"(is_)?(deleted|removed)|(deleted|removed)_?(at|on)|date_deleted", re.IGNORECASE)
MOMENTS = {"date", "datetime", "timestamp"}
NUMBERS = {"tinyint", "smallint", "int", "bit"}

HEAD = """\
# Written by `loader init` from {origin}; yours to edit.
# Commented-out lines are further options; `loader schema` describes all of them.
version: 1

source:
  url: "${{MYSQL_URL}}"              # mysql://user@host:3306/database
  password: "${{MYSQL_PASSWORD:-}}"  # or password_file: /run/secrets/mysql

target:
  url: "${{REDIS_URL}}"              # any nodes of the cluster: redis://host:7001,host:7002; rediss:// for TLS
  password: "${{REDIS_PASSWORD:-}}"  # empty: no password

jobs:
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The source of a future job: a table, or a statement of a script about it.

    `table` is None if it cannot be read; `refusal` then says why.
    """

    listed: TableSummary
    table: Table | None
    refusal: str = ""
    statement: Statement | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """The text of a config, the jobs it has, and for each commented-out one its table (or statement) and the reason."""

    text: str
    jobs: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Sketch:
    """One job before it is written: its values, notes about it, and why it cannot run as it is."""

    values: dict[str, Any]
    key_note: str = ""
    notes: tuple[str, ...] = ()
    hints: tuple[tuple[str, str], ...] = ()
    refusal: str = ""


def draft_config(origin: str, wanted: Sequence[Wanted]) -> Draft:
    """The config of these jobs; `origin` names the database. A job that cannot run is commented out."""
    names = _job_names([each.listed.name for each in wanted])
    prefixes = _prefixes([each.listed.name for each in wanted])
    text = HEAD.format(origin=in_comment(origin, WIDTH))
    jobs, refused = [], []
    for each, name, prefix in zip(wanted, names, prefixes, strict=True):
        sketch = _sketch(each, name, prefix)
        lines = list(_lines(each, name, sketch))
        if sketch.refusal:
            refused.append((each.statement.place if each.statement else each.listed.name, sketch.refusal))
            text += "".join(f"{line}\n" for line in wrapped(f"Not a job yet: {sketch.refusal}", "  # "))
            lines = [re.sub("^  ", "  # ", line) for line in lines]
        else:
            jobs.append(name)
        text += "".join(f"{line}\n" for line in lines) + "\n"
    return Draft(text.rstrip("\n") + "\n", tuple(jobs), tuple(refused))


def scalar(text: str) -> str:
    """A value as YAML that reads back the same, unquoted if that is safe, else in double quotes."""
    return text if PLAIN.fullmatch(text) and text.lower() not in WORDS else quoted(text)


def quoted(text: str) -> str:
    """A value in double quotes; in a config, `$${` is a literal `${`."""
    return _in_quotes(text.replace("${", "$${"))


def _key(text: str) -> str:
    """A text as a mapping key, in which `${` has no meaning."""
    return text if PLAIN.fullmatch(text) and text.lower() not in WORDS else _in_quotes(text)


def _in_quotes(text: str) -> str:
    written = json.dumps(text, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in written)


def in_comment(text: str, longest: int = LONGEST) -> str:
    """A text for a comment: on one line, and not too long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def wrapped(text: str, indent: str, further: str | None = None, width: int = WIDTH) -> list[str]:
    """A comment or a message, wrapped behind an indent; later lines have their own."""
    return wrap(
        in_comment(text, 2000),
        width,
        initial_indent=indent,
        subsequent_indent=indent if further is None else further,
        break_long_words=False,
        break_on_hyphens=False,
    )


def size_text(listed: TableSummary) -> str:
    """About how large a table is, for people."""
    if listed.is_view:
        return "a view"
    rows = "rows unknown" if listed.rows is None else f"about {counted(listed.rows, 'row')}"
    return rows if listed.bytes is None else f"{rows}, {rough_size(listed.bytes)}"


def _escaped(sign: str) -> str:
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else f"\\U{ord(sign):08x}"


def _job_names(tables: Sequence[str]) -> list[str]:
    """A job name for each: the table's, unless it is taken, not allowed, or looks like an option."""
    names: list[str] = []
    exact = {table for table in tables if re.fullmatch(JOB_NAME, table) and table == table.lstrip("-.")}
    for table in tables:
        stem = table if re.fullmatch(JOB_NAME, table) else re.sub(r"[^A-Za-z0-9_.-]+", "_", table)
        stem = stem.lstrip("-.") if stem.strip("_-.") else "table"
        name, number = stem, 1
        while name in names or (name in exact and name != table):
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def _prefixes(tables: Sequence[str]) -> list[str]:
    """A key prefix for each table: none begins with another, nor with the loader's own.

    Characters with a meaning in key patterns or to a cluster are left out.
    """
    stems = [re.sub(r"[^\w.:-]+", "_", table).lstrip("-") or "table" for table in tables]
    tried = [0] * len(stems)

    def prefix(place: int) -> str:
        number = tried[place]
        return stems[place] + (SEPARATORS[number] if number < len(SEPARATORS) else f".{place + 1}:")

    while True:
        prefixes = [prefix(place) for place in range(len(stems))]
        order = sorted(range(len(stems)), key=prefixes.__getitem__)
        moved = {place for place, own in enumerate(prefixes) if own.startswith(PREFIX) or PREFIX.startswith(own)}
        for place, after in pairwise(order):
            if prefixes[after].startswith(prefixes[place]):
                moved.add(after if prefixes[after] == prefixes[place] else place)
        moved = {place for place in moved if tried[place] < len(SEPARATORS)}
        if not moved:
            return prefixes
        for place in moved:
            tried[place] += 1


def _sketch(wanted: Wanted, name: str, prefix: str) -> _Sketch:
    """The job for a table or a statement, tried on the table."""
    sketch = _of_statement(wanted, wanted.statement) if wanted.statement else _of_table(wanted, prefix)
    if wanted.table is None:
        sketch.refusal = wanted.refusal
    if sketch.refusal or wanted.table is None:
        return sketch
    try:
        plan = make_plan(_job(name, sketch.values), wanted.table)
    except (PlanError, ValueError) as error:
        sketch.refusal = str(error)
        return sketch
    sketch.notes += plan.warnings
    sketch.hints = tuple(_hints(wanted, wanted.table, name, sketch.values))
    return sketch


def _of_table(wanted: Wanted, prefix: str) -> _Sketch:
    listed, table = wanted.listed, wanted.table
    values: dict[str, Any] = {"table": listed.name}
    if table is None:
        return _Sketch(values)
    visible = [column.name for column in table.columns if not column.hidden]
    unique = sorted(table.unique_keys, key=len)
    columns = table.primary_key or (unique[0] if unique else ())
    values |= {"key": f"{prefix}{{{visible[0]}}}", "fields": visible}
    if not columns:
        what = "a view has no key" if listed.is_view else "the table has no primary key and no unique key without NULLs"
        return _Sketch(
            values,
            refusal=f"{what}; choose columns for `key` that tell its rows apart, then uncomment it",
        )
    parts = tuple((prefix if not place else "_", column) for place, column in enumerate(columns))
    values["key"], fault = _template(parts)
    note = "its primary key" if table.primary_key else "a unique key; the table has no primary key"
    if len(columns) == 2:
        note += f"; {prefix}1_2 is the row whose {columns[0]} is 1 and {columns[1]} is 2"
    if table.primary_key and prefix != f"{listed.name}_" and prefix.rstrip("".join(SEPARATORS)) == listed.name:
        note += f"; {listed.name}_ would begin keys of another job too"
    hidden = [name for name in columns if name not in visible]
    notes = (f"{', '.join(hidden)} is invisible: readers of the hashes must know its values",) if hidden else ()
    return _Sketch(values, note, notes, refusal=fault)


def _of_statement(wanted: Wanted, statement: Statement) -> _Sketch:
    table = wanted.table
    values: dict[str, Any] = {"table": wanted.listed.name}
    values["key"], fault = _template(statement.key)
    is_list = all(field == text for field, text in statement.fields)
    values["fields"] = [field for field, _ in statement.fields] if is_list else dict(statement.fields)
    if statement.where:
        values["where"] = statement.where
    loses = [
        column.name
        for _, text in statement.fields
        if table and (column := table.column(text)) is not None and column.nullable
    ]
    notes = (f"if {', '.join(loses)} is NULL, the script lost the row; here the field is left out",) if loses else ()
    return _Sketch(values, f"as in {statement.place}", notes, refusal=fault)


def _template(parts: KeyParts) -> tuple[str, str]:
    """The key template for literals and columns, and why no template is possible; empty if one is."""
    text = "".join(
        literal.replace("{", "{{").replace("}", "}}") + (f"{{{column}}}" if column is not None else "")
        for literal, column in parts
    )
    try:
        if key_parts(text) == tuple(parts):
            return text, ""
    except ValueError:
        pass
    names = ", ".join(repr(column) for _, column in parts if column)
    return text, (
        f"a key cannot name the column {names}: give the table a key of another name,"
        ' or write a query: "SELECT … AS id, …" with key and fields in place of the table'
    )


def _job(name: str, values: Mapping[str, Any]) -> JobConfig:
    job = JobConfig.model_validate(values)
    job.take_name(name)
    return job


def _hints(wanted: Wanted, table: Table, name: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Further options of the job: each a line of config, with its requirement."""
    stamps = [c for each in wanted.listed.stamps if (c := table.column(each)) and c.type in {"datetime", "timestamp"}]
    indexed = {column.lower() for _, column in table.indexes}
    for stamp in sorted(stamps, key=lambda column: column.name.lower() not in indexed)[:1]:
        says = "Read only rows changed since the last run; lag must exceed the longest transaction."
        if stamp.name.lower() not in indexed:
            says += f" It needs an index first: ADD INDEX ({in_comment(stamp.name)})."
        yield (
            f"incremental: {{column: {scalar(stamp.name)}, lag: 10s}}",
            f"{says} Deleted rows are found by full_every: 1d.",
        )
    for column in table.columns:
        if DELETED.fullmatch(column.name) and (condition := _is_deleted(column)):
            yield f"soft_delete: {quoted(condition)}", "such rows count as deleted, and have no hash"
            break
    try:
        make_plan(_job(name, {**values, "changed_only": True}), table)
    except (PlanError, ValueError):
        pass
    else:
        yield "changed_only: true", "write only rows that differ, and delete hashes whose row is gone"
    yield "schedule: {every: 15m}", 'for `loader daemon`; or {cron: "*/15 * * * *"}'
    yield "max_age: 1h", "the job is late if its last success is older"


def _is_deleted(column: Column) -> str:
    if column.type in MOMENTS and column.nullable:
        return f"{column.name} IS NOT NULL"
    return f"{column.name} <> 0" if column.type in NUMBERS else ""


def _lines(wanted: Wanted, name: str, sketch: _Sketch) -> Iterator[str]:
    """The job's lines in the file."""
    listed = wanted.listed
    if listed.comment:
        yield f"  # {in_comment(listed.comment)}"
    for note in sketch.notes:
        yield from wrapped(note, "  # ")
    yield f"  {_key(name)}:  # {size_text(listed)}"
    yield f"    table: {scalar(listed.name)}"
    if wanted.table is None:
        return
    yield f"    key: {quoted(sketch.values['key'])}" + (
        f"  # {in_comment(sketch.key_note, WIDTH)}" if sketch.key_note else ""
    )
    yield "    fields:"
    yield from _field_lines(wanted, wanted.table, sketch.values["fields"])
    if "where" in sketch.values:
        yield f"    where: {quoted(sketch.values['where'])}"
    for line, what in sketch.hints:
        if len(beside := f"    # {line:22}  # {what}") <= WIDTH:
            yield beside
        else:
            yield from wrapped(what, "    # ")
            yield f"    # {line}"


def _field_lines(wanted: Wanted, table: Table, fields: Sequence[str] | Mapping[str, str]) -> Iterator[str]:
    """A line per field, with the type of its column."""
    pairs = list(fields.items() if isinstance(fields, Mapping) else ((name, name) for name in fields))
    entries = [
        (f"{_key(field)}: {scalar(text)}" if isinstance(fields, Mapping) else f"- {scalar(field)}", table.column(text))
        for field, text in pairs
    ]
    if wanted.statement is None:
        entries += [(f"# - {scalar(column.name)}", column) for column in table.columns if column.hidden]
    width = min(max(len(entry) for entry, _ in entries), LONGEST)
    for entry, column in entries:
        yield f"      {entry:{width}}  # {_kind(column, wanted.listed)}" if column else f"      {entry}"


def _kind(column: Column, listed: TableSummary) -> str:
    """A column's type, for people."""
    told = [in_comment(column.full_type)]
    told += ["may be NULL"] if column.nullable else []
    told += ["generated"] if column.name in listed.generated else []
    told += ["invisible, so SELECT * leaves it out"] if column.hidden else []
    return ", ".join(told)


def environment_text(source: str, target: str) -> str:
    """The `.env.example` for two urls, as a shell reads it with `. ./.env`."""
    return (
        "# Copy to .env, fill in the passwords, then: set -a; . ./.env; set +a\n"
        "# Put a password with special characters of the shell in single quotes.\n"
        f"MYSQL_URL={shlex.quote(source)}\n"
        "MYSQL_PASSWORD=\n"
        f"REDIS_URL={shlex.quote(target)}\n"
        "REDIS_PASSWORD=\n"
    )
