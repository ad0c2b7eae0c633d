"""State that a run can do without and rewrites: deleted if no loader has written it."""

from collections.abc import Callable
from typing import TypeVar

from loader.errors import StateError
from loader.redis.client import RedisClient
from loader.state.baseline import Baselines
from loader.state.checkpoint import StateStore
from loader.state.digests import Digests
from loader.state.history import History
from loader.state.rejects import Rejects

T = TypeVar("T")


class Tidy:
    """The state of one job, for a run that has locked it; `told` describes invalid state, by its key."""

    def __init__(self, target: RedisClient, job: str) -> None:
        self.told: dict[str, str] = {}
        self._target = target
        self._job = job

    def look(self) -> None:
        """Delete all invalid state, except what only a person can fix."""
        target, job = self._target, self._job
        history = History(target, job)
        for read in (
            history.success,
            history.last,
            Rejects(target, job).count,
            Baselines(target, job).read,
            Digests(target, job, "").check,
            StateStore(target, job).fields,
        ):
            self.read(read)
        if history.odd:
            self.told[history.odd.key] = str(history.odd)

    def read(self, ask: Callable[[], T]) -> T | None:
        """The content; None if it was invalid, and is deleted."""
        try:
            return ask()
        except StateError as error:
            self._target.ask(error.key.encode(), "DEL", error.key)
            self.told[error.key] = f"{error.what}: it was removed and will be rewritten"
            return None
