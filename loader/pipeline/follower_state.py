"""How far a follower is, and why it waits."""

import time
from collections.abc import Sequence
from dataclasses import field

from loader.model import FollowProgress
from loader.mysql.connection import Connection
from loader.mysql.dump import Position
from loader.pipeline.binlog_lag import BinlogLag
from loader.pipeline.followed_job import FollowedJob
from loader.records import dataclass


@dataclass(slots=True)
class FollowerState:
    """How far some jobs are that are followed over one stream; times are in seconds since 1970."""

    jobs: Sequence[FollowedJob]
    behind: BinlogLag
    current: float  # everything that was committed until then is in Redis
    is_all_read: bool = False  # the server has sent all that is in the binlog
    is_caught_up: bool = False  # and it is in Redis
    unread: str = ""  # why the binlog is not read
    unwritten: str = ""  # why nothing is written
    held: str = ""  # why no rows are to be read
    heard: Position = field(default_factory=Position)  # where the binlog ended when the server had nothing more to send

    @property
    def lag(self) -> float:
        """Seconds since the last commit that is in Redis; 0 if all is."""
        return 0.0 if self.is_caught_up else max(0.0, time.time() - self.current)

    @property
    def waiting(self) -> str:
        """Why nothing is read or written now; empty if nothing waits."""
        slow = (job.context.throttle.reason for job in self.jobs)
        return self.unwritten or self.held or next(filter(None, slow), "") or self.unread

    def advance(self, place: Position, committed: int) -> None:
        """All before this place is in Redis, of which the last transaction was committed then."""
        self.current = max(self.current, committed)
        self.behind.advance(place)

    def turn(self, *, is_caught_up: bool) -> bool:
        """Note whether all is in Redis; whether that is news."""
        has_turned, self.is_caught_up = is_caught_up != self.is_caught_up, is_caught_up
        if is_caught_up:
            self.current = time.time()
            self.behind.advance(self.heard)
        return has_turned

    def progress(self, source: Connection | None) -> FollowProgress:
        """What is told of it; over a connection that is free, if there is one, it is asked how long the binlog is."""
        self.behind.look(source, is_caught_up=self.is_caught_up)
        changes, keys, written, deleted = map(sum, zip(*(job.counts for job in self.jobs), strict=True))
        return FollowProgress(
            self.lag,
            self.is_caught_up,
            changes,
            keys,
            written,
            deleted,
            self.waiting,
            self.behind.bytes,
            {job.name: job.changes for job in self.jobs},
            {job.name: job.keys for job in self.jobs},
        )

    def save(self) -> None:
        """Store the position of each job, and how far it is behind."""
        for job in self.jobs:
            job.save(self.lag, self.behind.bytes, self.waiting)
