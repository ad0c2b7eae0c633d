#!/usr/bin/env bash
# Breaks everything at random while the loader works, and compares every row at rest; servers of its own.
#
#     scripts/chaos.sh [--minutes N] [--seed S] [--every SECONDS] [--rest FAULTS]
#     scripts/chaos.sh --prove    # plants known faults in a copy of the loader, and finds them
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
exec .venv/bin/python tests/chaos/chaos.py "$@"
