"""What rows were, and whether each hash is what was promised of it: the judge of `chaos`, see `promises.py`.

A change came at the latest when MySQL had acknowledged it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from redis.crc import key_slot

from promises import LONG_AGO, Gone, Promise, Void

State = tuple[bytes | None, ...]  # the values of a row's fields; empty for a row that shall have no hash
Hash = Mapping[bytes, bytes]
HIDDEN: State = ()
SHOWN = 300  # characters of a hash that are told


@dataclass(frozen=True, slots=True)
class Version:
    """What a row was from then on: None where there was none. It came after `sent`, and at the latest at `came`."""

    state: State | None
    sent: float
    came: float


class Rows:
    """What the rows of a table were, by the keys of their hashes."""

    def __init__(self, names: Sequence[bytes]) -> None:
        self.names = tuple(names)
        self.versions: dict[bytes, list[Version]] = {}
        self._added: dict[int, tuple[bytes | None, float, float]] = {}  # the place of a field, its value, sent, came

    def note(self, key: bytes, state: State | None, sent: float = LONG_AGO, came: float = LONG_AGO) -> None:
        """A row became this; one that was read before its table got a field has that, too, by now."""
        before = self.versions.setdefault(key, [Version(None, LONG_AGO, LONG_AGO)])
        if before[-1].state == state:
            return
        before.append(Version(state, sent, came))
        while state and (added := self._added.get(len(state))):
            state = (*state, added[0])
            before.append(Version(state, added[1], max(came, added[2])))

    def widen(self, name: bytes, default: bytes | None, sent: float, came: float) -> None:
        """All rows got one more field."""
        if name not in self.names:
            self.names = (*self.names, name)
        width = self.names.index(name)
        self._added[width] = default, sent, came
        for versions in self.versions.values():
            state = versions[-1].state
            if state and len(state) == width:
                versions.append(Version((*state, default), sent, came))

    def forget(self, before: float) -> None:
        """Forget what no row was any more by then."""
        for versions in self.versions.values():
            if len(versions) > 1:
                versions[:] = since(versions, before)

    def hash_of(self, state: State) -> dict[bytes, bytes]:
        """The hash of a row."""
        return {name: value for name, value in zip(self.names, state, strict=False) if value is not None}


def since(versions: Sequence[Version], moment: float) -> list[Version]:
    """What a row was, or may have been, at a moment or later."""
    ends = [*(following.came for following in versions[1:]), float("inf")]
    return [version for version, end in zip(versions, ends, strict=True) if end >= moment]


@dataclass(frozen=True, slots=True)
class Finding:
    """A hash that is not what was promised."""

    key: bytes
    promise: Promise | None
    what: str

    def __str__(self) -> str:
        key = f"{self.key!r} in slot {key_slot(self.key)}"
        if self.promise is None:
            return f"{key} {self.what}"
        run = self.promise
        return f"{run.command} said ok at {run.ended:.1f} (began {run.began:.1f}): {key} {self.what}"


@dataclass(slots=True)
class Judge:
    """Holds the hashes of a table against what was promised of them."""

    rows: Rows
    promises: Sequence[Promise]
    voids: Collection[Void] = field(default_factory=tuple)

    def judge(self, keys: Iterable[bytes], read: Callable[[Sequence[bytes]], Sequence[Hash]]) -> Iterator[Finding]:
        """What is wrong about the hashes of some keys; `read` is asked for them."""
        listed = list(keys)
        for key, found in zip(listed, read(listed), strict=True):
            if finding := self.look(key, found):
                yield finding

    def look(self, key: bytes, found: Hash) -> Finding | None:
        """What is wrong about one hash, which is empty where there is none."""
        versions = self.rows.versions.get(key)
        if versions is None:
            return Finding(key, None, f"is {_short(found)}, and no row has ever made it") if found else None
        slot = key_slot(key)
        voids = [void for void in self.voids if void.meets(key, slot)]
        valid = [p for p in self.promises if not any(void.takes(p) for void in voids)]
        return self._value(key, versions, valid, found) or self._left(key, versions, valid, found)

    def _value(self, key: bytes, versions: Sequence[Version], valid: Sequence[Promise], found: Hash) -> Finding | None:
        for promise in reversed(valid):
            if promise.values and _throughout(versions, promise):
                break
        else:
            return None
        later = since(versions, promise.began)
        states = [version.state for version in later if version.state]
        if not found:
            if len(states) < len(later):  # it was away meanwhile: its hash may be, too
                return None
            return Finding(key, promise, f"is missing, and its row {_told(self.rows, later)}")
        if any(found == self.rows.hash_of(state) for state in states) or (
            promise.torn and self._is_torn(states, found)
        ):
            return None
        old = next((v for v in reversed(versions) if v.state and self.rows.hash_of(v.state) == found), None)
        age = f"has a value of {_at(old.came)}" if old else "has a value that is none of those known"
        return Finding(key, promise, f"{age}, {_short(found)}, and its row {_told(self.rows, later)}")

    def _is_torn(self, states: Sequence[State], found: Hash) -> bool:
        """Whether a hash has all values of one state, and where that has none, maybe one of another state."""
        names = self.rows.names
        allowed = {name: {state[i] for state in states if i < len(state)} for i, name in enumerate(names)}
        for state in states:
            values = dict(zip(names, (*state, *[None] * len(names)), strict=False))
            if found.keys() <= values.keys() and all(
                found.get(name) == value if value is not None else found.get(name) in {*allowed[name], None}
                for name, value in values.items()
            ):
                return True
        return False

    def _left(
        self,
        key: bytes,
        versions: Sequence[Version],
        valid: Sequence[Promise],
        found: Hash,
    ) -> Finding | None:
        """What is wrong about a hash whose row is gone."""
        last = versions[-1]
        if last.state or not found:
            return None
        # What the loader keeps of a job is in few slots, and lost with any of them.
        stained = max((void.until for void in self.voids if not void.soft and void.keys is None), default=LONG_AGO)
        for promise in valid:
            if promise.began <= last.came:
                continue
            if (
                promise.gone is Gone.ALL
                or (promise.gone is Gone.HIDDEN and last.state == HIDDEN and _builds(promise, valid, stained))
                or (promise.gone is Gone.KNOWN and self._is_known(versions, valid, promise, stained))
            ):
                return Finding(
                    key, promise, f"is still there, {_short(found)}, and has had no row since {_at(last.came)}"
                )
        return None

    def _is_known(
        self, versions: Sequence[Version], valid: Sequence[Promise], promise: Promise, stained: float
    ) -> bool:
        """Whether a clean run before, without a break since, has met the row."""
        return any(
            before.chain == promise.chain and stained < before.began < promise.began and _throughout(versions, before)
            for before in valid
            if before.gone is Gone.KNOWN
        )


def _builds(promise: Promise, valid: Sequence[Promise], stained: float) -> bool:
    """Whether a run before it ended well since something was lost: it has said from when on what was changed counts."""
    return any(each.values and stained < each.began and each.ended < promise.began for each in valid)


def _throughout(versions: Sequence[Version], promise: Promise) -> bool:
    """Whether a row with a hash was there from the beginning of a command to its end."""
    return all(version.state for version in since(versions, promise.began) if version.sent <= promise.ended)


def _told(rows: Rows, versions: Sequence[Version]) -> str:
    """What a row has been, in words."""
    now = versions[-1]
    said = "is gone" if not now.state else f"has {_short(rows.hash_of(now.state))}"
    return f"{said} since {_at(now.came)}" + (f", {len(versions) - 1} values before" if len(versions) > 1 else "")


def _short(found: Hash) -> str:
    text = str(dict(sorted(found.items())))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _at(moment: float) -> str:
    return "the beginning" if moment == LONG_AGO else f"{moment:.1f}"
