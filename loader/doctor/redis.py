"""The checks of Redis: the account, each node, and the state of the cluster."""

import json
import shlex
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from loader.config.load import Config
from loader.config.servers import TargetConfig
from loader.doctor.addresses import address_of
from loader.doctor.findings import (
    Check,
    Finding,
    clock,
    examine,
    fail,
    is_loopback,
    ok,
    redis_cli,
    skip,
    unchecked,
    warn,
)
from loader.doctor.secrets import Secret
from loader.errors import Kind, LoaderError
from loader.formats import mebibytes
from loader.jobs.pace import intervals, paced
from loader.model import Node
from loader.mysql.keys import escape_glob
from loader.records import dataclass
from loader.redis.acl import ASKED_SINCE, REDIS_RIGHTS, REFUSED, RESTORE_RIGHT, lacking_words, questions
from loader.redis.client import RedisClient
from loader.redis.errors import RENAMED, UNNAME, is_login
from loader.redis.migrations import in_words, moves
from loader.redis.servers import ClusterState, describe_cluster
from loader.state_keys import PREFIX
from loader.wire.slots import SLOTS
from loader.words import counted

SIDE = "redis"
OWN_KEYS = ", the loader's own too: pauses, owed prunes, rejects, checkpoints"
NAMED = 3  # nodes named in a finding


@dataclass(frozen=True, slots=True)
class RedisProbe:
    """A target, its masters with their replicas, and the INFO of each node, or why it sent none."""

    settings: Config
    target: RedisClient
    groups: Mapping[Node, tuple[Node, ...]]
    infos: Mapping[Node, dict[str, str]]
    failures: Mapping[Node, LoaderError]
    clocks: Mapping[Node, float]  # seconds ahead of ours

    @property
    def account(self) -> str:
        """The loader's account in Redis."""
        return self.settings.target.user or "default"

    @property
    def masters(self) -> Mapping[Node, dict[str, str]]:
        """The masters' INFO."""
        return {node: self.infos[node] for node in self.groups if node in self.infos}

    def dialled(self, node: Node) -> Node:
        """A node as it is reached from here."""
        return Node(*self.settings.target.reached_at(node.host, node.port))

    def cli(self, *words: str, node: Node | None = None) -> str:
        """The shell command that sends a command to a node, or to all."""
        everywhere = node is None and self.target.cluster
        at = self.dialled(node or next(iter(self.groups), self.target.topology.seeds[0]))
        return redis_cli(*words, node=str(at), tls=tls_options(self.settings.target), everywhere=everywhere)


def reach(settings: Config, secret: Secret) -> RedisProbe | Finding:
    """Log in, or return the finding that says why not; `secret` is the target's password."""
    try:
        target = RedisClient(settings.target)
    except LoaderError as error:
        return _refused(settings, error, secret)
    try:
        target.refresh(force=True)
    except LoaderError as error:
        if not error.transient:
            target.close()
            return _refused(settings, error, secret)
    try:
        return _look(settings, target)
    except LoaderError as error:
        target.close()
        return _refused(settings, error, secret)


def checked(patient: RedisProbe) -> Iterator[Finding]:
    """All checks of Redis that need no job's table."""
    return examine(SIDE, CHECKS, patient)


def skipped() -> Iterator[Finding]:
    """The checks that could not be made."""
    return skip(SIDE, list(CHECKS)[1:], "there is no connection to Redis")


def _look(settings: Config, target: RedisClient) -> RedisProbe:
    """Read the INFO of each node."""
    groups: dict[Node, tuple[Node, ...]] = {}
    alone = [(0, SLOTS - 1, [target.topology.seeds[0]])]
    for _, _, (master, *replicas) in (target.topology.ranges() if target.cluster else alone) or alone:
        groups[master] = tuple(replicas)
    if target.cluster:
        groups = {master: replicas or _newest(target, master) for master, replicas in groups.items()}
    infos: dict[Node, dict[str, str]] = {}
    failures: dict[Node, LoaderError] = {}
    clocks: dict[Node, float] = {}
    for node in dict.fromkeys([*groups, *(node for replicas in groups.values() for node in replicas)]):
        try:
            infos[node] = target.info(node)
            before = time.time()
            seconds, micros = target.command(node, "TIME")
        except LoaderError as error:
            failures[node] = error
        else:
            clocks[node] = int(seconds) + int(micros) / 1e6 - (before + time.time()) / 2
    return RedisProbe(settings, target, groups, infos, failures, clocks)


