"""The largest value that a Redis accepts, found out once a node has closed a connection because of a value's size."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from loader.errors import TargetError
from loader.model import MOST, Node
from loader.redis.replies import info_of

# The settings that limit a node's values, and bytes beside one that count; both are at least a mebibyte.
LIMITS = {"proto-max-bulk-len": 0, "client-query-buffer-limit": 2}
SMALL = 1 << 20
CUT = "client_query_buffer_limit_disconnections"  # in INFO, of Redis 8


class ValueLimit:
    """The largest value in bytes that every node accepts, as far as known: `most`."""

    def __init__(self, look: Callable[[Node, Sequence[Sequence[str]]], list[Any]]) -> None:
        self.most = MOST
        self._look = look
        self._cut: dict[Node, int] = {}  # connections that a node reports as closed because of their input's size

    def learn(self, node: Node, size: int, *, refused: bool = False) -> bool:
        """Ask a node that closed a connection during a value of `size` bytes for its limit; return whether it answers.

        If it may not be asked, and has `refused` that value or counts one more refusal, it accepts fewer bytes.
        """
        limits: list[int] = []
        with suppress(TargetError):
            *replies, info = self._look(node, [*(("CONFIG", "GET", name) for name in LIMITS), ("INFO", "stats")])
            told = [reply[1] if isinstance(reply, list) and len(reply) == 2 else b"" for reply in replies]
            limits = [int(text) - beside for text, beside in zip(told, LIMITS.values(), strict=True) if text.isdigit()]
            count = int(info_of(info).get(CUT, 0)) if isinstance(info, bytes) else 0
            refused |= count > self._cut.setdefault(node, count)
            self._cut[node] = count
        most = min([*limits, *([max(SMALL, size - 1)] if refused else [])], default=MOST)
        self.most = min(self.most, most)
        return refused or bool(limits)
