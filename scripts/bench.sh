#!/usr/bin/env bash
# Measures what loading costs, on servers of its own: scripts/bench.sh [--quick | --rounds N] [--only NAME…]
# A full run takes half an hour on two cores and writes benchmarks/RESULTS.md; have nothing else run meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
PATH=$PWD/.venv/bin:$PATH
exec .venv/bin/python benchmarks/bench.py "$@"
