"""Row packets in, Redis commands out: the two wire protocols, and no I/O.

A row packet of MySQL's text protocol is a three-byte length, a sequence number and length-encoded cells, see
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset_row.html.
A command is an array of bulk strings, see https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

import re
import struct
from array import array
from binascii import crc_hqx
from collections.abc import Iterator, Sequence

from loader.errors import SourceError, TargetError
from loader.model import Batch, Layout, Reject
from loader.wire.slots import SLOTS, slot_of

ROOM = 256 * 1024  # bytes; a node's commands are handed over from this size on: half costs a tenth more CPU a row
PACKET_MAX = 0xFFFFFF  # a packet of this length is continued in the next
HEADER = 4
SHOWN = 200  # bytes of a key that is too long for Redis, and for a log
PLAIN_REPLIES = re.compile(rb"(?:\+OK\r\n|:-?[0-9]+\r\n)*")
SET, NEVER = b":1", b":-1"  # what EXPIRE replies for a key that is there, and TTL for one that does not expire
# A line with a number, and one that is not all there. No Redis holds what would take more than ten digits to say.
NUMBER = rb"(0|[1-9][0-9]{0,9})"
NUMBER_LINE = {sign: re.compile(rb"\%c%b\r\n" % (sign, NUMBER)) for sign in b"*$"}
NUMBER_PART = {sign: re.compile(rb"\%c(?:%b\r?)?" % (sign, NUMBER)) for sign in b"*$"}
LINE_END = re.compile(rb"\n")
BITS = (1 << 64) - 1
SEED = 0x6C6F61646572  # of digests; another one makes all that are kept worthless

Buffer = bytes | bytearray | memoryview


class Encoder:
    """Turns the row packets of one table into commands, gathered per slot owner.

    `owners` maps a slot to the index of its node and is read anew for every row, so its holder may change it in place;
    `nodes` is how many nodes there are. One `Encoder` serves one attempt at one chunk.

    With `known` digests (eight bytes each, none maybe) a row is left out whose digest is among them, and of every row
    that is not rejected, left out or not, `digests` and `keys` gather the digest and the key.
    """

    def __init__(self, layout: Layout, owners: "array[int]", nodes: int, known: Buffer | None = None) -> None:
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
        self.unchanged = 0  # rows left out
        self._known = None if known is None else set(struct.unpack(f"<{len(known) // 8}Q", known))
        self._digests = bytearray()
        self._keys = bytearray()

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
        expects = NEVER if self.layout.ttl is None else SET
        then = Batch(b"".join(expires), 0, len(expires), expects=expects) if expires else None
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
        self._encode(row, split_row(row, self.layout.cells))
        self.rows += 1
        return at - position

    def _is_known(self, row: Buffer, key: bytes) -> bool:
        """Gather what is known of a row next time, and say whether it is known now."""
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
        commands = [command for command in (present, absent) if len(command) > 2]
        if layout.ttl is not None and commands[0] is present:
            self._expires[node].append(pack([b"EXPIRE", key, b"%d" % ttl_of(key, layout.ttl, layout.ttl_jitter)]))
        elif layout.checks_ttl and commands[0] is present:
            self._expires[node].append(pack([b"TTL", key]))
        for command in commands:
            data = pack(command)
            self._parts[node].append(data)
            self._sizes[node] += len(data)
        self._rows[node] += 1
        self._replies[node] += len(commands)


class SlotChecksums:
    """How many keys were seen of each slot, and a checksum of them that does not depend on their order.

    256 KiB however many the keys are. Two of them tell which slots hold other keys on one side than on the other. A key
    that is added twice counts twice. One thread adds to a `SlotChecksums` at a time.
    """

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * SLOTS))
        self._sums = array("Q", bytes(8 * SLOTS))

    def add(self, keys: list[bytes]) -> None:
        """Count keys."""
        for key in keys:
            slot = slot_of(key)
            self._counts[slot] += 1
            self._sums[slot] = (self._sums[slot] + checksum(key)) & BITS

    def of(self, slot: int) -> tuple[int, int]:
        """Number and checksum of a slot's keys."""
        return self._counts[slot], self._sums[slot]

    def differing(self, other: "SlotChecksums") -> list[int]:
        """Slots that have other keys here than there."""
        return [slot for slot in range(SLOTS) if self.of(slot) != other.of(slot)]


