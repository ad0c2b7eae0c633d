"""The next chunk: a table is walked along its key, never by OFFSET from its start."""

from collections.abc import Callable, Iterator, Sequence

from loader.errors import PlanError
from loader.model import Chunk, KeyValues
from loader.mysql.forms import INTEGERS
from loader.mysql.plan import Plan
from loader.mysql.sql import checked

DENSE = 0.5  # rows per key value from which bounds are counted rather than looked up: at most twice the chunks then

Fetch = Callable[[str], Sequence[Sequence[str | None]]]


def chunk_ranges(
    plan: Plan, rows: int, fetch: Fetch, *, after: KeyValues | None = None, number: int = 1
) -> Iterator[Chunk]:
    """Chunks of at most `rows` rows each, from `after` to the end, whose last chunk is open.

    Looking a bound up costs MySQL a walk over the chunk's index entries. If the key is one integer without large gaps,
    counting is enough: a range of key values holds at most as many rows.
    """
    extent = _extent(plan, fetch)
    ends = _counted(*extent, rows, after) if extent else _looked_up(plan, rows, fetch, after)
    for upto in ends:
        yield Chunk(number, after, upto)
        number, after = number + 1, upto


def _looked_up(plan: Plan, rows: int, fetch: Fetch, after: KeyValues | None) -> Iterator[KeyValues | None]:
    while plan.walk:
        found = fetch(plan.bound(after, rows))
        if not found:
            break
        after = checked(found[0])
        yield after
    yield None


def _counted(low: int, high: int, rows: int, after: KeyValues | None) -> Iterator[KeyValues | None]:
    at = int(after[0]) if after else low - 1
    while at + rows < high:
        at += rows
        yield (str(at),)
    yield None


def _extent(plan: Plan, fetch: Fetch) -> tuple[int, int] | None:
    """Least and greatest key of a walk along one integer without large gaps; None for any other."""
    if len(plan.walk) != 1 or plan.walk[0].type not in INTEGERS or plan.filtered:
        return None
    try:
        ((low, high),) = fetch(plan.extent())
        ends = (0, -1) if low is None or high is None else (int(low), int(high))
    except ValueError as error:
        raise PlanError("MySQL gave a least and a greatest key that are not numbers") from error
    if ends == (0, -1):
        return ends
    return ends if (plan.rows_estimate or 0) >= DENSE * (ends[1] - ends[0] + 1) else None
