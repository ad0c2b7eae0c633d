"""What a person configures: YAML files and the environment in, one frozen `Config` out, or every fault at once."""

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import permutations
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from loader.document import Document, Keys, Problem, files_of, read_document
from loader.settings import CHUNK_ROWS, Daemon, Incremental, Job, Model, Name, Schedule, Source, Target

__all__ = ["CHUNK_ROWS", "Config", "Job", "Source", "Target", "json_schema", "load_config"]

STATE_PREFIX = "loader:"  # what the keys of the loader's own state begin with

NOT_KEYS = {"[list]", "[map]", "[key]"}  # steps of pydantic's locations that no file has
SEEN = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping", NoneType: "empty"}
QUOTE = {bool, int, float}  # what quotes turn into text

WORDS = {  # pydantic's error types in plain words, with what it says about each, and `seen`
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
    """Jobs whose keys cannot be told from others: for each, its name and what is wrong."""

    def __init__(self, collisions: Mapping[str, str]) -> None:
        super().__init__("; ".join(collisions.values()))
        self.collisions = collisions


class Config(Model):
    """A source, a target, and the jobs between them."""

    version: Literal[1] = Field(description="The version of this file format.")
    source: Source
    target: Target
    daemon: Daemon = Field(default_factory=Daemon)
    jobs: Annotated[dict[Name, Job], Field(min_length=1)] = Field(description="The jobs by name.")

    @model_validator(mode="after")
    def _jobs_apart(self) -> Self:
        """Names the jobs; refuses two tables under one prefix, for one's keys would be extra to the other.

        Two jobs of one table may share their hashes where none deletes them by itself.

        The loader's own keys are no rows of any job either.
        """
        collisions: dict[str, str] = {}
        for name, job in self.jobs.items():
            job.take_name(name)
            if job.prefix.startswith(STATE_PREFIX):
                collisions[name] = f"keys begin with {STATE_PREFIX!r} as those of the loader's own state; change it"
            for other in self.jobs.values():
                if other is job or name in collisions:
                    break
                if other.prefix == job.prefix and other.table != job.table:
                    message = f"keys begin with {job.prefix!r} as those of job {other.name}; change one of them"
                    collisions[name] = message
                elif other.prefix == job.prefix and (other.erases or job.erases):
                    collisions[name] = (
                        f"keys begin with {job.prefix!r} as those of job {other.name}, and a hash that a sync deletes"
                        " (incremental, changed_only) is gone for both; change one of them"
                    )
        if collisions:
            raise _CollisionError(collisions)
        return self

    def longer(self, job: Job) -> list[str]:
        """Longer prefixes than the job's, under which other jobs have their keys."""
        own = job.prefix
        return [each.prefix for each in self.jobs.values() if each.prefix != own and each.prefix.startswith(own)]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but dangerous, a sentence each."""
        shared = (
            f"jobs.{job.name}.key: its prefix {job.prefix!r} begins all keys of job {other.name} too"
            for job, other in permutations(self.jobs.values(), 2)
            if other.prefix.startswith(job.prefix)
        )
        state = (
            f"jobs.{job.name}.key: where text follows its prefix {job.prefix!r}, a row's key may begin with"
            f" {STATE_PREFIX!r}, as those of the loader's own state"
            for job in self.jobs.values()
            if STATE_PREFIX.startswith(job.prefix)
        )
        return (*shared, *state)


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
            words = "a name of dots alone is none" if dots else "a name is made of letters, digits and _ . -"
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
    return f"{words}; put it in quotes" if kind == "string_type" and seen in QUOTE else words


def _unknown(path: Keys) -> str:
    tops: dict[object, type[Model]] = {"source": Source, "target": Target, "daemon": Daemon}
    parts: dict[object, type[Model]] = {"incremental": Incremental, "schedule": Schedule}
    if path[0] == "jobs":
        model = Job if len(path) == len(("jobs", "name", "key")) else parts[path[2]]
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
