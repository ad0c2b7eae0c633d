"""The age of open changes: transactions, and statements that may write."""

import random
import time

from loader.errors import Kind, SourceError
from loader.mysql.connection import Connection, understood
from loader.mysql.errors import NO_PROCESS, code_of
from loader.mysql.write_statements import may_write

CACHED = 0.1  # seconds for which InnoDB caches its transactions after a query
LOOKS = 20  # queries until the answer is new
IDLE = "'Sleep', 'Daemon', 'Binlog Dump', 'Binlog Dump GTID'"  # commands of connections that run no statement


@understood
def oldest_writer(connection: Connection) -> int | None:
    """Seconds since the oldest open change began, or a little more; 0 without any, None if hidden.

    That is a transaction that has locked anything, whether or not it changed a row, or a statement that may write: it
    stamps rows with the time it began at, however long it searches, computes or waits.

    They are visible with the PROCESS right. The beginning of a transaction is in the server's local time: if its clocks
    were set back during the last day, transactions count as that much older. The server's answer is cached while others
    keep asking: an answer that contains our own transaction is new.
    """
    now, before = "UTC_TIMESTAMP()", "UTC_TIMESTAMP() - INTERVAL 1 DAY"
    now_there = f"CONVERT_TZ({now}, '+00:00', 'SYSTEM')"
    ahead = "TIMESTAMPDIFF(SECOND, {0}, CONVERT_TZ({0}, '+00:00', 'SYSTEM'))"
    running = _oldest_statement(connection)  # asked first: one that ends meanwhile has committed, or left a transaction
    connection.fetch("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.fetch("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    try:
        for _ in range(LOOKS):
            seen, age = connection.single(
                "SELECT MAX(trx_mysql_thread_id = CONNECTION_ID()),"
                " MAX(IF(trx_rows_modified > 0 OR trx_lock_structs > 0,"
                f" TIMESTAMPDIFF(SECOND, trx_started, {now_there}), NULL)) + 1"
                f" + GREATEST(0, {ahead.format(f'({before})')} - {ahead.format(now)})"
                " FROM information_schema.innodb_trx",
                2,
            )
            if seen == "1":
                return max(0, running, int(age or 0))
            time.sleep(random.uniform(1, 2) * CACHED)  # noqa: S311  # out of step with who asks too
    except SourceError as error:
        if code_of(error.__cause__) == NO_PROCESS:
            return None
        raise
    finally:
        connection.fetch("COMMIT")
    raise SourceError(f"mysql {connection.address}: returns outdated data on its transactions", kind=Kind.UNAVAILABLE)


def _oldest_statement(connection: Connection) -> int:
    """Seconds that the longest running statement that may write has taken, rounded up; 0 without one.

    It may be of a client, an event, or a replication thread.
    """
    running = connection.fetch(
        f"SELECT time + 1, CONVERT({_running(connection)[1]} USING ascii) FROM {_running(connection)[0]}"
        f" WHERE id <> CONNECTION_ID() AND info IS NOT NULL AND command NOT IN ({IDLE}) ORDER BY time DESC"
    )
    return next((int(age or 0) for age, text in running if may_write(text or "")), 0)


def _running(connection: Connection) -> tuple[str, str]:
    """The table of the server's current activity, and its column with the statements.

    MySQL cannot show some statements in the older table, and fails: those with bytes that are not text.
    """
    if connection.is_mariadb:
        return "information_schema.processlist", "info_binary"
    ((there,),) = connection.fetch("SELECT @@performance_schema")
    return "performance_schema.processlist" if there == "1" else "information_schema.processlist", "info"
