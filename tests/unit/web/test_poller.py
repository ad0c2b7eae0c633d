"""Answers that are fetched while somebody is looking."""

import time

import pytest

from loader.web.poller import AGAIN, REST, CachedPoll


@pytest.mark.parametrize(("seconds", "rest"), [(0.0, 0.01), (0.05, 0.05 * REST), (0.7, AGAIN)])
def test_what_takes_long_is_fetched_less_often(seconds, rest):
    """So that looking at thousands of jobs leaves the daemon its time."""
    poll = CachedPoll(lambda: time.sleep(seconds), 0.01)
    poll.get(5)
    poll.stop()
    assert rest - 0.3 <= poll._wait() <= rest * 1.5
