"""What a later run may build on: that the target still holds all that the runs before it have written.

A run that leaves rows out, because they were not changed, needs to know. The baseline of a job, under
`loader:{job}:baseline`, says what its last run was planned from; it stands as long as that is still the plan, the
markers of that run are on every master, and no master has thrown keys away since.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loader.masters import lives
from loader.slots import slot_of
from loader.state import MARKER_WAIT, difference, leave_markers, lost_markers
from loader.target import Target

VERSION = 1


@dataclass(frozen=True, slots=True)
class Baseline:
    """A run that ended well: its id, what it was planned from, its markers, and evictions by the server's own id.

    `full` is when everything was read last, in seconds since 1970; `more` is what the way of reading adds.
    """

    run: str
    facts: Mapping[str, str]
    markers: tuple[str, ...]
    evictions: Mapping[str, int]
    full: float
    more: Mapping[str, Any] = field(default_factory=dict)


class Baselines:
    """The baseline of one job in its target."""

    def __init__(self, target: Target, job: str) -> None:
        self._target = target
        self._marker = f"loader:standing:{job}"
        self._key = f"loader:{{{job}}}:baseline"

    def read(self) -> Baseline | None:
        """The baseline; None where there is none that this program wrote."""
        text = self._target.ask(self._key.encode(), "GET", self._key)[1]
        try:
            values = json.loads(text or "")
            if values.pop("version") != VERSION:
                return None
            return Baseline(**values | {"markers": tuple(values["markers"])})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def doubt(self, baseline: Baseline, facts: Mapping[str, str]) -> str:
        """Why a run with these facts cannot build on it, in words; empty where it can."""
        if changed := difference(baseline.facts, facts):
            return f"the plan was changed: {changed}"
        if lost := lost_markers(self._target, baseline.markers, baseline.run):
            return f"the target was emptied, in part or whole: markers are gone ({', '.join(lost)})"
        slots = self._target.slots
        vouched = {slots.node_of(slot_of(key.encode())) for key in baseline.markers}
        if strange := set(slots.nodes) - vouched:
            return f"masters are new: {', '.join(sorted(map(str, strange)))}"
        for node, (life, evicted, evicts) in lives(self._target).items():
            before = baseline.evictions.get(life)
            if before is None and evicts:
                return f"redis {node} was started anew, and throws keys away once it is full"
            if before is not None and evicted != before:
                return f"redis {node} has thrown keys away"
        return ""

    def save(self, run: str, facts: Mapping[str, str], full: float, more: Mapping[str, Any]) -> None:
        """Have a run that ended well be what the next one builds on."""
        evictions = {life: evicted for life, evicted, _ in lives(self._target).values()}
        baseline = Baseline(run, facts, leave_markers(self._target, self._marker, run), evictions, full, more)
        text = json.dumps({"version": VERSION, **asdict(baseline)})
        self._target.ask(self._key.encode(), "SET", self._key, text)

    def void(self) -> None:
        """Have the next run read and write everything: someone else writes hashes of the job. A replica knows it."""
        node, _ = self._target.ask(self._key.encode(), "DEL", self._key)
        if node in self._target.replicated:
            self._target.command(node, "WAIT", 1, MARKER_WAIT)
