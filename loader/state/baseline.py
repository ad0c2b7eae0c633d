"""What a later run may build on: evidence that the target still holds everything that earlier runs have written.

A run that leaves out unchanged rows needs this. The baseline of a job, under `loader:{job}:baseline`, records the plan
of its last run; it is valid as long as the plan is the same, the markers of that run are on every master, and no master
has evicted keys since, as far as it has counted evictions all the time: a master that was restarted, or whose counters
were reset, may have evicted some.
"""

import json
import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from functools import lru_cache
from typing import Any

from loader.errors import StateError
from loader.model import Node
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.key_reader import KeyReader
from loader.redis.servers import Life
from loader.state.checkpoint import difference
from loader.state.earlier import EarlierBaseline, EarlierFacts
from loader.state.markers import Markers
from loader.state.stored_json import LATEST, parsed, recalled, text_of
from loader.state_keys import foreign, own_key, spread_key
from loader.wire.slots import slot_of

VERSION, EARLIER = 2, 1
VOID = "void"  # the whole content if a run without a baseline is no longer trusted


@dataclass(frozen=True, slots=True)
class Baseline:
    """A run that ended well: its id, the facts of its plan, its markers, and the masters at that time.

    `full` is when everything was last read, in seconds since 1970; `more` is for the way of reading; `void` is empty
    unless the baseline is no longer trusted.
    """

    run: str
    facts: Mapping[str, str]
    markers: tuple[str, ...]
    lives: tuple[Life, ...]
    full: float
    more: Mapping[str, Any] = field(default_factory=dict)
    void: str = ""

    @property
    def began(self) -> float | None:
        """When its run began, in seconds since 1970; None if it does not say."""
        began = self.more.get("began")
        if isinstance(began, int | float) and math.isfinite(began) and 0 <= began <= LATEST:
            return float(began)
        return None


class Baselines:
    """The baseline of one job in its target."""

    def __init__(self, target: RedisClient, job: str) -> None:
        self._text: bytes | None = None  # as it was when the run began
        self._target = target
        self._job = job
        self._marker = spread_key("standing", job)
        self._key = own_key(job, "baseline")

    def read(self) -> Baseline | None:
        """The baseline; None if there is none, a `StateError` if this program did not write it."""
        return read_baseline(self._target, self._job)

    def doubt(self, baseline: Baseline, facts: Mapping[str, str], masters: Mapping[Node, Life]) -> str:
        """Why a run with these facts, on these masters, cannot build on it, for people; empty if it can."""
        if baseline.void:
            return "the state left by the last run is no longer trusted"
        if changed := difference(baseline.facts, facts):
            return f"the plan has changed: {changed}"
        seen = Markers(self._target, self._marker, baseline.run, baseline.markers, passing=False).read()
        if lost := [key for key, there in seen.items() if there is None]:
            return f"the target was emptied, wholly or in part: markers are gone ({', '.join(lost)})"
        if strange := (set(self._target.slots.nodes) | masters.keys()) - self._vouched(baseline):
            return f"there are new masters: {', '.join(sorted(map(str, strange)))}"
        before = {life.id: life for life in baseline.lives}
        doubts = (
            (node, doubt(life, before.get(life.id) or before.get(life.process))) for node, life in masters.items()
        )
        return next((f"redis {node} {why}" for node, why in doubts if why), "")

    def covers(self, baseline: Baseline, facts: Mapping[str, str], masters: Iterable[Life]) -> bool:
        """Whether one that a run was built on says all that it would say of a run with these facts, on these masters.

        One of an earlier version does not.
        """
        if isinstance(baseline.facts, EarlierFacts) or baseline.facts != facts:
            return False
        same_lives = {life.id for life in baseline.lives} == {life.id for life in masters}
        return same_lives and self._vouched(baseline) == set(self._target.slots.nodes)

    def _vouched(self, baseline: Baseline) -> set[Node]:
        """The masters that have its markers."""
        slots = self._target.slots
        return {slots.node_of(slot_of(key.encode())) for key in baseline.markers}

    def save(
        self, run: str, facts: Mapping[str, str], masters: Iterable[Life], full: float, more: Mapping[str, Any]
    ) -> None:
        """Make a run that ended well the one that the next run builds on; the masters are as they were when it began.

        Does nothing if the baseline was voided since.
        """
        if self._read() != self._text:
            return
        markers = Markers(self._target, self._marker, run, passing=False)
        markers.leave()
        baseline = Baseline(run, facts, markers.keys, tuple(masters), full, more)
        self._write(baseline)

    def begin(self) -> None:
        """Note the current content: if it is different at the end, the baseline was voided meanwhile."""
        self._text = self._read()

    def void(self, *, under_way: bool = False) -> None:
        """Make the next run read and write everything, and another run that is `under_way` leave nothing to build on.

        The rest of its content stays: an incremental job must know from which time on hashes may have to go.
        """
        token = secrets.token_hex(8)
        try:
            baseline = self.read()
        except StateError:  # nothing builds on it, and the next run reports it
            baseline = None
        if baseline:
            self._write(replace(baseline, void=token))
        elif under_way:
            self._target.keep(self._key.encode(), ("SET", self._key, json.dumps({VOID: token})))

    def _write(self, baseline: Baseline) -> None:
        text = text_of(baseline, VERSION)
        self._target.keep(self._key.encode(), ("SET", self._key, text))

    def _read(self) -> bytes | None:
        text: bytes | None = self._target.ask(self._key.encode(), "GET", self._key)[1]
        return text


def _earlier(text: bytes) -> Baseline | None:
    """The baseline that an earlier version has left; None for one of this version."""
    if parsed(text).get("version") != EARLIER:
        return None
    kept = recalled(EarlierBaseline, text, EARLIER)
    return Baseline(kept.run, EarlierFacts(kept.facts), kept.markers, kept.lives, kept.full, kept.more)


@lru_cache(1024)  # a run reads it twice, and of a table that does not change the next runs read the same
def _read(text: bytes) -> Baseline | None:
    if parsed(text).keys() == {VOID}:
        return None
    return _earlier(text) or recalled(Baseline, text, VERSION)


def read_baseline(target: KeyReader, job: str) -> Baseline | None:
    """The baseline of a job; None if there is not one, a `StateError` if this program did not write it."""
    key = own_key(job, "baseline")
    text = target.ask(key.encode(), "GET", key)[1]
    try:
        return None if text is None else _read(text)
    except ValueError as error:
        raise foreign(key, f"cannot be read ({error})") from error


def doubt(now: Life, before: Life | None) -> str:
    """Why a master may have evicted keys since then, for people; empty if it has not."""
    if before is None:
        return "was restarted, has taken over, or began replication again: it may have evicted keys before"
    if now.has_lost_count(before):
        return "has had its counters reset, and may have evicted keys before"
    return "has evicted keys" if now.evicted != before.evicted else ""
