"""One run per job: a lock in the target, which its owner renews and which lapses when its owner is gone.

The lock is one hash, `loader:{job}:lock`, with a field for each part of the job that a run holds: `1/1` is all of it,
`2/4` the second of four shards. Two parts exclude each other unless they are different shards of the same number.
Every step is one script, so that two runs never both hold it; times are the server's.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from loader.errors import Exit, LoaderError, TargetError
from loader.process import identity, is_gone, start_thread
from loader.settings import Target as Settings
from loader.target import Target

TTL = 30.0  # seconds: longer than a failover with the usual timeouts, short enough to wait for
RENEW = 5.0  # seconds between two renewals: several may fail before the lock lapses

# KEYS: the lock. ARGV: part, token, milliseconds, holder, token of a holder known to be dead.
# Gives nothing where the lock is held now, else the holder in the way and the milliseconds that it still has.
# Who holds it alone renews it without writing, which a full Redis allows; the key's own end is then the lock's.
TAKE = """
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local shard, shards = string.match(ARGV[1], '(%d+)/(%d+)')
local held = redis.call('HGETALL', KEYS[1])
local alone = #held == 2 and redis.call('PTTL', KEYS[1]) or 0
for i = 1, #held, 2 do
  local other = cjson.decode(held[i + 1])
  local left = math.max(other['until'] - now, alone)
  if other['token'] == ARGV[2] and #held == 2 and held[i] == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return {}
  elseif left <= 0 or other['token'] == ARGV[5] then
    redis.call('HDEL', KEYS[1], held[i])
  elseif other['token'] ~= ARGV[2] then
    local theirs, of = string.match(held[i], '(%d+)/(%d+)')
    if of ~= shards or theirs == shard then return {held[i + 1], left} end
    if alone > 0 then
      other['until'] = now + left
      redis.call('HSET', KEYS[1], held[i], cjson.encode(other))
    end
  end
