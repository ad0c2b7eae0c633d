"""Transactions with more keys than are held: all are told, and never many at once."""

import pytest

from loader.mysql.binlog import Changes, ReadAgain, TablesChanged, TransactionEnd
from loader.mysql.dump import Position
from support.binlog import MARK, keys_of, numbers

MOST = 1000  # keys that are held in these tests
READ = 12_000  # keys that come at most with one read of the connection
ROWS = 40_000


@pytest.fixture
def table(server, monkeypatch):
    """A table of many rows."""
    monkeypatch.setattr("loader.mysql.binlog.MOST_HELD", MOST)
    server.sql(
        "DROP TABLE IF EXISTS t, digits",
        "CREATE TABLE t (id INT UNSIGNED PRIMARY KEY, v VARCHAR(50)) DEFAULT CHARSET ascii",
        "CREATE TABLE digits (i INT PRIMARY KEY)",
        "INSERT INTO digits VALUES " + ", ".join(f"({number})" for number in range(200)),
        "INSERT INTO t SELECT a.i * 200 + b.i, REPEAT('x', 30) FROM digits a, digits b",
        "INSERT INTO t VALUES (100000, 'small')",
    )
    return server


class Reading:
    """All that is told up to a mark, over as many streams as that takes; from where the stream can be read later."""

    def __init__(self, server, start):
        self.server, self.resume, self.large = server, start, {}
        self.values, self.streams = [], 0

    def until_marked(self, breaks=0):
        """Read on; over a new stream so often in the midst of a transaction that is told in parts."""
        mark = self.server.mark()
        while True:
            self.streams += 1
            with self.server.stream(self.resume, "t", large=self.large) as stream:
                for value in stream:
                    self.values.append(value)
                    if isinstance(value, TransactionEnd):
                        self.resume = value.resume or self.resume
                        if mark in keys_of(self.values, MARK[1]):
                            return self
                        if breaks and value.resume is None:
                            breaks -= 1
                            break
                    assert self.streams < 10

    @property
    def parts(self):
        """The places of the ends of parts."""
        return [place for place, value in enumerate(self.values) if getattr(value, "resume", 0) is None]


@pytest.mark.parametrize("by_file", [False, True])
@pytest.mark.parametrize("is_compressed", [False, True])
def test_every_key_is_told(table, by_file, is_compressed):
    """First the end of the transaction is looked for, then its keys are told in parts; what is around it once."""
    if is_compressed and table.is_mariadb:
        pytest.skip("only MySQL")
    start = table.position() if by_file else table.gtids()
    session = ["SET binlog_transaction_compression = 1"] if is_compressed else []
    table.sql(
        *session,
        "UPDATE t SET v = 'before' WHERE id = 100000",
        "BEGIN",
        "UPDATE t SET v = 'y' WHERE id < 20000",
        "DELETE FROM t WHERE id BETWEEN 20000 AND 39999",
        "COMMIT",
    )
    end = table.end()
    table.sql("INSERT INTO t VALUES (100001, 'behind')")
    reading = Reading(table, start).until_marked()

    assert numbers(keys_of(reading.values)) == [*range(ROWS), 100_000, 100_001]
    assert reading.streams == 2
    changes = [value for value in reading.values if isinstance(value, Changes) and value.followed.table.table == "t"]
    assert max(len(each.keys) for each in changes) < READ
    assert sum(len(each.keys) for each in changes) == ROWS + 2
    again = next(place for place, value in enumerate(reading.values) if isinstance(value, ReadAgain))
    assert len(reading.parts) > 2
    assert again < reading.parts[0]
    for part in reading.parts:  # visible once what is told as their end is
        told = reading.values[part].end
        assert (told.file, told.offset) >= end
        assert bool(told.gtids) is (table.is_mariadb or not by_file)
    assert reading.large == {}
    assert (reading.resume.file, reading.resume.offset) == table.end()


def test_a_connection_that_breaks(table):
    """Parts that were told are told again if the stream breaks among them: the position is still before them."""
    reading = Reading(table, table.gtids())
    table.sql("UPDATE t SET v = 'y' WHERE id < 100000")
    reading.until_marked(breaks=2)
    assert numbers(keys_of(reading.values)) == list(range(ROWS))
    assert reading.streams == 4
    assert (reading.resume.file, reading.resume.offset) == table.end()


def test_one_that_is_prepared(table):
    """Keys of a large XA transaction are told once it is committed, also if others stand before it; not before."""
    reading = Reading(table, table.gtids())
    first, second = table.connect(), table.connect()
    with first, second, first.cursor() as small, second.cursor() as large:
        for cursor, name, statement in (
            (small, "small", "UPDATE t SET v = 'xa' WHERE id = 100000"),
            (large, "large", "UPDATE t SET v = 'xa' WHERE id < 100000"),
        ):
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")  # no locks between rows
            for each in (f"XA START '{name}'", statement, f"XA END '{name}'", f"XA PREPARE '{name}'"):
                cursor.execute(each)
        table.sql("INSERT INTO t VALUES (100001, 'meanwhile')")
        assert numbers(keys_of(reading.until_marked().values)) == [100_001]
        large.execute("XA COMMIT 'large'")
        table.sql("INSERT INTO t SELECT id + 200000, v FROM t WHERE id < 5000")
        wanted = [*range(ROWS), 100_001, *range(200_000, 205_000)]
        assert numbers(keys_of(reading.until_marked().values)) == wanted
        small.execute("XA COMMIT 'small'")
        assert numbers(keys_of(reading.until_marked().values)) == sorted([*wanted, 100_000])
    assert not [value for value in reading.values if isinstance(value, TablesChanged)]
    assert reading.resume == Position(*table.end(), table.gtids().gtids)


def test_one_that_is_rolled_back(table):
    """Of a large XA transaction that is rolled back nothing is told."""
    reading = Reading(table, table.gtids())
    table.sql("XA START 'r'", "UPDATE t SET v = 'xr'", "XA END 'r'", "XA PREPARE 'r'", "XA ROLLBACK 'r'")
    assert keys_of(reading.until_marked().values) == set()
    assert reading.streams == 1
