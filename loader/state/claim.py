"""Claims of job names in a target: two configs with the same name would share slots, status and rows.

The first run of a name that ends well claims it, under `loader:{job}:claim`: with its source, table and key prefix. A
config that differs in these is another one, and refused. The query, fields and so on may be changed at any time; work
done before the change then no longer counts, which the *fingerprint* reveals.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from hashlib import sha256

from loader.config.models import JobConfig
from loader.config.servers import SourceConfig
from loader.errors import Foreign, StateError
from loader.records import dataclass
from loader.redis.key_reader import KeyReader
from loader.state.stored_json import recalled
from loader.state_keys import foreign, own_key

VERSION = 1
WORDS = {"source": "it reads from", "table": "its table is", "prefix": "its keys begin with"}
CONTENT = frozenset({"table", "query", "key", "fields", "where", "soft_delete", "nulls", "ttl"})

Claim = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A claim as it is stored; that of a query has no table."""

    source: str
    prefix: str
    table: str | None = None


def claim_of(source: SourceConfig, job: JobConfig) -> Claim:
    """The identity of a job; a query may be changed like fields, and is not part of it."""
    return {"source": source.address, "prefix": job.prefix} | ({"table": job.table} if job.table else {})


def fingerprint(source: SourceConfig, job: JobConfig) -> str:
    """Twelve digits that differ if other rows, or other hashes of them, are configured."""
    return _fingerprint(source.address, _Same(job))


class _Same:
    """A job, to be told from another by its identity: nobody changes one."""

    def __init__(self, job: JobConfig) -> None:
        self.job = job

    def __hash__(self) -> int:
        return id(self.job)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.job is self.job


@lru_cache(4096)
def _fingerprint(address: str, same: _Same) -> str:
    content = same.job.model_dump(mode="json", include=set(CONTENT))
    return sha256(json.dumps([address, content], sort_keys=True).encode()).hexdigest()[:12]


class Claims:
    """The claim of one job in its target."""

    def __init__(self, target: KeyReader, job: str) -> None:
        self._target = target
        self._job = job
        self._key = own_key(job, "claim")
        self._known: Claim = {}  # as it was checked, under the job's lock

    def differing(self, own: Claim) -> Claim:
        """What of the claim differs from this config, as it was claimed; a `StateError` if that is unknown."""
        there = self._known = self._read()
        return {name: there[name] for name in WORDS if name in there and name in own and there[name] != own[name]}

    def refusal(self, own: Claim) -> str:
        """Why this config may not use the name, for people; empty if it may, a `StateError` if that is unknown."""
        there = self.differing(own)
        if not there:
            return ""
        differs = ", ".join(f"{WORDS[name]} {claimed!r}, and {own[name]!r} here" for name, claimed in there.items())
        return (
            f"job {self._job!r} in this target belongs to another config: {differs}: give the job another"
            " name, or another target or database; if this job itself has moved, run"
            f" `loader sync {self._job} --restart`"
        )

    def check(self, own: Claim) -> None:
        """Raise `Foreign` if the name belongs to another config."""
        if refusal := self.refusal(own):
            raise Foreign(refusal)

    def take(self, own: Claim) -> None:
        """Claim the name, under the job's lock."""
        if self._known == own:
            return
        try:
            there = self._read()
        except StateError:  # the job has moved, and a person has confirmed it
            there = {}
        if there != own:
            self._target.ask(self._key.encode(), "SET", self._key, json.dumps({"version": VERSION, **own}))

    def _read(self) -> dict[str, str]:
        """The stored claim; None if no run of this version has ended, a `StateError` if it is not a claim."""
        text = self._target.ask(self._key.encode(), "GET", self._key)[1]
        if text is None:
            return {}
        try:
            kept = asdict(recalled(_Kept, text, VERSION))
        except ValueError as error:
            raise foreign(self._key, f"does not say which config has the name ({error})") from error
        return {name: value for name, value in kept.items() if value is not None}
