"""Log lines for people on a terminal: the time, the job, what happened in words, and the facts that matter."""

import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from loader.config.parsers import plain
from loader.formats import size, span, took
from loader.report.screen import CYAN, RED, STATES, YELLOW, columns_of, fold, paint
from loader.words import counted

MARKS: Mapping[str, tuple[str, int]] = {"warning": ("warning: ", YELLOW), "error": ("error: ", RED)}
FRAME = frozenset({"timestamp", "level", "event", "job", "run", "exception", "trace"})
# The facts of events: how each is told by its value; others by their name.
FACTS: Mapping[str, Callable[[Any], str]] = {
    "percent": lambda percent: f"{percent}%",
    "rows": lambda rows: counted(rows, "row"),
    "of": lambda rows: f"of about {rows:,}",
    "rows_per_second": lambda rate: f"{rate:,} rows/s",
    "chunks": lambda count: counted(count, "chunk"),
    "eta_seconds": lambda seconds: f"{span(seconds)} left",
    "waits_for": lambda why: f"waits: {why}",
    "waited_seconds": lambda seconds: f"waited {took(seconds)}",
    "changes_per_second": lambda rate: f"{rate:,} changes/s",
    "keys_per_second": lambda rate: f"{rate:,} keys/s",
    "lag_seconds": lambda seconds: f"{took(seconds)} behind" if seconds else "",
    "lag_bytes": lambda count: f"{size(count)} of binlog behind" if count else "",
    "changes": lambda count: counted(count, "change"),
    "keys": lambda count: counted(count, "key"),
    "written": lambda count: f"{count:,} written",
    "deleted": lambda count: f"{count:,} deleted",
    "gone": lambda count: f"{count:,} gone",
    "rejected": lambda count: f"{count:,} rejected",
    "jobs": lambda jobs: jobs if isinstance(jobs, str) else counted(jobs, "job"),
    "position": lambda position: f"at {position}",
    "seconds": lambda seconds: f"in {took(seconds)}",
    "by": lambda by: f"by {by}" if by else "",
    "why": str,
    "reason": str,
    "error": str,
    "done": str,
}


class PeopleRenderer:
    """Turns an event into lines that fit the terminal of stderr; as structlog calls a processor."""

    def __init__(self, *, color: bool) -> None:
        self._color = color

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> str:
        """The lines of an event."""
        when = str(event["timestamp"])[11:19]
        job = [self._paint(str(event["job"]), CYAN)] if event.get("job") else []
        line = " ".join([when, *job, self._run(event) if event["event"] == "run" else self._words(event)])
        traces = [str(event[name]).rstrip() for name in ("exception", "trace") if event.get(name)]
        return "\n".join([fold(line, columns_of(sys.stderr), len("00:00:00 ")), *traces])

    def _run(self, run: Mapping[str, Any]) -> str:
        """How a run ended: `rejects 1,998 of 2,000 written, 2 rejected, 0.09 s`."""
        more = [f"{run[name]:,} {name}" for name in ("unchanged", "deleted", "rejected") if run[name]]
        more += ["nothing was sent"] if run["dry_run"] else []
        more += ["resumed"] if run["resumed"] else []
        facts = [f"{run['written']:,} of {run['read']:,} written", *more] if run["read"] or "error" not in run else []
        told = f"{', '.join([*facts, took(run['seconds'])])}" if facts else f"after {took(run['seconds'])}"
        error = f": {run['error']}" if "error" in run else ""
        return f"{self._paint(run['status'], STATES[run['status']])} {told}{error}"

    def _words(self, event: Mapping[str, Any]) -> str:
        mark, color = MARKS.get(event["level"], ("", 0))
        if event["event"] == "waiting":
            chunk, seconds = event["chunk"], took(event["seconds"])
            return f"{self._paint(mark, color)}chunk {chunk} is tried again in {seconds}: {event['reason']}"
        told = [_fact(name, value) for name, value in event.items() if name not in FRAME]
        facts = ", ".join(filter(None, told))
        return f"{self._paint(mark, color)}{event['event']}{': ' if facts else ''}{facts}"

    def _paint(self, text: str, color: int) -> str:
        return paint(text, color) if self._color else text


def _fact(name: str, value: Any) -> str:
    if name in FACTS and value is not None:
        return FACTS[name](value)
    return f"{name.replace('_', ' ')} {value}" if value is not None else ""


def harmless(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A line for people without terminal control characters; JSON escapes them anyway."""
    return {name: plain(value) if isinstance(value, str) else value for name, value in event.items()}
