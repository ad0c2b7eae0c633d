"""Recent answers of servers for occasional readers: fetched in a separate thread while somebody is looking."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from loader.errors import LoaderError
from loader.process import start_thread

LOOKED = 5.0  # seconds after a read for which answers are fetched again and again, so that the next read is current
AGAIN = 5.0  # seconds after which a failed fetch is repeated, however long an answer lasts
REST = 10  # times as long as a fetch takes, there is none, up to AGAIN: of many jobs it takes a while
FIRST = 1.0  # seconds that a page waits for the first answers, in all

T = TypeVar("T")
LOG = logging.getLogger(__name__)


class CachedPoll(Generic[T]):
    """An answer that its own thread fetches while somebody is looking; `problem` says why there is no newer one."""

    def __init__(self, ask: Callable[[], T], fresh: float) -> None:
        self.problem = ""
        self.value: T | None = None
        self.at = 0.0  # when it was fetched, in seconds since 1970
        self._ask = ask
        self._fresh = fresh
        self._lock = threading.Lock()
        self._asked = self._looked = float("-inf")  # on the monotonic clock
        self._took = 0.0  # seconds that the last fetch took
        self._busy = False
        self._done = threading.Event()  # an answer came, or cannot come

    def get(self, patience: float = FIRST) -> T | None:
        """The last answer; if there was none lately, a newer one after this many seconds at most."""
        self.begin()
        self._done.wait(max(0.0, patience))
        return self.value

    def begin(self) -> None:
        """Start fetching, unless it is in progress."""
        with self._lock:
            self._looked = time.monotonic()
            old = self._looked - self._asked >= max(self._fresh, LOOKED)
            if not self._busy:
                try:
                    start_thread(self._keep)
                    self._busy = True
                    if old:
                        self._done.clear()
                except LoaderError as error:  # no more threads
                    self.problem = str(error)

    def stop(self) -> None:
        """Stop fetching."""
        self._looked = float("-inf")

    def _keep(self) -> None:
        """Fetch often enough to stay fresh, as long as somebody is looking."""
        while True:
            if (wait := self._wait()) > 0:
                time.sleep(min(wait, LOOKED))
            with self._lock:
                if time.monotonic() - self._looked > LOOKED:
                    self._busy = False
                    return
            if self._wait() <= 0:
                self._look()

    def _wait(self) -> float:
        """Seconds until the next fetch."""
        fresh = max(self._fresh, min(AGAIN, self._took * REST))
        return self._asked + (min(AGAIN, fresh) if self.problem else fresh) - time.monotonic()

    def _look(self) -> None:
        began = time.monotonic()
        try:
            self.value, self.at, self.problem = self._ask(), time.time(), ""
        except (LoaderError, OSError) as error:
            self.problem = str(error) or type(error).__name__
        except Exception as error:
            self.problem = f"unexpected {type(error).__name__}"
            LOG.exception("what a page shows could not be found out: please report this")
        finally:
            self._asked = time.monotonic()
            self._took = self._asked - began
            self._done.set()
