"""Answers that are fetched while somebody is looking."""

import time

from loader.web.poller import AGAIN, CachedPoll


def test_what_takes_long_is_fetched_less_often():
    """So that looking at thousands of jobs leaves the daemon its time; what is quick stays fresh."""
    slow, quick = CachedPoll(lambda: time.sleep(0.7), 0.01), CachedPoll(lambda: None, 0.01)
    assert (slow.get(5), quick.get(5)) == (None, None)
    assert 1 < slow._wait() <= AGAIN
    assert quick._wait() < 1
    slow.stop()
    quick.stop()
