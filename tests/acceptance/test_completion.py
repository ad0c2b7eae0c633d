"""Shells complete what is typed: jobs from the config, servers of the lab; no server is asked for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loader.lab.lab import Lab

BIN = Path(sys.executable).parent
BASH = """\
eval "$(_LOADER_COMPLETE=source_bash loader)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_loader_completion "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""
# Where nobody listens: who asked would not have an answer within a second.
CONFIG = """\
version: 1
source: {url: "mysql://u@192.0.2.1/test", password: "${NOT_SET}"}
target: {url: "redis://192.0.2.1"}
jobs:
  orders: {table: orders}
  order-lines: {table: lines}
  stu: {table: stu}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LOADER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(BIN), prepend=os.pathsep)
    return tmp_path


def ask(*command, **environment):
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def bash(*words, **environment):
    """What bash would offer for the last word."""
    return ask("bash", "--norc", "-c", BASH, "bash", "loader", *words, **environment).split()


def test_commands_and_options():
    """Commands are completed, and options."""
    assert bash("back") == ["backfill"]
    assert bash("sync", "--max-l") == ["--max-load", "--max-lag"]


def test_jobs_are_those_of_the_config_that_would_be_used(here):
    """Named by -c, by $LOADER_CONFIG, or found: for each command that takes one."""
    (here / "loader.yaml").write_text(CONFIG)
    (here / "more.yaml").write_text("jobs: {more: {table: more}}")
    for command in ("sync", "backfill", "verify", "status", "get"):
        assert bash(command, "o") == ["orders", "order-lines"]
    assert bash("rejects", "retry", "s") == ["stu"]
    assert bash("sync", "stu", "--all", "s") == ["stu"]
    assert bash("-c", "more.yaml", "sync", "") == ["more"]
    assert bash("-c", "loader.yaml", "-c", "more.yaml", "sync", "") == ["orders", "order-lines", "stu", "more"]
    assert bash("sync", "", LOADER_CONFIG="more.yaml") == ["more"]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "jobs: [",
        "jobs: [stu]",
        "jobs: stu",
        "version: 1",
        "\0",
        'jobs: {"`touch made`": {}, "$(touch made)": {}, "a b": {}, "two\\nlines": {}, "stu\\n": {}}',
    ],
)
def test_a_broken_config_completes_nothing(here, text):
    """It is no time to complain; and no name is offered that a shell could take for a command."""
    if text is not None:
        (here / "loader.yaml").write_text(text)
    assert bash("sync", "") == []
    assert ask("loader", _LOADER_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="loader sync ") == "_files\n"
    assert bash("-c", "/", "sync", "") == []


def test_lab_nodes(here, monkeypatch):
    """The servers are those of the lab's directory; without a lab there are none."""
    assert bash("lab", "kill", "") == []
    lab = Lab(here / ".lab")
    (here / ".lab").mkdir()
    (here / ".lab" / "lab.json").write_text('{"ready": true, "servers": [{"name": "mysql"}, {"name": "n1"}]}')
    assert lab.names == ["mysql", "n1"]
    assert bash("lab", "kill", "") == bash("lab", "start", "") == ["mysql", "n1"]
    assert bash("lab", "add-replica", "--master", "n") == ["n1"]
    monkeypatch.chdir("/")
    assert bash("lab", "kill", "--dir", str(here / ".lab"), "m") == ["mysql"]
    assert bash("lab", "kill", "m", LOADER_LAB_DIR=str(here / ".lab")) == ["mysql"]
    (here / ".lab" / "lab.json").write_text("{")
    assert bash("lab", "kill", "--dir", str(here / ".lab"), "") == []


def test_zsh_and_fish(here):
    """They ask in other variables; each has a script of its own."""
    (here / "loader.yaml").write_text(CONFIG)
    asked = {"_TYPER_COMPLETE_ARGS": "loader sync o"}
    assert ask("loader", _LOADER_COMPLETE="complete_zsh", **asked) == '_arguments \'*: :(("orders"\n"order-lines"))\'\n'
    fish = {"_LOADER_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert ask("loader", **fish, **asked) == "orders\norder-lines\n"
    assert "compdef _loader_completion loader" in ask("loader", _LOADER_COMPLETE="source_zsh")
    assert "complete --command loader" in ask("loader", _LOADER_COMPLETE="source_fish")


def test_completion_is_quick(here):
    """An answer takes less than half a second, with two hundred jobs too; it needs no validation."""
    jobs = "".join(f"  job{number}: {{table: stu, key: 'stu{number}_{{sid}}'}}\n" for number in range(200))
    (here / "loader.yaml").write_text(CONFIG + jobs)
    taken = []
    for _ in range(3):
        began = os.times()
        offered = ask("loader", _LOADER_COMPLETE="complete_bash", COMP_WORDS="loader sync job", COMP_CWORD="2")
        ended = os.times()  # of the processor, which others may be using
        taken.append(ended.children_user + ended.children_system - began.children_user - began.children_system)
        assert len(offered.split()) == 200
    assert min(taken) < 0.5
