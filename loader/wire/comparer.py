"""Compares hashes that Redis sends with the rows they were made of; no I/O."""

from array import array

from loader.wire.encoder import BITS
from loader.wire.resp import LINE_END, Buffer, no_reply, number_at, pack, row_heads, too_many_replies
from loader.wire.slots import SLOTS, slot_of


class SlotChecksums:
    """How many keys of each slot were seen, and a checksum of them that does not depend on their order.

    256 KiB for any number of keys. Two of them reveal the slots whose keys differ between the sides. A key that is
    added twice counts twice. One thread adds to a `SlotChecksums` at a time.
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
        """Slots with other keys here than there."""
        return [slot for slot in range(SLOTS) if self.of(slot) != other.of(slot)]


class Comparer:
    """Checks the replies to `reads(data)` against the hashes that the commands `data` of a batch would make.

    A row is equal if its hash has the fields of its HMSET, with their values and in any order, and no other field; a
    row without an HMSET has no hash. For any other row `differences` has the command (its HMSET, else its HDEL) and the
    reply, which may be an error, both as bytes. The key of each existing hash is added to `tally`.
    """

    def __init__(self, data: Buffer, rows: int, tally: SlotChecksums | None = None) -> None:
        self.left = rows  # replies still to come
        self.wanted = 0  # bytes that the next reply needs in the buffer, as far as known
        self.present = 0  # replies that were hashes, of one field or more
        self.differences: list[tuple[bytes, bytes]] = []
        self._tally = tally
        self._rows = row_heads(data)
        self._row: list[bytes] = []  # the command that the next reply is compared with; empty: not read yet
        self._walked = 0  # bytes of the next reply that need not be scanned again
        self._bulks = 0  # in the next reply
        self._got: list[bytes] = []  # this many of them were scanned

    def feed(self, buffer: Buffer, start: int, end: int) -> int:
        """Consume whole replies of `buffer[start:end]`; return where the first reply not consumed starts.

        Stops at an incomplete reply (`wanted`), and after the last row's, behind which the replies to another batch may
        follow: if no reply is left any byte is a transient `TargetError`, as is a reply that HGETALL never gives.
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
        """Compare the reply that starts at `start`; return its bytes, or 0 if no whole reply starts there."""
        self.wanted = max(1, self._walked)
        if len(view) - start < self.wanted:
            return 0
        if not self._row:
            self._row = next(self._rows, [])
            if not self._row:
                raise ValueError("the batch has fewer rows than stated")
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
        """Find the end of a line; return its bytes, or 0 if it is incomplete."""
        line_end = LINE_END.search(view, start + self._walked)
        if not line_end:
            self._walked = len(view) - start
            self.wanted = self._walked + 1
            return 0
        if view[line_end.start() - 1] != ord("\r"):
            raise no_reply()
        return line_end.end() - start

    def _walk(self, view: memoryview, start: int) -> int:
        """Continue scanning an array; return its bytes, or 0 if it is incomplete."""
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


def is_hash_of(command: list[bytes], words: list[bytes]) -> bool:
    """Whether HGETALL returns these words after the command, which is an HMSET or deletes a hash.

    A name that is there twice is last set to its last value; HGETALL returns no name twice.
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
