"""Results for programs: the JSON documents, each with the name and version of its schema.

Types are imported for mypy alone, so that a command imports only what it uses; so it is in `text`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from loader.config.parsers import CONTROLS
from loader.errors import Exit
from loader.formats import moment
from loader.model import Chunk, Node, Run
from loader.report.values import as_json, as_json_name

if TYPE_CHECKING:
    from loader.jobs.preview import Preview
    from loader.jobs.prune import Pruned
    from loader.jobs.rejects import Retried
    from loader.jobs.verify import Verdict
    from loader.lab.lab import Row
    from loader.report.parts import Parts
    from loader.state.rejects import Rejected


def run_document(run: Run, parts: "Parts | None" = None) -> dict[str, Any]:
    """The JSON document of a run, `loader.run/v1`, or of the runs of a job's parts."""
    document = {
        "schema": "loader.run/v1",
        "job": run.job,
        "run": run.id,
        "status": run.status.value,
        "resumed": run.resumed,
        "rows": {
            "read": run.read,
            "written": run.written,
            "unchanged": run.unchanged,
            "deleted": run.deleted,
            "rejected": run.rejected,
        },
        "bytes": run.bytes,
        "seconds": round(run.seconds, 3),
        "chunks": {"total": run.chunks, "done": run.chunks_done, "retried": run.chunks_retried},
        "nodes": dict(sorted(run.nodes.items())),
        "error": run.error,
    }
    if run.dry_run:
        document["dry_run"] = True
    return document | (parts.document if parts else {})


def error_document(error: str, exit_code: int, job: str | None = None) -> dict[str, Any]:
    """The JSON document of a command that has failed, or of its job, `loader.error/v1`."""
    status = "stopped" if exit_code in {Exit.SIGINT, Exit.SIGTERM} else "failed"
    return {"schema": "loader.error/v1", "job": job, "status": status, "exit_code": int(exit_code), "error": error}


def verify_document(verdict: "Verdict", parts: "Parts | None" = None, error: str = "") -> dict[str, Any]:
    """The JSON document of a verification, or of those of parts, `loader.verify/v1`; a failed one has an error."""
    state = "failed" if error else "ok" if verdict.is_equal else "different"
    document = {
        "schema": "loader.verify/v1",
        "job": verdict.job,
        "status": parts.end if parts else state,
        "rows": verdict.rows,
        "missing": verdict.missing,
        "different": verdict.different,
        "extra": verdict.extra,
        "repaired": verdict.repaired,
    }
    document |= {"unsure": verdict.unsure.count} if verdict.unsure.count else {}
    document |= {"error": error} if error else {}
    return document | (parts.document if parts else {})


def prune_document(pruned: "Pruned", parts: "Parts | None" = None, error: str = "") -> dict[str, Any]:
    """The JSON document of a pruning, or of those of a job's parts, `loader.prune/v1`; a failed one has an error."""
    state = "failed" if error else "refused" if pruned.refused and not pruned.dry_run else "ok"
    document = {
        "schema": "loader.prune/v1",
        "job": pruned.job,
        "status": parts.end if parts else state,
        "keys": pruned.keys,
        "extra": pruned.extra,
        "deleted": pruned.deleted,
        "error": error or pruned.refused or None,
    }
    document |= {"unsure": pruned.unsure.count} if pruned.unsure.count else {}
    document |= {"dry_run": True} if pruned.dry_run else {}
    return document | (parts.document if parts else {})


def rejects_document(
    job: str, entries: "Sequence[Rejected]", commands: Mapping[bytes, Sequence[bytes]]
) -> dict[str, Any]:
    """The JSON document of a job's rejects, `loader.rejects/v1`; times as ISO 8601, commands where known."""
    listed = [
        {
            "key": as_json(entry.key),
            "reason": entry.reason,
            "first": moment(entry.first),
            "last": moment(entry.last),
            "attempts": entry.attempts,
        }
        | ({"command": [as_json(word) for word in commands[entry.key]]} if entry.key in commands else {})
        for entry in entries
    ]
    return {"schema": "loader.rejects/v1", "job": job, "rejects": listed}


def retry_document(retried: "Retried", parts: "Parts | None" = None, error: str = "") -> dict[str, Any]:
    """The JSON document of a retry of rejects, or of those of parts, `loader.retry/v1`; a failed one has an error."""
    document = {
        "schema": "loader.retry/v1",
        "job": retried.job,
        "written": retried.written,
        "gone": retried.gone,
        "rejected": len(retried.rejects) + retried.nameless,
    }
    document |= {"status": "failed", "error": error} if error else {}
    return document | (parts.document if parts else {})


def purge_document(job: str, count: int) -> dict[str, Any]:
    """The JSON document of rejects that were forgotten, `loader.purge/v1`."""
    return {"schema": "loader.purge/v1", "job": job, "forgotten": count}


def check_document(jobs: Sequence[str], warnings: Sequence[str]) -> dict[str, Any]:
    """The JSON document of a config that is valid, `loader.check/v1`."""
    return {"schema": "loader.check/v1", "status": "ok", "jobs": list(jobs), "warnings": list(warnings)}


def plan_document(preview: "Preview") -> dict[str, Any]:
    """The JSON document of what a sync would do, `loader.plan/v1`: the statements and the first commands."""
    plan, changed = preview.plan, preview.changed
    commands = [{"node": str(node), "command": [as_json(word) for word in words]} for node, words in preview.commands]
    return {
        "schema": "loader.plan/v1",
        "job": plan.job.name,
        "rows": plan.rows_estimate,
        "chunk_rows": plan.job.chunk_rows,
        "walk": [column.name for column in plan.walk],
        "statement": plan.select(Chunk(1)),
        "increment": changed and {"statement": changed.select(Chunk(1)), "index": preview.index},
        "ready_made": plan.layout.listpack is not None,
        "commands": commands,
        "warnings": list(plan.warnings),
    }


def lab_document(rows: "Sequence[Row]") -> dict[str, Any]:
    """The JSON document of the lab's servers, `loader.lab/v1`."""
    return {"schema": "loader.lab/v1", "servers": [asdict(row) for row in rows]}


def hash_document(
    key: bytes, slot: int, node: Node, ttl: int | None, fields: dict[bytes, bytes] | None
) -> dict[str, Any]:
    """The JSON document of a hash read back, `loader.get/v1`; `fields` is null if there is no such key."""
    return {
        "schema": "loader.get/v1",
        "key": as_json(key),
        "slot": slot,
        "node": str(node),
        "ttl": ttl,
        "fields": None if fields is None else {as_json_name(name): as_json(value) for name, value in fields.items()},
    }


def dump(document: dict[str, Any]) -> str:
    """A document on one line, without terminal control characters."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
