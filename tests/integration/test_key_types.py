"""The texts of keys out of the binlog: what a SELECT gives for the same rows, byte for byte."""

import random

import pytest
from test_types import MARIADB_TYPES, MYSQL_TYPES, TYPES

from loader.errors import PlanError
from loader.mysql import catalog
from loader.mysql.binlog import Changes
from loader.mysql.key_text import KeyText, mismatch, zone_of

ZONE = "+05:30"
MORE = [
    ("DECIMAL(2,2)", "0.12", "-0.5", "0"),
    ("DECIMAL(10,0)", "-12", "0"),
    ("DECIMAL(19,0)", "1234567890123456789"),
    ("DECIMAL(18,9)", "123.456", "-0.000000001"),
    ("DECIMAL(9,0) ZEROFILL", "12"),
    ("TIME(1)", "'-00:00:00.1'", "'12:34:56.5'"),
    ("TIME(3)", "'-00:00:00.001'", "'-12:34:56.5'", "'00:00:01'"),
    ("DATETIME(1)", "'2024-02-29 23:59:59.5'"),
    ("CHAR(20) CHARACTER SET utf16", "'😀 张三丰 é '"),
    ("CHAR(20) CHARACTER SET utf32", "'😀 张三丰 é'"),
    ("CHAR(20) CHARACTER SET ucs2", "'张三丰 é'"),
    ("CHAR(255)", "REPEAT('é', 255)"),
    ("VARCHAR(63)", "REPEAT('é', 63)"),
    ("VARCHAR(64)", "REPEAT('é', 64)"),
]
REFUSED = (
    "FLOAT", "DOUBLE", "VARCHAR(20) CHARACTER SET gbk", "SET", "JSON", "GEOMETRY", "POINT", "LINESTRING", "POLYGON",
    "MULTI", "UUID", "INET", "TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT", "TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB",
    "VECTOR", "ENUM('a','','c d','é😀')",
)  # fmt: skip


@pytest.fixture
def source(server):
    """A connection of the loader, in a time zone."""
    with server.source(time_zone=ZONE) as source:
        yield source


def texts_of(source, told, key):
    """The texts of all keys of `t`, in their order."""
    table = catalog.table(source, "t")
    texts = {}
    for value in told:
        if isinstance(value, Changes) and value.followed.table.table == "t":
            assert mismatch(value.followed.table, table.columns) == ""
            key_text = KeyText(value.followed, [table.columns[number] for number in key], zone_of(ZONE))
            texts |= dict.fromkeys(map(key_text.texts, value.keys))
    return list(texts)


def selected(source, columns):
    """What a SELECT gives for them."""
    rows = source.fetch(f"SELECT {columns} FROM t ORDER BY x")
    return list(
        dict.fromkeys(tuple(cell if isinstance(cell, bytes) else cell.encode() for cell in row) for row in rows)
    )


@pytest.mark.parametrize("row", TYPES + MORE, ids=[row[0][:60] for row in TYPES + MORE])
def test_the_text_of_each_type(server, source, row):
    """The text of a value is that of a SELECT, of each type but those that are refused."""
    check(server, source, *row)


@pytest.mark.parametrize("number", range(3))
def test_types_of_one_server(server, source, number):
    """So it is of types that only one of the servers has."""
    rows = MARIADB_TYPES if server.is_mariadb else MYSQL_TYPES
    check(server, source, *rows[number % len(rows)])


def check(server, source, kind, *values):
    server.sql("DROP TABLE IF EXISTS t", f"CREATE TABLE t (x INT PRIMARY KEY, k {kind})")
    start = server.position()
    settings = ["SET sql_mode = 'ALLOW_INVALID_DATES'", f"SET time_zone = '{ZONE}'"]
    server.sql(*settings, *(f"INSERT IGNORE INTO t VALUES ({x}, {value})" for x, value in enumerate(values)))

    told = server.told(start, "t", key=(1,))
    if kind.startswith(REFUSED):
        with pytest.raises(PlanError, match=r"column k is .*: the binlog does not tell"):
            texts_of(source, told, (1,))
    else:
        assert texts_of(source, told, (1,)) == selected(source, "k")


def test_a_timestamp_without_a_time_zone(server, source):
    """A TIMESTAMP needs the session's time zone."""
    server.sql("DROP TABLE IF EXISTS t", "CREATE TABLE t (x INT PRIMARY KEY, k TIMESTAMP)")
    start = server.position()
    server.sql("INSERT INTO t VALUES (1, NOW())")
    (followed,) = {value.followed for value in server.told(start, "t") if isinstance(value, Changes)}
    with pytest.raises(PlanError, match=r"source\.time_zone"):
        KeyText(type(followed)(followed.table, (1,)), [catalog.table(source, "t").columns[1]])


IMAGES = ("FULL", "MINIMAL", "NOBLOB")


@pytest.mark.parametrize("image", IMAGES)
def test_a_key_of_several_columns(server, source, image):
    """Whatever happens to rows, the keys are those of the rows that are others afterwards, gone or new."""
    server.sql(
        "DROP TABLE IF EXISTS t",
        "CREATE TABLE t (a VARCHAR(80) COLLATE utf8mb4_bin, v LONGTEXT, b SMALLINT, w INT, c DECIMAL(6,2),"
        " PRIMARY KEY (c, a, b))",
    )
    chance = random.Random(image)
    key = (4, 0, 2)
    column = {"a": ("'x'", "'é'", "''", "'long one'"), "b": ("1", "-2", "300"), "c": ("0.5", "-12.25", "7")}
    start, expected = server.gtids(), set()
    connection = server.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute(f"SET binlog_row_image = {image}")
        if not server.is_mariadb:
            cursor.execute("SET binlog_transaction_compression = 1")

        def rows():
            cursor.execute("SELECT CAST(c AS CHAR), a, CAST(b AS CHAR), v, w FROM t")
            return {tuple(cell.encode() for cell in row[:3]): row[3:] for row in cursor.fetchall()}

        before = rows()
        for _ in range(120):
            a, b, c = (chance.choice(values) for values in column.values())
            name = chance.choice("abc")
            statement = chance.choice(
                [
                    f"INSERT IGNORE INTO t VALUES ({a}, REPEAT('v', {chance.randrange(9000)}), {b}, 1, {c})",
                    f"REPLACE INTO t VALUES ({a}, NULL, {b}, {chance.randrange(9)}, {c})",
                    f"UPDATE IGNORE t SET {name} = {chance.choice(column[name])} WHERE w < {chance.randrange(9)}",
                    f"UPDATE t SET w = w + 1, v = NULL WHERE b = {b}",
                    f"DELETE FROM t WHERE a = {a} AND b = {b}",
                ]
            )
            cursor.execute(statement)
            after = rows()
            expected |= {each for each in before.keys() | after.keys() if before.get(each) != after.get(each)}
            before = after
    assert expected <= set(texts_of(source, server.told(start, "t", key=key), key))
