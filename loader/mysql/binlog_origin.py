"""From where a table can be followed whose rows are read from now on, and how its reads see what the binlog tells."""

from loader.errors import Kind, SourceError
from loader.mysql.barrier import Barrier, GtidBarrier, LockingBarrier, SnapshotBarrier, file_number, snapshot_position
from loader.mysql.connection import Connection, Row
from loader.mysql.dump import Position
from loader.mysql.errors import code_of
from loader.records import dataclass
from loader.wire.gtids import GtidPosition, GtidSet

SYNTAX = 1064
GTIDS_ON = (
    "SET GLOBAL enforce_gtid_consistency = ON; then SET GLOBAL gtid_mode = OFF_PERMISSIVE, ON_PERMISSIVE and ON,"
    " one after the other"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose binlog it is, a position before which everything is visible, and the barrier that later reads need."""

    server: str
    position: Position
    barrier: Barrier


def origin(source: Connection, *, lock_reads: bool = False) -> Origin:
    """The position that is now; a `SourceError` if the server cannot be followed, with the command that changes it.

    With `lock_reads` MySQL need not have GTIDs: reads then wait for strangers' open transactions.
    """
    if source.single("SELECT @@GLOBAL.log_bin") == ("0",):
        raise _refused(source, "has no binlog: start it with log_bin")
    if source.is_mariadb:
        file, offset = snapshot_position(source)
        if not file:
            raise _refused(source, "does not say where in the binlog a snapshot is: a newer MariaDB does")
        ((gtids,),) = source.fetch("SELECT BINLOG_GTID_POS(%s, %s)", [file, str(offset)])
        (server,) = source.single("SELECT @@GLOBAL.server_id")
        return Origin(f"MariaDB, server_id {server}", Position(file, offset, gtids), SnapshotBarrier(str(server)))
    mode, executed, server = source.single("SELECT @@GLOBAL.gtid_mode, @@GLOBAL.gtid_executed, @@GLOBAL.server_uuid", 3)
    name = f"MySQL, server_uuid {server}"
    if mode == "ON":
        return Origin(name, Position(gtids="".join((executed or "").split())), GtidBarrier())
    if not lock_reads:
        raise _refused(source, f"has no GTIDs (gtid_mode is {mode}): {GTIDS_ON}, or set follow.lock_reads in the job")
    file, offset = _end_of_binlog(source)
    return Origin(name, Position(file, offset), LockingBarrier())


def binlog_status(source: Connection) -> Row | None:
    """What a server says of its binlog: file and offset of its end, databases it has alone, those it leaves out.

    None if there is no binlog.
    """
    try:
        rows = source.fetch("SHOW BINARY LOG STATUS")
    except SourceError as error:
        if code_of(error.__cause__) != SYNTAX:
            raise
        rows = source.fetch("SHOW MASTER STATUS")  # the older servers know only the older word
    return rows[0] if rows else None


def bytes_behind(source: Connection, place: Position) -> int:
    """How many bytes of binlog a server has behind a place; a `SourceError` if the account may not ask."""
    status = binlog_status(source)
    if status is None:
        raise _refused(source, "has no binlog: start it with log_bin")
    if status[0] == place.file:
        return max(0, int(status[1] or 0) - place.offset)
    sizes = {file_number(str(row[0])): int(row[1] or 0) for row in source.fetch("SHOW BINARY LOGS")}
    here = file_number(place.file)
    return max(0, sum(size for number, size in sizes.items() if number >= here) - place.offset)


def _end_of_binlog(source: Connection) -> tuple[str, int]:
    """Where MySQL's binlog ends; what is visible may be behind it."""
    status = binlog_status(source)
    if status is None:
        raise _refused(source, "has no binlog: start it with log_bin")
    return str(status[0]), int(status[1] or 4)


def earlier(source: Connection, one: Position, other: Position) -> Position:
    """A position from which everything can be read that follows either of two, of one server."""
    if one == other:
        return one
    if one.gtids is None or other.gtids is None or source.is_mariadb:
        return min(one, other, key=lambda each: (file_number(each.file), each.offset))
    query = "SELECT GTID_SUBTRACT(%s, GTID_SUBTRACT(%s, %s))"
    ((common,),) = source.fetch(query, [one.gtids, one.gtids, other.gtids])
    return Position(gtids="".join((common or "").split()))


def is_past(position: Position, goal: Position) -> bool:
    """Whether all that was in the binlog at `goal` has been read at a position of the same server."""
    if position.gtids is None or goal.gtids is None:
        places = ((file_number(each.file), each.offset) for each in (position, goal))
        return next(places) >= next(places)
    if ":" in position.gtids + goal.gtids:
        return GtidSet(position.gtids).covers(GtidSet(goal.gtids))
    return GtidPosition(position.gtids).covers(GtidPosition(goal.gtids))


def _refused(source: Connection, why: str) -> SourceError:
    return SourceError(f"mysql {source.address}: {why}", kind=Kind.REFUSED)
