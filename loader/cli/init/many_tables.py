"""Drafts one job for all tables that are alike, and jobs of their own for the others.

Hundreds of jobs would say the same thing hundreds of times, and none of them the next table's.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from loader.cli.init.config_writer import Draft, ManyTables, Style, Wanted, draft_config, job_names, key_of, template_of
from loader.cli.init.hints import ALWAYS, hints, is_secret, job_of
from loader.cli.init.yaml_text import in_comment, mapping_key, quoted, scalar, wrapped
from loader.errors import LoaderError, PlanError
from loader.formats import rough_size
from loader.model import Table, TableSummary
from loader.mysql import schema
from loader.mysql.connection import Connection
from loader.mysql.planner import make_plan
from loader.state_keys import PREFIX
from loader.words import counted

LEAST = 3  # tables that one job is written for
KEY = "{table}:{pk}"
NAME = re.compile(r"[\w$-]+")  # of a table that means itself in a pattern, in a key and in the name of a part
NAMED = 12  # columns told in one comment


def looked_at(source: Connection, listing: Sequence[TableSummary]) -> list[Wanted]:
    """The tables to make jobs of, each with MySQL's description, or why MySQL refuses to give it."""
    found = schema.tables(source, [listed.name for listed in listing])
    return [
        Wanted(listed, None, str(table)) if isinstance(table, LoaderError) else Wanted(listed, table)
        for listed in listing
        for table in [found[listed.name]]
    ]


def draft_many(
    origin: str, wanted: Sequence[Wanted], patterns: Sequence[str], style: Style, taken: Sequence[str] = ()
) -> Draft:
    """The config of tables; one job for those that are alike, if there are a few of them.

    Without `patterns` that mean all of the tables, the job names its tables one by one.
    """
    key = style.key or KEY
    oddities = [_oddity(each, key, style.database) for each in wanted]
    alike = [each for each, oddity in zip(wanted, oddities, strict=True) if not oddity]
    if len(alike) < LEAST:
        return draft_config(origin, wanted, style, taken=taken)
    others = [each for each, oddity in zip(wanted, oddities, strict=True) if oddity]
    (name,) = job_names([*taken, style.database])[len(taken) :]
    columns = sorted(f"{each.listed.name}.{column}" for each in alike for column in _secret_columns(each))
    why = {each.listed.name: oddity for each, oddity in zip(wanted, oddities, strict=True) if oddity and patterns}
    patterns = patterns or [each.listed.name for each in alike]
    lines = tuple(_lines(name, key, alike, patterns, why, columns))
    apart = replace(style, separators=(":", *style.separators), joint=":", has_hints=False)
    return draft_config(origin, others, apart, ManyTables(name, lines, tuple(columns)), taken)


def _oddity(wanted: Wanted, key: str, database: str) -> str:
    """Why a table needs a job of its own, or none; empty if it is like the others."""
    table, name = wanted.table, wanted.listed.name
    if table is None:
        return "may not be read"
    words = {
        "a view": wanted.listed.is_view,
        "no primary key": not table.primary_key,
        "some of its columns may not be read": bool(table.withheld),
        "its name has characters that mean something in keys and patterns": not NAME.fullmatch(name),
    }
    if found := [text for text, holds in words.items() if holds]:
        return found[0]
    try:
        parts = key_of(key, {"table": name, "database": database, "source": "source"}, table.primary_key)
        plan = make_plan(job_of(name, {"table": name, "key": template_of(parts)}), table)
    except (PlanError, ValueError):
        return f"its key does not fit {key}"
    own = "its keys would begin like the loader's own" if parts[0][0].startswith(PREFIX) else ""
    return own or "; ".join(plan.warnings).replace(f"{template_of(parts)!r} ", "")


def _secret_columns(wanted: Wanted) -> list[str]:
    columns = wanted.table.columns if wanted.table else ()
    return [column.name for column in columns if not column.hidden and is_secret(column.name)]


def _lines(
    name: str,
    key: str,
    alike: Sequence[Wanted],
    patterns: Sequence[str],
    why: dict[str, str],
    secrets: Sequence[str],
) -> Iterator[str]:
    """The job's lines in the file; hints first, once for all jobs."""
    yield "  # Further options of any job:"
    for line, what in (*_common_hints(alike), *ALWAYS):
        if len(beside := f"  #   {line:22}  # {what}") <= 100:
            yield beside
        else:
            yield from wrapped(what, "  #   # ")
            yield f"  #   {line}"
    yield ""
    rows = sum(each.listed.rows or 0 for each in alike)
    size = rough_size(sum(each.listed.bytes or 0 for each in alike))
    yield f"  {mapping_key(name)}:  # {counted(len(alike), 'table')}, about {counted(rows, 'row')}, {size}"
    if len(patterns) == 1:
        yield f"    tables: {quoted(patterns[0])}"
    else:
        yield "    tables:"
        yield from (f"      - {scalar(pattern)}" for pattern in patterns)
    if why:
        yield "    exclude:  # each has its own job below, or none yet"
        for table, reason in why.items():
            yield f"      - {_literally(table)}  # {in_comment(reason)}"
    yield f"    key: {quoted(key)}  # {{pk}}: the columns of the primary key"
    if secrets:
        more = f" and {len(secrets) - NAMED:,} more" if len(secrets) > NAMED else ""
        yield from wrapped(
            f"Columns that look like secrets, and are copied like all others: {', '.join(secrets[:NAMED])}{more}."
            " To leave one out, exclude its table here and give it a job with `fields` of its own.",
            "    # ",
        )


def _literally(table: str) -> str:
    """A table's name as a pattern that matches it alone: a dot would be one behind a database."""
    if NAME.fullmatch(table):
        return scalar(table)
    if "." in table or table.startswith("/"):
        return quoted("/" + re.escape(table).replace(r"\.", "[.]") + "/")
    return quoted(re.sub(r"([*?[])", r"[\1]", table))


def _common_hints(alike: Sequence[Wanted]) -> list[tuple[str, str]]:
    """The hints that fit all of the tables."""
    common: dict[tuple[str, str], int] = {}
    for each in alike:
        assert isinstance(each.table, Table)
        name = each.listed.name
        for hint in hints(
            each.listed, each.table, name, {"table": name, "key": f"{name}:{{{each.table.primary_key[0]}}}"}
        ):
            common[hint] = common.get(hint, 0) + 1
    return [hint for hint, count in common.items() if count == len(alike) and hint not in ALWAYS]
