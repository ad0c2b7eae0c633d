"""The compiled scanner of binlog packets is the plain one's twin, whatever the packets are."""

from fuzz_binlog import Maker, Runner

from loader.wire import _binlog

INPUTS = 15_000


def test_the_twins_agree():
    """Keys, positions and errors are the same, of whole transactions and of broken ones alike."""
    maker, runner = Maker(7), Runner(7, _binlog.KeyScanner)
    for number in range(INPUTS):
        runner.run(maker.case(number))
    assert runner.keys > INPUTS // 20
    assert INPUTS // 10 < runner.refused < INPUTS
