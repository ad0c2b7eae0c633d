"""Measures how long `loader check` takes with many jobs, all of it, and with a fault in the last of them."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from support.many_jobs import many_jobs


def seconds(file: Path, code: int) -> float:
    """How long one check takes."""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "loader", "-c", str(file), "check"], capture_output=True, check=False)
    assert done.returncode == code, done.stderr.decode()
    return time.monotonic() - begun


def main() -> None:
    """Print the median of some checks for each number of jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="*", type=int, default=[1, 345, 10_000])
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "loader.yaml"
        for jobs in options.jobs:
            text = many_jobs(jobs)
            for what, more, code in (("right", "", 0), ("with a fault", "    no_key: 1\n", 2)):
                file.write_text(text + more, encoding="utf-8")
                took = median(seconds(file, code) for _ in range(options.times))
                print(f"{jobs:>6,} jobs, {what}: {took:.2f} s")


if __name__ == "__main__":
    main()
