"""The daemon: runs jobs on their schedules until it is stopped; its config can be reloaded while it runs."""

import ctypes
import gc
import os
import queue
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from loader.config.load import Config, load_config
from loader.config.models import JobConfig, ScheduleConfig
from loader.config.servers import ANSWER_TIME
from loader.daemon.clocks import Clocks
from loader.daemon.followers import Followers
from loader.daemon.listeners import ScheduleListener
from loader.daemon.pauses import Pauses
from loader.daemon.schedule import Schedule
from loader.daemon.schedule_logger import ScheduleLogger
from loader.daemon.systemd import notify, watchdog
from loader.daemon.tables import TableWatch
from loader.doctor.findings import clock
from loader.errors import ConfigError, LoaderError, Paused, StateError
from loader.jobs.execute import execute
from loader.jobs.follow import check_all
from loader.jobs.rejects import retry
from loader.model import SKEW, Run
from loader.outcome import Outcome
from loader.pipeline.events import RunListener
from loader.pipeline.options import Options
from loader.pipeline.pool import Pool
from loader.pipeline.throttle import StopRequest
from loader.process import start_thread
from loader.redis.client import RedisClient
from loader.report.follow_progress import FollowReporter
from loader.report.log import Log
from loader.report.progress import Reporter
from loader.state.holders import holders
from loader.state.schedule import ScheduleState
from loader.web.app import Serving
from loader.web.metrics import FollowMetrics
from loader.web.views import Action
from loader.words import counted

ARENAS = 2  # of malloc: threads come and go; with the usual eight per core the daemon grew by a tenth in five minutes
M_ARENA_MAX = -8  # in glibc's malloc.h
RESUME_EVERY = 10.0  # seconds between two searches for interrupted runs while the target is away
CLOCKS_EVERY = 5.0  # seconds between two checks of the target's clocks
BEAT = 1.0  # seconds between two checks of signals, the clock and the watchdog
STALLED = 10.0  # seconds without activity of the clock's thread after which systemd is no longer notified
SWEEP = 10.0  # seconds between two collections: finished clients refer to themselves, and keep their buffers
FINISH = 12.0  # seconds that running chunks have to finish once the daemon is stopped
LEAVE = 25.0  # seconds after which it ends in any case: systemd kills it after 35


