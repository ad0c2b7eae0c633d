"""Who is told of a run while it goes."""

from dataclasses import dataclass
from typing import Protocol

from loader.model import RunEvent
from loader.pipeline.throttle import Throttle


class RunListener(Protocol):
    """Who is told of a run while it goes."""

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Take note of how many rows are to come, by MySQL's estimate, and of what says why workers wait."""

    def notify(self, event: RunEvent | None) -> None:
        """Take note of an event, or that a second passed without one."""


@dataclass(frozen=True, slots=True)
class RunListeners:
    """Several listeners as one."""

    each: tuple[RunListener, ...]

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Tell each what is to come."""
        for listener in self.each:
            listener.expect(rows, throttle)

    def notify(self, event: RunEvent | None) -> None:
        """Tell each of an event."""
        for listener in self.each:
            listener.notify(event)
