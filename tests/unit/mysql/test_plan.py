"""Plans: the SQL, the layout and the warnings that a job makes of a table."""

from dataclasses import replace

import pytest

from loader.config.models import JobConfig
from loader.config.parts import Origin
from loader.config.statement import hexed_columns
from loader.errors import ConfigError, PlanError
from loader.model import Chunk, Column, Table
from loader.mysql.joint import Joint
from loader.mysql.planner import make_plan
from loader.mysql.sql import as_literal, checked
from loader.mysql.typed_key import key_of

SID = Column("sid", "smallint", "smallint(8) unsigned zerofill", None, nullable=False)
SNAME = Column("sname", "varchar", "varchar(20)", "utf8mb4", nullable=False)
ADDRESS = Column("address", "varchar", "varchar(20)", "utf8mb4")
STU = Table("stu", (SID, SNAME, ADDRESS), primary_key=("sid",), rows_estimate=5)


def job(**settings):
    made = JobConfig(**({"table": "stu"} | settings))
    made.take_name("stu")
    return made


def test_the_default_is_all_columns_under_table_and_primary_key():
    """Without key and fields, a row is `{table}_{primary key}` with a field for each column."""
    plan = make_plan(job(), STU)
    assert plan.layout.key == (b"stu_", 0)
    assert plan.layout.fields == ((b"sid", 0), (b"sname", 1), (b"address", 2))
    assert plan.select(Chunk(1)) == "SELECT `sid`, `sname`, `address`\nFROM `stu`"
    assert plan.warnings == ()


def test_hidden_columns_are_not_part_of_all():
    """What SELECT * leaves out is left out, but may be named."""
    table = Table("stu", (SID, Column("h", "int", "int", None, hidden=True)), ("sid",))
    assert make_plan(job(), table).layout.fields == ((b"sid", 0),)
    assert make_plan(job(fields=["h"]), table).layout.fields == ((b"h", 1),)


def test_fields_rename_and_compute():
    """A map's value is a column where there is one of that name, else an SQL expression; a cell is sent once."""
    plan = make_plan(job(fields={"name": "SNAME", "city": "LEFT(address,2)", "id": "sid"}), STU)
    assert plan.cells == ("`sid`", "`sname`", "LEFT(address,2)")
    assert plan.layout.fields == ((b"name", 1), (b"city", 2), (b"id", 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"fields": ["sid", "adress"]},
            "job 'stu': fields: table 'stu' has no column 'adress': did you mean 'address'?",
        ),
        (
            {"fields": {"a": "xyz"}},
            "job 'stu': fields.a: table 'stu' has no column 'xyz': there are sid, sname, address",
        ),
        ({"key": "s_{sidd}"}, "job 'stu': key: table 'stu' has no column 'sidd': did you mean 'sid'?"),
    ],
)
def test_a_missing_column_is_named(settings, message):
    """The error names the job, the setting, the column, and the nearest there is."""
    with pytest.raises(PlanError) as caught:
        make_plan(job(**settings), STU)
    assert str(caught.value) == message


def test_no_primary_key_needs_a_key():
    """Without a primary key somebody has to say what the key is; then the table is read in one pass, with a warning."""
    table = Table("stu", (SID, SNAME))
    with pytest.raises(PlanError, match="no primary key: write a key"):
        make_plan(job(), table)
    plan = make_plan(job(key="s_{sid}"), table)
    assert plan.walk == ()
    assert [warning.split(":")[0] for warning in plan.warnings] == [
        "key 's_{sid}' is not unique in table 'stu'",
        "table 'stu' has no key to walk along",
    ]


def test_a_unique_key_serves_where_the_primary_key_cannot():
    """A FLOAT cannot be continued from exactly; a unique key without NULLs can."""
    score = Column("score", "float", "float", None, nullable=False)
    table = Table("stu", (score, SID), primary_key=("score",), unique_keys=(("sid",),))
    assert make_plan(job(), table).walk == (SID,)


