#!/usr/bin/env bash
# Measures what changed_only saves on a million rows and what its digests take: two minutes, servers of its own.
#
#     scripts/changed.sh [--rows R] [--rounds N]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
PYTHONPATH=tests/chaos exec .venv/bin/python benchmarks/changed.py "$@"
