"""What commands import before they do anything: it is most of the time of a short one."""

import subprocess
import sys

import pytest

LIBRARIES = {"pymysql", "redis", "pydantic", "structlog", "apscheduler", "zstandard"}
COMMANDS = {f"loader.cli.{name}" for name in ("daemon", "doctor", "follow", "init.command", "lab", "status", "verify")}
SYNC = """
import loader.cli.main
loader.cli.main.app_of("sync")
import loader.jobs.execute, loader.jobs.expand, loader.jobs.together, loader.report.log, loader.report.progress
loader.report.log.Log("json", "info", False).logger().info("a line")
"""


def modules_after(code):
    said = "import os; print(*sys.modules, file=os.fdopen(1, 'w'))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{said}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        (
            "import loader.cli.main; loader.cli.main.app_of()",
            LIBRARIES | {"loader.config.models", "importlib.metadata"},  # a quarter of the time of --help
        ),
        (
            SYNC,
            COMMANDS
            | {"rich", "apscheduler", "starlette", "zstandard", "ruamel", "loader.mysql.binlog"}
            | {"redis.asyncio", "redis.client", "redis.cluster", "redis.commands"}  # redis-py but for its connections
            | {"cryptography.hazmat", "twisted", "greenlet"},
        ),
    ],
    ids=["help", "sync"],
)
def test_what_is_not_imported(code, unwanted):
    """`--help` knows neither driver, and a sync only the parts of its libraries that it uses."""
    assert modules_after(code) & unwanted == set()


def test_the_number_of_modules():
    """Each takes half a millisecond, whatever it is for; a hundred more were imported when nobody counted them."""
    assert len(modules_after(SYNC)) < 540
