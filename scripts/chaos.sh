#!/usr/bin/env bash
# Breaks everything at random while the loader works, and compares every row at the end; servers of its own.
#
#     scripts/chaos.sh [--minutes N] [--seed S] [--every SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
exec .venv/bin/python scripts/chaos.py "$@"