class Daemon:
    """Runs the jobs of a config that have a schedule."""

    def __init__(self, files: Sequence[Path], log: Log, config: Config) -> None:
        self._tables = TableWatch(config, log)
        self.config = self._before = config = self._tables.config
        timed(config)
        self.serving = Serving(config, self)
        self._clocks = Clocks()
        skips = ScheduleLogger(log, lambda: self.serving.backlog.behind)
        listeners: list[ScheduleListener] = [skips, self.serving.metrics, self.serving.record]
        listeners.append(self.serving.backlog)
        self.schedule = Schedule(self._work, listeners, config.daemon.jobs_at_once, self._clocks.now)
        self._followers = Followers(self._listen_to_follower, self.serving.record.unfollowed, log)
        self._files = files
        self._log = log
        self._say = log.logger()
        self._halt = StopRequest()
        self._pool = Pool()  # of all runs
        self._pauses = Pauses()
        self._swept = time.monotonic()
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        _limit_arenas()
        _raise_files()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._hear)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the entry has kept it back
        self._log.take_over()
        self.serving.start()
        start_thread(self._keep_clocks)
        self._clocks.asked.wait(ANSWER_TIME)
        self.schedule.set(timed(self.config))
        self.schedule.start()
        self._followers.set(self.config)
        start_thread(self._resume)
        self._say.info("daemon started", jobs=_count(self.config), pid=os.getpid(), port=self.serving.port)
        notify(READY=1, STATUS=_works(self.config))
        gc.collect()
        gc.freeze()  # keep objects that exist now out of collections, which then take a millisecond, not fifty
        while (told := self._wait()) in {0, signal.SIGHUP}:
            if told:
                self._reload()
            self._beat()
        self._stop(told)
        self.serving.stop()
        self._say.info("daemon stopped")
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(0)  # a thread may wait for a server that hangs

    def _hear(self, number: int, _: object) -> None:
        """Note a signal; a second one that asks to stop ends the process at once."""
        if number != signal.SIGHUP:
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, signal.SIG_DFL)
        self._signals.put(number)

    def _wait(self) -> int:
        """The next signal; 0 after a second without one."""
        try:
            return self._signals.get(timeout=BEAT)
        except queue.Empty:
            return 0

    def _beat(self) -> None:
        if config := self._tables.poll():
            self._take(config)
        self.schedule.beat()
        if late := self.serving.backlog.news():
            self._say.warning("schedules are not kept", why=late)
        if time.monotonic() - self._swept > SWEEP:
            gc.collect()
            self._swept = time.monotonic()
        if watchdog() and time.monotonic() - self.schedule.turned < STALLED:
            notify(WATCHDOG=1)

    def _work(self, name: str, due: int) -> Run:
        """Run a job for a due time of its schedule.

        A job that reads all its rows keeps a checkpoint, so that a run that was cut off resumes when it is retried.
        """
        config = self.config
        if name not in config.jobs:  # a reload may remove it at this moment
            config = self._before
        job = config.jobs[name]
        try:
            # again under the lock; MySQL may be why
            self._pauses.check(name, lambda: self._pool.reach(config.target.within()))
        except Paused as paused:
            return Run(job=name, id="", outcome=Outcome(paused.kind, str(paused)))
        options = Options(resume=has_checkpoint(job), slot=due, halt=self._halt, pool=self._pool)
        return execute(config, job, options, self.serving.listen(name, Reporter(name, "log", self._log)))

    def _listen_to_follower(self, job: JobConfig) -> RunListener:
        return self.serving.listen(
            job.name, FollowReporter(job.name, "log", self._log), FollowMetrics(self.serving.metrics)
        )

    def knows(self, job: str) -> bool:
        """Whether the config has such a job."""
        return job in self.config.jobs

    def act(self, job: str, action: Action, by: str) -> bool:
        """Run a job, retry its rejects, pause or resume its schedule; False if it is in progress, here or elsewhere.

        Raises a `LoaderError` if the target cannot be reached.
        """
        config, done = self.config, True
        if action in {Action.RUN, Action.RETRY}:
            with RedisClient(config.target) as target:
                if any(not each.yields for each in holders(target, job)):
                    return False
            done = self.schedule.by_hand(job, lambda: self._by_hand(job, action))
        else:
            with RedisClient(config.target) as target:
                schedule = ScheduleState(target, job)
                (schedule.pause if action is Action.PAUSE else schedule.resume)()
        self._log.logger(job).info("action", action=action.value, by=by, done=done)
        return done

    def _by_hand(self, name: str, action: Action) -> None:
        """Do what was requested, with the current config."""
        config = self.config
        if name not in config.jobs:
            self._log.logger(name).warning("action dropped: the job was taken out of the config", action=action.value)
        elif action is Action.RUN:
            self._run(config, name)
        else:
            self._retry(config, name)

    def _run(self, config: Config, name: str) -> None:
        listener = self.serving.listen(name, Reporter(name, "log", self._log))
        execute(config, config.jobs[name], Options(halt=self._halt, pool=self._pool), listener)

    def _retry(self, config: Config, name: str) -> None:
        say = self._log.logger(name)
        try:
            done = retry(config, config.jobs[name])
        except (LoaderError, OSError) as error:
            say.error("rejects were not tried again", error=str(error))
        else:
            left = len(done.rejects) + done.nameless
            say.info("rejects were tried again", written=done.written, gone=done.gone, rejected=left)

    def _resume(self) -> None:
        """Resume runs that were interrupted or failed before their due time was done, as by a restart of the daemon."""
        while not self._halt.asked:
            try:
                with RedisClient(self.config.target) as target:
                    target.refresh(force=True)
                    for name in timed(self.config):
                        try:
                            done = ScheduleState(target, name).slot() or {}
                        except StateError as error:
                            self._log.logger(name).warning("what was cut off is not known", error=str(error))
                            continue
                        if (begun := done.get("begun", 0)) > done.get("slot", 0):
                            self.schedule.take_up(name, begun)
                    return
            except (LoaderError, OSError):
                time.sleep(RESUME_EVERY)

    def _keep_clocks(self) -> None:
        """Follow the target's clock, by which due times come, and warn if it differs from this machine's."""
        told = 0.0
        while not self._halt.asked:
            with suppress(LoaderError, OSError):
                found = self._clocks.look(self.config.target)
                node, ahead = max(found.items(), key=lambda each: abs(each[1]))
                if abs(ahead - told) > SKEW:
                    told = ahead
                    self._say.warning(f"slots follow redis's clock: {clock(ahead, str(node)).seen}")
            time.sleep(CLOCKS_EVERY)

    def _reload(self) -> None:
        """Reload the config; a broken one is refused, and the old one kept."""
        notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
        try:
            config = self._tables.set(load_config(self._files))
            timed(config)
        except (LoaderError, OSError) as error:
            for line in str(error).splitlines():
                self._say.error("config refused, the old one is kept", error=line)
            notify(READY=1, STATUS="the config is broken, the old one is kept")
            return
        if config.daemon.listen != self.config.daemon.listen:
            self._say.warning("daemon.listen takes effect when the daemon is restarted")
        self._take(config)
        self._say.info("config reloaded", jobs=_count(config))

    def _take(self, config: Config) -> None:
        """Work by this config from now on."""
        jobs = timed(config)
        self._before, self.config = self.config, config
        self.serving.configure(config)
        self.schedule.set_places(config.daemon.jobs_at_once)
        self.schedule.set(jobs)
        self._followers.set(config)
        notify(READY=1, STATUS=_works(config))

    def _stop(self, number: int) -> None:
        """Let runs finish the chunks they have begun, then stop them, then abandon them."""
        began = time.monotonic()
        notify(STOPPING=1, STATUS="stopping")
        self._say.info("daemon stopping", signal=signal.Signals(number).name)
        self.serving.leave()
        self.schedule.stop()
        self._halt.asked = True
        self._followers.stop(FINISH)
        if not self.schedule.wait(FINISH):
            self._halt.now = True
            if not self.schedule.wait(began + LEAVE - time.monotonic()):
                self._say.warning("runs are left behind: a server does not answer")


