"""The display of a run in progress: the bar, the log lines, and the reason for waiting.

structlog and rich are imported only when there is something to show: together they take longer than loading five rows.
"""

import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from loader.config.parsers import plain
from loader.model import ChunkLoaded, Notice, Run, RunBegan, RunEnded, RunEvent, Waiting
from loader.outcome import Status
from loader.pipeline.throttle import Throttle
from loader.words import counted

LINE_EVERY = 10.0  # seconds between two progress lines in a log
REDRAW_EVERY = 2.0  # seconds between two checks of the reason for waiting
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
SERIOUS = {Status.OK: "info", Status.REJECTS: "warning", Status.STOPPED: "warning", Status.FAILED: "error"}


class _Stderr:
    """The stream of log lines: one that nobody reads, or that a full disk refuses, must not end a run or the daemon."""

    def write(self, text: str) -> None:
        """Write what can be written."""
        with suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Flush the written lines."""
        with suppress(OSError):
            sys.stderr.flush()


STDERR: Any = _Stderr()  # one for all: structlog has a lock for each stream, which keeps lines apart


@dataclass(frozen=True, slots=True)
class Log:
    """Set the form of log lines: auto, console or json."""

    form: str
    level: str
    color: bool

    def logger(self, job: str = "", run: str = "") -> Any:
        """A logger on stderr: lines for people on a terminal, JSON for programs elsewhere; of a job, of a run."""
        console = self.form == "console" or (self.form == "auto" and sys.stderr.isatty())
        structlog = _structlog(console=console)
        renderer = structlog.dev.ConsoleRenderer(colors=self.color) if console else structlog.processors.JSONRenderer()
        logger = structlog.wrap_logger(
            structlog.PrintLogger(STDERR),
            processors=[
                *([_harmless] if console else []),
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[self.level]),
        )
        return logger.bind(**({"job": job} if job else {}), **({"run": run} if run else {}))

    def take_over(self) -> None:
        """Make the `logging` output of libraries look the same, from warnings on; all of it at level debug."""
        root = logging.getLogger()
        root.handlers = [_Handover(self.logger())]
        root.setLevel(logging.DEBUG if self.level == "debug" else logging.WARNING)


def _harmless(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """A line for people without terminal control characters; JSON escapes them anyway."""
    return {name: plain(value) if isinstance(value, str) else value for name, value in event.items()}


def _structlog(*, console: bool) -> Any:
    """The library; for JSON without rich, which it imports for a terminal: a tenth of a small sync."""
    hidden = not console and "rich" not in sys.modules
    if hidden:
        sys.modules["rich"] = None  # type: ignore[assignment]  # as importing says that there is none
    try:
        import structlog
    finally:
        if hidden:
            del sys.modules["rich"]
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
        "slot": None if run.slot is None else _moment(run.slot),
        "late_seconds": None if run.slot is None else max(0.0, round(run.began - run.slot, 3)),
        "began": datetime.fromtimestamp(run.began, UTC).isoformat(timespec="milliseconds"),
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
        "watermark": None if run.watermark is None else _moment(run.watermark),
        "error": run.error,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def redraw(draw: Callable[[], str], *, color: bool) -> None:
    """Show a text, refreshed every two seconds: in its place on a terminal, below elsewhere."""
    if not sys.stdout.isatty():
        while True:
            print(draw(), flush=True)  # noqa: T201
            time.sleep(REDRAW_EVERY)
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(Text.from_ansi(draw()), console=Console(no_color=not color), auto_refresh=False) as live:
        while True:
            time.sleep(REDRAW_EVERY)
            live.update(Text.from_ansi(draw()), refresh=True)


class Reporter:
    """Shows the progress of a run: a bar on a terminal, a line every ten seconds in a log, or nothing.

    The bar's end is MySQL's estimate of the rows, and so is the remaining time.
    """

    def __init__(self, job: str, style: str, log: Log, doing: str = "loading") -> None:
        if style == "auto":
            style = "bar" if sys.stderr.isatty() else "log"
        self._job = job
        self._run = ""
        self._logger: Any = None
        self._doing = doing
        self._style = log
        self._lines = style == "log"
        self._started = self._said = time.monotonic()
        self._rows = self._chunks = 0
        self._expected: int | None = None
        self._throttle = Throttle()
        self._waiting = ""
        self._bar: Any = None
        if style == "bar":
            self._start_bar()

    @property
    def _log(self) -> Any:
        self._logger = self._logger or self._style.logger(self._job, self._run)
        return self._logger

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
            console=Console(stderr=True, no_color=not self._style.color),
            transient=True,
        )
        self._task = self._bar.add_task(self._job, total=None, note="")
        self._bar.start()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar:
            self._bar.stop()

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Note how many rows are expected, and the object that says why workers wait."""
        self._expected, self._throttle = rows, throttle
        self._rows = self._chunks = 0
        if self._bar:
            self._bar.update(self._task, total=rows or None)

    def count(self, rows: int) -> None:
        """Show how many rows are done."""
        self._rows = rows
        self.notify(None)

    def notify(self, event: RunEvent | None) -> None:
        """Show an event, or after a second without one that the run continues, or why it waits."""
        with suppress(OSError):  # nobody takes what the bar shows
            self._note(event)
            if not isinstance(event, RunBegan | RunEnded):
                self._show()

    def _note(self, event: RunEvent | None) -> None:
        if isinstance(event, RunBegan):
            self._run, self._logger = event.run, None
            if self._lines and self._style.level == "debug":
                self._log.debug("run begins", **({} if event.slot is None else {"slot": _moment(event.slot)}))
        elif isinstance(event, RunEnded):
            self._conclude(event.run)
        elif isinstance(event, Notice):
            self._log.warning(event.text)
        elif isinstance(event, Waiting):
            self._waiting = event.reason
            seconds = round(event.seconds, 1)
            self._log.warning(
                "waiting", chunk=event.chunk.number, attempt=event.attempt, seconds=seconds, reason=event.reason
            )
        elif isinstance(event, ChunkLoaded):
            self._waiting = ""
            self._rows += event.read
            self._chunks += 1
            if self._style.level == "debug":
                self._log.debug(
                    "chunk loaded", chunk=event.chunk.number, rows=event.read, seconds=round(event.seconds, 3)
                )

    def _conclude(self, run: Run) -> None:
        """One line with everything, if there are log lines; the bar's last word is the summary."""
        if self._lines:
            level = "debug" if run.did_nothing else SERIOUS[run.status]  # a daemon checks again until the lock is free
            getattr(self._log, level)("run", **run_facts(run))

    def _show(self) -> None:
        now = time.monotonic()
        rows = max(self._rows, self._throttle.rows)  # including those of chunks in progress
        rate = rows / max(now - self._started, 1e-9)
        why = self._waiting or self._throttle.reason
        if self._bar:
            note = f"{counted(rows, 'row')}, {rate:,.0f} rows/s, chunk {self._chunks}{f', waits: {why}' if why else ''}"
            self._bar.update(self._task, completed=rows, note=plain(note))
        if self._lines and now - self._said >= LINE_EVERY:
            self._said = now
            left = max(0, (self._expected or 0) - rows)
            more: dict[str, str | int] = {"eta_seconds": round(left / rate)} if left and rate else {}
            more |= {"waits_for": why} if why else {}
            self._log.info(self._doing, rows=rows, rows_per_second=round(rate), chunks=self._chunks, **more)
