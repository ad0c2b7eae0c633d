"""Row packets in, Redis commands out: the two wire protocols, and no I/O.

A row packet of MySQL's text protocol is a three-byte length, a sequence number and length-encoded cells, see
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset_row.html.
A command is an array of bulk strings, see https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

import struct
from array import array
from binascii import crc_hqx
from collections.abc import Iterator, Sequence

from loader.model import Batch, Layout, Listpack, Reject
from loader.wire.listpack import LONGEST, MOST_FIELDS, dump_of
from loader.wire.packets import HEADER, PACKET_MAX, is_last, split_row
from loader.wire.resp import NEVER, SET, Buffer, pack
from loader.wire.slots import slot_of

ROOM = 256 * 1024  # bytes; a node's commands are passed on from this size on: half costs a tenth more CPU per row
SHOWN = 200  # bytes of a key that is too long for Redis, and for a log
BITS = (1 << 64) - 1
SEED = 0x6C6F61646572  # of digests; another one makes all stored ones worthless


class Encoder:
    """Turns the row packets of one table into commands, gathered per slot owner.

    `owners` maps a slot to the index of its node and is read again for every row, so its holder may change it in place;
    `nodes` is the number of nodes. One `Encoder` serves one attempt at one chunk.

    With `known` digests (eight bytes each, possibly none) a row whose digest is among them is left out, and of every
    row that is not rejected, left out or not, `digests` and `keys` gather the digest and the key.
    """

    def __init__(self, layout: Layout, owners: "array[int]", nodes: int, known: Buffer | None = None) -> None:
        self.layout = layout
        self.owners = owners
        self.rows = 0  # rows consumed, rejected ones included
        self.rejects: list[Reject] = []
        self.ended = False  # the next packet is not a row: it ends the result, well or badly
        self.wanted = 0  # bytes that the next row needs in the buffer, as far as known
        self._parts: list[list[bytes]] = [[] for _ in range(nodes)]
        self._sizes = [0] * nodes
        self._rows = [0] * nodes
        self._replies = [0] * nodes
        self._expires: list[list[bytes]] = [[] for _ in range(nodes)]
        self.unchanged = 0  # rows left out
        self._known = None if known is None else set(struct.unpack(f"<{len(known) // 8}Q", known))
        self._digests = bytearray()
        self._keys = bytearray()
        self._listpack = restorable(layout)

    @property
    def digests(self) -> bytes:
        """Digests of the rows, little-endian, in their order."""
        return bytes(self._digests)

    @property
    def keys(self) -> bytes:
        """Keys of the same rows, each behind its length in four bytes, little-endian."""
        return bytes(self._keys)

    def feed(self, buffer: Buffer, start: int, end: int) -> int:
        """Consume whole rows of `buffer[start:end]`; return where the first row not consumed starts.

        Stops at an incomplete row (`wanted`), at a packet that is not a row (`ended`), and when a node has `ROOM` bytes
        of commands ready. A packet whose cells do not add up is a transient `SourceError`.
        """
        with memoryview(buffer)[:end] as view:
            while not self._full() and (taken := self._row_at(view, start)):
                start += taken
        return start

    def ready(self, least: int = ROOM) -> list[int]:
        """Nodes with at least `least` bytes of commands."""
        return [node for node, size in enumerate(self._sizes) if size >= least]

    def take(self, node: int) -> Batch:
        """Return the commands of a node, and forget them."""
        expires = self._expires[node]
        expects = NEVER if self.layout.ttl is None else SET
        then = Batch(b"".join(expires), 0, len(expires), expects=expects) if expires else None
        batch = Batch(b"".join(self._parts[node]), self._rows[node], self._replies[node], then)
        self._parts[node], self._expires[node] = [], []
        self._sizes[node] = self._rows[node] = self._replies[node] = 0
        return batch

    def _full(self) -> bool:
        return any(size >= ROOM for size in self._sizes)

    def _row_at(self, view: memoryview, position: int) -> int:
        """Encode the row that starts at `position`; return its bytes, or 0 if no whole row starts there."""
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
        self._encode(row, split_row(row, self.layout.cells))
        self.rows += 1
        return at - position

    def _is_known(self, row: Buffer, key: bytes) -> bool:
        """Gather the digest and key of a row, and return whether it is known already."""
        if self._known is None:
            return False
        digest = digest_of(row)
        self._digests += digest.to_bytes(8, "little")
        self._keys += len(key).to_bytes(4, "little") + key
        known = digest in self._known
        self.unchanged += known
        return known

    def _encode(self, row: Buffer, cells: list[bytes | None]) -> None:
        layout = self.layout
        reject = refusal(layout, cells)
        if reject:
            self.rejects.append(reject)
            return
        key = b"".join(piece if isinstance(piece, bytes) else cells[piece] or b"" for piece in layout.key)
        if self._is_known(row, key):
            return
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
        commands = self._ready_made(present) or [command for command in (present, absent) if len(command) > 2]
        if commands[0] is present:
            self._expire(node, key)
        for command in commands:
            data = pack(command)
            self._parts[node].append(data)
            self._sizes[node] += len(data)
        self._rows[node] += 1
        self._replies[node] += len(commands)

    def _ready_made(self, words: Sequence[bytes]) -> list[list[bytes]]:
        """The command in place of an HMSET: its hash takes the place of whatever is there; none if that is not made."""
        key, layout = words[1], self.layout
        if self._listpack is None or not _fits(words, self._listpack):
            return []
        dump = dump_of(list(zip(words[2::2], words[3::2], strict=True)))
        ttl = 0 if layout.ttl is None else 1000 * ttl_of(key, layout.ttl, layout.ttl_jitter)
        return [[b"RESTORE", key, b"%d" % ttl, dump, b"REPLACE"]] if len(dump) <= layout.most else []

    def _expire(self, node: int, key: bytes) -> None:
        """Have the hash that an HMSET writes expire, or make sure that it does not."""
        layout = self.layout
        if layout.ttl is not None:
            self._expires[node].append(pack([b"EXPIRE", key, b"%d" % ttl_of(key, layout.ttl, layout.ttl_jitter)]))
        elif layout.checks_ttl:
            self._expires[node].append(pack([b"TTL", key]))


def restorable(layout: Layout) -> Listpack | None:
    """Up to what size rows are encoded as ready-made hashes; None if none are."""
    names = [name for name, _ in layout.fields]
    if layout.listpack is None or len(set(names)) < len(names):
        return None
    limits = Listpack(min(layout.listpack.fields, MOST_FIELDS), min(layout.listpack.longest, LONGEST))
    return limits if max(map(len, names), default=0) <= limits.longest else None


def _fits(words: Sequence[bytes], limits: Listpack) -> bool:
    """Whether the fields that an HMSET names make a listpack."""
    return 2 < len(words) <= 2 + 2 * limits.fields and max(map(len, words[3::2])) <= limits.longest


def refusal(layout: Layout, cells: Sequence[bytes | None]) -> Reject | None:
    """Why a row cannot be a hash; None if it can."""
    pieces = [piece if isinstance(piece, bytes) else cells[piece] for piece in layout.key]
    key = b"".join(b"NULL" if piece is None else piece for piece in pieces)
    if None in pieces:
        return Reject(key, "a column of the key is NULL")
    limit = f"bytes long, and Redis takes {layout.most:,} at most"
    if len(key) > layout.most:
        return Reject(key[:SHOWN], f"the key is {len(key):,} {limit}")
    for name, cell in layout.fields:
        size = len(cells[cell] or b"")
        if size > layout.most:
            return Reject(key, f"field {name.decode(errors='replace')} is {size:,} {limit}")
    return None


def ttl_of(key: bytes, ttl: int, jitter: int) -> int:
    """Seconds to live of a key: within `jitter` of `ttl`, and always the same for the same key."""
    return ttl - jitter + (crc_hqx(key, 0) * (2 * jitter + 1) >> 16)


def digest_of(row: Buffer) -> int:
    """64 bits of a row packet's payload, never 0: MurmurHash64A.

    See https://github.com/aappleby/smhasher/blob/master/src/MurmurHash2.cpp. A changed row has the digest of another
    row of its chunk by chance once in 10**15 changes; someone who chooses the content of rows can provoke it.
    """
    factor = 0xC6A4A7935BD1E995
    size = len(row)
    number = SEED ^ (size * factor & BITS)
    whole = size - size % 8
    for (word,) in struct.iter_unpack("<Q", row[:whole]):
        mixed = word * factor & BITS
        number = (number ^ ((mixed ^ mixed >> 47) * factor & BITS)) * factor & BITS
    if size % 8:
        number = (number ^ int.from_bytes(row[whole:], "little")) * factor & BITS
    number = (number ^ number >> 47) * factor & BITS
    return (number ^ number >> 47) or 1


def split_keys(packed: bytes) -> Iterator[bytes]:
    """The keys that `Encoder.keys` has gathered, in order."""
    at = 0
    while at < len(packed):
        size = int.from_bytes(packed[at : at + 4], "little")
        yield packed[at + 4 : at + 4 + size]
        at += 4 + size