def _newest(target: RedisClient, master: Node) -> tuple[Node, ...]:
    """The replicas that a master itself names: CLUSTER SLOTS omits one that has received nothing yet."""
    try:
        info = target.info(master)
    except LoaderError:
        return ()
    lines = [info.get(f"slave{number}", "") for number in range(int(info.get("connected_slaves", 0)))]
    known = [dict(word.partition("=")[::2] for word in line.split(",")) for line in lines]
    return tuple(Node(each["ip"], int(each["port"])) for each in known if each.get("port"))


def _refused(settings: Config, error: LoaderError, secret: Secret) -> Finding:
    """The finding for a target that cannot be used."""
    seen = f"{secret.doubt()} {error}" if is_login(error) else str(error)
    return fail(seen, _login_fix(settings, error, settings.target.endpoint))


def _login_fix(settings: Config, error: LoaderError, node: str) -> str:
    """What helps if a node refuses the loader, or a test whether it is there; no account loses anything by it."""
    target = settings.target
    if error.fix:
        return error.fix
    if not error.kind.is_refusal:
        return redis_cli("PING", node=node, tls=tls_options(target))
    if is_login(error):
        account = ["--user", target.user] if target.user else []
        return redis_cli("PING", node=node, tls=[*tls_options(target), *account, "--askpass"])
    if error.kind is not Kind.ACCESS:
        return "see the target of the config"
    words = [target.user or "default", *_patterns(settings).values(), *REDIS_RIGHTS.split()]
    return redis_cli("ACL", "SETUSER", *words, node=node, tls=tls_options(target))


def tls_options(target: TargetConfig) -> list[str]:
    """redis-cli's options for TLS as the loader uses it."""
    if not target.tls:
        return []
    files = {"--cacert": target.tls_ca, "--cert": target.tls_cert, "--key": target.tls_key}
    named = [word for option, file in files.items() if file for word in (option, str(file))]
    return ["--tls", *named, *([] if target.tls_verify else ["--insecure"])]


def _patterns(settings: Config) -> dict[str, str]:
    """The key patterns that an account needs, by the prefixes of each job and of the loader itself."""
    prefixes = [*(job.prefix for job in settings.jobs.values()), PREFIX]
    return {prefix: f"~{escape_glob(prefix)}*" for prefix in prefixes}


def _login(patient: RedisProbe) -> Iterator[Finding]:
    versions = sorted({_version(info) for info in patient.infos.values()})
    what = "a cluster" if patient.target.cluster else "a standalone server"
    if not versions:
        raise next(iter(patient.failures.values()))
    yield ok(f"{patient.target.topology.seeds[0]} as {patient.account!r}, {what}, {' and '.join(versions)}")
    if len(versions) > 1:
        yield warn("the nodes are of different versions")


def _version(info: Mapping[str, str]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '?')}"


def _tls(patient: RedisProbe) -> Iterator[Finding]:
    settings = patient.settings.target
    if settings.tls and settings.tls_verify:
        yield ok("in use")
    elif settings.tls:
        yield warn("in use, but the servers' certificates are not checked", "tls_verify: true")
    elif all(not node.port or is_loopback(patient.dialled(node).host) for node in patient.groups):
        yield ok("not in use; the connections do not leave this machine")
    else:
        yield warn("not in use: passwords and rows cross the network as they are", "write rediss:// in target.url")


def _nodes(patient: RedisProbe) -> Iterator[Finding]:
    """Whether every node answers at the address that the cluster announces."""
    for node, error in patient.failures.items():
        told = fail if node in patient.groups else warn
        role = "master" if node in patient.groups else "replica"
        if error.kind.is_refusal:
            yield told(f"{role} {error}", _login_fix(patient.settings, error, str(patient.dialled(node))))
        else:
            yield told(
                f"{role} {error}",
                address_of(patient.target, patient.settings.target, node) or patient.cli("PING", node=node),
            )
    if not patient.failures:
        count = len(patient.infos)
        yield ok(f"{count} answer{'s' if count == 1 else ''} at the announced address")


