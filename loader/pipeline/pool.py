"""What the jobs of one process share: connections to MySQL and Redis, and what was seen of the nodes a moment ago.

A connection serves one job at a time, and is handed on only if that job has left nothing behind: no transaction, no
reply still to come, no command that may be carried out later. All others are closed, so that the failure of one job is
not another's. A client that a job has left so has had its name taken off the job's fence: nobody shuts it out.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from loader.config.servers import SourceConfig, TargetConfig
from loader.errors import Kind, SourceError
from loader.mysql.connection import Connection
from loader.redis.client import RedisClient

IDLE = 30.0  # seconds after which an unused connection is closed: firewalls forget one after minutes
FRESH = 1.0  # seconds for which one look at all nodes is enough for all jobs

T = TypeVar("T")
Unused = dict[Any, list[tuple[float, Any]]]  # since when, by what was asked for


class Pool:
    """The connections of one process that no job uses at the moment; from any thread.

    One that does not `keep` them closes each connection once its job does not need it any more.
    """

    def __init__(self, *, keeps: bool = True) -> None:
        self.keeps = keeps
        self._sources: Unused = {}  # connections to MySQL
        self._targets: Unused = {}  # clients of Redis
        self._looks: dict[Hashable, tuple[float, object]] = {}
        self._lock = threading.Lock()
        self._looking = threading.Lock()

    def source(self, settings: SourceConfig, patience: int = 0) -> Connection:
        """A connection to MySQL: an unused one, or a new one."""
        with self._lock:
            self._drop_old()
            if kept := self._sources.get((settings, patience)):
                connection: Connection = kept.pop()[1]
                return connection
        try:
            return Connection(settings, patience)
        except SourceError as error:
            if error.kind is not Kind.LIMITED or not self._sources:
                raise
        self._close_unused(self._sources)  # the account may have no more
        return Connection(settings, patience)

    def leave_source(self, connection: Connection) -> None:
        """Hand on a connection to MySQL, or close it."""
        if not (self.keeps and connection.is_clean):
            connection.close()
            return
        with self._lock:
            self._sources.setdefault(connection.asked, []).append((time.monotonic(), connection))

    def target(self, settings: TargetConfig) -> RedisClient:
        """A client of Redis that comes after one that was left, or a new one."""
        with self._lock:
            self._drop_old()
            kept = self._targets.get(_place(settings))
            left = kept.pop()[1] if kept else None
        return RedisClient(settings, after=left)

    def leave_target(self, client: RedisClient, *, well: bool) -> None:
        """Hand on a client whose job has ended `well`, or close it."""
        if not (self.keeps and well and client.fences.is_unused):
            client.close()
            return
        with self._lock:
            self._targets.setdefault(_place(client.settings), []).append((time.monotonic(), client))

    @contextmanager
    def reach(self, settings: TargetConfig) -> Iterator[RedisClient]:
        """A client for the block only."""
        target, well = self.target(settings), False
        try:
            yield target
            well = True
        finally:
            self.leave_target(target, well=well)

    def seen(self, what: str, target: RedisClient, look: Callable[[], T]) -> T:
        """The result of a look at the nodes: if connections are kept, that of another job up to a second ago."""
        if not self.keeps:
            return look()
        key = (what, target.settings, target.slots.nodes)
        with self._looking:
            looked, found = self._looks.get(key, (0.0, None))
            if time.monotonic() - looked > FRESH:
                looked = time.monotonic()
                found = look()
                self._looks[key] = (looked, found)
        return found  # type: ignore[return-value]

    def close(self) -> None:
        """Close all connections that are not in use, and keep none from now on."""
        self.keeps = False
        self._close_unused(self._sources)
        self._close_unused(self._targets)

    def _close_unused(self, pool: Unused) -> None:
        with self._lock:
            unused = [each for kept in pool.values() for _, each in kept]
            pool.clear()
        for each in unused:
            each.close()

    def _drop_old(self) -> None:
        """Close what has not been used for long; the lock is held."""
        since = time.monotonic() - IDLE
        for pool in (self._sources, self._targets):
            for kept in pool.values():
                while kept and kept[0][0] < since:
                    kept.pop(0)[1].close()


def _place(settings: TargetConfig) -> TargetConfig:
    """The settings without the patience, which a client may change from one command to the next."""
    return settings.within(0)
