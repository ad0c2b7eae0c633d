#!/usr/bin/env bash
# Plants the faults of tests/mutants/planted.py into copies of the package, one at a time: each must be noticed by a test.
#
#     scripts/mutants.sh [--list] [--jobs N] [WORD…]    # those whose name or file holds one of the words
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh dev
exec .venv/bin/python tests/mutants/run.py "$@"
