#!/usr/bin/env bash
# Cuts the connections of a load after every single byte, in both directions, on both sides: a few minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh dev
exec .venv/bin/pytest tests/integration/test_cuts.py -k n1 --every-byte "$@"
