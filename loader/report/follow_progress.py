"""How following is shown while it goes: a line that is redrawn on a terminal, lines in a log."""

import sys
import time
from contextlib import suppress
from typing import Any

from loader.config.parsers import plain
from loader.formats import compact_span
from loader.model import FollowBegan, FollowEnded, FollowProgress, Notice, RunEnded, RunEvent
from loader.pipeline.throttle import Throttle
from loader.report.line import LiveLine
from loader.report.log import Log
from loader.report.progress import LINE_EVERY, Reporter
from loader.report.screen import fold

BEHIND = 10.0  # seconds of lag after which it is worth a line that it is caught up


class FollowReporter:
    """Shows how jobs are followed, and the passes over all rows of one of them as `Reporter` does."""

    def __init__(self, job: str, style: str, log: Log) -> None:
        if style == "auto":
            style = "bar" if sys.stderr.isatty() else "log"
        self._job = job
        self._style = style
        self._log_style = log
        self._pass: Reporter | None = None
        self._logger: Any = None
        self._bar: LiveLine | None = None
        self._name = self._note = ""  # of the line: the jobs, and all of it
        self._said = self._shown = time.monotonic()
        self._last = FollowProgress()  # what the last line told
        self._drawn = FollowProgress()  # what the terminal showed last
        self._waits_since: float | None = None
        self._is_behind = True

    @property
    def _log(self) -> Any:
        self._logger = self._logger or self._log_style.logger(self._job)
        return self._logger

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Take note of how many rows a pass over all of them has, and of what says why it waits."""
        self._of_pass().expect(rows, throttle)

    def notify(self, event: RunEvent | None) -> None:
        """Show an event."""
        with suppress(OSError):  # nobody takes what is shown
            match event:
                case FollowBegan():
                    self._begin(event)
                case FollowProgress():
                    self._show(event)
                case FollowEnded():
                    self._end(event)
                case Notice() if not self._pass:
                    self._log.warning(event.text)
                case _:
                    self._of_pass().notify(event)
                    if isinstance(event, RunEnded):
                        self._close_pass()

    def close(self) -> None:
        """Take away the line or the bar."""
        self._close_pass()
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _of_pass(self) -> Reporter:
        self._pass = self._pass or Reporter(self._job, self._style, self._log_style, "loading")
        return self._pass

    def _close_pass(self) -> None:
        if self._pass:
            self._pass.close()
            self._pass = None

    def _begin(self, event: FollowBegan) -> None:
        self._close_pass()
        self._logger = self._log_style.logger(", ".join(event.jobs))
        self._said = self._shown = time.monotonic()
        self._last = self._drawn = FollowProgress()
        self._is_behind, self._waits_since = True, None
        if self._style == "log":
            self._log.info("following begins", position=event.position)
        elif self._style == "bar":
            self._name = self._note = plain(", ".join(event.jobs))
            self._bar = LiveLine(lambda width: fold(self._note, width), color=self._log_style.color)

    def _end(self, event: FollowEnded) -> None:
        self.close()
        if self._style == "log":
            self._log.info("following ends", position=event.position, **_facts(event.progress))

    def _show(self, progress: FollowProgress) -> None:
        now = time.monotonic()
        self._draw(progress, now)
        self._tell_turns(progress, now)
        if self._style != "log" or now - self._said < LINE_EVERY:
            return
        if progress.changes != self._last.changes or progress.waiting:
            seconds = now - self._said
            rate = max(0, progress.changes - self._last.changes) / seconds
            keys = max(0, progress.keys - self._last.keys) / seconds
            waits = {"waits_for": progress.waiting} if progress.waiting else {}
            rates = {"changes_per_second": round(rate), "keys_per_second": round(keys)}
            self._log.info("following", **rates, **_facts(progress), **waits)
        self._said, self._last = now, progress

    def _tell_turns(self, progress: FollowProgress, now: float) -> None:
        """Log that it goes on after it waited, and that it has caught up after it was behind."""
        if progress.waiting:
            self._waits_since = self._waits_since or now
        elif self._waits_since is not None:
            waited, self._waits_since = now - self._waits_since, None
            if self._style != "none":
                self._log.info("going on", waited_seconds=round(waited, 1))
        self._is_behind = self._is_behind or bool(progress.waiting) or progress.lag > BEHIND
        if self._is_behind and progress.is_caught_up and not progress.waiting:
            self._is_behind = False
            if self._style == "log":
                self._log.info("caught up", **_facts(progress))

    def _draw(self, progress: FollowProgress, now: float) -> None:
        """Redraw the line of a terminal."""
        if not self._bar:
            return
        rate = max(0, progress.changes - self._drawn.changes) / max(now - self._shown, 1e-9)
        self._shown, self._drawn = now, progress
        state = "caught up" if progress.is_caught_up else f"{compact_span(progress.lag)} behind"
        waits = f", waits: {progress.waiting}" if progress.waiting else ""
        counts = f"{progress.written:,} written, {progress.deleted:,} deleted"
        self._note = plain(f"{self._name}  {state}, {rate:,.0f} changes/s, {counts}{waits}")


def _facts(progress: FollowProgress) -> dict[str, int | float | None]:
    return {
        "lag_seconds": round(progress.lag, 3),
        "lag_bytes": progress.lag_bytes,
        "changes": progress.changes,
        "keys": progress.keys,
        "written": progress.written,
        "deleted": progress.deleted,
    }
