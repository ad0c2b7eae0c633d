"""The checks of one job: its table, its keys, whether its rows fit, its state, when it runs."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from loader.config.cron import next_times
from loader.config.load import Config
from loader.config.models import JobConfig
from loader.doctor.findings import Check, Finding, examine, fail, lost, ok, skip, warn
from loader.doctor.job_follow import FOLLOWED
from loader.doctor.job_plan import PLANNED, PlannedJob
from loader.doctor.job_redis import FACING, JobOnRedis
from loader.doctor.job_state import KEPT, JobState
from loader.doctor.mysql import MysqlProbe
from loader.doctor.redis import RedisProbe
from loader.errors import LoaderError, SourceError
from loader.mysql.sql import quote
from loader.pipeline.job_context import read_plan
from loader.pipeline.options import Options
from loader.wire.slots import slot_of
from loader.words import counted

SIDE = "job"
TIMES = 3  # next runs that are shown


def checked(
    settings: Config, job: JobConfig, mysql: MysqlProbe | Finding, redis: RedisProbe | None
) -> Iterator[Finding]:
    """All checks of a job, even if only one of MySQL and Redis was reached; `mysql` may say why it was not."""
    found = mysql if isinstance(mysql, Finding) else _plan(settings, job, mysql)
    planned = found if isinstance(found, PlannedJob) else None
    finding = _table(found) if isinstance(found, PlannedJob) else found
    yield replace(finding, check=f"{SIDE}.table", job=job.name)
    why = finding.lacking or "the table cannot be read as the job says"
    if planned:
        yield from examine(SIDE, {**PLANNED, **FOLLOWED}, planned, job.name)
    else:
        yield from skip(SIDE, [*PLANNED, *(FOLLOWED if job.follow else ())], why, job.name)
    if planned and redis:
        yield from examine(SIDE, FACING, JobOnRedis(planned, redis), job.name)
    else:
        yield from skip(SIDE, FACING, why if not planned else "there is no connection to Redis", job.name)
    if redis:
        yield from examine(SIDE, KEPT, JobState(settings, job, redis, isinstance(mysql, MysqlProbe)), job.name)
    else:
        yield from skip(SIDE, KEPT, "there is no connection to Redis", job.name)
    yield from examine(SIDE, ALONE, job, job.name)


# the table


def _plan(settings: Config, job: JobConfig, mysql: MysqlProbe) -> PlannedJob | Finding:
    """The job fitted to its table, or why it does not fit."""
    database = quote(settings.source_of(job).database)
    try:
        return PlannedJob(settings, job, mysql, *read_plan(mysql.source, job, Options()))
    except SourceError as error:
        if error.kind.is_unreachable:
            return lost(error)
        of = f"{database}.{quote(job.table)}" if job.table else f"{database}.*"
        grant = f"GRANT SELECT ON {of} TO {mysql.account};" if error.kind.is_refusal else None
        return fail(str(error), f"{error.fix};" if error.fix else grant)
    except LoaderError as error:
        return fail(str(error), f"SHOW TABLES FROM {database};" if error.transient else f"see jobs.{job.name}")


def _table(planned: PlannedJob) -> Finding:
    estimate = planned.table.rows_estimate
    rows = "" if estimate is None else f", about {counted(estimate, 'row')}"
    return ok(f"{planned.job.table or 'the query'}: {counted(len(planned.table.columns), 'column')}{rows}")


# the config alone


def _prefix(job: JobConfig) -> Iterator[Finding]:
    before, _, inside = job.prefix.partition("{")
    tag, closed, after = inside.partition("}")
    if tag and closed:
        slot = slot_of(job.prefix.encode())
        yield warn(
            f"{job.prefix!r} has a hash tag: all keys are in slot {slot:,}, so on one master",
            f'key: "{before}{tag}{after}…"',
        )
    else:
        yield ok(f"{job.prefix!r}")


def _schedule(job: JobConfig) -> Iterator[Finding]:
    if job.schedule is None:
        return
    times = next_times(job.schedule, datetime.now(UTC), TIMES)
    said = job.schedule.cron or f"every {job.schedule.every} s"
    late = f", each up to {job.schedule.jitter} s later" if job.schedule.jitter else ""
    shows = ", ".join(f"{time:%a %Y-%m-%d %H:%M:%S %Z}" for time in times)
    yield ok(f"{said}: {shows}{late}")


ALONE: Mapping[str, Check[JobConfig]] = {"prefix": _prefix, "schedule": _schedule}
