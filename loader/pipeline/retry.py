"""Retries of transient failures: with growing pauses, for as long as the job allows."""

import random
import time
from collections.abc import Callable
from math import inf
from typing import TypeVar

from loader.config.models import DEADLINE as JOB_DEADLINE
from loader.errors import LoaderError, Retry
from loader.model import Chunk, ChunkLoaded, Waiting
from loader.net import limit
from loader.pipeline.throttle import Throttle

T = TypeVar("T")

DEADLINE = float(JOB_DEADLINE)  # default seconds of retrying
BRIEFLY = 2.0  # seconds of retrying while a person is waiting, before or after the rows
FRESH = 20  # most restarts of work that made progress: a chunk that took longer than the deadline, or was lost
SILENT = 2.0  # seconds that a server may be silent at least, however short the deadline
PAUSE_FIRST, PAUSE_MOST = 0.1, 1.0  # seconds between two attempts, doubling: a server that is back is noticed soon
Event = ChunkLoaded | Waiting
Notify = Callable[[Event], None]


def ignore(_: Event) -> None:
    """Nobody waits for events."""


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row: growing, up to `PAUSE_MOST`, and a bit random."""
    return min(PAUSE_MOST, PAUSE_FIRST * 2.0 ** min(failures - 1, 9)) * random.uniform(0.5, 1)  # noqa: S311  # not for secrets


def retry_transient(
    action: Callable[[], T],
    patience: float,
    throttle: Throttle,
    chunk: Chunk | None = None,
    notify: Notify = ignore,
    moved: Callable[[], float] = lambda: 0.0,
    *,
    settling: float = 0.0,
    bearing: float = 0.0,
) -> T:
    """Do it, and retry transient failures after growing pauses, for `patience` seconds from the first failure.

    A silent server has failed since it fell silent, and half of that time is enough to decide; if there is less
    patience than a server needs, `bearing` counts. A failure of an attempt that made progress for longer than the
    patience counts as a first failure again; `moved` says until when it made progress: waiting without an answer does
    not count. Failures that the cluster is about to settle have `settling` seconds.
    """
    failing = began = time.monotonic()
    give_up = inf
    silence = max(SILENT, max(patience, bearing) / 2)
    attempt = fresh = 0
    while True:
        started = time.monotonic()
        try:
            with limit.trying(silence, give_up):
                done = action()
        except LoaderError as error:
            attempt += 1
            pause = pause_after(attempt)
            now = time.monotonic()
            if throttle.failure:
                raise throttle.failure from error
            if attempt == 1 or moved() - started > patience:
                failing, fresh = now - error.waited, fresh + 1
                give_up = failing + patience
            if error.retry is Retry.BRIEFLY:
                give_up = min(give_up, failing + BRIEFLY)
            if error.retry is Retry.WHILE_SETTLING:
                give_up = max(give_up, began + settling)
            if not error.transient or now + pause > min(give_up, limit.end()) or fresh > FRESH:
                error.waited = now - failing  # for the caller that retries
                raise
            if not chunk:
                throttle.trouble = str(error)
            notify(Waiting(chunk, attempt, pause, str(error), error.node))
        else:
            throttle.trouble = ""
            return done
        throttle.sleep(pause, "lock" if throttle.lapsed() else "retry")
