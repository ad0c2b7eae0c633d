"""The checks of MySQL: the account, the connection, the server."""

import re
import time
from collections.abc import Iterator, Mapping

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.config.servers import SourceConfig
from loader.doctor.findings import Check, Finding, clock, examine, fail, is_loopback, ok, skip, warn
from loader.doctor.secrets import Secret
from loader.errors import Kind, LoaderError, SourceError
from loader.mysql.connection import Connection
from loader.mysql.errors import NO_DATABASE_RIGHT, code_of
from loader.mysql.failures import is_login
from loader.mysql.sql import quote
from loader.pipeline.options import WORKERS
from loader.records import dataclass

SIDE = "mysql"
LAG = 60  # seconds that a replica may be behind
PACKET = 4 << 20  # bytes that a statement may need: 500 keys of 3,072 bytes, in hexadecimal
ZONES = frozenset({"UTC", "GMT", "Etc/UTC", "+00:00"})


@dataclass(frozen=True, slots=True)
class MysqlProbe:
    """A connection to one of the sources, by its `name`, and its account as SQL spells it."""

    settings: Config
    source: Connection
    account: str
    config: SourceConfig
    name: str = ""

    @property
    def jobs(self) -> list[JobConfig]:
        """The jobs that read from it."""
        return [job for job in self.settings.jobs.values() if job.origin.source == self.name]

    def ask(self, sql: str) -> tuple[str, ...]:
        """The only row of a statement; NULL is empty."""
        (row,) = self.source.fetch(sql)
        return tuple(value or "" for value in row)


def reach(settings: Config, name: str, secret: Secret) -> MysqlProbe | Finding:
    """Log in to a source, or return the finding that says why not; `secret` is its password."""
    config = settings.named_sources[name]
    try:
        source = Connection(config)
        (account,) = source.single("SELECT CURRENT_USER()")
    except LoaderError as error:
        seen = f"{secret.doubt()} {error}" if is_login(error) else str(error)
        return fail(seen, _login_fix(config, error))
    return MysqlProbe(settings, source, _quoted(str(account)), config, name)


def checked(patient: MysqlProbe) -> Iterator[Finding]:
    """All checks of MySQL that need no job."""
    return examine(SIDE, CHECKS, patient)


def away(name: str) -> str:
    """Why checks that need a source cannot be made; `name` is empty if there is only one."""
    return f"there is no connection to {f'source {name}' if name else 'MySQL'}"


def skipped(name: str) -> Iterator[Finding]:
    """The checks of a source that could not be made."""
    return skip(SIDE, list(CHECKS)[1:], away(name))


def _login_fix(settings: SourceConfig, error: LoaderError) -> str:
    """What helps against a refused login, judging by the server's error; it changes no account that exists."""
    if error.fix:
        return f"{error.fix};"
    account = re.search(r"user ('[^']*'@'[^']*')", str(error))
    if error.kind is Kind.ACCESS and account and code_of(error.__cause__) == NO_DATABASE_RIGHT:
        return f"GRANT SELECT ON {quote(settings.database)}.* TO {account[1]};"
    if settings.unix_socket:
        return f"mysql -S {settings.unix_socket} -u {settings.user} -p -e 'SELECT 1'"
    return f"mysql -h {settings.host} -P {settings.port} -u {settings.user} -p -e 'SELECT 1'"


def _quoted(account: str) -> str:
    """An account as GRANT spells it."""
    user, _, host = account.rpartition("@")
    return "@".join("'" + part.replace("'", "''") + "'" for part in (user, host))


def _login(patient: MysqlProbe) -> Iterator[Finding]:
    (version,) = patient.ask("SELECT VERSION()")
    name = version if "MariaDB" in version else f"MySQL {version}"
    yield ok(f"{patient.source.address} as {patient.account}, {name}")