@pytest.mark.parametrize(
    ("key", "warned"),
    [
        ("{sid}", False),
        ("{sid}:{sname}", False),  # a number ends where the separator begins
        ("{sname}:{address}", True),  # a:b + c is a + b:c
        ("{sid}{sname}", False),  # eight digits, then the name
        ("{sname}{sid}{address}", True),
        ("{sname}{sid}", False),
        ("{sname}:{sname}", False),  # one column
    ],
)
def test_a_key_that_joins_ambiguously_is_warned_of(key, warned):
    """Columns joined without a telling separator could make the same key of two rows."""
    table = Table("stu", (SID, SNAME, ADDRESS), primary_key=("sid",), unique_keys=(("sname", "address"),))
    assert any("could make the same key" in text for text in make_plan(job(key=key), table).warnings) == warned


@pytest.mark.parametrize(
    ("first", "second", "between", "separator", "to_hex"),
    [
        ("uuid", "uuid", "_", None, None),
        ("inet6", "inet6", ":", "_", ("a",)),
        ("inet6", "inet6", "_", None, None),
        ("char(36)", "char(36)", "_", None, ("a",)),  # may hold anything
        ("char(36)", "int(11)", "_", None, None),
        ("binary(16)", "binary(16)", "", None, None),
        ("varbinary(16)", "varbinary(16)", "_", None, ("a",)),
        ("bit(12)", "varchar(9)", "", None, None),
        ("date", "varchar(9)", "-", None, None),
        ("timestamp(3)", "timestamp(3)", " ", None, None),
        ("time", "time", ":", "_", ("a",)),
        ("int(11)", "int(11)", "-", "_", ("a",)),
        ("int(11) unsigned", "int(11)", "-", None, None),
        ("int(11) unsigned", "int(11) unsigned", "", "_", ("a", "b")),
        ("int(10) unsigned zerofill", "int(11)", "", None, None),
        ("smallint(4) unsigned zerofill", "int(11) unsigned", "", "_", ("a", "b")),
        ("enum('a','b_c')", "enum('x','y')", "_", None, None),
        ("enum('a','a_b')", "enum('x','b_x')", "_", ":", ("a",)),
        ("enum('a','a_b')", "varchar(9)", "_", ":", ("a",)),
        ("enum('a','_','')", "enum('b')", "_", None, None),  # seen from behind
        ("enum('a','','b_c')", "enum('b')", "_", None, None),
        ("set('a','b')", "set('c')", ",", "_", ("a",)),
        ("set('a','b')", "varchar(9)", "_", None, None),
        ("set('a_b','b')", "varchar(9)", "_", ":", ("a",)),
        ("float", "double", "_", None, None),
        ("unknown", "varchar(9)", "_", None, ("a",)),
    ],
)
def test_columns_that_can_be_told_apart(first, second, between, separator, to_hex):
    """Where one of two has a fixed width, or cannot hold what stands between; else what helps."""
    columns = tuple(
        Column(name, kind.partition("(")[0].partition(" ")[0], kind, None)
        for name, kind in zip("ab", (first, second), strict=True)
    )
    joint = Joint(columns, (("t_", "a"), (between, "b")))
    assert joint.may_clash == (to_hex is not None)
    if to_hex:
        assert (joint.separator(columns), joint.to_hex()) == (separator, to_hex)


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("SELECT HEX(a) AS a, `b`, hex(concat(a, b)) `c` FROM t", {"a", "c"}),
        ("SELECT HEX(a), HEX(b) + 1 AS b, CONCAT(HEX(a), b) AS c FROM t", set()),
        ("SELECT HEX(a) AS a FROM t UNION SELECT b FROM t", set()),
        ("SELECT (SELECT HEX(a) AS a FROM t) AS b FROM t", set()),
        ("", set()),
    ],
)
def test_columns_of_a_query_that_are_hexadecimal(query, columns):
    """HEX() of something and a name: that holds no separator."""
    assert hexed_columns(query) == columns


def test_what_is_computed_is_part_of_the_plan():
    """The types of columns that a field or a condition is computed from count, and members as they are spelled."""
    sex = Column("sex", "enum", "enum('M','F')", "utf8mb4")
    settings = {"fields": {"s": "CONCAT('x', Sex)"}, "where": "`address` > ''"}
    facts = make_plan(job(**settings), Table("stu", (SID, SNAME, ADDRESS, sex), ("sid",))).facts()["column types"]
    assert "sname" not in facts
    assert facts.endswith("address varchar(20), sex enum('M','F')")


