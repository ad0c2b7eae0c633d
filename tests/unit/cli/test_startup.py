"""What commands import before they do anything: it is most of the time of a short one."""

import subprocess
import sys

import pytest

LIBRARIES = {"pymysql", "redis", "pydantic", "structlog", "apscheduler", "zstandard"}
COMMANDS = {f"loader.cli.{name}" for name in ("daemon", "doctor", "follow", "init.command", "lab", "status", "verify")}
RUN = """
import sys
from loader.cli import entry, main
def app_of(command):
    made(command)
    {code}
    print(*sys.modules)
    return lambda **_: sys.exit()
made, main.app_of = main.app_of, app_of
sys.argv[1:] = ["{command}"]
entry.main()
"""
SYNC = """
    import loader.jobs.execute, loader.jobs.expand, loader.jobs.together, loader.report.log, loader.report.progress
    loader.report.log.Log("json", "info", False).logger().info("a line")
    import loader.config.nodes
    loader.config.nodes.compose("a: b")
"""


def modules_after(command, code):
    code = RUN.format(command=command, code=code.strip())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("command", "code", "unwanted"),
    [
        (
            "",
            "",
            LIBRARIES | {"loader.config.models", "email.message"},
        ),
        (
            "sync",
            SYNC,
            COMMANDS
            | {"rich", "apscheduler", "starlette", "zstandard", "ruamel", "loader.mysql.binlog", "distributed"}
            | {"redis.asyncio", "redis.client", "redis.cluster", "redis.commands"}  # redis-py but for its connections
            | {"cryptography.hazmat", "twisted", "greenlet", "email.message"}
            | {"asyncio.base_events", "loader.jobs.prune", "structlog.dev"},
        ),
    ],
    ids=["help", "sync"],
)
def test_what_is_not_imported(command, code, unwanted):
    """`--help` knows neither driver, and a sync only the parts of its libraries that it uses."""
    assert modules_after(command, code) & unwanted == set()


def test_the_number_of_modules():
    """Each takes half a millisecond, whatever it is for; a hundred more were imported when nobody counted them."""
    assert len(modules_after("sync", SYNC)) < 540
