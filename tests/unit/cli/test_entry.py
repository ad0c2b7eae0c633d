"""The words of a command line before anything that reads them is imported."""

import pytest

from loader.cli.entry import command_of


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
    ],
)
def test_the_command(words, command):
    """Options before it, and their values, are not it."""
    assert command_of(words.split()) == command
