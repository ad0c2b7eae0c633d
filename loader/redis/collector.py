"""A stand-in for the writer that keeps the commands instead of sending them: for dry runs and previews."""

from collections import Counter
from collections.abc import Callable

from loader.model import Acks, Batch, Node
from loader.redis.client import RedisClient
from loader.redis.writer import Kept
from loader.wire import resp
from loader.wire.slots import SlotMap


class CollectingWriter:
    """A writer that sends nothing and counts rows as written: for dry runs, and to measure everything before it.

    With `keep`, `kept` collects the commands, each with the node it would go to.
    """

    def __init__(self, target: RedisClient, *, keep: bool = False) -> None:
        self.kept: list[tuple[Node, list[bytes]]] = []
        self._keep = keep
        self._target = target
        self._slots = target.slots
        self._rows: Counter[str] = Counter()
        self._bytes = 0

    restores = False  # HMSET is what people can read

    @property
    def most(self) -> int:
        """Largest value in bytes that would be sent."""
        return self._target.limit.most

    def begin(self) -> SlotMap:
        """The topology by which rows would be sent."""
        return self._slots

    def send(self, index: int, batch: Batch) -> None:
        """Count a batch."""
        if self._keep:
            self.kept += ((self._slots.nodes[index], words) for words in resp.split_commands(batch.data))
        self._rows[str(self._slots.nodes[index])] += batch.rows
        self._bytes += len(batch.data)

    def guard(self, check: Callable[[], None]) -> None:
        """Nothing to send."""

    def drain(self) -> Acks:
        """The counts so far."""
        acks = Acks(dict(self._rows), self._bytes)
        self._rows, self._bytes = Counter(), 0
        return acks

    def await_replicas(self) -> Kept:
        """Nothing was sent."""
        return Kept()

    def close(self) -> None:
        """Nothing is open."""
