#!/usr/bin/env bash
# Fuzzes the compiled encoder, comparer and reply counter under sanitizers: ten million inputs, a quarter of an hour.
# With `binlog` as its first word, the compiled scanner of binlog packets: one million.
#
#     scripts/fuzz.sh [binlog] [--inputs N] [--seed S]
#     scripts/fuzz.sh --replay FILE    # the input of a finding again
#     scripts/fuzz.sh --prove          # faults put into the copy that is fuzzed: each must be found
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
PATH=$PWD/.venv/bin:$PATH

# What pip builds the package with, it does not leave behind.
python -c 'import Cython, setuptools' 2>/dev/null ||
  python -m pip --quiet --disable-pip-version-check install 'Cython>=3.1' 'setuptools>=77' >&2
script=fuzz.py
if [ "${1:-}" = binlog ]; then
  script=fuzz_binlog.py
  shift
fi
PYTHONPATH=tests exec python "tests/fuzz/$script" "$@"
