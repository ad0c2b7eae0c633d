"""Adds jobs for new tables to a config that people have edited; not a character of what is there changes."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from loader.cli.init.config_writer import Draft, Style, table_text
from loader.cli.init.many_tables import draft_many, looked_at
from loader.cli.init.prompts import matching
from loader.cli.init.yaml_text import scalar
from loader.config.load import load_config
from loader.config.models import JobConfig
from loader.config.nodes import compose
from loader.config.parts import Pattern
from loader.errors import ConfigError
from loader.mysql import catalog
from loader.mysql.connection import Connection
from loader.records import dataclass
from loader.words import counted


@dataclass(frozen=True, slots=True)
class Updated:
    """The new text of a config with its new jobs, None if there is nothing new; and words about it for people."""

    words: str
    text: str = ""
    draft: Draft | None = None


def updated(file: Path, patterns: Sequence[str], style: Style) -> Updated:
    """A config with jobs for the tables that have none; a ConfigError if it is not valid, or cannot be added to."""
    config = load_config([file])
    text = file.read_bytes().decode("utf-8-sig")
    if config.source is None:
        raise ConfigError(f"{file}: --update adds tables of one `source`, and this config has `sources`")
    is_known = _knowledge(config.jobs.values(), text, config.source.database)
    with Connection(config.source) as source:
        listing = matching(catalog.listing(source), patterns)
        new = [listed for listed in listing if not is_known(listed.name)]
        wanted = looked_at(source, new)
    if not new:
        return Updated(f"{file} knows all of {counted(len(listing), 'table')}; there is nothing to add.")
    style = replace(style, database=config.source.database)
    origin = f"database {config.source.database} at {config.source.endpoint}"
    draft = draft_many(origin, wanted, [], style, list(config.jobs))
    words = f"Added {counted(len(draft.jobs), 'job')} to {file}" + (":" if draft.jobs else ", only comments")
    return Updated(words, with_jobs(str(file), text, draft.body), draft)


def _knowledge(jobs: Iterable[JobConfig], text: str, database: str) -> Callable[[str], bool]:
    """Whether a table has a job, is left out by one, or is commented out."""
    tables = {job.table.lower() for job in jobs if job.table}
    patterns = [Pattern(text).matcher() for job in jobs for text in (*(job.tables or ()), *job.exclude)]
    commented = set(re.findall(r"^\s*#\s+table: (.+?)\s*$", text, re.MULTILINE))

    def is_known(name: str) -> bool:
        found = name.lower() in tables or scalar(table_text(name)) in commented
        return found or any(pattern.fits(database, name) for pattern in patterns)

    return is_known


def with_jobs(file: str, text: str, body: str) -> str:
    """The text of a config with more jobs behind its last one; `body` are their lines, indented by two."""
    root = compose(text)
    assert root is not None
    keys = [key for key, _ in root.value]
    place = [key.value for key in keys].index("jobs")
    jobs = root.value[place][1]
    lines = text.split("\n")
    if lines[jobs.start_mark.line][jobs.start_mark.column :].startswith("{"):
        raise ConfigError(
            f"{file}: jobs are written in {{ }}, which --update cannot add to: give each job its own line"
        )
    end = keys[place + 1].start_mark.line if place + 1 < len(keys) else len(lines)
    while not lines[end - 1].strip() or lines[end - 1].startswith("#"):
        end -= 1
    before, after = "\n".join(lines[:end]) + "\n", "\n".join(lines[end:])
    indent = " " * int(jobs.start_mark.column)
    added = re.sub("^  (?=.)", indent, body.rstrip("\n"), flags=re.MULTILINE)
    return f"{before}\n{added}\n{after}"
