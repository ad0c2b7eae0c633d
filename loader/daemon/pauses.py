"""Which schedules are paused, as last known: a target that is away keeps no paused job running."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from loader.errors import Paused, TargetError
from loader.redis.key_reader import KeyReader
from loader.state.schedule import ScheduleState


class Pauses:
    """The pauses that this daemon has seen."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}  # why each paused job is not run

    def check(self, job: str, reach: Callable[[], AbstractContextManager[KeyReader]]) -> None:
        """Raise `Paused` if the schedule of the job is paused; if its target is away, if it was when last seen."""
        with suppress(TargetError, OSError), reach() as target:
            try:
                ScheduleState(target, job).check_pause()
            except Paused as paused:
                self._known[job] = str(paused)
                raise
            self._known.pop(job, None)
            return
        if job in self._known:
            raise Paused(f"{self._known[job]}, as last known: redis does not answer")
