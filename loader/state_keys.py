"""The loader's own keys in Redis: what type each has, and what to do about one that this program did not write."""

import re
from dataclasses import dataclass

from loader.errors import StateError

PREFIX = "loader:"  # what all of them begin with
OWN = re.compile(
    PREFIX + r"(?:\{(?P<job>.+)\}:(?P<name>[a-z]+)(?::(?P<shard>\d+/\d+))?|(?P<spread>[a-z]+):.+)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of key: its type in Redis, what deleting it leaves behind, and a better command to fix it."""

    type: str
    then: str
    command: str = "DEL {key}"


KINDS = {
    "lock": Kind("hash", "frees the job: not while a run of it is under way"),
    "fence": Kind("hash", "fixes it: once no run of the job is under way, nor stands still anywhere"),
    "runs": Kind("list", "forgets the history of the job"),
    "success": Kind("string", "fixes it, as the next run that ends well does"),
    "checkpoint": Kind("string", "forgets it and loads everything", "loader backfill {job} --restart"),
    "claim": Kind("string", "has the next run claim the name of the job"),
    "fields": Kind("string", "fixes it, as the next run does"),
    "slot": Kind("string", "fixes it, as the next run of the schedule does"),
    "prune": Kind("string", "has it owed no more, as the next prune does"),
    "paused": Kind("string", "has the schedule go on"),
    "rejects": Kind("hash", "forgets all", "loader rejects purge {job}"),
    "baseline": Kind("string", "fixes it, as the next run does, which reads everything"),
    "digests": Kind("hash", "fixes it, as the next run does, which writes all rows"),
    # spread over the masters
    "marker": Kind("hash", "has the next run begin from the start"),
    "passing": Kind("hash", "fixes it, as the next run does"),
    "standing": Kind("hash", "has the next run read everything"),
    "digest": Kind("string", "has the next run write its rows"),
}


def own_key(job: str, name: str, shard: tuple[int, int] | None = None) -> str:
    """The key of a kind of state of a job, or of one shard (I, N) of it; all of a job are in one slot."""
    return f"{PREFIX}{{{job}}}:{name}{_part(shard)}"


def spread_key(name: str, job: str, shard: tuple[int, int] | None = None) -> str:
    """How the keys of a kind begin that a job has on each master, or anywhere."""
    return f"{PREFIX}{name}:{job}{_part(shard)}"


def _part(shard: tuple[int, int] | None) -> str:
    return f":{shard[0]}/{shard[1]}" if shard else ""


def kind_of(key: str) -> Kind | None:
    """What a key is; None where it is none of the loader's own."""
    match = OWN.fullmatch(key)
    return KINDS.get(match["name"] or match["spread"]) if match else None


def foreign(key: str, what: str) -> StateError:
    """The error that a key of the loader's own is none that this program wrote, and the command that fixes it."""
    match, kind = OWN.fullmatch(key), kind_of(key)
    assert match
    assert kind
    command = kind.command.format(key=key, job=match["job"]) + f" --shard {match['shard']}" * bool(match["shard"])
    called = f"the checkpoint {key}" if match["name"] == "checkpoint" else key
    return StateError(key, f"{called} {what}", f"`{command}` {kind.then}", command)


def of_another_type(key: str, seen: str = "") -> StateError:
    """The error that a key of the loader's own has not the type that it should, but the one that was seen."""
    kind = kind_of(key)
    assert kind
    return foreign(key, f"is no {kind.type}, as it would be if this program had written it ({seen or 'WRONGTYPE'})")
