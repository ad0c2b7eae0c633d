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
}
"""Commands and what follows the key, by the name of the key."""


def questions(
    job: str, shard: tuple[int, int] | None = None, *, is_scheduled: bool = False, resumes: bool = False
) -> list[Question]:
    """The questions about the state of a job, or of one shard (I, N) of it.

    A run of a schedule has a slot, and one that resumes another has a checkpoint.
    """
    slot, digests = own_key(job, "slot"), own_key(job, "digests")
    asked: list[Question] = [
        (slot.encode(), ("TIME",)),
        (digests.encode(), ("HLEN", digests)),
        (digests.encode(), ("HGETALL", digests)),
    ]
    for name, (command, *more) in ASKED.items():
        key = own_key(job, name)
        asked.append((key.encode(), (str(command), key, *more)))
    if is_scheduled:
        paused = own_key(job, "paused")
        asked += (slot.encode(), ("GET", slot)), (paused.encode(), ("GET", paused))
    if resumes:
        checkpoint, chunks = own_key(job, "checkpoint", shard), own_key(job, "chunks")
        asked += (checkpoint.encode(), ("GET", checkpoint)), (checkpoint.encode(), ("EXISTS", checkpoint, chunks))
    return asked
