#!/usr/bin/env bash
# Measures what a sync of 1,000 changed rows among a million takes, the whole command: a minute, servers of its own.
#
#     scripts/incremental.sh [--rows R] [--changed C] [--rounds N]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
PYTHONPATH=tests/chaos exec .venv/bin/python benchmarks/incremental.py "$@"
