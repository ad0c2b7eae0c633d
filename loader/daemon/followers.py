"""The jobs that the daemon follows: one stream of the binlog for those of one server, begun again when it fails."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.errors import Kind, LoaderError
from loader.jobs.follow import Following
from loader.jobs.streams import by_server
from loader.pipeline.events import RunListener
from loader.process import start_thread
from loader.report.log import Log

AGAIN_FIRST, AGAIN_MOST = 1.0, 60.0  # seconds until a follower that failed is started again, doubling
LEAVE = 10.0  # seconds that a follower has to end before the next one begins
LOOK_EVERY = 5.0  # seconds between two looks whether another follower has ended

LOG = logging.getLogger(__name__)
Listen = Callable[[JobConfig], RunListener]
Tell = Callable[[Iterable[str], str], None]  # jobs, and why they are not followed now


class Followers:
    """Follows the jobs of a config that ask for it, until `stop`; each change of them starts over."""

    def __init__(self, listen: Listen, tell: Tell, log: Log) -> None:
        self._listen = listen
        self._tell = tell
        self._log = log
        self._config: Config | None = None
        self._streams: list[_Stream] = []

    def set(self, config: Config) -> None:
        """Follow the jobs of this config from now on."""
        if self._config == config:
            return
        self.stop(LEAVE)
        self._config = config
        jobs = [job for job in config.jobs.values() if job.follow]
        self._streams = [
            _Stream(config, group, self._listen, self._tell, self._log) for group in by_server(config, jobs)
        ]

    def stop(self, seconds: float | None = None) -> None:
        """Have all end with their positions stored, and wait until they have."""
        for stream in self._streams:
            stream.ask_to_stop()
        until = None if seconds is None else time.monotonic() + seconds
        for stream in self._streams:
            stream.wait(until)
        self._streams = []


class _Stream:
    """The jobs of one server, followed in a thread that begins again when it fails."""

    def __init__(self, config: Config, jobs: list[JobConfig], listen: Listen, tell: Tell, log: Log) -> None:
        self._config = config
        self._jobs = jobs
        self._listen = listen
        self._tell = tell
        self._log = log
        self._following: Following | None = None
        self._stopping = threading.Event()
        self._thread = start_thread(self._run)

    def ask_to_stop(self) -> None:
        """Have it end with its position stored."""
        self._stopping.set()
        if self._following:
            self._following.stop()

    def wait(self, until: float | None) -> None:
        """Wait until it has ended, or until a time on the monotonic clock."""
        self._thread.join(-1 if until is None else max(0, until - time.monotonic()))

    def _run(self) -> None:
        pause = AGAIN_FIRST
        while not self._stopping.is_set():
            following = self._following = Following(self._config, self._jobs, self._listen)
            if self._stopping.is_set():
                return
            began = time.monotonic()
            try:
                following.run()
            except Exception as error:
                if self._stopping.is_set():
                    return
                if time.monotonic() - began > AGAIN_MOST:
                    pause = AGAIN_FIRST
                is_locked = isinstance(error, LoaderError) and error.kind is Kind.LOCKED
                is_fault = not isinstance(error, LoaderError | OSError)
                wait = LOOK_EVERY if is_locked else pause * random.uniform(0.75, 1.25)  # noqa: S311  # not for secrets
                why = f"unexpected {type(error).__name__}" if is_fault else str(error)  # whose text may be of a row
                self._tell((job.name for job in self._jobs), "" if is_locked else why)
                say = self._log.logger()
                (say.info if is_locked else say.error)("not followed for now", error=why, again=round(wait, 1))
                if is_fault:
                    LOG.exception("following failed: please report this")
                self._stopping.wait(wait)
                if not is_locked:
                    pause = min(AGAIN_MOST, pause * 2)
