"""How much of the binlog is not in Redis yet."""

import time

from loader.errors import LoaderError
from loader.mysql.binlog_origin import bytes_behind
from loader.mysql.connection import Connection
from loader.mysql.dump import Position

ASK_EVERY = 1.0  # seconds between two questions


class BinlogLag:
    """The bytes of binlog behind the place up to which all is in Redis; `bytes` is None if nobody knows.

    An account that may not ask is not asked for again.
    """

    def __init__(self, start: Position) -> None:
        self.bytes: int | None = None
        self._place = start
        self._asked = float("-inf")
        self._may_ask = True

    def advance(self, place: Position) -> None:
        """All before this place is in Redis; one without a file says nothing."""
        if place.file:
            self._place = place

    def look(self, source: Connection | None, *, is_caught_up: bool) -> None:
        """Ask over a connection that is free, if there is one and it was not asked a moment ago."""
        if is_caught_up:
            self.bytes = 0
            return
        if source is None or not self._place.file:
            self.bytes = None
        elif self._may_ask and time.monotonic() - self._asked >= ASK_EVERY:
            try:
                self.bytes = bytes_behind(source, self._place)
            except LoaderError as error:
                self.bytes = None
                self._may_ask = not error.kind.is_refusal
            self._asked = time.monotonic()
        elif self.bytes == 0:
            self.bytes = None
