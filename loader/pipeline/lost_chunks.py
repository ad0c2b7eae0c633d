"""Loaded chunks that are lost, or may be: a master lost its newest writes, or another run had the lock too."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from loader.errors import LoaderError
from loader.model import Chunk, ChunkLoaded, ChunkOwed, Notice
from loader.pipeline.account import ChunkAccount
from loader.pipeline.events import RunListener
from loader.pipeline.job_context import JobContext
from loader.pipeline.ledger import SHARED
from loader.pipeline.retry import FRESH
from loader.pipeline.run_state import RunState
from loader.redis.topology import REFRESH
from loader.redis.writer import REPLICA_WAIT
from loader.state.markers import LOST
from loader.wire.slots import SlotMap
from loader.words import counted

UNKNOWN = "some of its replicas lack writes of {}, which are lost if such a replica takes over"


class LostChunks:
    """Finds the loaded chunks of a run that have to be written again, and owes them; `give` takes each again."""

    def __init__(
        self, context: JobContext, state: RunState, account: ChunkAccount, give: Callable[[Chunk], None]
    ) -> None:
        self._context = context
        self._state = state
        self._account = account
        self._give = give
        self._repeats = 0  # times that chunks were owed again
        self._slots: SlotMap | None = None  # as they were when the markers were last checked

    def begin(self) -> None:
        """Note the slots as they are when the run begins to write."""
        self._slots = self._context.target.slots

    def confirm(self, listener: RunListener) -> Iterator[ChunkOwed]:
        """All chunks are loaded: check that they still are there, on all replicas, and that the lock was held.

        Of a young run, the check at its very end is enough: it starts over as soon as it would write chunks again.
        """
        self._context.with_retry(self._context.throttle.confirm)
        markers, target, exposure = self._state.masters.markers, self._context.target, self._account.exposure
        yield from self.find(listener, now=not self._state.masters.is_young or bool(exposure))
        if self._account.owed or not exposure or markers is None:
            return
        for node in target.slots.nodes:
            if str(node) in exposure and self._context.with_retry(partial(markers.reach_all, node, REPLICA_WAIT)):
                exposure.cover(str(node))
        if exposure:
            self._context.throttle.sleep(REFRESH)
            self._context.with_retry(lambda: target.refresh(force=True))
            yield from self.find(listener, now=True)
        if not self._account.owed:
            masters = set(map(str, target.slots.nodes))
            for name in masters.intersection(exposure):
                listener.notify(Notice(f"redis {name}: {UNKNOWN.format(counted(exposure.count(name), 'chunk'))}"))

    def find(self, listener: RunListener, *, now: bool = False) -> Iterator[ChunkOwed]:
        """Owe the chunks again that a master has lost, and those that another run may have overwritten.

        They are looked for every few seconds, and when the nodes have changed.
        """
        context, ledger = self._context, self._account.ledger
        markers, slots = self._state.masters.markers, context.target.slots
        if markers is None:
            return
        if (since := context.take_doubt()) is not None:
            yield from self.owe_again(ledger.since(since), listener, SHARED)
        if not (now or slots is not self._slots or self._state.masters.is_time_to_look()):
            return
        yield from self.owe_again(ledger.lost(self._state.masters.find_markers()), listener, LOST)
        if self._slots and slots is not self._slots and slots.parts != self._slots.parts:
            ledger.vouch(context.with_retry(markers.note_moves))
        self._slots = slots

    def owe_again(self, events: Sequence[ChunkLoaded], listener: RunListener, why: str) -> Iterator[ChunkOwed]:
        """Owe counted chunks again, and give them to a worker; a run that does so too often fails."""
        if not events:
            return
        self._repeats += 1
        if self._repeats > FRESH:
            told = self._state.masters.evicted()
            raise LoaderError(f"{why}, as {FRESH} times before in this run{told and ': '}{told}")
        listener.notify(
            Notice(f"{counted(len(events), 'chunk')} {'are' if len(events) > 1 else 'is'} written again: {why}")
        )
        yield from self.strike(events)
        for event in events:
            if changes := self._state.changes:
                self._context.with_retry(partial(changes.mark_dirty, event.chunk.number))
            self._give(event.chunk)

    def strike(self, events: Sequence[ChunkLoaded]) -> Iterator[ChunkOwed]:
        """Count chunks out, and owe them."""
        self._account.strike(events)
        self._context.throttle.take_back(sum(event.read for event in events))
        yield from map(ChunkOwed, events)

    def find_doubtful(self) -> Iterator[ChunkOwed]:
        """Fail the run: the checkpoint owes the chunks that another run may have overwritten in between."""
        if (since := self._context.take_doubt()) is not None:
            yield from self.strike(self._account.ledger.since(since))
