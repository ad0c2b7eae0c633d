"""The tables of open jobs: looked for at the start, at a reload, and every `daemon.refresh` in a thread of its own."""

import queue
import time

from loader.config.load import Config
from loader.errors import LoaderError
from loader.jobs.expand import Expansion, expand
from loader.process import start_thread
from loader.report.log import Log

SHOWN = 10  # names of parts in a line of the log


class TableWatch:
    """Turns the config of the files into one of concrete jobs, and again whenever tables have come or gone."""

    def __init__(self, written: Config, log: Log) -> None:
        self._say = log.logger()
        self._written = written
        self._told = ""  # the last failure that was logged: each is told once
        self._answers: queue.SimpleQueue[Expansion | LoaderError] = queue.SimpleQueue()
        self._is_asking = False
        self._asked = 0.0  # on the monotonic clock
        self.config = self.set(written)

    def set(self, written: Config) -> Config:
        """Take another config of the files; a `LoaderError` if its parts clash, and then the one before stays."""
        known = getattr(self, "config", None)
        expansion = expand(written, known)
        self._written, self._asked = written, time.monotonic()
        self._tell(expansion)
        self.config = expansion.config
        return self.config

    def poll(self) -> Config | None:
        """The config with tables that have come or gone since the last call; None if there are none."""
        has_open = any(job.is_open for job in self._written.jobs.values())
        if has_open and not self._is_asking and time.monotonic() - self._asked >= self._written.daemon.refresh:
            self._is_asking, self._asked = True, time.monotonic()
            start_thread(self._look, self._written, self.config)
        try:
            answer = self._answers.get_nowait()
        except queue.Empty:
            return None
        self._is_asking = False
        if isinstance(answer, LoaderError):
            self._tell_once("tables cannot be looked for, jobs stay as they are", str(answer))
            return None
        self._tell(answer)
        if answer.config.jobs == self.config.jobs or answer.config.target is not self._written.target:
            return None
        self._tell_changes(self.config, answer.config)
        self.config = answer.config
        return self.config

    def _look(self, written: Config, known: Config) -> None:
        try:
            self._answers.put(expand(written, known))
        except LoaderError as error:
            self._answers.put(error)
        except BaseException as error:
            self._answers.put(LoaderError(f"unexpected {type(error).__name__}"))
            raise

    def _tell(self, expansion: Expansion) -> None:
        errors = "; ".join(dict.fromkeys(map(str, expansion.failures.values())))
        self._tell_once("tables of a source are not known for now, its jobs stay as they are", errors)

    def _tell_once(self, event: str, error: str) -> None:
        if error and error != self._told:
            self._say.warning(event, error=error)
        self._told = error

    def _tell_changes(self, before: Config, after: Config) -> None:
        for event, names in (
            ("tables joined", after.jobs.keys() - before.jobs.keys()),
            ("tables vanished, their jobs stop and their hashes stay", before.jobs.keys() - after.jobs.keys()),
        ):
            if names:
                some = sorted(names)
                more = f" and {len(some) - SHOWN:,} more" if len(some) > SHOWN else ""
                self._say.info(event, jobs=", ".join(some[:SHOWN]) + more)
