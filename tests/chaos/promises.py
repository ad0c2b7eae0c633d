"""What the commands that `chaos` types promise once they have ended well, and what takes promises back.

A command that ended well promises of each row that was there from its beginning to its end that the hash has a value
which the row had at that beginning or later. So a hash may be newer than the last promise, by a run that failed or by
whatever else, and never older; and a row that has been there ever since has a hash. Some commands also promise that
hashes without a row are gone.

What Redis itself has lost takes promises back: see `Void`. Times are those of one clock, and on the safe side: a
command began before its process did.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

LONG_AGO = float("-inf")
GRACE = 2.0  # seconds before its end in which a command has looked at Redis for the last time
KEPT = 2  # promises from before the last comparison that still count
OK, LOCKED = 0, 5
FOLLOWS = -2  # the chain of followers, which nothing breaks: each goes on from where the one before was


@dataclass(frozen=True, slots=True)
class Command:
    """A command that was typed for a job, and how it ended; `document` is None where it printed none.

    `shaken`: its lock was taken away, so that another run may have begun beside it. `told` is what it logged.
    """

    job: str
    words: tuple[str, ...]
    began: float
    ended: float
    code: int
    document: Mapping[str, Any] | None = None
    told: str = ""
    shaken: bool = False

    def __str__(self) -> str:
        return f"`{' '.join(self.words)}`"

    @property
    def writes(self) -> bool:
        """Whether it may have changed hashes."""
        return self.code != LOCKED and (self.words[0] != "verify" or "--repair" in self.words)

    @property
    def is_clean(self) -> bool:
        """Whether it is a sync that ended well, and read each chunk once."""
        retried = (self.document or {}).get("chunks", {}).get("retried", 1)
        again = "starts over" in self.told or "all rows are written" in self.told
        sole = self.words[0] == "sync" and "--prune" not in self.words and not self.shaken
        return sole and self.code == OK and not retried and not again


class Gone(Enum):
    """Whose hashes a command deletes."""

    NONE = "none"
    HIDDEN = "rows that the job does not take"
    KNOWN = "rows that the clean run, or follower, before it has met"
    ALL = "all that no row makes"


@dataclass(frozen=True, slots=True)
class Promise:
    """What a command that ended well has promised.

    `values`: of the rows that were there all the time. `lasting`: replicas have it. `goes_on`: the command has done
    something else since it last looked at them. `torn`: a writer that did not end well was there then or later, and may
    have left a hash half written. `chain` is the same for clean runs that build on one another without a break.
    """

    command: Command
    began: float
    ended: float
    values: bool = True
    gone: Gone = Gone.NONE
    lasting: bool = True
    goes_on: bool = False
    torn: bool = False
    chain: int = 0


@dataclass(frozen=True, slots=True)
class Void:
    """What Redis itself has lost, or may have: promises of commands that ended in a span of time, for some keys.

    `begun` takes them back from those that began in the span, however long they took. One that is `soft` does so with
    what is not known to be on a replica, and with nothing else. `slots` and `keys` are None for all.
    """

    why: str
    after: float
    until: float
    slots: frozenset[int] | None = None
    keys: frozenset[bytes] | None = None
    begun: bool = False
    soft: bool = False

    def meets(self, key: bytes, slot: int) -> bool:
        """Whether it is about a key."""
        return (self.slots is None or slot in self.slots) and (self.keys is None or key in self.keys)

    def takes(self, promise: Promise) -> bool:
        """Whether it takes a promise back."""
        if self.soft and promise.lasting:
            return False
        if self.begun or self.soft:
            return self.after <= promise.began <= self.until
        looked = promise.began if promise.goes_on else promise.ended
        return self.after <= promise.ended and looked <= self.until


def promises(commands: Iterable[Command], *, hides: bool, chained: bool) -> list[Promise]:
    """What the commands of one job have promised, the newest last.

    `hides`: the job is told which rows lose their hash; `chained`: it keeps account of the hashes that it has written.
    """
    listed = sorted(commands, key=lambda command: command.began)
    found: list[Promise] = []
    backfills: list[Command] = []  # those that the next one may go on from
    chain = 0
    breaks = [each for each in listed if each.writes and not (chained and each.is_clean)]
    for command in listed:
        clean = chained and command.is_clean and not any(_overlap(each, command) for each in breaks)
        chain += command in breaks
        beside = [each for each in listed if _is_beside(each, command)]
        began = min([command.began, *(each.began for each in beside)])
        if command.words[0] == "backfill" and command.code != LOCKED:
            backfills.append(command)
            began = min(began, _start(backfills).began)
            if command.code == OK:
                backfills.clear()
        if (command.code == OK and command.words != ("follow",)) or _is_mended(command):
            torn = any(each.writes and each.code != OK and each.ended > began for each in listed)
            found.append(replace(_promise(command, began, chain if clean else -1, hides=hides), torn=torn))
    return found


def current(found: Sequence[Promise], last: float) -> list[Promise]:
    """The promises that count at a comparison: those since the last one, and the newest of those before."""
    new = [promise for promise in found if promise.ended > last]
    old = [promise for promise in found if promise.ended <= last]
    values = [promise for promise in old if promise.values and promise.lasting][-KEPT:]
    return [*(p for p in old if p in values or p is old[-1]), *new]


def oldest(commands: Sequence[Command], counting: Sequence[Promise]) -> float:
    """Since when a later comparison may ask what rows were: since what counts, or a backfill to be gone on with."""
    began = [promise.began for promise in counting]
    for command in sorted(commands, key=lambda command: -command.began):
        if command.words[0] == "backfill" and command.code != LOCKED:
            if command.code == OK:
                break
            began.append(command.began)
    return min(began, default=LONG_AGO)


def _promise(command: Command, began: float, chain: int, *, hides: bool) -> Promise:
    name, *options = command.words
    promise = Promise(command, began, command.ended, chain=chain)
    if name == "prune":
        return replace(promise, values=False, gone=Gone.ALL)
    if name == "verify":
        return replace(promise, gone=Gone.ALL, lasting=False)
    if name == "follow":
        return replace(promise, gone=Gone.KNOWN, chain=FOLLOWS)
    if "--prune" in options:
        return replace(promise, gone=Gone.ALL, goes_on=True)
    if chain >= 0:
        return replace(promise, gone=Gone.KNOWN)
    return replace(promise, gone=Gone.HIDDEN if hides else Gone.NONE)


def _is_beside(other: Command, command: Command) -> bool:
    """Whether a run without its lock was still under way when a command began: what it wrote last may be as old."""
    return other.shaken and other.writes and other.began < command.began < other.ended


def _overlap(one: Command, other: Command) -> bool:
    return one.began < other.ended and other.began < one.ended


def _start(backfills: Sequence[Command]) -> Command:
    """Where the newest of some backfills began: it may go on from where those before it were."""
    for command in reversed(backfills):
        if command.document and command.document.get("resumed") is False:
            return command
    return backfills[0]


def _is_mended(command: Command) -> bool:
    """Whether a verification has mended all that it has found."""
    said = command.document or {}
    found = sum(int(said.get(what, 0)) for what in ("missing", "different", "extra"))
    return command.words[0] == "verify" and found > 0 and said.get("repaired") == found
