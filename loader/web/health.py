"""Whether both sides answer now: what a load balancer or an orchestrator asks of the daemon."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from loader.config.servers import ANSWER_TIME, SourceConfig, TargetConfig
from loader.errors import LoaderError
from loader.mysql.connection import Connection
from loader.redis.client import RedisClient

FRESH = 1.0  # seconds for which an answer stands: however often it is asked, servers are asked once
AT_ONCE = 8  # servers asked at the same time


class Health:
    """Asks MySQL and each master of Redis, on new connections; `settings` may be replaced when a config is reloaded."""

    def __init__(self, source: SourceConfig, target: TargetConfig) -> None:
        self._asking = threading.Lock()  # held while servers are asked
        self._lock = threading.Lock()  # of the settings and the answer, never held for long
        self._looked = float("-inf")
        self._reasons: list[str] = []
        self._stopping = False
        self.configure(source, target)

    def configure(self, source: SourceConfig, target: TargetConfig) -> None:
        """Ask these servers from now on."""
        short = {"connect_timeout": min(ANSWER_TIME, source.connect_timeout), "read_timeout": ANSWER_TIME}
        with self._lock:
            self._source = source.model_copy(update=short)
            self._target = target.within()
            self._looked = float("-inf")

    def stop(self) -> None:
        """From now on not ready: the process is about to end."""
        self._stopping = True

    def reasons(self) -> list[str]:
        """Why no run could go well now, a sentence each; empty where one could."""
        if self._stopping:
            return ["the daemon is stopping"]
        with self._asking:
            with self._lock:
                source, target = self._source, self._target
                if time.monotonic() - self._looked < FRESH:
                    return list(self._reasons)
            reasons = self._ask(source, target)
            with self._lock:
                if source is self._source and target is self._target:  # else of servers that are asked no more
                    self._reasons, self._looked = reasons, time.monotonic()
            return list(reasons)

    def _ask(self, source: SourceConfig, target: TargetConfig) -> list[str]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            mysql = pool.submit(_reason, lambda: self._ask_source(source))
            redis = self._ask_target(pool, target)
            return [*filter(None, [mysql.result()]), *redis]

    def _ask_source(self, settings: SourceConfig) -> None:
        with Connection(settings) as source:
            source.fetch("SELECT 1")

    def _ask_target(self, pool: ThreadPoolExecutor, settings: TargetConfig) -> list[str]:
        """One reason a master that does not answer, or one where the topology cannot be had."""
        asked: list[Future[str]] = []

        def ask() -> None:
            with RedisClient(settings) as target:
                target.refresh(force=True)
                pings = [partial(target.command, node, "PING") for node in target.slots.nodes]
                asked.extend(pool.submit(_reason, ping) for ping in pings)
                wait(asked)

        return [*filter(None, [_reason(ask), *(each.result() for each in asked)])]


def _reason(action: Callable[[], object]) -> str:
    """Why an action failed; empty where it did not."""
    try:
        action()
    except (LoaderError, OSError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # whatever it is, nothing could be done with that server
        return f"{type(error).__name__}: {error}"
    return ""
