"""The questions with which each run begins, so that it can ask them all at once."""

from loader.redis.key_reader import Question
from loader.state_keys import own_key

ASKED = {
    "claim": ("GET",),
    "success": ("GET",),
    "runs": ("LRANGE", 0, 0),
    "rejects": ("HLEN",),
    "baseline": ("GET",),
    "fields": ("GET",),
    "paused": ("GET",),
    "prune": ("EXISTS",),
}
"""Commands and what follows the key, by the name of the key."""


def questions(job: str, shard: tuple[int, int] | None = None) -> list[Question]:
    """The questions about the state of a job, or of one shard (I, N) of it."""
    slot, digests = own_key(job, "slot"), own_key(job, "digests")
    asked: list[Question] = [
        (slot.encode(), ("TIME",)),
        (slot.encode(), ("GET", slot)),
        (digests.encode(), ("HLEN", digests)),
        (digests.encode(), ("HGETALL", digests)),
    ]
    for name, (command, *more) in ASKED.items():
        key = own_key(job, name)
        asked.append((key.encode(), (str(command), key, *more)))
    checkpoint, chunks = own_key(job, "checkpoint", shard), own_key(job, "chunks")
    asked += (checkpoint.encode(), ("GET", checkpoint)), (checkpoint.encode(), ("EXISTS", checkpoint, chunks))
    return asked
