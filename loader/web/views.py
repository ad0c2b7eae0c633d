"""What the status page shows, as values: the dashboard makes them, the pages draw them. No I/O.

Times are in seconds since 1970, durations in seconds, sizes in bytes.
"""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from loader.jobs.status import JobStatus
from loader.records import dataclass
from loader.redis.servers import ClusterState
from loader.state.history import RunRecord
from loader.web.failures import Failures

MINUTES = 60  # of `JobView.rates`
CELLS = 400  # of a grid at most: beyond that, several chunks share a cell
LISTED = 200  # rejects on a page


@dataclass(frozen=True, slots=True)
class Progress:
    """A run in progress in this daemon; `waits` says why it waits, empty if it does not."""

    run: str
    began: float
    rows: int
    expected: int | None  # by MySQL's estimate
    rate: float  # rows a second, lately
    eta: float | None
    chunks: int  # that are loaded
    waits: str
    loads: bool = True  # or it still prepares, and has no lock yet


@dataclass(frozen=True, slots=True)
class Unfollowed:
    """Why a job that is to be followed is not, and since when, in seconds since 1970."""

    since: float
    why: str


@dataclass(frozen=True, slots=True)
class JobView:
    """One job; `status.state` is `unknown` while the target cannot be reached, and `paused` if it is."""

    status: JobStatus
    schedule: str  # in words, like "every 30s" or "cron */15 * * * * (Europe/Berlin)"; empty: it has none
    due: float | None  # when its next run begins, jitter included
    max_age: int | None
    rates: tuple[float, ...]  # rows a second of each of the last `MINUTES` minutes, oldest first
    progress: Progress | None
    part_of: str = ""  # the job of many tables that it is a part of; empty: it is a job by itself
    failures: Failures | None = None  # since it last ended well
    is_known: bool = True  # or its target does not answer, and `status` is what was known last
    asked: float | None = None  # when `status` was read; None: never
    is_followed: bool = False  # its config asks for it
    unfollowed: Unfollowed | None = None  # it is not, though the daemon tries

    @property
    def is_sure(self) -> bool:
        """Whether all of its state could be read, so that what is missing is not there."""
        return self.is_known and not self.status.unread

    @property
    def runs_by_itself(self) -> bool:
        """Whether it runs again without anybody's doing."""
        return bool(self.schedule) or self.is_followed

    @property
    def lag(self) -> float | None:
        """Seconds for which changes may be missing in Redis, of a job that is followed now; None if it is not known."""
        follow = self.status.follow
        return self.status.follow_lag if follow and follow.is_running else None

    @property
    def waits(self) -> str:
        """Why nothing is brought over now, of a job that is followed; empty if it is."""
        follow = self.status.follow
        return follow.position.reach.waiting if follow and follow.is_running else ""

    @property
    def age(self) -> float | None:
        """The seconds that `max_age` limits: since the last success, or less if it is followed; None if unknown."""
        success = self.status.success
        ages = [self.status.follow_lag, None if success is None else max(0.0, self.status.now - success.ended)]
        return min((age for age in ages if age is not None), default=None)


@dataclass(frozen=True, slots=True)
class NodeView:
    """One master; values that it did not answer are None, and `problem` says why."""

    node: str
    ranges: tuple[tuple[int, int], ...]  # slots, both ends included
    keys: int | None = None
    used: int | None = None
    limit: int | None = None  # maxmemory; None: no limit
    replicas: int | None = None
    written: int = 0  # rows, by this daemon since its start
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The target; its `state` is that of `loader cluster`."""

    state: ClusterState
    cluster: bool  # or one standalone server
    nodes: tuple[NodeView, ...]
    unowned: tuple[tuple[int, int], ...]  # slots, both ends included
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole daemon; `problems` are those of both sides, a sentence each."""

    now: float
    seen: float  # when the target was asked last
    started: float  # this daemon
    host: str
    source: str  # host:port/database
    target: str
    jobs: tuple[JobView, ...]
    cluster: ClusterView | None  # None: no answer yet
    problems: tuple[str, ...]
    rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # of jobs with parts, as those of a `JobView`


class CellState(StrEnum):
    """What became of chunks."""

    LOADED = "loaded"
    RETRIED = "retried"  # loaded, not at the first try
    REJECTS = "rejects"  # loaded, with rejected rows
    WAITING = "waiting"
    OWED = "owed"


@dataclass(frozen=True, slots=True)
class Cell:
    """Chunks of a run, from `first` to `last`."""

    first: int
    last: int
    state: CellState
    rows: int
    rejects: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Grid:
    """The chunks of the run in progress, or of the last one, in this daemon; `of` is their number, if known."""

    run: str
    ended: bool
    of: int | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class JobPage:
    """One job in full."""

    now: float
    view: JobView
    entries: tuple[RunRecord, ...] | None  # the newest 50, newest first; None: not known
    grid: Grid | None
    config: str  # YAML, without secrets
    statement: str  # empty: unknown, see `why`
    sample: tuple[str, str] | None  # a node and the command that a row becomes, masked unless values may be shown
    why: str  # why statement or sample are missing


@dataclass(frozen=True, slots=True)
class RejectView:
    """A row that could not be written; its key is masked unless values may be shown."""

    key: str
    slot: int | None  # None if the key is masked
    node: str
    reason: str
    first: float
    last: float
    attempts: int


@dataclass(frozen=True, slots=True)
class RejectsPage:
    """The rejects of a job, the latest `LISTED` of `count`, latest first."""

    now: float
    view: JobView
    count: int | None  # None: not known
    rejects: tuple[RejectView, ...]
    masked: bool
    why: str = ""  # why some of them are unknown


class Action(StrEnum):
    """An action that a person may take on a job."""

    RUN = "run"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"  # its rejects


class Notice(StrEnum):
    """The result of an action just taken, of signing in too."""

    RUN = Action.RUN.value
    PAUSE = Action.PAUSE.value
    RESUME = Action.RESUME.value
    RETRY = Action.RETRY.value
    BUSY = "busy"
    AWAY = "away"
    REFUSED = "refused"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks: whether there are `actions` at all (a token is configured), and whether this one may take them."""

    actions: bool = False
    signed_in: bool = False
    notice: Notice | None = None  # of the action just taken
