"""A paused job is not begun by a daemon that cannot ask whether it still is."""

from contextlib import contextmanager

import pytest

from loader.daemon.pauses import Pauses
from loader.errors import Kind, Paused, TargetError


class Redis:
    """A target that has one answer, or none."""

    def __init__(self):
        self.pause = None
        self.is_away = False

    @contextmanager
    def reach(self):
        if self.is_away:
            raise TargetError("redis a:1: Connection refused", kind=Kind.UNAVAILABLE)
        yield self

    def ask(self, key, *words):
        return "a:1", self.pause


def test_a_pause_holds_while_redis_is_away():
    """It is as it was last known: paused, or not; one that was never seen does not hold a run back."""
    redis, pauses = Redis(), Pauses()
    redis.is_away = True
    pauses.check("job", redis.reach)
    redis.is_away, redis.pause = False, b'{"since": 1800000000.0}'
    with pytest.raises(Paused, match="is paused since 2027"):
        pauses.check("job", redis.reach)
    redis.is_away = True
    with pytest.raises(Paused, match="as last known"):
        pauses.check("job", redis.reach)
    pauses.check("other", redis.reach)
    redis.is_away, redis.pause = False, None
    pauses.check("job", redis.reach)
    redis.is_away = True
    pauses.check("job", redis.reach)
