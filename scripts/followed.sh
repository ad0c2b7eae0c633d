#!/usr/bin/env bash
# Kills the follower, masters and MySQL while a table is followed, and compares every row: five minutes, servers of its own.
#
#     scripts/followed.sh [--rows R] [--kills N] [--failovers N] [--restarts N]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
PYTHONPATH=tests/chaos exec .venv/bin/python tests/chaos/followed.py "$@"
