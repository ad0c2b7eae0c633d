"""Jobs and runs as tables for people and as documents for programs: `loader status` and `loader runs`."""

from collections.abc import Sequence
from typing import Any

from loader.config.parsers import plain
from loader.formats import compact_span, compact_took, moment, short_moment, size
from loader.jobs.status import FollowState, JobState, JobStatus
from loader.report.follow import position_document
from loader.report.parts import parts_text
from loader.report.screen import PIPE, Screen
from loader.report.table import Column, table_text
from loader.state.history import RunRecord
from loader.words import counted

NAMED = 3  # jobs of a state in the summary
SUMMED = (
    *(JobState.OK, JobState.RUNNING, JobState.NEVER, JobState.STOPPED, JobState.PAUSED),
    *(JobState.REJECTS, JobState.LATE, JobState.UNKNOWN, JobState.FAILED),
)
URGENT = {JobState.REJECTS, JobState.LATE, JobState.UNKNOWN, JobState.FAILED}

STATUS = (
    Column("job"),
    Column("state"),
    Column("last run", spills=7, words="last run {}"),
    Column("rows", right=True, spills=2, words="rows: {}"),
    Column("took", right=True, spills=1, words="took {}"),
    Column("success", spills=6, words="success {}"),
    Column("next", spills=5, words="next {}"),
    Column("lag", spills=4, words="lag {}"),
    Column("rejects", right=True, spills=3, words="rejects: {}"),
)
RUNS = (
    Column("began (UTC)"),
    Column("job"),
    Column("run", spills=2, words="run {}"),
    Column("state"),
    Column("by", spills=3, words="by {}"),
    Column("read", right=True, spills=4, words="{} read"),
    Column("written", right=True, spills=5, words="{} written"),
    Column("took", right=True, spills=1, words="took {}"),
)


def status_document(status: JobStatus) -> dict[str, Any]:
    """The JSON document of a job's state, `loader.status/v1`; ages in seconds."""
    success = status.success
    document = {
        "schema": "loader.status/v1",
        "job": status.job,
        "state": status.state,
        "late": status.late,
        "running": [
            {"run": held.run, "part": held.part, "host": held.host, "pid": held.pid, "since": held.since}
            for held in status.holders
        ],
        "last": _facts(status.last) if status.last else None,
        "success": success
        and {"run": success.run, "ended": moment(success.ended), "age": round(max(0.0, status.now - success.ended), 1)},
        "next": moment(status.due) if status.due else None,
        "watermark": moment(status.watermark) if status.watermark else None,
        "lag": round(max(0.0, status.now - status.watermark), 1) if status.watermark else None,
        "rejects": status.rejects,
        "paused": None if status.paused is None else moment(status.paused),
        "problem": "; ".join(problems_of(status)) or None,
        "follow": _follow_document(status),
    }
    if status.parts:
        document["parts"] = {"total": sum(status.parts.values())} | {str(each): n for each, n in status.parts.items()}
        document["failed"] = list(status.failed)
    return document


def _follow_document(status: JobStatus) -> dict[str, Any] | None:
    if status.follow is None:
        return None
    position, lag, reach = status.follow.position, status.follow_lag, status.follow.position.reach
    return {
        "position": position_document(position) if position.is_taken else None,
        "lag_seconds": None if lag is None else round(lag, 3),
        "lag_bytes": reach.lag_bytes if status.follow.is_running else None,
        "changes": reach.changes,
        "keys": reach.keys,
        "written": reach.written,
        "deleted": reach.deleted,
        "committed": moment(position.committed) if position.committed else None,
        "running": status.follow.is_running,
        "waits_for": (reach.waiting or None) if status.follow.is_running else None,
    }


def problems_of(status: JobStatus) -> list[str]:
    """Why a job's shown state may be wrong, or belong to another job; empty if it is certain."""
    if status.foreign:
        return [status.foreign, *status.unread]
    doubt = _doubt(status)
    return [*([doubt] if doubt else []), *status.unread]


def _doubt(status: JobStatus) -> str | None:
    """Why a success may not count."""
    if status.success and status.ahead:
        ended, host = moment(status.success.ended), status.success.machine
        return (
            f"its last success, at {ended} on {host}, is {compact_span(status.ahead)} in the future by redis's clock,"
            " so its age is unknown: a clock is or was wrong, there or in redis"
        )
    if status.former:
        ended = moment(status.former.ended)
        return f"its config was changed since its last success, at {ended} by run {status.former.run}"
    return None


def runs_document(entry: RunRecord) -> dict[str, Any]:
    """The JSON document of a run of the history, `loader.runs/v1`."""
    return {"schema": "loader.runs/v1", "job": entry.job, **_facts(entry)}


