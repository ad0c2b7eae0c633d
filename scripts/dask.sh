#!/usr/bin/env bash
# Loads two million rows by a Dask cluster that loses a worker and its client, compares every row, and measures workers.
#
#     scripts/dask.sh [--rows R]    # two minutes, servers of its own
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh dev
exec .venv/bin/python tests/chaos/dask_cluster.py "$@"
