"""What hands type in `chaos`, and which faults come, as a seed draws it."""

import random
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from account import document_of
from faults import FAULTS
from promises import Command
from scene import Draw
from stage import Done
from workload import FOLLOWED

DELETE_ALL = ("--max-delete", "100%")
Commands = Mapping[tuple[str, ...], int]

SMALL = ("sync", "--rate", "1500")
LARGE = ("sync", "--rate", "1500", "--workers", "4", "--chunk-rows", "4000")  # much is under way, for long

# The commands that hands type, and how often each comes.
WHOLE: Commands = {
    ("sync",): 6,
    SMALL: 4,
    LARGE: 3,
    ("sync", "--prune", *DELETE_ALL): 3,
    ("backfill",): 3,
    ("backfill", "--rate", "4000"): 4,
    ("backfill", "--restart", "--rate", "8000"): 3,
    ("verify",): 2,
    ("verify", "--repair"): 3,
    ("prune", *DELETE_ALL): 3,
}
PART: Commands = {
    ("sync",): 10,
    ("sync", "--rate", "2000"): 6,
    ("sync", "--full"): 1,
    ("sync", "--prune", *DELETE_ALL): 1,
    ("backfill", "--rate", "4000"): 2,
    ("verify", "--repair"): 1,
    ("prune", *DELETE_ALL): 1,
}
FOLLOW = ("follow",)  # until it is told to end
CATCH_UP = ("follow", "--until-caught-up")
KEEP_UP: Commands = {
    FOLLOW: 8,
    CATCH_UP: 4,
    ("sync", "--rate", "2000"): 2,
    ("sync", "--prune", *DELETE_ALL): 1,
    ("backfill", "--rate", "4000"): 2,
    ("verify", "--repair"): 1,
    ("prune", *DELETE_ALL): 1,
}


@dataclass(frozen=True, slots=True)
class Script:
    """What may happen: faults, what is typed for each job, and after how many faults all is compared.

    `jobs` has those that come more often more than once.
    """

    faults: Sequence[str] = tuple(FAULTS)
    jobs: Sequence[str] = (
        "item", "item", "item", "word", "pair", "visit", "visit", "stock", "stock", "cart", "cart", "cart",
    )  # fmt: skip
    commands: Mapping[str, Commands] = field(
        default_factory=lambda: {
            **dict.fromkeys(("item", "word", "pair"), WHOLE),
            **dict.fromkeys(("visit", "stock"), PART),
            FOLLOWED: KEEP_UP,
        }
    )
    rest: int = 4


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that was drawn."""

    name: str
    draw: Draw


@dataclass(frozen=True, slots=True)
class Window:
    """When a fault began and was over."""

    name: str
    began: float
    ended: float


@dataclass(slots=True)
class Typed:
    """A command that a hand typed; `cut` says whether in the network that can be cut."""

    job: str
    words: tuple[str, ...]
    began: float
    process: "subprocess.Popen[str]"
    cut: bool
    signalled: set[int] = field(default_factory=set)  # exit codes that a signal to it may have led to
    shaken: bool = False
    ended: float = 0.0
    done: Done | None = None

    def __str__(self) -> str:
        return f"`{' '.join(self.words)}` of {self.job}"

    @property
    def writes(self) -> bool:
        return self.words[0] in {"sync", "backfill", "follow"}

    def command(self, done: Done) -> Command:
        """What the judge is told of it."""
        document = document_of(done)
        return Command(
            self.job, self.words, self.began, self.ended, done.code, document, done.error, shaken=self.shaken
        )


def strikes(chance: random.Random, faults: Sequence[str]) -> Iterator[Strike]:
    """Faults without end: the whole table, shuffled, again and again."""
    while True:
        names = list(faults)
        chance.shuffle(names)
        yield from (Strike(name, Draw(chance.random(), chance.random(), chance.random())) for name in names)


def commands(chance: random.Random, script: Script) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Jobs and commands without end."""
    while True:
        job = chance.choice(script.jobs)
        choice = script.commands[job]
        (words,) = chance.choices(list(choice), list(choice.values()))
        yield job, words
