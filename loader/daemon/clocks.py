"""The time on the target's masters: a clock that all daemons share, even if their own clocks are changed meanwhile."""

import threading
import time
from collections.abc import Mapping

from loader.config.servers import TargetConfig
from loader.model import Node
from loader.process import ticks
from loader.redis.client import RedisClient
from loader.wire.slots import SlotMap, slot_of

PRECISE = 1.0  # seconds in which a node must answer, or its answer is too old


class Clocks:
    """The clock of each master, as its offset from this machine's ticks when it was last asked."""

    def __init__(self) -> None:
        self.asked = threading.Event()  # or the attempt failed
        self._own = time.time() - ticks()  # until a node has been asked
        self._ahead: dict[Node, float] = {}  # of the ticks
        self._slots: SlotMap | None = None
        self._nodes: dict[str, Node] = {}  # by job
        self._target: RedisClient | None = None
        self._opened: TargetConfig | None = None  # what it was opened with

    def now(self, job: str) -> float:
        """The time of the Redis that holds a job's state, in seconds since 1970."""
        slots = self._slots
        if slots and job not in self._nodes:
            self._nodes[job] = slots.node_of(slot_of(f"{{{job}}}".encode()))
        node = self._nodes.get(job)
        return ticks() + (self._own if node is None else self._ahead.get(node, self._own))

    def look(self, settings: TargetConfig) -> Mapping[Node, float]:
        """Ask each master by how many seconds it is ahead of this machine's clock.

        Raises a `LoaderError` if one does not answer.
        """
        try:
            target = self._open(settings)
            target.refresh(force=True)
            for node in target.slots.nodes:
                before = ticks()
                seconds, micros = target.command(node, "TIME")
                after = ticks()
                if after - before < PRECISE:
                    self._ahead[node] = int(seconds) + int(micros) / 1e6 - (before + after) / 2
            self._slots, self._nodes = target.slots, {}
        except BaseException:
            self._close()
            raise
        finally:
            self.asked.set()
        own = time.time() - ticks()
        return {node: self._ahead.get(node, self._own) - own for node in target.slots.nodes}

    def _open(self, settings: TargetConfig) -> RedisClient:
        if self._target is None or self._opened is not settings:
            self._close()
            self._target, self._opened = RedisClient(settings.within()), settings
        return self._target

    def _close(self) -> None:
        if self._target:
            self._target.close()
        self._target = None
