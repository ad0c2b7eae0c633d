"""The rows that a run has read, as the bar and the page show them."""

import threading

from loader.pipeline.throttle import Throttle


def test_rows_of_an_attempt_that_failed_count_once():
    """Each thread's attempts are its own; a chunk that is done stays counted."""
    throttle = Throttle()

    def load():
        throttle.attempt(again=False)
        throttle.pace(100)
        throttle.attempt(again=False)
        for again in (False, True, True):
            throttle.attempt(again=again)
            throttle.pace(10)
            throttle.pace(5)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert throttle.rows == 2 * 115


def test_rows_that_are_lost_are_counted_out():
    """They are counted again when they are read again."""
    throttle = Throttle()
    throttle.pace(10)
    throttle.take_back(10)
    throttle.attempt(again=False)
    throttle.pace(10)
    assert throttle.rows == 10
