"""Whether both sides answer now, for load balancers and orchestrators."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from loader.config.servers import ANSWER_TIME, SourceConfig, TargetConfig
from loader.errors import LoaderError
from loader.mysql.connection import Connection
from loader.redis.client import RedisClient

FRESH = 1.0  # seconds for which an answer is reused: however often health is checked, servers are asked once
AT_ONCE = 8  # servers asked at the same time


class Health:
    """Checks MySQL and each master of Redis, on new connections; a reload of the config may replace `settings`."""

    def __init__(self, sources: Iterable[SourceConfig], target: TargetConfig) -> None:
        self._asking = threading.Lock()  # held while servers are asked
        self._lock = threading.Lock()  # of the settings and the answer, never held for long
        self._looked = float("-inf")
        self._reasons: list[str] = []
        self._stopping = False
        self.configure(sources, target)

    def configure(self, sources: Iterable[SourceConfig], target: TargetConfig) -> None:
        """Check these servers from now on."""
        with self._lock:
            self._sources = [_brief(source) for source in sources]
            self._target = target.within()
            self._looked = float("-inf")

    def stop(self) -> None:
        """Report not ready from now on: the process is about to end."""
        self._stopping = True

    def reasons(self) -> list[str]:
        """Why no run could succeed now, a sentence each; empty if one could."""
        if self._stopping:
            return ["the daemon is stopping"]
        with self._asking:
            with self._lock:
                sources, target = self._sources, self._target
                if time.monotonic() - self._looked < FRESH:
                    return list(self._reasons)
            reasons = self._ask(sources, target)
            with self._lock:
                if sources is self._sources and target is self._target:  # else of servers that are no longer checked
                    self._reasons, self._looked = reasons, time.monotonic()
            return list(reasons)

    def _ask(self, sources: Sequence[SourceConfig], target: TargetConfig) -> list[str]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = [pool.submit(_reason, partial(self._ask_source, source)) for source in sources]
            redis = self._ask_target(pool, target)
            return [*filter(None, (each.result() for each in asked)), *redis]

    def _ask_source(self, settings: SourceConfig) -> None:
        with Connection(settings) as source:
            source.fetch("SELECT 1")

    def _ask_target(self, pool: ThreadPoolExecutor, settings: TargetConfig) -> list[str]:
        """A reason for each master that does not answer, or one if the topology cannot be read."""
        asked: list[Future[str]] = []

        def ask() -> None:
            with RedisClient(settings) as target:
                target.refresh(force=True)
                pings = [partial(target.command, node, "PING") for node in target.slots.nodes]
                asked.extend(pool.submit(_reason, ping) for ping in pings)
                wait(asked)

        return [*filter(None, [_reason(ask), *(each.result() for each in asked)])]


def _brief(source: SourceConfig) -> SourceConfig:
    """The same server, with little time to answer."""
    short = {"connect_timeout": min(ANSWER_TIME, source.connect_timeout), "read_timeout": ANSWER_TIME}
    return source.model_copy(update=short)


def _reason(action: Callable[[], object]) -> str:
    """Why an action failed; empty if it succeeded."""
    try:
        action()
    except (LoaderError, OSError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # whatever the error, the server is unusable
        return f"{type(error).__name__}: {error}"
    return ""
