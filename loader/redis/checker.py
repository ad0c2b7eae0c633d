"""Reads the hashes of rows from all nodes at the same time, and compares each with its row.

It takes the place of `PipelineWriter`: the rows of a chunk arrive as the commands that would write them. They are not
sent; the replies are compared with them.
"""

from collections.abc import Callable

from loader.model import Batch, Node
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.errors import DATA, NAMELESS, REDIRECT
from loader.redis.sockets import NodeConnection, NodePool
from loader.wire import resp
from loader.wire.codec import Comparer, SlotChecksums, reads
from loader.wire.slots import SlotMap

SHORTEST = 4  # bytes of the shortest reply, `*0` and its line end


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A row whose hash differs: the command that would write it, and the fields in Redis.

    `found` is None if the node could not answer: the key is another node's for now, or is not a hash (`reason`).
    """

    key: bytes
    wanted: dict[bytes, bytes]
    found: dict[bytes, bytes] | None
    reason: str = ""

    @property
    def is_unequal(self) -> bool:
        """Whether it still differs, once `found` is known."""
        return bool(self.reason) or self.found != self.wanted


class HashChecker:
    """Compares the hashes of batches with their rows; serves one worker.

    Each row whose hash differs is passed to `found`, and the keys of all existing hashes are added to `tally`. After a
    `TargetError` it is no longer usable.
    """

    def __init__(
        self, target: RedisClient, found: Callable[[Mismatch], None], tally: SlotChecksums | None = None
    ) -> None:
        self._target = target
        self._found = found
        self._tally = tally
        self._links = NodePool(target, _least, self._take)
        self.slots = target.slots

    restores = False  # fields are compared

    @property
    def most(self) -> int:
        """Largest value in bytes that all nodes accept."""
        return self._target.limit.most

    def begin(self) -> SlotMap:
        """Adopt the newest topology."""
        self.slots = self._target.slots
        return self.slots

    def send(self, index: int, batch: Batch) -> None:
        """Read the hashes of a batch; waits while `WINDOW` batches are in flight to that node."""
        link = self._links.to(self.slots.nodes[index])
        self._links.make_room(link)
        if batch.rows:
            self._links.queue(link, reads(batch.data), Comparer(batch.data, batch.rows, self._tally))
        self._links.send()

    def drain(self) -> None:
        """Wait for all replies."""
        while self._links.busy:
            self._links.turn()

    def close(self) -> None:
        """Close the connections to all nodes."""
        self._links.close()

    def _take(self, link: NodeConnection, data: bytes) -> None:
        """Compare the complete replies; a long one is not scanned again for each piece of it."""
        tail = link.tail = bytearray(link.tail) if isinstance(link.tail, bytes) else link.tail
        tail += data
        at = 0
        while link.awaited and len(tail) - at >= max(1, link.awaited[0].wanted):
            comparer: Comparer = link.awaited[0]
            at = comparer.feed(tail, at, len(tail))
            if comparer.left:
                break
            link.awaited.popleft()
            for command, reply in comparer.differences:
                self._found(self._explain(link.node, command, reply))
        if at < len(tail) and not link.awaited:
            raise ConnectionError("more replies than commands")
        del tail[:at]

    def _explain(self, node: Node, command: bytes, reply: bytes) -> Mismatch:
        name, key, *words = next(resp.split_commands(command))
        wanted = dict(zip(words[::2], words[1::2], strict=True)) if name == b"HMSET" else {}
        if not reply.startswith(b"-"):
            fields = list(next(resp.split_commands(reply), []))
            return Mismatch(key, wanted, dict(zip(fields[::2], fields[1::2], strict=True)))
        text = reply[1:].decode(errors="replace").strip() or NAMELESS
        code = text.split()[0]
        if code == "MOVED":
            self._target.mark_stale()
        if code not in REDIRECT | DATA:
            raise self._target.error(text, node)
        return Mismatch(key, wanted, None, "" if code in REDIRECT else "no hash")


def _least(link: NodeConnection) -> int:
    """The least number of bytes until the oldest batch is answered."""
    comparer: Comparer = link.awaited[0]
    return max(1, max(comparer.left * SHORTEST, comparer.wanted) - len(link.tail))
