"""SIGINT and SIGTERM as requests to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loader.errors import Stopped


@contextmanager
def signals_heard(stop: Callable[[Stopped], None]) -> Iterator[None]:
    """Call `stop` when SIGINT or SIGTERM comes during the block; a second signal ends the process at once.

    Only the main thread hears signals: in any other, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hear(number: int, _: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        stop(Stopped.by(signal.Signals(number).name))

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