def _tls(patient: MysqlProbe) -> Iterator[Finding]:
    settings = patient.config
    _, cipher = patient.ask("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    if cipher and settings.tls_verify:
        yield ok(f"in use, {cipher}")
    elif cipher:
        yield warn(f"in use, {cipher}, but the server's certificate is not checked", "tls_verify: true")
    elif settings.tls:
        yield fail("the config asks for TLS, but it is not in use", "see ssl_cert and ssl_key of the server")
    elif settings.unix_socket or is_loopback(settings.host):
        yield ok("not in use; the connection does not leave this machine")
    else:
        yield warn("not in use: passwords and rows cross the network as they are", "source: {tls: true}")


def _session(patient: MysqlProbe) -> Iterator[Finding]:
    """Whether the session still has its variables; those that results depend on were checked at login."""
    if astray := patient.source.astray():
        found = fail if any(each.variable.vital for each in astray) else warn
        yield found(
            f"{'; '.join(map(str, astray))}: a proxy in between does not keep sessions apart",
            "use MySQL's own address in source.url, or make the proxy pin its connections",
        )
    else:
        yield ok("all variables that results depend on are set")


def _time_zone(patient: MysqlProbe) -> Iterator[Finding]:
    zone, system, named = patient.ask(
        "SELECT @@SESSION.time_zone, @@system_time_zone, CONVERT_TZ('2000-01-01 00:00:00', 'UTC', 'Europe/Berlin')"
    )
    known = "named zones work" if named else "named zones are not loaded"
    here = f"SYSTEM, which is {system}" if zone == "SYSTEM" else zone
    if patient.config.time_zone or (system if zone == "SYSTEM" else zone) in ZONES:
        yield ok(f"{here}; {known}")
    else:
        yield warn(
            f"{here}; {known}: TIMESTAMP columns are read in that zone, in which an hour may come twice a year",
            'source: {time_zone: "+00:00"}',
        )


def _packet(patient: MysqlProbe) -> Iterator[Finding]:
    (most,) = map(int, patient.ask("SELECT @@max_allowed_packet"))
    cut = ", which limits GROUP_CONCAT" if any(map(_concatenates, patient.jobs)) else ""
    if most < PACKET:
        yield warn(
            f"max_allowed_packet is {most:,} bytes{cut}: statements of verify may be longer",
            f"SET GLOBAL max_allowed_packet = {16 << 20};",
        )
    else:
        yield ok(f"max_allowed_packet is {most >> 20} MiB{cut}")


def _concatenates(job: JobConfig) -> bool:
    """Whether the job's own SQL has a GROUP_CONCAT."""
    computed = job.fields.values() if isinstance(job.fields, Mapping) else ()
    return any("group_concat" in (text or "").lower() for text in (job.query, job.where, *computed))


def _connections(patient: MysqlProbe) -> Iterator[Finding]:
    """Whether the account may connect, and send statements, as often as runs do."""
    settings = patient.settings
    most = patient.source.most_connections()
    together = min(settings.daemon.jobs_at_once, sum(bool(job.schedule) for job in patient.jobs))
    needed, all_needed = 1 + WORKERS, together * (1 + WORKERS) + 1
    takes = f"a run takes {needed}, one for each of {WORKERS} workers and one more"
    takes += f", the daemon up to {all_needed}" if together else ""
    fix = f"ALTER USER {patient.account} WITH MAX_USER_CONNECTIONS {max(needed, all_needed)};"
    if most == 1:
        yield fail(f"the account may have 1 at a time (max_user_connections), but 2 is the minimum: {takes}", fix)
    elif most is not None and most < max(needed, all_needed):
        yield warn(
            f"the account may have {most} at a time (max_user_connections): {takes}; runs use fewer workers", fix
        )
    else:
        yield ok(f"{takes}; the account may have {most or 'as many as the server allows'}")
    for limit, count in re.findall(r"(MAX_(?:QUERIES|CONNECTIONS)_PER_HOUR) ([1-9][0-9]*)", _definition(patient)):
        yield warn(
            f"the account has {limit} {count}: a run sends some 50 statements, and two for each chunk",
            f"ALTER USER {patient.account} WITH {limit} 0;",
        )


def _definition(patient: MysqlProbe) -> str:
    """The account's CREATE USER statement; empty if it may not read it."""
    try:
        return patient.source.fetch("SHOW CREATE USER CURRENT_USER()")[0][0] or ""
    except SourceError as error:
        if error.transient:
            raise
        return ""


def _transactions(patient: MysqlProbe) -> Iterator[Finding]:
    """Whether open transactions and running statements are visible, which an incremental sync needs."""
    jobs = [job for job in patient.jobs if job.incremental]
    if not jobs:
        return
    names = ", ".join(job.name for job in jobs)
    try:
        patient.source.fetch("SELECT 1 FROM information_schema.innodb_trx LIMIT 1")
    except SourceError as error:
        if not error.kind.is_refusal:
            raise
        yield warn(
            "no PROCESS right: open transactions and running statements of others are not visible, so rows of one that"
            f" takes longer than the lag of {names} may be missed until the next full sync",
            f"GRANT PROCESS ON *.* TO {patient.account};",
        )
    else:
        yield ok("open transactions and running statements are visible (PROCESS)")
    if patient.source.is_read_only():
        yield warn(
            "a replica (read_only is set): transactions on the server it replicates are not visible here, so the lag of"
            f" {names} has to exceed the longest transaction or statement there plus the replication delay,"
            " or rows may be missed until the next full sync",
            *([] if all(job.full_every for job in jobs) else ["full_every: 1d"]),
        )


def _replica(patient: MysqlProbe) -> Iterator[Finding]:
    settings = patient.config.at_replica()
    if settings is None:
        return
    right = "REPLICA MONITOR" if "MariaDB" in patient.ask("SELECT VERSION()")[0] else "REPLICATION CLIENT"
    grant = f"GRANT {right} ON *.* TO {patient.account};"
    try:
        with Connection(settings) as replica:
            lag = replica.lag()
    except LoaderError as error:
        refused = isinstance(error, SourceError) and error.kind.is_refusal
        yield fail(str(error), grant if refused else "see source.replica")
        return
    where = f"{settings.host}:{settings.port}"
    if lag is None:
        yield fail(f"{where} does not replicate", "START REPLICA;")
    elif lag > LAG:
        yield warn(f"{where} is {lag:,} s behind: --max-lag would wait for it")
    else:
        yield ok(f"{where} is {lag} s behind")


def _clock(patient: MysqlProbe) -> Iterator[Finding]:
    before = time.time()
    (theirs,) = map(float, patient.ask("SELECT UNIX_TIMESTAMP(NOW(6))"))
    yield clock(theirs - (before + time.time()) / 2, "MySQL")


CHECKS: Mapping[str, Check[MysqlProbe]] = {
    "login": _login,
    "tls": _tls,
    "session": _session,
    "time-zone": _time_zone,
    "packet": _packet,
    "connections": _connections,
    "transactions": _transactions,
    "replica": _replica,
    "clock": _clock,
}
