"""The text of a config for live tables, with advice for people in its comments. Pure.

Names come from a database and may contain anything: they must read back exactly, and a comment must stay a comment.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from loader.cli.init.hints import hints, is_secret, job_of
from loader.cli.init.yaml_text import LONGEST, WIDTH, in_comment, mapping_key, quoted, scalar, size_text, wrapped
from loader.config.parsers import JOB_NAME, KeyParts, key_parts
from loader.config.parts import table_of
from loader.config.statement import Statement
from loader.errors import PlanError
from loader.model import Column, Table, TableSummary
from loader.mysql.planner import make_plan
from loader.mysql.sql import quote
from loader.records import dataclass
from loader.state_keys import PREFIX

SEPARATORS = ("_", ":", ".", "-", "=")  # between a table's name and its key, the first one that keeps jobs apart
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
    secrets: tuple[str, ...] = ()  # columns that would be copied and look like secrets: `table.column`

    @property
    def body(self) -> str:
        """The lines of its jobs."""
        return self.text.partition("\njobs:\n")[2]


@dataclass(frozen=True, slots=True)
class Style:
    """How the keys of jobs are written, and whether hints are below each job.

    `key` is a template with {table}, {database} and {pk} for the columns of a table's key; empty for the first of the
    `separators` that keeps jobs apart between a table's name and its key, and `joint` between the key's columns.
    """

    key: str = ""
    database: str = ""
    separators: tuple[str, ...] = SEPARATORS
    joint: str = "_"
    has_hints: bool = True


@dataclass(frozen=True, slots=True)
class ManyTables:
    """A job of many tables: its name, its lines, and the columns of them that look like secrets."""

    name: str
    lines: tuple[str, ...]
    secrets: tuple[str, ...] = ()


@dataclass(slots=True)
class _Sketch:
    """One job before it is written: its values, notes about it, and why it cannot run as it is."""

    values: dict[str, Any]
    key_note: str = ""
    notes: tuple[str, ...] = ()
    hints: tuple[tuple[str, str], ...] = ()
    refusal: str = ""


def draft_config(
    origin: str,
    wanted: Sequence[Wanted],
    style: Style = Style(),  # noqa: B008  # frozen
    first: ManyTables | None = None,
    taken: Sequence[str] = (),
) -> Draft:
    """The config of these jobs, behind a `first` one; a job that cannot run is commented out.

    `origin` names the database for people; `taken` are names of jobs that are there already.
    """
    before = [*taken, *([first.name] if first else ())]
    names = job_names([*before, *(each.listed.name for each in wanted)])[len(before) :]
    prefixes = _prefixes([each.listed.name for each in wanted], style.separators)
    text = HEAD.format(origin=in_comment(origin, WIDTH))
    text += "".join(f"{line}\n" for line in (*first.lines, "")) if first else ""
    jobs, refused = [first.name] if first else [], []
    secrets = list(first.secrets) if first else []
    for each, name, prefix in zip(wanted, names, prefixes, strict=True):
        sketch = _sketch(each, name, prefix, style)
        lines = list(_lines(each, name, sketch))
        if sketch.refusal:
            refused.append((each.statement.place if each.statement else each.listed.name, sketch.refusal))
            text += "".join(f"{line}\n" for line in wrapped(f"Not a job yet: {sketch.refusal}", "  # "))
            lines = [re.sub("^  ", "  # ", line) for line in lines]
        else:
            jobs.append(name)
            secrets += [f"{each.listed.name}.{column}" for column in _secrets(sketch.values["fields"])]
        text += "".join(f"{line}\n" for line in lines) + "\n"
    return Draft(text.rstrip("\n") + "\n", tuple(jobs), tuple(refused), tuple(secrets))


def _secrets(fields: Sequence[str] | Mapping[str, str]) -> list[str]:
    columns = fields.values() if isinstance(fields, Mapping) else fields
    return [column for column in columns if is_secret(column)]


def key_of(template: str, names: Mapping[str, str], columns: Sequence[str]) -> KeyParts:
    """The parts of a key: `names` in place of their placeholders, and for {pk} the columns of a table's key.

    These are joined by the last character before {pk} if it separates, as it does in `{table}:{pk}`.
    """
    parts: list[tuple[str, str | None]] = []
    literal = ""
    for text, column in key_parts(template):
        literal += text
        if column in names:
            literal += names[str(column)]
            continue
        separator = text[-1:] if text and not text[-1].isalnum() else "_"
        for number, each in enumerate(columns if column == "pk" else [column]):
            parts.append((separator if number else literal, each))
            literal = ""
    return (*parts, (literal, None)) if literal else tuple(parts)


def job_names(tables: Sequence[str]) -> list[str]:
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


def _stem(table: str) -> str:
    """A table's name without characters that have a meaning in key patterns or to a cluster."""
    return re.sub(r"[^\w.:-]+", "_", table).lstrip("-") or "table"


