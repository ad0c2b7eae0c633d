"""What `doctor` looks at for a job that follows the binlog: whether the binlog names each change of its rows."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from loader.doctor.findings import Check, Finding, fail, ok, warn
from loader.doctor.job_plan import PlannedJob
from loader.errors import PlanError
from loader.mysql import catalog
from loader.mysql.followed_key import FollowedKey, followed_key, followed_table
from loader.mysql.key_text import check_column, zone_of

LOGS_CASCADES = (9, 6)  # version of MySQL whose binlog has the rows that a foreign key changes
LARGE = frozenset({"tinytext", "text", "mediumtext", "longtext", "tinyblob", "blob", "mediumblob", "longblob", "json"})
CONSTRAINT = re.compile(
    r"CONSTRAINT (`(?:[^`]|``)+`|\S+) (FOREIGN KEY .+ REFERENCES (`(?:[^`]|``)+`(?:\.`.+?`)?|\S+) .+)"
)
CASCADE = re.compile(r" ON (?:DELETE|UPDATE) (?:CASCADE|SET NULL)")


def _key(planned: PlannedJob) -> Iterator[Finding]:
    """Whether the binlog has the columns of the key of each row that changes, in a form whose text is known."""
    if planned.job.follow is None:
        return
    if planned.table.is_view:
        yield fail(f"{planned.table.name} is a view: the binlog names only the tables below it", "follow: false")
        return
    try:
        key = followed_key(planned.mysql.source, planned.plan, planned.table)
    except PlanError as error:
        yield fail(str(error), f"see jobs.{planned.job.name}")
        return
    problems = [*_untold(planned, key), *_absent(planned, key)]
    yield from problems or [ok("the binlog has the key of each row that changes")]


def _untold(planned: PlannedJob, key: FollowedKey) -> Iterator[Finding]:
    zone = planned.settings.source_of(planned.job).time_zone
    for column in key.columns:
        try:
            check_column(column, zone_of(zone) if zone else None)
        except PlanError as error:
            yield fail(str(error), _own_key(planned))


def _absent(planned: PlannedJob, key: FollowedKey) -> Iterator[Finding]:
    """The columns of the key that the image of a row may lack."""
    (image,) = planned.mysql.ask("SELECT @@GLOBAL.binlog_row_image")
    others = [column for column in key.columns if column.name not in key.table.primary_key]
    if image == "NOBLOB":
        others = [column for column in others if column.type in LARGE]
    if others and image in {"MINIMAL", "NOBLOB"}:
        yield fail(
            f"binlog_row_image is {image}: the binlog may lack {', '.join(column.name for column in others)}, of which"
            " the key is made; sessions that are open keep the old setting",
            "SET GLOBAL binlog_row_image = 'FULL';",
        )


def _own_key(planned: PlannedJob) -> str | None:
    if not planned.table.primary_key:
        return None
    return f'key: "{planned.job.prefix}{"_".join(f"{{{name}}}" for name in planned.table.primary_key)}"'


def _cascades(planned: PlannedJob) -> Iterator[Finding]:
    """Whether a foreign key changes rows that the binlog does not have."""
    if planned.job.follow is None or planned.table.is_view or _logs_cascades(planned):
        return
    if planned.job.query is not None:
        try:
            planned = replace(planned, table=catalog.table(planned.mysql.source, followed_table(planned.job)))
        except PlanError:  # a finding of another check
            return
    ((_, definition),) = planned.mysql.source.fetch(f"SHOW CREATE TABLE {planned.address}")
    found = [each.groups() for each in CONSTRAINT.finditer(definition or "") if CASCADE.search(each[0])]
    for name, key, parent in found:
        plain = CASCADE.sub("", key).rstrip(",")
        yield fail(
            f"a change of {parent} changes rows of {planned.table.name} through the foreign key {name}, and the binlog"
            " of this server does not have those rows: let the application change them itself",
            planned.alter(f"DROP FOREIGN KEY {name}, ADD {plain}"),
        )
    if not found:
        yield ok("no foreign key changes rows")


def _logs_cascades(planned: PlannedJob) -> bool:
    """Whether the binlog has the rows that a foreign key changes: MySQL since 9.6, unless it was set not to."""
    if planned.mysql.source.is_mariadb:
        return False
    (version,) = planned.mysql.ask("SELECT VERSION()")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    native = planned.mysql.source.fetch("SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'")
    is_native = any(value == "ON" for _, value in native)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= LOGS_CASCADES and not is_native


def _expiry(planned: PlannedJob) -> Iterator[Finding]:
    """Whether hashes expire that nothing writes again."""
    if planned.job.follow and planned.job.ttl and not planned.job.schedule:
        yield warn(
            f"the hash of a row that does not change expires after {planned.job.ttl} s: only a sync writes it again",
            f"schedule: {{every: {planned.job.ttl // 2}s}}",
        )


FOLLOWED: Mapping[str, Check[PlannedJob]] = {"binlog-key": _key, "cascades": _cascades, "expiry": _expiry}
