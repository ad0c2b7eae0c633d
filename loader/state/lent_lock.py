"""The lock of a run as another process sees it, which writes for that run: it asks Redis, and renews nothing.

Each chunk has an owner: `loader:{job}:chunks`, a hash by the numbers of chunks, lists the names of the connections of
all workers that have claimed it, the newest last. That one owns it and has shut out the others before it writes. A
worker that was shut out, but still lives, finds out as soon as it makes a connection.
"""

import re

from loader.errors import Kind, LoaderError
from loader.process import ticks
from loader.redis.client import RedisClient
from loader.state.lock import RENEW
from loader.state_keys import own_key

NAME = re.compile(r"loader-[0-9a-f]+-[0-9a-f]+")  # of a worker's connections: the run's, and the worker's own part
# KEYS: the lock, the chunks. ARGV: part, token, number of a chunk, name, whether to claim it. Returns the milliseconds
# that the lock still has, -1 if the run does not hold it, and the names of the chunk's owners so far.
ASK = """
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local text = redis.call('TYPE', KEYS[1])['ok'] == 'hash' and redis.call('HGET', KEYS[1], ARGV[1]) or ''
local good, own = pcall(cjson.decode, text)
if not good or type(own) ~= 'table' or own['token'] ~= ARGV[2] then return {-1, ''} end
local left = own['until'] - now
if redis.call('HLEN', KEYS[1]) == 1 then left = math.max(left, redis.call('PTTL', KEYS[1])) end
if left <= 0 then return {-1, ''} end
local owners = redis.call('HGET', KEYS[2], ARGV[3]) or ''
if ARGV[5] == '1' and string.match(owners, '%S*$') ~= ARGV[4] then
  redis.call('HSET', KEYS[2], ARGV[3], owners .. ' ' .. ARGV[4])
end
return {left, owners}
"""


class NotLocked(LoaderError):
    """The run does not hold the lock, as far as this Redis knows."""

    kind = Kind.LOCKED


class TakenOver(LoaderError):
    """Another worker has the chunk now."""

    kind = Kind.LOCKED


class LentLock:
    """The lock of a run, by its token, for one worker whose connections have that `name`; `claim` a chunk first."""

    def __init__(self, target: RedisClient, job: str, token: str, name: str) -> None:
        self._target = target
        self._job = job
        self._token = token
        self._name = name
        self._number = 0  # of the chunk that was claimed
        self._until = 0.0  # until when it is held for certain
        self._asked = float("-inf")
        self._asking = False
        self._grants = 0
        self._lost: LoaderError | None = None
        self._failure = ""

    def claim(self, number: int) -> frozenset[str]:
        """Claim a chunk; the names of the connections of all other workers that have claimed it before."""
        self._number, self._lost = number, None
        owners = self._ask(claims=True)
        return frozenset(name for name in owners if NAME.fullmatch(name)) - {self._name}

    def lapsed(self) -> LoaderError | None:
        """Why nothing may be written now; Redis is asked every few seconds."""
        if ticks() - self._asked >= RENEW and not self._asking and not self._lost:
            try:
                self.confirm()
            except LoaderError as error:
                self._lost = None if error.transient else error
                self._failure = f": {error}"
        if self._lost or ticks() <= self._until:
            return self._lost
        return LoaderError(
            f"the lock of job {self._job!r} has not been confirmed in time{self._failure}", kind=Kind.UNAVAILABLE
        )

    def grant(self) -> int:
        """How often it was confirmed after a time in which nobody knew: values read before must not be written."""
        return self._grants

    def confirm(self) -> None:
        """Raise a `LoaderError` unless the run holds the lock, and this worker owns the chunk."""
        if self._asking or not self._number:  # of the connection that asks, or before the first chunk
            return
        owners = self._ask(claims=False)
        if owners[-1:] != [self._name]:
            raise TakenOver(f"another worker has taken over chunk {self._number}")

    def _ask(self, *, claims: bool) -> list[str]:
        """Ask Redis for the lock and the owners of the chunk."""
        lock, began = own_key(self._job, "lock"), ticks()
        self._asked, self._asking = began, True
        words: list[str | int] = ["1/1", self._token, self._number, self._name, int(claims)]
        try:
            reply, known = self._target.ask_known(
                lock.encode(), "EVAL", ASK, 2, lock, own_key(self._job, "chunks"), *words
            )
        finally:
            self._asking = False
        left, owners = reply
        if left < 0:
            raise NotLocked(f"the lock of job {self._job!r} is not that of run {self._token} any more")
        if claims and not known:
            raise self._target.unknown(f"the claim of a chunk of job {self._job!r}")
        if began > self._until:
            self._grants += 1
        self._until, self._failure = began + left / 1000, ""
        return str(owners.decode()).split()
