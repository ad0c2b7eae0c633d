"""Adds jobs for new tables to a config that people have edited; not a character of what is there changes."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from loader.cli.init.config_writer import Draft, Style, table_text
from loader.cli.init.many_tables import KEY, draft_many, looked_at
from loader.cli.init.prompts import matching
from loader.cli.init.yaml_text import scalar
from loader.config.load import Config, load_config
from loader.config.models import JobConfig
from loader.config.nodes import compose
from loader.config.parts import Pattern
from loader.errors import ConfigError
from loader.mysql import catalog
from loader.mysql.connection import Connection
from loader.records import dataclass
from loader.words import counted

SOURCE = "~SOURCE~"  # in a key that is tried on a table, in place of {source}


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
    taken = list(dict.fromkeys(job.part_of or job.name for job in config.jobs.values()))
    drafts, tables = list[Draft](), 0
    for names in _alike(config):
        settings = config.named_sources[names[0]]
        jobs = [job for job in config.jobs.values() if job.origin.source in names]
        is_known = _knowledge(jobs, text, settings.database, _source_text(names))
        with Connection(settings) as source:
            listing = matching(catalog.listing(source), patterns)
            wanted = looked_at(source, [listed for listed in listing if not is_known(listed.name)])
        tables += len(listing)
        if not wanted:
            continue
        own = replace(style, database=settings.database, key=_key(style.key, names))
        draft = draft_many(f"database {settings.database} at {settings.endpoint}", wanted, [], own, taken)
        taken += draft.jobs
        drafts.append(replace(draft, text=_placed(draft.text, names)))
        text = with_jobs(str(file), text, drafts[-1].body)
    if not drafts:
        return Updated(f"{file} knows all of {counted(tables, 'table')}; there is nothing to add.")
    whole = Draft(
        "",
        tuple(job for draft in drafts for job in draft.jobs),
        tuple(each for draft in drafts for each in draft.refused),
        tuple(column for draft in drafts for column in draft.secrets),
    )
    words = f"Added {counted(len(whole.jobs), 'job')} to {file}" + (":" if whole.jobs else ", only comments")
    return Updated(words, text, whole)


def _alike(config: Config) -> list[tuple[str, ...]]:
    """The sources of a config by their names: those that one job reads together have the same tables."""
    together: dict[str, dict[str, None]] = {}
    for job in config.jobs.values():
        together.setdefault(job.part_of or job.name, {})[job.origin.source] = None
    groups = [tuple(names) for names in together.values() if len(names) > 1]
    rest = [(name,) for name in config.named_sources if not any(name in group for group in groups)]
    return [group for group in dict.fromkeys(groups) if not any(set(group) < set(other) for other in groups)] + rest


def _key(template: str, names: Sequence[str]) -> str:
    """The template of keys, which name the source if there are several: their tables may have the same names."""
    return (template or f"{{source}}:{KEY}").replace("{source}", SOURCE) if names != ("",) else template


def _placed(text: str, names: Sequence[str]) -> str:
    """The lines of jobs, each with its source, if that has a name."""
    if names == ("",):
        return text
    line = f"source: {_source_text(names)}"
    named = re.sub(
        r"^( +(?:#  +)?)(?=tables?:)", lambda found: f"{found[0]}{line}\n{found[0]}", text, flags=re.MULTILINE
    )
    return named.replace(SOURCE, "{source}")


def _source_text(names: Sequence[str]) -> str:
    """The sources of a job as a config has them; empty for the only one."""
    return f"[{', '.join(map(scalar, names))}]" if len(names) > 1 else scalar(names[0]) if names[0] else ""


def _knowledge(jobs: Iterable[JobConfig], text: str, database: str, source: str) -> Callable[[str], bool]:
    """Whether a table of a source has a job, is left out by one, or is commented out."""
    tables = {job.table.lower() for job in jobs if job.table}
    patterns = [Pattern(text).matcher() for job in jobs for text in (*(job.tables or ()), *job.exclude)]
    left_out = re.findall(r"^\s*#\s+(?:source: (.+)\n\s*#\s+)?table: (.+?)\s*$", text, re.MULTILINE)
    commented = {table for of, table in left_out if of in {"", source}}

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
