"""The texts of a job's config, keys and commands on a page."""

from collections.abc import Mapping, Sequence

from loader.config.files import as_yaml
from loader.config.models import JobConfig, ScheduleConfig
from loader.formats import duration
from loader.report.values import command_text, shown

MASK = "•••"
DURATIONS = frozenset({"ttl", "deadline", "full_every", "max_age", "lag", "every", "jitter"})  # keys, in seconds


def config_text(job: JobConfig) -> str:
    """The config of a job as YAML."""
    return as_yaml({job.name: effective(job)})


def effective(job: JobConfig) -> dict[str, object]:
    """All keys of a job that have a value, with the values in effect, as in a config."""
    return _given(job.model_dump(mode="json"))


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: _written(name, value) for name, value in values.items() if value is not None and value != []}


def _written(name: str, value: object) -> object:
    if isinstance(value, dict) and name != "fields":
        return _given(value)
    if name in DURATIONS and isinstance(value, int):
        return duration(value)
    return f"{value}%" if name == "ttl_jitter" else value


def in_words(schedule: ScheduleConfig) -> str:
    """When a job runs, in the words of the config."""
    jitter = f", up to {duration(schedule.jitter)} later" if schedule.jitter else ""
    return (
        f"every {duration(schedule.every)}" if schedule.every else f"{schedule.cron} ({schedule.timezone})"
    ) + jitter


def masked(job: JobConfig) -> str:
    """The part of each key of a job that may be shown."""
    return job.prefix + MASK


def sample_text(job: JobConfig, words: Sequence[bytes], *, shows_values: bool) -> str:
    """A command that writes a hash of a job; only the names of its fields unless values may be shown."""
    if shows_values:
        return command_text(list(words))
    names = [shown(word) if place % 2 == 0 else MASK for place, word in enumerate(words[2:])]
    return " ".join([shown(words[0]), masked(job), *names])
