"""The words of a command line before anything that reads them is imported."""

import os
import subprocess
import sys
from functools import partial

import pytest

from loader.cli.command_line import command_of

LATE = """
import atexit
from loader.cli import entry, main
atexit.register(print, "as modules are taken apart")
made = main.app_of
main.app_of = lambda command: (atexit.register(print, "late"), made(command))[1]
entry.main()
"""


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("", ""),
        ("--help", ""),
        ("follow stu", "follow"),
        ("-c daemon sync follow", "sync"),
        ("--config=daemon --no-color daemon", "daemon"),
        ("--log-format json --log-level debug follow --all", "follow"),
        ("-c", ""),
        ("-h sync", ""),
        ("--no-color --help sync", ""),
    ],
)
def test_the_command(words, command):
    """Options before it, and their values, are not it; help before it is of all commands."""
    assert command_of(words.split()) == command


@pytest.mark.parametrize(
    ("words", "code"), [("--version", 0), ("sync --nothing", 2), ("nothing", 2), ("-c /nowhere.yaml check", 2)]
)
def test_the_end(words, code):
    """The process ends with its code, after the exit handlers of the command: what they print is read."""
    run = partial(subprocess.run, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    plain = run([sys.executable, "-m", "loader", *words.split()])
    done = run([sys.executable, "-c", LATE, *words.split()])
    assert (plain.returncode, bool(plain.stdout or plain.stderr)) == (code, True)
    assert (done.returncode, done.stdout) == (code, plain.stdout + "late\n")
