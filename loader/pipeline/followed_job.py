"""One job that is followed: the rows of changed keys are read again and written, hashes whose row is gone deleted."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

from loader.errors import StartOver
from loader.model import Mark, Reject
from loader.mysql.connection import Connection
from loader.mysql.dump import Position
from loader.mysql.followed_key import FollowedKey
from loader.mysql.forms import NUMBERS, TIMES
from loader.mysql.key_text import KeyText, mismatch, zone_of
from loader.mysql.keys import KeyMatcher
from loader.pipeline.deleter import HashDeleter
from loader.pipeline.job_context import JobContext
from loader.pipeline.ledger import Ledger
from loader.pipeline.transfer import check_table, to_last, transfer
from loader.records import dataclass
from loader.redis.writer import PipelineWriter
from loader.state.baseline import Baselines
from loader.state.markers import GONE, Markers
from loader.state.position import SEEN_EVERY, FollowedPosition, Positions, Reach
from loader.state.rejects import Rejects
from loader.wire.codec import Encoder
from loader.wire.encoder import split_keys
from loader.wire.row_images import Keys
from loader.wire.slots import SlotMap
from loader.wire.table_map import FollowedTable, TableMap

TOGETHER = 900  # keys in one statement: MariaDB makes a subquery of a thousand
COMPARED_EXACTLY = NUMBERS | TIMES  # types of columns of which no value equals another that has another text
REMEMBERED = 200_000  # keys that can be written again one by one: about 20 MB

ChangedKeys = tuple[FollowedTable, Keys]


@dataclass(frozen=True, slots=True, eq=False)
class Flush:
    """The keys whose rows were written at once, and the marks that vouch for them."""

    changed: tuple[ChangedKeys, ...]
    marks: tuple[Mark, ...]

    @property
    def weight(self) -> int:
        """How many keys there are."""
        return 1 + sum(len(keys) for _, keys in self.changed)


class FollowedJob:
    """A job, locked by whoever follows it; `position` is where it was read up to when it was opened.

    `lock` is what statements end in that read rows again, see `Barrier`.
    """

    def __init__(self, context: JobContext, position: FollowedPosition, key: FollowedKey, lock: str = "") -> None:
        self.context = context
        self.key = key
        self.name = context.plan.job.name
        self.changes = self.keys = self.written = self.deleted = 0
        self._position = self._saved = position
        self._told = float("-inf")  # when the position was stored last, on the monotonic clock
        self._positions = Positions(context.target, self.name)
        self._lookup = KeyMatcher(context.plan, key.result, context.settings.longer(context.plan.job))
        self._is_one_to_one = key.is_unique and all(column.type in COMPARED_EXACTLY for column in key.columns)
        self._deleter = HashDeleter(context.plan, self._lookup, context.target, context.throttle)
        self._lock = f"\n{lock}" if lock else ""
        self._readers: dict[FollowedTable, Callable[[Collection[bytes]], list[tuple[bytes, ...]]]] = {}
        self._markers = Markers(context.target, self._positions.marker, position.run, position.markers, passing=False)
        self._marking = self._markers.field(0)
        self._ledger = Ledger[Flush](REMEMBERED)
        self._ledger.vouch((key, *each) for key, fields in position.marks.items() for each in fields.items())
        self._rejects = Rejects(context.target, self.name)
        self._rejected: set[bytes] = set()  # keys on the list of rejects
        self._slots: SlotMap | None = None
        self._grant = context.throttle.grant()  # of the lock, for which all is in Redis
        self._writer: PipelineWriter | None = None
        self._owed: list[ChangedKeys] = []  # was written, and is lost
        zone = context.source_config.time_zone
        self._zone = zone_of(zone) if zone else None  # of the sessions that read rows

    @property
    def table(self) -> tuple[str, str]:
        """Database and table whose changes count."""
        return self.context.source_config.database, self.key.table.name

    @property
    def position(self) -> FollowedPosition:
        """Up to where all that the binlog tells is in Redis."""
        return self._position

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Changes that the binlog told, keys whose rows were read, hashes written and deleted."""
        return self.changes, self.keys, self.written, self.deleted

    @property
    def start(self) -> Position:
        """From where the binlog has to be read."""
        return Position(self._position.file, self._position.offset, self._position.gtids)

    def open(self) -> None:
        """Leave the markers, and know which rows were rejected; no digest of a row says any longer what its hash is."""
        if self.context.plan.job.changed_only:
            Baselines(self.context.target, self.name).void(under_way=True)
        self._markers.leave()
        self._slots = self.context.target.slots
        self._rejected = {entry.key for entry in self._rejects.all()}

    def close(self) -> None:
        """Drop the connections."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def key_columns(self, table: TableMap) -> tuple[int, ...]:
        """The columns of the job's key in a table of the binlog; `StartOver` if it is not the one of the plan."""
        definition = self.key.table
        if why := mismatch(table, definition.columns):
            raise StartOver(f"table {definition.name}: {why}")
        return tuple(definition.columns.index(column) for column in self.key.columns)

    def flush(self, changed: Sequence[ChangedKeys], source: Connection) -> None:
        """Read the rows of these keys again, write them, and delete the hashes of those that are gone."""
        source.use(self.table[0])
        grant = self.context.throttle.grant()
        values = self._values(changed)
        writer = self._open_writer(grant)
        try:
            written, deleted = self._write(values, source, writer)
            kept = writer.await_replicas()
            self.context.throttle.hold(grant)
        except BaseException:
            self.close()
            raise
        self._ledger.add(Flush(tuple(changed), kept.marks))
        self.keys += len(values)
        self.written += written
        self.deleted += deleted

    def check(self, source: Connection) -> None:
        """Raise `StartOver` if the table is no longer what the plan was made for."""
        source.use(self.table[0])  # jobs of other databases share the connection
        check_table(self.context.plan, source)
        self.key.check(source)

    def restore(self, source: Connection) -> int:
        """Write again what a master has lost, or another run may have written over; how many keys.

        Until that is done, no position is stored: what stands in the stored one tells of the loss, should this end.
        """
        seen, grant = self._markers.read(), self.context.throttle.grant()
        if None in seen.values():
            raise StartOver(GONE)
        lost = self._ledger.lost(seen)
        if (since := self.context.take_doubt()) is not None:
            lost += self._ledger.since(since)
        self._ledger.strike(lost.__contains__)
        self._owed += (changed for flush in lost for changed in flush.changed)
        count = sum(len(keys) for _, keys in self._owed)
        if self._owed:
            self.flush(self._owed, source)
            self._owed = []
        self._grant = grant
        slots = self.context.target.slots
        if self._slots and slots.parts != self._slots.parts:
            self._ledger.vouch(self._markers.note_moves())
        self._slots = slots
        return count

    @property
    def is_doubtful(self) -> bool:
        """Whether another run may have had the lock since it was looked last, and no position may be stored."""
        return self.context.is_doubtful(self._grant)

    @property
    def has_moved(self) -> bool:
        """Whether other nodes own slots than when it was looked last."""
        return self.context.target.slots is not self._slots

    def advance(self, resume: Position, committed: int) -> None:
        """Everything before `resume` is in Redis."""
        self._position = replace(
            self._position,
            file=resume.file,
            offset=resume.offset,
            gtids=resume.gtids,
            committed=committed,
            markers=self._markers.keys,
            marks=self._ledger.by_marker(),
        )

    def save(self, lag: float, lag_bytes: int | None, waiting: str) -> None:
        """Store the position, if there is news of it, or was none for a while; `lag` is in seconds."""
        has_turned = lag == 0 < self._saved.lag or waiting != self._saved.reach.waiting
        is_news = has_turned or self._position is not self._saved
        if self._owed or self.is_doubtful or not (is_news or time.monotonic() - self._told >= SEEN_EVERY):
            return
        reach = Reach(lag_bytes, waiting, *self.counts)
        self._position = self._saved = self._positions.save(self._position, lag, reach)
        self._told = time.monotonic()

    def owe(self, why: str) -> None:
        """Note that all rows have to be read before the job is followed on."""
        self._positions.keep(self._position.lost(why))

    def _values(self, changed: Sequence[ChangedKeys]) -> list[tuple[bytes, ...]]:
        """The texts of the key's columns, each once, in an order that MySQL reads fast."""
        found: list[tuple[bytes, ...]] = []
        for followed, keys in changed:
            read = self._readers.get(followed)
            if read is None:
                read = self._readers[followed] = self._reader(followed)
            found += read(keys)
        return found if len(changed) == 1 else sorted(set(found))

    def _reader(self, followed: FollowedTable) -> Callable[[Collection[bytes]], list[tuple[bytes, ...]]]:
        """What reads the texts of the job's key out of the raw keys of a table, which may have other columns too."""
        columns = self.key.table.columns
        text = KeyText(followed, [columns[number] for number in followed.key], self._zone)
        order = tuple(followed.key.index(columns.index(column)) for column in self.key.columns)
        if order == tuple(range(len(followed.key))):
            return text.each
        return lambda keys: sorted({tuple(texts[number] for number in order) for texts in text.each(keys)})

    def _write(
        self, values: Sequence[tuple[bytes, ...]], source: Connection, writer: PipelineWriter
    ) -> tuple[int, int]:
        """Write the rows of these keys, and delete the hashes of those without a row; how many of each."""
        bring = partial(self._bring, values, source, writer)
        (encoders, gone), acks = to_last(self.context.plan, bring, writer, writer.drain)
        rejects = (*(reject for encoder in encoders for reject in encoder.rejects), *acks.rejects)
        deleted, _ = self._deleter.erase(gone, source, writer) if gone else (0, [])
        self._list(rejects, encoders, gone)
        return sum(acks.rows.values()), deleted

    def _bring(
        self, values: Sequence[tuple[bytes, ...]], source: Connection, writer: PipelineWriter
    ) -> tuple[list[Encoder], list[bytes]]:
        """Take the rows of these keys to the writer; also the keys that no row has made."""
        plan, encoders, gone = self.context.plan, [], list[bytes]()
        for start in range(0, len(values), TOGETHER):
            part = values[start : start + TOGETHER]
            statement = plan.matching(self._lookup.rows_with(part)) + self._lock
            encoder = transfer(plan, statement, source, writer, self.context.throttle, b"")
            encoders.append(encoder)
            if not self._is_one_to_one or encoder.rows < len(part) or encoder.rejects:
                there = {*split_keys(encoder.keys), *(reject.key for reject in encoder.rejects)}
                gone += (key for key in map(self._lookup.key_of, part) if key not in there)
        return encoders, gone

    def _list(self, rejects: Sequence[Reject], encoders: Iterable[Encoder], gone: Collection[bytes]) -> None:
        """List rows that were rejected; strike off those that were written, or are gone."""
        if rejects:
            self._rejects.add(rejects, self._position.run)
        if self._rejected or rejects:
            refused = {reject.key for reject in rejects}
            seen = {key for encoder in encoders for key in split_keys(encoder.keys)} | set(gone)
            if fixed := (self._rejected & seen) - refused:
                self._rejects.remove(sorted(fixed))
            self._rejected = (self._rejected - fixed) | refused

    def _open_writer(self, grant: int) -> PipelineWriter:
        throttle = self.context.throttle
        throttle.admit()
        self.context.target.refresh()
        if self._writer is None:
            self._writer = PipelineWriter(self.context.target, spare=throttle.spare, marking=self._marking)
        self._writer.guard(partial(throttle.hold, grant))
        return self._writer