def test_chunks_are_ranges_of_the_key():
    """`after < key <= upto`, spelled out for each column, because MySQL finds no range in a comparison of rows."""
    a, b = Column("a", "int", "int", None), Column("b", "varchar", "varchar(9)", "gbk")
    plan = make_plan(job(key="k_{a}", where="a > 3"), Table("stu", (a, b), ("a", "b")))
    assert plan.select(Chunk(2, ("5", "_gbk X'41'"), ("7", "_gbk X''"))) == (
        "SELECT `a`, `b`\nFROM `stu`\nWHERE (a > 3\n)\n"
        "  AND (`a` > 5 OR (`a` = 5 AND `b` > _gbk X'41'))\n"
        "  AND (`a` < 7 OR (`a` = 7 AND `b` <= _gbk X''))"
    )
    assert plan.bound(("5", "_gbk X'41'"), 100) == (
        "SELECT CAST(`a` AS CHAR), CONCAT('_gbk X''', HEX(`b`), '''')\nFROM `stu`\nWHERE (a > 3\n)\n"
        "  AND (`a` > 5 OR (`a` = 5 AND `b` > _gbk X'41'))\nORDER BY `a`, `b` LIMIT 1 OFFSET 99"
    )


def test_names_are_quoted():
    """A backquote in a name ends nothing."""
    table = Table("st`u", (Column("i`d", "int", "int", None),), ("i`d",))
    assert make_plan(job(table="st`u"), table).select(Chunk(1)) == "SELECT `i``d`\nFROM `st``u`"


def test_literals_hold_no_free_text():
    """A key value that is not a literal of the kinds asked for is refused."""
    good = ("5", "-1.50", "'2024-01-01 00:00:00.5'", "_utf8mb4 X'E5BC'", "X''")
    assert checked(good) == good
    for bad in ("5 OR 1=1", "'g'", "X'4'", "", None, "'1'--", "5\n"):
        with pytest.raises(PlanError):
            checked([bad])
    assert as_literal(SNAME) == "CONCAT('_utf8mb4 X''', HEX(`sname`), '''')"


@pytest.mark.parametrize("typed", ["5", "00000005", "005", "stu_00000005"])
def test_a_key_may_be_typed_without_its_zeros(typed):
    """What a person types for an integer becomes the text that MySQL sends; a whole key is taken as it is."""
    assert key_of(make_plan(job(), STU), STU, typed) == b"stu_00000005"


def test_composite_keys_are_typed_with_commas():
    """One value a column, in the order of the key template."""
    plan = make_plan(job(key="s:{sname}:{sid}"), STU)
    assert key_of(plan, STU, "x,7") == b"s:x:00000007"
    with pytest.raises(ConfigError, match="needs 2 values: sname,sid"):
        key_of(plan, STU, "7")


@pytest.mark.parametrize(
    ("text", "condition"),
    [("3:9", "`sid` >= 3 AND `sid` <= 9"), (":9", "`sid` <= 9"), ("3:", "`sid` >= 3")],
)
def test_a_range_includes_both_ends(text, condition):
    """`--range LO:HI`; either end may be left out."""
    assert make_plan(job(), STU, key_range=text).conditions == (condition,)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2024-01-01 00:00:00:2024-02-01 12:30:00.5", b"2024-01-01 00:00:00", b"2024-02-01 12:30:00.5"),
        ("2024-01-01:2024-02-01", b"2024-01-01", b"2024-02-01"),
        (":2024-02-01 00:00:00", b"", b"2024-02-01 00:00:00"),
    ],
)
def test_a_range_of_times(text, low, high):
    """Times hold colons themselves; the one between two whole times divides the range."""
    at = Column("at", "datetime", "datetime(1)", None, nullable=False)
    (condition,) = make_plan(job(), Table("stu", (at,), ("at",)), key_range=text).conditions
    parts = [f"`at` {sign} _utf8mb4 X'{end.hex()}'" for sign, end in ((">=", low), ("<=", high)) if end]
    assert condition == " AND ".join(parts)


def test_a_range_of_times_that_can_be_read_twice():
    """A colon that could be within a time as well as between two is not guessed at."""
    at = Column("at", "time", "time", None, nullable=False)
    with pytest.raises(ConfigError, match="--range"):
        make_plan(job(), Table("stu", (at,), ("at",)), key_range="01:02:03")


