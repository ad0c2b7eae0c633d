"""The account of a run's chunks: those that are loaded, those that are owed, and the checkpoint with both."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from loader.model import Chunk, ChunkLoaded, KeyValues
from loader.pipeline.exposure import Exposure
from loader.pipeline.ledger import Ledger
from loader.state.checkpoint import Checkpoint


class ChunkAccount:
    """What a run has loaded and still owes; `resumed` is the checkpoint that it begins with, if it writes.

    `ledger` has the loaded chunks with what vouches for them, `exposure` those of them that replicas lack, and `owed`,
    by number, the chunks that workers have or that wait for one.
    """

    def __init__(self) -> None:
        self.owed: dict[int, Chunk] = {}
        self.ledger = Ledger[ChunkLoaded]()
        self.exposure = Exposure()
        self.after: KeyValues | None = None  # the key from which no chunk was planned yet
        self.number = 1  # of the next chunk
        self.ended = False  # all chunks are planned
        self._backlog: deque[Chunk] = deque()  # chunks of the checkpoint that no worker has yet
        self._rejected = 0  # rows that could not be written
        self._begun: Checkpoint | None = None

    def begin(self, begun: Checkpoint) -> None:
        """Begin with what a checkpoint owes and has loaded."""
        self._begun = begun
        self._backlog = deque(begun.owed)
        self.after, self.number, self.ended = begun.after, begun.number, begun.ended
        self._rejected = begun.rejected
        self.ledger.vouch((key, *each) for key, fields in begun.marks.items() for each in fields.items())

    @property
    def left(self) -> int:
        """How many chunks are known and not loaded."""
        return len(self.owed) + len(self._backlog)

    def backlog(self) -> Iterator[Chunk]:
        """The chunks that the checkpoint owed, for workers to take."""
        while self._backlog:
            yield self._backlog.popleft()

    def plan(self, chunk: Chunk) -> None:
        """Note how far the table is planned: up to the end of this chunk."""
        self.after, self.ended, self.number = chunk.upto, chunk.upto is None, chunk.number + 1

    def owe(self, chunk: Chunk) -> None:
        """Count a chunk for a worker to load."""
        self.owed[chunk.number] = chunk

    def add(self, event: ChunkLoaded) -> None:
        """Count a chunk that is loaded."""
        del self.owed[event.chunk.number]
        self.ledger.add(event)
        self.exposure.add(event)
        self._rejected += len(event.rejects)

    def strike(self, events: Sequence[ChunkLoaded]) -> None:
        """Count loaded chunks out, and owe them again."""
        numbers = {event.chunk.number for event in events}
        self.ledger.strike(lambda event: event.chunk.number in numbers)
        self.exposure.strike(numbers)
        for event in events:
            self.owe(event.chunk)
            self._rejected -= len(event.rejects)

    def checkpoint(self, markers: tuple[str, ...]) -> Checkpoint | None:
        """The checkpoint that says what is owed now, with the keys of the run's markers; None in a run without one."""
        if self._begun is None:
            return None
        return replace(
            self._begun,
            owed=(*self.owed.values(), *self._backlog),
            after=self.after,
            ended=self.ended,
            number=self.number,
            rejected=self._rejected,
            markers=markers,
            marks=self.ledger.by_marker(),
        )
