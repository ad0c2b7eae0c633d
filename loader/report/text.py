"""Results for people: runs, verifications, plans, hashes and the cluster as text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loader.formats import moment
from loader.model import Chunk, Node, Run
from loader.outcome import Status
from loader.report.parts import ENDS, Parts
from loader.report.screen import PIPE, Screen, padded, width_of
from loader.report.values import command_text, shown
from loader.words import counted, nouns

if TYPE_CHECKING:
    from loader.jobs.orphans import Unsure
    from loader.jobs.preview import Preview
    from loader.jobs.prune import Pruned
    from loader.jobs.rejects import Retried
    from loader.jobs.verify import Verdict
    from loader.state.rejects import Rejected

SHOWN_REJECTS = 5


def tally_text(results: Sequence[str], jobs: int, screen: Screen = PIPE) -> str:
    """How many of several jobs ended how, on a line; `results` are the states of those that ended."""
    counts = Counter(results)
    ends = [(counts[end], end) for end in sorted(counts, key=ENDS.index)]
    left = jobs - len(results)
    told = [f"{n:,} {screen.state(end)}" for n, end in [*ends, (left, "not begun")] if n]
    return f"{counted(jobs, 'job')}: {', '.join(told)}"


def run_text(run: Run, parts: Parts | None = None, screen: Screen = PIPE) -> str:
    """The summary of a run for people, or of the runs of a job's parts."""
    rate = f", {run.read / run.seconds:,.0f} rows/s" if run.read and run.seconds else ""
    verb = "would be written" if run.dry_run else "written"
    counts = f"{counted(run.read, 'row')} read, {run.written:,} {verb}, {run.rejected:,} rejected"
    if run.unchanged:
        counts += f", {run.unchanged:,} unchanged"
    if run.deleted:
        counts += f", {run.deleted:,} deleted"
    counts = f"resumed, {counts}" if run.resumed else counts
    counts += "" if run.full else ", changed rows only,"
    lines = [f"{run.job}: {screen.state(run.status.value)}: {counts} in {run.seconds:.2f} s{rate}"]
    lines += [f"  {parts}"] if parts else []
    width = max(map(len, run.nodes), default=0)
    lines += [f"  {node:{width}}  {rows:>12,} {nouns(rows, 'row')}" for node, rows in sorted(run.nodes.items())]
    for reject in run.rejects[:SHOWN_REJECTS]:
        lines.append(f"  rejected {shown(reject.key)}: {reject.reason}")
    if run.rejected > SHOWN_REJECTS:
        lines.append(f"  … and {counted(run.rejected - SHOWN_REJECTS, 'more rejected row')}")
    if run.error and run.status is not Status.FAILED and not parts:
        lines.append(f"  {run.error}")
    return "\n".join(lines)


def verify_text(verdict: "Verdict", *, expires: bool, parts: Parts | None = None, screen: Screen = PIPE) -> str:
    """A verification for people: counts and first differences; `expires`: a missing hash may be past its TTL."""
    hashes = "" if verdict.hashes is None else f" and {counted(verdict.hashes, 'hash')}"
    counts = f"{verdict.missing:,} missing, {verdict.different:,} different, {verdict.extra:,} extra"
    mended = f", {verdict.repaired:,} repaired" if verdict.repaired else ""
    state = screen.state(parts.end if parts else "ok" if verdict.is_equal else "different")
    lines = [f"{verdict.job}: {state}: {counted(verdict.rows, 'row')}{hashes} compared, {counts}{mended}"]
    lines += [f"  {parts}"] if parts else []
    width = max((width_of(shown(each.key)) for each in verdict.shown), default=0)
    lines += [f"  {each.kind:9}  {padded(shown(each.key), width)}  {each.detail}".rstrip() for each in verdict.shown]
    more = verdict.missing + verdict.different + verdict.extra - len(verdict.shown)
    if more > 0:
        lines.append(f"  … and {more:,} more (--show N shows N of them)")
    if not verdict.rows and verdict.hashes == 0:
        lines.append("  the job has no rows and no hashes")
    if verdict.missing and expires:
        lines.append("  keys of this job expire: a missing one may have")
    return "\n".join([*lines, *unsure_lines(verdict.unsure)])


def unsure_lines(unsure: "Unsure") -> list[str]:
    """A note on hashes without a row that may be someone else's; empty if there are none."""
    if not unsure.count:
        return []
    stay = "1 more hash without a row stays, and may be" if unsure.count == 1 else ""
    stay = stay or f"{unsure.count:,} more hashes without a row stay, and may be"
    return [f"  {stay} someone else's: {shown(unsure.first)}{', …' * (unsure.count > 1)}"]


