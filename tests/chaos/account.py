"""What `chaos` holds against the cluster at rest: what the commands that ended well have promised of each hash."""

import json
from collections.abc import Iterator, Sequence

from loader.lab.lab import Lab
from oracle import Finding, Judge
from promises import LOCKED, LONG_AGO, Command, Void, current, oldest, promises
from stage import Done, Nodes, clock
from workload import CHAINED, HIDING, Workload

TOGETHER = 20_000  # hashes that are read at a time
NAMED = 3  # findings of one table that are told in full
LISTED = 15  # commands of its job that are told beside them


class Account:
    """The promises that were kept and broken, so far."""

    def __init__(self, lab: Lab, workload: Workload) -> None:
        self.voids: list[Void] = []
        self.comparisons = 0
        self.compared = 0
        self._lab = lab
        self._workload = workload
        self._last = LONG_AGO
        self._known: set[bytes] = set()  # keys of findings that were told

    def compare(self, commands: Sequence[Command]) -> list[str]:
        """Hold every hash against what was promised of it, at rest; what is wrong, in words."""
        wrong, now = list(self._workload.check()), clock()
        floors = []
        with Nodes(self._lab) as nodes:
            for table, rows in self._workload.rows.items():
                mine = [command for command in commands if command.job == table]
                made = promises(mine, hides=table in HIDING, chained=table in CHAINED)
                judge = Judge(rows, current(made, self._last), self.voids)
                keys = sorted(rows.versions.keys() | nodes.keys(f"{table}_".encode()))
                found: list[Finding] = []
                for start in range(0, len(keys), TOGETHER):
                    found += judge.judge(keys[start : start + TOGETHER], nodes.hashes)
                wrong += _told(table, [each for each in found if each.key not in self._known], mine)
                self._known = self._known.difference(keys) | {each.key for each in found}
                self.compared += len(keys)
                floor = oldest(mine, current(made, now))
                rows.forget(floor)
                floors.append(floor)
        self.comparisons += 1
        self._last = now
        self.voids = [void for void in self.voids if void.until >= min(floors)]
        return wrong


def document_of(done: Done) -> dict[str, object] | None:
    """The first document that a command printed."""
    for line in done.out.splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            return None
        return document if isinstance(document, dict) else None
    return None


def _told(table: str, found: Sequence[Finding], commands: Sequence[Command]) -> Iterator[str]:
    if not found:
        return
    yield f"after {clock():.1f} s {len(found)} hashes of {table} are not what was promised:"
    yield from (f"  {finding}" for finding in found[:NAMED])
    ends = [f"{c} {c.began:.1f} to {c.ended:.1f} → {c.code}" for c in commands if c.code != LOCKED]
    yield f"  of {table} there were {', '.join(ends[-LISTED:])}"
