"""Jobs that are followed over several streams: one for each server, whatever databases the jobs are in."""

from collections.abc import Callable, Iterable, Sequence

from loader.config.load import Config
from loader.config.models import JobConfig
from loader.config.servers import SourceConfig
from loader.errors import LoaderError
from loader.jobs.follow import Followed, Following, Listen
from loader.jobs.full_pass import Begin
from loader.pipeline.options import Options
from loader.process import start_thread

Tell = Callable[[LoaderError | OSError], None]


def by_server(config: Config, jobs: Iterable[JobConfig]) -> list[list[JobConfig]]:
    """The jobs that share a stream: those of one server, with one account; open jobs only if there are no others."""
    groups: list[tuple[SourceConfig, list[JobConfig]]] = []
    for job in jobs:
        server = config.source_of(job).at_database("")
        for known, members in groups:
            if known == server:
                members.append(job)
                break
        else:
            groups.append((server, [job]))
    return [[job for job in members if not job.is_open] or members for _, members in groups]


class Streams:
    """Several `Following`, each in a thread of its own unless there is only one; `tell` hears why one has failed."""

    def __init__(
        self,
        config: Config,
        jobs: Sequence[JobConfig],
        listen: Listen,
        begin: Begin | None,
        options: Options,
        tell: Tell,
    ) -> None:
        self._each = [Following(config, group, listen, begin, options) for group in by_server(config, jobs)]
        self._tell = tell
        self.errors: list[LoaderError | OSError] = []

    def stop(self) -> None:
        """Have all end with their positions stored; safe in a signal handler."""
        for each in self._each:
            each.stop()

    def run(self, *, until_caught_up: bool = False) -> list[Followed]:
        """Follow until `stop`; how far each job came. The failure of one stream does not stop the others."""
        if len(self._each) == 1:
            return self._each[0].run(until_caught_up=until_caught_up)
        ended: list[Followed] = []
        faults: list[BaseException] = []

        def run(following: Following) -> None:
            try:
                ended.extend(following.run(until_caught_up=until_caught_up))
            except (LoaderError, OSError) as error:
                self.errors.append(error)
                self._tell(error)
            except BaseException as error:  # noqa: BLE001  # raised by the thread that waits
                faults.append(error)
                self.stop()

        threads = [start_thread(run, each) for each in self._each]
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]
        return ended
