"""Whether MySQL, or its replica, has too much to do, so that the workers of a run have to wait."""

import time
from collections.abc import Callable, Sequence

from loader.config.servers import SourceConfig
from loader.errors import ConfigError, SourceError
from loader.mysql.connection import Connection
from loader.net.limit import until
from loader.pipeline.retry import BRIEFLY


class LoadGuard:
    """Why workers must wait for MySQL: a status variable above its limit, or a replica too far behind.

    `max_load` is a status variable and its limit, `max_lag` is in seconds; `fetch` queries MySQL.
    """

    def __init__(
        self,
        settings: SourceConfig,
        fetch: Callable[[str, Sequence[str]], list[tuple[str | None, ...]]],
        max_load: tuple[str, int] | None,
        max_lag: int | None,
    ) -> None:
        self._settings = settings
        self._fetch = fetch
        self._max_load = max_load
        self._max_lag = max_lag
        self._replica: Connection | None = None

    def busy(self) -> str:
        """The reason to wait; empty if there is none."""
        return self._overload() or self._lag()

    def close(self) -> None:
        """Close the connection to the replica."""
        if self._replica:
            self._replica.close()

    def _overload(self) -> str:
        if not self._max_load:
            return ""
        name, most = self._max_load
        found = self._fetch("SHOW GLOBAL STATUS LIKE %s", [name])
        if not found or not str(found[0][-1]).isdecimal():
            raise ConfigError(f"--max-load: MySQL has no numeric status variable {name!r}")
        value = int(str(found[0][-1]))
        return f"--max-load {name}={most}: it is {value}" if value > most else ""

    def _lag(self) -> str:
        most = self._max_lag
        if most is None:
            return ""
        settings = self._settings.at_replica()
        if settings is None:
            raise ConfigError("--max-lag: the config names no source.replica to watch")
        try:
            with until(time.monotonic() + BRIEFLY):
                self._replica = self._replica or Connection(settings)
                lag = self._replica.lag()
        except SourceError as error:
            if not error.transient:
                raise
            self._replica = None
            return f"--max-lag {most}: {error}"
        if lag is None:
            return f"--max-lag {most}: the replica does not replicate"
        return f"--max-lag {most}: the replica is {lag} s behind" if lag > most else ""