def _limit_arenas() -> None:
    """Make glibc allocate from few arenas, see mallopt(3); does nothing elsewhere."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def _raise_files() -> None:
    """Allow as many file descriptors as this process may have."""
    with suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def timed(config: Config) -> Mapping[str, ScheduleConfig]:
    """The schedules of a config by job; a `ConfigError` if it has nothing for the daemon to do."""
    found = {name: job.schedule for name, job in config.jobs.items() if job.schedule}
    if not found and not any(job.follow for job in config.jobs.values()):
        raise ConfigError(
            "no job has a schedule: add one to a job, like `schedule: {every: 30s}`, or follow its table:"
            " `follow: true`"
        )
    check_all([job for job in config.jobs.values() if job.follow])
    return found


def has_checkpoint(job: JobConfig) -> bool:
    """Whether a run of the job can resume an interrupted one."""
    return not job.incremental and not job.changed_only


def _count(config: Config) -> int:
    """How many jobs the daemon runs or follows."""
    return sum(bool(job.schedule or job.follow) for job in config.jobs.values())


def _works(config: Config) -> str:
    """What the daemon does, in a line."""
    jobs = config.jobs.values()
    counts = {"scheduled": sum(bool(job.schedule) for job in jobs), "followed": sum(bool(job.follow) for job in jobs)}
    return ", ".join([counted(_count(config), "job"), *(f"{count} {how}" for how, count in counts.items() if count)])
