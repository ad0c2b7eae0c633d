"""Tables that fit a terminal: a column that does not fit is told below its row, and no word is cut."""

from collections.abc import Sequence

from loader.config.parsers import plain
from loader.records import dataclass
from loader.report.screen import Screen, padded, width_of

LONG = 20  # columns of a name that may stand above the rest of its row


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `spills` is how late its cells move below their rows if a line is too long, 0 is never."""

    head: str
    right: bool = False
    spills: int = 0
    words: str = "{}"  # of a cell below its row


def table_text(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    below: Sequence[Sequence[str]],
    screen: Screen,
    *,
    name: int = 0,
) -> str:
    """Rows under their heads, each with lines below it; `name` is the column of which cells may stand alone."""
    safe = [[plain(cell) for cell in row] for row in rows]
    table = _fitted(columns, safe, screen, name)
    lines = [table.line([column.head for column in columns])]
    for cells, under in zip(safe, below, strict=True):
        lines += table.lines(cells)
        lines += [screen.fold(f"  {plain(each)}", 2) for each in (*table.spilled(cells), *under)]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Table:
    columns: Sequence[Column]
    kept: Sequence[int]  # numbers of columns
    widths: Sequence[int]  # of all columns
    gap: int
    name: int
    screen: Screen

    def line(self, cells: Sequence[str]) -> str:
        shown = [self._cell(number, cells[number]) for number in self.kept]
        return (" " * self.gap).join(shown).rstrip()

    def lines(self, cells: Sequence[str]) -> list[str]:
        """A row; a name that is wider than its column stands above the rest of it."""
        if width_of(cells[self.name]) <= self.widths[self.name]:
            return [self.line(cells)]
        return [cells[self.name], self.line([*cells[: self.name], "", *cells[self.name + 1 :]])]

    def spilled(self, cells: Sequence[str]) -> list[str]:
        """The cells of columns that do not fit, in words on a line; empty if there are none."""
        gone = [number for number in range(len(self.columns)) if number not in self.kept and cells[number] != "-"]
        return [", ".join(self.columns[number].words.format(cells[number]) for number in gone)] if gone else []

    def _cell(self, number: int, text: str) -> str:
        column = self.columns[number]
        return padded(
            self.screen.state(text) if column.head == "state" else text, self.widths[number], right=column.right
        )


def _fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], screen: Screen, name: int) -> _Table:
    """The layout that keeps the most: two spaces between columns, else one, fewer columns, names on their own."""
    widths = [max(map(width_of, cells)) for cells in zip([each.head for each in columns], *rows, strict=True)]
    kept, gap = list(range(len(columns))), 2

    def is_too_wide() -> bool:
        taken = sum(widths[number] for number in kept) + gap * (len(kept) - 1)
        return screen.width is not None and taken > screen.width

    if is_too_wide():
        gap = 1
    if is_too_wide():
        short = [width_of(row[name]) for row in rows if width_of(row[name]) <= LONG]
        widths[name] = max([width_of(columns[name].head), *short])
    spilling = sorted((number for number in kept if columns[number].spills), key=lambda each: columns[each].spills)
    for number in spilling:
        if is_too_wide():
            kept.remove(number)
    return _Table(columns, kept, widths, gap, name, screen)
