"""The daemon's HTTP side: its metrics, its health, its status page, and the server that serves them."""

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
from loader.web.backlog import Backlog
from loader.web.dashboard import Dashboard
from loader.web.health import Health
from loader.web.metrics import Metrics
from loader.web.render import Renderer
from loader.web.routes import site
from loader.web.server import Web, routes

RECALL_EVERY = 10.0  # seconds between two attempts to read the history of an unreachable target


class Serving:
    """The metrics and the record of a daemon, which also listen to its schedule, and its pages, at `daemon.listen`.

    Raises a `LoaderError` if it cannot listen there.
    """

    def __init__(self, config: Config, hands: JobControl) -> None:
        self.metrics = Metrics()
        self.record = RunTracker()
        self.backlog = Backlog(config)
        self.metrics.count_behind(lambda: len(self.backlog.behind))
        self.health = Health(config.named_sources.values(), config.target)
        self._dashboard = Dashboard(config, self.record, self.health, self.backlog)
        self._ended = threading.Event()
        self._access = Auth()
        actions = Actions(self._access, hands, Renderer())
        shown = [*actions.routes(), *site(self._dashboard, Renderer(), actions.viewer), *api(self._dashboard)]
        pages = [*routes(self.metrics, self.health), *shown]
        self._web = Web(config.daemon.listen, pages) if config.daemon.listen else None
        self._config = config

    @property
    def port(self) -> int | None:
        """The port that serves the pages; None if none does."""
        return self._web.port if self._web else None

    def start(self) -> None:
        """Start serving."""
        self.configure(self._config)
        if self._web:
            self._web.start()

    def configure(self, config: Config) -> None:
        """Keep only metrics of this config's jobs, and check the health of its servers."""
        self._config = config
        self.health.configure(config.named_sources.values(), config.target)
        self.backlog.configure(config)
        self._dashboard.configure(config)
        token = config.daemon.token
        self._access.configure(token.get_secret_value() if token else None)
        if self._web:
            self._web.hosts = config.daemon.hosts
        followed = {name for name, job in config.jobs.items() if job.follow}
        jobs = {name: job.max_age for name, job in config.jobs.items() if job.schedule or job.follow}
        self.metrics.keep(jobs, followed)
        start_thread(self._recall, config)

    def listen(self, job: str, *others: RunListener) -> RunListener:
        """A listener for one run of a job: the metrics, the record, and others."""
        return RunListeners((*others, self.metrics.listen(job), self.record.listen(job)))

    def leave(self) -> None:
        """Report not ready from now on, while running jobs end."""
        self._ended.set()
        self.health.stop()

    def stop(self) -> None:
        """Stop serving."""
        self.leave()
        if self._web:
            self._web.stop()
        self._dashboard.close()

    def _recall(self, config: Config) -> None:
        """Read each job's last success and last runs from the history; retries while the target is unreachable."""
        settings = config.target.within()
        while not self._ended.is_set() and config is self._config:
            with suppress(LoaderError, OSError), RedisClient(settings) as target:
                self.metrics.recall(successes(target, config))
                self._dashboard.seed(target)
                return
            self._ended.wait(RECALL_EVERY)
