"""What Prometheus' own checker says; it is not on every machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=Path(__file__).parents[2] / ".venv" / "bin")
wanted = pytest.mark.skipif(not PROMTOOL, reason="promtool is not on this machine, and could not be had from apt")


def promtool(*words, text=None, cwd=None):
    """What is wrong; empty where nothing is."""
    done = subprocess.run(
        [PROMTOOL, *words], input=text, cwd=cwd, capture_output=True, check=False, encoding="utf-8", timeout=60
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
