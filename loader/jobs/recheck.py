"""Confirming differences: one counts if it is seen again after a pause, because a row may change meanwhile."""

import time
from collections import deque
from collections.abc import Callable, Sequence

from loader.mysql.keys import TOGETHER

LOOKS = 3  # times that a difference is seen before it counts
PAUSE = 1.0  # seconds between two checks: a row reaches Redis in less
PENDING = 100_000  # keys that wait for another check at most: about 10 MB


class Waiting:
    """Keys that wait for another look, in groups that are looked at together, and how often they were looked at."""

    def __init__(self) -> None:
        self._groups: deque[tuple[float, int, list[bytes]]] = deque()  # due, looks so far, keys
        self.count = 0

    def __len__(self) -> int:
        """The number of groups."""
        return len(self._groups)

    @property
    def due(self) -> float:
        """When all of them may be looked at again, on the monotonic clock."""
        return max((due for due, _, _ in self._groups), default=0.0)

    @property
    def is_pressing(self) -> bool:
        """Whether the first group's pause is over, or there are too many keys."""
        return bool(self._groups) and (self._groups[0][0] <= time.monotonic() or self.count > PENDING)

    def add(self, looks: int, keys: Sequence[bytes]) -> None:
        """Add keys that were looked at so often, just now for the last time."""
        for start in range(0, len(keys), TOGETHER):
            part = list(keys[start : start + TOGETHER])
            self._groups.append((time.monotonic() + PAUSE, looks, part))
            self.count += len(part)

    def pop(self, sleep: Callable[[float], None]) -> tuple[int, list[bytes]]:
        """The looks so far, and the keys, of the first group; the rest of its pause is waited for first."""
        due, looks, keys = self._groups.popleft()
        self.count -= len(keys)
        sleep(due - time.monotonic())
        return looks, keys
