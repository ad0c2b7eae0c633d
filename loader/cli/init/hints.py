"""Options that a table allows, as commented-out lines below its job; and columns that had better not be copied."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from loader.cli.init.yaml_text import in_comment, quoted, scalar
from loader.config.models import JobConfig
from loader.errors import PlanError
from loader.model import Column, Table, TableSummary
from loader.mysql.planner import make_plan

DELETED = re.compile(r"(is_)?(deleted|removed)|(deleted|removed)_?(at|on)|date_deleted", re.IGNORECASE)
MOMENTS = {"date", "datetime", "timestamp"}
NUMBERS = {"tinyint", "smallint", "int", "bit"}
ALWAYS = (
    ("schedule: {every: 15m}", 'for `loader daemon`; or {cron: "*/15 * * * *"}'),
    ("max_age: 1h", "the job is late if its last success is older"),
)
SECRET = re.compile(
    r"(?:^|_)(?:password|passwd|passphrase|pwd|pass|secrets?|tokens?|api_?keys?|private_?keys?|salt|hash|digest|ssn"
    r"|iban|card|card_?(?:no|num|number)|cvv|cvc|otp|pin)(?:_|$)"
)


def is_secret(column: str) -> bool:
    """Whether a column's name looks like that of a secret, or of what identifies a person to a bank or a state."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column).lower()
    return SECRET.search(words) is not None


def job_of(name: str, values: Mapping[str, Any]) -> JobConfig:
    """A job of these values of a config."""
    job = JobConfig.model_validate(values)
    job.take_name(name)
    return job


def hints(listed: TableSummary, table: Table, name: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Further options of the job: each a line of config, with its requirement."""
    stamps = [c for each in listed.stamps if (c := table.column(each)) and c.type in {"datetime", "timestamp"}]
    indexed = {column.lower() for _, column in table.indexes}
    for stamp in sorted(stamps, key=lambda column: column.name.lower() not in indexed)[:1]:
        says = "Read only rows changed since the last run; lag must exceed the longest transaction."
        if stamp.name.lower() not in indexed:
            says += f" It needs an index first: ADD INDEX ({in_comment(stamp.name)})."
        yield (
            f"incremental: {{column: {scalar(stamp.name)}, lag: 10s}}",
            f"{says} Deleted rows are found by full_every: 1d.",
        )
    for column in table.columns:
        if DELETED.fullmatch(column.name) and (condition := _is_deleted(column)):
            yield f"soft_delete: {quoted(condition)}", "such rows count as deleted, and have no hash"
            break
    try:
        make_plan(job_of(name, {**values, "changed_only": True}), table)
    except (PlanError, ValueError):
        pass
    else:
        yield "changed_only: true", "write only rows that differ, and delete hashes whose row is gone"
    yield from ALWAYS


def _is_deleted(column: Column) -> str:
    if column.type in MOMENTS and column.nullable:
        return f"{column.name} IS NOT NULL"
    return f"{column.name} <> 0" if column.type in NUMBERS else ""
