"""Limits on waiting for a server's answer, beside its own timeout, so that retries come to an end.

A caller sets a limit for everything its thread does in a block; code that waits for a server asks for it here.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf

from loader.records import dataclass

GRACE = 1.0  # seconds that a server has to answer when the time is up: a healthy one needs milliseconds
LEAST = 0.01  # seconds that are always left, because zero would mean for ever


@dataclass(frozen=True, slots=True)
class _Limit:
    """A limit on all waiting: a number of seconds at most, and no longer than until `ends`, plus the grace."""

    seconds: float
    ends: float
    grace: float
    outer: "_Limit | None"

    @property
    def end(self) -> float:
        """When everything must be over, whatever happens next."""
        own = inf if self.grace else self.ends
        return min(own, self.outer.end) if self.outer else own

    def allows(self, since: float) -> float:
        own = min(self.seconds, max(self.grace, self.ends - since))
        return min(own, self.outer.allows(since)) if self.outer else own


_limit: ContextVar[_Limit | None] = ContextVar("limit", default=None)


@contextmanager
def trying(seconds: float, ends: float = inf) -> Iterator[None]:
    """Limit each wait for an answer to this time, and all of them to `ends`, on the monotonic clock.

    Later work may go on: each wait has its own time, and after the end a little.
    """
    with _limited(seconds, ends, GRACE):
        yield


@contextmanager
def until(ends: float) -> Iterator[None]:
    """Make all waiting end at a moment of the monotonic clock."""
    with _limited(inf, ends, 0):
        yield


def allowed(usual: float, since: float | None = None) -> float:
    """Seconds that a server may be silent or take for a command, from a moment on (now by default); at most `usual`."""
    limit = _limit.get()
    if limit is None:
        return usual
    return min(usual, max(LEAST, limit.allows(time.monotonic() if since is None else since)))


def end() -> float:
    """When everything that this thread does must be over, on the monotonic clock."""
    limit = _limit.get()
    return limit.end if limit else inf


@contextmanager
def _limited(seconds: float, ends: float, grace: float) -> Iterator[None]:
    token = _limit.set(_Limit(seconds, ends, grace, _limit.get()))
    try:
        yield
    finally:
        _limit.reset(token)
