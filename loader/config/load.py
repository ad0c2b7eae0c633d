"""Loads the config: YAML files and the environment in, one frozen `Config` out, or all faults at once."""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator, model_validator

from loader.config.defaults import Defaults, add_schema
from loader.config.fields import Model, Name
from loader.config.files import Document, Keys, Problem, files_of, read_document
from loader.config.models import CHUNK_ROWS, DaemonConfig, IncrementalConfig, JobConfig, ScheduleConfig
from loader.config.parts import Origin
from loader.config.servers import SourceConfig, TargetConfig
from loader.errors import ConfigError
from loader.records import dataclass
from loader.state_keys import PREFIX
from loader.words import nouns

__all__ = ["CHUNK_ROWS", "Config", "JobConfig", "SourceConfig", "TargetConfig", "json_schema", "load_config"]

NAMED = 3  # jobs named in a warning

NOT_KEYS = {"[list]", "[map]", "[key]"}  # steps of pydantic's locations that are not in any file
SEEN = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping", NoneType: "empty"}
QUOTE = {bool, int, float}  # types that quotes would turn into text

WORDS = {  # pydantic's error types in plain words, with pydantic's values for each, and `seen`
    "missing": "this key is required",
    "string_type": "must be text, not {seen}",
    "string_too_short": "must not be empty",
    "string_unicode": "must be UTF-8 text",
    "string_pattern_mismatch": "has characters that are not allowed here",
    "bool_type": "must be true or false, not {seen}",
    "int_type": "must be a whole number, not {seen}",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "model_type": "must be a mapping of keys to values, not {seen}",
    "dict_type": "must be a mapping of keys to values, not {seen}",
    "tuple_type": "must be a list or a mapping, not {seen}",
    "too_short": "must not be empty",
}


class _JobsError(ValueError):
    """Faults of jobs that only the whole config shows: each with the name of its job, and the key that is at fault."""

    def __init__(self, faults: Mapping[tuple[str, str], str]) -> None:
        super().__init__("; ".join(faults.values()))
        self.faults = faults


class _Ordered:
    """Jobs in the order of their prefixes: jobs whose keys begin alike are neighbours."""

    def __init__(self, jobs: Mapping[str, JobConfig]) -> None:
        self.of = jobs
        self.jobs = sorted((job for job in jobs.values() if not job.is_open), key=lambda job: job.prefix)
        self._prefixes = [job.prefix for job in self.jobs]

    def under(self, prefix: str) -> range:
        """The places of the jobs whose keys all begin with a prefix."""
        first = bisect_left(self._prefixes, prefix)
        return range(first, bisect_right(self._prefixes, prefix, lo=first, key=lambda each: each[: len(prefix)]))

    def longer(self, prefix: str) -> Iterator[str]:
        """Longer prefixes that begin with one, except those that begin with another of them."""
        at, end = bisect_right(self._prefixes, prefix), self.under(prefix).stop
        while at < end:
            yield self._prefixes[at]
            at = self.under(self._prefixes[at]).stop


@dataclass(slots=True)
class _Namesakes:
    """Jobs with the same prefix: the first, and the first that a job of another table would conflict with."""

    first: JobConfig
    odd: JobConfig | None = None

    def at_odds(self, job: JobConfig) -> JobConfig | None:
        """The first earlier job whose hashes a job must not share; None if it may share them all."""
        if job is self.first:
            return None
        if _content(job) != _content(self.first) or self.first.erases or job.erases:
            self.odd = self.odd or job
            return self.first
        return self.odd


def _content(job: JobConfig) -> tuple[str, str, str | None]:
    """Which rows a job reads, but for its conditions."""
    return job.origin.source, job.origin.database, job.table


