"""The results of a job's parts as one: of `verify`, `prune` and `rejects retry`."""

from collections.abc import Sequence
from typing import Any

from loader.jobs.prune import Pruned
from loader.jobs.rejects import Retried
from loader.jobs.verify import Verdict


def verdict_of(job: str, verdicts: Sequence[Verdict], show: int) -> Verdict:
    """The verifications of a job's parts as one; the first `show` differences are kept."""
    sampled = [each.hashes for each in verdicts if each.hashes is not None]
    whole = Verdict(
        job,
        **{name: _sum(name, verdicts) for name in ("rows", "missing", "different", "extra", "repaired")},
        hashes=sum(sampled) if sampled else None,
        shown=[difference for each in verdicts for difference in each.shown][:show],
    )
    for each in verdicts:
        whole.unsure.join(each.unsure)
    return whole


def pruned_of(job: str, each: Sequence[Pruned]) -> Pruned:
    """The prunings of a job's parts as one."""
    whole = Pruned(job, **{name: _sum(name, each) for name in ("keys", "extra", "deleted")})
    whole.dry_run = any(pruned.dry_run for pruned in each)
    whole.refused = next((pruned.refused for pruned in each if pruned.refused), "")
    for pruned in each:
        whole.unsure.join(pruned.unsure)
    return whole


def retried_of(job: str, each: Sequence[Retried]) -> Retried:
    """The retries of rejects of a job's parts as one."""
    rejects = [reject for retried in each for reject in retried.rejects]
    return Retried(job, **{name: _sum(name, each) for name in ("written", "gone", "nameless")}, rejects=rejects)


def _sum(name: str, each: Sequence[Any]) -> Any:
    return sum(getattr(one, name) for one in each)
