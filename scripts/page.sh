#!/usr/bin/env bash
# Measures the status page with 200 jobs and 50 runs of each, and whether looking at it slows the daemon's own work.
#
#     scripts/page.sh [--jobs N] [--parts N] [--pairs N]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
PYTHONPATH=tests/chaos exec .venv/bin/python benchmarks/page.py "$@"
