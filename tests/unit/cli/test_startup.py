"""What commands import before they do anything: it is most of the time of a short one."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        (
            "loader.cli.main",
            {
                "pymysql",
                "redis",
                "structlog",
                "apscheduler",
                "zstandard",
                "loader.config.models",
                "importlib.metadata",  # it takes a quarter of the time of --help
            },
        ),
        ("loader.jobs.execute", {"structlog", "rich", "apscheduler", "starlette", "zstandard", "loader.mysql.binlog"}),
    ],
)
def test_what_is_not_imported(module, unwanted):
    """`--help` knows neither driver, and a sync nothing of the binlog."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert unwanted & set(done.stdout.split()) == set()
