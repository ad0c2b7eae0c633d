#!/usr/bin/env bash
# Every check of the project. Words after it go to pytest: scripts/test.sh -k lab
# With --matrix before them, the tests are repeated on the newest MySQL, Redis and Valkey.
set -euo pipefail
cd "$(dirname "$0")/.."

matrix=
if [ "${1:-}" = --matrix ]; then
  matrix=yes
  shift
fi

scripts/setup.sh dev
PATH=$PWD/.venv/bin:$PATH

step() {
  printf '\n== %s\n' "$*"
  "$@"
}

step ruff check .
step ruff format --check .
step mypy
step lint-imports --no-cache # by their times, files that git wrote in the same second look unchanged
if command -v shellcheck >/dev/null; then
  step shellcheck scripts/*.sh docker/*.sh tests/containers/images/*.sh .ci/run
fi
# The tests of a file share their servers, and mostly wait for them: four workers keep two cores busy.
step pytest -n 4 --dist loadfile --no-loadscope-reorder "$@"
if [ -n "$matrix" ]; then
  step scripts/matrix.sh "$@"
fi
