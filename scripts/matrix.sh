#!/usr/bin/env bash
# The tests again on the newest servers: MySQL with Redis, and with Valkey in place of Redis. Words after it go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PWD/.venv/bin:$PATH
status=0
for redis in redis valkey; do
  scripts/newest.sh "$redis" pytest -n 4 --dist loadfile --no-loadscope-reorder "$@" || status=1
done
exit $status
