"""The bar of a job: one at a time is on the terminal."""

from loader.pipeline.throttle import Throttle
from loader.report import progress
from loader.report.log import Log


def test_a_bar_rests_while_others_go_on(monkeypatch):
    """It is back with the next word of its job, but not once that is over."""
    drawn = []

    class Line:
        def __init__(self, *_, **__):
            drawn.append(self)

        def stop(self):
            drawn.remove(self)

    monkeypatch.setattr(progress, "LiveLine", Line)
    shows = progress.Reporter("stu", "bar", Log("console", "info", color=False))
    seen = [len(drawn)]
    for said in (
        shows.rest,
        lambda: shows.count(5),
        shows.rest,
        lambda: shows.expect(9, Throttle()),
        lambda: shows.count(6),
        shows.close,
        lambda: shows.count(7),
    ):
        said()
        seen.append(len(drawn))
    assert seen == [1, 0, 1, 0, 1, 1, 0, 0]
