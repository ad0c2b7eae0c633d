"""An alarm rings once, at the time it was last set to."""

import threading
import time

import pytest

from loader.daemon.alarms import AlarmClock
from loader.lab.process import wait


@pytest.fixture
def clock():
    """A clock of alarms that is running."""
    lock = threading.RLock()
    made = AlarmClock(lock)
    made.lock = lock
    made.start()
    yield made
    made.stop()


def test_an_alarm_that_is_late_rings_at_once_and_in_turn(clock):
    """A time that has passed is no reason to be silent; each rings once."""
    rang = []
    for number in range(3):
        with clock.lock:
            clock.alarm(lambda number=number: rang.append(number)).set(time.time() - 3 + number)
    wait(lambda: len(rang) == 3, "the alarms")
    time.sleep(0.2)
    assert sorted(rang) == [0, 1, 2]


@pytest.mark.parametrize("then", ["set", "cancel"])
def test_an_alarm_that_was_handed_over_does_not_ring_if_it_is_changed_first(clock, then):
    """Its call waits for the lock; who holds that may still set it to another time, or cancel it."""
    rang = []
    alarm = clock.alarm(lambda: rang.append(time.time()))
    with clock.lock:
        alarm.set(time.time())
        time.sleep(0.3)  # it is handed over, and waits
        later = time.time() + 0.5
        alarm.set(later) if then == "set" else alarm.cancel()
    time.sleep(0.2)
    assert rang == []
    if then == "set":
        wait(lambda: rang, "the alarm")
        assert rang[0] >= later
    assert alarm.at is None


def test_an_alarm_sets_itself_again_from_its_own_call(clock):
    """However fast: no call is lost, and whoever sets alarms meanwhile does not block the clock."""
    rang = []

    def ring():
        rang.append(time.time())
        if len(rang) < 200:
            alarm.set(time.time() - 1)

    alarm, others = clock.alarm(ring), [clock.alarm(lambda: None) for _ in range(20)]
    with clock.lock:
        alarm.set(time.time())
    while len(rang) < 200:
        for other in others:
            with clock.lock:
                other.set(time.time())
    assert len(rang) == 200


def test_the_clock_shows_that_it_works(clock):
    """Each probe is answered by the thread that rings, so one that hangs is noticed."""
    with clock.lock:
        before = time.monotonic()
        clock.probe()
        time.sleep(0.2)
        assert clock.turned < before
    wait(lambda: clock.turned > before, "the answer")
