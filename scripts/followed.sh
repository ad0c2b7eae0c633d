#!/usr/bin/env bash
# Kills the follower, masters and MySQL while a table is followed, cuts the network, and compares every row.
# Six minutes, servers of its own; to cut a network takes root.
#
#     scripts/followed.sh [--rows R] [--kills N] [--failovers N] [--restarts N]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
PYTHONPATH=tests/chaos exec .venv/bin/python tests/chaos/followed.py "$@"
