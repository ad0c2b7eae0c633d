#!/usr/bin/env bash
# Kills a backfill of a million rows twenty times, resumes it, and compares every row: some minutes, servers of its own.
#
#     scripts/kill.sh [--kills N] [--rows R] [--seed S] [--chunk-rows C] [--workers W]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
exec .venv/bin/python tests/chaos/kill.py "$@"