def prune_text(pruned: "Pruned", parts: Parts | None = None) -> str:
    """A pruning for people."""
    done = "to be deleted" if pruned.dry_run else "deleted"
    count = pruned.extra if pruned.dry_run else pruned.deleted
    told = f"{pruned.job}: {counted(pruned.keys, 'hash')}, {pruned.extra:,} without a row, {count:,} {done}"
    return "\n".join([told, *([f"  {parts}"] if parts else []), *unsure_lines(pruned.unsure)])


def rejects_text(job: str, entries: "Sequence[Rejected]", commands: Mapping[bytes, Sequence[bytes]]) -> str:
    """A job's rejects for people, a line each, and the commands that are known."""
    width = max((width_of(shown(entry.key)) for entry in entries), default=0)
    lines = [
        f"{padded(shown(entry.key), width)}  {moment(entry.last)}  {entry.attempts:>3}x  {entry.reason}"
        for entry in entries
    ]
    lines.append(f"{job}: {counted(len(entries), 'rejected row')}")
    return "\n".join([*lines, *map(command_text, commands.values())])


def retry_text(retried: "Retried", parts: Parts | None = None) -> str:
    """A retry of rejects for people."""
    left = len(retried.rejects) + retried.nameless
    lines = [f"{retried.job}: {retried.written:,} written, {retried.gone:,} gone from MySQL, {left:,} still rejected"]
    lines += [f"  {parts}"] if parts else []
    lines += [f"  rejected {shown(reject.key)}: {reject.reason}" for reject in retried.rejects[:SHOWN_REJECTS]]
    if retried.nameless:
        lines.append(f"  {retried.nameless:,} have no key: sync loads them once they have one")
    return "\n".join(lines)


def hash_text(key: bytes, slot: int, node: Node, ttl: int | None, fields: dict[bytes, bytes] | None) -> str:
    """A hash read back, for people."""
    life = "" if ttl is None else f", {ttl} s to live"
    lines = [f"{shown(key)}  slot {slot}, node {node}{life}"]
    width = max((width_of(shown(name)) for name in fields or ()), default=0)
    lines += [f"  {padded(shown(name), width)}  {shown(value)}" for name, value in (fields or {}).items()]
    return "\n".join(lines if fields else [*lines, "  there is no such hash"])


def plan_text(preview: "Preview") -> str:
    """A plan for people: how the rows are read, the statement, and the first real commands."""
    plan = preview.plan
    rows = "unknown" if plan.rows_estimate is None else f"about {plan.rows_estimate:,}"
    walk = ", ".join(column.name for column in plan.walk)
    way = f"in chunks of {counted(plan.job.chunk_rows, 'row')} along {walk}" if walk else "in one pass"
    statement = plan.select(Chunk(1)).replace("\n", "\n            ")
    lines = [
        f"job         {plan.job.name}",
        f"rows        {rows}, read {way}",
        f"statement   {statement}",
        *_increment_lines(preview),
        "commands    of the first rows, with the node of their slot; nothing was sent",
    ]
    if limits := plan.layout.listpack:
        size = f"{counted(limits.fields, 'field')} of {limits.longest:,} bytes each"
        lines.append(f"            rows of up to {size} travel ready-made, as RESTORE")
    lines += [f"  {node}  {command_text(words)}" for node, words in preview.commands]
    return "\n".join(lines if preview.commands else [*lines, "  none: there are no rows"])


def _increment_lines(preview: "Preview") -> list[str]:
    """How a later run reads only changes, if it does."""
    if preview.changed is None:
        return []
    statement = preview.changed.select(Chunk(1)).replace("\n", "\n            ")
    served = f"found by index {preview.index}" if preview.index else "found without an index: the whole table is read"
    return [f"increment   {statement}", f"            {served}; the time is that of a sync starting now"]


def cluster_text(document: Mapping[str, Any], screen: Screen = PIPE) -> str:
    """The cluster for people, a line per master."""
    masters = document["masters"]
    width = max((len(master["node"]) for master in masters), default=0)
    lines = [
        f"{master['node']:{width}}  {master['slots']:>5} {nouns(master['slots'], 'slot'):5}"
        f"  {_keys(master['keys']):>12}  {counted(master['replicas'], 'replica')}"
        for master in masters
    ]
    keys = sum(master["keys"] or 0 for master in masters)
    total = f"{counted(keys, 'key')} in {counted(len(masters), 'master')}"
    moving = document.get("moving", ())
    lines += [f"slot {move['slot']} is being moved from {move['from']} to {move['to']}" for move in moving]
    why = f": {document['why']}" if "why" in document else ""
    lines.append(f"{screen.state(document['state'])}: {document['slots']} of 16384 slots, {total}{why}")
    return "\n".join(lines)


def _keys(number: int | None) -> str:
    return "no answer" if number is None else f"{number:,} {nouns(number, 'key'):4}"
