"""SIGINT and SIGTERM as requests to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loader.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_heard(stop: Callable[[Stopped], None]) -> Iterator[None]:
    """Call `stop` when SIGINT or SIGTERM comes during the block; a second signal ends the process at once.

    One that comes as the block has just ended is left to who heard signals before. Only the main thread hears signals:
    in any other, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    is_over, late = False, list[int]()

    def hear(number: int, _: object) -> None:
        if is_over:
            late.append(number)
            return
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        stop(Stopped.by(signal.Signals(number).name))

    try:
        for number in SIGNALS:
            signal.signal(number, hear)
        yield
    finally:
        is_over = True
        for number, handler in before.items():
            signal.signal(number, handler)
        for missed in late:
            signal.raise_signal(missed)