@pytest.mark.parametrize(
    ("kind", "text", "is_reversed"),
    [
        ("int", "9:10", False),
        ("int", "-1:-2", True),
        ("decimal", "1.10:1.1", False),
        ("varchar", "9:10", True),
        ("varchar", "B:a", False),  # by some collations it is not
        ("varchar", "b:a", True),
        ("varchar", "é:a", False),
        ("varbinary", "a:B", True),
        ("date", "2024-02-01:2024-01-31", True),
    ],
)
def test_a_range_in_which_nothing_is(kind, text, is_reversed):
    """Ends in the wrong order are a slip of the hand, where every collation sees them so."""
    table = Table("stu", (Column("at", kind, kind, None, nullable=False),), ("at",))
    if is_reversed:
        with pytest.raises(ConfigError, match="so that no row is in it"):
            make_plan(job(), table, key_range=text)
    else:
        make_plan(job(), table, key_range=text)


@pytest.mark.parametrize("text", ["", ":", "5", "a:b", "1:2;--"])
def test_a_range_that_is_none(text):
    """Anything else is a usage error."""
    with pytest.raises(ConfigError, match="--range"):
        make_plan(job(), STU, key_range=text)


def test_a_query_is_sent_as_it_is():
    """A job's own SELECT is its statement; its columns are the cells, and `--where` has no place in it."""
    query = job(table=None, query="SELECT 1 AS a, 2 AS b", key="q_{b}", fields={"x": "a"})
    table = Table("stu", (Column("a", "", "", None), Column("b", "", "", None)))
    plan = make_plan(query, table)
    assert (plan.select(Chunk(1)), plan.layout.key, plan.layout.fields) == (query.query, (b"q_", 1), ((b"x", 0),))
    with pytest.raises(ConfigError, match="into the query itself"):
        make_plan(query, table, where="a = 1")


def test_bounds_within_a_chunk_and_the_last_key():
    """A chunk falls into parts no further than its upper bound; the table's end is one look into its index."""
    plan = make_plan(job(where="sid > 1"), STU)
    assert plan.bound(("3",), 10, ("9",)) == (
        "SELECT CAST(`sid` AS CHAR)\nFROM `stu`\nWHERE (sid > 1\n)\n  AND `sid` > 3\n  AND `sid` <= 9"
        "\nORDER BY `sid` LIMIT 1 OFFSET 9"
    )
    assert plan.last(("3",)) == ("SELECT CAST(`sid` AS CHAR)\nFROM `stu`\nWHERE `sid` > 3\nORDER BY `sid` DESC LIMIT 1")
    assert plan.last(None) == "SELECT CAST(`sid` AS CHAR)\nFROM `stu`\nORDER BY `sid` DESC LIMIT 1"


def test_a_job_that_writes_what_was_changed_walks_within_its_key():
    """Then the hash of a key is one chunk's alone: along a unique key that is not the primary one, if need be."""
    table = Table("stu", (SID, SNAME, ADDRESS), primary_key=("sid",), unique_keys=(("sname",),))
    assert make_plan(job(key="s_{sname}"), table).walk == (SID,)
    plan = make_plan(job(key="s_{sname}", changed_only=True), table)
    assert plan.walk == (SNAME,)
    assert plan.changes(table) == ""
    assert plan.changes(Table("stu", table.columns, ("sid",))) == "table stu: it has another key"
    with pytest.raises(PlanError, match="changed_only needs a key that holds all columns"):
        make_plan(job(key="s_{address}", changed_only=True), table)


@pytest.mark.parametrize(
    ("key", "is_its_own"),
    [
        ("s:{pk}", True),
        ("s:{pk}:{sname}", True),
        ("s:{sid}:{sname}", False),
        ("s:{sname}:{sname}", False),
        (None, True),
    ],
)
def test_a_key_of_a_named_source_follows_the_primary_key_only_if_it_names_it(key, is_its_own):
    """`{pk}` stands for other columns once the primary key is another; any other key is what it was."""
    plan = make_plan(job(key=key).placed("stu/s1", Origin("s1", placed=True)), STU)
    assert plan.changes(STU) == ""
    joined = replace(STU, primary_key=("sid", "sname"), unique_keys=(("sid",),))
    plan = replace(plan, walk=(SID, SNAME))  # only the key tells
    assert plan.changes(joined) == ("table stu: it has another key" if is_its_own else "")
