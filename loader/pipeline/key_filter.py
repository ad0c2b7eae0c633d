"""Writes the rows of some keys again: of all rows that come, those with the requested keys."""

from collections.abc import Callable, Sequence
from operator import itemgetter

from loader.model import Batch
from loader.redis.client import RedisClient
from loader.redis.writer import Marking, PipelineWriter
from loader.wire.resp import number_rows, pack, split_commands

PAGE = 1000  # commands in one batch


class KeyFilterWriter(PipelineWriter):
    """A writer that leaves out the rows of other keys, which a collation may return with the requested ones."""

    def __init__(
        self, target: RedisClient, keys: Sequence[bytes], marking: Marking | None, guard: Callable[[], None]
    ) -> None:
        super().__init__(target, marking=marking)
        self.keys = set(keys)
        self.guard(guard)

    def send(self, index: int, batch: Batch) -> None:
        """Send those rows of a batch whose keys were requested."""
        kept = only_keys(batch, self.keys)
        if kept.replies:
            super().send(index, kept)

    def send_all(self, commands: Sequence[tuple[bytes, list[bytes]]]) -> None:
        """Send commands by the slot of their keys, whatever these are."""
        for index, owned in self.begin().by_index(commands, itemgetter(0)).items():
            for start in range(0, len(owned), PAGE):
                part = [pack(words) for _, words in owned[start : start + PAGE]]
                super().send(index, Batch(b"".join(part), len(part), len(part)))


def only_keys(batch: Batch, keys: set[bytes]) -> Batch:
    """A batch without the commands of other keys."""
    commands = [words for words in split_commands(batch.data) if words[1] in keys]
    then = only_keys(batch.then, keys) if batch.then else None
    rows = number_rows(commands)[-1] + 1 if commands and batch.rows else 0
    return Batch(b"".join(map(pack, commands)), rows, len(commands), then, batch.expects)
