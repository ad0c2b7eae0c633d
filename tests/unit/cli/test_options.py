"""The options of the command line: each is an environment variable, and those of a group stand once."""

from dataclasses import fields

import pytest
import typer
from typer.main import get_command

from loader.cli.main import app_of
from loader.cli.options import Every, ReadOptions, ShareOptions, grouped, load_limit, percent, shard_numbers

COMMANDS = get_command(app_of()).commands


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in {"lab", "rejects"}])
def test_each_option_is_an_environment_variable(command):
    """`--dry-run` is LOADER_DRY_RUN, of each command."""
    options = [each for each in COMMANDS[command].params if each.param_type_name == "option"]
    for option in options:
        name = next(flag for flag in option.opts if flag.startswith("--")).removeprefix("--")
        if not (name == "help" or (command, name) == ("init", "output")):
            assert option.envvar == f"LOADER_{name.upper().replace('-', '_')}"


def test_sync_and_backfill_share_options():
    """Both commands take the options of both groups, under the same names and with the same help."""
    names = {each.name for group in (ReadOptions, ShareOptions) for each in fields(group)}
    found = [
        {each.name: (each.opts, each.help) for each in COMMANDS[command].params if each.name in names}
        for command in ("sync", "backfill")
    ]
    assert found[0] == found[1]
    assert found[0].keys() == names


def test_a_command_is_called_with_its_groups():
    """A group's options stand where the group does, and come as one value."""
    called = []
    one = typer.Typer()

    @one.command()
    @grouped
    def load(*, every: Every = False, reading: ReadOptions, sharing: ShareOptions):
        called.append((every, reading, sharing))

    arguments = ["--range", "1:5", "--workers", "3", "--all", "--shard", "1/4"]
    get_command(one).main(arguments, standalone_mode=False)
    assert called == [(True, ReadOptions(key_range="1:5", workers=3), ShareOptions(shard="1/4"))]
    assert [each.name for each in get_command(one).params][:2] == ["every", "dry_run"]


def test_values():
    """Percentages, shards and limits are read as they are typed; nothing is nothing."""
    assert (percent("5%"), percent("2.5")) == (5.0, 2.5)
    assert (shard_numbers("1/4"), shard_numbers(None)) == ((1, 4), None)
    assert (load_limit("Threads_running=25"), load_limit(None)) == (("Threads_running", 25), None)
