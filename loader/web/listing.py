"""The jobs of the overview that an address asks for, and their order: `/?find=stu&only=late&sort=-rows`.

No I/O.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from loader.records import dataclass
from loader.web.folding import Fold, natural, shown_state, states_of
from loader.web.views import JobView

Row = JobView | Fold


def _newest(row: Row) -> JobView:
    return row.newest if isinstance(row, Fold) else row


def _name(row: Row) -> tuple[str, ...]:
    return natural(row.name if isinstance(row, Fold) else row.status.job)


def _rows(row: Row) -> float | None:
    if isinstance(row, Fold):
        return row.rows
    return row.status.last.rows["read"] if row.status.last else None


def _success(row: Row) -> float | None:
    view = row.oldest if isinstance(row, Fold) else row
    return view.status.success.ended if view.status.success else None


def _next(row: Row) -> float | None:
    view = row.next if isinstance(row, Fold) else row
    return view.due if view.status.paused is None else None


def _last(row: Row) -> float | None:
    last = _newest(row).status.last
    return last.ended if last else None


SORTS: Mapping[str, Callable[[Row], Any]] = {  # None of a job that has nothing to be sorted by: it comes last
    "job": _name,
    "last": _last,
    "next": _next,
    "success": _success,
    "rows": _rows,
    "rejects": lambda row: row.rejects if isinstance(row, Fold) else row.status.rejects,
}


@dataclass(frozen=True, slots=True)
class Listing:
    """What is looked for: words of names, a state or `attention`; and the order, with `-` from the greatest."""

    find: str = ""
    only: str = ""
    sort: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Listing":
        """What an address asks for; an unknown order is that of urgency."""
        sort = query.get("sort", "")
        return cls(query.get("find", "")[:200], query.get("only", "")[:20], sort if sort.lstrip("-") in SORTS else "")

    @property
    def query(self) -> str:
        """It as the query of an address; empty if nothing is asked for."""
        given = {"find": self.find, "only": self.only, "sort": self.sort}
        return urlencode({name: value for name, value in given.items() if value}, errors="replace")

    @property
    def is_sought(self) -> bool:
        """Whether only some jobs are looked for."""
        return bool(self.find.split() or self.only)

    def by(self, column: str) -> str:
        """The query that sorts by a column, from the other end if it does already."""
        return replace(self, sort=f"-{column}" if self.sort == column else column).query

    def direction(self, column: str) -> str:
        """How a column is sorted now, in the words of `aria-sort`."""
        return {column: "ascending", f"-{column}": "descending"}.get(self.sort, "none")

    def rows(self, rows: Sequence[Row]) -> list[Row]:
        """The jobs that are looked for, in order; of a job with parts those parts."""
        found = [each for each in map(self._sifted, rows) if each] if self.is_sought else list(rows)
        order = SORTS.get(self.sort.lstrip("-"))
        if order is None:
            return found
        known = sorted((row for row in found if order(row) is not None), key=order, reverse=self.sort.startswith("-"))
        return [*known, *(row for row in found if order(row) is None)]

    def _sifted(self, row: Row) -> Row | None:
        if isinstance(row, Fold):
            parts = [part for part in row.parts if self._is_named(part.status.job) and self._is_meant(part)]
            return Fold(row.name, parts, row.rates) if parts else None
        return row if self._is_named(row.status.job) and self.only in {"", *states_of(row).split()} else None

    def _is_named(self, name: str) -> bool:
        return all(word in name.lower() for word in self.find.lower().split())

    def _is_meant(self, part: JobView) -> bool:
        return self.only in {"", shown_state(part).value, *states_of(part).split()}
