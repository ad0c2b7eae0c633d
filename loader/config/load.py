"""Loads the config: YAML files and the environment in, one frozen `Config` out, or all faults at once."""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from loader.config.fields import Model, Name
from loader.config.files import Document, Keys, Problem, files_of, read_document
from loader.config.models import CHUNK_ROWS, DaemonConfig, IncrementalConfig, JobConfig, ScheduleConfig
from loader.config.servers import SourceConfig, TargetConfig
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


class _CollisionError(ValueError):
    """Jobs with ambiguous keys: the name of each, and the problem."""

    def __init__(self, collisions: Mapping[str, str]) -> None:
        super().__init__("; ".join(collisions.values()))
        self.collisions = collisions


class _Ordered:
    """Jobs in the order of their prefixes: jobs whose keys begin alike are neighbours."""

    def __init__(self, jobs: Mapping[str, JobConfig]) -> None:
        self.of = jobs
        self.jobs = sorted(jobs.values(), key=lambda job: job.prefix)
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
        if job.table != self.first.table or self.first.erases or job.erases:
            self.odd = self.odd or job
            return self.first
        return self.odd


class Config(Model):
    """A source, a target, and the jobs between them."""

    _ordered: _Ordered | None = PrivateAttr(None)
    version: Literal[1] = Field(description="The version of this file format.")
    source: SourceConfig
    target: TargetConfig
    daemon: DaemonConfig = Field(default_factory=DaemonConfig)
    jobs: Annotated[dict[Name, JobConfig], Field(min_length=1)] = Field(description="The jobs by name.")

    @model_validator(mode="after")
    def _jobs_apart(self) -> Self:
        """Name the jobs; refuse two tables under one prefix, because each would see the other's keys as extra.

        Two jobs of one table may share their hashes if neither deletes them by itself.

        No job may write under the loader's own prefix.
        """
        collisions: dict[str, str] = {}
        seen: dict[str, _Namesakes] = {}
        for name, job in self.jobs.items():
            job.take_name(name)
            before = seen.setdefault(job.prefix, _Namesakes(job))
            if job.prefix.startswith(PREFIX):
                collisions[name] = f"keys begin with {PREFIX!r} like the loader's own state; change it"
            elif (other := before.at_odds(job)) and other.table != job.table:
                collisions[name] = f"keys begin with {job.prefix!r} like those of job {other.name}; change one of them"
            elif other:
                collisions[name] = (
                    f"keys begin with {job.prefix!r} like those of job {other.name}, and a hash that a sync deletes"
                    " (incremental, changed_only) is gone for both; change one of them"
                )
        if collisions:
            raise _CollisionError(collisions)
        return self

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
            for job in self.jobs.values()
            if (others := self._others_under(job))
        )
        state = (
            f"jobs.{job.name}.key: if text follows its prefix {job.prefix!r}, a row's key may begin with"
            f" {PREFIX!r} like the loader's own state"
            for job in self.jobs.values()
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


def load_config(files: Sequence[Path] = ()) -> Config:
    """Read the files, or else those of $LOADER_CONFIG, or else the first of the default ones that exists.

    Raises one ConfigError with a line for each fault: `file:line:column: error: path: message`.
    """
    document = read_document(files_of(files), os.environ)
    try:
        config = Config.model_validate(document.values)
    except ValidationError as error:
        document.problems += _faults(error, document)
    if document.problems:
        raise document.error()
    return config


def _faults(error: ValidationError, document: Document) -> Iterator[Problem]:
    """The faults that pydantic found, at their places in the files and in plain words."""
    for fault in error.errors(include_url=False):
        kind, location = fault["type"], fault["loc"]
        path: Keys = location[:2] + tuple(step for step in location[2:] if step not in NOT_KEYS)
        reason = fault.get("ctx", {}).get("error")
        if isinstance(reason, _CollisionError):
            for job, message in reason.collisions.items():
                at: Keys = ("jobs", job, "key")
                yield Problem(document.place(at), at, message)
        elif kind == "extra_forbidden":
            yield Problem(document.keys[location], location, _unknown(location))
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
    if path[0] == "jobs":
        model = JobConfig if len(path) == len(("jobs", "name", "key")) else parts[path[2]]
    else:
        model = Config if len(path) == 1 else tops[path[0]]
    known = list(model.model_fields)
    close = get_close_matches(str(path[-1]), known, n=1)
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; the keys here are {', '.join(known)}"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a config file, for editors."""
    schema = _untitled(Config.model_json_schema())
    assert isinstance(schema, dict)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _untitled(schema: Any) -> Any:
    """Without the titles that only repeat a key."""
    if isinstance(schema, dict):
        return {key: _untitled(value) for key, value in schema.items() if key != "title"}
    return [_untitled(value) for value in schema] if isinstance(schema, list) else schema
