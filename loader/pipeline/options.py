"""The options of one run, with their defaults."""

from dataclasses import field
from functools import partial

from loader.pipeline.pool import Pool
from loader.pipeline.throttle import StopRequest
from loader.records import dataclass

UNLIMITED = 1_000_000  # more than any cluster has threads
WORKERS = 2  # read and sent in parallel; more bring nothing while MySQL and Redis have the work, see benchmarks/


@dataclass(frozen=True, slots=True)
class DaskCluster:
    """The address of a Dask scheduler, and the files of the config, which its workers read too."""

    address: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """How one run differs from the job's config.

    `resume` makes the run keep a checkpoint and resume from one; `restart` forgets it first; `max_load` is a status
    variable of MySQL and the value above which the run waits; `rate` is in rows per second; `shard` (I, N) keeps the
    rows whose key's checksum leaves I - 1 when divided by N; `max_lag` is in seconds, of the configured replica; `full`
    reads everything even if a run would read only changes.

    `slot` is the time of a schedule that the run is for, in seconds since 1970: it is done once, and a checkpoint of
    another one, or of another plan, is forgotten. A run that `follows` is made so that
    its job can be followed. Another thread may use `halt` to stop the run. Runs with
    the same `pool` hand connections on to each other. With `dask`, the workers are those of that cluster.
    """

    where: str | None = None
    key_range: str | None = None
    chunk_rows: int | None = None
    dry_run: bool = False
    workers: int = WORKERS
    resume: bool = False
    restart: bool = False
    shard: tuple[int, int] | None = None
    rate: int | None = None
    max_load: tuple[str, int] | None = None
    max_lag: int | None = None
    full: bool = False
    slot: int | None = None
    follows: bool = False
    halt: StopRequest = field(default_factory=StopRequest)
    dask: DaskCluster | None = None
    pool: Pool = field(default_factory=partial(Pool, keeps=False))

    @property
    def narrowed(self) -> bool:
        """Whether options restrict the run to some of the job's rows."""
        return bool(self.where or self.key_range or self.shard)
