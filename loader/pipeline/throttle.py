"""The speed of a run, and its reasons to wait; shared by the workers of a run."""

import threading
import time
from typing import Protocol

from loader.errors import Kind, LoaderError, Stopped

SPARED = 5.0  # seconds for which a slow node is spared at most
STEP = 0.1  # seconds of waiting after which a change is noticed


class StopRequest:
    """Asks runs to stop, from another thread: `asked`, they finish the chunks they have begun; `now`, they do not."""

    def __init__(self) -> None:
        self.asked = False
        self.now = False


class HeldLock(Protocol):
    """A lock that a run has taken, and that may lapse: see `state.lock.Lock`."""

    def lapsed(self) -> LoaderError | None:
        """Why nothing may be written now; None while it is held."""

    def grant(self) -> int:
        """How often it was granted."""

    def confirm(self) -> None:
        """Raise a `LoaderError` unless it is held, for which Redis is asked."""


class NoLock:
    """The lock of a run that writes nothing, or has not taken one yet: nothing is in its way."""

    def lapsed(self) -> None:
        """It does not lapse."""

    def grant(self) -> int:
        """It was never granted."""
        return 0

    def confirm(self) -> None:
        """It need not be held."""


class Throttle:
    """A rate for all workers together, a pause while MySQL is too busy, a pause for a slow node, and the stop.

    Workers wait in `admit`, `pace` and `sleep`, which raise `Stopped` once the run is to end. `admit` and `hold` raise
    a transient `LoaderError` if the run's lock has expired, because values read before may be older than those in
    Redis, and a permanent one once another run has it.
    """

    def __init__(self, rate: int | None = None, halt: StopRequest | None = None) -> None:
        self.busy = ""  # why no chunk may begin for now; set and cleared by the run
        self.trouble = ""  # why something other than a chunk is tried again
        self.lock: HeldLock = NoLock()  # that the run has to hold to write
        self.failure: LoaderError | None = None  # of a worker, which ends the run: nothing is worth retrying
        self.rows = 0  # rows that passed `pace`, including those of unfinished chunks, each counted once
        self._attempts: dict[int, int] = {}  # rows of each thread's attempt at a chunk
        self._rate = rate
        self._counting = threading.Lock()
        self._free = 0.0  # when the next row may go
        self._slow = ("", 0.0)  # a slow node, and until when it is spared
        self._waited: dict[str, float] = {}  # seconds of all workers, by reason
        self._halt = halt or StopRequest()
        self._stopped = False  # no lock protects it: a signal may set it at any moment

    def why(self, chunk: str = "") -> str:
        """Why workers wait now; `chunk` is why one of a chunk did last, which is older than other trouble."""
        return self.trouble or chunk or self.reason

    @property
    def reason(self) -> str:
        """Why workers wait now; empty if they do not."""
        now = time.monotonic()
        lapsed = self.lapsed()
        lapse = str(lapsed) if lapsed and lapsed.transient else ""  # else it is over, and not waited for
        if waits := self.busy or lapse or self.trouble:
            return waits
        if self._slow[1] > now:
            return self._slow[0]
        return f"--rate {self._rate}" if self._free > now else ""

    def admit(self) -> None:
        """Wait until a chunk may begin: with a statement open, a waiting worker would be part of the load."""
        while self.busy:
            self.sleep(STEP, "busy")
        self.check()

    def attempt(self, *, again: bool) -> None:
        """Begin a chunk in this thread; `again`: the rows counted at the attempt before are read once more."""
        with self._counting:
            counted = self._attempts.pop(threading.get_ident(), 0)
            self.rows -= counted if again else 0

    def pace(self, rows: int) -> None:
        """Wait until these rows may go."""
        due, thread = 0.0, threading.get_ident()
        with self._counting:
            self.rows += rows
            self._attempts[thread] = self._attempts.get(thread, 0) + rows
            if self._rate:
                due = max(self._free, time.monotonic())
                self._free = due + rows / self._rate
        slow = self._slow[1]
        self.sleep(max(due, slow) - time.monotonic(), "rate" if due >= slow else "slow node")

    def take_back(self, rows: int) -> None:
        """Count out rows of chunks that are lost: they are read once more."""
        with self._counting:
            self.rows -= rows

    def spare(self, node: str, seconds: float) -> None:
        """Pause writes to a node that took this long to reply for the same time again."""
        self._slow = (f"{node} took {seconds:.1f} s to reply", time.monotonic() + min(seconds, SPARED))

    def sleep(self, seconds: float, reason: str = "") -> None:
        """Wait, but not beyond the end of the run; if there is a reason, the time is counted."""
        if seconds > 0:
            began = now = time.monotonic()
            while not self.stopped and (left := began + seconds - now) > 0:
                time.sleep(min(left, STEP))
                now = time.monotonic()
            if reason:
                with self._counting:
                    self._waited[reason] = self._waited.get(reason, 0.0) + now - began
        if self.stopped:
            raise Stopped("the run is stopping")

    def waited(self) -> dict[str, float]:
        """Seconds that all workers together have waited, by reason: rate, busy, slow node, lock, retry."""
        with self._counting:
            return dict(self._waited)

    def lapsed(self) -> LoaderError | None:
        """Why nothing may be written now; None while the lock is held."""
        return self.lock.lapsed()

    def grant(self) -> int:
        """How often the lock was granted."""
        return self.lock.grant()

    def confirm(self) -> None:
        """Raise a `LoaderError` unless the lock is held, for which Redis is asked."""
        self.lock.confirm()

    def hold(self, grant: int) -> None:
        """Make sure that the lock has been held since the grant of this number."""
        self.check()
        if self.grant() != grant:
            raise LoaderError("the lock lapsed and was reacquired in between", kind=Kind.UNAVAILABLE)

    def check(self) -> None:
        """Make sure that the lock is held."""
        if lapsed := self.lapsed():
            raise lapsed

    @property
    def stopped(self) -> bool:
        """Whether every worker must stop at its next buffer."""
        return self._stopped or self._halt.now

    def stop(self) -> None:
        """Stop every worker at its next buffer."""
        self._stopped = True
