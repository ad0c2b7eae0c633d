"""What people and programs are told: the log, the progress, the summary and the JSON documents."""

import base64
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from loader.model import Chunk, ChunkLoaded, Node, Run, Status, Waiting
from loader.throttle import Throttle

LINE_EVERY = 10.0  # seconds between two progress lines in a log
SHOWN_REJECTS = 5
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_log(style: str, level: str, *, color: bool) -> None:
    """Send structlog to stderr: lines for people on a terminal, JSON for programs elsewhere."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer(colors=color) if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


class Reporter:
    """Shows a run while it goes: a bar on a terminal, a line every ten seconds in a log, or nothing.

    The bar's end is MySQL's estimate of the rows, and so is the time that is left.
    """

    def __init__(self, job: str, style: str, *, color: bool) -> None:
        if style == "auto":
            style = "bar" if sys.stderr.isatty() else "log"
        self._log = structlog.get_logger().bind(job=job)
        self._lines = style == "log"
        self._started = self._said = time.monotonic()
        self._rows = self._chunks = 0
        self._expected: int | None = None
        self._throttle = Throttle()
        self._waiting = ""
        self._bar = None
        if style == "bar":
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True, no_color=not color),
                transient=True,
            )
            self._task = self._bar.add_task(job, total=None, note="")
            self._bar.start()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()

    def expect(self, rows: int | None, throttle: Throttle) -> None:
        """Take note of how many rows are to come, and of what says why workers wait."""
        self._expected, self._throttle = rows, throttle
        if self._bar:
            self._bar.update(self._task, total=rows or None)

    def notify(self, event: ChunkLoaded | Waiting | None) -> None:
        """Show an event, or after a second without one that the run goes on, or why it waits."""
        with suppress(BrokenPipeError):  # nobody listens on stderr
            self._note(event)
            self._show()

    def _note(self, event: ChunkLoaded | Waiting | None) -> None:
        if isinstance(event, Waiting):
            self._waiting = event.reason
            seconds = round(event.seconds, 1)
            self._log.warning(
                "waiting", chunk=event.chunk.number, attempt=event.attempt, seconds=seconds, reason=event.reason
            )
        elif event:
            self._waiting = ""
            self._rows += event.read
            self._chunks += 1
            self._log.debug("chunk loaded", chunk=event.chunk.number, rows=event.read, seconds=round(event.seconds, 3))

    def _show(self) -> None:
        now = time.monotonic()
        rows = max(self._rows, self._throttle.rows)  # those of chunks under way too
        rate = rows / max(now - self._started, 1e-9)
        why = self._waiting or self._throttle.reason
        if self._bar:
            note = f"{rows:,} rows, {rate:,.0f} rows/s, chunk {self._chunks}{f', waits: {why}' if why else ''}"
            self._bar.update(self._task, completed=rows, note=note)
        if self._lines and now - self._said >= LINE_EVERY:
            self._said = now
            left = max(0, (self._expected or 0) - rows)
            more: dict[str, str | int] = {"eta_seconds": round(left / rate)} if left and rate else {}
            more |= {"waits_for": why} if why else {}
            self._log.info("loading", rows=rows, rows_per_second=round(rate), chunks=self._chunks, **more)


def run_document(run: Run) -> dict[str, Any]:
    """The JSON document of a run, `loader.run/v1`."""
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
    return document


def run_text(run: Run) -> str:
    """The summary of a run for people."""
    rate = f", {run.read / run.seconds:,.0f} rows/s" if run.read and run.seconds else ""
    verb = "would be written" if run.dry_run else "written"
    counts = f"{run.read:,} rows read, {run.written:,} {verb}, {run.rejected:,} rejected"
    lines = [f"{run.job}: {run.status.value}: {counts} in {run.seconds:.2f} s{rate}"]
    width = max(map(len, run.nodes), default=0)
    lines += [f"  {node:{width}}  {rows:>12,} row{_s(rows)}" for node, rows in sorted(run.nodes.items())]
    for reject in run.rejects[:SHOWN_REJECTS]:
        lines.append(f"  rejected {shown(reject.key)}: {reject.reason}")
    if run.rejected > SHOWN_REJECTS:
        lines.append(f"  … and {run.rejected - SHOWN_REJECTS:,} more rejected rows")
    if run.status is Status.STOPPED:
        lines.append(f"  {run.error}")
    return "\n".join(lines)


def hash_document(
    key: bytes, slot: int, node: Node, ttl: int | None, fields: dict[bytes, bytes] | None
) -> dict[str, Any]:
    """The JSON document of a hash read back, `loader.get/v1`; `fields` is null where there is no such key."""
    return {
        "schema": "loader.get/v1",
        "key": as_json(key),
        "slot": slot,
        "node": str(node),
        "ttl": ttl,
        "fields": None if fields is None else {_name(name): as_json(value) for name, value in fields.items()},
    }


def hash_text(key: bytes, slot: int, node: Node, ttl: int | None, fields: dict[bytes, bytes] | None) -> str:
    """A hash read back, for people."""
    life = "" if ttl is None else f", {ttl} s to live"
    lines = [f"{shown(key)}  slot {slot}, node {node}{life}"]
    width = max((len(shown(name)) for name in fields or ()), default=0)
    lines += [f"  {shown(name):{width}}  {shown(value)}" for name, value in (fields or {}).items()]
    return "\n".join(lines if fields else [*lines, "  there is no such hash"])


def plan_text(preview: Any) -> str:
    """A plan for people: where the rows come from, what the keys are, the statement, and the first real commands."""
    plan = preview.plan
    rows = "unknown" if plan.rows_estimate is None else f"about {plan.rows_estimate:,}"
    walk = ", ".join(column.name for column in plan.walk)
    way = f"in chunks of {plan.job.chunk_rows:,} rows along {walk}" if walk else "in one pass"
    statement = plan.select(Chunk(1)).replace("\n", "\n            ")
    lines = [
        f"job         {plan.job.name}",
        f"rows        {rows}, read {way}",
        f"statement   {statement}",
        "commands    of the first rows, with the node that owns their slot; nothing was sent",
    ]
    lines += [f"  {node}  {command_text(words)}" for node, words in preview.commands]
    return "\n".join(lines if preview.commands else [*lines, "  none: there are no rows"])


def cluster_text(document: Mapping[str, Any]) -> str:
    """The cluster for people, a line a master."""
    masters = document["masters"]
    width = max((len(master["node"]) for master in masters), default=0)
    lines = [
        f"{master['node']:{width}}  {master['slots']:>5} slots  {_count(master['keys']):>12} keys"
        f"  {master['replicas']} replica{_s(master['replicas'])}"
        for master in masters
    ]
    keys = sum(master["keys"] or 0 for master in masters)
    total = f"{keys:,} key{_s(keys)} in {len(masters)} master{_s(len(masters))}"
    lines.append(f"{document['state']}: {document['slots']} of 16384 slots, {total}")
    return "\n".join(lines)


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _count(number: int | None) -> str:
    return "no answer:" if number is None else f"{number:,}"


def command_text(words: Sequence[bytes]) -> str:
    """A command as one would type it into redis-cli."""
    return " ".join(shown(word) for word in words)


def shown(value: bytes) -> str:
    r"""Bytes for a terminal: text as it is, quoted for redis-cli where it must be, `\xNN` for what is no text."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and text and all(c.isprintable() and c not in " \"'\\" for c in text):
        return text
    if text is not None:
        escaped = (c if c.isprintable() and c not in '"\\' else _escape(c) for c in text)
        return '"' + "".join(escaped) + '"'
    return '"' + "".join(chr(b) if 0x20 <= b < 0x7F and b not in b'"\\' else _escape_byte(b) for b in value) + '"'


def as_json(value: bytes) -> str | dict[str, str]:
    """Bytes in JSON: text, or `{"base64": …}` for what is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def dump(document: dict[str, Any]) -> str:
    """A document as one line."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _name(name: bytes) -> str:
    text = as_json(name)
    return text if isinstance(text, str) else json.dumps(text)


def _escape(char: str) -> str:
    return "".join(_escape_byte(byte) for byte in char.encode())


def _escape_byte(byte: int) -> str:
    return {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}.get(byte, f"\\x{byte:02x}")
