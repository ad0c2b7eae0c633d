#!/usr/bin/env bash
# Runs twenty jobs for ten minutes beside a workload, with two failovers, and checks every slot, row and byte of memory.
#
#     scripts/daemon.sh [--minutes N] [--seed S]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
exec .venv/bin/python tests/chaos/daemon.py "$@"
