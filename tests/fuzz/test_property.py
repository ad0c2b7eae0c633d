"""What Redis holds after a sync is what MySQL holds, whatever that is."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loader.outcome import Status

# The key column's type, and its values: of two that differ in trailing spaces only, MySQL takes but one as text.
BINARY_KEYS = st.tuples(st.just("VARBINARY(40)"), st.lists(st.binary(max_size=40), min_size=1, max_size=9, unique=True))
TEXT_KEYS = st.tuples(
    st.just("VARCHAR(40) COLLATE utf8mb4_bin"),
    st.lists(st.text(max_size=40), min_size=1, max_size=9, unique_by=lambda key: key.rstrip(" ")),
)
VALUES = st.none() | st.binary(max_size=300) | st.text(max_size=20).map(str.encode)
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=9, max_size=9)  # by the place of their key
FIELDS = st.lists(st.text(min_size=1, max_size=40), min_size=3, max_size=3, unique=True)


def held_by_mysql(world, names, nulls):
    """The hashes that the table `t` should be, as PyMySQL reads it."""
    hashes = {}
    for key, *values in world.sql("SELECT k, a, b, c FROM t"):
        pairs = zip(names, values, strict=True)
        fields = {name.encode(): value or b"" for name, value in pairs if value is not None or nulls == "empty"}
        hashes[b"t:" + (key if isinstance(key, bytes) else key.encode())] = fields
    return {key: fields for key, fields in hashes.items() if fields}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=BINARY_KEYS | TEXT_KEYS,
    names=FIELDS,
    nulls=st.sampled_from(["omit", "empty"]),
    chunk_rows=st.integers(1, 10),
    before=ROWS,
    after=ROWS,
)
def test_redis_holds_what_mysql_holds(world, keys, names, nulls, chunk_rows, before, after):
    """Any key, value and field name arrives; a NULL is no field or an empty one, also where a value was before."""
    kind, keys = keys
    job = {
        "table": "t",
        "key": "t:{k}",
        "fields": dict(zip(names, "abc", strict=True)),
        "nulls": nulls,
        "chunk_rows": chunk_rows,
    }
    world.clear()
    world.sql("DROP TABLE IF EXISTS t", f"CREATE TABLE t (k {kind} PRIMARY KEY, a BLOB, b LONGBLOB, c VARBINARY(300))")

    for rows in (before, after):
        for key, row in zip(keys, rows, strict=False):
            world.sql("REPLACE INTO t VALUES (%s, %s, %s, %s)", args=(key, *row))
        run = world.sync(**job)

        assert (run.status, run.error) == (Status.OK, None)
        assert run.read == run.written == len(keys)
        assert world.hashes() == held_by_mysql(world, names, nulls)
