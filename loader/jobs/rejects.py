"""Loads the rows of the list of rejects again."""

from collections.abc import Sequence
from dataclasses import field

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.jobs.editor import HashEditor
from loader.jobs.rows import JobRows
from loader.jobs.session import JobSession, void_baseline
from loader.model import Reject
from loader.mysql.keys import TOGETHER
from loader.pipeline.run import new_id
from loader.records import dataclass
from loader.state.rejects import Rejects

NULL_KEY = "a column of the key is NULL"  # the reason for rejecting such a row


@dataclass(slots=True)
class Retried:
    """The outcome of rejected rows: written, still rejected, gone from MySQL, or without a key."""

    job: str
    written: int = 0
    gone: int = 0
    nameless: int = 0
    rejects: list[Reject] = field(default_factory=list)


def retry(settings: Config, job: JobConfig) -> Retried:
    """Load the rejected rows of a job again, from MySQL as it is now."""
    done = Retried(job.name)
    run = new_id()
    with JobSession(settings, job, run) as session:
        void_baseline(session)
        rows = JobRows(session)
        editor = HashEditor(rows)
        rejects = Rejects(session.target, job.name)
        listed = list(rejects.all())
        keys = [entry.key for entry in listed if entry.reason != NULL_KEY and session.lookup.owns(entry.key)]
        done.nameless = len(listed) - len(keys)
        for start in range(0, len(keys), TOGETHER):
            part = keys[start : start + TOGETHER]
            refused = {reject.key: reject for reject in editor.reload(part)[1]}
            gone = set(rows.without_row(part, counted=True)) - refused.keys()
            session.check()
            rejects.add(list(refused.values()), run)
            rejects.remove([key for key in part if key not in refused])
            done.rejects += refused.values()
            done.gone += len(gone)
            done.written += len(part) - len(refused) - len(gone)
    return done


def commands_of(settings: Config, job: JobConfig, keys: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    """The HMSET that would write the hash of each key, from its current row; none if the row is gone."""
    found: dict[bytes, list[bytes]] = {}
    with JobSession(settings, job) as session:
        rows = JobRows(session)
        owned = [key for key in keys if session.lookup.owns(key)]
        for start in range(0, len(owned), TOGETHER):
            part = owned[start : start + TOGETHER]
            found |= {words[1]: words for words in rows.commands(part) if words[0] == b"HMSET" and words[1] in part}
    return found
