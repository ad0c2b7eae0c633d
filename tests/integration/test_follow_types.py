"""Followed keys of each type: after inserts, changed keys and deletions the hashes are those of a fresh sync."""

import pytest

from loader.errors import PlanError
from loader.jobs.follow import Following
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from support.database import Ear
from support.following import caught_up, jobs_of

ZONE = "+05:30"
# Of each type: a value that stays, one that becomes another, one that goes, one that comes, and one that does both.
TYPES = {
    "TINYINT": ("-128", "127", "0", "5", "-1", "6"),
    "SMALLINT UNSIGNED": ("0", "65535", "32768", "5", "1", "6"),
    "MEDIUMINT": ("-8388608", "8388607", "-1", "5", "1", "6"),
    "INT": ("-2147483648", "2147483647", "-1", "5", "1", "6"),
    "INT(8) UNSIGNED ZEROFILL": ("1", "7", "4294967295", "123456789", "0", "9"),
    "BIGINT": ("-9223372036854775808", "9223372036854775807", "-1", "5", "1", "6"),
    "BIGINT UNSIGNED": ("0", "18446744073709551615", "9223372036854775808", "5", "1", "6"),
    "DECIMAL(12,4)": ("0", "-1.5", "12345678.1234", "-99999999.9999", "0.0001", "1"),
    "DECIMAL(30,0) ZEROFILL": ("0", "15", "123456789012345678901234567890", "9", "1", "2"),
    "CHAR(20)": ("'a'", "'b'", "'B'", "'張三'", "'ö'", "'x y'"),
    "VARCHAR(20)": ("'a'", "'b'", "'B'", "'😀é'", "''", "'x'"),
    "VARCHAR(20) COLLATE utf8mb4_bin": ("'a'", "'b'", "'B'", "'A'", "'ö'", "'x'"),
    "VARCHAR(20) COLLATE utf8mb4_general_ci": ("'a'", "'b'", "'b '", "'ö'", "'d '", "'x'"),
    "VARCHAR(300)": ("'a'", "REPEAT('b', 290)", "REPEAT('B', 290)", "'c'", "REPEAT('é', 300)", "'x'"),
    "VARCHAR(20) CHARACTER SET latin1": ("'ä'", "'é'", "'É'", "'€'", "'ÿ '", "'x'"),
    "CHAR(20) CHARACTER SET utf16": ("'ä'", "'é'", "'É'", "'😀'", "'ÿ'", "'x'"),
    "VARCHAR(20) CHARACTER SET ascii": ("'a'", "'b'", "'B'", "'c'", "'_%'", "'x'"),
    "BINARY(4)": ("'a'", "X'00FF'", "X'FF00FF00'", "X'0A0D2027'", "X'00000000'", "'x'"),
    "VARBINARY(20)": ("'a'", "X'00FF'", "X'00FF00'", "X'0A0D5C27'", "''", "'A'"),
    "DATE": ("'2024-02-29'", "'1000-01-01'", "'9999-12-31'", "'2001-01-01'", "'2001-01-02'", "'2001-01-03'"),
    "DATETIME": ("'2024-02-29 23:59:59'", "'1000-01-01'", "'9999-12-31 1:2:3'", "'2001-01-01'", "'2001-01-02'",
                 "'2001-01-03'"),
    "DATETIME(3)": ("'2024-02-29 23:59:59.001'", "'2024-02-29 23:59:59.002'", "'2024-02-29 23:59:59.100'",
                    "'2001-01-01'", "'2001-01-02'", "'2001-01-03'"),
    "TIMESTAMP(2)": ("'2024-02-29 23:59:59.01'", "'1980-01-01'", "'2037-12-31 1:2:3'", "'2001-01-01'", "'2001-01-02'",
                     "'2001-01-03'"),
    "TIME(1)": ("'-838:59:59'", "'12:00:00.5'", "'-00:00:00.5'", "'838:59:59'", "'0:0:0'", "'0:0:1'"),
    "YEAR": ("1901", "2155", "2024", "2001", "1970", "2000"),
    "ENUM('b','a','C d','É')": ("'b'", "'a'", "'C d'", "'É'", "'b'", "'a'"),
    "BIT(1)": ("0", "1", "0", "0", "1", "0"),
    "BIT(20)": ("0", "b'11111111111111111111'", "10", "44", "39", "92"),
}  # fmt: skip
FEW = {"ENUM('b','a','C d','É')", "BIT(1)"}  # types with too few values for a primary key of these rows


