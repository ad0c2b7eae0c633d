#!/bin/sh
# Makes one cluster of these nodes; six of them become three masters with a replica each.
#
#     cluster.sh HOST:PORT…
#
# If the first one is in a cluster already, the others that are in none become replicas, each of the master with the fewest
# replicas. So it can be run again at any time.
# With TLS, REDIS_CLI has the words that redis-cli needs for it.
set -eu

PATIENCE=180 # seconds for the nodes to agree

redis() {
  # shellcheck disable=SC2086  # a word each
  ${REDIS_CLI:-redis-cli} "$@"
}

# redis-cli needs IP addresses: nodes do not look up each other's names.
address() {
  getent ahostsv4 "${1%:*}" | {
    read -r ip _ || {
      echo "cluster: no address for ${1%:*}: does it run?" >&2
      exit 1
    }
    echo "$ip:${1##*:}"
  }
}

# A node's answer to a command.
ask() {
  node=$1
  shift
  redis -h "${node%:*}" -p "${node##*:}" "$@" | tr -d '\r'
}

# Whether a node knows of no other.
is_alone() {
  ask "$1" CLUSTER INFO | grep -qx 'cluster_known_nodes:1'
}

# Whether a node sees all slots served, and has caught up with its master.
is_settled() {
  ask "$1" CLUSTER INFO | grep -qx 'cluster_state:ok' &&
    ! ask "$1" INFO replication | grep -qx 'master_link_status:down'
}

addresses=
for name in "$@"; do
  addresses="$addresses $(address "$name")"
done
# shellcheck disable=SC2086  # a word each
set -- $addresses
first=$1

if is_alone "$first"; then
  redis --cluster create "$@" --cluster-replicas 1 --cluster-yes
else
  for node in "$@"; do
    if is_alone "$node"; then
      redis --cluster add-node "$node" "$first" --cluster-slave
    fi
  done
fi

seconds=0
for node in "$@"; do
  until is_settled "$node"; do
    seconds=$((seconds + 1))
    if [ "$seconds" -gt "$PATIENCE" ]; then
      echo "cluster: after $PATIENCE seconds $node is not part of a whole cluster; CLUSTER NODES says there:" >&2
      ask "$node" CLUSTER NODES >&2
      exit 1
    fi
    sleep 1
  done
done
redis --cluster info "$first"
