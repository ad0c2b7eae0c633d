"""What the daemon shows of itself: its metrics, its health, its status page, and the server that they are asked of."""

import threading
from contextlib import suppress

from loader.config.load import Config
from loader.errors import LoaderError
from loader.pipeline.events import RunListener, RunListeners
from loader.process import start_thread
from loader.redis.client import RedisClient
from loader.state.history import successes
from loader.web.actions import Actions, JobControl
from loader.web.activity import RunTracker
from loader.web.api import api
from loader.web.auth import Auth
from loader.web.dashboard import Dashboard
from loader.web.health import Health
from loader.web.metrics import Metrics
from loader.web.render import Renderer
from loader.web.routes import site
from loader.web.server import Web, routes

RECALL_EVERY = 10.0  # seconds between two tries to read the history of a target that is away


class Serving:
    """The metrics and the record of a daemon, which listen to its schedule too, and its pages, at `daemon.listen`.

    Raises a `LoaderError` where it cannot listen there.
    """

    def __init__(self, config: Config, hands: JobControl) -> None:
        self.metrics = Metrics()
        self.record = RunTracker()
        self.health = Health(config.source, config.target)
        self._dashboard = Dashboard(config, self.record, self.health)
        self._ended = threading.Event()
        self._access = Auth()
        actions = Actions(self._access, hands, Renderer())
        shown = [*site(self._dashboard, Renderer(), actions.viewer), *api(self._dashboard), *actions.routes()]
        pages = [*routes(self.metrics, self.health), *shown]
        self._web = Web(config.daemon.listen, pages) if config.daemon.listen else None
        self._config = config

    @property
    def port(self) -> int | None:
        """The port that pages are served at; None where they are not."""
        return self._web.port if self._web else None

    def start(self) -> None:
        """Serve from now on."""
        self.configure(self._config)
        if self._web:
            self._web.start()

    def configure(self, config: Config) -> None:
        """Have metrics of the jobs of this config alone, and ask its servers for their health."""
        self._config = config
        self.health.configure(config.source, config.target)
        self._dashboard.configure(config)
        token = config.daemon.token
        self._access.configure(token.get_secret_value() if token else None)
        if self._web:
            self._web.hosts = config.daemon.hosts
        self.metrics.keep({name: job.max_age for name, job in config.jobs.items() if job.schedule})
        start_thread(self._recall, config)

    def listen(self, job: str, *others: RunListener) -> RunListener:
        """A listener for one run of a job: the metrics, the record, and others."""
        return RunListeners((*others, self.metrics.listen(job), self.record.listen(job)))

    def leave(self) -> None:
        """From now on not ready, while runs under way end."""
        self._ended.set()
        self.health.stop()

    def stop(self) -> None:
        """Serve no more."""
        self.leave()
        if self._web:
            self._web.stop()
        self._dashboard.close()

    def _recall(self, config: Config) -> None:
        """Read from the history when each job succeeded last, and its last runs; again while the target is away."""
        settings = config.target.within()
        while not self._ended.is_set() and config is self._config:
            with suppress(LoaderError, OSError), RedisClient(settings) as target:
                self.metrics.recall(successes(target, config.source, config.jobs))
                self._dashboard.seed(target)
                return
            self._ended.wait(RECALL_EVERY)
