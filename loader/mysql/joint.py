"""How a key is joined of columns: whether two rows could make the same one, and how they could not. Pure.

A key is taken apart from both of its ends: a column's text ends where it is full, or where something stands that it
cannot hold. One column may be left over, of any text: what is not the others' is its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from loader.config.parsers import KeyParts
from loader.model import Column
from loader.mysql.forms import HEX, is_prefix_free, members_of, signs_of, width_of

SEPARATORS = ("_", ":", "-", "/", "|", "~")  # that a better key is made with
HEXED = frozenset(HEX + b"ABCDEF")  # what HEX() makes


@dataclass(frozen=True, slots=True)
class Joint:
    """The columns of a key, and what stands around them; those that are named in `hexed` hold what HEX() makes."""

    columns: tuple[Column, ...]
    parts: KeyParts
    hexed: frozenset[str] = frozenset()

    @property
    def template(self) -> str:
        """The key as a config has it."""
        return "".join(f"{literal}{{{column}}}" if column else literal for literal, column in self.parts)

    @property
    def may_clash(self) -> bool:
        """Whether the texts of the columns could be joined to the same key in two ways."""
        return len(self._doubtful) > 1

    @property
    def warning(self) -> str:
        """What a person is told where it may."""
        return f"key {self.template!r} joins columns so that two rows could make the same key"

    def separator(self, columns: Sequence[Column]) -> str | None:
        """What keeps columns apart, if it stands between all of them; None where none of the usual signs does."""
        for sign in SEPARATORS:
            if not Joint(tuple(columns), tuple((sign, column.name) for column in columns), self.hexed).may_clash:
                return sign
        return None

    def to_hex(self) -> tuple[str, ...]:
        """The fewest columns that have to be hexadecimal to be told apart; the first ones where several would do."""
        names = tuple(dict.fromkeys(column.name for column in self._doubtful))
        for count in range(1, len(names)):
            for some in combinations(names, count):
                if not replace(self, hexed=self.hexed.union(some)).may_clash:
                    return some
        return names

    @property
    def _doubtful(self) -> Sequence[Column]:
        """The columns between those that can be told from both ends of a key."""
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
        """Whether it can be seen where a column's text ends and a separator begins; backwards, where it begins."""
        is_hexed = column.name in self.hexed
        signs = HEXED if is_hexed else signs_of(column)
        if signs is not None and not signs.issuperset(separator):
            return True
        if is_hexed:
            return False
        if column.type != "enum":
            return width_of(column) is not None
        members = {b"", *members_of(column)}  # nothing where a value was none of them
        if backwards:
            return is_prefix_free([(separator + member)[::-1] for member in members])
        return is_prefix_free([member + separator for member in members])
