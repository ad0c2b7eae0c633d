"""Global transaction ids: the sets that MySQL writes and the positions that MariaDB writes; no I/O.

A transaction is named by its source and its number. The source is bytes: on MySQL the server's UUID (16 bytes) and the
tag, if it has one; on MariaDB the domain and the server id, four bytes each, little-endian.
"""

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import Protocol
from uuid import UUID

UUID_SIZE = 16
INTERVAL = re.compile(r"([0-9]+)(?:-([0-9]+))?", re.ASCII)
TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}", re.ASCII)
Interval = tuple[int, int]  # the first and the last number


class Gtids(Protocol):
    """Transactions that are known, of either server."""

    def add(self, source: bytes, first: int, last: int) -> None:
        """Count the transactions of a source from number `first` to number `last`."""

    def __str__(self) -> str: ...


class GtidSet:
    """A GTID set of MySQL: for each source, intervals of transaction numbers, tagged ones included.

    `text` is the server's own form, `uuid:1-5:7:tag:1-3,…`; a `ValueError` says what in it is none.
    """

    def __init__(self, text: str = "") -> None:
        self._intervals: dict[bytes, list[Interval]] = {}
        for part in filter(None, re.sub(r"\s", "", text).split(",")):
            uuid, *words = part.split(":")
            source = UUID(uuid).bytes
            for word in words:
                if TAG.fullmatch(word.lower()):
                    source = source[:UUID_SIZE] + word.lower().encode()
                else:
                    self.add(source, *_interval(word))

    def add(self, source: bytes, first: int, last: int) -> None:
        """Count the transactions of a source from number `first` to number `last`."""
        known = self._intervals.setdefault(source, [])
        start = stop = bisect_right(known, (first, last))
        if start and known[start - 1][1] >= first - 1:
            start -= 1
            first = known[start][0]
        while stop < len(known) and known[stop][0] <= last + 1:
            stop += 1
        last = max([last, *(interval[1] for interval in known[start:stop])])
        known[start:stop] = [(first, last)]

    def covers(self, other: "GtidSet") -> bool:
        """Whether all transactions of another set are in this one."""
        return all(
            any(first <= start and end <= last for first, last in self._intervals.get(source, ()))
            for source, start, end in other
        )

    def __iter__(self) -> Iterator[tuple[bytes, int, int]]:
        """Each source with the first and the last number of each of its intervals."""
        return ((source, *interval) for source, intervals in self._sorted() for interval in intervals)

    def contains(self, source: bytes, number: int) -> bool:
        """Whether a transaction is in the set."""
        known = self._intervals.get(source, [])
        at = bisect_right(known, number, key=lambda interval: interval[0])
        return at > 0 and number <= known[at - 1][1]

    def __str__(self) -> str:
        parts: dict[bytes, str] = {}
        for source, intervals in self._sorted():
            uuid, tag = source[:UUID_SIZE], source[UUID_SIZE:].decode()
            words = [f"{first}" if first == last else f"{first}-{last}" for first, last in intervals]
            start = parts.get(uuid) or str(UUID(bytes=uuid))
            parts[uuid] = ":".join([start, *([tag] if tag else []), *words])
        return ",".join(parts.values())

    def encode(self) -> bytes:
        """The set as COM_BINLOG_DUMP_GTID takes it; an interval ends with the number after its last."""
        is_tagged = any(len(source) > UUID_SIZE for source in self._intervals)
        count = len(self._intervals)
        parts = [struct.pack("<Q", 1 | count << 8 | 1 << 56 if is_tagged else count)]
        for source, intervals in self._sorted():
            uuid, tag = source[:UUID_SIZE], source[UUID_SIZE:]
            parts += uuid, bytes([len(tag) << 1]) + tag if is_tagged else b"", struct.pack("<Q", len(intervals))
            parts += (struct.pack("<QQ", first, last + 1) for first, last in intervals)
        return b"".join(parts)

    def _sorted(self) -> Iterator[tuple[bytes, list[Interval]]]:
        return ((source, intervals) for source, intervals in sorted(self._intervals.items()) if intervals)


class GtidPosition:
    """A GTID position of MariaDB: the last transaction of each replication domain, `domain-server-number,…`.

    A `ValueError` says what in the text is none.
    """

    def __init__(self, text: str = "") -> None:
        self._last: dict[int, tuple[int, int]] = {}
        for part in filter(None, re.sub(r"\s", "", text).split(",")):
            numbers = part.split("-")
            if len(numbers) != 3 or not all(word.isascii() and word.isdecimal() for word in numbers):
                raise ValueError(f"{part!r} is not a GTID of MariaDB")
            domain, server, number = map(int, numbers)
            self._last[domain] = server, number

    def add(self, source: bytes, first: int, last: int) -> None:  # noqa: ARG002  # as `Gtids` says
        """Count the transactions of a source up to number `last`."""
        domain, server = struct.unpack("<II", source)
        self._last[domain] = server, last

    def covers(self, other: "GtidPosition") -> bool:
        """Whether it is not before another position, in any domain."""
        return all(self._last.get(domain, (0, -1))[1] >= number for domain, _, number in other)

    def __str__(self) -> str:
        return ",".join(f"{domain}-{server}-{number}" for domain, (server, number) in sorted(self._last.items()))

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Domain, server and number of each domain's last transaction."""
        return ((domain, server, number) for domain, (server, number) in sorted(self._last.items()))


def _interval(word: str) -> Interval:
    match = INTERVAL.fullmatch(word)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last:
        raise ValueError(f"{word!r} is not an interval of GTIDs")
    return first, last
