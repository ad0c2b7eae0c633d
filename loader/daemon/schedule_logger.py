"""The log lines of a schedule."""

import traceback
from collections.abc import Callable, Collection, Mapping
from typing import Any

from loader.errors import Kind
from loader.formats import moment
from loader.model import Run
from loader.outcome import Reason
from loader.report.log import Log

FEW = 5  # jobs behind their schedule of which each is told
EVENTS: Mapping[Kind | None, str] = {
    Kind.PAUSED: "paused",
    Kind.DONE: "done elsewhere",
    Kind.LOCKED: "locked, looked at again soon",
}


class ScheduleLogger:
    """Logs the outcome of due times and their runs."""

    def __init__(self, log: Log, behind: Callable[[], Collection[str]] = tuple) -> None:
        self._log = log
        self._behind = behind  # the jobs that are behind their schedule already, which is told of all together

    def started(self, job: str, due: int, late: float) -> None:
        """A run begins; it logs this itself."""

    def ended(self, run: Run, due: int) -> None:
        """A run ended; its own last line says so, unless it had nothing to do."""
        if event := EVENTS.get(run.outcome.kind):
            self._line(run.job, due).bind(run=run.id).info(event, by=run.error)

    def skipped(self, job: str, due: int, reason: Reason, count: int) -> None:
        """Due times are settled without a run."""
        if reason not in {Reason.ELSEWHERE, Reason.PAUSED}:  # `ended` has logged it
            behind = self._behind()
            is_told = reason is Reason.RUNNING and (job in behind or len(behind) >= FEW)
            line = self._line(job, due)
            (line.debug if is_told else line.warning)("slot skipped", reason=reason.value, count=count)

    def rescheduled(self, job: str, fire: float | None) -> None:
        """The next time is known."""
        self._log.logger(job).debug("next run", at=None if fire is None else moment(fire))

    def crashed(self, job: str, due: int, error: BaseException) -> None:
        """A fault of the program."""
        trace = "".join(traceback.format_exception(error))
        self._line(job, due).error("run crashed: please report this", error=str(error), trace=trace)

    def _line(self, job: str, due: int) -> Any:
        return self._log.logger(job).bind(slot=moment(due))
