"""Log lines on stderr, for people or as JSON.

structlog is imported when there is something to log: it takes longer than to load five rows.
"""

import logging
import sys
from contextlib import suppress
from threading import Lock
from typing import Any

from loader.formats import moment, precise_moment
from loader.imports import import_bare, without
from loader.model import Run
from loader.records import dataclass
from loader.report.console import PeopleRenderer, harmless

UNUSED = ("rich", "greenlet", "twisted", "colorama")  # by structlog, for programs that use them
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Stderr:
    """Writes log lines: a stream that nobody reads, or that a full disk refuses, must not end a run or the daemon."""

    def __init__(self) -> None:
        self._lock = Lock()

    def write(self, line: str) -> None:
        """Write what can be written of a line, apart from those of other threads."""
        with self._lock, suppress(OSError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = write  # as structlog calls it


STDERR: Any = _Stderr()


@dataclass(frozen=True, slots=True)
class Log:
    """Set the form of log lines: auto, console or json."""

    form: str
    level: str
    color: bool

    def logger(self, job: str = "", run: str = "") -> Any:
        """A logger on stderr: lines for people on a terminal, JSON for programs elsewhere; of a job, of a run."""
        console = self.form == "console" or (self.form == "auto" and sys.stderr.isatty())
        structlog = _structlog()
        renderer = PeopleRenderer(color=self.color) if console else structlog.processors.JSONRenderer()
        bound = structlog.make_filtering_bound_logger(LEVELS[self.level])
        logger = bound(
            STDERR,
            [
                *([harmless] if console else []),
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                renderer,
            ],
            {},
        )
        return logger.bind(**({"job": job} if job else {}), **({"run": run} if run else {}))

    def take_over(self) -> None:
        """Make the `logging` output of libraries look the same, from warnings on; all of it at level debug."""
        root = logging.getLogger()
        root.handlers = [_Handover(self.logger())]
        root.setLevel(logging.DEBUG if self.level == "debug" else logging.WARNING)


def _structlog() -> Any:
    """The parts of the library that are used, without those that it imports if they are installed."""
    import_bare("structlog", make_filtering_bound_logger="structlog._native")
    with without(*() if "structlog.processors" in sys.modules else UNUSED):
        import structlog
        import structlog.processors
    return structlog


class _Handover(logging.Handler):
    """Passes the logs of a library to our own logger."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        name = record.levelname.lower()
        say = getattr(self._logger, name if name in LEVELS else "error")
        say(record.getMessage(), logger=record.name, **({"exc_info": record.exc_info} if record.exc_info else {}))


def run_facts(run: Run) -> dict[str, Any]:
    """Everything about a finished run except its job and its id; without empty values."""
    facts = {
        "status": run.status.value,
        "exit_code": int(run.exit_code),
        "by": run.by,
        "slot": None if run.slot is None else moment(run.slot),
        "late_seconds": None if run.slot is None else max(0.0, round(run.began - run.slot, 3)),
        "began": precise_moment(run.began),
        "full": run.full,
        "resumed": run.resumed,
        "dry_run": run.dry_run,
        "read": run.read,
        "written": run.written,
        "unchanged": run.unchanged,
        "deleted": run.deleted,
        "rejected": run.rejected,
        "bytes": run.bytes,
        "seconds": round(run.seconds, 3),
        "rows_per_second": round(run.read / run.seconds) if run.seconds else 0,
        "chunks": run.chunks,
        "chunks_done": run.chunks_done,
        "chunks_retried": run.chunks_retried,
        "starts": run.starts,
        "nodes": dict(sorted(run.nodes.items())),
        "waits": {reason: round(seconds, 3) for reason, seconds in sorted(run.waits.items())},
        "rejects_listed": run.listed,
        "watermark": None if run.watermark is None else moment(run.watermark),
        "error": run.error,
    }
    return {name: value for name, value in facts.items() if value is not None}
