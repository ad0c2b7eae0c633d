#!/usr/bin/env bash
# Kills a master amid a load, fifty times, and compares every row after each: a quarter of an hour, servers of its own.
#
#     scripts/failover.sh [--kills N] [--rows R] [--seed S]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
exec .venv/bin/python tests/chaos/failover.py "$@"
