"""A check-up: the config, its two servers and its jobs, each finding with its fix.

Every check is made, whatever the results of the others, and nothing is written to either server.
"""

import resource
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.doctor import binlog as doctor_binlog
from loader.doctor import job as doctor_job
from loader.doctor import mysql as doctor_mysql
from loader.doctor import redis as doctor_redis
from loader.doctor.findings import Check, Finding, examine, ok, warn
from loader.wire.codec import COMPILED
from loader.words import counted

SIDE = "config"
FEW_FILES = 256  # a run of a large cluster needs a socket for each node and worker


@dataclass(frozen=True, slots=True)
class Written:
    """A config, and the files it was read from."""

    settings: Config
    files: Sequence[Path]


def diagnose(settings: Config, files: Sequence[Path], jobs: Sequence[JobConfig]) -> Iterator[Finding]:
    """The findings, one by one: of the config, of MySQL, of Redis, of each job."""
    yield from examine(SIDE, CHECKS, Written(settings, files))
    with ExitStack() as stack:
        mysql = doctor_mysql.reach(settings)
        if isinstance(mysql, Finding):
            yield replace(mysql, check=f"{doctor_mysql.SIDE}.login")
            yield from doctor_mysql.skipped()
        else:
            stack.enter_context(mysql.source)
            yield from doctor_mysql.checked(mysql)
            yield from doctor_binlog.checked(mysql)
        redis = doctor_redis.reach(settings)
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
                None if isinstance(mysql, Finding) else mysql,
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
    for file in written.settings.source.secret_path, written.settings.target.secret_path:
        if file and file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            fine = False
            yield warn(f"{file} is open to every user of this machine", f"chmod o= {file}")
    if fine and (written.settings.source.secret_path or written.settings.target.secret_path):
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
