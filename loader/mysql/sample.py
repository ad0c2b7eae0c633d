"""A random sample of a job's rows; if the key is a number, without reading the others."""

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

from loader.mysql.chunker import Fetch
from loader.mysql.forms import INTEGERS
from loader.mysql.plan import Plan

SPANS = 20  # of the key, so that the sample comes from everywhere
FINER = 8  # how much larger a share is than the previous one, which gave too few rows


def sample(plan: Plan, count: int, fetch: Fetch, seen: Callable[[], int]) -> Iterator[str]:
    """Statements that read about `count` rows, no row twice; `seen` returns how many have come so far.

    They return no rows only if the job has none: if rows are rare, more of the table is searched.
    """
    numbers = plan.walk and plan.walk[0].type in INTEGERS
    yield from _spans(plan, count, fetch, seen) if numbers else _shares(plan, count, fetch, seen)


def _spans(plan: Plan, count: int, fetch: Fetch, seen: Callable[[], int]) -> Iterator[str]:
    """A few rows each from random spans of the key, until there are enough or no more."""
    ((low, high),) = fetch(plan.extent())
    if low is None or high is None:
        return
    first, last = int(low), int(high)
    parts = min(count, SPANS, last - first + 1)
    ends = [first + (last - first + 1) * part // parts for part in range(parts + 1)]
    starts = [random.randrange(*span) for span in pairwise(ends)]  # noqa: S311  # a sample is no secret
    left = [(start, end - 1) for start, end in zip(starts, ends[1:], strict=True)]
    behind = [(end, start - 1) for start, end in zip(starts, ends[:-1], strict=True) if start > end]
    while left:
        random.shuffle(left)
        each = -(-(count - seen()) // len(left))
        full = []
        for span in left:
            before = seen()
            yield plan.in_span(span, each)
            if seen() >= count:
                return
            if seen() - before >= each:
                full.append(span)
        found = [(fetch(plan.end_in_span(span, each)), span[1]) for span in full]
        left, behind = [*((int(rows[0][0] or 0) + 1, end) for rows, end in found if rows), *behind], []


def _shares(plan: Plan, count: int, fetch: Fetch, seen: Callable[[], int]) -> Iterator[str]:
    """A share of the rows by a checksum of their key, for which MySQL reads all of them; then larger shares."""
    rows = None if plan.filtered else plan.rows_estimate
    if rows is None:
        ((text,),) = fetch(plan.count())
        rows = int(text or 0)
    parts, seed = max(1, rows // count), random.getrandbits(32)
    shares: list[tuple[int, int]] = []
    while True:
        shares.append((parts, seed % parts))
        yield plan.share(*shares[::-1])
        if parts == 1 or seen() * 2 >= count:
            return
        parts //= min(parts, FINER)
