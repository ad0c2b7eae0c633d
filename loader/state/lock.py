"""One run per job: a lock in the target, which its owner renews and which expires when its owner is gone.

The lock is one hash, `loader:{job}:lock`, with a field for each part of the job that a run holds: `1/1` is all of it,
`2/4` the second of four shards. Two parts exclude each other unless they are different shards of the same number. Every
step is one script, so that two runs never both hold it; times are the server's.

A run that did not release its lock may still have commands in flight. `loader:{job}:fence`, a hash without a time to
live, lists the names of each run's connections, from its lock on until it has left nothing behind. The run that takes
the lock shuts out all those listed that hold no lock now, before it writes.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from loader.config.servers import TargetConfig
from loader.errors import Kind, LoaderError, StateError, TargetError
from loader.formats import moment
from loader.net.limit import allowed
from loader.process import Work, identity, is_gone, start_thread
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.connections import FORGET
from loader.state.holders import holder_of, strange, wanted_locks
from loader.state.lock_scripts import DROP, TAKE
from loader.state_keys import of_another_type, own_key

TTL = 30.0  # seconds: longer than a failover with the usual timeouts, short enough to wait for
FAR = 10_000 * TTL  # milliseconds that no lock has left, unless a clock was changed
RENEW = 5.0  # seconds between two renewals: several may fail before the lock expires
YIELD = 20.0  # seconds that a holder who yields has to release the lock
ASK_EVERY = 0.2  # seconds between two attempts to take a lock that is about to be released
WANTED = 2000  # milliseconds for which a lock counts as wanted after each of them

_under_way: set[str] = set()  # tokens of the locks of this process


def under_way() -> frozenset[str]:
    """The runs of this process that have a lock, or are about to take or release it."""
    return frozenset(_under_way)


@dataclass(frozen=True, slots=True)
class _Held:
    """The holder in the way, and the milliseconds that its lock still has."""

    holder: dict[str, Any]
    left: int


class Lock:
    """The lock of one run on a job, or on one shard (I, N) of it; `take` it first.

    `lapsed` says why nothing may be written for now: the last renewal is too long ago, as after a pause of this process
    or while the target is away, or another run has the lock; then `lost` is called too. A run may take its own lock
    again, which it then has `shared`: see `take_doubt`.
    """

    def __init__(
        self,
        settings: TargetConfig,
        job: str,
        run: str,
        shard: tuple[int, int] | None = None,
        *,
        yields: bool = False,
    ) -> None:
        self.shared = False  # another run has it, or may have had it while this one counted it as its own
        self._doubted: float | None = None  # since when, on the monotonic clock
        self._sure = 0  # the grant from which on only this run has it
        self._settings = settings
        self._job = job
        self._part = "{}/{}".format(*(shard or (1, 1)))
        self._key, self._fence, self._wanted = (own_key(job, name) for name in ("lock", "fence", "wanted"))
        self._yields = yields  # it lets others have the lock who want it
        self._token = run
        more = {"yields": True} if yields else {}
        since = moment(time.time())
        self._holder = json.dumps({"token": self._token, "run": run, "since": since, **more, **identity()})
        _under_way.add(self._token)
        self._until = 0.0
        self._renewed = 0.0  # when it was certainly held, on the monotonic clock
        self._grants = 0
        self._known = False  # known to a replica, if there is one: a failover gives it to no other run
        self._failure: LoaderError | None = None  # of the last renewal
        self._lost: LoaderError | None = None
        self._hear: Callable[[LoaderError], None] = lambda _: None
        self._target: RedisClient | None = None  # the run's
        self._strangers: dict[bytes, str] = {}  # tokens of runs to shut out, and the names of their connections
        self._thread: Work | None = None
        self._asking = threading.Lock()
        self._ended = threading.Event()

    def take(self, target: RedisClient) -> None:
        """Take the lock, and shut out runs that may still write; a `LoaderError` with exit code 5 names the holder.

        The lock of a dead holder is taken over. A replica knows of the lock, so that a failover gives it to no other
        run. A lock that yields is not taken while another run waits for it.
        """
        self._target = target
        if self._yields and wanted_locks(target, [self._job]):
            raise LoaderError(f"job {self._job!r} is about to be locked by a run that waits for it", kind=Kind.LOCKED)
        dead: list[str] = []
        give_up = time.monotonic() + YIELD
        wanted = False
        while held := self._ask(target, dead):
            token = held.holder["token"]
            is_dead = token not in dead and (is_gone(held.holder) or _is_over(held.holder))
            if not is_dead and held.holder.get("yields") and not self._yields and time.monotonic() < give_up:
                target.ask(self._wanted.encode(), "SET", self._wanted, self._token, "PX", WANTED)
                wanted = True
                time.sleep(ASK_EVERY)
                continue
            if not is_dead:
                raise _locked(self._job, self._key, held)
            dead.append(token)
        if wanted:
            target.ask(self._wanted.encode(), "DEL", self._wanted)
        self._shut_out(target)

    @property
    def strangers(self) -> Iterable[str]:
        """The names of the connections of runs that must not write any more."""
        return self._strangers.values()

    def keep(self, lost: Callable[[LoaderError], None]) -> None:
        """Renew the lock from now on, in its own thread."""
        self._hear = lost
        self._thread = start_thread(self._renew)

    @property
    def token(self) -> str:
        """The text that tells this run from others."""
        return self._token

    def grant(self) -> int:
        """How often the lock was granted again: values read before it expired must not be written afterwards."""
        return self._grants

    def lapsed(self) -> LoaderError | None:
        """Why nothing may be written now; None while the lock is held."""
        over = _now() - self._until
        if self._lost or over <= 0:
            return self._lost
        failure = self._failure
        why, kind = (f": {failure}", failure.kind) if failure else ("", Kind.UNAVAILABLE)
        error = LoaderError(
            f"the lock of job {self._job!r} has not been renewed for {over + TTL:.0f} s{why}", kind=kind
        )
        error.retry = Kind.UNAVAILABLE.retry
        return error

    def confirm(self) -> None:
        """Make sure that the lock is held now: the run that took it over may have closed a failed connection."""
        assert self._target
        if not self._asking.acquire(timeout=allowed(TTL)):
            raise LoaderError(
                f"redis does not answer the renewal of the lock of job {self._job!r}", kind=Kind.UNAVAILABLE
            )
        try:
            if not self._lost:
                self._hear_of(self._ask(self._target))
        finally:
            self._asking.release()
        if self._lost:
            raise self._lost

    def take_doubt(self) -> float | None:
        """Since when another run may have held the lock too, on the monotonic clock; cleared by the call.

        Values written since then may be older than those that the other run has written.
        """
        doubted, self._doubted = self._doubted, None
        return doubted

    def is_doubtful(self, grant: int) -> bool:
        """Whether another run may have had the lock since the grant of this number."""
        return grant < self._sure

    def leave(self) -> bool:
        """Stop renewing the lock; false if a renewal is in progress that may still take effect."""
        self._ended.set()
        _under_way.discard(self._token)
        if self._thread:
            self._thread.join(allowed(RENEW))
        return not (self._thread and self._thread.is_alive())

    def end(self) -> None:
        """Allow no more writes, from any thread of the run."""
        self._lost = self._lost or LoaderError(f"the run of job {self._job!r} is over")

    def release(self, target: RedisClient) -> bool:
        """Release the lock if nothing of this run can still be executed, and no other has had it; else see `drop`."""
        if self.shared or not (self.leave() and self._is_settled(target) and self._remove(target, self._token)):
            return False
        self.end()
        return True

    def drop(self, target: RedisClient) -> bool:
        """Release the lock; the fence stays, and false is returned, if commands of this run may still be executed."""
        if not self.leave():  # the renewal would undo this: the lock expires by itself
            return False
        is_settled = self._is_settled(target)
        self.end()
        self._remove(target, *[self._token] * is_settled)
        return is_settled

    def _is_settled(self, target: RedisClient) -> bool:
        return target.fences.is_settled(target.slots.nodes) and not self.lapsed()

    def _remove(self, target: RedisClient, *off: str) -> bool:
        """Release the lock, and take these and the runs that are shut out off the fence; whether it was held."""
        words: list[str | bytes] = [self._part, self._token, *off, *self._closed(target)]
        held = target.ask(self._key.encode(), "EVAL", DROP, 2, self._key, self._fence, *words)[1]
        return bool(held == 1)

    def _ask(self, target: RedisClient, dead: Sequence[str] = ()) -> _Held | None:
        """Take or renew the lock; return the holder in the way."""
        started, clock = _now(), time.monotonic()
        name = self._target.name if self._target else target.name
        words: list[str | int] = [self._part, self._token, int(TTL * 1000), self._holder, name, *dead]
        key, waits = self._key.encode(), not self._known or started > self._until
        try:
            reply, known = target.ask_known(key, "EVAL", TAKE, 2, self._key, self._fence, *words, waits=waits)
            outcome, *more = reply
            if outcome == b"foreign":
                raise _foreign(*more)
            if outcome == b"held":
                return _Held(holder_of(self._key, more[0], more[1]), int(more[2]))
        except (TargetError, ValueError, TypeError, LookupError) as error:
            if isinstance(error, TargetError) and (error.transient or error.kind.is_refusal):
                raise
            raise LoaderError(f"the lock {self._key} cannot be taken: {error}") from error
        if outcome == b"taken" or started > self._until:
            self._grants += 1  # even if no replica knows of it yet: it was gone in any case
        if outcome == b"taken":
            self._note_taken(more)
            if not waits:  # a replica knew of the lock that is gone, and none knows of this one
                return self._ask(target, dead)
        self._known = self._known or known
        if not self._known:
            raise target.unknown(f"the lock of job {self._job!r}")
        self._until, self._renewed = started + TTL, clock
        return None

    def _note_taken(self, others: Sequence[bytes]) -> None:
        """Note that nobody had the lock before, and the runs to shut out: their tokens and names."""
        if self._grants > 1:
            self.shared, self._sure = True, self._grants
            self._doubted = self._doubted or self._renewed
        pairs = zip(others[::2], others[1::2], strict=True)
        self._strangers |= {token: each.decode() for token, each in pairs}
        if self._target:
            self._target.fences.shut_out(self._strangers.values())
        self._known = False

    def _shut_out(self, target: RedisClient) -> None:
        """Make the masters close the connections of runs that left without releasing their lock; some may do so later.

        If a master cannot be told to, wait for the bytes that the host of such a run still holds.
        """
        if not self._strangers:
            return
        for node in target.slots.nodes:
            with suppress(TargetError):  # nothing is sent there before it has done so
                target.command(node, "PING")
        if target.fences.unkillable:
            time.sleep(FORGET)
        if closed := self._closed(target):
            target.ask(self._key.encode(), "EVAL", DROP, 2, self._key, self._fence, "", "", *closed)

    def _closed(self, target: RedisClient) -> list[bytes]:
        """The runs that are shut out of all masters by now."""
        return list(self._strangers) if target.fences.has_shut_out(self._strangers.values(), target.slots.nodes) else []

    def _hear_of(self, held: _Held | None) -> None:
        """Note the holder in the way of a renewal."""
        self._failure = None
        if held:
            self.shared = True
            self._lost = LoaderError(f"lost the lock: {_refusal(self._job, held)}", kind=Kind.LOCKED)
            self._hear(self._lost)

    def _renew(self) -> None:
        """Renew until the end; an expired lock is taken again if nobody has it."""
        own: RedisClient | None = None  # a worker's command to a node that hangs must not delay the renewal behind it
        while not self._lost and not self._ended.wait(RENEW if not self.lapsed() else 0.5):
            with self._asking:
                if self._lost or self._ended.is_set():
                    break
                try:
                    own = own or RedisClient(self._settings, again=True)
                    self._hear_of(self._ask(own))
                except LoaderError as error:
                    self._failure = error
                    if own:
                        own.close()
                    own = None
        if own:
            own.close()


def _foreign(key: bytes, *entry: bytes) -> StateError:
    """The error for a key of another type, or with an invalid entry."""
    return strange(key.decode(), entry[0]) if entry else of_another_type(key.decode())


def _is_over(holder: dict[str, Any]) -> bool:
    """Whether the holder is a run of this very process that has ended without being able to release its lock."""
    own = identity()
    return all(holder.get(name) == value for name, value in own.items()) and holder["token"] not in _under_way


def _locked(job: str, key: str, held: _Held) -> LoaderError:
    """The error of who is refused the lock."""
    end = "it follows the job until it is stopped" if held.holder.get("yields") else "wait until it ends"
    far = f", or `DEL {key}` if there is no such run" * (held.left > FAR)
    return LoaderError(f"{_refusal(job, held)}: {end}{far}", kind=Kind.LOCKED)


def _refusal(job: str, held: _Held) -> str:
    holder = held.holder
    return (
        f"job {job!r} is locked by run {holder['run']} (host {holder['host']}, pid {holder['pid']}, since"
        f" {holder['since']}), whose lock expires in {held.left / 1000:.0f} s unless it is renewed"
    )


def _now() -> float:
    """Seconds that advance even while this process, or the machine, is asleep."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