def _cluster(patient: RedisProbe) -> Iterator[Finding]:
    if not patient.target.cluster:
        return
    found = describe_cluster(patient.target)
    masters = len(found["masters"])
    seen = f"{found['state']}, {found['slots']} of {SLOTS} slots in {counted(masters, 'master')}"
    node = str(next(iter(patient.infos), patient.target.topology.seeds[0]))
    if found["state"] is ClusterState.MOVING and found["slots"] == SLOTS:
        under_way = in_words(moves(patient.target, patient.groups))
        yield warn(f"{under_way}: if nobody is working on it, finish the move", _cluster_command(patient, "fix", node))
    elif found["state"] is ClusterState.OK and found["slots"] == SLOTS:
        yield ok(seen)
    else:
        away = any(master["keys"] is None for master in found["masters"])  # fix would give its slots to others
        word = "check" if away or found["slots"] == SLOTS else "fix"
        why = f": {found['why']}" if "why" in found else ""
        yield fail(f"{seen}{why}", _cluster_command(patient, word, node))


def _replicas(patient: RedisProbe) -> Iterator[Finding]:
    """Whether each master has a replica that follows it."""
    alone = [node for node, info in patient.masters.items() if not int(info.get("connected_slaves", 0))]
    if alone:
        what = "has no replica: if it is lost" if len(alone) == 1 else "have no replica: if one is lost"
        yield warn(f"{named(alone)} {what}, so are its hashes", _new_replica(patient, alone[0]))
    fine = not alone
    for replica in (node for replicas in patient.groups.values() for node in replicas if node in patient.infos):
        info = patient.infos[replica]
        if info.get("master_link_status", "up") != "up":
            fine = False
            master_of = f"{info.get('master_host')}:{info.get('master_port')}"
            yield warn(
                f"{replica} does not reach its master {master_of}", patient.cli("INFO", "replication", node=replica)
            )
    if fine:
        yield ok("each master has one that follows it")


def _cluster_command(patient: RedisProbe, *words: str) -> str:
    return shlex.join(["redis-cli", *tls_options(patient.settings.target), "--cluster", *words])


def _new_replica(patient: RedisProbe, master: Node) -> str:
    if patient.target.cluster:
        return _cluster_command(patient, "add-node", "NEWHOST:PORT", str(master), "--cluster-slave")
    return redis_cli("REPLICAOF", master.host, str(master.port), node="NEWHOST:6379")


def _memory(patient: RedisProbe) -> Iterator[Finding]:
    """Whether keys are evicted once a node is full."""
    expire = any(job.ttl for job in patient.settings.jobs.values())
    used: list[tuple[float, str]] = []
    evicting: dict[str, list[Node]] = defaultdict(list)
    for node, info in patient.masters.items():
        most, policy = int(info.get("maxmemory", 0)), info.get("maxmemory_policy", "noeviction")
        now = int(info.get("used_memory", 0))
        limit = f"of {mebibytes(most)} MiB" if most else "MiB, without a limit"
        used.append((now / most if most else 0, f"{node} uses {mebibytes(now)} {limit}"))
        if policy.startswith("allkeys") or (policy.startswith("volatile") and expire):
            evicting[policy].append(node)
    for policy, nodes in evicting.items():
        fix = patient.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
        own = OWN_KEYS if policy.startswith("allkeys") else ""
        yield warn(f"{named(nodes)} may evict keys{own}: maxmemory-policy is {policy}", fix)
    if used and not evicting:
        yield ok(f"{max(used)[1]}; no hash is evicted")


def named(nodes: Sequence[Node]) -> str:
    """Nodes for people: the first of them, and how many more."""
    more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
    return ", ".join(map(str, nodes[:NAMED])) + more


