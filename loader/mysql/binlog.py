"""The binlog of MySQL or MariaDB as a stream of values: keys of changed rows, ends of transactions, changed tables.

    with BinlogStream(Connection(settings), start, replica_of(job), tables) as stream:
        for value in stream:
            ...

`_handle` reads the events that `KeyScanner` leaves; `dump` asks the server for the stream.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from types import TracebackType
from typing import Self

from loader.errors import Kind, MalformedEvent, PositionLost, SourceError
from loader.mysql.binlog_held import MOST_HELD, HeldTransactions, LargeTransactions
from loader.mysql.binlog_statements import Effect, TableName, effect_of, moves_rows, tables_named, words_of
from loader.mysql.connection import Connection
from loader.mysql.dump import Position, Replica, check_start, gtids_of, lost, open_dump, refusal
from loader.records import dataclass
from loader.wire import binlog
from loader.wire.binlog import IGNORABLE, EventType
from loader.wire.compression import plain_events
from loader.wire.packets import HEADER, PACKET_MAX
from loader.wire.row_images import Group, Keys, inside_transaction
from loader.wire.scanner import KeyScanner
from loader.wire.table_map import FollowedTable, TableMap, parse_table_map

ERROR = 0xFF  # the status byte of a packet that has an error instead of an event

KeyColumns = Callable[[TableMap], tuple[int, ...]]
"""Gives the columns of a table, counted from 0, whose cells make its raw keys; called for each new TABLE_MAP of it.

It may raise what stops the stream: the table is not the one of the plan.
"""


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows of a table that were inserted, updated or deleted, by their raw keys; see `FollowedTable.cells`.

    They are visible only once the transaction has ended, which the next `TransactionEnd` says.
    """

    followed: FollowedTable
    keys: Keys


@dataclass(frozen=True, slots=True)
class TransactionEnd:
    """All transactions since the last one of these have ended, and all their keys were told.

    `end` is where the last of them ends, with the GTIDs of these transactions alone: a read that is to see them waits
    for it. `told` is the same place with all GTIDs that are done. `resume` is from where the stream can be read again
    without a loss; it stays before the first XA transaction that is prepared and neither committed nor rolled back.
    `time` is when the last of them was committed, in seconds since 1970.

    `resume` is None if it is only a part of a large transaction whose keys were told, which ends at or before `end`.
    """

    end: Position
    told: Position
    resume: Position | None
    transactions: int
    time: int


@dataclass(frozen=True, slots=True)
class ReadAgain:
    """A transaction has more keys than are held: the stream is over, and the next one tells them part by part.

    That one is read from where the last `TransactionEnd` resumes, with the same `large`: now that it is known where the
    transaction ends, and so from when on its rows are visible, its keys can be told as they come.
    """


