"""What a fault of `chaos` is done to, and what it is told."""

import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from cut import Cut
from loader.lab.lab import Lab
from promises import Void
from stage import Fleet

FAILED, CONFIG, REJECTS, UNREACHABLE, LOCKED = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Draw:
    """The numbers of one fault, from 0 to 1."""

    a: float
    b: float
    c: float

    def seconds(self, least: float, most: float) -> float:
        return least + self.c * (most - least)


class Working(Protocol):
    """A run."""

    job: str


class Scene(Protocol):
    """What a fault is done to."""

    lab: Lab
    fleet: Fleet
    cut: Cut | None

    def work(self, *, cut: bool = False) -> Working | None:
        """Wait until a run is at work, if wanted one that can be cut off; None where none came."""

    def is_at_work(self, job: str) -> bool:
        """Whether a run of that job is at work."""

    def hush(self) -> None:
        """Have nothing more typed until the fault is over and all was compared at rest."""

    def hit(self, which: float, number: signal.Signals, *, cut: bool = False) -> str:
        """Send a signal to a loader at work, and say to which."""

    def void(self, void: Void) -> None:
        """Take promises back: Redis itself has lost something."""

    def shake(self, jobs: Collection[str] | None = None, slots: Collection[int] | None = None) -> None:
        """The runs under way, of some jobs or whose lock is in some slots, may have lost their lock."""

    def widen(self, table: str, name: str, default: str | None, sent: float) -> None:
        """A table got one more column, by a statement that was sent then."""


Act = Callable[[Scene, Draw], str]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, the exit codes that a run beside it may have, and those that a later backfill of `item` may have.

    `moves`: a replica may be master after it, or a master has what it had before.
    """

    act: Act
    codes: tuple[int, ...] = ()
    lasting: tuple[int, ...] = ()
    moves: bool = False


def one(names: list[str], which: float) -> str:
    return names[int(which * len(names))]
