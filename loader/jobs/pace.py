"""Whether jobs are run as often as their schedules ask for, and what would help if not."""

import math
from collections.abc import Collection, Mapping
from contextlib import suppress

from loader.config.models import JobConfig
from loader.errors import StateError
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.key_reader import Question
from loader.redis.prefetch import Prefetched
from loader.state.history import History
from loader.state_keys import own_key
from loader.words import counted

NAMED = 3  # jobs named in a sentence
SPARE = 1.25  # times the places that are needed on average: runs do not come evenly
RECENT = 10  # intervals, and a minute, after which a last run says nothing: the daemon may have been stopped
BUSY = 0.85  # of a core: Python runs on one at a time, so more places bring nothing beyond


@dataclass(frozen=True, slots=True)
class Pace:
    """Jobs that are `behind` their schedule, out of `total` with one; `took` are seconds of a run, by job.

    `every` are seconds between two due times; `places` is `daemon.jobs_at_once`; `busy` is the share of a core that
    the daemon uses, if it is known.
    """

    behind: Collection[str]
    total: int
    took: Mapping[str, float]
    every: Mapping[str, int]
    places: int
    busy: float = 0.0

    @property
    def needed(self) -> float:
        """Places that the schedules take on average; a job that has not run yet is taken for a usual one."""
        known = {job: seconds for job, seconds in self.took.items() if job in self.every}
        usual = sum(known.values()) / max(1, len(known))
        return sum(known.get(job, usual) / seconds for job, seconds in self.every.items())

    @property
    def too_slow(self) -> list[str]:
        """The jobs behind whose own run takes longer than the time between two."""
        return [job for job in self.behind if job in self.every and self.took.get(job, 0.0) > self.every[job]]

    def __str__(self) -> str:
        """A sentence for people; empty if no job is behind."""
        if not self.behind:
            return ""
        names = ", ".join(sorted(self.behind)[:NAMED]) + (", …" if len(self.behind) > NAMED else "")
        verb = "is" if len(self.behind) == 1 else "are"
        return (
            f"{len(self.behind):,} of {counted(self.total, 'schedule')} {verb} not kept ({names}):"
            f" {self._why()}: {self.help}"
        )

    def _why(self) -> str:
        if slow := self.too_slow:
            job = max(slow, key=lambda each: self.took[each])
            return f"a run of {job} takes {self.took[job]:.1f} s, and is due every {self.every[job]} s"
        if self.busy > BUSY:
            return "the daemon has no more CPU time"
        return f"their runs take {self.needed:.1f} of the {counted(self.places, 'place')} of daemon.jobs_at_once"

    @property
    def help(self) -> str:
        """What would help."""
        ways = []
        if self.busy <= BUSY and not self.too_slow:
            ways.append(f"`daemon.jobs_at_once: {max(self.places + 1, math.ceil(self.needed * SPARE))}`")
        elif self.busy > BUSY:
            ways.append("a second daemon with the same config")
        times = max(2.0, self.needed / self.places, *(self.took[job] / self.every[job] for job in self.too_slow))
        ways.append(f"intervals {math.ceil(times)} times as long")
        ways.append("`follow: true` instead of a schedule")
        return ", or ".join(ways)


def intervals(jobs: Mapping[str, JobConfig]) -> dict[str, int]:
    """Seconds between two due times of each job that has a fixed interval."""
    return {name: job.schedule.every for name, job in jobs.items() if job.schedule and job.schedule.every}


def paced(target: RedisClient, jobs: Mapping[str, JobConfig], places: int) -> Pace:
    """The pace of jobs with a fixed interval, by the last scheduled run of each in the target.

    One that began, or lasted, longer than its interval after its due time is behind.
    """
    every = intervals(jobs)
    keys = {name: own_key(name, "runs") for name in every}
    asked: list[Question] = [(key.encode(), ("LRANGE", key, 0, 0)) for key in keys.values()]
    replies = Prefetched(target, [*asked, *((key.encode(), ("TIME",)) for key in keys.values())])
    behind, took = [], {}
    for name, seconds in every.items():
        history = History(replies, name)
        with suppress(StateError):  # reported by the checks of the job
            for run in history.last():
                if run.slot is None or history.now() - run.ended > RECENT * seconds + 60:
                    continue
                took[name] = run.ended - run.began
                if max(run.began - run.slot, took[name]) > seconds:
                    behind.append(name)
    return Pace(behind, len(every), took, every, places)