end
local own = cjson.decode(ARGV[4])
own['until'] = now + ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(own))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {}
"""
# KEYS: the lock. ARGV: part, token.
DROP = """
local own = redis.call('HGET', KEYS[1], ARGV[1])
if own and cjson.decode(own)['token'] == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock now: the part of the job, the run, where, and since when (ISO 8601)."""

    part: str
    run: str
    host: str
    pid: int
    since: str


def holders(target: Target, job: str) -> tuple[Holder, ...]:
    """Who holds the lock of a job now; nobody where it is none that this program wrote."""
    key = f"loader:{{{job}}}:lock"
    flat = target.ask(key.encode(), "HGETALL", key)[1]
    if not flat:
        return ()
    seconds, micros = target.ask(key.encode(), "TIME")[1]
    now = int(seconds) * 1000 + int(micros) // 1000
    alone = target.ask(key.encode(), "PTTL", key)[1] if len(flat) == 2 else 0  # who holds it alone renews only that
    found = []
    for part, text in zip(flat[::2], flat[1::2], strict=True):
        with suppress(ValueError, TypeError, KeyError):
            held = json.loads(text)
            if max(held["until"] - now, alone) > 0 and not is_gone(held):
                found.append(Holder(part.decode(), held["run"], held["host"], int(held["pid"]), held["since"]))
    return tuple(found)


def locked(target: Target, jobs: Iterable[str]) -> frozenset[str]:
    """Those of the jobs that have a lock now, held or about to lapse: keys that expire, and are no rows."""
    keys = {job: f"loader:{{{job}}}:lock" for job in jobs}
    return frozenset(job for job, key in keys.items() if target.ask(key.encode(), "EXISTS", key)[1])


_under_way: set[str] = set()  # tokens of the locks of this process


class Lock:
    """The lock of one run on a job, or on one shard (I, N) of it; `take` it first.

    `lapsed` says why nothing may be written for now: the last renewal is too long ago, as after a pause of this
    process or while the target is away, or another run has the lock; then `lost` is called too. A run may take its own
    lock again.
    """

    def __init__(self, settings: Settings, job: str, run: str, shard: tuple[int, int] | None = None) -> None:
        self._settings = settings
        self._job = job
        self._part = "{}/{}".format(*(shard or (1, 1)))
        self._key = f"loader:{{{job}}}:lock"
        self._token = run
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._holder = json.dumps({"token": self._token, "run": run, "since": since, **identity()})
        _under_way.add(self._token)
        self._until = 0.0
        self._grants = 0
        self._failure: LoaderError | None = None  # of the last renewal
        self._lost: LoaderError | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def take(self, target: Target) -> None:
        """Take the lock; a `LoaderError` with exit code 5 names who has it. A dead holder's is taken over."""
        held = self._take(target)
        if held and (is_gone(held[0]) or _is_over(held[0])):
            held = self._take(target, held[0]["token"])
        if held:
            raise LoaderError(f"{_refusal(self._job, *held)}: wait for its end", exit_code=Exit.LOCKED)

    def keep(self, lost: Callable[[LoaderError], None]) -> None:
        """Renew the lock from now on, in a thread of its own."""
        self._thread = start_thread(self._renew, lost)

    def grant(self) -> int:
        """How often the lock was granted anew: what was read before it lapsed must not be written after."""
        return self._grants

    def lapsed(self) -> LoaderError | None:
        """Why nothing may be written now; None while the lock is held."""
        over = _now() - self._until
        if self._lost or over <= 0:
            return self._lost
        why = f": {self._failure}" if self._failure else ""
        return LoaderError(
            f"the lock of job {self._job!r} has not been renewed for {over + TTL:.0f} s{why}",
            transient=True,
            exit_code=self._failure.exit_code if self._failure else None,
        )

    def drop(self, target: Target) -> None:
        """Let the lock go."""
        self._ended.set()
        _under_way.discard(self._token)
        if self._thread:
            self._thread.join(RENEW)
            if self._thread.is_alive():  # a renewal is under way, and would undo this: the lock lapses by itself
                return
        target.ask(self._key.encode(), "EVAL", DROP, 1, self._key, self._part, self._token)

    def _take(self, target: Target, dead: str = "") -> tuple[dict[str, Any], int] | None:
        started = _now()
        words: list[str | int] = [self._part, self._token, int(TTL * 1000), self._holder, dead]
        try:
            found = target.ask(self._key.encode(), "EVAL", TAKE, 1, self._key, *words)[1]
            holder = json.loads(found[0]) if found else None
        except (TargetError, ValueError) as error:
            if isinstance(error, TargetError) and (error.transient or error.exit_code == Exit.CONFIG):
                raise
            raise LoaderError(
                f"{self._key} is no lock that this program wrote ({error}): DEL it unless a run is under way"
            ) from error
        if holder:
            return holder, int(found[1])
        if started > self._until:
            self._grants += 1
        self._until = started + TTL
        return None

    def _renew(self, lost: Callable[[LoaderError], None]) -> None:
        """Renew until the end; a lock that lapsed is taken again if nobody has it."""
        target: Target | None = (
            None  # its own: a node that hangs must not hold up the renewal behind a worker's command
        )
        while not self._ended.wait(RENEW if not self.lapsed() else 0.5):
            try:
                target = target or Target(self._settings)
                held = self._take(target)
            except LoaderError as error:
                self._failure = error
                if target:
                    target.close()
                target = None
                continue
            self._failure = None
            if held:
                self._lost = LoaderError(f"lost the lock: {_refusal(self._job, *held)}", exit_code=Exit.LOCKED)
                lost(self._lost)
                break
        if target:
            target.close()


def _is_over(holder: dict[str, Any]) -> bool:
    """Whether the holder is a run of this very process that has ended, while its lock could not be let go."""
    own = identity()
    return all(holder.get(name) == value for name, value in own.items()) and holder["token"] not in _under_way


def _refusal(job: str, holder: dict[str, Any], left: int) -> str:
    return (
        f"job {job!r} is locked by run {holder['run']} (host {holder['host']}, pid {holder['pid']}, since"
        f" {holder['since']}), whose lock ends {left / 1000:.0f} s from now unless it is renewed"
    )


def _now() -> float:
    """Seconds that go on while this process, or the machine, is asleep."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
