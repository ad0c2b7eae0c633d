"""Makes sure that a connection sees the transactions that the binlog has told of, before their rows are read again.

A server writes a transaction to the binlog before others see it: rows that are read at the event may be old ones.
"""

import time
from typing import Protocol

from loader.errors import Kind, ServerReplaced, SourceError
from loader.mysql.connection import Connection
from loader.records import dataclass
from loader.wire.gtids import GtidSet

PATIENCE = 10  # seconds that a transaction of the binlog has to become visible: MySQL waits that long in one statement
PAUSE = 0.001  # seconds between two snapshots: MariaDB shows a commit within that time, as a rule


@dataclass(frozen=True, slots=True)
class Committed:
    """What the binlog has told of: the GTIDs of its transactions, and where the last commit ends."""

    gtids: tuple[str, ...]
    file: str
    offset: int


class Barrier(Protocol):
    """Waits until what was committed is seen; `lock` is what the statements that read it end in."""

    lock: str

    def wait(self, source: Connection, committed: Committed) -> None:
        """Wait until whoever reads from now on sees these transactions; a transient `SourceError` if not in time."""


class GtidBarrier:
    """MySQL with GTIDs: waits until the server has executed, and shows, all of them.

    See https://dev.mysql.com/doc/refman/en/gtid-functions.html.
    """

    lock = ""

    def wait(self, source: Connection, committed: Committed) -> None:
        """Wait until the server shows these transactions."""
        if not committed.gtids:
            return
        gtids = GtidSet(",".join(committed.gtids))  # all of them: a later one says nothing of those of other sources
        (late,) = source.single(f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{gtids}', {PATIENCE})")  # 0 would wait for ever
        if late != "0":
            raise _unseen(source)


class SnapshotBarrier:
    """MariaDB: waits for a consistent snapshot whose binlog position is not before the last commit that was told of.

    `server_id` is of the server whose binlog it is: a position in it says nothing of another that takes its place.

    See https://mariadb.com/kb/en/enhancements-for-start-transaction-with-consistent-snapshot/.
    """

    lock = ""

    def __init__(self, server_id: str) -> None:
        self._server_id = server_id

    def wait(self, source: Connection, committed: Committed) -> None:
        """Wait until the server shows what was committed up to there; `ServerReplaced` if it is another one."""
        if source.single("SELECT @@GLOBAL.server_id") != (self._server_id,):
            raise ServerReplaced(f"mysql {source.address}: another server has taken its place")
        end = time.monotonic() + PATIENCE
        wanted = file_number(committed.file), committed.offset
        while True:
            file, offset = snapshot_position(source)
            if (file_number(file), offset) >= wanted:
                return
            if time.monotonic() > end:
                raise _unseen(source)
            time.sleep(PAUSE)


class LockingBarrier:
    """MySQL without GTIDs: reads that wait for the row locks which an invisible transaction still holds."""

    lock = "LOCK IN SHARE MODE"

    def wait(self, source: Connection, committed: Committed) -> None:  # noqa: ARG002  # as `Barrier` says
        """Limit how long a statement waits for a lock: it is tried again."""
        source.fetch(f"SET SESSION innodb_lock_wait_timeout = {PATIENCE}")


def snapshot_position(source: Connection) -> tuple[str, int]:
    """Up to which file and offset of the binlog MariaDB shows everything to whoever reads from now on."""
    source.fetch("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # in another one there is no snapshot
    source.fetch("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    seen = {str(name): value for name, value in source.fetch("SHOW STATUS LIKE 'binlog_snapshot_%'")}
    source.fetch("COMMIT")
    return seen.get("Binlog_snapshot_file") or "", int(seen.get("Binlog_snapshot_position") or 0)


def file_number(file: str) -> int:
    """The number at the end of a binlog file's name: names are not in order once it has a digit more."""
    digits = file.rpartition(".")[2]
    return int(digits) if digits.isdecimal() else 0


def _unseen(source: Connection) -> SourceError:
    return SourceError(
        f"mysql {source.address}: a transaction of the binlog is not visible after {PATIENCE} s", kind=Kind.UNAVAILABLE
    )
