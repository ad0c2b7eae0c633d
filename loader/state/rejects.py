"""Rows that could not be written: listed in the target with the reason."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from loader.errors import StateError
from loader.model import Reject
from loader.records import dataclass
from loader.redis.key_reader import KeyReader
from loader.state.stored_json import built, parsed
from loader.state_keys import foreign, own_key

REJECTS_KEPT = 10_000  # rejects in a job's list; all are counted
PAGE = 1000  # rejects read at a time


@dataclass(frozen=True, slots=True)
class Rejected:
    """An entry of the list of rejects: why it was not written, when first and last (seconds since 1970), how often.

    `by` is the attempt of a run that listed it last; empty if another version of this program did.
    """

    key: bytes
    reason: str
    first: float
    last: float
    attempts: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the list of rejects, as it is stored."""

    reason: str
    first: float
    last: float
    attempts: int
    by: str = ""


class Rejects:
    """The rows of a job that could not be written, by the key of their hash; without their values."""

    def __init__(self, target: KeyReader, job: str) -> None:
        self._target = target
        self._key = own_key(job, "rejects")
        self.added = False  # any, by this run
        self.strange: set[bytes] = set()  # invalid entries, which were removed or rewritten

    def count(self) -> int:
        """How many are listed."""
        return int(self._ask("HLEN"))

    def add(self, rejects: Sequence[Reject], by: str) -> None:
        """List rows, or list them again, for an attempt of a run; at most `REJECTS_KEPT` in all."""
        if not rejects:
            return
        self.added = True
        room = REJECTS_KEPT - self.count()
        now = self._target.time(self._key)
        for reject in rejects[:REJECTS_KEPT]:
            known = self._ask("HGET", reject.key)
            if known is None and room <= 0:
                continue
            room -= known is None
            before = None if known is None else _rejected(reject.key, known)
            if known is not None and before is None:
                self.strange.add(reject.key)
            before = before or Rejected(reject.key, "", now, now, 0)
            first, attempts = min(before.first, now), before.attempts + 1
            entry = {"reason": reject.reason, "first": first, "last": now, "attempts": attempts, "by": by}
            self._ask("HSET", reject.key, json.dumps(entry))

    def all(self) -> Iterator[Rejected]:
        """All of them; those listed meanwhile may be missing. A `StateError` if one cannot be read."""
        for key, entry in self._entries():
            if entry is None:
                raise foreign(self._key, f"has an entry {ascii(key)[1:]} that this program did not write")
            yield entry

    def remove(self, keys: Sequence[bytes]) -> int:
        """Remove rows from the list; returns how many were on it."""
        return sum(int(self._ask("HDEL", *keys[i : i + PAGE])) for i in range(0, len(keys), PAGE))

    def remove_others(self, by: str) -> None:
        """Remove the rows that this attempt of a run has not listed: it has written them."""
        entries = list(self._entries())
        self.strange |= {key for key, entry in entries if entry is None}
        self.remove([key for key, entry in entries if entry is None or entry.by != by])

    def clear(self) -> int:
        """Forget all; returns how many there were."""
        try:
            count = self.count()
        except StateError:  # it is not a list of rejects at all
            count = 0
        self._ask("DEL")
        return count

    def _entries(self) -> Iterator[tuple[bytes, Rejected | None]]:
        """Each entry by its key; None for one that this program did not write."""
        cursor = b"0"
        while True:
            cursor, flat = self._ask("HSCAN", cursor, "COUNT", PAGE)
            for key, text in zip(flat[::2], flat[1::2], strict=True):
                yield key, _rejected(key, text)
            if cursor == b"0":
                return

    def _ask(self, command: str, *words: str | bytes | int) -> Any:
        return self._target.ask(self._key.encode(), command, self._key, *words)[1]


def _rejected(key: bytes, text: bytes) -> Rejected | None:
    """An entry of the list of rejects; None for one that this program did not write."""
    try:
        entry = built(_Entry, parsed(text))
    except ValueError:
        return None
    return Rejected(key, **asdict(entry))