class Comparer:
    """Checks the replies to `reads(data)` against the hashes that the commands `data` of a batch would make.

    A row is equal where its hash has the fields of its HMSET, with their values and in any order, and no other field; a
    row without an HMSET has no hash. Of any other row `differences` has the command (its HMSET, else its HDEL) and
    the reply, which may be an error, both as bytes. The key of each hash that is there is added to `tally`.
    """

    def __init__(self, data: Buffer, rows: int, tally: SlotChecksums | None = None) -> None:
        self.left = rows  # replies still to come
        self.wanted = 0  # bytes that the next reply needs in the buffer, as far as is known
        self.present = 0  # replies that were hashes, of one field or more
        self.differences: list[tuple[bytes, bytes]] = []
        self._tally = tally
        self._rows = row_heads(data)
        self._row: list[bytes] = []  # the command that the next reply is compared with; empty: not looked at yet
        self._walked = 0  # bytes of the next reply that need not be looked at again
        self._bulks = 0  # in the next reply
        self._got: list[bytes] = []  # so many of them were walked over

    def feed(self, buffer: Buffer, start: int, end: int) -> int:
        """Consume whole replies of `buffer[start:end]`; return where the first reply not consumed starts.

        Stops at a reply that is not all there (`wanted`), and after the last row's, behind which the replies to another
        batch may stand: where no reply is left any byte is a transient `TargetError`, as is what HGETALL never replies.
        """
        if start < end and not self.left:
            raise too_many_replies()
        with memoryview(buffer)[:end] as view:
            while self.left and (taken := self._reply_at(view, start)):
                start += taken
        if not self.left:
            self.wanted = 0
        return start

    def _reply_at(self, view: memoryview, start: int) -> int:
        """Compare the reply that starts at `start`; return its bytes, or 0 where no whole reply starts there."""
        self.wanted = max(1, self._walked)
        if len(view) - start < self.wanted:
            return 0
        if not self._row:
            self._row = next(self._rows, [])
            if not self._row:
                raise ValueError("the batch has fewer rows than was said")
        is_error = view[start] == ord("-")
        size = self._walk_error(view, start) if is_error else self._walk(view, start)
        if size:
            if is_error or not is_hash_of(self._row, self._got):
                self.differences.append((pack(self._row), bytes(view[start : start + size])))
            if self._got:
                self.present += 1
                if self._tally is not None:
                    self._tally.add([self._row[1]])
            self.left -= 1
            self._row, self._walked, self._got = [], 0, []
        return size

    def _walk_error(self, view: memoryview, start: int) -> int:
        """Look for the end of a line; return its bytes, or 0 where it is not all there."""
        line_end = LINE_END.search(view, start + self._walked)
        if not line_end:
            self._walked = len(view) - start
            self.wanted = self._walked + 1
            return 0
        if view[line_end.start() - 1] != ord("\r"):
            raise no_reply()
        return line_end.end() - start

    def _walk(self, view: memoryview, start: int) -> int:
        """Go on over an array from where it was left; return its bytes, or 0 where it is not all there."""
        if not self._walked:
            bulks, at = number_at(view, start, b"*")
            if at > len(view):
                self.wanted = at - start
                return 0
            if bulks % 2:
                raise no_reply()
            self._bulks, self._walked = bulks, at - start
        while len(self._got) < self._bulks:
            size, at = number_at(view, start + self._walked, b"$")
            after = at + size + 2
            if after > len(view):
                self.wanted = after - start
                return 0
            if bytes(view[after - 2 : after]) != b"\r\n":
                raise no_reply()
            self._got.append(bytes(view[at : at + size]))
            self._walked = after - start
        return self._walked


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


def refusal(layout: Layout, cells: Sequence[bytes | None]) -> Reject | None:
    """Why a row cannot be a hash; None where it can."""
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


def row_heads(batch: Buffer) -> Iterator[list[bytes]]:
    """The words of the first command of each row of a batch: its HMSET, or its HDEL where it has no other."""
    commands = list(split_commands(batch))
    last = -1
    for command, row in zip(commands, number_rows(commands), strict=True):
        if row != last:
            yield command
        last = row


def reads(data: Buffer) -> bytes:
    """The HGETALL of each row of a batch, in order."""
    return b"".join(pack([b"HGETALL", key]) for _, key, *_ in row_heads(data))


def is_hash_of(command: list[bytes], words: list[bytes]) -> bool:
    """Whether HGETALL gives these words after the command, which is an HMSET or deletes a hash.

    A name that is there twice is last set to its last value; HGETALL gives no name twice.
    """
    sent = command[2:] if command[0] == b"HMSET" else []
    if words == sent:
        return True
    wanted = dict(zip(sent[::2], sent[1::2], strict=True))
    return len(words) == 2 * len(wanted) and dict(zip(words[::2], words[1::2], strict=True)) == wanted


def checksum(key: bytes) -> int:
    """64 bits of a key: FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/), then the finalizer of MurmurHash3.

    Sums of FNV-1a alone are alike for keys that are alike in all but their last bytes; the finalizer spreads these.
    """
    number = 0xCBF29CE484222325
    for byte in key:
        number = ((number ^ byte) * 0x100000001B3) & BITS
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        number = ((number ^ number >> 33) * factor) & BITS
    return number ^ number >> 33


def digest_of(row: Buffer) -> int:
    """64 bits of a row packet's payload, never 0: MurmurHash64A.

    See https://github.com/aappleby/smhasher/blob/master/src/MurmurHash2.cpp. A row that was changed has the digest of
    another row of its chunk by chance once in 10**15 changes; who may choose what rows hold can bring it about.
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


def number_at(view: memoryview, at: int, sign: bytes) -> tuple[int, int]:
    """Read the number of a `*n` or `$n` line of a reply; return it and where the next line starts.

    Which is beyond the view where the line is not all there.
    """
    line = NUMBER_LINE[sign[0]].match(view, at)
    if line:
        return int(line[1]), line.end()
    if at < len(view) and not NUMBER_PART[sign[0]].fullmatch(view, at):
        raise no_reply()
    return 0, len(view) + 1


def no_reply() -> TargetError:
    """The error of a reply that is neither an array of pairs nor an error."""
    return TargetError("Redis sent what is no reply to HGETALL", transient=True)


def too_many_replies() -> TargetError:
    """The error of a reply for which there is no row."""
    return TargetError("Redis sent more replies than it was asked for", transient=True)


def _length(raw: bytes, position: int) -> tuple[int, int]:
    """Read the number of a `*n` or `$n` line; return it and where the next line starts."""
    end = raw.index(b"\r\n", position)
    return int(raw[position + 1 : end]), end + 2
