"""Listeners for the events of a run."""

from typing import Protocol

from loader.model import RunEvent
from loader.pipeline.throttle import Throttle
from loader.records import dataclass


class RunListener(Protocol):
    """A listener for the events of a run."""

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Note how many rows are expected, by MySQL's estimate, and the object that says why workers wait."""

    def notify(self, event: RunEvent | None) -> None:
        """Note an event, or that a second passed without one."""


@dataclass(frozen=True, slots=True)
class RunListeners:
    """Several listeners as one."""

    each: tuple[RunListener, ...]

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Tell each how many rows are expected."""
        for listener in self.each:
            listener.expect(rows, throttle)

    def notify(self, event: RunEvent | None) -> None:
        """Tell each of an event."""
        for listener in self.each:
            listener.notify(event)
