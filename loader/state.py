"""What a run leaves in the target: its checkpoint and its markers, under `loader:{job}:…`.

State lives where the rows live, so a flushed cache has lost its checkpoint with its rows, and no resume can skip rows
that are gone. Markers stand on every master: one that is missing tells of a master that was emptied alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count

from loader.errors import ConfigError
from loader.model import Chunk, KeyValues
from loader.slots import slot_of
from loader.target import Target

VERSION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Chunks that a run still owes, and the key from which nothing was planned yet (None with `ended`: all was).

    `facts` is what the run was planned from, see `Plan.facts`; `markers` are the keys it left on the masters;
    `rejected` counts the rows it could not write, of which `rejects` are the first: key, as latin-1, and reason.
    """

    run: str
    facts: Mapping[str, str]
    markers: tuple[str, ...]
    owed: tuple[Chunk, ...] = ()
    after: KeyValues | None = None
    ended: bool = False
    number: int = 1  # of the next chunk
    rejected: int = 0
    rejects: tuple[tuple[str, str], ...] = ()


class State:
    """The state of one job in its target, or of one shard (I, N) of it."""

    def __init__(self, target: Target, job: str, shard: tuple[int, int] | None = None) -> None:
        part = f":{shard[0]}/{shard[1]}" if shard else ""
        self._target = target
        self._marker = f"loader:marker:{job}{part}"
        self._key = f"loader:{{{job}}}:checkpoint{part}"

    def mark(self, run: str) -> tuple[str, ...]:
        """Leave a marker on every master; return their keys."""
        markers: dict[object, str] = {}
        slots = self._target.slots
        for number in count():
            key = f"{self._marker}:{{{number}}}"
            markers.setdefault(slots.node_of(slot_of(key.encode())), key)
            if len(markers) == len(slots.nodes):
                break
        for key in markers.values():
            self._target.ask(key.encode(), "SET", key, run)
        return tuple(markers.values())

    def lost(self, markers: Sequence[str], run: str) -> list[str]:
        """Markers of a run that are gone."""
        return [key for key in markers if self._target.ask(key.encode(), "GET", key)[1] != run.encode()]

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint, in one command."""
        text = json.dumps({"version": VERSION, **asdict(checkpoint)})
        self._target.ask(self._key.encode(), "SET", self._key, text)

    def read(self) -> Checkpoint | None:
        """The checkpoint of an unfinished run; a `ConfigError` where it is none that this program wrote."""
        text = self._target.ask(self._key.encode(), "GET", self._key)[1]
        if text is None:
            return None
        try:
            values = json.loads(text)
            if values.pop("version") != VERSION:
                raise ValueError("another version wrote it")  # noqa: TRY301
            owed = tuple(Chunk(c["number"], _key(c["after"]), _key(c["upto"])) for c in values.pop("owed"))
            after, markers = _key(values.pop("after")), tuple(values.pop("markers"))
            rejects = tuple((key, reason) for key, reason in values.pop("rejects"))
            return Checkpoint(**values, owed=owed, after=after, markers=markers, rejects=rejects)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"the checkpoint {self._key} cannot be read ({error}): --restart forgets it and loads everything"
            ) from error

    def forget(self, checkpoint: Checkpoint) -> None:
        """Delete the checkpoint and its run's markers."""
        for key in (self._key, *checkpoint.markers):
            self._target.ask(key.encode(), "DEL", key)


def _key(values: Sequence[str] | None) -> KeyValues | None:
    return None if values is None else tuple(values)


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """What of a plan has changed since a checkpoint, in words; None where nothing has."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if not changed:
        return None
    return "; ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in changed)
