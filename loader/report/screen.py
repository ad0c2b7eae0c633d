"""How wide lines may be: a terminal's columns, and any width elsewhere, so that nothing is folded in a pipe."""

import os
import re
from collections.abc import Iterator, Mapping
from itertools import chain, zip_longest
from typing import TextIO
from unicodedata import combining, east_asian_width

from loader.config.parsers import plain
from loader.records import dataclass

USUAL = 80  # columns of a terminal that does not tell them
NARROWEST = 20  # columns; in less nothing can be laid out
PAINT = re.compile(r"\x1b\[[0-9;]*m")
RED, GREEN, YELLOW, CYAN = 31, 32, 33, 36
STATES: Mapping[str, int] = {  # of runs, jobs, checks and clusters
    **dict.fromkeys(["ok"], GREEN),
    **dict.fromkeys(["running"], CYAN),
    **dict.fromkeys(["rejects", "different", "refused", "late", "paused", "stopped", "warn", "moving"], YELLOW),
    **dict.fromkeys(["failed", "fail"], RED),
}


def columns_of(stream: TextIO) -> int | None:
    """The columns of a stream's terminal, which $COLUMNS overrides; None if it is not a terminal."""
    if not stream.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return max(NARROWEST, int(told))
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return max(NARROWEST, columns or USUAL)


def width_of(text: str) -> int:
    """The columns that a text takes: Chinese characters take two, combining ones and colours none."""
    if "\x1b" in text:
        text = PAINT.sub("", text)
    if text.isascii():
        return len(text)
    return sum(0 if combining(each) else 1 + (east_asian_width(each) in "WF") for each in text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """A text with spaces up to a width, before it if it stands to the `right`."""
    space = " " * (width - width_of(text))
    return space + text if right else text + space


def fold(text: str, width: int | None, hang: int | None = None) -> str:
    """The text with its lines folded at spaces to fit a width, if there is one; words are never cut.

    Folded lines are indented by `hang` columns, or else two more than their first one.
    """
    if width is None or width_of(text) <= width:
        return text
    return "\n".join(folded for line in text.split("\n") for folded in _folded(line, width, hang))


def _folded(line: str, width: int, hang: int | None) -> Iterator[str]:
    if width_of(line) <= width:
        yield line
        return
    indent = len(line) - len(line.lstrip(" ")) + 2 if hang is None else hang
    so_far, taken = "", 0
    for word in re.findall(r" *[^ ]+", line):
        if so_far.strip() and taken + width_of(word) > width:
            yield so_far
            word = " " * indent + word.lstrip(" ")  # noqa: PLW2901  # it begins a line
            so_far, taken = "", 0
        so_far += word
        taken += width_of(word)
    yield so_far


def paint(text: str, color: int | None) -> str:
    """The text in a colour; as it is without one."""
    return f"\x1b[{color}m{text}\x1b[0m" if color and text else text


@dataclass(frozen=True, slots=True)
class Screen:
    """How a result is laid out: for a width, or in a pipe without one, and in colours or without."""

    width: int | None = None
    color: bool = False

    def state(self, word: str) -> str:
        """A state in its colour."""
        return paint(word, STATES.get(word)) if self.color else word

    def safe(self, text: str) -> str:
        """A text without terminal control characters, but for the colours of a screen that has them."""
        pieces = PAINT.split(text) if self.color else [text]
        paints = PAINT.findall(text) if self.color else []
        return "".join(chain.from_iterable(zip_longest(map(plain, pieces), paints, fillvalue="")))

    def fold(self, text: str, hang: int | None = None) -> str:
        """A text on lines that fit."""
        return fold(text, self.width, hang)


PIPE = Screen()
