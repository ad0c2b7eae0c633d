"""The entry of `loader`: signals mean from the first moment on what they mean later; the rest is imported then."""

import atexit
import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from loader.cli.command_line import command_of
from loader.cli.libraries import prepare

UNTIL_STOPPED = frozenset({"daemon", "follow"})  # commands that run until they are stopped: that is a good end
GARBAGE = 150_000  # objects between two collections, instead of 700: a twentieth less time, as imports leave no garbage
NO_PLUGINS = ("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it looks for some in each installed package


def main() -> NoReturn:
    """Run the command line, which takes most of the time of a short one to import; end as soon as it has."""
    command, codes = command_of(sys.argv[1:]), list[int]()
    atexit.register(_leave_with, codes)  # the first one is the last to be called
    gc.set_threshold(GARBAGE)
    os.environ.setdefault(*NO_PLUGINS)
    prepare()
    is_until_stopped = command in UNTIL_STOPPED
    if command == "daemon":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # until the daemon can read its config again
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave if is_until_stopped else _break_off)
    from loader.cli.main import main as run

    try:
        run(command, hears=is_until_stopped)
    except SystemExit as end:
        codes += [end.code] if isinstance(end.code, int) else []
        raise


def _leave(number: int, frame: object) -> NoReturn:  # noqa: ARG001  # as the handler of a signal is called
    """End at once: nothing has begun that would have to be ended well."""
    os._exit(0)


def _leave_with(codes: Sequence[int]) -> None:
    """End the process, if it ends with a code: to take all modules apart, one by one, takes as long as to load a table.

    The threads that are waited for have ended, and all other exit handlers were called.
    """
    for code in codes:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it, or it is closed
                stream.flush()
        os._exit(code)


def _break_off(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    """End at once, in the words and with the code that a stopped command has later."""
    with suppress(OSError):
        os.write(2, f"error: stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)
