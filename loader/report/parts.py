"""The results of a job's parts, told as one: what they add up to, and how many parts ended how."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from loader.model import Run
from loader.words import counted

ENDS = ("ok", "rejects", "different", "refused", "stopped", "failed")  # of jobs and parts, the mildest first
NAMED = 3  # failed parts named in a line
COUNTS = ("read", "written", "unchanged", "deleted", "rejected", "bytes", "chunks", "chunks_done", "chunks_retried")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """How the parts of a job ended, by name; parts out of `total` that have no end were not begun."""

    total: int
    ends: Mapping[str, str]

    @property
    def end(self) -> str:
        """How the job ended: as the worst of its parts."""
        return max(self.ends.values(), key=ENDS.index)

    @property
    def failed(self) -> list[str]:
        """The parts that failed."""
        return [name for name, end in self.ends.items() if end == "failed"]

    @property
    def counts(self) -> dict[str, int]:
        """How many parts ended how, those that ended well first."""
        counts = Counter(self.ends.values())
        return {end: counts[end] for end in ENDS if counts[end]}

    @property
    def document(self) -> dict[str, Any]:
        """The keys of a JSON document about them."""
        return {"parts": {"total": self.total} | self.counts, "failed": self.failed}

    def __str__(self) -> str:
        """A line for people."""
        left = self.total - len(self.ends)
        return parts_text(self.total, self.counts | ({"not begun": left} if left else {}), self.failed)


def parts_text(total: int, counts: Mapping[str, int], failed: Sequence[str]) -> str:
    """How many parts of a job are in which state, on a line, and some of those that failed."""
    told = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    more = f" and {len(failed) - NAMED:,} more" if len(failed) > NAMED else ""
    return f"{counted(total, 'part')}: {told}" + (f"; failed: {', '.join(failed[:NAMED])}{more}" if failed else "")


class Gathered(Generic[T]):
    """Results of jobs; those of parts are kept until all of their job are there. `whole` is the job of each part."""

    def __init__(self, jobs: Sequence[str], whole: Mapping[str, str]) -> None:
        self._whole = whole
        self._totals = Counter(whole.get(job, job) for job in jobs)
        self._ends: dict[str, dict[str, str]] = {}
        self._results: dict[str, list[T]] = {}
        self.ends: list[str] = []  # of the jobs that are told
        self.jobs = len(self._totals)

    def add(self, job: str, end: str, result: T | None) -> Iterator[tuple[str, list[T], Parts | None]]:
        """Add how a job or a part ended; yield its job if that is complete, its results, and its parts if it has any.

        A failure may be without a result.
        """
        name = self._whole.get(job, job)
        self._ends.setdefault(name, {})[job] = end
        self._results.setdefault(name, []).extend([] if result is None else [result])
        if len(self._ends[name]) == self._totals[name]:
            yield self._told(name)

    def rest(self) -> Iterator[tuple[str, list[T], Parts | None]]:
        """The jobs of which some parts have ended, and others were not begun."""
        for name in list(self._ends):
            yield self._told(name)

    def _told(self, name: str) -> tuple[str, list[T], Parts | None]:
        parts = Parts(self._totals[name], self._ends.pop(name))
        self.ends.append(parts.end)
        return name, self._results.pop(name), parts if name in self._whole.values() else None


def run_of(job: str, runs: Sequence[Run]) -> Run:
    """The runs of a job's parts as one, with the id and the outcome of the worst; it lasts until the last has ended."""
    worst = max(runs, key=lambda run: ENDS.index(run.status.value))
    nodes = Counter[str]()
    for run in runs:
        nodes.update(run.nodes)
    began = min(run.started for run in runs)
    return Run(
        job=job,
        id=worst.id,
        dry_run=worst.dry_run,
        full=all(run.full for run in runs),
        outcome=worst.outcome,
        resumed=any(run.resumed for run in runs),
        seconds=max(run.started + run.seconds for run in runs) - began,
        nodes=dict(nodes),
        rejects=[reject for run in runs for reject in run.rejects],
        **{name: sum(getattr(run, name) for run in runs) for name in COUNTS},
    )