@dataclass(frozen=True, slots=True)
class TablesChanged:
    """A statement changed tables that are followed other than row by row: look at their definitions again.

    If `moves_rows`, rows may have come or gone that no `Changes` tells, and all rows have to be read. The transactions
    before it were told; its own `TransactionEnd` follows.
    """

    tables: tuple[TableName, ...]
    statement: str  # its first words
    moves_rows: bool


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The server had nothing to send for `HEARTBEAT` seconds: all that is in the binlog, up to `place`, was told."""

    place: Position = field(default=Position(), compare=False)


BinlogValue = Changes | TransactionEnd | TablesChanged | Heartbeat | ReadAgain


class BinlogStream:
    """Reads the binlog from `start` on; the connection serves nothing else, and is closed with the stream.

    `tables` has, for each table that is followed, what gives its key columns. `large` is what streams before this one
    have noted of transactions that are too large, and is kept for those after it.

    Raises `PositionLost` if the server does not have what follows `start`, now or ever, and if the binlog does not say
    what changed (a statement instead of rows, an incident): all rows have to be read, from a new position. A
    `SourceError` otherwise: transient if the server went away, was silent for longer than the read timeout, or sent
    what does not add up.
    """

    def __init__(
        self,
        source: Connection,
        start: Position,
        replica: Replica,
        tables: Mapping[TableName, KeyColumns],
        large: LargeTransactions | None = None,
    ) -> None:
        self._source = source
        self._start = start
        self._tables = tables
        self._held = HeldTransactions({} if large is None else large)
        self._scanner = KeyScanner(start.offset)
        try:
            check_start(source, start)
            self._gtids = gtids_of(source, start)
            self._packets, self._scanner.is_checksummed = open_dump(source, start, replica)
        except BaseException:
            source.close()
            raise
        self._file = start.file
        self._here = self._position()
        self._known: dict[bytes, FollowedTable | None] = {}  # by the bytes of their TABLE_MAP
        self._parts: list[bytes] = []  # of an event that goes on in the next packet
        self._values: list[BinlogValue] = []
        self._is_running = False  # the position was good
        self.is_over = False  # what comes has to be read again

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    def __iter__(self) -> Iterator[BinlogValue]:
        """All values, as they come; never ends but by an error, or with `ReadAgain`."""
        while not self.is_over:
            yield from self.read()

    def read(self) -> list[BinlogValue]:
        """Wait for the server to send something; the values of all that is there, none if no event is whole."""
        self._packets.fill(self._scanner.wanted)
        try:
            while not self.is_over and self._feed() and self._take_packet():
                pass
        except MalformedEvent as error:
            if self._is_running or self._start.gtids is not None:
                raise
            raise lost(self._source, f"an event does not begin there ({error})") from error  # MariaDB sends it so
        self._deliver()
        self._limit()
        values, self._values = self._values, []
        return values

    def _feed(self) -> bool:
        """Have the scanner read what it can; whether the packet at hand is for `_take_packet`."""
        packets, scanner = self._packets, self._scanner
        if self._parts:
            return True
        packets.start = scanner.feed(packets.buffer, packets.start, packets.end)
        return scanner.stopped

    def _take_packet(self) -> bool:
        """Take the packet at hand; False if it is not all there."""
        packets = self._packets
        self._scanner.wanted = HEADER
        if packets.end - packets.start < HEADER:
            return False
        size = int.from_bytes(packets.buffer[packets.start : packets.start + 3], "little")
        self._scanner.wanted += size
        if packets.end - packets.start < HEADER + size:
            return False
        packets.start += HEADER + size
        self._parts.append(bytes(packets.buffer[packets.start - size : packets.start]))
        if size < PACKET_MAX:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._take(whole)
        return True

    def _take(self, packet: bytes) -> None:
        """Take a packet that is not for the scanner, or was too long for it."""
        if packet[:1] != b"\0":
            self._deliver()
            if packet[:1] == bytes([ERROR]):
                raise refusal(self._source, packet, is_running=self._is_running)
            raise SourceError(
                f"mysql {self._source.address}: the server ended the binlog's stream", kind=Kind.UNAVAILABLE
            )
        event = binlog.unwrap(packet[1:], is_checksummed=self._scanner.is_checksummed)
        end = binlog.header_of(event).end
        if not self._scanner.take(event, end):
            self._handle(event, end)

    def _handle(self, event: bytes, end: int) -> None:
        """Do what an event says that the scanner leaves; `end` is where it, or what it came in, ends in the file."""
        head = binlog.header_of(event)
        match head.type:
            case EventType.TABLE_MAP:
                self._define(event)
            case EventType.QUERY:
                self._query(binlog.parse_query(event), end, head.time)
            case EventType.TAGGED_GTID:
                gtid = binlog.parse_gtid(event)
                self._scanner.open(gtid.source, gtid.number, begun=False)
            case EventType.XA_PREPARE:
                self._prepare(event, end, head.time)
            case EventType.HEARTBEAT | EventType.HEARTBEAT_V2:
                self._is_running = True
                self._deliver()
                self._values.append(Heartbeat(Position(self._file, head.end)))
            case _ if inner := plain_events(event):
                for each in inner:
                    if not self._scanner.take(each, end):
                        self._handle(each, end)
                    self._limit()
            case _:
                self._handle_of_file(event, head)

    def _handle_of_file(self, event: bytes, head: binlog.Header) -> None:
        """Do what an event says that is about the file, or after which nobody can go on."""
        match head.type:
            case EventType.ROTATE:
                self._deliver()
                rotate = binlog.parse_rotate(event)
                self._file, self._scanner.offset = rotate.file, rotate.offset
                self._scanner.forget()
            case EventType.FORMAT_DESCRIPTION:
                self._scanner.is_checksummed = binlog.parse_format(event).is_checksummed
                self._scanner.forget()
            case EventType.INCIDENT:
                why = f"the server lost changes from its binlog ({binlog.parse_incident(event)})"
                raise _untold(self._source, self._here, why)
            case EventType.BEGIN_LOAD_QUERY | EventType.EXECUTE_LOAD_QUERY:
                raise self._statement("LOAD DATA")
            case kind if not head.flags & IGNORABLE:
                raise _unknown(self._source, kind)

    def _define(self, event: bytes) -> None:
        """Find out whether the table of a TABLE_MAP is followed, and by which columns."""
        body = event[binlog.HEADER + 6 :]
        if body not in self._known:
            table = parse_table_map(event)
            key_columns = self._tables.get((table.schema, table.table))
            self._known[body] = FollowedTable(table, key_columns(table)) if key_columns else None
        self._scanner.define(event, self._known[body])

    def _query(self, query: binlog.Query, end: int, time: int) -> None:
        """Do what a statement says."""
        scanner, effect = self._scanner, effect_of(query.statement)
        match effect:
            case Effect.BEGIN:
                scanner.group = Group.BEGUN
            case Effect.COMMIT | Effect.ROLLBACK:
                if scanner.group == Group.CLOSED:
                    raise inside_transaction()
                scanner.close(end, time)
            case Effect.XA_COMMIT | Effect.XA_ROLLBACK:
                self._end_prepared(query, effect)
                scanner.close(end, time)
            case Effect.DEFINITION:
                if named := tables_named(query, self._tables):
                    self._tell_changed(named, query.statement)
                if scanner.group != Group.BEGUN:
                    scanner.close(end, time)
            case Effect.DATA:
                raise self._statement(words_of(query.statement))

    def _tell_changed(self, tables: tuple[TableName, ...], statement: bytes, *, unknown_rows: bool = False) -> None:
        self._deliver()
        self._known.clear()
        self._scanner.forget()
        self._values.append(TablesChanged(tables, words_of(statement), unknown_rows or moves_rows(statement)))

    def _prepare(self, event: bytes, end: int, time: int) -> None:
        """Keep the keys of an XA transaction until it is committed, unless it is with this event."""
        xid, is_committed = binlog.parse_xa_prepare(event)
        if self._scanner.group == Group.CLOSED:
            raise inside_transaction()
        if not is_committed:
            self._deliver()
            self._held.prepare(xid, self._scanner.take_open(), self._here)
        self._scanner.close(end, time)

    def _end_prepared(self, query: binlog.Query, effect: Effect) -> None:
        """Add the keys of an XA transaction to the one that commits it; if none was seen, any row may have changed."""
        xid = binlog.xid_of(query.statement)
        if effect is Effect.XA_ROLLBACK:
            self._held.roll_back(xid)
        elif prepared := self._held.commit(xid):
            for followed, keys in (prepared.keys or {}).items():
                self._scanner.put(followed, keys)
        else:
            self._tell_changed(tuple(self._tables), query.statement, unknown_rows=True)

    def _limit(self) -> None:
        """Tell the keys of a large transaction part by part; drop them if it is not known yet where it ends."""
        if self._scanner.held < MOST_HELD:
            return
        self._deliver()
        keys = self._scanner.take_open()
        if (end := self._held.end_of(self._here)) is None:
            self._held.skip(self._here)
        else:
            self._values += (Changes(followed, each) for followed, each in keys.items())
            self._values.append(TransactionEnd(end, self._here, None, 0, self._scanner.time))

    def _position(self) -> Position:
        return Position(self._file, self._scanner.offset, None if self._gtids is None else str(self._gtids))

    def _deliver(self) -> None:
        """Tell of the transactions that have ended."""
        transactions = self._scanner.ended
        if not transactions or self.is_over:
            return
        self._is_running = True
        done, runs = self._scanner.drain()
        ended = None if self._gtids is None else type(self._gtids)()
        for run in runs:
            if self._gtids is not None:
                self._gtids.add(*run)
            if ended is not None:
                ended.add(*run)
        self._here = self._position()
        end = Position(self._file, self._scanner.offset, None if ended is None else str(ended))
        if self._held.close(end):
            self.is_over = True
            self._values.append(ReadAgain())
            return
        self._values += (Changes(followed, keys) for followed, keys in done.items() if keys)
        resume = self._held.resume(self._here)
        self._values.append(TransactionEnd(end, self._here, resume, transactions, self._scanner.time))

    def _statement(self, words: str) -> PositionLost:
        why = f"it has a statement instead of rows ({words}): SET GLOBAL binlog_format = 'ROW'"
        return _untold(self._source, self._here, why, Kind.REFUSED)


def _untold(source: Connection, here: Position, why: str, kind: Kind | None = None) -> PositionLost:
    return PositionLost(
        f"mysql {source.address}: its binlog does not say what changed after"
        f" {here.gtids or f'{here.file}:{here.offset}'}: {why}",
        kind=kind,
    )


def _unknown(source: Connection, kind: int) -> SourceError:
    return SourceError(
        f"mysql {source.address}: its binlog has an event that is not known (type {kind}):"
        " the server may be newer than this program"
    )
