"""How a run is shown while it goes: the bar, the log lines, and why it waits.

structlog and rich are imported when there is something to show: together they take longer than to load five rows.
"""

import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from loader.model import ChunkLoaded, Noted, Waiting
from loader.throttle import Throttle

LINE_EVERY = 10.0  # seconds between two progress lines in a log
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


@dataclass(frozen=True, slots=True)
class Log:
    """What log lines look like: `form` is auto, console or json."""

    form: str
    level: str
    color: bool

    def logger(self, job: str = "") -> Any:
        """A logger on stderr, of a job or the program: lines for people on a terminal, JSON for programs elsewhere."""
        import structlog

        console = self.form == "console" or (self.form == "auto" and sys.stderr.isatty())
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.dev.ConsoleRenderer(colors=self.color) if console else structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[self.level]),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
        logger = structlog.get_logger()
        return logger.bind(job=job) if job else logger


class Reporter:
    """Shows a run while it goes: a bar on a terminal, a line every ten seconds in a log, or nothing.

    The bar's end is MySQL's estimate of the rows, and so is the time that is left.
    """

    def __init__(self, job: str, style: str, log: Log, doing: str = "loading") -> None:
        if style == "auto":
            style = "bar" if sys.stderr.isatty() else "log"
        self._job = job
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

    @cached_property
    def _log(self) -> Any:
        return self._style.logger(self._job)

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True, no_color=not self._style.color),
            transient=True,
        )
        self._task = self._bar.add_task(self._job, total=None, note="")
        self._bar.start()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Take note of how many rows are to come, and of what says why workers wait."""
        self._expected, self._throttle = rows, throttle
        self._rows = self._chunks = 0
        if self._bar:
            self._bar.update(self._task, total=rows or None)

    def count(self, rows: int) -> None:
        """Show how many rows are done."""
        self._rows = rows
        self.notify(None)

    def notify(self, event: ChunkLoaded | Waiting | Noted | None) -> None:
        """Show an event, or after a second without one that the run goes on, or why it waits."""
        with suppress(BrokenPipeError):  # nobody listens on stderr
            self._note(event)
            self._show()

    def _note(self, event: ChunkLoaded | Waiting | Noted | None) -> None:
        if isinstance(event, Noted):
            self._log.warning(event.text)
        elif isinstance(event, Waiting):
            self._waiting = event.reason
            seconds = round(event.seconds, 1)
            self._log.warning(
                "waiting", chunk=event.chunk.number, attempt=event.attempt, seconds=seconds, reason=event.reason
            )
        elif event:
            self._waiting = ""
            self._rows += event.read
            self._chunks += 1
            if self._style.level == "debug":
                self._log.debug(
                    "chunk loaded", chunk=event.chunk.number, rows=event.read, seconds=round(event.seconds, 3)
                )

    def _show(self) -> None:
        now = time.monotonic()
        rows = max(self._rows, self._throttle.rows)  # those of chunks under way too
        rate = rows / max(now - self._started, 1e-9)
        why = self._waiting or self._throttle.reason
        if self._bar:
            note = f"{rows:,} rows, {rate:,.0f} rows/s, chunk {self._chunks}{f', waits: {why}' if why else ''}"
            self._bar.update(self._task, completed=rows, note=note)
        if self._lines and now - self._said >= LINE_EVERY:
            self._said = now
            left = max(0, (self._expected or 0) - rows)
            more: dict[str, str | int] = {"eta_seconds": round(left / rate)} if left and rate else {}
            more |= {"waits_for": why} if why else {}
            self._log.info(self._doing, rows=rows, rows_per_second=round(rate), chunks=self._chunks, **more)
