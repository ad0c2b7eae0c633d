"""How a run is shown while it goes: the bar or the progress lines, and why it waits."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from loader.formats import moment
from loader.model import ChunkLoaded, ChunkOwed, Notice, Run, RunBegan, RunEnded, RunEvent, Waiting
from loader.outcome import Status
from loader.pipeline.throttle import Throttle
from loader.report.line import LiveLine, percent_of, progress_text
from loader.report.log import Log, run_facts

LINE_EVERY = 10.0  # seconds between two progress lines in a log, and two lines about the same reason to wait
REDRAW_EVERY = 2.0  # seconds between two checks of the reason for waiting
SERIOUS = {Status.OK: "info", Status.REJECTS: "warning", Status.STOPPED: "warning", Status.FAILED: "error"}


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

    The bar's end is MySQL's estimate of the rows, and so is the remaining time. `concludes`: the log has the results of
    runs too; `told` are the failed ones among them.
    """

    def __init__(self, job: str, style: str, log: Log, doing: str = "loading", *, concludes: bool = True) -> None:
        if style == "auto":
            style = "bar" if sys.stderr.isatty() else "log"
        self._job = job
        self._run = ""
        self._logger: Any = None
        self._doing = doing
        self._style = log
        self._lines = style == "log"
        self._concludes = concludes
        self.told: list[str] = []
        self._started = self._said = time.monotonic()
        self._rows = self._chunks = 0
        self._expected: int | None = None
        self._throttle = Throttle()
        self._waiting = ""
        self._reasons: dict[str, float] = {}  # told lately, and when
        self._bar: LiveLine | None = None
        self._noun = "row"
        self._drawing = style == "bar"
        self._draw()

    @property
    def _log(self) -> Any:
        self._logger = self._logger or self._style.logger(self._job, self._run)
        return self._logger

    def close(self) -> None:
        """Remove the bar for good."""
        self.rest()
        self._drawing = False

    def rest(self) -> None:
        """Remove the bar until work goes on."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Note how many rows are expected, and the object that says why workers wait."""
        self._expected, self._throttle = rows, throttle
        self._rows = self._chunks = 0
        self._waiting = ""
        self._started = time.monotonic()
        self._draw()

    def count(self, done: int, noun: str = "row") -> None:
        """Show how many rows are done, or other things, of which there is no estimate."""
        if noun != self._noun:
            self._noun, self._expected, self._started = noun, None, time.monotonic()
        self._rows = done
        self._draw()
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
                self._log.debug("run begins", **({} if event.slot is None else {"slot": moment(event.slot)}))
        elif isinstance(event, RunEnded):
            self._conclude(event.run)
        elif isinstance(event, Notice):
            self._log.warning(event.text)
        elif isinstance(event, Waiting):
            self._wait(event)
        elif isinstance(event, ChunkOwed):
            self._rows -= event.event.read
            self._chunks -= 1
        elif isinstance(event, ChunkLoaded):
            self._waiting = ""
            self._rows += event.read
            self._chunks += 1
            if self._style.level == "debug":
                self._log.debug(
                    "chunk loaded", chunk=event.chunk.number, rows=event.read, seconds=round(event.seconds, 3)
                )

    def _wait(self, event: Waiting) -> None:
        """Tell why a chunk is tried again: once for all chunks and tries that fail for that reason.

        Before the first chunk only the bar does: a run that cannot begin is soon over, and its end has the reason.
        """
        self._waiting, now = event.reason, time.monotonic()
        if not event.chunk:
            return
        self._reasons = {reason: when for reason, when in self._reasons.items() if now - when < LINE_EVERY}
        if self._style.level == "debug" or event.reason not in self._reasons:
            self._reasons[event.reason] = now
            chunk, seconds = event.chunk.number, round(event.seconds, 1)
            self._log.warning("waiting", chunk=chunk, attempt=event.attempt, seconds=seconds, reason=event.reason)

    def _conclude(self, run: Run) -> None:
        """One line with everything, if there are log lines; the bar's last word is the summary."""
        if self._lines and self._concludes:
            level = "debug" if run.did_nothing else SERIOUS[run.status]  # a daemon checks again until the lock is free
            getattr(self._log, level)("run", **run_facts(run))
            self.told += [run.id] if level == "error" else []

    def _draw(self) -> None:
        if self._drawing and not self._bar:
            self._bar = LiveLine(self._drawn, color=self._style.color)

    def _counted(self) -> int:
        in_progress = self._throttle.rows if self._noun == "row" else 0  # including those of chunks in progress
        return max(self._rows, in_progress)

    def _drawn(self, width: int) -> str:
        seconds = time.monotonic() - self._started
        why = self._throttle.why(self._waiting)
        return progress_text(self._job, self._counted(), self._expected, seconds, why, width, self._noun)

    def _show(self) -> None:
        now = time.monotonic()
        if not self._lines or now - self._said < LINE_EVERY:
            return
        self._said = now
        rows, why = self._counted(), self._throttle.why(self._waiting)
        rate, done = rows / max(now - self._started, 1e-9), percent_of(rows, self._expected)
        left = max(0, (self._expected or 0) - rows)
        facts: dict[str, str | int] = {} if done is None else {"percent": done}
        facts |= {f"{self._noun}s": rows, f"{self._noun}s_per_second": round(rate), "chunks": self._chunks}
        facts |= {"eta_seconds": round(left / rate)} if left and rate else {}
        self._log.info(self._doing, **facts, **({"waits_for": why} if why else {}))
