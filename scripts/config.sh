#!/usr/bin/env bash
# Measures how long `loader check` takes with one job, 345 and 10,000.
#
#     scripts/config.sh [JOBS…] [--times N]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
PYTHONPATH=tests exec .venv/bin/python benchmarks/config.py "$@"
