"""What a run leaves in the target: checkpoint, markers, owed prune and fields, under `loader:{job}:…`.

State lives beside the rows, so a flushed cache loses its checkpoint with its rows, and no resume can skip rows that are
gone. Markers reveal a master that was emptied on its own, see `markers`.
"""

import json
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from loader.errors import StateError
from loader.model import Chunk, KeyValues, is_literal
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.state.earlier import EarlierFacts
from loader.state.markers import Markers
from loader.state.stored_json import built, listed, parsed, recalled, text_of
from loader.state_keys import foreign, own_key, spread_key

VERSION = 3
MAY_BE_UNKNOWN = {  # facts that are not noted of every job, nor by every version, and what it is that differs
    "created": "the table was altered, rebuilt or replaced, or is on another server: its time of creation",
    "inside": "the table was emptied, rebuilt or replaced, or is on another server: its number in InnoDB",
    "generated": "the generated columns",
    "server's time zone": "the time zone of MySQL's sessions",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Chunks that a run still owes, and the key from which nothing was planned yet (None with `ended`: all is planned).

    `facts` are those of the run's plan, see `Plan.facts`; `markers` are the keys it left on the masters, and `marks`
    their required content, by key and field, as long as no loaded chunk is lost; `rejected` counts the rows it could
    not write; `start` is what a later run needs to know of the run's beginning.
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
        """The keys at which an owed chunk begins or ends."""
        ends = (self.after, *(end for chunk in self.owed for end in (chunk.after, chunk.upto)))
        return tuple(end for end in ends if end is not None)


class StateStore:
    """The state of one job in its target, or of one shard (I, N) of it; a run that `resumes` has its own markers."""

    def __init__(
        self, target: RedisClient, job: str, shard: tuple[int, int] | None = None, *, resumes: bool = True
    ) -> None:
        self._target = target
        self.marker = spread_key("marker" if resumes else "passing", job, shard)
        self._key = own_key(job, "checkpoint", shard)
        self._prune = own_key(job, "prune")
        self._fields = own_key(job, "fields")
        self._chunks = own_key(job, "chunks")
        self._resumes = resumes
        self._is_clear = False  # neither a checkpoint nor owners of chunks are there
        self.known: frozenset[str] = frozenset()  # fields, as they were last read

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint, in one command."""
        self._is_clear = False
        text = text_of(checkpoint, VERSION)
        self._target.ask(self._key.encode(), "SET", self._key, text)

    def read(self) -> Checkpoint | None:
        """The checkpoint of an unfinished run; a `StateError` if this program did not write it."""
        text = self._target.ask(self._key.encode(), "GET", self._key)[1]
        if text is None:
            return None
        try:
            saved = recalled(Checkpoint, text, VERSION)
            if not all(is_literal(value) for end in saved.ends for value in end):
                raise ValueError("it has a key that is not a literal")  # noqa: TRY301
            if len({chunk.number for chunk in saved.owed}) < len(saved.owed):
                raise ValueError("it numbers its chunks wrongly")  # noqa: TRY301
            if "began" in saved.start:
                built(_Begin, {"since": saved.start["began"]})
        except ValueError as error:
            raise foreign(self._key, f"cannot be read ({error})") from error
        return saved if "marks" in parsed(text) else replace(saved, facts=EarlierFacts(saved.facts))

    def misfit(self) -> StateError:
        """The error for a checkpoint of this very plan with keys that do not fit its table."""
        return foreign(self._key, "cannot be read (it has a key that does not fit the table)")

    def fields(self) -> frozenset[str]:
        """The fields that hashes of the job may contain, as far as runs have noted them.

        A `StateError` if this program did not write them.
        """
        text = self._target.ask(self._fields.encode(), "GET", self._fields)[1]
        try:
            self.known = frozenset() if text is None else frozenset(listed(text))
        except ValueError as error:
            raise foreign(self._fields, f"cannot be read ({error})") from error
        return self.known

    def add_fields(self, names: frozenset[str]) -> None:
        """Note more fields that hashes of the job may contain."""
        try:
            known = self.fields()
        except StateError:  # written by another run meanwhile
            known = frozenset()
        if not names <= known:
            self.set_fields(names | known)

    def set_fields(self, names: frozenset[str]) -> None:
        """Note which fields hashes of the job may contain, and no others."""
        self._target.ask(self._fields.encode(), "SET", self._fields, json.dumps(sorted(names)))

    def owe_prune(self, run: str) -> None:
        """Note that a prune is due after a full sync, until `settle_prune`: a kill in between does not lose it."""
        self._target.ask(self._prune.encode(), "SET", self._prune, run)

    def owes_prune(self) -> bool:
        """Whether a prune is due, whichever run noted it."""
        return bool(self._target.ask(self._prune.encode(), "EXISTS", self._prune)[1])

    def settle_prune(self) -> None:
        """Note that a prune was carried out, or refused with a message."""
        self._target.ask(self._prune.encode(), "DEL", self._prune)

    def markers(self, run: str) -> Markers:
        """The markers of a run, which has left them or is about to."""
        return Markers(self._target, self.marker, run)

    def void(self) -> None:
        """Delete the checkpoint of an earlier run for good: the markers of a new run must not vouch for it.

        If there is none, the replica that knows of the run's lock knows that too.
        """
        key = self._key.encode()
        if self._target.ask(key, "EXISTS", self._key, self._chunks)[1]:
            self._target.keep(key, ("DEL", self._key, self._chunks))
        self._is_clear = True

    def disown(self) -> None:
        """Forget which workers of other machines have claimed chunks, and are about to: see `lent_lock`."""
        self._is_clear = False
        self._target.ask(self._key.encode(), "DEL", self._chunks)

    def forget(self, markers: Markers) -> None:
        """Delete the checkpoint, if the run has one, the owners of its chunks, and its markers."""
        if self._resumes and not self._is_clear:
            self._target.ask(self._key.encode(), "DEL", self._key, self._chunks)
        markers.forget()


@dataclass(frozen=True, slots=True)
class _Begin:
    """When a run began, in seconds since 1970."""

    since: float


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """The changes of a plan since a checkpoint, for people; None if there are none.

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
