"""The facts of a run's plan, which a later run compares, and whether its table is still the same."""

from functools import cached_property

from loader.errors import StartOver
from loader.model import Table
from loader.mysql import catalog
from loader.mysql.plan import Plan
from loader.pipeline.job_context import JobContext
from loader.pipeline.transfer import check_table
from loader.state.checkpoint import difference


class PlanFacts:
    """The facts of a run's plan, its source and its table; a run that `resumes` is particular about the table."""

    def __init__(self, context: JobContext, *, resumes: bool) -> None:
        self._context = context
        self._job = context.plan.job
        self._resumes = resumes
        self._identity: dict[str, str] = {}  # of the table, before a row of it was read

    def note_table(self) -> None:
        """Note the table's identity, before a row of it is read."""
        self._identity = self._identify(self._context.table) if self._job.table else {}

    def of(self, plan: Plan) -> dict[str, str]:
        """All facts of a run with that plan, by name."""
        source = self._context.source_config
        return plan.facts() | {"source": source.address, "time zone": str(source.time_zone)} | self._place

    def check_table(self, plan: Plan) -> None:
        """Raise `StartOver` if rows may have been read from another table than the one that was planned for."""
        now = self._context.on_side_connection(lambda source: check_table(plan, source))
        if now and (another := difference(self._identity, self._identify(now))):
            raise StartOver(f"table {self._job.table} was replaced during the run: {another}")

    @cached_property
    def _place(self) -> dict[str, str]:
        """The table's identity, if a later run would build on its rows.

        And the time zone in which it is read, if the config does not name one.
        """
        if not self._job.table or not (self._job.incremental or self._resumes):
            return {}
        if self._context.source_config.time_zone:
            return self._identity
        zone = self._context.on_side_connection(catalog.time_zone)
        return self._identity | {"server's time zone": zone}

    def _identify(self, table: Table) -> dict[str, str]:
        return self._context.on_side_connection(lambda source: catalog.identity(source, table))