def _facts(entry: RunRecord) -> dict[str, Any]:
    return {
        "run": entry.run,
        "began": moment(entry.began),
        "ended": moment(entry.ended),
        "by": entry.by,
        "slot": moment(entry.slot) if entry.slot else None,
        "status": entry.status,
        "exit_code": entry.exit_code,
        "full": entry.full,
        "partial": entry.partial,
        "resumed": entry.resumed,
        "rows": dict(entry.rows),
        "bytes": entry.bytes,
        "seconds": entry.seconds,
        "chunks": dict(entry.chunks),
        "error": entry.error,
        "host": entry.machine,
        "user": entry.user or None,
    }


def status_text(statuses: Sequence[JobStatus], screen: Screen = PIPE) -> str:
    """The jobs for people, a line each, with holders or failures below it; several end with a summary."""
    rows = [_status_cells(each) for each in statuses]
    table = table_text(STATUS, rows, [_below(each) for each in statuses], screen)
    return f"{table}\n{_summary(statuses, screen)}" if len(statuses) > 1 else table


def _summary(statuses: Sequence[JobStatus], screen: Screen) -> str:
    """How many jobs are in each state, and the first of those that need to be looked at."""
    jobs: dict[JobState, list[str]] = {}
    for status in statuses:
        jobs.setdefault(status.state, []).append(status.job)
    counts = [
        f"{len(names):,} {screen.state(state)}{f' ({plain(_first(names))})' if state in URGENT else ''}"
        for state, names in sorted(jobs.items(), key=lambda item: SUMMED.index(item[0]))
    ]
    return screen.fold(f"{counted(len(statuses), 'job')}: {', '.join(counts)}", 2)


def _first(names: Sequence[str]) -> str:
    return ", ".join([*names[:NAMED], *(["…"] if len(names) > NAMED else [])])


def _status_cells(status: JobStatus) -> tuple[str, ...]:
    last, success, now = status.last, status.success, status.now
    return (
        status.job,
        status.state,
        f"{compact_span(now - last.ended)} ago" if last else "-",
        f"{last.rows['read']:,}" if last else "-",
        compact_took(last.seconds) if last else "-",
        f"{compact_span(now - success.ended)} ago" if success else "-",
        f"in {compact_span(status.due - now)}" if status.due else "-",
        compact_span(now - status.watermark) if status.watermark else "-",
        f"{status.rejects:,}",
    )


def _below(status: JobStatus) -> list[str]:
    lines = [_parts_text(status)] if status.parts else []
    for each in status.holders:
        who = "followed" if each.yields else f"run {each.run}"
        lines.append(f"{who} on {each.host}, pid {each.pid}, since {each.since}")
    if status.follow:
        lines.append(_follow_text(status.follow, status.follow_lag))
    if status.paused:
        lines.append(f"its schedule has been paused since {moment(status.paused)}")
    if problems := problems_of(status):
        lines += problems
    elif status.late and status.state is not JobState.LATE:
        lines.append("late: its last success is too long ago")
    if status.last and status.last.error and not status.runs:
        lines.append(error_of(status.last))
    return lines


def _parts_text(status: JobStatus) -> str:
    parts = {str(state): count for state, count in (status.parts or {}).items()}
    return parts_text(sum(parts.values()), parts, status.failed)


def _follow_text(follow: FollowState, lag: float | None) -> str:
    position = follow.position
    if position.owed:
        return f"all rows are to be read before it is followed: {position.owed}"
    doing = "followed, now" if follow.is_running else "not followed now, was"
    age = "" if lag is None else f", {compact_span(lag)} ago" if lag else ", caught up"
    if not follow.is_running:
        return f"{doing} at {position.text}{age}"
    reach = position.reach
    behind = f", {size(reach.lag_bytes)} of binlog behind" if reach.lag_bytes else ""
    waits = f", waits: {reach.waiting}" if reach.waiting else ""
    return f"{doing} at {position.text}{age}{behind}{waits}"


def error_of(entry: RunRecord) -> str:
    """Why a run did not end well, after the person who ran it by hand."""
    if not entry.is_by_hand:
        return entry.error or ""
    return f"run by {entry.user or 'hand'} on {entry.machine}: {entry.error}"


def runs_text(entries: Sequence[RunRecord], screen: Screen = PIPE) -> str:
    """Runs for people, a line each, with failures below it."""
    rows = [
        (
            short_moment(entry.began),
            entry.job,
            entry.run,
            entry.status,
            entry.by,
            f"{entry.rows['read']:,}",
            f"{entry.rows['written']:,}",
            compact_took(entry.seconds),
        )
        for entry in entries
    ]
    if not rows:
        return "no runs yet"
    below = [[error_of(entry)] if entry.error else [] for entry in entries]
    return table_text(RUNS, rows, below, screen, name=1)
