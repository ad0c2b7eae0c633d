"""Whose the name of a job is in a target: two configs that share one would take each other's slots, status and rows.

The first run of a name that ends well claims it, under `loader:{job}:claim`: what it reads from, and how its keys
begin. A config that differs in that is another one, and refused. A query, fields and the like may be changed at any
time; what was done for other ones then counts no more, which their *fingerprint* tells.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256

from loader.config.models import JobConfig
from loader.config.servers import SourceConfig
from loader.errors import Foreign, StateError
from loader.redis.key_reader import KeyReader
from loader.state.stored_json import recalled
from loader.state_keys import foreign, own_key

VERSION = 1
WORDS = {"source": "it reads from", "table": "its table is", "prefix": "its keys begin with"}
CONTENT = frozenset({"table", "query", "key", "fields", "where", "soft_delete", "nulls", "ttl"})

Claim = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A claim as it is kept; of a query it has no table."""

    source: str
    prefix: str
    table: str | None = None


def claim_of(source: SourceConfig, job: JobConfig) -> Claim:
    """What makes a job the one it is; a query may be changed as fields may, and makes none another."""
    return {"source": source.address, "prefix": job.prefix} | ({"table": job.table} if job.table else {})


def fingerprint(source: SourceConfig, job: JobConfig) -> str:
    """Twelve digits that are others where other rows, or other hashes of them, are asked for."""
    content = job.model_dump(mode="json", include=set(CONTENT))
    return sha256(json.dumps([source.address, content], sort_keys=True).encode()).hexdigest()[:12]


class Claims:
    """The claim of one job in its target."""

    def __init__(self, target: KeyReader, job: str) -> None:
        self._target = target
        self._job = job
        self._key = own_key(job, "claim")

    def refusal(self, own: Claim) -> str:
        """Why the name is not this config's to use, in words; empty where it is, a `StateError` where nobody knows."""
        there = self._read()
        differs = [
            f"{words} {there[name]!r}, and {own[name]!r} here"
            for name, words in WORDS.items()
            if name in there and name in own and there[name] != own[name]
        ]
        if not differs:
            return ""
        return (
            f"job {self._job!r} in this target is another config's: {', '.join(differs)}: give the job another name, or"
            f" another target or database; if this very job has moved, `loader sync {self._job} --restart` says so"
        )

    def check(self, own: Claim) -> None:
        """Raise `Foreign` where the name is another config's."""
        if refusal := self.refusal(own):
            raise Foreign(refusal)

    def take(self, own: Claim) -> None:
        """Claim the name, under the job's lock."""
        try:
            there = self._read()
        except StateError:  # the job has moved, and a person has said so
            there = {}
        if there != own:
            self._target.ask(self._key.encode(), "SET", self._key, json.dumps({"version": VERSION, **own}))

    def _read(self) -> dict[str, str]:
        """What is there; nothing where no run of this version has been, a `StateError` where it is no claim."""
        text = self._target.ask(self._key.encode(), "GET", self._key)[1]
        if text is None:
            return {}
        try:
            kept = asdict(recalled(_Kept, text, VERSION))
        except ValueError as error:
            raise foreign(self._key, f"does not say whose the name is ({error})") from error
        return {name: value for name, value in kept.items() if value is not None}
