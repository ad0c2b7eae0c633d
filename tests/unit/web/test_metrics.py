"""What Prometheus is told."""

import re
import time

from loader.model import FollowBegan, FollowProgress
from loader.web.metrics import FollowMetrics, Metrics


def test_what_is_followed():
    """Up to when changes are in Redis is told by job; a follower that begins again counts on."""
    metrics = Metrics()
    metrics.keep({"a": None})
    for _ in range(2):
        listener = FollowMetrics(metrics)
        listener.notify(FollowBegan(("a", "gone"), "0-1-5"))
        listener.notify(FollowProgress(lag=2.0, changes_by_job={"a": 5, "gone": 9}, keys_by_job={"a": 3}))
        listener.notify(FollowProgress(lag=100.0, lag_bytes=9, changes_by_job={"a": 7}, keys_by_job={"a": 4}))

    text = metrics.render().decode()
    assert 'loader_followed_changes_total{job="a"} 14.0' in text
    assert 'loader_followed_keys_total{job="a"} 8.0' in text
    assert 'loader_followed_lag_bytes{job="a"} 9.0' in text
    ((job, moment),) = re.findall(r'^loader_followed_timestamp_seconds\{job="(\w+)"\} (\S+)$', text, re.MULTILINE)
    assert (job, abs(time.time() - 100 - float(moment)) < 5) == ("a", True)
