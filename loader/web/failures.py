"""The failures of a job since it last ended well, from its history and from the runs here. No I/O."""

from dataclasses import replace

from loader.records import dataclass
from loader.state.history import KEPT, RunRecord


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed runs in a row; times in seconds since 1970. There may be more than `KEPT`, which are not counted."""

    count: int
    since: float  # when the first of them began
    last: float  # when the latest ended
    error: str  # of the latest

    @property
    def more(self) -> bool:
        """Whether there may have been earlier ones."""
        return self.count >= KEPT


def after(known: Failures | None, run: RunRecord) -> Failures | None:
    """The failures in a row after one more run is known, which may have ended before the latest of them."""
    if run.status != "failed":
        return None if known is None or run.ended >= known.last else known
    if known is None:
        return Failures(1, run.began, run.ended, run.error or "")
    count, since = min(KEPT, known.count + 1), min(known.since, run.began)
    if run.ended < known.last:
        return replace(known, count=count, since=since)
    return Failures(count, since, run.ended, run.error or "")


def in_a_row(entries: tuple[RunRecord, ...]) -> list[list[RunRecord]]:
    """Runs, newest first, with those together that failed one after another for the same reason."""
    groups: list[list[RunRecord]] = []
    for entry in entries:
        first = groups[-1][0] if groups else None
        if first and entry.status == "failed" and (first.status, first.error) == (entry.status, entry.error):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups
