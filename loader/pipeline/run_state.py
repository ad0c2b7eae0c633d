"""What a run builds on: its slot, the checkpoint or the baseline of an earlier run, and what masters had before it.

And what it leaves for later runs to build on, once nothing of it is owed.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import islice
from typing import Any, Self
from uuid import uuid4

from loader.errors import ConfigError, Done, StartOver, StateError
from loader.model import SKEW, Mark, Node, Reject
from loader.mysql import catalog
from loader.mysql.sql import fits
from loader.pipeline import incremental
from loader.pipeline.changed_only import Changes
from loader.pipeline.job_context import JobContext, passing
from loader.pipeline.load_guard import check_capacity
from loader.pipeline.options import Options
from loader.pipeline.transfer import check_table
from loader.redis.servers import Life, lives
from loader.state.baseline import Baseline, Baselines, doubt
from loader.state.checkpoint import Checkpoint, StateStore, difference
from loader.state.claim import fingerprint
from loader.state.digests import Digests
from loader.state.markers import LOST, Markers, lacking
from loader.state.rejects import Rejects
from loader.state.tidy import Tidy
from loader.state_keys import own_key

MARKERS_LEAVE = 0.5  # seconds in which the markers of a run that failed are taken away
MARKERS_EVERY = 5.0  # seconds between two looks at the markers
LOST_DIGESTS = (
    "some of what earlier runs have noted of the hashes in loader:{{{job}}}:digests is lost: those rows are written,"
    " and `loader prune` finds hashes whose rows went meanwhile"
)
NAMED = 3  # keys that a note names
REJECTS_TOLD = 100  # rejects of earlier runs that a resumed one names


class RunState:
    """The basis of one run; `plan` is what it reads: all rows, or those that were changed.

    A run that writes leaves a marker on every master until it is over.
    """

    def __init__(self, ends: JobContext, options: Options) -> None:
        self.plan = ends.plan
        self.state = StateStore(ends.target, ends.plan.job.name, options.shard, resumes=options.resume)
        self.rejects = Rejects(ends.target, ends.plan.job.name)
        self.attempt = uuid4().hex[:12]  # rejects are listed by it
        self.changes: Changes | None = None  # of a job that writes only what was changed
        self.resumed = False
        self.earlier: tuple[int, list[Reject]] = (0, [])  # rejects of the runs that this one resumes: how many, some
        self.notes: list[str] = []  # what a person should know before the run goes on
        self.late_notes: list[str] = []  # what they should know once it is over
        self.erased = 0  # hashes of rows that are the job's no longer, which no chunk holds
        self.prunes = False  # a prune is due once the run is through
        self._ends = ends
        self._options = options
        self._baselines = Baselines(ends.target, ends.plan.job.name)
        self._begun: Checkpoint | None = None  # of a run that writes, as it began
        self._start: dict[str, Any] = {}  # what the baseline will say of this run
        self._full = 0.0  # when everything was read last
        self.markers: Markers | None = None  # of a run that writes
        self._masters: dict[Node, Life] = {}  # as they were before the run
        self._lives: dict[str, Life] = {}  # the same by the id of their life
        self._marked = time.monotonic()  # when the markers were looked at last
        self._began = time.time()  # by the target's clock, once the job is locked
        self._finished = False
        self._identity: dict[str, str] = {}  # of the table, before a row of it was read
        self._tidy = Tidy(ends.target, ends.plan.job.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the markers of a run that has not finished, unless a checkpoint speaks of them."""
        with passing(), self._ends.leaving(MARKERS_LEAVE):  # a marker that stays says nothing
            if self.markers and not self._options.resume and not self._finished and not self._ends.throttle.lapsed():
                self.state.forget(self.markers)

    @property
    def is_full(self) -> bool:
        """Whether all rows are read, and not those alone that were changed."""
        return self.plan.whole is None

    def take_up(self, run: str) -> Checkpoint:
        """The checkpoint to go on from: an earlier run's that fits, with its rows still there, or that of a new run.

        The job is locked by then.
        """
        job = self.plan.job
        self._began = self._ends.target.time(own_key(job.name, "slot"))
        told = self._check_slot()
        self._tidy.look()
        self._baselines.begin()
        self._masters = lives(self._ends.target, newest=bool(job.changed_only or job.incremental))
        self._lives = {life.id: life for life in self._masters.values()}
        self.notes = [*self._tidy.told.values(), *told]
        self.notes += [
            f"redis {node} throws keys away once it is full: its maxmemory-policy is {life.policy}"
            + (", which takes the loader's own too: checkpoints, pauses, rejects" * life.policy.startswith("allkeys"))
            for node, life in self._masters.items()
            if life.policy
        ]
        self._identity = self._identify()
        facts = self._facts() | ({} if self._options.slot is None else {"slot": str(self._options.slot)})
        saved = self._unfinished(facts) if self._options.resume and not self._options.restart else None
        self.resumed = saved is not None
        if saved:
            known = [Reject(entry.key, entry.reason) for entry in islice(self.rejects.all(), REJECTS_TOLD)]
            self.earlier = (saved.rejected, known)
            self._begun = saved
            self.markers = Markers(self._ends.target, self.state.marker, saved.run, saved.markers)
            self._leave_markers()  # on masters that are new
            self._start, self._full = {**saved.start}, saved.start.get("began", self._began)
            self._find_changes()
            self._note_fields()
            return saved
        if self._options.resume:
            check_capacity(self.plan, self._ends.settings.source, self._ends.target, self._ends.throttle)
            self.state.void()  # else the new markers would vouch for it
        # Marked before what is there is looked at: a master that is emptied in between is noticed by one or the other.
        self.markers = self.state.markers(run)
        self._leave_markers()
        self._begun = Checkpoint(run, facts, self.markers.keys)
        self._find_changes()
        self.begin()
        self._note_fields()
        return replace(self._begun, start=self._start)

    def _note_fields(self) -> None:
        """Tell of fields that hashes may hold and the job has no more; those that it has now are known before a row is.

        Nothing is known before the first run that ends well.
        """
        job, now, known = self.plan.job, self.plan.field_names, self.state.fields()
        if gone := known - now:
            self.notes.append(
                f"hashes that were there before may hold fields that the job no longer has ({', '.join(sorted(gone))}):"
                f" `loader verify {job.name} --repair` deletes them"
            )
        if known:
            self.state.add_fields(now)

    def begin(self) -> None:
        """Note where a run of an incremental job begins, and read what was changed alone where that is enough."""
        if not self.plan.job.incremental or self._options.narrowed:
            return
        ends, full = self._ends, self._options.full or self._options.resume or self._options.restart
        baseline = None if full else self._baseline()
        doubt = self._baselines.doubt(baseline, self._facts(), self._masters) if baseline else ""
        begun = ends.on_side_connection(
            lambda source: incremental.begin(ends.plan, ends.table, source, baseline, doubt, now=self._began, full=full)
        )
        self.plan, self._full = begun.plan, begun.full
        self._start = {"began": self._began, **incremental.kept(begun.mark)}
        self.notes += [begun.note] if begun.note else []
        if not self.is_full and (listed := self.rejects.count()):
            self.notes.append(f"rows rejected earlier are read again by --full or `loader rejects retry`: {listed:,}")

    def _baseline(self) -> Baseline | None:
        """The baseline that is there; a run that writes nothing leaves one that cannot be read."""
        try:
            return self._baselines.read()
        except StateError as error:
            self.notes.append(str(error))
            return None

    def _leave_markers(self) -> None:
        assert self.markers
        self.markers.leave()
        self.notes += [
            f"{key} was no marker that a loader has written: it was rewritten" for key in sorted(self.markers.strange)
        ]

    def _check_slot(self) -> list[str]:
        """End where the slot was done, by another daemon or before, or where the schedule is paused; else what to tell.

        It is asked under the lock, so that a slot is done once; what was done for another statement does not count.
        """
        if self._options.slot is None:
            return []
        self.state.check_pause()
        told, done = [], self._tidy.read(self.state.slot) or {"slot": 0}
        by = f"by run {done.get('run')} (host {done.get('host')}, pid {done.get('pid')})"
        if "ahead" in done:
            ahead = f"{_moment(done['ahead'])}, which has not come yet by redis's clock"
            told.append(f"what was done for {ahead}, {by}, does not count: a clock is or was wrong")
        elif self._options.slot <= done["slot"] and done.get("of", self._fingerprint) == self._fingerprint:
            raise Done(f"job {self.plan.job.name!r} was done for {_moment(self._options.slot)} {by}")
        self.state.begin_slot(self._options.slot)
        return told

    @property
    def _fingerprint(self) -> str:
        return fingerprint(self._ends.settings.source, self.plan.job)

    def _unfinished(self, facts: Mapping[str, str]) -> Checkpoint | None:
        """The checkpoint of an earlier run of the same plan, if its markers are there; a `ConfigError` for another.

        A schedule goes on only with what was begun for the same slot: rows that were read for an earlier one are old.
        """
        scheduled = self._options.slot is not None
        try:
            saved = self.state.read()
            if saved is None:
                return None
            slot = {} if scheduled else {name: value for name, value in saved.facts.items() if name == "slot"}
            changed = difference(saved.facts, {**facts, **slot})
            if not changed and not all(fits(self.plan.walk, end) for end in saved.ends):
                raise self.state.misfit()
        except StateError as error:
            if not scheduled:
                raise
            self.notes.append(f"{error.what}: everything is loaded")
            return None
        if changed:
            if scheduled:
                self.notes.append(f"begins from the start, for there is a checkpoint of another run: {changed}")
                return None
            raise ConfigError(
                f"job {self.plan.job.name!r} has a checkpoint of another plan: {changed}:"
                " --restart forgets it and loads everything"
            )
        seen = Markers(self._ends.target, self.state.marker, saved.run, saved.markers).read()
        if lost := [key for key, there in seen.items() if there is None]:
            self.notes.append(f"the target was emptied since the checkpoint: markers are gone ({', '.join(lost)})")
            return None
        if lacking(seen, [(key, *each) for key, fields in saved.marks.items() for each in fields.items()]):
            self.notes.append("the target has lost writes since the checkpoint: a replica without them has taken over,")
            self.notes[-1] += " or a master came back from an older snapshot"
            return None
        return replace(saved, facts={**saved.facts, **facts})

    def _find_changes(self) -> None:
        """See what a run that writes only what was changed may leave out; any other writes what it does not know of."""
        job, facts = self.plan.job, self._facts()
        if not job.changed_only or self._options.resume or self._options.narrowed:
            if job.incremental is None:
                self._baselines.void()
            if not job.changed_only:
                Digests(self._ends.target, job.name, "").clear()
            return
        baseline = self._baseline()
        doubt = self._baselines.doubt(baseline, facts, self._masters) if baseline else ""
        if self._options.full:
            doubt = "--full asks for it"
        self.changes = Changes(self._ends.target, self.plan, self._ends.lookup(), uuid4().hex[:12])
        base = baseline.more.get("digests") if baseline and not doubt else None
        base = base if isinstance(base, str) else None
        if not self.changes.open(facts, base, baseline.facts if baseline and base else None) or doubt:
            doubt = doubt or "no run that ended well vouches for what is there"
            self.notes.append(f"all rows are written: {doubt}; `loader prune` finds hashes whose rows went meanwhile")
        elif not self.changes.digests.is_whole:
            self.notes.append(LOST_DIGESTS.format(job=job.name))

    def _facts(self) -> dict[str, str]:
        source = self._ends.settings.source
        return self.plan.facts() | {"source": source.address, "time zone": str(source.time_zone)} | self._place

    @cached_property
    def _place(self) -> dict[str, str]:
        """Which table it is, where rows that were read of another one would be built on.

        And in which time zone it is read, unless the config names one.
        """
        if not self.plan.job.table or not (self.plan.job.incremental or self._options.resume):
            return {}
        if self._ends.settings.source.time_zone:
            return self._identity
        ((zone,),) = self._ends.fetch("SELECT @@SESSION.time_zone")
        return self._identity | {"server's time zone": str(zone)}

    def _identify(self) -> dict[str, str]:
        """Which table it is now; nothing of a query."""
        name = self.plan.job.table
        return self._ends.on_side_connection(lambda source: catalog.identity(source, name)) if name else {}

    def _check_identity(self) -> None:
        """Begin again where rows may have been read of two tables of one name and kind."""
        if another := difference(self._identity, self._identify()):
            raise StartOver(f"table {self.plan.job.table} was replaced during the run: {another}")

    def is_time_to_look(self) -> bool:
        """Whether the markers are to be looked at again."""
        return time.monotonic() - self._marked >= MARKERS_EVERY

    def find_markers(self) -> Mapping[str, Mapping[str, int] | None]:
        """What stands in the markers; begin again where one is gone.

        Not where a full master threw keys away, which is told of anyway.
        """
        if self.markers is None:
            return {}
        self._marked = time.monotonic()
        seen = self._ends.with_retry(self.markers.read)
        lost = [key for key, there in seen.items() if there is None]
        if lost and not self.evicted():
            raise StartOver(
                f"the target was emptied during the run, in part or whole: markers are gone ({', '.join(lost)})"
            )
        return seen

    def evicted(self) -> str:
        """What masters have thrown away since the run began, in words; empty where nothing.

        Of one that has become a master meanwhile, all that it ever threw away.
        """
        if self._begun is None:
            return ""
        now = self._ends.with_retry(lambda: lives(self._ends.target))
        reset = [
            node for node, life in now.items() if (begun := self._lives.get(life.id)) and life.has_lost_count(begun)
        ]
        before = {life.process: life for life in self._lives.values()}
        counts = {node: life.evicted_since(before.get(life.process)) for node, life in now.items()}
        if told := ", ".join(f"{count:,} on {node}" for node, count in counts.items() if count):
            return f"redis has thrown keys away for want of memory while the run went on: {told}; see `loader verify`"
        if reset:
            return (
                f"redis {', '.join(map(str, reset))}: the counters were reset while the run went on, and do not tell"
                " whether keys were thrown away: see `loader verify`"
            )
        return ""

    def finish(self, marks: Iterable[Mark]) -> None:
        """Nothing is owed, as long as these marks are there: forget the checkpoint and what was rejected before."""
        begun, ends, slot = self._begun, self._ends, self._options.slot
        if not begun or not self.markers:
            return
        if lapsed := ends.throttle.lapsed():
            raise lapsed
        ends.on_side_connection(lambda source: check_table(self.plan, source))
        self._check_identity()
        self._sweep()
        self._owe_prune(begun.run)
        self._keep_baseline(begun.run)
        self._check(marks)
        ends.with_retry(partial(self.state.forget, self.markers))
        self._finished = True
        if slot is not None:  # a clock that is ahead of the target's does not say what is done
            done = slot if slot <= self._began + SKEW else int(self._began)
            ends.with_retry(lambda: self.state.save_slot(done, begun.run, self._fingerprint))
        if self.is_full and not self.resumed and not self._options.narrowed:
            ends.with_retry(lambda: self.rejects.remove_others(self.attempt))
        self._tell_of_strange()

    def _tell_of_strange(self) -> None:
        """Tell of entries and digests that no loader has written, as far as the run came upon them."""
        name = self.plan.job.name
        if strange := self.rejects.strange:
            self.late_notes.append(
                f"{len(strange):,} entries of loader:{{{name}}}:rejects were none that a loader has written: they were"
                " removed or rewritten"
            )
        if self.changes and (unread := self.changes.digests.unread):
            named = ", ".join(sorted(key.decode() for key in unread)[:NAMED])
            lost = LOST_DIGESTS.format(job=name)
            self.late_notes.append(f"{lost} ({named}: none that a loader has written; rewritten)")

    def _owe_prune(self, run: str) -> None:
        """See whether a prune is due by `full_every`: after a full sync, also one whose prune was not come to."""
        if self.plan.job.full_every is None or self._options.narrowed or self._options.resume:
            return
        if self.is_full:
            self._ends.with_retry(lambda: self.state.owe_prune(run))
        self.prunes = self._ends.with_retry(self.state.owes_prune)

    def _sweep(self) -> None:
        """Delete the hashes of rows that a full run of an incremental job did not meet, and the one before did."""
        ends, mark = self._ends, incremental.restored(self._start)
        before = ends.with_retry(self._baselines.read) if mark and self.is_full else None
        if mark and before:
            lookup = ends.lookup()
            self.erased = ends.on_side_connection(
                lambda source: incremental.sweep(lookup, ends.table, source, ends.target, ends.throttle, before, mark)
            )

    def _keep_baseline(self, run: str) -> None:
        """Have the next run leave out what this one has seen to: all its rows are in Redis.

        Not where a master has thrown keys away meanwhile, or was restarted, and has what it had saved by then;
        before a resumed run went on, no one has looked.
        """
        ends, changes, more = self._ends, self.changes, self._start
        if not (changes or more):
            return
        now = ends.with_retry(lambda: lives(ends.target)).values()
        if self._is_doubtful(now):
            ends.with_retry(self._baselines.void)
            return
        if changes:
            ends.with_retry(changes.digests.close)
            more = {"digests": changes.writer}
        ends.with_retry(lambda: self._baselines.save(run, self._facts(), now, self._full or self._began, more))
        try:
            self.find_markers()  # what was emptied before the new ones were left is not vouched for by them
        except StartOver:
            ends.with_retry(self._baselines.void)
            raise
        if self._is_doubtful(ends.with_retry(lambda: lives(ends.target)).values()):
            ends.with_retry(self._baselines.void)

    def _is_doubtful(self, now: Collection[Life]) -> bool:
        """Whether masters, as they are now, may have lost rows since the run began, though its markers are there.

        Keys may have been thrown away by one that was restarted, has taken over or lost count; before a resumed run
        went on, no one has looked. And while another run had the lock too, it may have written.
        """
        if self._ends.shared or (self.resumed and any(life.policy for life in now)):
            return True
        return any(doubt(life, self._lives.get(life.id)) for life in now)

    def _check(self, marks: Iterable[Mark]) -> None:
        """Begin again where something was lost since all was counted."""
        if lacking(self.find_markers(), marks):
            self._ends.with_retry(self._baselines.void)
            raise StartOver(LOST)


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
