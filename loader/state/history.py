"""The finished runs of a job, newest first, in its target under `loader:{job}:runs`; the last good one is kept apart.

`loader:{job}:success` has the last run that ended well and loaded everything that the job asks for: there may be more
failures than the list holds.
"""

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from getpass import getuser
from typing import Any

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.config.servers import ANSWER_TIME, SourceConfig, TargetConfig
from loader.errors import LoaderError, StateError, Stopped
from loader.model import Run, starter
from loader.outcome import Outcome, Status
from loader.process import start_thread
from loader.records import dataclass
from loader.redis.client import RedisClient
from loader.redis.key_reader import KeyReader
from loader.state.baseline import read_baseline
from loader.state.claim import fingerprint
from loader.state.stored_json import LATEST, recalled, text_of
from loader.state_keys import foreign, own_key

VERSION = 1
KEPT = 200  # runs of a job
COUNTS = ("read", "written", "unchanged", "deleted", "rejected")
ERROR_KEPT = 500  # characters of an error
# KEYS: the runs, the last good one, the rejects. ARGV: the entry, 1 if it is a good one, the index of the last entry to
# keep, the seconds that the run took if its times are to be filled in. Returns how many rejects are listed, -1 if that
# is unknown.
ADD = """
if redis.replicate_commands then redis.replicate_commands() end
local text = ARGV[1]
if ARGV[4] ~= '' then
  local time = redis.call('TIME')
  local now = time[1] + time[2] / 1000000
  local times = string.format('"began": %.3f, "ended": %.3f', now - ARGV[4], now)
  text = string.gsub(text, '"began": @, "ended": @', times, 1)
end
if ARGV[2] == '1' then redis.call('SET', KEYS[2], text) end
local count = redis.pcall('LPUSH', KEYS[1], text)
if type(count) == 'table' then return count end
if count > ARGV[3] + 1 then redis.call('LTRIM', KEYS[1], 0, ARGV[3]) end
local listed = redis.pcall('HLEN', KEYS[3])
return type(listed) == 'number' and listed or -1
"""
AWAY_TIME = 1  # seconds that a target has to take a run's entry if it, or MySQL, was not reached by the run


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A finished run. Times are in seconds since 1970; `seconds` lasts from its plan to its last chunk.

    `partial` says that options left rows of the job out; `of` is the fingerprint of the job at that time, None if
    unknown.
    """

    job: str
    run: str
    began: float
    ended: float
    seconds: float
    status: Status
    exit_code: int
    full: bool
    partial: bool
    resumed: bool
    slot: int | None
    rows: Mapping[str, int]
    bytes: int
    chunks: Mapping[str, int]
    error: str | None
    host: str
    of: str | None = None
    follows: bool = False  # it read all rows so that its job could be followed

    @property
    def by(self) -> str:
        """What started it: `schedule`, `follow` or `hand`."""
        return starter(self.slot, follows=self.follows)

    @property
    def is_by_hand(self) -> bool:
        """Whether a person started it."""
        return self.slot is None and not self.follows

    @property
    def machine(self) -> str:
        """The host that it ran on."""
        return self.host.rpartition("@")[2]

    @property
    def user(self) -> str:
        """Who ran it by hand; empty if that is unknown, or nobody did."""
        return self.host.rpartition("@")[0]

    @property
    def is_success(self) -> bool:
        """Whether it ended well, apart from rejected rows, and covered the whole job."""
        return self.status.is_success and not self.partial


def entry_of(run: Run, *, partial: bool = False, of: str | None = None) -> RunRecord:
    """The entry of a run that is over now, by this machine's clock."""
    return RunRecord(
        job=run.job,
        run=run.id,
        began=round(run.began, 3),
        ended=round(time.time(), 3),
        seconds=round(run.seconds, 3),
        status=run.status,
        exit_code=int(run.exit_code),
        full=run.full,
        partial=partial,
        resumed=run.resumed,
        slot=run.slot,
        rows={name: getattr(run, name) for name in COUNTS},
        bytes=run.bytes,
        chunks={"total": run.chunks, "done": run.chunks_done, "retried": run.chunks_retried},
        error=run.error[:ERROR_KEPT] if run.error else None,
        host=_whence(run),
        of=of,
        follows=run.follows,
    )


def _whence(run: Run) -> str:
    """The host of this process, and the user before it if a person started the run: `anna@laptop`."""
    user = _user() if run.by == "hand" else ""
    return f"{user}@{socket.gethostname()}" if user else socket.gethostname()


@lru_cache(1)
def _user() -> str:
    """Who started this process; empty if that is a number without a name."""
    with suppress(OSError, KeyError):
        return getuser()
    return ""


