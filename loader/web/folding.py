"""The jobs of the overview in the order in which they are looked at, and parts folded under their job. No I/O."""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

from loader.jobs.status import CALM, JobState, attention
from loader.records import dataclass
from loader.web.views import JobView, Overview

STATES = (
    *(JobState.FAILED, JobState.LATE, JobState.REJECTS, JobState.UNKNOWN, JobState.PAUSED),
    *(JobState.RUNNING, JobState.STOPPED, JobState.NEVER, JobState.OK),
)  # in the order in which they are looked at


@dataclass(frozen=True)
class Fold:
    """A job of many tables, on one line: its parts, those that need attention first, and its rows a second."""

    name: str
    parts: Sequence[JobView]
    rates: tuple[float, ...]

    @cached_property
    def groups(self) -> list[tuple[JobState, list[JobView]]]:
        """The parts by their state."""
        found: dict[JobState, list[JobView]] = {}
        for part in self.parts:
            found.setdefault(shown_state(part), []).append(part)
        return [(state, found[state]) for state in STATES if state in found]

    @cached_property
    def attention(self) -> int:
        """How much it needs to be looked at: as much as the worst of its parts."""
        return min(attention(part.status) for part in self.parts)

    @cached_property
    def is_sure(self) -> bool:
        """Whether the state of all parts is known."""
        return all(part.is_sure for part in self.parts)

    @cached_property
    def oldest(self) -> JobView:
        """The part whose last success is the oldest."""
        return min(self.parts, key=lambda part: part.status.success.ended if part.status.success else 0)

    @cached_property
    def next(self) -> JobView:
        """The part that runs next."""
        return min(self.parts, key=lambda part: part.due if part.due and part.status.paused is None else float("inf"))

    @cached_property
    def newest(self) -> JobView:
        """The part that ran last."""
        return max(self.parts, key=lambda part: part.status.last.ended if part.status.last else 0)

    @cached_property
    def rows(self) -> int:
        """The rows that the last runs of all parts read."""
        return sum(part.status.last.rows["read"] for part in self.parts if part.status.last)

    @cached_property
    def rejects(self) -> int:
        """The rows that could not be written."""
        return sum(part.status.rejects for part in self.parts)

    def label(self, part: JobView) -> str:
        """The name of a part within the job."""
        return part.status.job.removeprefix(f"{self.name}/")


def are_urgent(parts: Iterable[JobView]) -> bool:
    """Whether some of these parts need attention."""
    return any(attention(part.status) < CALM for part in parts)


def shown_state(view: JobView) -> JobState:
    """The state under which a part is counted: that of its last run, unless something older needs attention."""
    status = view.status
    if status.state in {JobState.OK, JobState.NEVER, JobState.STOPPED}:
        return JobState.LATE if status.late else JobState.REJECTS if status.rejects else status.state
    return status.state


def states_of(row: JobView | Fold) -> str:
    """All states of a row by which it is found, and `attention` if somebody has to look."""
    if isinstance(row, Fold):
        states = {str(state) for state, _ in row.groups}
        states |= {"late"} if any(part.status.late for part in row.parts) else set()
        urgent = row.attention < CALM
    else:
        status = row.status
        states = {str(status.state), *(["late"] if status.late else []), *(["rejects"] if status.rejects else [])}
        urgent = attention(status) < CALM
    return " ".join([*sorted(states), *(["attention"] if urgent else [])])


def is_calm(view: JobView) -> bool:
    """Whether a line says all of a job: nobody has to look at it, or nothing is known of it."""
    if not view.is_known and view.asked is None:
        return view.status.state is JobState.UNKNOWN
    is_followed = not view.is_followed or (view.lag is not None and not view.waits)
    return states_of(view) == "ok" and not view.status.runs and is_followed


def folded(view: Overview) -> list[JobView | Fold]:
    """The rows of the overview: failed, late, rejects, paused, then the rest by name; parts under their job."""
    parts: dict[str, list[JobView]] = {}
    rows: list[tuple[int, str, JobView | Fold]] = []
    for each in view.jobs:
        if each.part_of:
            parts.setdefault(each.part_of, []).append(each)
        else:
            rows.append((attention(each.status), each.status.job, each))
    for name, found in parts.items():
        fold = Fold(name, _sorted(found), view.rates.get(name, ()))
        rows.append((fold.attention, name, fold))
    return [row for *_, row in sorted(rows, key=lambda row: (row[0], natural(row[1])))]


def _sorted(views: Iterable[JobView]) -> list[JobView]:
    return sorted(views, key=lambda view: (attention(view.status), natural(view.status.job)))


@lru_cache(maxsize=16_384)
def natural(name: str) -> tuple[str, ...]:
    """What a name is sorted by: `t_2` comes before `t_10`."""
    return tuple(f"{len(word):09}{word}" if word.isdecimal() else word.lower() for word in re.split(r"(\d+)", name))
