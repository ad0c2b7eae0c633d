"""Events that real servers send only in distress, from a server that is made up."""

import pytest

from loader.errors import PositionLost, SourceError
from loader.mysql.binlog import BinlogStream, Changes, TransactionEnd
from loader.mysql.dump import Position, replica_of
from loader.wire.binlog import PASSED_OVER
from support import binlog_bytes as made

UUID = "75757575-7575-7575-7575-757575757575"  # of `made.gtid`
LONG = 3


class Packets:
    """What a server sends, in some parts; then it closes the connection."""

    def __init__(self, parts):
        self._parts = [b"".join(map(made.packet, events)) for events in parts]
        self.buffer, self.start, self.end = bytearray(), 0, 0

    def fill(self, wanted):
        if not self._parts:
            raise SourceError("it is over")
        self.buffer = self.buffer[self.start :] + self._parts.pop(0)
        self.start, self.end = 0, len(self.buffer)


class Source:
    """A connection to MySQL that answers what a stream asks before it begins."""

    address, user, is_mariadb, patience = "db:3306", "loader", False, 10

    def __init__(self, parts):
        self.parts = parts

    def single(self, query, count=1):
        return ("NONE" if "checksum" in query else "1",) * count

    def fetch(self, query, arguments=()):
        return [("1", "1")]

    def command(self, command, what):
        return Packets(self.parts)

    def close(self):
        pass


def told(*events):
    """What a stream tells of events that follow a transaction, and the error that ends it."""
    before = [made.gtid(1), made.query(b"BEGIN"), made.table_map([LONG]), row(1), made.xid()]
    source, values = Source([before, events]), []
    with BinlogStream(source, Position(gtids=""), replica_of("job"), {("test", "t"): lambda _: (0,)}) as stream:
        with pytest.raises(SourceError) as error:
            values.extend(stream)
        return values, error.value


def row(number, **options):
    return made.rows(30, 1, [made.image(number.to_bytes(4, "little"))], **options)


def keys(values):
    return [int.from_bytes(key, "little") for value in values if isinstance(value, Changes) for key in value.keys]


def test_an_incident():
    """A server that lost changes from its binlog says so: nobody can say what they were."""
    message = b"LOST EVENTS"
    values, error = told(made.event(26, b"\1\0" + bytes([len(message)]) + message))
    assert isinstance(error, PositionLost)
    assert str(error) == (
        f"mysql db:3306: its binlog does not say what changed after {UUID}:1:"
        " the server lost changes from its binlog (LOST EVENTS)"
    )
    assert keys(values) == [1]  # that is told before


@pytest.mark.parametrize("kind", [38 + 5, 99, 172, 255])
def test_an_event_that_is_not_known(kind):
    """It ends the stream, unless the server says that it can be ignored: it may be one that changes rows."""
    values, error = told(made.event(kind, b"anything"))
    assert f"has an event that is not known (type {kind})" in str(error)
    assert keys(values) == [1]

    values, error = told(
        made.event(kind, b"anything", flags=0x80), made.gtid(2), made.query(b"BEGIN"), row(2), made.xid(end=3000)
    )
    assert str(error) == "it is over"
    assert keys(values) == [1, 2]


@pytest.mark.parametrize("last", [[], [made.event(26, b"\1\0\0")], [made.event(99, b"")]])
def test_a_transaction_that_is_cut_off(last):
    """Neither keys nor the GTID of a transaction count that has not ended."""
    values, _ = told(made.gtid(2), made.query(b"BEGIN"), row(2), *last)
    assert keys(values) == [1]
    assert [value.resume.gtids for value in values if isinstance(value, TransactionEnd)] == [f"{UUID}:1"]


@pytest.mark.parametrize(
    "events",
    [
        [row(2)],
        [made.gtid(2), made.query(b"BEGIN"), row(2, table=6)],
        [made.xid()],
        [made.query(b"COMMIT")],
        [made.event(38, b"\0" + b"\1\0\0\0" + b"\1\0\0\0" + b"\0\0\0\0" + b"x")],
    ],
)
def test_the_rest_of_a_transaction(events):
    """An end or rows without their beginning are never taken for a transaction."""
    values, error = told(*events)
    assert "the middle of a transaction" in str(error)
    assert keys(values) == [1]


@pytest.mark.parametrize("kind", sorted(PASSED_OVER))
def test_an_event_that_changes_nothing(kind):
    """It is passed over, also within a transaction."""
    values, error = told(made.gtid(2), made.query(b"BEGIN"), made.event(kind, b"anything"), row(2), made.xid())
    assert str(error) == "it is over"
    assert keys(values) == [1, 2]


@pytest.mark.parametrize("kind", [17, 18])
def test_a_file_that_is_loaded_as_a_statement(kind):
    """Which rows it brought is not known."""
    values, error = told(made.gtid(2), made.query(b"BEGIN"), made.event(kind, b"anything"), made.xid())
    assert isinstance(error, PositionLost)
    assert "it has a statement instead of rows (LOAD DATA): SET GLOBAL binlog_format = 'ROW'" in str(error)
    assert keys(values) == [1]


def test_rows_of_no_table():
    """A statement that changes nothing ends with rows of a table that is none."""
    values, _ = told(made.gtid(2), made.query(b"BEGIN"), made.rows(30, 1, [], table=0xFFFFFF), row(2), made.xid())
    assert keys(values) == [1, 2]
