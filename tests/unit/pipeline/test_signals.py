"""SIGINT and SIGTERM as requests to stop, at any moment."""

import signal

import pytest

from loader.pipeline.signals import SIGNALS, signals_heard


@pytest.fixture
def outer():
    """Signals that whoever heard them before has heard."""
    heard = []
    before = {number: signal.signal(number, lambda number, _: heard.append(number)) for number in SIGNALS}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


def at_change(monkeypatch, moment):
    """Have SIGTERM come right after a handler was set, the first or a later one."""
    real, count = signal.signal, iter(range(100))

    def change(number, handler):
        before = real(number, handler)
        if next(count) == moment:
            signal.raise_signal(signal.SIGTERM)
        return before

    monkeypatch.setattr(signal, "signal", change)


def test_a_signal_in_the_block(outer):
    """It is a request to stop, and the handlers of before are there again afterwards."""
    stops, done = [], []
    with signals_heard(stops.append):
        signal.raise_signal(signal.SIGTERM)
        assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_DFL] * 2
        done.append("the rest")
    assert [str(stop) for stop in stops] == ["stopped by SIGTERM"]
    signal.raise_signal(signal.SIGINT)
    assert (done, outer) == (["the rest"], [signal.SIGINT])


@pytest.mark.parametrize(
    ("moment", "stopped", "left"),
    [
        (0, 0, 1),  # SIGINT is heard, SIGTERM not yet
        (1, 1, 0),  # both are
        (2, 0, 1),  # the block is over, and SIGINT as before
        (3, 0, 1),  # both are
    ],
)
def test_a_signal_as_the_block_begins_or_ends(outer, monkeypatch, moment, stopped, left):
    """It is heard once, in the block or by whoever heard signals before, and nothing else comes of it."""
    stops, done = [], []
    at_change(monkeypatch, moment)
    with signals_heard(stops.append):
        done.append("the block")
    assert (len(stops), outer, done) == (stopped, [signal.SIGTERM] * left, ["the block"])
