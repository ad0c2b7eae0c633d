"""What `chaos` does to a lab while the loader works: a table of faults, each with what it may end a run with.

A fault is done and undone before the next one. Its numbers were drawn beforehand; what they come to depends on the
servers' state. It returns what it did, for the log.
"""

import faults_losses as losses
import faults_nodes as nodes
import faults_servers as servers
from scene import CONFIG, FAILED, LOCKED, REJECTS, UNREACHABLE, Fault

GONE = (UNREACHABLE,)  # a run that begins while a server is away gives up after some seconds, with a person waiting
FULL = (FAILED,)  # and so does one that a server has no room for
CHANGED = (FAILED, CONFIG)  # the table is not what the run was planned for
LOST = (FAILED, LOCKED)  # its lock is gone, and another run may have had it
THROWN = (*LOST, REJECTS)  # hashes are thrown away, and maybe what the loader keeps for itself
FAULTS = {
    "master killed": Fault(losses.master_killed, GONE, moves=True),
    "replica killed": Fault(nodes.replica_killed),
    "node paused": Fault(nodes.node_paused, GONE, moves=True),
    "cluster paused": Fault(nodes.cluster_paused, GONE, moves=True),
    "cluster down": Fault(losses.cluster_down, GONE, moves=True),
    "replicas behind": Fault(losses.killed_behind, GONE, moves=True),
    "takeover behind": Fault(losses.takeover_behind, GONE, moves=True),
    "lone replica": Fault(losses.lone_replica, (*GONE, *LOST), moves=True),
    "old snapshot": Fault(losses.old_snapshot, (*GONE, *LOST), moves=True),
    "failover": Fault(nodes.failover, moves=True),
    "takeover": Fault(nodes.takeover, moves=True),
    "resharding": Fault(nodes.resharding),
    "open migration": Fault(nodes.open_migration),
    "connections cut": Fault(servers.connections_cut, GONE),
    "network cut": Fault(servers.network_cut, (*GONE, *LOST)),
    "out of memory": Fault(servers.out_of_memory, FULL),
    "evictions": Fault(losses.evictions, THROWN, moves=True),
    "counters reset": Fault(servers.counters_reset, THROWN),
    "lock lost": Fault(servers.lock_lost, LOST),
    "snapshot fails": Fault(servers.snapshot_fails, FULL),
    "foreign key": Fault(losses.foreign_key, (REJECTS,), lasting=(REJECTS,)),
    "MySQL connections": Fault(servers.mysql_connections_killed, GONE),
    "MySQL killed": Fault(servers.mysql_killed, GONE),
    "MySQL paused": Fault(servers.mysql_paused, GONE),
    "column added": Fault(servers.column_added, CHANGED, lasting=(CONFIG,)),
    "table renamed": Fault(servers.table_renamed, CHANGED),
    "loader killed": Fault(servers.loader_killed),
    "loader stopped": Fault(servers.loader_stopped),
}
