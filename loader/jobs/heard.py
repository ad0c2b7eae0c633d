"""Who is told how far work on a job is, if someone watches."""

from typing import Protocol

from loader.pipeline.throttle import Throttle


class Heard(Protocol):
    """Is told how far work is, and why it waits."""

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Note how many rows are expected, by MySQL's estimate, and the object that says why the work waits."""

    def count(self, done: int, noun: str = "row") -> None:
        """Note how many rows, or other things, are done."""

    def rest(self) -> None:
        """Note that others go on for now."""


class Nobody:
    """Nobody watches."""

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Do nothing."""

    def count(self, done: int, noun: str = "row") -> None:
        """Do nothing."""

    def rest(self) -> None:
        """Do nothing."""


NOBODY = Nobody()
