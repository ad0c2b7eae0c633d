"""The masters of a run, and whether they still have its writes: by their markers and by their own counters."""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from loader.errors import StartOver
from loader.model import Node
from loader.pipeline.job_context import JobContext
from loader.redis.prefetch import Prefetched
from loader.redis.servers import INFO, Life, lives
from loader.state.baseline import doubt
from loader.state.markers import Markers

MARKERS_EVERY = 5.0  # seconds between two checks of the markers
YOUNG = 1.0  # seconds in which no master has as many connections as ever before


class Masters:
    """The masters as they were when the run began, and the `markers` that it left on them, if it writes."""

    def __init__(self, context: JobContext) -> None:
        self.markers: Markers | None = None
        self.before: Mapping[Node, Life] = {}
        self._context = context
        self._lives: dict[str, Life] = {}  # the same, by the id of their life
        self._looked = float("-inf")  # when the masters were, on the monotonic clock
        self._after: Mapping[Node, Life] = {}  # the masters once the run has written everything
        self._seen = time.monotonic()  # when the markers were last checked

    def look(self, *, newest: bool) -> None:
        """Note the masters before the run writes; with the `newest` ids of clients, if they matter.

        If connections are kept, those of a moment ago: what a master loses meanwhile counts as lost in this run.
        """
        self._looked = time.monotonic()
        target, pool = self._context.target, self._context.pool
        self.before = pool.seen("lives", target, lambda: lives(target, newest=newest or pool.keeps))
        self._lives = {life.id: life for life in self.before.values()}

    def warnings(self) -> Iterator[str]:
        """The masters that evict keys, in words."""
        for node, life in self.before.items():
            if life.policy:
                own = ", which takes the loader's own too: checkpoints, pauses, rejects"
                yield (
                    f"redis {node} evicts keys once it is full: its maxmemory-policy is {life.policy}"
                    f"{own * life.policy.startswith('allkeys')}"
                )

    def mark(self, markers: Markers) -> Iterator[str]:
        """Leave markers on all masters that have none; report keys that were something else."""
        self.markers = markers
        markers.leave()
        for key in sorted(markers.strange):
            yield f"{key} was not a marker written by a loader: it was rewritten"

    def is_time_to_look(self) -> bool:
        """Whether the markers should be checked again."""
        return time.monotonic() - self._seen >= MARKERS_EVERY

    def find_markers(self) -> Mapping[str, Mapping[str, int] | None]:
        """The fields of each marker; `StartOver` if one is gone.

        A full master that evicts keys may have evicted it, which the run's error says anyway.
        """
        if self.markers is None:
            return {}
        self._seen = time.monotonic()
        return self._there(self._context.with_retry(self.markers.read))

    def look_back(self) -> Mapping[str, Mapping[str, int] | None]:
        """The same, for the last time, and a last look at the masters: the run has written everything."""
        markers, target, is_young = self.markers, self._context.target, self.is_young
        if markers is None:
            return {}

        def look() -> tuple[Mapping[Node, Life], Mapping[str, Mapping[str, int] | None]]:
            seen = Prefetched(target, markers.questions, [INFO] * is_young)
            return self._now(seen if is_young else None), markers.read(seen)

        self._after, found = self._context.with_retry(look)
        return self._there(found)

    def _there(self, seen: Mapping[str, Mapping[str, int] | None]) -> Mapping[str, Mapping[str, int] | None]:
        lost = [key for key, there in seen.items() if there is None]
        if lost and not self.evicted():
            raise StartOver(
                f"the target was emptied during the run, in part or whole: markers are gone ({', '.join(lost)})"
            )
        return seen

    def evicted(self) -> str:
        """How many keys masters have evicted since the run began, in words; empty if none.

        Of one that has become a master since, all that it ever evicted.
        """
        if not self.before:
            return ""
        now = self._after or self.now()
        reset = [
            node for node, life in now.items() if (begun := self._lives.get(life.id)) and life.has_lost_count(begun)
        ]
        before = {life.process: life for life in self._lives.values()}
        counts = {node: life.evicted_since(before.get(life.process)) for node, life in now.items()}
        if told := ", ".join(f"{count:,} on {node}" for node, count in counts.items() if count):
            return f"redis evicted keys (out of memory) during the run: {told}; see `loader verify`"
        if reset:
            return (
                f"redis {', '.join(map(str, reset))}: the counters were reset during the run, and do not tell"
                " whether keys were evicted: see `loader verify`"
            )
        return ""

    def now(self) -> Mapping[Node, Life]:
        """The masters as they are now."""
        return self._context.with_retry(self._now)

    def _now(self, seen: Prefetched | None = None) -> Mapping[Node, Life]:
        """The masters as they are now, or were `seen` with `INFO` by a run that is `YOUNG`.

        The ids of their newest clients, for which connections are made, are those of a moment ago for such a run: a
        reset leaves fewer connections counted than there were then.
        """
        target, is_young = self._context.target, seen is not None or self.is_young
        now = lives(target, newest=not is_young, clients=not is_young, seen=seen)
        if not is_young:
            return now
        return {node: self._with_client(node, life) for node, life in now.items()}

    @property
    def is_young(self) -> bool:
        """Whether the masters were looked at a moment ago, before the run wrote."""
        return time.monotonic() - self._looked < YOUNG

    def _with_client(self, node: Node, life: Life) -> Life:
        before = self.before.get(node)
        return replace(life, client=before.client) if before and before.id == life.id else life

    def may_have_lost(self, now: Collection[Life] = (), *, resumed: bool) -> bool:
        """Whether masters, as they are `now` or were at the last look, may have lost rows though the markers are there.

        Keys may have been evicted by one that was restarted, has taken over or lost count; before a `resumed` run
        continued, nobody was looking. And while another run had the lock too, it may have written.
        """
        now = now or self._after.values()
        if self._context.shared or (resumed and any(life.policy for life in now)):
            return True
        return any(doubt(life, self._lives.get(life.id)) for life in now)
