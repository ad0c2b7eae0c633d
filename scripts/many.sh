#!/usr/bin/env bash
# Measures 345 tiny tables in one config: each command, and a daemon that runs all of them every five seconds.
#
#     scripts/many.sh [--tables N] [--rounds N] [--every S] [--seconds S] [--only commands|daemon]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
PYTHONPATH=tests/chaos exec .venv/bin/python benchmarks/many.py "$@"
