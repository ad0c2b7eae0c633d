#!/usr/bin/env bash
# Loads 2,000 tables of any kind from a server that is set up in any way, and compares each with a reader of its own.
#
#     scripts/tables.sh [--tables N] [--table FIRST]    # a finding names the number of its table
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh dev
exec .venv/bin/pytest tests/integration/test_tables.py --tables 2000 "$@"
