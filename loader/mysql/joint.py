"""How columns are joined to a key: whether two rows could make the same one, and how to prevent it. Pure.

A key is parsed from both of its ends: a column's text ends where it is full, or at a character that it cannot contain.
One column may be left over, with any text: it gets the rest.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from loader.config.parsers import KeyParts
from loader.model import Column
from loader.mysql.forms import HEX, is_prefix_free, members_of, signs_of, width_of
from loader.records import dataclass

SEPARATORS = ("_", ":", "-", "/", "|", "~")  # to suggest for a better key
HEXED = frozenset(HEX + b"ABCDEF")  # the characters that HEX() makes


@dataclass(frozen=True, slots=True)
class Joint:
    """The columns of a key, and the text around them; those named in `hexed` hold the result of HEX()."""

    columns: tuple[Column, ...]
    parts: KeyParts
    hexed: frozenset[str] = frozenset()

    @property
    def template(self) -> str:
        """The key as written in a config."""
        return "".join(f"{literal}{{{column}}}" if column else literal for literal, column in self.parts)

    @property
    def may_clash(self) -> bool:
        """Whether the texts of the columns could make the same key in two ways."""
        return len(self._doubtful) > 1

    @property
    def warning(self) -> str:
        """The warning for people if they can."""
        return f"key {self.template!r} joins columns so that two rows could make the same key"

    def separator(self, columns: Sequence[Column]) -> str | None:
        """A separator that keeps columns apart if it is between all of them; None if none of the usual ones does."""
        for sign in SEPARATORS:
            if not Joint(tuple(columns), tuple((sign, column.name) for column in columns), self.hexed).may_clash:
                return sign
        return None

    def to_hex(self) -> tuple[str, ...]:
        """The fewest columns that must be hexadecimal to make keys unique; the first ones if there is a choice."""
        names = tuple(dict.fromkeys(column.name for column in self._doubtful))
        for count in range(1, len(names)):
            for some in combinations(names, count):
                if not replace(self, hexed=self.hexed.union(some)).may_clash:
                    return some
        return names

    @property
    def _doubtful(self) -> Sequence[Column]:
        """The columns between those that can be parsed from both ends of a key."""
        columns = self.columns
        if len({column.name for column in columns}) < 2:
            return ()
        between = [literal.encode() for literal, column in self.parts if column is not None][1:]
        first, last = 0, len(columns) - 1
        while first < last and self._ends(columns[first], between[first]):
            first += 1
        while first < last and self._ends(columns[last], between[last - 1], backwards=True):
            last -= 1
        return columns[first : last + 1]

    def _ends(self, column: Column, separator: bytes, *, backwards: bool = False) -> bool:
        """Whether the end of a column's text is certain before a separator; or, backwards, its beginning."""
        is_hexed = column.name in self.hexed
        signs = HEXED if is_hexed else signs_of(column)
        if signs is not None and not signs.issuperset(separator):
            return True
        if is_hexed:
            return False
        if column.type != "enum":
            return width_of(column) is not None
        members = {b"", *members_of(column)}  # empty if a value was none of them
        if backwards:
            return is_prefix_free([(separator + member)[::-1] for member in members])
        return is_prefix_free([member + separator for member in members])
