#!/usr/bin/env bash
# Measures how fast a job is followed: ten minutes, servers of its own; have nothing else run meanwhile.
#
#     scripts/follow.sh [--rows R] [--seconds S]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
PYTHONPATH=tests/chaos exec .venv/bin/python benchmarks/follow.py "$@"
