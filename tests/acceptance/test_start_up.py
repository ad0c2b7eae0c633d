"""A command that is stopped while it starts."""

import signal
from pathlib import Path

import pytest

from loader.lab.process import wait
from support.command import STU, Desk, finish, start
from support.daemons import daemon


def hears(process):
    """Whether a process hears SIGTERM, according to Linux."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def reads_its_config(process):
    """Whether a process has imported what it reads its config with."""
    return "pydantic_core" in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", [["follow", "stu"], ["-c", "loader.yaml", "daemon"]])
@pytest.mark.parametrize("moment", [hears, reads_its_config])
def test_a_signal_at_once(words, number, moment, tmp_path):
    """A command that runs until it is stopped ends well, however early that is."""
    config = tmp_path / "loader.yaml"
    config.write_text("# slow to read\n" * 100_000, encoding="utf-8")
    process = start(*words, cwd=tmp_path)
    wait(lambda: process.poll() is not None or moment(process), "the moment")
    process.send_signal(number)
    ended = finish(process)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", [["sync", "stu"], ["status"]])
def test_any_command_at_once(words, number, tmp_path):
    """Any other command says which signal stopped it, and ends with its code, while it is still being imported."""
    process = start(*words, cwd=tmp_path)
    wait(lambda: process.poll() is not None or hears(process), "the moment")
    process.send_signal(number)
    ended = finish(process)
    assert (ended.code, ended.out, ended.err) == (128 + number, "", f"error: stopped by {number.name}\n")


def test_a_reload_at_once(world, tmp_path):
    """SIGHUP does not end a daemon that starts; it reads its config again as soon as it can."""
    desk = Desk(world, tmp_path)
    desk.write({"stu": STU["stu"] | {"schedule": {"every": "1h"}}})
    with daemon(desk) as running:
        wait(lambda: running.process.poll() is not None or hears(running.process), "the moment")
        running.send(signal.SIGHUP)
        running.until("config reloaded")
        assert running.end()[1] == 0
