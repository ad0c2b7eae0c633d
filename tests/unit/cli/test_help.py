"""The help: an example for each command, arguments as one types them, and no words of a library."""

import re

import pytest
from typer.main import get_command

from loader.cli.command_line import resuming, wants_document
from loader.cli.help import EXAMPLES
from loader.cli.main import app_of
from support.command import finish, start

ROOT = get_command(app_of())
COMMANDS = [
    f"{group} {name}" if group else name
    for group, each in (
        ("", ROOT),
        *((name, each) for name, each in ROOT.commands.items() if hasattr(each, "commands")),
    )
    for name, command in each.commands.items()
    if not hasattr(command, "commands")
]


def test_each_command_has_an_example():
    """No command is without one."""
    assert EXAMPLES.keys() == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_right(command):
    """An example is a command line that is understood."""
    words = EXAMPLES[command].partition(" >")[0].replace("'sid > 1000'", "x").split()[1:]
    words = words[2:] if words[0] == "-c" else words
    group = ROOT
    for name in command.split():
        group = group.commands[name]
    rest = words[len(command.split()) :]
    assert words[: len(command.split())] == command.split()
    group.make_context(command, rest, parent=ROOT.make_context("loader", ["check"])).close()


@pytest.mark.parametrize("columns", ["80", "60"])
def test_help_at_widths(columns):
    """It fits, no sentence is cut, and neither types nor braces of a library are in it."""
    for command in ["", "lab", "rejects", *COMMANDS]:
        shown = finish(start(*command.split(), "--help", COLUMNS=columns))
        assert shown.code == 0
        assert max(map(len, shown.out.splitlines())) <= int(columns)
        assert "..." not in re.sub(r"\](\.\.\.)|COMMAND \[ARGS\]\.\.\.|KEY\.\.\.", "", shown.out), command
        assert not re.search(r"<(?!auto|text|start)|\{(?!table|database|pk)|x>=|<=x|\[required\]", shown.out), command
        assert ("\nExample:\n  loader " in shown.out) is (command in COMMANDS)


def test_the_output_of_init_is_a_file(tmp_path):
    """-o and --output agree there too, and the name of a format is not taken for that of a file."""
    (tmp_path / "taken.yaml").touch()
    for flag in ("-o", "--output"):
        done = finish(start("init", flag, "taken.yaml", cwd=tmp_path))
        assert (done.code, done.err.startswith("error: taken.yaml exists")) == (2, True)
        done = finish(start("init", flag, "json", cwd=tmp_path))
        assert (done.code, done.err) == (
            2,
            "error: --output json: init writes a config, name its file: --output loader.yaml\n",
        )


@pytest.mark.parametrize(
    ("words", "environment", "wanted"),
    [
        ("get stu 5 -o json", {}, True),
        ("-c x.yaml get stu --output=json", {}, True),
        ("get stu -ojson", {}, True),
        ("get stu", {"LOADER_OUTPUT": "json"}, True),
        ("get stu -o text", {"LOADER_OUTPUT": "json"}, False),
        ("init -o json", {}, False),
        ("daemon", {"LOADER_OUTPUT": "json"}, False),
        ("get stu", {}, False),
    ],
)
def test_who_waits_for_a_document(words, environment, wanted):
    """A command line that asks for JSON, also if nothing else of it makes sense."""
    assert wants_document(words.split(), environment) is wanted


def test_how_to_resume():
    """The same words again, but for those that forget what is done."""
    words = ["backfill", "big", "--restart", "--where", "a > 1"]
    assert resuming(words) == "loader backfill big --where 'a > 1'"
