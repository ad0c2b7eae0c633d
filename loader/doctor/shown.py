"""A check-up for people: what is wrong as it is found, once for all jobs that have it, and the count of the rest."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from loader.doctor.findings import INDENT, Finding, Level, finding_text, summary_text, worst_of
from loader.records import dataclass
from loader.report.screen import Screen
from loader.words import counted, nouns

NAMED = 3  # jobs of one finding
SPELLED = 3  # findings that differ in names or numbers only, and are shown one by one
OF_A_JOB = re.compile(r"`[^`]*`|'[^']*'|\d[\d,.]*")  # what makes the findings of two jobs differ: names, numbers

ALIKE = re.compile(r"redis \S+(?=: CLUSTERDOWN)")  # what each master answers while one is away


@dataclass(frozen=True, slots=True)
class Alike:
    """A finding that several jobs share; `same`: to the word, but for the name of the job."""

    finding: Finding
    jobs: Sequence[str]
    same: bool = True


def tell_findings(
    findings: Iterable[Finding], say: Callable[[str], None], screen: Screen, *, everything: bool
) -> Level:
    """Say each finding as it comes, and the summary; return the worst level.

    Without `everything` those that are ok are counted, and those of jobs told at the end, together if they are alike.
    """
    seen: list[Finding] = []
    of_jobs: list[Finding] = []
    before: Finding | None = None
    for finding in findings:
        seen.append(finding)
        if finding.lacking:
            continue
        if everything or not (finding.job or finding.level is Level.OK):
            say(finding_text(finding, before, screen))
            before = finding
        elif finding.level is not Level.OK:
            of_jobs.append(finding)
    for text in _job_texts(_together(of_jobs), screen, is_first=before is None):
        say(text)
    right = sum(finding.level is Level.OK for finding in seen)
    rest = [_right_text(right)] if right and not everything else []
    rest += _lacking_texts(seen)
    if rest:
        say(("\n" if before or of_jobs else "") + "\n".join(screen.fold(line, 2) for line in rest))
    say(summary_text(seen, screen))
    return worst_of(seen)


def _right_text(count: int) -> str:
    return "1 check is right; --all shows it" if count == 1 else f"{count:,} checks are right; --all shows them"


def _lacking_texts(findings: Iterable[Finding]) -> list[str]:
    """How many checks could not be made, a line for each reason."""
    reasons = Counter(ALIKE.sub("redis", finding.lacking) for finding in findings if finding.lacking)
    return [f"{counted(count, 'check')} not made: {reason}" for reason, count in reasons.items()]


def _job_texts(found: Iterable[Alike], screen: Screen, *, is_first: bool) -> Iterator[str]:
    """What is wrong with jobs, each with a heading that names them unless it is that of the one before."""
    jobs: Sequence[str] = ()
    for each in found:
        if each.jobs != jobs:
            yield ("" if is_first else "\n") + _heading(each.jobs, screen)
        jobs, is_first = each.jobs, False
        yield finding_text(each.finding, each.finding, screen)
        if not each.same:
            yield screen.fold(f"{INDENT}of the first; the others differ in names or numbers: see --all")


def _heading(jobs: Sequence[str], screen: Screen) -> str:
    more = len(jobs) - NAMED
    text = f"{nouns(len(jobs), 'job')} {', '.join(jobs[:NAMED])}{f' and {more:,} more' if more > 0 else ''}"
    return screen.fold(text, 2)


def _together(findings: Sequence[Finding]) -> Iterator[Alike]:
    """Findings of jobs, each once: also if more than a few differ in names and numbers alone."""
    loose: dict[tuple[str, ...], dict[tuple[str, ...], list[Finding]]] = {}
    for finding in findings:
        words = _words(finding)
        kind = tuple(OF_A_JOB.sub("…", word) for word in words)
        loose.setdefault(kind, {}).setdefault(words, []).append(finding)
    for kinds in loose.values():
        if len(kinds) > SPELLED:
            alike = [each for group in kinds.values() for each in group]
            yield Alike(alike[0], _jobs(alike), same=False)
        else:
            yield from (Alike(group[0], _jobs(group)) for group in kinds.values())


def _words(finding: Finding) -> tuple[str, ...]:
    """What a finding says, without the name of its job."""
    name = re.compile(rf"(?<![\w.-]){re.escape(finding.job or '')}(?![\w-])")
    return finding.check, finding.level, name.sub("…", finding.seen), name.sub("…", finding.fix or "")


def _jobs(findings: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(each.job for each in findings if each.job))
