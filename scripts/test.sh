#!/usr/bin/env bash
# Every check of the project. Words after it go to pytest: scripts/test.sh -k lab
set -euo pipefail
cd "$(dirname "$0")/.."

# --matrix (other versions of Python, MySQL and Redis) goes here.

scripts/setup.sh dev
PATH=$PWD/.venv/bin:$PATH

step() {
  printf '\n== %s\n' "$*"
  "$@"
}

step ruff check .
step ruff format --check .
step mypy
step lint-imports
if command -v shellcheck >/dev/null; then
  step shellcheck scripts/*.sh .ci/run
fi
step pytest "$@"
