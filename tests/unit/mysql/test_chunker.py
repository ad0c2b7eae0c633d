"""Chunks: every row in exactly one of them, at most so many rows each."""

from hypothesis import given
from hypothesis import strategies as st

from loader.config.models import JobConfig
from loader.model import Column, Table
from loader.mysql.chunker import chunk_ranges
from loader.mysql.planner import make_plan

ID = Column("id", "bigint", "bigint(20) unsigned", None, nullable=False)


def plan_of(keys, column=ID, where=None):
    table = Table("t", (column,), ("id",), rows_estimate=len(keys))
    job = JobConfig(table="t", where=where)
    job.take_name("t")
    return make_plan(job, table)


def server(keys):
    """Answers as MySQL would for a table of these keys."""

    def fetch(sql):
        if "MIN(" in sql:
            return [(str(min(keys)), str(max(keys)))] if keys else [(None, None)]
        after = int(sql.partition("`id` > ")[2].partition("\n")[0]) if "`id` > " in sql else -1
        offset = int(sql.partition("OFFSET ")[2])
        left = [key for key in sorted(keys) if key > after]
        return [(str(left[offset]),)] if offset < len(left) else []

    return fetch


def members(chunk, keys):
    low = -1 if chunk.after is None else int(chunk.after[0])
    high = 2**64 if chunk.upto is None else int(chunk.upto[0])
    return [key for key in sorted(keys) if low < key <= high]


@given(st.sets(st.integers(0, 300) | st.integers(2**63, 2**64 - 1), max_size=60), st.integers(1, 20), st.booleans())
def test_every_row_is_in_exactly_one_chunk(keys, rows, filtered):
    """Counted off or looked up, the chunks follow one another without a gap, and none is larger than asked."""
    chunks = list(chunk_ranges(plan_of(keys, where="1" if filtered else None), rows, server(keys)))
    assert [chunk.number for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert [chunk.after for chunk in chunks] == [None, *[chunk.upto for chunk in chunks[:-1]]]
    assert chunks[-1].upto is None
    parts = [members(chunk, keys) for chunk in chunks]
    assert [key for part in parts for key in part] == sorted(keys)
    assert max(map(len, parts)) <= rows


@given(st.sets(st.integers(0, 300), min_size=2, max_size=60), st.integers(1, 20), st.data())
def test_a_walk_goes_on_from_any_key(keys, rows, data):
    """Started after a key, the walk has exactly the rows beyond it, and goes on counting."""
    after = data.draw(st.sampled_from(sorted(keys)))
    chunks = list(chunk_ranges(plan_of(keys), rows, server(keys), after=(str(after),), number=7))
    assert chunks[0].number == 7
    assert [key for chunk in chunks for key in members(chunk, keys)] == [key for key in sorted(keys) if key > after]


def test_a_dense_integer_key_is_counted_off():
    """Where keys have no large gaps, no bound is looked up: only the ends are asked for."""
    asked = []
    keys = set(range(1, 1001))

    def fetch(sql):
        asked.append(sql)
        return server(keys)(sql)

    chunks = list(chunk_ranges(plan_of(keys), 100, fetch))
    assert [chunk.upto for chunk in chunks[:-1]] == [(str(100 * n),) for n in range(1, 10)]
    assert all("MIN(" in sql for sql in asked)


def test_a_table_that_is_filtered_is_not_counted_off():
    """How many of the keys are left nobody knows: each bound is looked up."""
    asked = []
    keys = set(range(1, 1001))

    def fetch(sql):
        asked.append(sql)
        return server(keys)(sql)

    assert len(list(chunk_ranges(plan_of(keys, where="1"), 100, fetch))) == 11
    assert not any("MIN(" in sql for sql in asked)


def test_a_table_without_a_walk_is_one_chunk():
    """One pass: a single chunk, open at both ends."""
    column = Column("id", "float", "float", None)
    ((only),) = chunk_ranges(plan_of({1, 2}, column), 1, server({1, 2}))
    assert (only.number, only.after, only.upto) == (1, None, None)
