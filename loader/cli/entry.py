"""The entry of `loader`: signals mean from the first moment on what they mean later; the rest is imported then."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

UNTIL_STOPPED = frozenset({"daemon", "follow"})  # commands that run until they are stopped: that is a good end
VALUED = frozenset({"-c", "--config", "--log-format", "--log-level"})  # options before a command that have a value


def main() -> NoReturn:
    """Run the command line, which takes most of a second to import."""
    is_until_stopped = command_of(sys.argv[1:]) in UNTIL_STOPPED
    if is_until_stopped:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)
    from loader.cli.main import main as run

    run(hears=is_until_stopped)


def command_of(words: Sequence[str]) -> str:
    """The command among the words of a command line; empty if there is none."""
    rest = iter(words)
    for word in rest:
        if word in VALUED:
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return ""


def _leave(number: int, frame: object) -> NoReturn:  # noqa: ARG001  # as the handler of a signal is called
    """End at once: nothing has begun that would have to be ended well."""
    os._exit(0)
