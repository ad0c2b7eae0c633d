"""What a run leaves in the target: checkpoint, markers, owed prune and fields, under `loader:{job}:…`.

State lives where the rows live, so a flushed cache has lost its checkpoint with its rows, and no resume can skip rows
that are gone. Markers tell of a master that was emptied alone, see `markers`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from loader.errors import StateError
from loader.model import Chunk, KeyValues, is_literal
from loader.redis.client import RedisClient
from loader.state.earlier import EarlierFacts
from loader.state.markers import Markers
from loader.state.stored_json import built, listed, parsed, recalled
from loader.state_keys import foreign, own_key, spread_key

VERSION = 3
MAY_BE_UNKNOWN = {  # facts that are not noted of every job, nor by every version, and what it is that differs
    "created": "the table was altered, rebuilt or replaced, or is another server's: its time of creation",
    "inside": "the table was emptied, rebuilt or replaced, or is another server's: its number in InnoDB",
    "generated": "the generated columns",
    "server's time zone": "the time zone of MySQL's sessions",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Chunks that a run still owes, and the key from which nothing was planned yet (None with `ended`: all was).

    `facts` is what the run was planned from, see `Plan.facts`; `markers` are the keys it left on the masters, and
    `marks` what has to stand there, by key and field, as long as no chunk is lost that is not owed; `rejected` counts
    the rows it could not write; `start` is what a later run needs to know of the run's beginning.
    """

    run: str
    facts: Mapping[str, str]
    markers: tuple[str, ...]
    owed: tuple[Chunk, ...] = ()
    after: KeyValues | None = None
    ended: bool = False
    number: int = 1  # of the next chunk
    rejected: int = 0
    start: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def ends(self) -> tuple[KeyValues, ...]:
        """The keys at which something owed begins or ends."""
        ends = (self.after, *(end for chunk in self.owed for end in (chunk.after, chunk.upto)))
        return tuple(end for end in ends if end is not None)


class StateStore:
    """The state of one job in its target, or of one shard (I, N) of it; a run that `resumes` has markers of its own."""

    def __init__(
        self, target: RedisClient, job: str, shard: tuple[int, int] | None = None, *, resumes: bool = True
    ) -> None:
        self._target = target
        self.marker = spread_key("marker" if resumes else "passing", job, shard)
        self._key = own_key(job, "checkpoint", shard)
        self._prune = own_key(job, "prune")
        self._fields = own_key(job, "fields")
        self._resumes = resumes

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint, in one command."""
        text = json.dumps({"version": VERSION, **asdict(checkpoint)})
        self._target.ask(self._key.encode(), "SET", self._key, text)

    def read(self) -> Checkpoint | None:
        """The checkpoint of an unfinished run; a `StateError` where it is none that this program wrote."""
        text = self._target.ask(self._key.encode(), "GET", self._key)[1]
        if text is None:
            return None
        try:
            saved = recalled(Checkpoint, text, VERSION)
            if not all(is_literal(value) for end in saved.ends for value in end):
                raise ValueError("it has a key that is no literal")  # noqa: TRY301
            if len({chunk.number for chunk in saved.owed}) < len(saved.owed):
                raise ValueError("it numbers its chunks wrongly")  # noqa: TRY301
            if "began" in saved.start:
                built(_Begin, {"since": saved.start["began"]})
        except ValueError as error:
            raise foreign(self._key, f"cannot be read ({error})") from error
        return saved if "marks" in parsed(text) else replace(saved, facts=EarlierFacts(saved.facts))

    def misfit(self) -> StateError:
        """The error that the checkpoint of this very plan has keys that are none of its table."""
        return foreign(self._key, "cannot be read (it has a key that does not fit the table)")

    def fields(self) -> frozenset[str]:
        """The fields that hashes of the job may hold, as far as runs have noted it.

        A `StateError` where that is none that this program wrote.
        """
        text = self._target.ask(self._fields.encode(), "GET", self._fields)[1]
        try:
            return frozenset() if text is None else frozenset(listed(text))
        except ValueError as error:
            raise foreign(self._fields, f"cannot be read ({error})") from error

    def add_fields(self, names: frozenset[str]) -> None:
        """Note more fields that hashes of the job may hold."""
        try:
            known = self.fields()
        except StateError:  # it was written meanwhile
            known = frozenset()
        if not names <= known:
            self.set_fields(names | known)

    def set_fields(self, names: frozenset[str]) -> None:
        """Note which fields hashes of the job may hold, and no others."""
        self._target.ask(self._fields.encode(), "SET", self._fields, json.dumps(sorted(names)))

    def owe_prune(self, run: str) -> None:
        """Note that a prune is due, after a full sync, until `settle_prune`: a kill in between does not put it off."""
        self._target.ask(self._prune.encode(), "SET", self._prune, run)

    def owes_prune(self) -> bool:
        """Whether a prune is due, whoever has noted it."""
        return bool(self._target.ask(self._prune.encode(), "EXISTS", self._prune)[1])

    def settle_prune(self) -> None:
        """Note that a prune was carried out, or refused to a person."""
        self._target.ask(self._prune.encode(), "DEL", self._prune)

    def markers(self, run: str) -> Markers:
        """The markers of a run, that has left them or is about to."""
        return Markers(self._target, self.marker, run)

    def void(self) -> None:
        """Delete the checkpoint of an earlier run, for good: the markers of a new one must not vouch for it."""
        self._target.keep(self._key.encode(), ("DEL", self._key))

    def forget(self, markers: Markers) -> None:
        """Delete the checkpoint, where the run has one, and its markers."""
        if self._resumes:
            self._target.ask(self._key.encode(), "DEL", self._key)
        markers.forget()


@dataclass(frozen=True, slots=True)
class _Begin:
    """When a run began, in seconds since 1970."""

    since: float


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """What of a plan has changed since a checkpoint, in words; None where nothing has.

    What tells a table or a server from another may be unknown on either side, and says nothing then.
    """
    if isinstance(before, EarlierFacts):
        now = before.compared_with(now)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    changed = [name for name in names if name not in MAY_BE_UNKNOWN or (name in before and name in now)]
    if not changed:
        return None
    return "; ".join(
        f"{MAY_BE_UNKNOWN.get(name, name)} was {before.get(name)!r} and is {now.get(name)!r}" for name in changed
    )
