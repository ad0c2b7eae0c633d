"""Row packets in, Redis commands out: the two wire protocols, and no I/O.

A row packet of MySQL's text protocol is a three-byte length, a sequence number and length-encoded cells, see
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset_row.html.
A command is an array of bulk strings, see https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

import re
from array import array
from binascii import crc_hqx
from collections.abc import Iterator, Sequence

from loader.errors import SourceError
from loader.model import Batch, Layout, Reject
from loader.slots import slot_of

ROOM = 256 * 1024  # bytes; a node's commands are handed over from this size on: half costs a tenth more CPU a row
PACKET_MAX = 0xFFFFFF  # a packet of this length is continued in the next
HEADER = 4
PLAIN_REPLIES = re.compile(rb"(?:\+OK\r\n|:[0-9]+\r\n)*")

Buffer = bytes | bytearray | memoryview


class Encoder:
    """Turns the row packets of one table into commands, gathered per slot owner.

    `owners` maps a slot to the index of its node and is read anew for every row, so its holder may change it in place;
    `nodes` is how many nodes there are. One `Encoder` serves one attempt at one chunk.
    """

    def __init__(self, layout: Layout, owners: "array[int]", nodes: int) -> None:
        self.layout = layout
        self.owners = owners
        self.rows = 0  # rows consumed, rejected ones included
        self.rejects: list[Reject] = []
        self.ended = False  # the next packet is not a row: it ends the result, well or badly
        self.wanted = 0  # bytes that the next row needs in the buffer, as far as is known
        self._parts: list[list[bytes]] = [[] for _ in range(nodes)]
        self._sizes = [0] * nodes
        self._rows = [0] * nodes
        self._replies = [0] * nodes
        self._expires: list[list[bytes]] = [[] for _ in range(nodes)]

    def feed(self, buffer: Buffer, start: int, end: int) -> int:
        """Consume whole rows of `buffer[start:end]`; return where the first row not consumed starts.

        Stops at a row that is not all there (`wanted`), at a packet that is no row (`ended`), and when a node has
        `ROOM` bytes of commands ready. A packet whose cells do not add up is a transient `SourceError`.
        """
        with memoryview(buffer)[:end] as view:
            while not self._full() and (taken := self._row_at(view, start)):
                start += taken
        return start

    def ready(self, least: int = ROOM) -> list[int]:
        """Nodes with at least `least` bytes of commands."""
        return [node for node, size in enumerate(self._sizes) if size >= least]

    def take(self, node: int) -> Batch:
        """Hand over the commands of a node."""
        expires = self._expires[node]
        then = Batch(b"".join(expires), 0, len(expires)) if expires else None
        batch = Batch(b"".join(self._parts[node]), self._rows[node], self._replies[node], then)
        self._parts[node], self._expires[node] = [], []
        self._sizes[node] = self._rows[node] = self._replies[node] = 0
        return batch

    def _full(self) -> bool:
        return any(size >= ROOM for size in self._sizes)

    def _row_at(self, view: memoryview, position: int) -> int:
        """Encode the row that starts at `position`; return its bytes, or 0 where no whole row starts there."""
        parts: list[memoryview] = []
        at = position
        while True:
            if at + HEADER > len(view):
                self.wanted = at + HEADER - position
                return 0
            length = int.from_bytes(view[at : at + 3], "little")
            start = at + HEADER
            if start + length > len(view):
                self.wanted = start + length - position
                return 0
            at = start + length
            parts.append(view[start:at])
            if length < PACKET_MAX:
                break
        row = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
        if is_last(row):
            self.ended = True
            return 0
        self._encode(split_row(row, self.layout.cells))
        self.rows += 1
        return at - position

    def _encode(self, cells: list[bytes | None]) -> None:
        layout = self.layout
        pieces = [piece if isinstance(piece, bytes) else cells[piece] for piece in layout.key]
        if None in pieces:
            key = b"".join(b"NULL" if piece is None else piece for piece in pieces)
            self.rejects.append(Reject(key, "a column of the key is NULL"))
            return
        key = b"".join(pieces)  # type: ignore[arg-type]
        node = self.owners[slot_of(key)]
        present, absent = [b"HMSET", key], [b"HDEL", key]
        for name, cell in layout.fields:
            value = cells[cell]
            if value is not None:
                present += name, value
            elif layout.nulls_empty:
                present += name, b""
            else:
                absent.append(name)
        commands = [command for command in (present, absent) if len(command) > 2]
        if layout.ttl is not None and commands[0] is present:
            self._expires[node].append(pack([b"EXPIRE", key, b"%d" % ttl_of(key, layout.ttl, layout.ttl_jitter)]))
        for command in commands:
            data = pack(command)
            self._parts[node].append(data)
            self._sizes[node] += len(data)
        self._rows[node] += 1
        self._replies[node] += len(commands)


def is_last(packet: Buffer) -> bool:
    """Whether a packet ends the result: EOF (0xFE, shorter than nine bytes) or ERR (0xFF)."""
    return not len(packet) or packet[0] == 0xFF or (packet[0] == 0xFE and len(packet) < 9)


def split_row(row: Buffer, count: int) -> list[bytes | None]:
    """Cells of a row packet's payload; None is NULL. A payload of not exactly `count` cells is an error."""
    cells: list[bytes | None] = []
    position, end = 0, len(row)
    while position < end:
        length = row[position]
        position += 1
        if length == 0xFB:
            cells.append(None)
            continue
        if length > 0xFB:
            width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(length, end)
            length = int.from_bytes(row[position : position + width], "little")
            position += width
        cells.append(bytes(row[position : position + length]))
        position += length
    if position != end or len(cells) != count:
        raise SourceError("MySQL sent a row packet whose cells do not add up", transient=True)
    return cells


def ttl_of(key: bytes, ttl: int, jitter: int) -> int:
    """Seconds to live of a key: within `jitter` of `ttl`, and the same whenever the key is."""
    return ttl - jitter + (crc_hqx(key, 0) * (2 * jitter + 1) >> 16)


def pack(command: list[bytes]) -> bytes:
    """RESP of one command."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        parts += b"$%d\r\n" % len(word), word, b"\r\n"
    return b"".join(parts)


def split_commands(data: Buffer) -> Iterator[list[bytes]]:
    """Words of each command of a batch, in order: the way back from `pack`, for looking at what was sent."""
    raw = bytes(data)
    position = 0
    while position < len(raw):
        words = []
        count, position = _length(raw, position)
        for _ in range(count):
            size, position = _length(raw, position)
            words.append(raw[position : position + size])
            position += size + 2
        yield words


def count_replies(data: bytes) -> int:
    """Number of replies in `data`, which ends with a line; -1 where not all are `+OK` or a number."""
    return data.count(b"\n") if PLAIN_REPLIES.fullmatch(data) else -1


def number_rows(batch: Sequence[list[bytes]]) -> list[int]:
    """For each command of a batch, which row of the batch it belongs to, from 0.

    A row's commands stand together, HMSET first, so a new row begins with every HMSET, and with an HDEL that does not
    follow the HMSET of its own key.
    """
    numbers: list[int] = []
    row, begun = -1, None
    for name, key, *_ in batch:
        if name == b"HMSET" or key != begun:
            row += 1
        begun = key if name == b"HMSET" else None
        numbers.append(row)
    return numbers


def _length(raw: bytes, position: int) -> tuple[int, int]:
    """Read the number of a `*n` or `$n` line; return it and where the next line starts."""
    end = raw.index(b"\r\n", position)
    return int(raw[position + 1 : end]), end + 2