class History:
    """The history of one job in its target."""

    def __init__(self, target: KeyReader, job: str) -> None:
        self._target = target
        self._runs = own_key(job, "runs")
        self._success = own_key(job, "success")
        self._rejects = own_key(job, "rejects")
        self.odd: StateError | None = None  # why entries were left out of the last answer

    def add(self, entry: RunRecord, took: float | None = None) -> int | None:
        """Put a run before the others, and drop the oldest; return how many rejects are listed, None if unknown.

        If it says how many seconds it `took`, it ends now, by the target's clock.
        """
        text = text_of(entry, VERSION)
        if took is not None:
            text = text.replace(_times(entry.began, entry.ended), _times("@", "@"), 1)
        keys = 3, self._runs, self._success, self._rejects
        words = text, int(entry.is_success), KEPT - 1, "" if took is None else f"{took:.6f}"
        listed = int(self._target.ask(self._runs.encode(), "EVAL", ADD, *keys, *words)[1])
        return None if listed < 0 else listed

    def last(self, most: int = 1) -> list[RunRecord]:
        """The newest runs, newest first; those that this program did not write are left out, see `odd`."""
        texts, entries, why = self._ask(self._runs, "LRANGE", 0, most - 1), [], ""
        for text in texts:
            try:
                entries.append(_read(text))
            except ValueError as error:
                why = str(error)
        left = len(texts) - len(entries)
        told = f"has {left} of {len(texts)} entries that cannot be read, and are left out ({why})"
        self.odd = foreign(self._runs, told) if left else None
        return entries

    def success(self) -> RunRecord | None:
        """The last run that ended well and covered the whole job; a `StateError` if it cannot be read."""
        text = self._ask(self._success, "GET")
        try:
            return None if text is None else _read(text)
        except ValueError as error:
            raise foreign(self._success, f"cannot be read ({error})") from error

    def now(self) -> float:
        """The time by the clock that dates runs, in seconds since 1970."""
        return self._target.time(self._runs)

    def _ask(self, key: str, command: str, *words: str | int) -> Any:
        return self._target.ask(key.encode(), command, key, *words)[1]


def _times(began: object, ended: object) -> str:
    """The times of an entry, as it is stored."""
    return f'"began": {began}, "ended": {ended}'


@lru_cache(1024)  # callers that read many jobs each second get the same entries
def _read(text: bytes) -> RunRecord:
    """An entry; a `ValueError` says why this program did not write it."""
    entry = recalled(RunRecord, text, VERSION)
    if not entry.rows.keys() >= set(COUNTS) or not entry.chunks.keys() >= {"total", "done", "retried"}:
        raise ValueError("counts are missing")
    if (entry.slot or 0) > LATEST:
        raise ValueError("slot is not a time")
    return entry


@contextmanager
def _own_client(settings: TargetConfig) -> Iterator[RedisClient]:
    with RedisClient(settings) as target:
        yield target


Reach = Callable[[TargetConfig], AbstractContextManager[RedisClient]]


def keep(settings: Config, job: JobConfig, run: Run, *, partial: bool, reach: Reach = _own_client) -> str:
    """Put a run into its job's history, and note the target's state of the job; return why that failed, if it did.

    The run is dated by the target's clock, by which its age is computed. The outcome of the run does not depend on
    this, except for a signal that arrives meanwhile.
    """
    failures: list[Exception] = []
    patience = AWAY_TIME if run.outcome.is_unreachable else ANSWER_TIME
    entry = entry_of(run, partial=partial, of=fingerprint(settings.source_of(job), job))
    took = time.monotonic() - run.started

    def write() -> None:
        try:
            with reach(settings.target.within(patience)) as target:
                with suppress(StateError):  # which readers are told
                    run.watermark = watermark(target, job)
                listed = History(target, job.name).add(entry, took)
                run.listed = run.listed if listed is None else listed
        except Exception as error:  # noqa: BLE001  # reported by the run's caller
            failures.append(error)

    try:
        thread = start_thread(write)  # abandoned if many nodes each take their time not to answer
        thread.join(patience + 1)
    except Stopped as stop:
        run.outcome = Outcome(stop.kind, str(stop))
        return ""
    except LoaderError as error:  # no more threads
        failures.append(error)
    else:
        if thread.is_alive():
            failures.append(LoaderError("redis does not answer"))
    if failures and not isinstance(failures[0], LoaderError | OSError):
        raise failures[0]
    return str(failures[0]) if failures and run.outcome.is_success else ""  # a failed run has reported it itself


def watermark(target: KeyReader, job: JobConfig) -> float | None:
    """Up to when an incremental job has what was changed: when its last run that counts began, by the target's.

    In seconds since 1970; None if unknown, a `StateError` if it cannot be read.
    """
    baseline = read_baseline(target, job.name) if job.incremental else None
    return baseline.began if baseline else None


def was_loaded(settings: Config, job: JobConfig) -> bool:
    """Whether a job has ever ended well; false if the target does not answer at once."""
    try:
        with RedisClient(settings.target.within()) as target:
            return History(target, job.name).success() is not None
    except LoaderError:
        return False


def successes(target: RedisClient, config: Config) -> dict[str, float]:
    """When each job, as configured now, last succeeded, in seconds since 1970; jobs that never did are left out."""
    found = {}
    for name, job in config.jobs.items():
        with suppress(StateError):  # reported by the status of the job
            if (entry := History(target, name).success()) and is_of(entry, config.source_of(job), job):
                found[name] = entry.ended
    return found


def is_of(entry: RunRecord, source: SourceConfig, job: JobConfig) -> bool:
    """Whether a run was of the job as configured now, as far as is known."""
    return entry.of in {None, fingerprint(source, job)}