def tables_of(server):
    """A table for each type, whose primary key is of it, or of it and a number if it has few values."""
    for number, (kind, values) in enumerate(TYPES.items()):
        key = "k, a" if kind in FEW or number % 2 else "k"
        stays, before, _, goes, *_ = values
        server.sql(
            f"DROP TABLE IF EXISTS k{number}",
            f"CREATE TABLE k{number} (a INT NOT NULL, k {kind} NOT NULL, n INT, PRIMARY KEY ({key}))",
            f"SET time_zone = '{ZONE}'",
            f"INSERT INTO k{number} VALUES (1, {stays}, 0), (2, {before}, 0), (3, {goes}, 0)",
        )


def change(server):
    """Change, delete and insert rows of each."""
    for number, (_, _, after, _, comes, both) in enumerate(TYPES.values()):
        server.sql(
            f"SET time_zone = '{ZONE}'",
            f"INSERT INTO k{number} VALUES (4, {comes}, 0), (5, {both}, 0)",
            f"UPDATE k{number} SET n = 1 WHERE a = 1",
            f"UPDATE k{number} SET k = {after} WHERE a = 2",
            f"DELETE FROM k{number} WHERE a IN (3, 5)",
        )


def query_of(number):
    return {"query": f"SELECT a, k AS kk, n + 1 AS m FROM k{number}", "follow": {"table": f"k{number}"}}


@pytest.mark.parametrize("is_query", [False, True])
def test_keys_of_each_type(server, world, is_query):
    """The keys of the binlog are those that MySQL sends, also of rows that are gone, whatever type they are of."""
    tables_of(server)
    jobs = {}
    for number, kind in enumerate(TYPES):
        column = "{kk}" if is_query else "{k}"
        key = f"{number}:{column}:{{a}}" if kind in FEW or number % 2 else f"{number}:{column}"
        jobs[f"k{number}"] = {"key": key} | (query_of(number) if is_query else {"table": f"k{number}"})
    config = jobs_of(server, world, **jobs)
    config = config.model_copy(update={"source": config.source.model_copy(update={"time_zone": ZONE})})
    caught_up(config)
    before = world.hashes()
    change(server)
    caught_up(config)
    followed = world.hashes()

    world.clear()
    for job in config.jobs.values():
        assert run_job(config, job, Options(), Ear()).outcome.is_success
    assert followed == world.hashes()
    assert len(before) == len(followed) == 3 * len(TYPES)
    assert len(before.keys() & followed.keys()) == len(TYPES)


@pytest.mark.parametrize("kind", ["FLOAT", "SET('a', 'b')", "VARCHAR(9) CHARACTER SET gbk", "TIMESTAMP"])
@pytest.mark.parametrize("is_query", [False, True])
def test_other_types(server, world, kind, is_query):
    """A key whose text the binlog does not tell is refused before a row is read."""
    server.sql("DROP TABLE IF EXISTS k0", f"CREATE TABLE k0 (k {kind} PRIMARY KEY, a INT, n INT)")
    server.sql(
        "INSERT INTO k0 (k) VALUES (CURRENT_TIMESTAMP)" if kind == "TIMESTAMP" else "INSERT INTO k0 (k) VALUES (1)"
    )
    job = {"key": "x_{kk}"} | query_of(0) if is_query else {"table": "k0", "key": "x_{k}"}
    config = jobs_of(server, world, job=job)
    with pytest.raises(PlanError, match="column k is"):
        Following(config, list(config.jobs.values()), lambda _: Ear()).run(until_caught_up=True)
    assert world.hashes() == {}
