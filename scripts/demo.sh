#!/usr/bin/env bash
# The whole way on this machine: a MySQL table becomes Redis hashes in a cluster of six nodes, which stays up to play with.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
PATH=$PWD/.venv/bin:$PATH
export LOADER_LOG_FORMAT=console # also if somebody pipes this: logs for people

show() {
  printf '\n$ %s\n' "$*"
  "$@"
}

show loader lab up
show loader -c .lab/loader.yaml plan stu
show loader -c .lab/loader.yaml sync stu
show loader -c .lab/loader.yaml get stu 5
show loader -c .lab/loader.yaml get stu 00000005
show loader -c .lab/loader.yaml verify stu
show loader -c .lab/loader.yaml cluster

port=$(sed -n 's|.*redis://loader@127\.0\.0\.1:\([0-9]*\),.*|\1|p' .lab/loader.yaml)
cli=$(command -v redis-cli || command -v valkey-cli)
cat <<EOF

The lab stays up. Try:

    ${cli##*/} -c -p $port --raw hgetall stu_00000005
    .venv/bin/loader lab status
    .venv/bin/loader lab kill n1         # a replica takes over within seconds
    .venv/bin/loader -c .lab/loader.yaml get stu 5
    .venv/bin/loader lab start n1        # comes back as a replica

This ends it and removes its files:

    .venv/bin/loader lab down
EOF
