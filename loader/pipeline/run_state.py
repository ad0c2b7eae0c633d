"""The state that a run builds on: its slot, an earlier run's checkpoint or baseline, and the masters before it.

And the state it leaves for later runs to build on, once it owes nothing.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from secrets import token_hex
from typing import Any, Self

from loader.errors import StartOver, StateError
from loader.model import Mark, Reject
from loader.pipeline import incremental
from loader.pipeline.capacity import check_capacity
from loader.pipeline.changed_only import Changes
from loader.pipeline.job_context import JobContext, passing
from loader.pipeline.masters import Masters
from loader.pipeline.options import Options
from loader.pipeline.plan_facts import PlanFacts
from loader.pipeline.resume import unfinished
from loader.pipeline.run_notes import LOST_DIGESTS, note_fields, strange_entries
from loader.pipeline.scheduled_slot import ScheduledSlot
from loader.state.baseline import Baseline, Baselines
from loader.state.checkpoint import Checkpoint, StateStore
from loader.state.digests import Digests
from loader.state.markers import LOST, Markers, lacking
from loader.state.rejects import Rejects
from loader.state.tidy import Tidy
from loader.state_keys import own_key

MARKERS_LEAVE = 0.5  # seconds in which the markers of a run that failed are taken away
REJECTS_TOLD = 100  # rejects of earlier runs that a resumed one lists


class RunState:
    """The state that one run builds on, and leaves to later ones; `plan` reads all rows, or only changed ones.

    A run that writes leaves a marker on every master until it is over.
    """

    def __init__(self, context: JobContext, options: Options) -> None:
        target, job = context.target, context.plan.job.name
        self.plan = context.plan
        self.store = StateStore(target, job, options.shard, resumes=options.resume)
        self.rejects = Rejects(target, job)
        self.attempt = token_hex(6)  # rejects are listed by it
        self.masters = Masters(context)
        self.changes: Changes | None = None  # of a job that writes only changes
        self.resumed = False
        self.earlier: tuple[int, list[Reject]] = (0, [])  # rejects of the runs that this one resumes: how many, some
        self.notes: list[str] = []  # notes for people before the run continues
        self.late_notes: list[str] = []  # and notes once it is over
        self.erased = 0  # hashes of rows that no longer belong to the job, which no chunk contains
        self.prunes = False  # a prune is due after the run
        self._context = context
        self._options = options
        self._facts = PlanFacts(context, resumes=options.resume)
        self._tidy = Tidy(target, job)
        self._slot = ScheduledSlot(context, options.slot, self._tidy)
        self._baselines = Baselines(target, job)
        self._begun: Checkpoint | None = None  # of a run that writes, as it began
        self._built_on: Baseline | None = None  # by a run that writes only changes
        self._start: dict[str, Any] = {}  # the baseline's entry for this run
        self._full = 0.0  # when everything was last read
        self._began = time.time()  # by the target's clock, once the job is locked
        self._finished = False
        self._listed = 1  # rejects of earlier runs: more than none, unless it is known

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the markers of a run that has not finished, unless a checkpoint refers to them."""
        markers, context = self.masters.markers, self._context
        with passing(), context.leaving(MARKERS_LEAVE):  # a marker that stays does no harm
            if markers and not self._options.resume and not self._finished and not context.throttle.lapsed():
                self.store.forget(markers)

    @property
    def facts(self) -> dict[str, str]:
        """The facts of the plan, its source and its table."""
        return self._facts.of(self.plan)

    @property
    def is_full(self) -> bool:
        """Whether all rows are read, not only changed ones."""
        return self.plan.whole is None

    def take_up(self, run: str) -> Checkpoint:
        """The checkpoint to start from: an earlier run's that fits, with its rows still there, or that of a new run.

        The job is locked by then. A call that failed may be repeated.
        """
        job, options, context = self.plan.job, self._options, self._context
        self._began = context.target.time(own_key(job.name, "slot"))
        told = list(self._slot.begin())
        self._tidy.look()
        self._listed = self.rejects.count()
        self._baselines.begin()
        self.masters.look(newest=bool(job.changed_only or job.incremental))
        self.notes = [*self._tidy.told.values(), *told, *self.masters.warnings()]
        self._facts.note_table()
        facts = self._facts.of(self.plan) | ({} if options.slot is None else {"slot": str(options.slot)})
        saved = self._unfinished(facts) if options.resume and not options.restart else None
        self.resumed = saved is not None
        begun = self._resume(saved) if saved else self._start_over(run, facts)
        self.notes += note_fields(self.plan, self.store)
        context.known_fields = self.store.known
        return begun

    def _unfinished(self, facts: Mapping[str, str]) -> Checkpoint | None:
        """The checkpoint to resume from, if there is one."""
        scheduled = self._options.slot is not None
        saved, why = unfinished(self._context.target, self.store, self.plan, facts, scheduled=scheduled)
        self.notes += [why] if why else []
        return saved

    def _resume(self, saved: Checkpoint) -> Checkpoint:
        """Resume the run of a checkpoint."""
        known = [Reject(entry.key, entry.reason) for entry in islice(self.rejects.all(), REJECTS_TOLD)]
        self.earlier = (saved.rejected, known)
        self._begun = saved
        markers = Markers(self._context.target, self.store.marker, saved.run, saved.markers)
        self.notes += self.masters.mark(markers)  # masters that are new
        self._start, self._full = {**saved.start}, saved.start.get("began", self._began)
        self._find_changes()
        return saved

    def _start_over(self, run: str, facts: Mapping[str, str]) -> Checkpoint:
        """Begin a new run."""
        context = self._context
        if self._options.resume:
            check_capacity(self.plan, context.source_config, context.target, context.throttle, context.pool)
            self.store.void()  # else the new markers would vouch for it
        # Marked before the existing state is checked: a master that is emptied in between is noticed by one or the
        # other.
        markers = self.store.markers(run)
        self.notes += self.masters.mark(markers)
        self._begun = Checkpoint(run, facts, markers.keys)
        self._find_changes()
        self.begin()
        return replace(self._begun, start=self._start)

    def begin(self) -> None:
        """Note the start of an incremental run, and read only changes if that is enough."""
        if not self.plan.job.incremental or self._options.narrowed:
            return
        context, full = self._context, self._options.full or self._options.resume or self._options.restart
        baseline = None if full else self._baseline()
        doubt = self._baselines.doubt(baseline, self._facts.of(self.plan), self.masters.before) if baseline else ""
        begun = context.on_side_connection(
            lambda source: incremental.begin(
                context.plan, context.table, source, baseline, doubt, now=self._began, full=full
            )
        )
        self.plan, self._full = begun.plan, begun.full
        self._start = {"began": self._began, **incremental.kept(begun.mark)}
        self.notes += [begun.note] if begun.note else []
        if not self.is_full and (listed := self.rejects.count()):
            self.notes.append(f"rows rejected earlier are read again by --full or `loader rejects retry`: {listed:,}")

    def _baseline(self) -> Baseline | None:
        """The existing baseline; a run that writes nothing leaves one that cannot be read."""
        try:
            return self._baselines.read()
        except StateError as error:
            self.notes.append(str(error))
            return None

    def _find_changes(self) -> None:
        """Find out which rows a run that writes only changes may leave out.

        Any other run writes rows that the digests do not contain, and voids them.
        """
        job, facts = self.plan.job, self._facts.of(self.plan)
        if not job.changed_only or self._options.resume or self._options.narrowed:
            if job.incremental is None:
                self._baselines.void()
            if not job.changed_only:
                Digests(self._context.target, job.name, "").clear()
            return
        baseline = self._baseline()
        doubt = self._baselines.doubt(baseline, facts, self.masters.before) if baseline else ""
        if self._options.full:
            doubt = "--full asks for it"
        self.changes = Changes(self._context.target, self.plan, self._context.lookup(), token_hex(6))
        base = baseline.more.get("digests") if baseline and not doubt else None
        base = base if isinstance(base, str) else None
        if not self.changes.open(facts, base, baseline.facts if baseline and base else None) or doubt:
            doubt = doubt or "no run that ended well vouches for the current content"
            self.notes.append(
                f"all rows are written: {doubt}; `loader prune` finds hashes whose rows were deleted meanwhile"
            )
        else:
            self._built_on = baseline
            if not self.changes.digests.is_whole:
                self.notes.append(LOST_DIGESTS.format(job=job.name))

    def finish(self, marks: Iterable[Mark]) -> None:
        """End a run that owes nothing, as long as these marks are there; one that writes nothing leaves nothing.

        The order matters. First the lock and the table are checked, since nothing may be left of a run that was
        disturbed; then the state for later runs is stored; then the marks are checked once more, as masters may have
        lost writes since. Only after that are the records of unfinished work removed.
        """
        if not self._begun or not self.masters.markers:
            return
        if lapsed := self._context.throttle.lapsed():
            raise lapsed
        self._facts.check_table(self.plan)
        self._sweep()
        self._owe_prune(self._begun.run)
        self._keep_baseline(self._begun.run)
        self._check_marks(marks)
        self._forget(self._begun.run, self.masters.markers)
        self.late_notes += strange_entries(self.plan.job.name, self.rejects, self.changes)

    def _forget(self, run: str, markers: Markers) -> None:
        """Forget the checkpoint, and note that the slot and all earlier rejects are done."""
        self._context.with_retry(partial(self.store.forget, markers))
        self._finished = True
        if self._options.slot is not None:
            self._context.with_retry(lambda: self._slot.finish(run, self._began))
        is_whole = self.is_full and not self.resumed and not self._options.narrowed
        if is_whole and (self._listed or self.rejects.added):
            self._context.with_retry(lambda: self.rejects.remove_others(self.attempt))

    def _owe_prune(self, run: str) -> None:
        """Find out whether a prune is due by `full_every`: after a full sync, or still after an earlier one."""
        if self.plan.job.full_every is None or self._options.narrowed or self._options.resume:
            return
        if self.is_full:
            self._context.with_retry(lambda: self.store.owe_prune(run))
        self.prunes = self._context.with_retry(self.store.owes_prune)

    def _sweep(self) -> None:
        """Delete the hashes of rows that a full run of an incremental job did not find, but the previous run did."""
        context, mark = self._context, incremental.restored(self._start)
        before = context.with_retry(self._baselines.read) if mark and self.is_full else None
        if mark and before:
            lookup = context.lookup()
            self.erased = context.on_side_connection(
                lambda source: incremental.sweep(
                    lookup, context.table, source, context.target, context.throttle, before, mark
                )
            )

    def _keep_baseline(self, run: str) -> None:
        """Let the next run leave out the rows of this one, as all of them are in Redis.

        But not if a master may have lost some: then the next run reads everything. A run that changed nothing leaves
        the baseline that it was built on, whose markers were left after the last write.
        """
        retry, changes, more = self._context.with_retry, self.changes, self._start
        if not (changes or more):
            return
        now = (self.masters.before if self.masters.is_young else self.masters.now()).values()
        if self.masters.may_have_lost(now, resumed=self.resumed):
            retry(self._baselines.void)
            return
        if changes:
            retry(changes.digests.close)
            more = {"digests": changes.digests.base}
        facts, before = self._facts.of(self.plan), self._built_on if changes and changes.digests.untouched else None
        if not (before and self._baselines.covers(before, facts, now)):
            retry(lambda: self._baselines.save(run, facts, now, self._full or self._began, more))

    def _check_marks(self, marks: Iterable[Mark]) -> None:
        """Raise `StartOver` if any write was lost since everything was counted; nothing is built on this run then.

        The markers of a baseline, which are new, do not vouch for masters that were emptied before.
        """
        retry = self._context.with_retry
        try:
            if lacking(self.masters.look_back(), marks):
                raise StartOver(LOST)  # noqa: TRY301
        except StartOver:
            retry(self._baselines.void)
            raise
        if self.masters.may_have_lost(resumed=self.resumed):
            retry(self._baselines.void)
