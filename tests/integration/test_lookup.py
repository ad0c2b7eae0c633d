"""What texts a column may have, and what a key and a hash say of whose they are."""

import pytest

from loader.config.models import JobConfig
from loader.model import Column, Table
from loader.mysql.forms import checker
from loader.mysql.keys import KeyMatcher
from loader.mysql.planner import make_plan

ENUM = "enum('M','it''s','a\\\\b','x\\ny','é')"  # as information_schema writes it


def column(full_type, charset=None, name="k"):
    return Column(name, full_type.partition("(")[0].partition(" ")[0], full_type, charset)


def lookup(*columns, key="t_{k}", **job):
    made = JobConfig(table="t", key=key, **job)
    made.take_name("t")
    table = Table("t", columns, (columns[0].name,))
    return KeyMatcher(make_plan(made, table), table)


@pytest.mark.parametrize(
    ("full_type", "charset", "texts", "others"),
    [
        ("varchar(3)", "utf8mb4", ["", "abc", "张三丰", "a "], ["abcd", b"\xff"]),
        ("char(3)", "utf8mb4", ["", "abc", " a"], ["a ", "abcd"]),
        ("varchar(9)", "latin1", ["é", "\x81", "€"], ["张", "ā"]),
        ("varchar(9)", "ascii", ["a"], ["é"]),
        ("varchar(9)", "utf8mb3", ["张"], ["😀"]),
        ("varchar(9)", "gbk", ["张", "é"], []),
        ("varbinary(3)", None, [b"", b"\xff", "abc"], ["abcd"]),
        ("binary(3)", None, [b"a\0\0"], ["a", "abcd"]),
        ("bit(12)", None, [b"\xff\x0f"], ["a", "abc"]),
        (ENUM, "utf8mb4", ["M", "it's", "a\\b", "x\ny", "é", ""], ["m", "it''s", "x", "M,it's"]),
        ("set('a','B','c')", "utf8mb4", ["", "a", "a,c", "a,B,c"], ["c,a", "a,a", "b", "a,", ","]),
        ("unknown", None, [], ["a", b"\xff"]),
    ],
)
def test_texts_that_a_column_may_have(full_type, charset, texts, others):
    """Its length, its character set and its members say so."""
    kind = column(full_type, charset)
    as_bytes = [each if isinstance(each, bytes) else each.encode() for each in texts + others]
    assert [*map(checker(kind), as_bytes)] == [True] * len(texts) + [False] * len(others)


def test_each_part_of_a_key_is_looked_at():
    """Bytes may be any beside a text that is one; a key with very many ways to take it apart is soon decided."""
    sides = lookup(column("varbinary(9)"), column("varchar(9)", "utf8mb4", "n"), key="t_{k}_{n}")
    assert sides.fits(b"t_\xff_\xc3\xa9")
    assert not sides.fits(b"t_a_\xff")
    assert not sides.fits(b"t_a_" + b"x" * 10)
    names = [column("varchar(3)", "utf8mb4", name) for name in "abcdef"]
    assert not lookup(*names, key="_".join(f"{{{each.name}}}" for each in names)).fits(b"_" * 300)


@pytest.mark.parametrize(
    ("key", "fields", "found", "is_own"),
    [
        ("t_{k}", ["k", "v"], {b"k": b"x_y", b"v": b"1"}, True),
        ("t_{k}", ["k", "v"], {b"k": b"x_y"}, True),
        ("t_{k}", ["k", "v"], {b"v": b"1"}, False),
        ("t_{k}", ["k", "v"], {b"k": b"x", b"v": b"1"}, False),
        ("t_{k}", ["k", "v"], {b"k": b"x_y", b"z": b"1"}, False),
        ("t_{k}", ["v"], {b"v": b"1"}, True),
        ("{k}", ["v"], {b"v": b"1"}, False),
        ("{k}", ["v", "k"], {b"k": b"t_x_y"}, True),
        ("t_{k}_{n}", ["k"], {b"k": b"x"}, True),
        ("t_{k}_{n}", ["k", "n"], {b"k": b"x", b"n": b"z"}, False),
        ("t_{k}", {"a": "k", "b": "k"}, {b"a": b"x_y", b"b": b"x"}, False),
    ],
)
def test_a_hash_shows_whose_it_is(key, fields, found, is_own):
    """No field but the job's, and those that are columns of the key say what the key says."""
    texts = [column("varchar(9)", "utf8mb4", name) for name in ("k", "n", "v")]
    sides = lookup(*texts, key=key, fields=fields)
    assert (
        sides.proves(b"t_x_y", found, {b"k", b"n", b"v", b"a", b"b"} - ({b"k"} if fields == ["v"] else set())) is is_own
    )


@pytest.mark.parametrize(
    ("full_type", "key", "is_certain"),
    [
        ("int(11)", "t_{k}", True),
        ("int(11)", "{k}", False),
        ("enum('a','b')", "t_{k}", True),
        ("datetime", "t_{k}", True),
        ("varchar(9)", "t_{k}", False),
        ("varbinary(9)", "t_{k}", False),
        ("json", "t_{k}", False),
    ],
)
def test_a_key_that_says_enough(full_type, key, is_certain):
    """A literal and what no text of others looks like; else the hash has to show whose it is."""
    assert lookup(column(full_type), key=key).is_certain is is_certain
