"""The loader's own keys in Redis: the type of each, and how to fix one that this program did not write."""

import re

from loader.errors import StateError
from loader.records import dataclass

PREFIX = "loader:"  # the beginning of all of them
OWN = re.compile(
    PREFIX + r"(?:\{(?P<job>.+)\}:(?P<name>[a-z]+)(?::(?P<shard>\d+/\d+))?|(?P<spread>[a-z]+):.+)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of key: its type in Redis, the effect of deleting it, and a better command to fix it if there is one."""

    type: str
    then: str
    command: str = "DEL {key}"


KINDS = {
    "lock": Kind("hash", "frees the job; do not run it while a run of the job is in progress"),
    "fence": Kind("hash", "fixes it; run it once no run of the job is in progress or suspended anywhere"),
    "runs": Kind("list", "forgets the history of the job"),
    "success": Kind("string", "fixes it, as the next run that ends well does"),
    "checkpoint": Kind("string", "forgets it and loads everything", "loader backfill {job} --restart"),
    "claim": Kind("string", "lets the next run claim the job's name"),
    "fields": Kind("string", "fixes it, as the next run does"),
    "slot": Kind("string", "fixes it, as the next run of the schedule does"),
    "prune": Kind("string", "clears it, as the next prune does"),
    "paused": Kind("string", "resumes the schedule"),
    "rejects": Kind("hash", "forgets all of them", "loader rejects purge {job}"),
    "baseline": Kind("string", "fixes it, as the next run does, which reads everything"),
    "digests": Kind("hash", "fixes it, as the next run does, which writes all rows"),
    "wanted": Kind("string", "lets a follower keep its lock until it is asked again"),
    "chunks": Kind("hash", "fixes it, as the next run does"),
    "position": Kind("string", "makes the next follower read everything first"),
    # spread over the masters
    "marker": Kind("hash", "makes the next run start over"),
    "passing": Kind("hash", "fixes it, as the next run does"),
    "following": Kind("hash", "makes the next follower read everything first"),
    "standing": Kind("hash", "makes the next run read everything"),
    "digest": Kind("string", "makes the next run write its rows"),
}


def own_key(job: str, name: str, shard: tuple[int, int] | None = None) -> str:
    """The key of one kind of state of a job, or of one shard (I, N) of it; all of a job's are in one slot."""
    return f"{PREFIX}{{{job}}}:{name}{_part(shard)}"


def spread_key(name: str, job: str, shard: tuple[int, int] | None = None) -> str:
    """The prefix of a kind's keys that a job has on each master, or anywhere."""
    return f"{PREFIX}{name}:{job}{_part(shard)}"


def _part(shard: tuple[int, int] | None) -> str:
    return f":{shard[0]}/{shard[1]}" if shard else ""


def kind_of(key: str) -> Kind | None:
    """The kind of a key; None if it is not one of the loader's own."""
    match = OWN.fullmatch(key)
    return KINDS.get(match["name"] or match["spread"]) if match else None


def foreign(key: str, what: str) -> StateError:
    """The error for one of the loader's own keys that this program did not write, with the command that fixes it."""
    match, kind = OWN.fullmatch(key), kind_of(key)
    assert match
    assert kind
    command = kind.command.format(key=key, job=match["job"]) + f" --shard {match['shard']}" * bool(match["shard"])
    called = f"the checkpoint {key}" if match["name"] == "checkpoint" else key
    return StateError(key, f"{called} {what}", f"`{command}` {kind.then}", command)


def of_another_type(key: str, seen: str = "") -> StateError:
    """The error for one of the loader's own keys of another type than expected, with the type that was seen."""
    kind = kind_of(key)
    assert kind
    return foreign(key, f"is not a {kind.type}, so this program did not write it ({seen or 'WRONGTYPE'})")
