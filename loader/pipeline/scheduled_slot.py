"""The time of its schedule that a run is for: it is done once, by one daemon."""

from collections.abc import Iterator

from loader.errors import Done
from loader.formats import moment
from loader.model import SKEW
from loader.pipeline.job_context import JobContext
from loader.state.claim import fingerprint
from loader.state.schedule import ScheduleState
from loader.state.tidy import Tidy


class ScheduledSlot:
    """The slot of a run, in seconds since 1970; None for a run by hand.

    It is checked and noted under the job's lock. A slot that was done for another statement does not count.
    """

    def __init__(self, context: JobContext, slot: int | None, tidy: Tidy) -> None:
        self._slot = slot
        self._job = context.plan.job.name
        self._tidy = tidy
        self._fingerprint = fingerprint(context.source_config, context.plan.job)
        self._schedule = ScheduleState(context.target, self._job)

    def begin(self) -> Iterator[str]:
        """Note that a run begins for the slot, and report oddities; `Done` if it was done, `Paused` if it is paused."""
        if self._slot is None:
            return
        self._schedule.check_pause()
        done = self._tidy.read(self._schedule.slot) or {"slot": 0}
        by = f"by run {done.get('run')} (host {done.get('host')}, pid {done.get('pid')})"
        if "ahead" in done:
            ahead = f"{moment(done['ahead'])}, which has not come yet by redis's clock"
            yield f"the work for {ahead}, {by}, does not count: a clock is or was wrong"
        elif self._slot <= done["slot"] and done.get("of", self._fingerprint) == self._fingerprint:
            raise Done(f"job {self._job!r} was done for {moment(self._slot)} {by}")
        self._schedule.begin_slot(self._slot)

    def finish(self, run: str, began: float) -> None:
        """Note that a run, which `began` then by the target's clock, has done the slot.

        If the daemon's clock is ahead of the target's, its slot does not say which one is done.
        """
        assert self._slot is not None
        done = self._slot if self._slot <= began + SKEW else int(began)
        self._schedule.save_slot(done, run, self._fingerprint)