class Config(Model):
    """One source or several, a target, and the jobs between them; those with `tables` may still be open."""

    _ordered: _Ordered | None = PrivateAttr(None)
    version: Literal[1] = Field(description="The version of this file format.")
    sources: Annotated[dict[Name, SourceConfig], Field(min_length=1)] | None = Field(
        default=None, description="Several sources by name; jobs name theirs."
    )
    source: SourceConfig | None = Field(default=None, validate_default=True, description="The only source.")
    target: TargetConfig
    daemon: DaemonConfig = Field(default_factory=DaemonConfig)
    jobs: Annotated[dict[Name, JobConfig], Field(min_length=1)] = Field(description="The jobs by name.")

    @field_validator("source")
    @classmethod
    def _source_or_sources(cls, source: SourceConfig | None, info: ValidationInfo) -> SourceConfig | None:
        sources = info.data.get("sources", ...)
        if source is None and sources is None:
            raise ValueError("this key is required")
        if source is not None and sources is not None:
            raise ValueError("source and sources exclude each other; keep one")
        return source

    @model_validator(mode="after")
    def _placed_apart(self) -> Self:
        """Name the jobs, replace those of several sources by their parts, and refuse keys that cannot be told apart."""
        jobs, faults = dict[str, JobConfig](), dict[tuple[str, str], str]()
        for name, job in self.jobs.items():
            try:
                jobs |= {each.name: each for each in self._placed(name, job)}
            except ValueError as error:
                faults[name, "source"] = str(error)
        if faults:
            raise _JobsError(faults)
        self.jobs.clear()
        self.jobs.update(jobs)
        self._check_apart()
        return self

    def _placed(self, name: str, job: JobConfig) -> Iterator[JobConfig]:
        """A job, or its parts, one for each of its sources."""
        database, table = job.at_table() if job.table else ("", job.table)
        for source in self._sources_of(job):
            own = self.named_sources[source].database
            is_part = isinstance(job.source, tuple)
            origin = Origin(
                source=source,
                database="" if database == own else database,
                part_of=name if is_part else "",
                placed=bool(job.tables or job.source),
            )
            if origin.placed or table != job.table:
                changes = {"table": table, "source": job.source and source}
                yield job.placed(f"{name}/{source}" if is_part else name, origin, database=database or own, **changes)
            else:
                job.take_name(name, origin)
                yield job

    def _sources_of(self, job: JobConfig) -> Sequence[str]:
        """The names of a job's sources; a ValueError if they are not those of `sources`."""
        if self.sources is None:
            if job.source:
                raise ValueError("names a source, and there are no `sources`: there is one `source`, without a name")
            return [""]
        names = [job.source] if isinstance(job.source, str) else job.source or list(self.sources)
        if not job.source and len(names) > 1:
            raise ValueError(f"this key is required; the sources are {', '.join(names)}")
        if unknown := [each for each in names if each not in self.sources]:
            close = get_close_matches(unknown[0], self.sources, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the sources are {', '.join(self.sources)}"
            raise ValueError(f"there is no source {unknown[0]!r}; {hint}")
        return names

    def _check_apart(self) -> None:
        """Refuse two tables under one prefix, because each would see the other's keys as extra.

        Two jobs of one table may share their hashes if neither deletes them by itself.

        No job may write under the loader's own prefix.
        """
        collisions: dict[tuple[str, str], str] = {}
        seen: dict[str, _Namesakes] = {}
        for job in self.jobs.values():
            place = job.part_of or job.name, "key"
            if job.prefix.startswith(PREFIX):
                collisions[place] = f"keys begin with {PREFIX!r} like the loader's own state; change it"
                continue
            before = None if job.is_open else seen.setdefault(job.prefix, _Namesakes(job))
            if place not in collisions and before and (other := before.at_odds(job)):
                collisions[place] = _collision(job, other)
        if collisions:
            raise _JobsError(collisions)

    @property
    def named_sources(self) -> Mapping[str, SourceConfig]:
        """All sources by name; the name of a single `source` is empty."""
        return self.sources or ({"": self.source} if self.source else {})

    def source_of(self, job: JobConfig) -> SourceConfig:
        """The source of a job, with the database of its table."""
        source = self.source or self.named_sources[job.origin.source]
        return source.at_database(job.origin.database) if job.origin.database else source

    def with_jobs(self, jobs: Mapping[str, JobConfig]) -> Self:
        """The same with other jobs, as their tables were found; a `ConfigError` if their keys clash."""
        copy = self.model_copy(update={"jobs": jobs})
        try:
            copy._check_apart()  # noqa: SLF001  # of its own class
        except _JobsError as error:
            lines = (f"error: jobs.{job}.{key}: {message}" for (job, key), message in error.faults.items())
            raise ConfigError("\n".join(lines)) from None
        return copy

    def longer(self, job: JobConfig) -> list[str]:
        """Longer prefixes than the job's that other jobs use, except those that begin with another of them."""
        return list(self._by_prefix.longer(job.prefix))

    def sharing(self, job: JobConfig) -> JobConfig | None:
        """Another job with exactly the same prefix; None if there is none."""
        places = self._by_prefix.under(job.prefix)
        same = (each for each in self._by_prefix.jobs[places.start : places.start + 2] if each.prefix == job.prefix)
        return next((each for each in same if each is not job), None)

    @property
    def _by_prefix(self) -> _Ordered:
        if self._ordered is None or self._ordered.of is not self.jobs:  # a copy may have other jobs
            self._ordered = _Ordered(self.jobs)
        return self._ordered

    @property
    def warnings(self) -> tuple[str, ...]:
        """Settings that are allowed but dangerous, a sentence each."""
        shared = (
            f"jobs.{job.name}.key: all keys of {others} begin with its prefix {job.prefix!r} too"
            for job in self._by_prefix.jobs
            if (others := self._others_under(job))
        )
        state = (
            f"jobs.{job.name}.key: if text follows its prefix {job.prefix!r}, a row's key may begin with"
            f" {PREFIX!r} like the loader's own state"
            for job in self._by_prefix.jobs
            if PREFIX.startswith(job.prefix)
        )
        return (*shared, *state)

    def _others_under(self, job: JobConfig) -> str:
        """The other jobs whose keys begin with a job's prefix, for people; empty if there are none."""
        places = self._by_prefix.under(job.prefix)
        some = (self._by_prefix.jobs[place] for place in places[: NAMED + 1])
        names = [each.name for each in some if each is not job][:NAMED]
        others = len(places) - 1
        more = f" and {others - NAMED:,} more" if others > NAMED else ""
        return f"{nouns(others, 'job')} {', '.join(names)}{more}" if others else ""


def _collision(job: JobConfig, other: JobConfig) -> str:
    """Why the hashes of two jobs cannot be told apart, and what to change."""
    like = f"keys begin with {job.prefix!r} like those of job {other.name}"
    if _content(job) == _content(other):
        return (
            f"{like}, and a hash that a sync deletes (incremental, changed_only) is gone for both; change one of them"
        )
    if job.part_of and job.part_of == other.part_of:
        kinds = zip(("source", "database", "table"), _content(job), _content(other), strict=True)
        missing = next(kind for kind, mine, theirs in kinds if mine != theirs)
        return (
            f"keys of part {job.name} begin with {job.prefix!r} like those of part {other.name}; put {{{missing}}} into"
            " the key, before its first column"
        )
    return f"{like}; change one of them"


def load_config(files: Sequence[Path] = ()) -> Config:
    """Read the files, or else those of $LOADER_CONFIG, or else the first of the default ones that exists.

    Raises one ConfigError with a line for each fault: `file:line:column: error: path: message`.
    """
    document = read_document(files_of(files), os.environ)
    defaults = Defaults(document)
    try:
        config = Config.model_validate(document.values)
    except ValidationError as error:
        document.problems += defaults.told(_faults(error, document))
    if document.problems:
        raise document.error()
    return config


def _faults(error: ValidationError, document: Document) -> Iterator[Problem]:
    """The faults that pydantic found, at their places in the files and in plain words."""
    for fault in error.errors(include_url=False):
        kind, location = fault["type"], fault["loc"]
        path: Keys = location[:2] + tuple(step for step in location[2:] if step not in NOT_KEYS)
        reason = fault.get("ctx", {}).get("error")
        if isinstance(reason, _JobsError):
            for job, message in reason.faults.items():
                at: Keys = ("jobs", *job)
                yield Problem(document.place(at), at, message)
        elif kind == "extra_forbidden":
            yield Problem(document.keys.get(location, document.place(location)), location, _unknown(location))
        elif location[2:] == ("[key]",):
            dots = path[1] and not str(path[1]).strip(".")
            words = "a name cannot consist of dots only" if dots else "a name consists of letters, digits and _ . -"
            yield Problem(document.keys[path], path, words)
        elif path not in document.unknown:
            yield Problem(document.place(path), path, _words(kind, fault, reason))


def _words(kind: str, fault: Mapping[str, Any], reason: object) -> str:
    if reason is not None:
        return str(reason)
    if kind not in WORDS:
        return str(fault["msg"])
    seen = type(fault["input"])
    words = WORDS[kind].format(**fault.get("ctx", {}), seen=SEEN.get(seen, "text"))
    if kind != "string_type":
        return words
    if seen is dict:
        return f"{words}; put text that begins with {{ in quotes"
    return f"{words}; put it in quotes" if seen in QUOTE else words


def _unknown(path: Keys) -> str:
    tops: dict[object, type[Model]] = {"source": SourceConfig, "target": TargetConfig, "daemon": DaemonConfig}
    parts: dict[object, type[Model]] = {"incremental": IncrementalConfig, "schedule": ScheduleConfig}
    if path[0] == "sources":
        model: type[Model] = SourceConfig
    elif path[0] == "jobs":
        model = JobConfig if len(path) == len(("jobs", "name", "key")) else parts[path[2]]
    else:
        model = Config if len(path) == 1 else tops[path[0]]
    known = list(model.model_fields)
    if len(path) == 1:
        known.append("defaults")
    close = get_close_matches(str(path[-1]), known, n=1)
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; the keys here are {', '.join(known)}"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a config file, for editors."""
    schema = _untitled(Config.model_json_schema())
    assert isinstance(schema, dict)
    add_schema(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _untitled(schema: Any) -> Any:
    """Without the titles that only repeat a key."""
    if isinstance(schema, dict):
        return {key: _untitled(value) for key, value in schema.items() if key != "title"}
    return [_untitled(value) for value in schema] if isinstance(schema, list) else schema
