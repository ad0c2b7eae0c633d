"""A follower in a thread of its own."""

import threading
import time

from loader.errors import LoaderError
from loader.jobs.follow import Following
from support.database import Ear


class Running:
    """A follower of all jobs of a config, and the events that it told."""

    def __init__(self, config, options=None):
        self.ear = Ear()
        self.following = Following(config, list(config.jobs.values()), lambda _: self.ear, None, options)
        self.results, self.errors = [], []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self.results = self.following.run()
        except LoaderError as error:
            self.errors.append(error)

    def until(self, done, seconds=30):
        end = time.monotonic() + seconds
        while not done():
            assert not self.errors, self.errors
            assert time.monotonic() < end, [str(event) for event in self.ear.events]
            time.sleep(0.01)

    def stop(self):
        self.following.stop()
        self._thread.join(30)
        assert not self.errors, self.errors
        return self.results