def _prefixes(tables: Sequence[str], separators: Sequence[str]) -> list[str]:
    """A key prefix for each table: none begins with another, nor with the loader's own."""
    stems = list(map(_stem, tables))
    tried = [0] * len(stems)

    def prefix(place: int) -> str:
        number = tried[place]
        return stems[place] + (separators[number] if number < len(separators) else f".{place + 1}:")

    while True:
        prefixes = [prefix(place) for place in range(len(stems))]
        order = sorted(range(len(stems)), key=prefixes.__getitem__)
        moved = {place for place, own in enumerate(prefixes) if own.startswith(PREFIX) or PREFIX.startswith(own)}
        for place, after in pairwise(order):
            if prefixes[after].startswith(prefixes[place]):
                moved.add(after if prefixes[after] == prefixes[place] else place)
        moved = {place for place in moved if tried[place] < len(separators)}
        if not moved:
            return prefixes
        for place in moved:
            tried[place] += 1


def _sketch(wanted: Wanted, name: str, prefix: str, style: Style) -> _Sketch:
    """The job for a table or a statement, tried on the table."""
    sketch = _of_statement(wanted, wanted.statement) if wanted.statement else _of_table(wanted, prefix, style)
    if wanted.table is None:
        sketch.refusal = wanted.refusal
    if sketch.refusal or wanted.table is None:
        return sketch
    try:
        plan = make_plan(job_of(name, sketch.values), wanted.table)
    except (PlanError, ValueError) as error:
        sketch.refusal = str(error)
        return sketch
    sketch.notes += plan.warnings
    if style.has_hints:
        sketch.hints = tuple(hints(wanted.listed, wanted.table, name, sketch.values))
    return sketch


def _of_table(wanted: Wanted, prefix: str, style: Style) -> _Sketch:
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
    parts: KeyParts = tuple((style.joint if place else prefix, column) for place, column in enumerate(columns))
    if style.key:
        parts = key_of(style.key, {"table": _stem(listed.name), "database": style.database}, columns)
        prefix = parts[0][0]
    values["key"], fault = _template(parts)
    note = "its primary key" if table.primary_key else "a unique key; the table has no primary key"
    if len(columns) == 2 and not style.key:
        note += f"; {prefix}1{style.joint}2 is the row whose {columns[0]} is 1 and {columns[1]} is 2"
    if (
        table.primary_key
        and not style.key
        and style.joint == "_"
        and prefix != f"{listed.name}_"
        and prefix.rstrip("".join(SEPARATORS)) == listed.name
    ):
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


def table_text(name: str) -> str:
    """A table's name as a config has it: in backticks if it could be taken for a table of another database."""
    return name if table_of(name) == ("", name) else quote(name)


def template_of(parts: KeyParts) -> str:
    """The text of a key as a config has it."""
    return "".join(
        literal.replace("{", "{{").replace("}", "}}") + (f"{{{column}}}" if column is not None else "")
        for literal, column in parts
    )


def _template(parts: KeyParts) -> tuple[str, str]:
    """The key template for literals and columns, and why no template is possible; empty if one is."""
    text = template_of(parts)
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


def _lines(wanted: Wanted, name: str, sketch: _Sketch) -> Iterator[str]:
    """The job's lines in the file."""
    listed = wanted.listed
    if listed.comment:
        yield f"  # {in_comment(listed.comment)}"
    for note in sketch.notes:
        yield from wrapped(note, "  # ")
    yield f"  {mapping_key(name)}:  # {size_text(listed)}"
    yield f"    table: {scalar(table_text(listed.name))}"
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
        (
            f"{mapping_key(field)}: {scalar(text)}" if isinstance(fields, Mapping) else f"- {scalar(field)}",
            table.column(text),
        )
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
    told += ["looks like a secret: copy it only if readers need it"] if is_secret(column.name) else []
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
