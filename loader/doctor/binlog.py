"""What `doctor` looks at in MySQL if a job has `follow`: whether its binlog can be followed."""

import re
from collections.abc import Iterator, Mapping, Sequence

from loader.config.models import JobConfig
from loader.doctor.findings import Check, Finding, examine, fail, ok, skip, unchecked, warn
from loader.doctor.mysql import SIDE, MysqlProbe
from loader.errors import ConfigError, SourceError
from loader.mysql.barrier import snapshot_position
from loader.mysql.binlog_origin import GTIDS_ON, SYNTAX, binlog_status
from loader.mysql.connection import Row
from loader.mysql.errors import code_of
from loader.records import dataclass
from loader.words import counted

DAY = 86_400  # seconds
RETENTION = DAY  # that a binlog should be kept: a follower may be away for a night
VARIABLES = (
    "log_bin", "binlog_format", "server_id", "gtid_mode", "log_replica_updates", "log_slave_updates",
    "binlog_expire_logs_seconds", "expire_logs_days", "binlog_expire_logs_auto_purge", "max_binlog_total_size",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BinlogProbe:
    """A connection to MySQL, its variables that concern the binlog, as far as it has them, and the followed jobs."""

    mysql: MysqlProbe
    jobs: Sequence[JobConfig]
    variables: Mapping[str, str]

    @property
    def is_mariadb(self) -> bool:
        """Whether it is a MariaDB server."""
        return self.mysql.source.is_mariadb

    @property
    def lacks_gtids(self) -> bool:
        """Whether it is a MySQL server without GTIDs."""
        return not self.is_mariadb and self.variables.get("gtid_mode") != "ON"

    def set(self, assignment: str) -> str:
        """The SQL that sets a global variable; MySQL 8 keeps it over a restart."""
        is_kept = not self.is_mariadb and self.mysql.source.fetch("SHOW GLOBAL VARIABLES LIKE 'persisted_globals_load'")
        return f"SET {'PERSIST' if is_kept else 'GLOBAL'} {assignment};"


def checked(mysql: MysqlProbe) -> Iterator[Finding]:
    """All that can be seen of the binlog without a job's table; nothing if no job follows it."""
    jobs = [job for job in mysql.jobs if job.follow]
    if not jobs:
        return
    names = ", ".join(f"'{name}'" for name in VARIABLES)
    try:
        rows = mysql.source.fetch(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
    except SourceError as error:
        yield from skip(SIDE, CHECKS, str(error))
        return
    variables = {str(name): value or "" for name, value in rows}
    yield from examine(SIDE, CHECKS, BinlogProbe(mysql, jobs, variables))


def _binlog(probe: BinlogProbe) -> Iterator[Finding]:
    """Whether there is a binlog that names the rows of each change."""
    if probe.variables.get("log_bin") != "ON":
        yield fail("the server has no binlog", "add log_bin = binlog under [mysqld] of its config, and restart it")
        return
    fine = True
    form = probe.variables.get("binlog_format", "ROW")
    if form != "ROW":
        fine = False
        seen = f"binlog_format is {form}: a statement in the binlog does not say which rows it changes"
        yield fail(f"{seen}; sessions that are open keep the old setting", probe.set("binlog_format = 'ROW'"))
    if probe.variables.get("server_id") == "0":
        fine = False
        yield fail("server_id is 0: the server sends its binlog to nobody", probe.set("server_id = 1"))
    if probe.is_mariadb and not snapshot_position(probe.mysql.source)[0]:
        fine = False
        yield fail("a snapshot does not say where in the binlog it is", "use MariaDB 10.5 or newer")
    databases = dict.fromkeys(probe.mysql.settings.source_of(job).database for job in probe.jobs)
    for database in (each for each in databases if each and _is_left_out(probe, each)):
        fine = False
        yield fail(
            f"the binlog leaves database {database} out (binlog_do_db, binlog_ignore_db)",
            "take the options out of the server's config, and restart it",
        )
    if fine:
        yield ok("on, and it has the rows of each change (binlog_format is ROW)")


def _is_left_out(probe: BinlogProbe, database: str) -> bool:
    """Whether the server filters a database out of its binlog; false if the account may not ask."""
    try:
        status = binlog_status(probe.mysql.source)
    except SourceError as error:
        if not error.kind.is_refusal:
            raise
        return False
    only, ignored = [(text or "").split(",") for text in (status or ())[2:4]] or [[""], [""]]
    return (any(only) and database not in only) or database in ignored


def _gtids(probe: BinlogProbe) -> Iterator[Finding]:
    """Whether MySQL counts transactions, by which a follower waits until it sees a change."""
    if probe.is_mariadb:
        return
    unlocked = [job.name for job in probe.jobs if job.follow and not job.follow.lock_reads]
    if not probe.lacks_gtids:
        yield ok("gtid_mode is ON")
    elif unlocked:
        yield fail(
            f"gtid_mode is {probe.variables.get('gtid_mode', 'unknown')}; a server that cannot have GTIDs needs"
            f" follow: {{lock_reads: true}} in {', '.join(unlocked)}",
            f"{GTIDS_ON};",
        )
    else:
        yield ok("gtid_mode is not ON; rows are read with LOCK IN SHARE MODE, as lock_reads says")


def _rights(probe: BinlogProbe) -> Iterator[Finding]:
    """Whether the account may read the binlog."""
    needed = ["REPLICATION SLAVE", *(["REPLICATION CLIENT"] if probe.lacks_gtids else [])]
    grants = [row[0] or "" for row in probe.mysql.source.fetch("SHOW GRANTS")]
    granted = ", ".join(found[1] for line in grants if (found := re.match(r"GRANT (.+) ON \*\.\* TO ", line)))
    if "ALL PRIVILEGES" in granted:
        granted = ", ".join(needed)
    lacking = [right for right in needed if right not in re.split(r",\s*", granted)]
    if not lacking:
        yield ok(f"the account has {' and '.join(needed)}")
    elif any(re.match(r"GRANT (?:`[^`]+`(?:@`[^`]+`)?,?)+ TO ", line) for line in grants):
        yield unchecked(f"a role may give the account {' and '.join(lacking)}")
    else:
        yield fail(
            f"the account lacks {' and '.join(lacking)}, without which it cannot read the binlog",
            f"GRANT {', '.join(lacking)} ON *.* TO {probe.mysql.account};",
        )


def _lag(probe: BinlogProbe) -> Iterator[Finding]:
    """Whether the account may ask how long the binlog is, so that a follower can tell how far it is behind."""
    try:
        binlog_status(probe.mysql.source)
    except SourceError as error:
        if not error.kind.is_refusal:
            raise
        right = "BINLOG MONITOR" if probe.is_mariadb else "REPLICATION CLIENT"
        yield warn(
            f"the account lacks {right}: how far a follower is behind is told in seconds only, not in bytes",
            f"GRANT {right} ON *.* TO {probe.mysql.account};",
        )
    else:
        yield ok("how far a follower is behind can be told in bytes")


def _replicas(probe: BinlogProbe) -> Iterator[Finding]:
    """Whether another server has the server id as which the binlog is asked for; only registered replicas are seen."""
    ids = {number: job.name for job in probe.jobs if job.follow and (number := job.follow.server_id)}
    if not ids:
        return
    if len(ids) > 1:
        yield fail(
            f"{' and '.join(ids.values())} are followed over one stream, but name different server ids",
            f"follow: {{server_id: {next(iter(ids))}}}",
        )
        return
    ((server_id, name),) = ids.items()
    taken = {int(probe.variables.get("server_id") or 0): "the server itself"}
    unseen = ""
    try:
        taken |= {int(row[0] or 0): f"its replica {row[1] or 'of unknown host'}" for row in _registered(probe)}
    except SourceError as error:
        if not error.kind.is_refusal:
            raise
        unseen = ", as far as this account may see: it may not ask for the replicas"
    if server_id in taken:
        free = next(number for number in range(server_id + 1, server_id + 2 + len(taken)) if number not in taken)
        yield fail(
            f"server_id {server_id} of job {name} is also that of {taken[server_id]}: the server drops one of two"
            " that ask for its binlog with the same",
            f"follow: {{server_id: {free}}}",
        )
    else:
        yield ok(f"no other server is seen with server_id {server_id}{unseen}")


def _registered(probe: BinlogProbe) -> list[Row]:
    """The replicas of a server that have registered, by server id and host."""
    try:
        return probe.mysql.source.fetch("SHOW REPLICAS")
    except SourceError as error:
        if code_of(error.__cause__) != SYNTAX:
            raise
    return probe.mysql.source.fetch("SHOW SLAVE HOSTS")  # the older servers know only the older word


def _managed(probe: BinlogProbe) -> Iterator[Finding]:
    """How long RDS or Aurora keep the binlog, whatever the variables say; nothing of other servers."""
    query = "SELECT value FROM mysql.rds_configuration WHERE name = 'binlog retention hours'"
    hours = f"CALL mysql.rds_set_configuration('binlog retention hours', {3 * RETENTION // 3600});"
    try:
        rows = probe.mysql.source.fetch(query)
    except SourceError:
        (place,) = probe.mysql.source.single("SELECT @@GLOBAL.basedir")
        if (place or "").startswith("/rdsdbbin"):
            yield warn("the server is managed, and this account may not ask how long it keeps the binlog", hours)
        return
    kept = int((rows[0][0] if rows else None) or 0)
    if kept * 3600 < RETENTION:
        seen = f"for {counted(kept, 'hour')} only" if kept else "no longer than the server needs it itself"
        yield warn(f"the managed server keeps the binlog {seen}: a follower that was away must read all rows", hours)
    else:
        yield ok(f"the managed server keeps the binlog for {counted(kept, 'hour')}")


def _retention(probe: BinlogProbe) -> Iterator[Finding]:
    """Whether the binlog is kept for as long as nobody may be following it."""
    if size := int(probe.variables.get("max_binlog_total_size", 0)):
        seen = f"the binlog is purged beyond {counted(size, 'byte')} (max_binlog_total_size), however new it is"
        yield warn(f"{seen}: a follower that was away for longer has to read all rows again")
    seconds = int(probe.variables.get("binlog_expire_logs_seconds", 0))
    seconds = seconds or int(DAY * float(probe.variables.get("expire_logs_days", 0)))
    if probe.variables.get("binlog_expire_logs_auto_purge") == "OFF":
        seconds = 0
    if not seconds:
        yield ok("the binlog is kept until somebody purges it")
    elif seconds < RETENTION:
        name = "binlog_expire_logs_seconds"
        fix = f"{name} = {3 * RETENTION}" if name in probe.variables else "expire_logs_days = 3"
        yield warn(
            f"the binlog is kept for {seconds / 3600:.3g} h: a follower that was away for longer has to read all rows"
            " again",
            probe.set(fix),
        )
    else:
        yield ok(f"the binlog is kept for {seconds / DAY:.3g} days")


def _updates_of_replica(probe: BinlogProbe) -> Iterator[Finding]:
    """Whether the binlog of a replica has what it replicates."""
    name = "log_replica_updates" if "log_replica_updates" in probe.variables else "log_slave_updates"
    if probe.variables.get(name, "ON") != "OFF":
        return
    try:
        probe.mysql.source.lag()
    except ConfigError:  # no replica
        return
    except SourceError as error:
        if not error.kind.is_refusal:
            raise
        if not probe.mysql.source.is_read_only():
            yield unchecked(f"{name} is OFF: if the server is a replica, its binlog lacks what it replicates")
            return
    yield fail(
        f"the server is a replica and {name} is OFF: its binlog lacks what it replicates",
        f"add {name} = ON under [mysqld] of its config, and restart it; or name the primary in source.url",
    )


CHECKS: Mapping[str, Check[BinlogProbe]] = {
    "binlog": _binlog,
    "gtids": _gtids,
    "binlog-rights": _rights,
    "binlog-lag": _lag,
    "binlog-server-id": _replicas,
    "binlog-retention": _retention,
    "binlog-managed": _managed,
    "binlog-replica": _updates_of_replica,
}
