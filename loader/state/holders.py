"""The holders of a job's lock, and the content of its fence: read, never changed."""

from collections.abc import Iterable
from typing import Any

from loader.errors import StateError
from loader.process import is_gone
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.key_reader import KeyReader, Question
from loader.redis.prefetch import Prefetched
from loader.state.markers import CALLED
from loader.state.stored_json import built, parsed
from loader.state_keys import foreign, own_key

PIDS = 1 << 31  # no process id is greater
SHOWN = 40  # bytes of a strange entry's name


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a lock: the part of the job, the run, the machine, and since when (ISO 8601).

    It `yields` if it follows the job, and lets others have the lock.
    """

    part: str
    run: str
    host: str
    pid: int
    since: str
    yields: bool = False


def holders(target: KeyReader, job: str) -> tuple[Holder, ...]:
    """The current holders of a job's lock; a `StateError` if this program did not write it."""
    key = own_key(job, "lock")
    flat = target.ask(key.encode(), "HGETALL", key)[1]
    if not flat:
        return ()
    now = target.time(key) * 1000
    alone = target.ask(key.encode(), "PTTL", key)[1] if len(flat) == 2 else 0  # a single holder renews only that
    found = []
    for part, text in zip(flat[::2], flat[1::2], strict=True):
        held = holder_of(key, part, text)
        if max(held["until"] - now, alone) > 0 and not is_gone(held):
            who = (held["run"], held["host"], held["pid"], held["since"])
            found.append(Holder(part.decode(), *who, yields=held.get("yields") is True))
    return tuple(found)


def wanted_locks(target: RedisClient, jobs: Iterable[str]) -> frozenset[str]:
    """The jobs whose lock someone waits for now, because its holder yields it."""
    return _expiring(target, jobs, "wanted")


def check_fence(target: RedisClient, job: str) -> None:
    """Raise a `StateError` if this program did not write a job's fence."""
    key = own_key(job, "fence")
    flat = target.ask(key.encode(), "HGETALL", key)[1]
    for token, name in zip(flat[::2], flat[1::2], strict=True):
        if not CALLED.fullmatch(name.decode(errors="replace")):
            raise strange(key, token)


def locked(target: RedisClient, jobs: Iterable[str]) -> frozenset[str]:
    """The jobs that have a lock now, held or about to expire: these keys expire, and are not rows."""
    return _expiring(target, jobs, "lock")


def _expiring(target: RedisClient, jobs: Iterable[str], name: str) -> frozenset[str]:
    """The jobs that have a key of that name with a time to live, as this program writes it."""
    keys = {job: own_key(job, name) for job in jobs}
    asked: list[Question] = [(key.encode(), ("PTTL", key)) for key in keys.values()]
    replies = Prefetched(target, asked)
    return frozenset(job for job, key in keys.items() if replies.ask(key.encode(), "PTTL", key)[1] > 0)


@dataclass(frozen=True, slots=True)
class _Entry:
    """The holder described by a lock, besides its time and the identity of its process."""

    token: str
    run: str
    host: str
    pid: int
    since: str


def holder_of(key: str, part: bytes, text: bytes) -> dict[str, Any]:
    """An entry of a lock; a `StateError` if this program did not write it."""
    try:
        held = parsed(text)
        built(_Entry, {name: held.get(name) for name in ("token", "run", "host", "pid", "since")}, most=PIDS)
        part.decode()
    except ValueError as error:
        raise strange(key, part) from error
    if not isinstance(ends := held.get("until"), int | float) or not 0 <= ends < 1 << 53:
        raise strange(key, part)
    return held


def strange(key: str, entry: bytes) -> StateError:
    """The error for an entry of a lock or a fence that no loader has written."""
    return foreign(key, f"has an entry {ascii(entry[:SHOWN])[1:]} that this program did not write")
