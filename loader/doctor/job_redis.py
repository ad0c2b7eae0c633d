"""The checks of one job's rows in Redis: whether they fit, and what their keys hold."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from loader.doctor.findings import Check, Finding, fail, ok, warn
from loader.doctor.job_plan import PlannedJob
from loader.doctor.redis import RedisProbe
from loader.errors import Kind, LoaderError
from loader.formats import mebibytes
from loader.model import Listpack, Node
from loader.mysql.keys import KeyMatcher
from loader.pipeline.capacity import bytes_needed, sample
from loader.pipeline.throttle import Throttle
from loader.records import dataclass
from loader.redis.acl import RESTORE_RIGHT
from loader.redis.ready_made import SINCE, USUAL, listpack_of
from loader.report.values import shown
from loader.wire.slots import slot_of
from loader.words import counted

NAMED = 3  # keys named in a finding
GONE = -2  # TTL's reply for a missing key
SCANNED = 1000  # keys that SCAN visits in one command
SCANS = 2  # SCANs of a master: one from a random place, one that continues, or starts over at the end
MOSTLY = 0.8  # of the rows have to be small for ready-made hashes to pay
SAVED = ((6, ""), (20, "half"))  # of Redis's work for a row, by how many fields there are
SPARE = 1.25  # what maxmemory should be, as a multiple of the memory in use afterwards


@dataclass(slots=True)
class JobOnRedis:
    """A job that fits its table, and the Redis it writes to."""

    planned: PlannedJob
    redis: RedisProbe
    _rows: list[list[bytes]] | None = field(default=None)
    _keys: dict[Node, list[bytes]] | None = field(default=None)

    @property
    def rows(self) -> list[list[bytes]]:
        """The commands of the first rows."""
        if self._rows is None:
            self._rows = sample(self.planned.plan, self.planned.mysql.source, self.redis.target, Throttle())
        return self._rows

    @property
    def keys(self) -> dict[Node, list[bytes]]:
        """Keys of the job, a sample: those of the first rows, and some from each master."""
        if self._keys is None:
            target, found = self.redis.target, defaultdict[Node, set[bytes]](set)
            for words in self.rows:
                found[target.slots.node_of(slot_of(words[1]))].add(words[1])
            lookup = KeyMatcher(self.planned.plan, self.planned.table, self.planned.settings.longer(self.planned.job))
            for node in target.slots.nodes if lookup.is_certain else ():  # else other keys look like the job's
                found[node].update(key for key in _scanned(self, node, lookup.pattern) if lookup.owns(key))
            self._keys = {node: sorted(each) for node, each in found.items()}
        return self._keys


def _size(facing: JobOnRedis) -> Iterator[Finding]:
    """Whether the rows that are not in Redis yet fit below maxmemory."""
    needed = bytes_needed(facing.planned.plan, facing.rows, facing.redis.target)
    if not needed:
        yield ok(
            "there are no rows" if not facing.rows else "not estimated: MySQL does not know how many rows will come"
        )
        return
    full: dict[Node, int] = {}  # the memory in use afterwards, if it exceeds the limit
    rooms: dict[Node, int] = {}
    for node, need in needed.items():
        info = facing.redis.infos.get(node, {})
        most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
        rooms[node] = max(0, most - used)
        if most and used + need > most:
            full[node] = used + need
    if not full:
        yield ok(f"about {mebibytes(max(needed.values()))} MiB more on each master; there is room")
        return
    worst = max(full, key=lambda node: needed[node] - rooms[node])
    others = f", and {counted(len(full) - 1, 'more node')} lack{'s' * (len(full) == 2)} room" if len(full) > 1 else ""
    seen = f"{worst} needs about {mebibytes(needed[worst])} MiB more, and has {mebibytes(rooms[worst])} left{others}"
    fix = facing.redis.cli("CONFIG", "SET", "maxmemory", f"{-int(-max(full.values()) * SPARE // (1 << 20))}mb")
    evicts = facing.redis.infos[worst].get("maxmemory_policy", "noeviction").startswith("allkeys")
    yield warn(f"{seen}: keys will be evicted", fix) if evicts else fail(seen, fix)


def _types(facing: JobOnRedis) -> Iterator[Finding]:
    """Whether keys of the job hold anything but a hash, in a sample."""
    wrong = [(node, key, kind) for node, each in facing.keys.items() for key, kind in _kinds(facing, node, each)]
    if not wrong:
        count = sum(map(len, facing.keys.values()))
        yield ok(f"no key of {count:,} looked at holds anything but a hash")
        return
    named = ", ".join(f"{shown(key)} holds a {kind}" for _, key, kind in wrong[:NAMED])
    more = f" and {len(wrong) - NAMED:,} more" if len(wrong) > NAMED else ""
    node = wrong[0][0]
    here = [key.decode(errors="surrogateescape") for of, key, _ in wrong if of == node][:NAMED]
    fate = "their rows would be rejected; unless someone needs them, delete them"
    if facing.planned.job.write != "hmset":
        fate = "ready-made hashes would replace them; if someone needs them, give the job another key"
    yield fail(f"{named}{more}: {fate}", facing.redis.cli("UNLINK", here[0], node=node))


def _ttl(facing: JobOnRedis) -> Iterator[Finding]:
    """Whether hashes of the job expire although they should not, or the other way round, in a sample."""
    job, odd, seen = facing.planned.job, 0, 0
    layout = facing.planned.plan.layout
    most = 0 if layout.ttl is None else layout.ttl + layout.ttl_jitter
    for node, keys in facing.keys.items():
        lives = facing.redis.target.commands(node, [["TTL", key] for key in keys]) if keys else []
        there = [seconds for seconds in lives if isinstance(seconds, int) and seconds != GONE]
        seen += len(there)
        odd += sum(seconds > most or (seconds < 0) == bool(most) for seconds in there)
    fix = f"loader sync {job.name}" + " --full" * bool(job.incremental or job.changed_only)
    if not odd:
        yield ok(f"no hash of {seen:,} looked at " + ("lives for longer than the ttl" if most else "expires"))
    elif most:
        yield warn(f"{odd:,} of {counted(seen, 'hash')} looked at never expire, or later than the job's ttl", fix)
    else:
        yield warn(f"{odd:,} of {counted(seen, 'hash')} looked at will expire, though the job has no ttl", fix)


def _write(facing: JobOnRedis) -> Iterator[Finding]:
    """Whether rows can be written ready-made, and whether that pays, from the first rows."""
    write, limits = facing.planned.job.write, USUAL
    if write != "hmset":
        try:
            limits = listpack_of(facing.redis.target)
        except LoaderError as error:
            told = fail if write == "restore" else warn
            fix = facing.redis.cli("ACL", "SETUSER", facing.redis.account, RESTORE_RIGHT)
            yield told(f"write: {write}: {error}", fix if error.kind is Kind.ACCESS else "write: hmset")
            return
    rows = facing.rows
    if not rows:
        yield ok("there are no rows")
        return
    small = sum(_fits(words, limits) for words in rows)
    seen = (
        f"{counted(len(rows[0]) // 2 - 1, 'field')}; Redis keeps {small / len(rows):.0%} of {counted(len(rows), 'row')}"
        f" compactly, up to {limits.fields} fields of {limits.longest} bytes"
    )
    if write != "hmset":
        yield ok(f"ready-made: {seen}")
    elif small >= MOSTLY * len(rows) and _takes_them(facing) and (saved := _saved(len(rows[0]) // 2 - 1)):
        yield ok(f"{seen}: `write: restore` would save {saved} of Redis's work")
    else:
        yield ok(f"{seen}: `write: hmset` is right")


def _takes_them(facing: JobOnRedis) -> bool:
    """Whether all masters are new enough for ready-made hashes."""
    versions = (info.get("redis_version", "0") for info in facing.redis.masters.values())
    return all(int(version.partition(".")[0]) >= SINCE for version in versions)


def _fits(words: Sequence[bytes], limits: Listpack) -> bool:
    """Whether the hash that an HMSET makes is a listpack."""
    return len(words) // 2 - 1 <= limits.fields and max(map(len, words[2:])) <= limits.longest


def _saved(fields: int) -> str:
    """How much a ready-made hash saves, as measured with small values; empty if it is little."""
    return next((text for most, text in SAVED if fields < most), "two thirds")


def _scanned(facing: JobOnRedis, node: Node, pattern: str) -> Iterator[bytes]:
    """Keys of a master that match a pattern, from a random place on."""
    cursor = str(random.getrandbits(48))  # the place of a sample is no secret
    for _ in range(SCANS):
        found, keys = facing.redis.target.command(node, "SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED)
        yield from keys
        cursor = found.decode()


def _kinds(facing: JobOnRedis, node: Node, keys: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
    """The keys that hold no hash, with their types."""
    replies = facing.redis.target.commands(node, [["TYPE", key] for key in keys]) if keys else []
    for key, reply in zip(keys, replies, strict=True):
        kind = "hash" if isinstance(reply, Exception) else reply.decode()
        if kind not in {"hash", "none"}:
            yield key, kind


FACING: Mapping[str, Check[JobOnRedis]] = {"size": _size, "types": _types, "ttl": _ttl, "write": _write}
