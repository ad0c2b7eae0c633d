"""The findings of a check-up, for people and programs. Pure."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, TypeVar

from loader.errors import LoaderError
from loader.model import SKEW
from loader.records import dataclass
from loader.report.screen import PIPE, Screen, width_of
from loader.words import counted

INDENT = " " * 8
HEADINGS = {"mysql": "MySQL", "redis": "Redis"}

T = TypeVar("T")


class Level(StrEnum):
    """How bad it is, the worst last."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The observation of one check, and the command or the line of config that fixes it; `check` is `side.name`."""

    level: Level
    seen: str
    fix: str | None = None
    check: str = ""
    job: str | None = None
    lacking: str = ""  # why the check could not be made, if that is told once for all such checks


Check = Callable[[T], Iterable[Finding]]


def ok(seen: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, seen)


def warn(seen: str, fix: str | None = None) -> Finding:
    """It works, but has a weakness."""
    return Finding(Level.WARN, seen, fix)


def fail(seen: str, fix: str | None = None) -> Finding:
    """A run would fail, or do harm."""
    return Finding(Level.FAIL, seen, fix)


def unchecked(why: object) -> Finding:
    """The check could not be made."""
    return warn(f"not checked: {why}")


def unmade(why: str) -> Finding:
    """The check could not be made, for a reason that is told once for all such checks."""
    return replace(unchecked(why), lacking=why)


def lost(error: LoaderError) -> Finding:
    """The check could not be made: a server that answered before does not any more."""
    return replace(fail(str(error), error.fix or None), lacking=str(error))


def examine(side: str, checks: Mapping[str, Check[T]], subject: T, job: str | None = None) -> Iterator[Finding]:
    """Make checks on a subject, each regardless of the others' results."""
    for name, check in checks.items():
        try:
            found = list(check(subject))
        except LoaderError as error:
            refused = error.kind.is_refusal and not error.fix  # facts that the account may not read need not be wrong
            found = [unchecked(error) if refused else fail(str(error), error.fix or None)]
            if error.kind.is_unreachable:
                found = [lost(error)]
        except (ValueError, TypeError, LookupError) as error:  # of an answer that no server gives
            found = [fail(f"the server's answer makes no sense ({type(error).__name__}: {error})")]
        for each in found:
            yield replace(each, check=f"{side}.{name}", job=job)


def skip(side: str, checks: Iterable[str], why: str, job: str | None = None) -> Iterator[Finding]:
    """Report that checks could not be made."""
    for name in checks:
        yield replace(unmade(why), check=f"{side}.{name}", job=job)


def clock(ahead: float, whose: str) -> Finding:
    """The finding for a clock that is this many seconds ahead of ours."""
    if abs(ahead) <= SKEW:
        return ok(f"{abs(ahead):.1f} s from ours")
    way = "ahead of" if ahead > 0 else "behind"
    return warn(
        f"that of {whose} is {abs(ahead):.1f} s {way} ours",
        "timedatectl set-ntp true  # on the machine whose clock is wrong",
    )


def is_loopback(host: str) -> bool:
    """Whether bytes to a host stay on this machine."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def worst_of(findings: Iterable[Finding]) -> Level:
    """The worst level of all."""
    order = list(Level)
    return max((each.level for each in findings), key=order.index, default=Level.OK)


def doctor_document(findings: Sequence[Finding]) -> dict[str, Any]:
    """The JSON document of a check-up, `loader.doctor/v1`."""
    checks = [
        {"check": each.check, "job": each.job, "status": each.level.value, "seen": each.seen, "fix": each.fix}
        for each in findings
    ]
    return {"schema": "loader.doctor/v1", "status": worst_of(findings).value, "checks": checks}


def finding_text(finding: Finding, before: Finding | None, screen: Screen = PIPE) -> str:
    """A finding for people, on lines that fit; with a heading if the previous one is of another side."""
    side, _, name = finding.check.partition(".")
    lines = []
    if before is None or (side, finding.job) != (before.check.partition(".")[0], before.job):
        lines += [*([] if before is None else [""]), f"job {finding.job}" if finding.job else HEADINGS.get(side, side)]
    level = screen.state(finding.level) + " " * (4 - len(finding.level))
    lines.append(screen.fold(f"  {level}  {name}: {finding.seen}", len(INDENT) + 2))
    if finding.fix:
        lines += _folded(finding.fix, screen.width)
    return "\n".join(lines)


def summary_text(findings: Sequence[Finding], screen: Screen = PIPE) -> str:
    """All findings in a line."""
    made = [finding.level for finding in findings if not finding.lacking]
    lacking = f", {len(findings) - len(made):,} not made" if len(made) < len(findings) else ""
    return (
        f"\n{screen.state(worst_of(findings))}: {counted(len(findings), 'check')},"
        f" {counted(made.count(Level.WARN), 'warning')}, {made.count(Level.FAIL)} failed{lacking}"
    )


def _folded(fix: str, width: int | None) -> Iterator[str]:
    """The fix, on lines that can be copied: shell commands continue after a backslash, SQL and YAML at any space."""
    end = " \\" if fix.startswith(("redis-cli ", "loader ", "mysql ")) else ""
    line = INDENT + "fix:"
    for word in re.findall(r"""(?:'[^']*'|"[^"]*"|`[^`]*`|[^\s'"`])+|\S""", fix):
        is_full = width is not None and width_of(f"{line} {word}{end}") > width
        if is_full and line.strip() not in {"fix:", ""}:
            yield line + end
            line = INDENT + "    "
        line += f" {word}"
    yield line


def redis_cli(*words: str, node: str, tls: Sequence[str] = (), everywhere: bool = False) -> str:
    """The shell command that sends a command to a node (`host:port` or a socket), or to all nodes of its cluster.

    `tls` are redis-cli's options for TLS.
    """
    host, _, port = node.rpartition(":")
    alone = ["-h", host, "-p", port] if port.isdecimal() else ["-s", node]
    at = ["--cluster", "call", node] if everywhere else alone
    return shlex.join(["redis-cli", *tls, *at, *words])
