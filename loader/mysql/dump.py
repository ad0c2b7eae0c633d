"""How the binlog is asked for: the checks before, the session's variables, the command, and what a refusal means.

See https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_ps.html and
https://mariadb.com/kb/en/com_binlog_dump/. Registering as a replica is left out: neither server asks for it.
"""

import re
import struct
import uuid
import zlib

from loader.errors import Kind, LoaderError, PositionLost, SourceError
from loader.mysql.connection import Connection
from loader.mysql.driver import OperationalError
from loader.mysql.errors import replication
from loader.mysql.stream import PacketBuffer
from loader.records import dataclass
from loader.wire.gtids import GtidPosition, Gtids, GtidSet

HEARTBEAT = 1.0  # seconds of silence until a server gives a sign of life; less for a short read timeout
DUMP, DUMP_GTID = 0x12, 0x1E  # the commands
THROUGH_GTID = 4  # the flag that a set of GTIDs follows
FIRST = 4  # the offset of a file's first event
LARGEST = 0xFFFFFFFF  # offset that can be asked for
# The server's errors: of the binlog, of a replica with the same server id (MariaDB), of rights that the account lacks.
REFUSED, SAME_REPLICA, NO_RIGHT = 1236, 4052, 1227


@dataclass(frozen=True, slots=True)
class Position:
    """Where the binlog is read from: a file and an offset in it, or, if `gtids` is not None, the transactions done.

    `gtids` is a GTID set of MySQL, or a GTID position of MariaDB; it may be empty.
    """

    file: str = ""
    offset: int = FIRST
    gtids: str | None = None


@dataclass(frozen=True, slots=True)
class Replica:
    """As whom a follower asks for the binlog: the same each time, and no other's on the server."""

    server_id: int
    uuid: str


def replica_of(name: str) -> Replica:
    """The replica that follows under a name: always the same, and hardly ever another name's."""
    return Replica(zlib.crc32(name.encode()) | 1 << 31, str(uuid.uuid5(uuid.NAMESPACE_URL, f"loader:{name}")))


def replica_with(server_id: int) -> Replica:
    """The replica with this server id, and always the same uuid."""
    return Replica(server_id, replica_of(f"server_id {server_id}").uuid)


def gtids_of(source: Connection, start: Position) -> Gtids | None:
    """The transactions that are done at a position; None if the server counts none, or does not say."""
    if not source.is_mariadb:
        return None if start.gtids is None else GtidSet(start.gtids)
    if start.gtids is not None:
        return GtidPosition(start.gtids)
    ((found,),) = source.fetch("SELECT BINLOG_GTID_POS(%s, %s)", [start.file, str(start.offset)])
    return None if found is None else GtidPosition(found)


def check_start(source: Connection, start: Position) -> None:
    """Raise `PositionLost` if a position is not this server's: for some, it would send all that it has."""
    if source.single("SELECT @@GLOBAL.log_bin") == ("0",):
        raise SourceError(f"mysql {source.address}: has no binlog: start it with log_bin", kind=Kind.REFUSED)
    if start.gtids is None:
        if start.offset > LARGEST:
            raise lost(source, "a position behind 4 GiB cannot be asked for")
    elif source.is_mariadb:
        _check_mariadb(source, GtidPosition(start.gtids))
    else:
        _check_mysql(source, start.gtids)


def _check_mysql(source: Connection, done: str) -> None:
    query = "SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed), GTID_SUBSET(@@GLOBAL.gtid_purged, %s)"
    ((is_known, is_whole),) = source.fetch(query, [done, done])
    if is_known != "1":
        raise lost(source, "it does not have all transactions that were followed: it is another server, or was reset")
    if is_whole != "1":
        raise lost(source, "it has purged transactions that were not followed")


def _check_mariadb(source: Connection, done: GtidPosition) -> None:
    (state,) = source.single("SELECT @@GLOBAL.gtid_binlog_state")
    known = {}
    for entry in filter(None, re.split(r"[\s,]+", state or "")):
        domain, server, number = map(int, entry.split("-"))
        known[domain, server] = number
    domains = {domain for domain, _ in known}
    for domain, server, number in done:
        if domain not in domains or known.get((domain, server), number) < number:
            raise lost(source, f"it never had {domain}-{server}-{number}: it is another server, or was reset")


def lost(source: Connection, why: str) -> PositionLost:
    """The error that the binlog cannot be read from a position on."""
    return PositionLost(f"mysql {source.address}: cannot be followed from where it was: {why}")


def open_dump(source: Connection, start: Position, replica: Replica) -> tuple[PacketBuffer, bool]:
    """Ask for the binlog from a position on; its packets, and whether the first events have checksums."""
    beat = int(1e9 * min(HEARTBEAT, source.patience / 3))
    checksum = "@@GLOBAL.binlog_checksum"
    source.fetch(f"SET @source_binlog_checksum = {checksum}, @master_binlog_checksum = {checksum}")
    source.fetch(f"SET @source_heartbeat_period = {beat}, @master_heartbeat_period = {beat}")
    if source.is_mariadb:
        source.fetch("SET @mariadb_slave_capability = 4")  # GTIDs as they are
    else:
        source.fetch(f"SET @replica_uuid = '{replica.uuid}', @slave_uuid = '{replica.uuid}'")
    if start.gtids is None:
        command = _by_file(start, replica)
    elif source.is_mariadb:
        source.fetch(
            f"SET @slave_connect_state = '{GtidPosition(start.gtids)}', @slave_gtid_strict_mode = 1,"
            " @slave_gtid_ignore_duplicates = 0"
        )
        command = _by_file(Position(), replica)
    else:
        done = GtidSet(start.gtids).encode()
        command = struct.pack("<BHIIQI", DUMP_GTID, THROUGH_GTID, replica.server_id, 0, FIRST, len(done)) + done
    (written,) = source.single("SELECT @master_binlog_checksum")
    return source.command(command, "the binlog"), written != "NONE"


def _by_file(start: Position, replica: Replica) -> bytes:
    return struct.pack("<BIHI", DUMP, start.offset, 0, replica.server_id) + start.file.encode()


def refusal(source: Connection, packet: bytes, *, is_running: bool) -> LoaderError:
    """What an error in place of an event means; `is_running` says that the position was good.

    Error 1236 has many causes. Of a position that the server does not have it comes at once; later, the server cannot
    read its own binlog or another client asks for it as the same replica, and the next start tells which.
    """
    code = int.from_bytes(packet[1:3], "little")
    text = packet[9:] if packet[3:4] == b"#" else packet[3:]  # behind the SQL state
    error = OperationalError(code, text.decode(errors="replace"))
    if code == SAME_REPLICA:
        return SourceError(
            f"mysql {source.address}: another client follows it as the same replica: {error.args[1]} ({code})",
            kind=Kind.LOCKED,
        )
    if code == REFUSED and not is_running:
        return lost(source, f"{error.args[1]} ({code})")
    failure = source.failure(error, "cannot be followed")
    if code == REFUSED:
        failure = SourceError(f"{failure}: or another client follows it as the same replica", kind=Kind.UNAVAILABLE)
    if code == NO_RIGHT:
        fix = replication(source.user)
        failure = SourceError(f"{failure}: {fix}", kind=Kind.ACCESS)
        failure.fix = fix
    return failure
