"""A follower in a thread of a test, and configs of jobs on a server with a binlog."""

import threading
import time

from loader.config.servers import SourceConfig
from loader.errors import LoaderError
from loader.jobs.follow import Following
from loader.jobs.verify import verify
from support.database import Ear


def config_of(server, world, **job):
    """A config with one job, `job`, on the table `f`."""
    return jobs_of(server, world, job={"table": "f", "key": "f_{id}"} | job)


def jobs_of(server, world, **jobs):
    """A config of jobs by their names."""
    source = SourceConfig.model_validate(server.source_config())
    return world.config_of(jobs).model_copy(update={"source": source})


def differences(config, job="job"):
    """What an independent comparison finds: rows without a hash, other hashes, hashes without a row."""
    verdict = verify(config, config.jobs[job])
    return verdict.missing, verdict.different, verdict.extra


_running = []


class Running:
    """A follower in a thread of its own."""

    def __init__(self, config, options=None, **how):
        self.ear = Ear()
        self.following = Following(config, list(config.jobs.values()), lambda _: self.ear, options=options)
        self.results, self.errors = [], []
        self._thread = threading.Thread(target=self._run, kwargs=how)
        self._thread.start()
        _running.append(self)

    def _run(self, **how):
        try:
            self.results = self.following.run(**how)
        except LoaderError as error:
            self.errors.append(error)

    def until(self, done, seconds=30):
        """Wait for something."""
        end = time.monotonic() + seconds
        while not done():
            assert not self.errors, self.errors
            assert time.monotonic() < end, [str(event) for event in self.ear.events]
            time.sleep(0.01)

    def end(self):
        """Have it end, whatever came of it."""
        self.following.stop()
        self._thread.join(30)

    def stop(self):
        self.end()
        assert not self._thread.is_alive()
        assert not self.errors, self.errors
        return self.results


def end_all():
    """End the followers that a failed test has left: they would hold the lock of the jobs of those after it."""
    while _running:
        _running.pop().end()


def following(config):
    """A follower that has come to follow."""
    running = Running(config)
    running.until(lambda: running.following.is_following)
    return running


def caught_up(config):
    """Follow until all changes so far are in Redis; how far each job came."""
    return Following(config, list(config.jobs.values()), lambda _: Ear()).run(until_caught_up=True)
