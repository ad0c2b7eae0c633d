"""The parts of jobs of many tables: their tables are looked for in MySQL, with one statement for each source."""

import queue
from collections.abc import Mapping, Sequence
from dataclasses import field

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.config.parts import Pattern, Selection, piece_of_name
from loader.config.servers import SourceConfig
from loader.errors import LoaderError
from loader.mysql.catalog import TableName, base_tables
from loader.mysql.connection import Connection
from loader.process import start_thread
from loader.records import dataclass


@dataclass(slots=True)
class Expansion:
    """A config whose open jobs have become parts, and why a source could not be asked for its tables, by its name.

    An open job that found no table stays as it is, and so does one of a source that could not be asked, unless its
    tables were known before: to run it fails, with the reason.
    """

    config: Config
    failures: dict[str, LoaderError | OSError] = field(default_factory=dict)


def expand(config: Config, known: Config | None = None) -> Expansion:
    """Look for the tables of all open jobs; those of a source that cannot be asked are as they were in `known`.

    Raises a `ConfigError` if the keys of two parts clash. Asks no server if there is no open job.
    """
    wanted: dict[str, list[JobConfig]] = {}
    for job in config.jobs.values():
        if job.is_open:
            wanted.setdefault(job.origin.source, []).append(job)
    if not wanted:
        return Expansion(config)
    found = _look(config, wanted)
    failures = {name: tables for name, tables in found.items() if isinstance(tables, Exception)}
    jobs: dict[str, JobConfig] = {}
    for job in config.jobs.values():
        if not job.is_open:
            jobs[job.name] = job
            continue
        tables = found[job.origin.source]
        source = config.source_of(job)
        names = _known(known, job, source) if isinstance(tables, Exception) else _taken(job, source, tables)
        jobs |= {part.name: part for part in (_part(job, source, *name) for name in names)} or {job.name: job}
    return Expansion(config.with_jobs(jobs), failures)


def _look(
    config: Config, wanted: Mapping[str, Sequence[JobConfig]]
) -> dict[str, Sequence[TableName] | LoaderError | OSError]:
    """The tables of each source, or why they are not known; all sources are asked at the same time."""
    answers: queue.SimpleQueue[tuple[str, Sequence[TableName] | LoaderError | OSError]] = queue.SimpleQueue()

    def ask(name: str, *, everywhere: bool) -> None:
        try:
            with Connection(config.named_sources[name]) as source:
                answers.put((name, base_tables(source, everywhere=everywhere)))
        except (LoaderError, OSError) as error:
            answers.put((name, error))
        except BaseException as error:
            answers.put((name, LoaderError(f"unexpected {type(error).__name__}")))
            raise

    for name, jobs in wanted.items():
        everywhere = any(Pattern(text).names_database for job in jobs for text in job.tables or ())
        start_thread(lambda name=name, everywhere=everywhere: ask(name, everywhere=everywhere))
    return dict(answers.get() for _ in wanted)


def _taken(job: JobConfig, source: SourceConfig, tables: Sequence[TableName]) -> list[TableName]:
    selection = Selection(job.tables or (), job.exclude)
    return [each for each in tables if selection.takes(*each, source.database)]


def _known(known: Config | None, job: JobConfig, source: SourceConfig) -> list[TableName]:
    """The tables that a job had before."""
    before = known.jobs.values() if known else ()
    return [
        (each.origin.database or source.database, each.table or "") for each in before if each.origin.piece == job.name
    ]


def _part(job: JobConfig, source: SourceConfig, database: str, table: str) -> JobConfig:
    """The part of an open job that is one table."""
    has_databases = any(Pattern(text).names_database for text in job.tables or ())
    steps = [database, table] if has_databases else [table]
    name = "/".join([job.name, *map(piece_of_name, steps)])
    elsewhere = "" if database == source.database else database
    origin = job.origin.of_part(job.part_of or job.name, job.name, elsewhere)
    return job.placed(name, origin, database=database, table=table, tables=None, exclude=())
