"""Up to where in the binlog the hashes of a job are known to follow their rows, in its target.

`loader:{job}:position` is written behind what it vouches for: the rows of all transactions before it were read after
them, and acknowledged. Markers on the masters tell of one that has lost some of that since, see `markers`.
"""

from collections.abc import Mapping
from dataclasses import field, replace

from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.key_reader import KeyReader
from loader.state.stored_json import recalled, text_of
from loader.state_keys import foreign, own_key, spread_key
from loader.wire.gtids import GtidPosition, GtidSet

VERSION = 1
SEEN_EVERY = 10.0  # seconds after which a follower stores a position that has not changed
SILENCE = 2.5 * SEEN_EVERY  # seconds without that from which on it may be stuck


@dataclass(frozen=True, slots=True)
class Reach:
    """What a follower said of itself when it stored a position; counts are since it began.

    `lag_bytes` is how much of the binlog was not in Redis, None if it did not know; `waiting` is why it waited.
    """

    lag_bytes: int | None = None
    waiting: str = ""
    changes: int = 0
    keys: int = 0
    written: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class FollowedPosition:
    """Where a job is read on from: a file and an offset of the binlog, and the GTIDs before it if the server has them.

    `server` is who wrote that binlog. `facts` is what the job was planned from. `owed` says why all rows have to be
    read first, empty if they were. `committed` is when the last transaction before it was, in seconds since 1970.
    `seen` is when it was taken or stored last, by the target's clock, and `lag` how many seconds it was behind then.
    `run`, `markers` and `marks` are as in a checkpoint: what has to stand in the markers as long as nothing is lost.
    """

    server: str
    file: str
    offset: int
    gtids: str | None
    facts: Mapping[str, str]
    run: str
    owed: str = ""
    committed: int = 0
    seen: float = 0.0
    lag: float = 0.0
    markers: tuple[str, ...] = ()
    marks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reach: Reach = Reach()

    @property
    def is_taken(self) -> bool:
        """Whether it says from where to read on; else a new position has to be taken before all rows are read."""
        return bool(self.file) or self.gtids is not None

    @property
    def text(self) -> str:
        """The same for people."""
        return self.gtids or f"{self.file}:{self.offset}"

    @property
    def current(self) -> float:
        """Up to when everything that was committed is in Redis, in seconds since 1970."""
        return max(self.committed, self.seen - self.lag)

    def age(self, now: float, *, is_running: bool) -> float | None:
        """Seconds for which changes may be missing in Redis; None if nobody knows.

        A follower that runs stores the position every few seconds, changed or not: its word counts until the next
        time, unless it waits.
        """
        if self.owed or not self.seen:
            return None
        silence = max(0.0, now - self.seen)
        is_heard = is_running and silence < SILENCE and not self.reach.waiting
        return self.lag if is_heard else self.lag + silence

    def lost(self, why: str) -> "FollowedPosition":
        """What is left if nothing can be read on from there: that all rows have to be read, and why."""
        return replace(self, file="", offset=0, gtids=None, owed=why, markers=(), marks={}, reach=Reach())

    def settled(self, markers: tuple[str, ...], now: float) -> "FollowedPosition":
        """The same once all rows were read, with the markers that vouch for them; changes since then may be missing."""
        return replace(self, owed="", markers=markers, seen=now, lag=max(0.0, now - self.seen))


def position_of(target: KeyReader, job: str) -> FollowedPosition | None:
    """The position of a job; None if there is none, a `StateError` if this program did not write it."""
    key = own_key(job, "position")
    text = target.ask(key.encode(), "GET", key)[1]
    if text is None:
        return None
    try:
        found = recalled(FollowedPosition, text, VERSION)
        _check_gtids(found.gtids or "")
    except ValueError as error:
        raise foreign(key, f"cannot be read ({error})") from error
    return found


def _check_gtids(text: str) -> None:
    """Raise a `ValueError` if a text is neither a GTID set of MySQL nor a GTID position of MariaDB."""
    try:
        GtidSet(text)
    except ValueError:
        GtidPosition(text)


class Positions:
    """The position of one job in its target."""

    def __init__(self, target: RedisClient, job: str) -> None:
        self._target = target
        self._job = job
        self.marker = spread_key("following", job)
        self._key = own_key(job, "position")

    def now(self) -> float:
        """What time it is by the target's clock."""
        return self._target.time(self._key)

    def read(self) -> FollowedPosition | None:
        """The position; None if there is none, a `StateError` if this program did not write it."""
        return position_of(self._target, self._job)

    def save(self, position: FollowedPosition, lag: float, reach: Reach) -> FollowedPosition:
        """Replace the position, in one command, and note when, and how far it is behind."""
        position = replace(position, seen=self.now(), lag=lag, reach=reach)
        text = text_of(position, VERSION)
        self._target.ask(self._key.encode(), "SET", self._key, text)
        return position

    def keep(self, position: FollowedPosition) -> None:
        """Replace the position for good: a failover does not undo it."""
        text = text_of(position, VERSION)
        self._target.keep(self._key.encode(), ("SET", self._key, text))