def _persistence(patient: RedisProbe) -> Iterator[Finding]:
    """Whether a node refuses writes because it cannot save, or is still loading."""
    fine = True
    for node, info in patient.infos.items():
        failed = [
            f"{name} is {info[name]}"
            for name in ("rdb_last_bgsave_status", "aof_last_write_status")
            if info.get(name, "ok") != "ok"
        ]
        if info.get("loading") == "1":
            failed.append("it is still loading its data")
        if failed:
            fine = False
            yield fail(
                f"{node}: {', '.join(failed)}: it refuses to write (MISCONF) until it can save: see its log and disk",
                patient.cli("BGSAVE", node=node),
            )
    if fine:
        yield ok("no node failed to save")


def _rights(patient: RedisProbe) -> Iterator[Finding]:
    """Whether the account may send each command that the loader needs, on the keys of each job and its own."""
    found: dict[tuple[str, ...], list[Node]] = defaultdict(list)
    missing: dict[str, list[Node]] = defaultdict(list)
    for node, info in patient.infos.items():
        if int(info.get("redis_version", "0").partition(".")[0]) < ASKED_SINCE:
            yield unchecked(f"{_version(info)} cannot be asked, see docs/security.md for the rights it needs")
            return
        lacking, unknown = _lacking(patient, node)
        found[lacking].append(node)
        for command in unknown:
            missing[command].append(node)
    found.pop((), None)
    for command, nodes in missing.items():
        yield fail(f"unknown command {command} on {named(nodes)}: {RENAMED}", f"{UNNAME} {command}")
    for lacking, nodes in found.items():
        where = "" if len(nodes) == len(patient.infos) else f" on {named(nodes)}"
        fix = patient.cli("ACL", "SETUSER", patient.account, *lacking)
        yield fail(f"{patient.account!r} lacks {' '.join(lacking)}{where}", fix)
    if not found and not missing:
        yield ok(
            f"{patient.account!r} has all it needs, for keys like {', '.join(_patterns(patient.settings).values())}"
        )


def _lacking(patient: RedisProbe, node: Node) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of ACL SETUSER that the account lacks at a node, and the commands that the node does not know."""
    patterns = _patterns(patient.settings)
    restores = any(job.write == "restore" for job in patient.settings.jobs.values())
    rights = f"{REDIS_RIGHTS} {RESTORE_RIGHT}" if restores else REDIS_RIGHTS
    asked = questions(patterns, rights)
    words = json.dumps(list(asked.values()))
    (reply,) = patient.target.commands(node, [["EVAL", REFUSED, 0, words]])
    if not isinstance(reply, Exception):
        places = list(asked)
        refused = lacking_words({places[number - 1] for number in reply if number > 0}, list(patterns.values()), rights)
        unknown = [places[-number - 1][0][1:].partition("|")[0].upper() for number in reply if number < 0]
        return refused, tuple(name for name in dict.fromkeys(unknown) if patient.target.cluster or name != "CLUSTER")
    error = patient.target.error(reply, node)
    if not error.kind.is_refusal or error.fix:
        raise error
    return tuple(rights.split()), ()  # without EVAL the rights cannot be checked, and those it has do no harm


def _clock(patient: RedisProbe) -> Iterator[Finding]:
    if patient.clocks:
        node = max(patient.clocks, key=lambda node: abs(patient.clocks[node]))
        yield clock(patient.clocks[node], str(node))


def _schedules(patient: RedisProbe) -> Iterator[Finding]:
    """Whether the daemons keep the schedules of all jobs, by the last run of each."""
    settings = patient.settings
    every = intervals(settings.jobs)
    pace = paced(patient.target, settings.jobs, settings.daemon.jobs_at_once)
    if pace.behind:
        yield warn(str(pace))
    elif every:
        yield ok(f"the last runs of {counted(len(every), 'job')} with an interval kept it")


CHECKS: Mapping[str, Check[RedisProbe]] = {
    "login": _login,
    "tls": _tls,
    "nodes": _nodes,
    "cluster": _cluster,
    "replicas": _replicas,
    "memory": _memory,
    "persistence": _persistence,
    "rights": _rights,
    "clock": _clock,
    "schedules": _schedules,
}
