"""Which chunk is next: a table is walked along its key, never by OFFSET from its start."""

from collections.abc import Callable, Iterator, Sequence

from loader.model import Chunk, KeyValues
from loader.plan import INTEGERS, Plan, checked

DENSE = 0.5  # rows a key value from which keys are counted off rather than looked up: at most twice the chunks then

Fetch = Callable[[str], Sequence[Sequence[str | None]]]


def walk(plan: Plan, rows: int, fetch: Fetch, *, after: KeyValues | None = None, number: int = 1) -> Iterator[Chunk]:
    """Chunks of at most `rows` rows each, from `after` to the end, whose last chunk is open.

    Looking a bound up costs MySQL a walk over the chunk's index entries. Where the key is one integer without large
    gaps, counting is enough: so many key values hold at most so many rows.
    """
    ends = _counted(plan, rows, fetch, after) if _is_dense(plan, fetch) else _looked_up(plan, rows, fetch, after)
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


def _counted(plan: Plan, rows: int, fetch: Fetch, after: KeyValues | None) -> Iterator[KeyValues | None]:
    low, high, _ = _extent(plan, fetch)
    at = int(after[0]) if after else low - 1
    while at + rows < high:
        at += rows
        yield (str(at),)
    yield None


def _is_dense(plan: Plan, fetch: Fetch) -> bool:
    if len(plan.walk) != 1 or plan.walk[0].type not in INTEGERS or plan.filtered:
        return False
    low, high, rows = _extent(plan, fetch)
    return rows >= DENSE * (high - low + 1)


def _extent(plan: Plan, fetch: Fetch) -> tuple[int, int, int]:
    """Least and greatest key, and MySQL's estimate of the rows; an empty table has none."""
    ((low, high),) = fetch(plan.extent())
    if low is None or high is None:
        return 0, -1, 0
    return int(low), int(high), plan.rows_estimate or 0
