"""The contents of the status page as values: the dashboard makes them, the pages render them. No I/O.

Times are in seconds since 1970, durations in seconds, sizes in bytes.
"""

from dataclasses import dataclass

from loader.jobs.status import JobStatus
from loader.state.history import RunRecord

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


@dataclass(frozen=True, slots=True)
class JobView:
    """One job; `status.state` is `unknown` while the target cannot be reached, and `paused` if it is."""

    status: JobStatus
    schedule: str  # in words, like "every 30s" or "cron */15 * * * * (Europe/Berlin)"; empty: by hand only
    due: float | None  # when its next run begins, jitter included
    max_age: int | None
    rates: tuple[float, ...]  # rows a second of each of the last `MINUTES` minutes, oldest first
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class NodeView:
    """One master; values that it did not answer are None, and `problem` says why."""

    node: str
    ranges: tuple[tuple[int, int], ...]  # slots, both ends included
    keys: int | None
    used: int | None
    limit: int | None  # maxmemory; None: no limit
    replicas: int | None
    written: int  # rows, by this daemon since its start
    problem: str


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The target; `state` is ok, moving or fail, as in `loader cluster`, or unknown: it has not answered lately."""

    state: str
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


@dataclass(frozen=True, slots=True)
class Cell:
    """Chunks of a run, from `first` to `last`; `state` is loaded, retried, rejects, waiting or owed."""

    first: int
    last: int
    state: str
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
    entries: tuple[RunRecord, ...]  # the newest 50, newest first
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
    count: int
    rejects: tuple[RejectView, ...]
    masked: bool
    why: str = ""  # why some of them are unknown


@dataclass(frozen=True, slots=True)
class Viewer:
    """The viewer: whether there are `actions` at all (a token is configured), and whether this one may use them.

    `notice` is the outcome of an action just taken: run, pause, resume, retry, busy, away, refused, wait, or empty.
    """

    actions: bool = False
    signed_in: bool = False
    notice: str = ""
