"""A Dask scheduler and its workers as a run needs them; each question has an end, whatever becomes of the scheduler."""

import logging
import pickle
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from secrets import token_hex
from typing import Any

import distributed

from loader.errors import ConfigError, Kind, LoaderError
from loader.pipeline.dask_worker import PACKAGE, TOPIC, Outcome, Task, end, unlike
from loader.process import start_thread
from loader.words import counted

CONNECT = 5.0  # seconds in which the scheduler must answer
ANSWER = 1.0  # seconds that the loop of a run waits for an answer: a signal is heard then
SILENT = ("distributed", "distributed.client", "tornado.application", "asyncio")  # loggers that print tracebacks
Told = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Done:
    """A task that has ended, by its future."""

    future: Any


class DaskClient:
    """The client of a scheduler; `done` gets each task that has ended, `told` what workers tell.

    Raises a `LoaderError` with exit code 4 if no scheduler answers, and 2 if a worker has another loader.
    """

    def __init__(self, address: str, done: Callable[[Done], None], told: Told) -> None:
        self.address = address
        self.version = metadata.version(PACKAGE)
        self._done = done
        self._client = _connected(address)
        try:
            self.check_versions()
            self._client.subscribe_topic(TOPIC, lambda event: told(event[1]))
        except BaseException:
            self._client.close(CONNECT)
            raise

    @property
    def is_there(self) -> bool:
        """Whether the scheduler is connected."""
        return bool(self._client.status == "running")

    @property
    def gone(self) -> LoaderError:
        """The error once it is not."""
        return LoaderError(f"the Dask scheduler at {self.address} is gone", kind=Kind.UNAVAILABLE)

    def threads(self) -> int | None:
        """The threads of all workers; None if the scheduler does not answer."""
        if not self.is_there:
            raise self.gone
        try:
            count: int = self._client.sync(self._count, callback_timeout=ANSWER)
        except TimeoutError:
            return None
        except (OSError, RuntimeError, CancelledError) as error:
            raise self.gone from error
        return count

    async def _count(self) -> int:
        scheduler = self._client.scheduler
        assert scheduler
        counts = await scheduler.ncores(workers=None)
        return sum(counts.values())

    def submit(self, task: Task, job: str, name: str) -> Any:
        """Give a task of that name to the next free worker; its future."""
        key = job, name, token_hex(6)
        try:
            future = self._client.submit(pickle.loads, pickle.dumps(task), key=key, pure=False)
        except RuntimeError as error:  # it is closed
            raise self.gone from error
        self.watch(future)
        return future

    def watch(self, future: Any) -> None:
        """Report a task once it is done; at once if it is."""
        future.add_done_callback(lambda done: self._done(Done(done)))

    def outcome(self, future: Any, what: str) -> Outcome | None:
        """The outcome of a task that is done; None if it does not arrive, as when its worker has died meanwhile.

        Raises a `LoaderError` if there is none; `what` names the task.
        """
        try:
            outcome: Outcome = future.result(ANSWER)
        except TimeoutError:
            return None
        except (CancelledError, OSError) as error:
            raise self.gone from error
        except distributed.KilledWorker as error:
            raise LoaderError(
                f"{what} was under way at {counted(error.allowed_failures + 1, 'dask worker')}"
                f" that died, the last at {error.last_worker.address}: see why they did"
            ) from error
        except LoaderError:
            raise
        except Exception as error:
            self.check_versions()
            raise LoaderError(f"a dask worker failed: unexpected {type(error).__name__}") from error
        return outcome

    def end_run(self, run: str) -> None:
        """Tell all workers that a run is over, by its `Work.id`."""
        self._ask_workers(ANSWER, end, run)

    def close(self) -> None:
        """Leave the scheduler."""
        with suppress(Exception):  # Dask's own: nothing is left to do there
            self._client.close(ANSWER)

    def check_versions(self) -> None:
        """Raise a `ConfigError` if a worker has another loader, or none."""
        for address, version in self._ask_workers(CONNECT, metadata.version, PACKAGE).items():
            if isinstance(version, metadata.PackageNotFoundError):
                raise ConfigError(f"dask worker {address}: {unlike('no version', self.version)}")
            if isinstance(version, str) and version != self.version:
                raise ConfigError(f"dask worker {address}: {unlike(version, self.version)}")

    def _ask_workers(self, seconds: float, ask: Callable[..., object], *words: object) -> dict[str, object]:
        """The answers of all workers that give one in this time, by their addresses; errors are answers."""
        answers: dict[str, object] = {}

        def collect() -> None:
            with suppress(Exception):  # the scheduler is gone, which is noticed elsewhere
                answers.update(self._client.run(ask, *words, on_error="return"))

        start_thread(collect).join(seconds)
        return answers.copy()


class _Client(distributed.Client):
    """A client that is closed by us alone: one that never connected prints tracebacks when it is collected."""

    def __del__(self) -> None:
        """Leave it as it is."""


def _connected(address: str) -> distributed.Client:
    """A client of the scheduler; raises a `LoaderError` if none answers."""
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    answers: list[distributed.Client | Exception] = []

    def connect() -> None:
        try:
            answers.append(_Client(address, timeout=CONNECT, set_as_default=False))  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  # Dask's own, of many kinds
            answers.append(error)

    start_thread(connect).join(CONNECT + 1)  # it would wait for ever for a server of another kind
    answer = answers[0] if answers else None
    if isinstance(answer, ValueError):
        raise ConfigError(f"--dask {address}: {answer}: write the address of a scheduler, like tcp://host:8786")
    if answer is None or isinstance(answer, Exception):
        raise LoaderError(
            f"no Dask scheduler answers at {address} within {CONNECT:g} s: see --dask, and whether it runs",
            kind=Kind.UNAVAILABLE,
        ) from answer
    return answer
