"""Transactions of the binlog whose keys wait: those that are prepared, and those that have too many. Pure."""

from loader.mysql.dump import Position
from loader.records import dataclass
from loader.wire.row_images import Keys
from loader.wire.table_map import FollowedTable

MOST_HELD = 100_000  # keys of an open transaction that are held: about 10 MB

LargeTransactions = dict[Position, Position]
"""Transactions with more keys than are held: where the stream is before they begin, and where they have ended."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An XA transaction that is prepared: its keys, and where the stream has to be read from to get them again.

    No keys if they were too many.
    """

    keys: dict[FollowedTable, Keys] | None
    before: Position


class HeldTransactions:
    """Which transactions keep the stream from being read on from where it is."""

    def __init__(self, large: LargeTransactions) -> None:
        self._large = large
        self._prepared: dict[str, Prepared] = {}  # by their ids
        self._skipped: Position | None = None  # before the transaction whose keys were dropped

    def resume(self, here: Position) -> Position:
        """From where the stream can be read again without a loss, once all before `here` is told."""
        return next((prepared.before for prepared in self._prepared.values()), here)

    def end_of(self, here: Position) -> Position | None:
        """Where the transaction that begins here ends, if that is known because it is large."""
        return self._large.get(here)

    def skip(self, before: Position) -> None:
        """Keys of the transaction that begins there were dropped."""
        self._skipped = before

    def prepare(self, xid: str, keys: dict[FollowedTable, Keys], before: Position) -> None:
        """Keep the keys of a transaction until it is committed or rolled back."""
        self._prepared[xid] = Prepared(None if self._skipped else keys, before)
        self._skipped = None

    def commit(self, xid: str) -> Prepared | None:
        """The keys of a transaction that is committed; None if it was prepared before the stream began."""
        prepared = self._prepared.get(xid)
        if prepared and prepared.keys is None:
            self.skip(prepared.before)
        return self._prepared.pop(xid, None)

    def roll_back(self, xid: str) -> None:
        """Drop the keys of a transaction."""
        self._prepared.pop(xid, None)

    def close(self, end: Position) -> bool:
        """Note that all that was begun has ended there; whether keys of it were dropped, and have to be read again."""
        if self._skipped is not None:
            self._large[self._skipped] = end
            return True
        if not self._prepared:
            self._large.clear()
        return False
