#!/usr/bin/env bash
# Writes docs/reference/ and the man page again from the code and the help texts.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
exec .venv/bin/python scripts/reference.py
