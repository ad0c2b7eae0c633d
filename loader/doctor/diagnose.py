"""A check-up: the config, its two servers and its jobs, each finding with its fix.

Every check is made, whatever the results of the others, and nothing is written to either server.
"""

import resource
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.doctor import binlog as doctor_binlog
from loader.doctor import job as doctor_job
from loader.doctor import mysql as doctor_mysql
from loader.doctor import redis as doctor_redis
from loader.doctor.findings import Check, Finding, examine, fail, lost, ok, unmade, warn
from loader.doctor.mysql import MysqlProbe
from loader.doctor.secrets import Secret
from loader.errors import LoaderError
from loader.mysql.connection import Connection
from loader.mysql.sql import quote
from loader.records import dataclass
from loader.wire.codec import COMPILED
from loader.words import counted

SIDE = "config"
FEW_FILES = 256  # a run of a large cluster needs a socket for each node and worker


@dataclass(frozen=True, slots=True)
class Written:
    """A config, and the files it was read from."""

    settings: Config
    files: Sequence[Path]


class Sources:
    """The connections to all sources, and to databases of theirs that jobs read from."""

    def __init__(self, settings: Config, files: Sequence[Path], stack: ExitStack) -> None:
        self._settings = settings
        self._files = files
        self._stack = stack
        self._reached: dict[str, MysqlProbe] = {}
        self._databases: dict[tuple[str, str], MysqlProbe] = {}

    def checked(self, name: str) -> Iterator[Finding]:
        """The findings of one source; if it has a name, each says it."""
        keys = ("sources", name) if name else ("source",)
        secret = Secret(self._files, keys, self._settings.named_sources[name])
        found = doctor_mysql.reach(self._settings, name, secret)
        if isinstance(found, Finding):
            yield _of_source(name, replace(found, check=f"{doctor_mysql.SIDE}.login"))
            yield from doctor_mysql.skipped(name)
            return
        self._stack.enter_context(found.source)
        self._reached[name] = found
        for each in chain(doctor_mysql.checked(found), doctor_binlog.checked(found)):
            yield _of_source(name, each)

    def probe_of(self, job: JobConfig) -> MysqlProbe | Finding:
        """The connection that a job reads through, or why its source or its database cannot be used."""
        source, database = job.origin.source, job.origin.database
        reached = self._reached.get(source)
        if not reached:
            return unmade(doctor_mysql.away(source))
        if not database:
            return reached
        if (source, database) not in self._databases:
            try:
                connection = self._stack.enter_context(Connection(self._settings.source_of(job)))
            except LoaderError as error:
                if error.kind.is_unreachable:
                    return lost(error)
                grant = (
                    f"GRANT SELECT ON {quote(database)}.{quote(job.table)} TO {reached.account};" if job.table else None
                )
                return fail(str(error), grant if error.kind.is_refusal else None)
            self._databases[source, database] = replace(reached, source=connection)
        return self._databases[source, database]


def _of_source(name: str, finding: Finding) -> Finding:
    return replace(finding, seen=f"{name}: {finding.seen}") if name else finding


def diagnose(settings: Config, files: Sequence[Path], jobs: Sequence[JobConfig]) -> Iterator[Finding]:
    """The findings, one by one: of the config, of MySQL, of Redis, of each job."""
    yield from examine(SIDE, CHECKS, Written(settings, files))
    with ExitStack() as stack:
        sources = Sources(settings, files, stack)
        for name in settings.named_sources:
            yield from sources.checked(name)
        redis = doctor_redis.reach(settings, Secret(files, ("target",), settings.target))
        if isinstance(redis, Finding):
            yield replace(redis, check=f"{doctor_redis.SIDE}.login")
            yield from doctor_redis.skipped()
        else:
            stack.enter_context(redis.target)
            yield from doctor_redis.checked(redis)
        for job in jobs:
            yield from doctor_job.checked(
                settings,
                job,
                sources.probe_of(job),
                None if isinstance(redis, Finding) else redis,
            )


def _valid(written: Written) -> Iterator[Finding]:
    count = len(written.settings.jobs)
    yield ok(f"{', '.join(map(str, written.files))}: valid, {counted(count, 'job')}")
    for warning in written.settings.warnings:
        yield warn(warning)


def _passwords(written: Written) -> Iterator[Finding]:
    """Whether files with passwords can be read by everybody."""
    fine = True
    servers = *written.settings.named_sources.values(), written.settings.target
    files = [path for server in servers if (path := server.secret_path)]
    for file in dict.fromkeys(files):
        if file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            fine = False
            yield warn(f"{file} is open to every user of this machine", f"chmod o= {file}")
    if fine and files:
        yield ok("files with passwords are not open to everybody")


def _encoder(_: Written) -> Iterator[Finding]:
    if COMPILED:
        yield ok("compiled")
    else:
        yield warn("plain Python, several times slower", "pip install .  # in a clone, with a C compiler")


def _open_files(_: Written) -> Iterator[Finding]:
    most, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < FEW_FILES:
        yield warn(f"a process may have {most} at most", "ulimit -n 4096")
    else:
        yield ok(f"a process may have {most if most >= 0 else 'any number'}")


CHECKS: Mapping[str, Check[Written]] = {
    "files": _valid,
    "passwords": _passwords,
    "encoder": _encoder,
    "open-files": _open_files,
}
