"""The stored state of a job's schedule in the target: the last slot that was done, and whether it is paused."""

import json
from collections.abc import Mapping
from typing import Any

from loader.errors import Paused, StateError
from loader.formats import moment
from loader.model import SKEW
from loader.process import identity
from loader.records import dataclass
from loader.redis.key_reader import KeyReader
from loader.state.stored_json import LATEST, built, parsed
from loader.state_keys import foreign, own_key


class ScheduleState:
    """The slots and the pause of one job in its target."""

    def __init__(self, target: KeyReader, job: str) -> None:
        self._target = target
        self._slot = own_key(job, "slot")
        self._paused = own_key(job, "paused")

    def slot(self) -> Mapping[str, Any] | None:
        """The last slot of the job's schedule that was done, in seconds since 1970 as `slot`, and by which run.

        `begun` is a later one for which a run began that has not ended well; `of` is the fingerprint of the job that
        was run. A slot in the future was done with a wrong clock, or with one that was set back since: it is `ahead`,
        and `slot` is 0. A `StateError` if this program did not write it.
        """
        text = self._target.ask(self._slot.encode(), "GET", self._slot)[1]
        if text is None:
            return None
        try:
            done = parsed(text)
            built(_Slot, {name: done[name] for name in ("slot", "begun") if name in done}, most=LATEST)
        except ValueError as error:
            raise foreign(self._slot, f"cannot be read ({error})") from error
        done.pop("ahead", None)
        if done["slot"] > self._target.time(self._slot) + SKEW:
            done |= {"slot": 0, "ahead": done["slot"]}
        return done

    def begin_slot(self, slot: int) -> None:
        """Note that a run begins for a slot of the job's schedule, so that a daemon resumes it after a kill."""
        done = {name: value for name, value in (self.slot() or {"slot": 0}).items() if name != "ahead"}
        text = json.dumps({**done, "begun": slot})
        self._target.ask(self._slot.encode(), "SET", self._slot, text)

    def save_slot(self, slot: int, run: str, of: str) -> None:
        """Note that a slot of the job's schedule is done, and the fingerprint `of` the job."""
        text = json.dumps({"slot": slot, "run": run, "of": of, **identity()})
        self._target.ask(self._slot.encode(), "SET", self._slot, text)

    def pause(self) -> None:
        """Stop all daemons from running the job on its schedule, until `resume`; an earlier pause keeps its author."""
        text = json.dumps({"since": round(self._target.time(self._paused), 3), **identity()})
        self._target.ask(self._paused.encode(), "SET", self._paused, text, "NX")

    def resume(self) -> None:
        """Resume the schedule of the job."""
        self._target.ask(self._paused.encode(), "DEL", self._paused)

    def paused(self) -> float | None:
        """Since when the schedule of the job is paused, in seconds since 1970; None if it is not.

        A `StateError` if it is paused by something that this program did not write: somebody meant it.
        """
        text = self._target.ask(self._paused.encode(), "GET", self._paused)[1]
        if text is None:
            return None
        try:
            return built(_Pause, {"since": parsed(text).get("since")}).since
        except ValueError as error:
            raise foreign(self._paused, f"pauses the schedule, though it cannot be read ({error})") from error

    def check_pause(self) -> None:
        """Raise `Paused` if the schedule of the job is paused."""
        try:
            since = self.paused()
        except StateError as error:
            raise Paused(f"the schedule of the job is paused: {error}") from error
        if since is not None:
            raise Paused(f"the schedule of the job is paused since {moment(since)}")


@dataclass(frozen=True, slots=True)
class _Slot:
    """The times of a slot, in seconds since 1970."""

    slot: int
    begun: int = 0


@dataclass(frozen=True, slots=True)
class _Pause:
    """When a pause began, in seconds since 1970."""

    since: float
