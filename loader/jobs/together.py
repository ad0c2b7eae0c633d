"""Runs several jobs at once, within one budget of workers; a signal stops them all."""

import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.errors import LoaderError, Stopped
from loader.model import Run
from loader.outcome import Outcome
from loader.pipeline.options import Options
from loader.pipeline.signals import signals_heard
from loader.process import start_thread

LEAVE = 30.0  # seconds that runs have to end after a signal: each ends its workers within ten
LOOK_EVERY = 0.5  # seconds between two checks of a stop

RunOne = Callable[[JobConfig, Options], Run]


def at_once(config: Config, jobs: Sequence[JobConfig], options: Options) -> int:
    """How many of these jobs may run at the same time.

    As many as there are workers; one if a rate is for all together, if a Dask cluster is, or if the account may have
    few connections: a run needs one beside those of its workers.
    """
    if options.rate or options.dask or len(jobs) < 2:
        return 1
    count = min(options.workers, len(jobs))
    for name in dict.fromkeys(job.origin.source for job in jobs):
        with suppress(LoaderError):  # each run says so
            connection = options.pool.source(config.named_sources[name])
            try:
                most = connection.most_connections()
            finally:
                options.pool.leave_source(connection)
            count = count if most is None else min(count, max(1, most // 2))
    return count


def run_together(jobs: Sequence[JobConfig], options: Options, count: int, run_one: RunOne) -> Iterator[Run]:
    """Run jobs, at most `count` at the same time, and yield the runs in the order of the jobs.

    Jobs that write under the same prefix run one after the other. After a signal no other job begins, and those that
    have begun end as they would by themselves.
    """
    together = _Together(jobs, options, run_one)
    with signals_heard(together.stop):
        yield from together.runs(count)


class _Together:
    """The runs of some jobs, each chain of jobs with one prefix in a thread."""

    def __init__(self, jobs: Sequence[JobConfig], options: Options, run_one: RunOne) -> None:
        self._jobs = jobs
        self._options = options
        self._run_one = run_one
        self._stop: Stopped | None = None
        self._ended: queue.SimpleQueue[tuple[str, Run | BaseException] | None] = queue.SimpleQueue()
        chains: dict[str, deque[JobConfig]] = {}
        for job in jobs:
            chains.setdefault(job.prefix, deque()).append(job)
        self._chains = deque(chains.values())

    def stop(self, stop: Stopped) -> None:
        """Stop all runs, from a signal handler."""
        self._stop = stop
        self._options.halt.asked = self._options.halt.now = True

    def runs(self, count: int) -> Iterator[Run]:
        """Start the threads, and yield the runs in the order of the jobs."""
        threads = [start_thread(self._work) for _ in range(min(count, len(self._chains)))]
        found: dict[str, Run] = {}
        wanted, left = deque(self._jobs), len(threads)
        while left:
            if (ended := self._next()) is None:
                left -= 1
                continue
            name, run = ended
            if isinstance(run, BaseException):
                raise run
            found[name] = self._told(run)
            while wanted and wanted[0].name in found:
                yield found.pop(wanted.popleft().name)
        yield from (found[job.name] for job in wanted if job.name in found)  # a signal came before those in between

    def _next(self) -> tuple[str, Run | BaseException] | None:
        left = LEAVE
        while True:
            with suppress(queue.Empty):
                return self._ended.get(timeout=LOOK_EVERY)
            if self._stop:
                left -= LOOK_EVERY
                if left <= 0:
                    raise self._stop

    def _told(self, run: Run) -> Run:
        """A run that ended because of the signal says so."""
        if self._stop and run.outcome.is_stop:
            run.outcome = Outcome(self._stop.kind, str(self._stop))
        return run

    def _work(self) -> None:
        """Run one chain of jobs after another."""
        with suppress(IndexError):
            while not self._stop:
                for job in self._chains.popleft():
                    if self._stop:
                        break
                    try:
                        self._ended.put((job.name, self._run_one(job, self._options)))
                    except BaseException as error:  # noqa: BLE001  # raised in the main thread
                        self._ended.put((job.name, error))
        self._ended.put(None)
