"""The connections to Redis that all pages and API calls share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from loader.config.servers import TargetConfig
from loader.errors import Kind, TargetError
from loader.redis.client import RedisClient
from loader.web.poller import FIRST

TURN = 1.0  # seconds that a call waits for those before it


class SharedTarget:
    """A client of the target that one thread uses at a time."""

    def __init__(self, settings: TargetConfig) -> None:
        self._client: RedisClient | None = None
        self._opened: TargetConfig | None = None  # the settings that the client was opened with
        self._using = threading.Lock()
        self.configure(settings)

    def configure(self, settings: TargetConfig) -> None:
        """Use this target from the next call on; it has no more time to answer than a page waits."""
        self._settings = settings.within()

    @contextmanager
    def open(self) -> Iterator[RedisClient]:
        """The client, for one caller at a time; after a failure, on new connections.

        Raises a `TargetError` if others take too long, so that a page is answered even if a server hangs.
        """
        if not self._using.acquire(timeout=TURN):
            raise TargetError(f"redis {self._settings.endpoint}: does not answer in time", kind=Kind.UNAVAILABLE)
        try:
            if self._client is None or self._opened is not self._settings:
                self._drop()
                self._client, self._opened = RedisClient(self._settings), self._settings
            yield self._client
        except BaseException:
            self._drop()
            raise
        finally:
            self._using.release()

    def close(self) -> None:
        """Drop the connections, unless they are in use for long."""
        if self._using.acquire(timeout=FIRST):
            self._drop()
            self._using.release()

    def _drop(self) -> None:
        if self._client:
            self._client.close()
        self._client = None
