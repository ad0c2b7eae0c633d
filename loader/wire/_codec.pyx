# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled twins of `encoder` and `comparer`: the same commands from the same packets, the same verdicts, without the GIL.

Every length that a packet or a reply states is checked against its end before it is used, and a buffer grows before
something is written to it. What is rare (a row of more than one packet, one that cannot be a hash) is done in Python.
"""

from cython cimport final
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

from loader.errors import Kind, SourceError
from loader.wire.encoder import ROOM, SEED, refusal, restorable
from loader.wire.listpack import FORMAT, HASH_AS_LISTPACK, crc64_power, crc64_table, entry
from loader.wire.packets import HEADER, PACKET_MAX, is_last
from loader.wire.resp import NEVER, SET, no_reply, too_many_replies
from loader.model import Batch

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>
    #define CAN_FOLD __builtin_cpu_supports("pclmul")
    #define LOAD(at) _mm_loadu_si128((const __m128i *)(at))
    #define FOLD(x, by) _mm_xor_si128(_mm_clmulepi64_si128(x, by, 0x00), _mm_clmulepi64_si128(x, by, 0x11))

    /* Leaves 16 bytes with the same checksum as `size` bytes, which are one or more times 16. The powers of x by which
       the halves of 16 bytes move on: by 64 bytes, then by 16. See Intel's "Fast CRC Computation for Generic
       Polynomials Using PCLMULQDQ Instruction". */
    __attribute__((target("pclmul"), unused))
    static void fold(const unsigned char *data, Py_ssize_t size, const uint64_t *powers, unsigned char *folded) {
        const unsigned char *end = data + size;
        const __m128i by64 = LOAD(powers), by16 = LOAD(powers + 2);
        __m128i a = LOAD(data);
        if (size >= 64) {
            __m128i b = LOAD(data + 16), c = LOAD(data + 32), d = LOAD(data + 48);
            for (data += 64; end - data >= 64; data += 64) {
                a = _mm_xor_si128(FOLD(a, by64), LOAD(data));
                b = _mm_xor_si128(FOLD(b, by64), LOAD(data + 16));
                c = _mm_xor_si128(FOLD(c, by64), LOAD(data + 32));
                d = _mm_xor_si128(FOLD(d, by64), LOAD(data + 48));
            }
            b = _mm_xor_si128(FOLD(a, by16), b);
            c = _mm_xor_si128(FOLD(b, by16), c);
            a = _mm_xor_si128(FOLD(c, by16), d);
        } else {
            data += 16;
        }
        for (; data < end; data += 16)
            a = _mm_xor_si128(FOLD(a, by16), LOAD(data));
        _mm_storeu_si128((__m128i *)folded, a);
    }
    #else
    #define CAN_FOLD 0
    #define fold(data, size, powers, folded) memcpy(folded, data, 16)
    #endif
    """
    bint CAN_FOLD
    void fold(const unsigned char* data, Py_ssize_t size, const uint64_t* powers, unsigned char* folded) noexcept nogil

cdef Py_ssize_t FULL_AT = ROOM
cdef Py_ssize_t FIRST = ROOM + ROOM // 4  # bytes that a node's buffer begins with: rarely too few
cdef Py_ssize_t ALL_FIRST = 8 << 20  # bytes that all nodes' buffers begin with together
cdef Py_ssize_t WORDS = 96  # bytes that a command takes beside its key and fields, and more
cdef Py_ssize_t BULK = 24  # bytes that a bulk string takes beside its text: `$`, 18 digits, two line ends

cdef Py_ssize_t NOTED = 4096  # bytes that the digests and the keys of a chunk begin with
cdef uint64_t DIGEST_SEED = SEED

cdef uint16_t CRC[256]


cdef void make_crc() noexcept:
    """The table of CRC16/XMODEM, polynomial 0x1021."""
    cdef unsigned int value
    cdef int byte, bit
    for byte in range(256):
        value = byte << 8
        for bit in range(8):
            value = (value << 1) ^ 0x1021 if value & 0x8000 else value << 1
        CRC[byte] = value & 0xFFFF


make_crc()

cdef uint64_t CRC64[8][256]  # of a byte, and with as many bytes of zeros behind it
cdef uint64_t POWERS[4]
cdef bint CAN_MULTIPLY = CAN_FOLD


cdef void make_crc64() noexcept:
    cdef int zeros, byte
    for byte, value in enumerate(crc64_table()):
        CRC64[0][byte] = value
    for zeros in range(1, 8):
        for byte in range(256):
            CRC64[zeros][byte] = (CRC64[zeros - 1][byte] >> 8) ^ CRC64[0][CRC64[zeros - 1][byte] & 0xFF]


make_crc64()
POWERS[0], POWERS[1], POWERS[2], POWERS[3] = [crc64_power(bits - 1) for bits in (512 + 64, 512, 128 + 64, 128)]

cdef unsigned char KIND = HASH_AS_LISTPACK
cdef unsigned char VERSION = FORMAT
cdef Py_ssize_t BEFORE = 24  # bytes in front of a listpack: zeros, what it is, and its length


cdef enum Stop:
    MORE  # the next row or reply is incomplete
    ENDED  # the next packet ends the result; there is no further row or reply
    FULL  # a node has ROOM bytes
    LONG  # the next row spans packets
    REFUSED  # a row that cannot be a hash was passed over: `_cell` has it
    BROKEN  # cells that do not add up
    NO_MEMORY
    NO_NODE  # the slot's owner is none of the nodes
    FOUND  # the search has found it
    EQUAL
    DIFFERENT
    NO_BATCH  # commands that are not ours


cdef struct Text:
    const unsigned char* data  # NULL for an SQL NULL
    Py_ssize_t size


cdef struct Out:
    unsigned char* data
    Py_ssize_t size
    Py_ssize_t room
    Py_ssize_t rows
    Py_ssize_t replies


cdef class Block:
    """Bytes that one owner passes to the next without a copy; freed with the object."""

    cdef unsigned char* data
    cdef Py_ssize_t size

    def __dealloc__(self):
        free(self.data)

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 1, flags)


cdef object to_batch(Out* out, object then, bytes expects=b""):
    cdef Block block = Block.__new__(Block)
    block.data, block.size = out.data, out.size
    batch = Batch(block, out.rows, out.replies, then, expects)
    out.data = NULL
    out.size = out.room = out.rows = out.replies = 0
    return batch


cdef inline unsigned int crc_of(const unsigned char* text, Py_ssize_t size, unsigned int crc) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        crc = ((crc << 8) & 0xFFFF) ^ CRC[(crc >> 8) ^ text[i]]
    return crc


cdef inline unsigned int slot_of(const unsigned char* key, Py_ssize_t size) noexcept nogil:
    """Of the first hash tag that is not empty, else of the whole key."""
    cdef const unsigned char* close
    cdef const unsigned char* tag = <const unsigned char*>memchr(key, 123, size)
    if tag != NULL:
        tag += 1
        close = <const unsigned char*>memchr(tag, 125, key + size - tag)
        if close != NULL and close > tag:
            key, size = tag, close - tag
    return crc_of(key, size, 0) & 16383


cdef uint64_t crc64_of(const unsigned char* data, Py_ssize_t size) noexcept nogil:
    """See `listpack.crc64`; of one or more times 16 bytes, which are read as they lie in memory."""
    cdef uint64_t crc = 0, word
    cdef unsigned char folded[16]
    if CAN_MULTIPLY:
        fold(data, size, POWERS, folded)
        data, size = folded, 16
    while size > 0:
        memcpy(&word, data, 8)
        crc ^= word
        crc = (
            CRC64[7][crc & 0xFF] ^ CRC64[6][crc >> 8 & 0xFF] ^ CRC64[5][crc >> 16 & 0xFF] ^ CRC64[4][crc >> 24 & 0xFF]
            ^ CRC64[3][crc >> 32 & 0xFF] ^ CRC64[2][crc >> 40 & 0xFF] ^ CRC64[1][crc >> 48 & 0xFF] ^ CRC64[0][crc >> 56]
        )
        data += 8
        size -= 8
    return crc


cdef uint64_t digest_of(const unsigned char* data, Py_ssize_t size) noexcept nogil:
    """See `encoder.digest_of`; words are read as they lie in memory, which is little-endian on all targets."""
    cdef uint64_t factor = <uint64_t>0xC6A4A7935BD1E995
    cdef uint64_t number = DIGEST_SEED ^ (<uint64_t>size * factor)
    cdef uint64_t word
    cdef Py_ssize_t left = size
    while left >= 8:
        memcpy(&word, data, 8)
        word *= factor
        number = (number ^ ((word ^ (word >> 47)) * factor)) * factor
        data += 8
        left -= 8
    if left:
        word = 0
        memcpy(&word, data, left)
        number = (number ^ word) * factor
    number = (number ^ (number >> 47)) * factor
    number ^= number >> 47
    return number if number else 1


cdef inline unsigned char* put_number(unsigned char* to, unsigned char sign, Py_ssize_t number) noexcept nogil:
    """Write `*n` or `$n` and its line end."""
    cdef unsigned char digits[20]
    cdef int count = 0
    to[0] = sign
    to += 1
    if number < 10:
        to[0] = <unsigned char>(48 + number)
        to += 1
    else:
        while number > 0:
            digits[count] = <unsigned char>(48 + number % 10)
            number //= 10
            count += 1
        while count > 0:
            count -= 1
            to[0] = digits[count]
            to += 1
    to[0], to[1] = 13, 10
    return to + 2


cdef inline unsigned char* put(unsigned char* to, const unsigned char* text, Py_ssize_t size) noexcept nogil:
    if size:  # a NULL has no text, and memcpy must not be given one
        memcpy(to, text, size)
    return to + size


cdef inline unsigned char* put_bulk(unsigned char* to, const unsigned char* text, Py_ssize_t size) noexcept nogil:
    to = put(put_number(to, 36, size), text, size)
    to[0], to[1] = 13, 10
    return to + 2


cdef inline unsigned char* put_decimal(unsigned char* to, Py_ssize_t number) noexcept nogil:
    """Write a number as a bulk string; its digits are what `put_number` writes between its sign and its line end."""
    cdef unsigned char digits[32]
    return put_bulk(to, digits + 1, put_number(digits, 36, number) - digits - 3)


cdef inline bint is_integer(const unsigned char* text, Py_ssize_t size, int64_t* number) noexcept nogil:
    """Whether a text is an integer of 64 bits, written as Redis would write it."""
    cdef bint is_negative = size > 1 and text[0] == 45
    cdef Py_ssize_t i = is_negative
    cdef unsigned int digit
    cdef uint64_t value = 0
    if size - i < 1 or size - i > 19:
        return False
    if text[i] == 48:
        number[0] = 0
        return size == 1
    for i in range(i, size):
        digit = <unsigned int>text[i] - 48
        if digit > 9:
            return False
        value = 10 * value + digit
    if value > <uint64_t>0x7FFFFFFFFFFFFFFF + is_negative:
        return False
    number[0] = <int64_t>(0 - value if is_negative else value)
    return True


cdef inline unsigned char* put_entry(unsigned char* to, const unsigned char* text, Py_ssize_t size) noexcept nogil:
    """See `listpack.entry`; numbers are written as they lie in memory, which is little-endian on all targets."""
    cdef unsigned char* start = to
    cdef int64_t number
    cdef int width
    if is_integer(text, size, &number):
        if 0 <= number < 128:
            to[0], to[1] = <unsigned char>number, 1
            return to + 2
        if -4096 <= number < 4096:
            to[0], to[1], to[2] = <unsigned char>(0xC0 | (number >> 8 & 0x1F)), <unsigned char>(number & 0xFF), 2
            return to + 3
        if -32768 <= number < 32768:
            to[0], width = 0xF1, 2
        elif -8388608 <= number < 8388608:
            to[0], width = 0xF2, 3
        elif number == <int32_t>number:
            to[0], width = 0xF3, 4
        else:
            to[0], width = 0xF4, 8
        memcpy(to + 1, &number, width)
        to[1 + width] = 1 + width
        return to + 2 + width
    if size < 64:
        to[0] = <unsigned char>(0x80 | size)
        to += 1
    else:
        to[0], to[1] = <unsigned char>(0xE0 | (size >> 8)), <unsigned char>(size & 0xFF)
        to += 2
    to = put(to, text, size)
    size = to - start
    if size < 128:
        to[0] = <unsigned char>size
        return to + 1
    to[0], to[1] = <unsigned char>(size >> 7), <unsigned char>(size & 0x7F | 0x80)
    return to + 2


cdef inline bint reserve(Out* out, Py_ssize_t need, Py_ssize_t first) noexcept nogil:
    """Make room for `need` more bytes; at least `first`. False if there is no memory."""
    cdef Py_ssize_t room
    cdef unsigned char* data
    if out.size + need <= out.room:
        return True
    room = max(out.room * 2, first)
    if room < out.size + need:
        room = out.size + need
    data = <unsigned char*>realloc(out.data, room)
    if data == NULL:
        return False
    out.data, out.room = data, room
    return True


@final
cdef class Encoder:
    """See `encoder.Encoder`."""

    cdef readonly object layout
    cdef readonly Py_ssize_t rows
    cdef readonly list rejects
    cdef readonly bint ended
    cdef readonly Py_ssize_t wanted
    cdef object _keep  # owns the bytes that the Texts below point into
    cdef Py_buffer _owners
    cdef bint _have_owners
    cdef Py_ssize_t _nodes, _cells, _pieces, _fields
    cdef Text* _cell  # of the current row
    cdef Text* _piece  # literals of the key; if data is NULL, size is a cell
    cdef Text* _name  # `$n name` of each field, ready to be sent
    cdef Py_ssize_t* _field  # cell of each field
    cdef unsigned char* _key
    cdef Py_ssize_t _key_room, _key_size, _literal, _most
    cdef bint _nulls_empty, _has_ttl, _checks_ttl
    cdef Py_ssize_t _ttl, _jitter, _start, _first
    cdef Out* _out
    cdef Out* _expires
    cdef readonly Py_ssize_t unchanged
    cdef bint _digesting
    cdef uint64_t* _known  # each at the place that its last bits say, or behind it; 0: none
    cdef uint64_t _mask
    cdef Out _digests
    cdef Out _keys
    cdef bint _restores
    cdef Py_ssize_t _most_fields, _longest
    cdef Text* _entry  # the name of each field in a listpack
    cdef Out _dump  # of the current row

    def __cinit__(self, layout, owners, Py_ssize_t nodes, known=None):
        cdef Py_ssize_t i
        self.layout = layout
        self.rejects = []
        self._nodes, self._cells = nodes, layout.cells
        self._pieces, self._fields = len(layout.key), len(layout.fields)
        self._first = max(4096, min(FIRST, ALL_FIRST // max(1, nodes)))
        self._cell = <Text*>calloc(self._cells + 1, sizeof(Text))
        self._piece = <Text*>calloc(self._pieces + 1, sizeof(Text))
        self._name = <Text*>calloc(self._fields + 1, sizeof(Text))
        self._field = <Py_ssize_t*>calloc(self._fields + 1, sizeof(Py_ssize_t))
        self._out = <Out*>calloc(nodes + 1, sizeof(Out))
        self._expires = <Out*>calloc(nodes + 1, sizeof(Out))
        self._entry = <Text*>calloc(self._fields + 1, sizeof(Text))
        if not (
            self._cell and self._piece and self._name and self._field and self._out and self._expires and self._entry
        ):
            raise MemoryError
        names = [b"$%d\r\n%b\r\n" % (len(name), name) for name, _ in layout.fields]
        limits = restorable(layout)
        entries = []
        if limits is not None:
            self._restores, self._most_fields, self._longest = True, limits.fields, limits.longest
            entries = [entry(name) for name, _ in layout.fields]
        self._keep = (names, entries, layout)
        for i in range(self._pieces):
            piece = layout.key[i]
            if isinstance(piece, bytes):
                self._piece[i].data, self._piece[i].size = <const unsigned char*><bytes>piece, len(piece)
                self._literal += len(piece)
            else:
                self._check_cell(piece)
                self._piece[i].size = piece
        for i in range(self._fields):
            self._check_cell(layout.fields[i][1])
            self._name[i].data, self._name[i].size = <const unsigned char*><bytes>names[i], len(names[i])
            self._field[i] = layout.fields[i][1]
            if self._restores:
                self._entry[i].data, self._entry[i].size = <const unsigned char*><bytes>entries[i], len(entries[i])
        self._nulls_empty, self._most = layout.nulls_empty, layout.most
        self._has_ttl = layout.ttl is not None
        self._checks_ttl = layout.checks_ttl and not self._has_ttl
        self._ttl, self._jitter = layout.ttl or 0, layout.ttl_jitter
        PyObject_GetBuffer(owners, &self._owners, PyBUF_SIMPLE)
        self._have_owners = True
        if self._owners.len != 16384 * sizeof(uint16_t):
            raise ValueError("owners: 16384 two-byte numbers are wanted")
        if known is not None:
            self._learn(bytes(known))

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self._have_owners:
            PyBuffer_Release(&self._owners)
        for i in range(self._nodes):
            if self._out:
                free(self._out[i].data)
            if self._expires:
                free(self._expires[i].data)
        free(self._cell)
        free(self._piece)
        free(self._name)
        free(self._field)
        free(self._key)
        free(self._out)
        free(self._expires)
        free(self._known)
        free(self._digests.data)
        free(self._keys.data)
        free(self._entry)
        free(self._dump.data)

    cdef _learn(self, bytes known):
        """Put the known digests into a table, at least half of which stays empty."""
        cdef uint64_t digest, place, room = 16
        cdef Py_ssize_t i, count = len(known) // 8
        cdef const unsigned char* data = known
        while room < 2 * <uint64_t>count:
            room *= 2
        self._known = <uint64_t*>calloc(room, sizeof(uint64_t))
        if self._known == NULL:
            raise MemoryError
        self._mask = room - 1
        self._digesting = True
        for i in range(count):
            memcpy(&digest, data + 8 * i, 8)
            place = digest & self._mask
            while self._known[place] and self._known[place] != digest:
                place = (place + 1) & self._mask
            self._known[place] = digest

    @property
    def digests(self):
        """See `encoder.Encoder.digests`."""
        return (<const char*>self._digests.data)[: self._digests.size] if self._digests.size else b""

    @property
    def keys(self):
        """See `encoder.Encoder.keys`."""
        return (<const char*>self._keys.data)[: self._keys.size] if self._keys.size else b""

    def _check_cell(self, number):
        if not 0 <= number < self._cells:
            raise ValueError(f"cell {number} of {self._cells}")

    def feed(self, buffer, Py_ssize_t start, Py_ssize_t end):
        """See `encoder.Encoder.feed`."""
        cdef Py_buffer view
        cdef Stop stop
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if not 0 <= start <= end <= view.len:
                raise ValueError("start and end lie outside the buffer")
            if self.ready():
                return start
            while True:
                self._start = start
                with nogil:
                    stop = self._run(<const unsigned char*>view.buf, end)
                start = self._start
                if stop == REFUSED:
                    self._reject()
                elif stop == LONG:
                    start = self._long_row(buffer, start, end)
                    if start == self._start or self.ready():
                        return start
                else:
                    break
        finally:
            PyBuffer_Release(&view)
        self._raise_for(stop)
        return start

    def ready(self, Py_ssize_t least=FULL_AT):
        """See `encoder.Encoder.ready`."""
        cdef Py_ssize_t i
        return [i for i in range(self._nodes) if self._out[i].size >= least]

    def take(self, Py_ssize_t node):
        """See `encoder.Encoder.take`."""
        if not 0 <= node < self._nodes:
            raise IndexError(node)
        expects = SET if self._has_ttl else NEVER
        then = to_batch(&self._expires[node], None, expects) if self._expires[node].size else None
        return to_batch(&self._out[node], then)

    cdef _raise_for(self, Stop stop):
        if stop == BROKEN:
            raise SourceError("MySQL sent a row packet whose cells do not add up", kind=Kind.UNAVAILABLE)
        if stop == NO_MEMORY:
            raise MemoryError
        if stop == NO_NODE:
            raise IndexError("a slot's owner is none of the nodes")

    cdef _reject(self):
        """Note the row that cannot be a hash, which `_cell` still describes."""
        cdef Py_ssize_t i
        cells = []
        for i in range(self._cells):
            text = &self._cell[i]
            cells.append(None if text.data == NULL else (<const char*>text.data)[: text.size])
        self.rejects.append(refusal(self.layout, cells))

    cdef Py_ssize_t _long_row(self, buffer, Py_ssize_t start, Py_ssize_t end) except -1:
        """Encode a row that spans packets; return where the next starts, or `start` if it is incomplete."""
        cdef Py_ssize_t position = start
        cdef Stop stop
        cdef const unsigned char* data
        parts = []
        with memoryview(buffer) as view:
            while True:
                if position + HEADER > end:
                    self.wanted = position + HEADER - start
                    return start
                length = int.from_bytes(view[position : position + 3], "little")
                position += HEADER + length
                if position > end:
                    self.wanted = position - start
                    return start
                parts.append(bytes(view[position - length : position]))
                if length < PACKET_MAX:
                    break
        payload = b"".join(parts)
        if is_last(payload):
            self.ended = True
            return start
        data = <const unsigned char*><bytes>payload
        stop = self._row(data, data + len(payload)) if not self._digesting else self._digested_row(
            data, data + len(payload)
        )
        if stop == REFUSED:
            self._reject()
        else:
            self._raise_for(stop)
        self.rows += 1
        return position

    cdef Stop _run(self, const unsigned char* data, Py_ssize_t end) noexcept nogil:
        """Consume rows from `_start` on, until something stops it."""
        cdef Py_ssize_t length
        cdef const unsigned char* row
        cdef Stop stop
        while True:
            if end - self._start < 4:
                self.wanted = 4
                return MORE
            row = data + self._start
            length = row[0] | (row[1] << 8) | (row[2] << 16)
            if length == 0xFFFFFF:
                return LONG
            if end - self._start - 4 < length:
                self.wanted = 4 + length
                return MORE
            row += 4
            if length == 0 or row[0] == 0xFF or (row[0] == 0xFE and length < 9):
                self.ended = True
                return ENDED
            stop = self._digested_row(row, row + length) if self._digesting else self._row(row, row + length)
            if stop != MORE and stop != FULL and stop != REFUSED:
                return stop
            self._start += 4 + length
            self.rows += 1
            if stop != MORE:
                return stop

    cdef Stop _row(self, const unsigned char* at, const unsigned char* end) noexcept nogil:
        """Encode one row; MORE: done, go on."""
        cdef Py_ssize_t node
        cdef Out* out
        cdef Stop stop = self._split(at, end)
        if stop == FOUND:
            stop = self._make_key()
        if stop != FOUND:
            return stop
        node = (<const uint16_t*>self._owners.buf)[slot_of(self._key, self._key_size)]
        if node >= self._nodes:
            return NO_NODE
        out = &self._out[node]
        stop = self._write(out, &self._expires[node])
        if stop != FOUND:
            return stop
        return FULL if out.size >= FULL_AT else MORE

    cdef Stop _digested_row(self, const unsigned char* at, const unsigned char* end) noexcept nogil:
        """As `_row`, but leave the row out if it is known, and gather its digest and its key in any case."""
        cdef uint64_t digest = digest_of(at, end - at)
        cdef Stop stop
        if self._is_known(digest):
            stop = self._split(at, end)
            if stop == FOUND:
                stop = self._make_key()
            if stop != FOUND:
                return stop
            if not self._fits():
                return REFUSED
            self.unchanged += 1
            return self._note(digest)
        stop = self._row(at, end)
        if (stop == MORE or stop == FULL) and self._note(digest) != MORE:
            return NO_MEMORY
        return stop

    cdef bint _is_known(self, uint64_t digest) noexcept nogil:
        cdef uint64_t place = digest & self._mask
        while self._known[place]:
            if self._known[place] == digest:
                return True
            place = (place + 1) & self._mask
        return False

    cdef bint _fits(self) noexcept nogil:
        """Whether no value is longer than Redis accepts."""
        cdef Py_ssize_t i
        for i in range(self._fields):
            if self._cell[self._field[i]].size > self._most:
                return False
        return True

    cdef Stop _note(self, uint64_t digest) noexcept nogil:
        """Gather the digest and the key of the current row; MORE: done, go on."""
        cdef uint32_t size = <uint32_t>self._key_size
        cdef unsigned char* to
        if not reserve(&self._digests, 8, NOTED) or not reserve(&self._keys, 4 + self._key_size, NOTED):
            return NO_MEMORY
        memcpy(self._digests.data + self._digests.size, &digest, 8)
        self._digests.size += 8
        to = self._keys.data + self._keys.size
        memcpy(to, &size, 4)
        self._keys.size = put(to + 4, self._key, self._key_size) - self._keys.data
        return MORE

    cdef inline Stop _split(self, const unsigned char* at, const unsigned char* end) noexcept nogil:
        """Find the cells: a byte, or a mark and two, three or eight bytes, is the length of each."""
        cdef Py_ssize_t i, byte, size
        cdef unsigned int first
        cdef Text* text
        for i in range(self._cells):
            if at >= end:
                return BROKEN
            text = &self._cell[i]
            first = at[0]
            at += 1
            if first < 251:
                size = first
            elif first == 251:
                text.data, text.size = NULL, 0
                continue
            elif first == 252 and end - at >= 2:
                size = at[0] | (at[1] << 8)
                at += 2
            elif first == 253 and end - at >= 3:
                size = at[0] | (at[1] << 8) | (at[2] << 16)
                at += 3
            elif first == 254 and end - at >= 8 and at[7] < 0x80:
                size = 0
                for byte in range(8):
                    size |= <Py_ssize_t>(<uint64_t>at[byte] << (8 * byte))
                at += 8
            else:
                return BROKEN
            if size > end - at:
                return BROKEN
            text.data, text.size = at, size
            at += size
        return FOUND if at == end else BROKEN

    cdef inline Stop _make_key(self) noexcept nogil:
        """Put the key together in `_key`."""
        cdef Py_ssize_t i, size = self._literal
        cdef Text* text
        cdef unsigned char* to
        for i in range(self._pieces):
            if self._piece[i].data == NULL:
                text = &self._cell[self._piece[i].size]
                if text.data == NULL:
                    return REFUSED
                size += text.size
        if size > self._most:
            return REFUSED
        if size > self._key_room or self._key == NULL:
            free(self._key)
            self._key_room = size + 256
            self._key = <unsigned char*>malloc(self._key_room)
            if self._key == NULL:
                self._key_room = 0
                return NO_MEMORY
        to = self._key
        for i in range(self._pieces):
            text = &self._piece[i]
            if text.data == NULL:
                text = &self._cell[text.size]
            to = put(to, text.data, text.size)
        self._key_size = size
        return FOUND

    cdef inline Stop _write(self, Out* out, Out* expires) noexcept nogil:
        """Write the commands of the row."""
        cdef Py_ssize_t i, key = self._key_size, present = 0, longest = 0, need = 2 * (WORDS + key)
        cdef Text* text
        cdef unsigned char* to
        cdef Stop stop
        # A field may be named more than once, so count its value each time.
        for i in range(self._fields):
            text = &self._cell[self._field[i]]
            need += self._name[i].size + text.size + BULK
            if text.size > self._most:
                return REFUSED
            if text.data != NULL or self._nulls_empty:
                present += 1
                longest = max(longest, text.size)
        if not reserve(out, need, self._first):
            return NO_MEMORY
        if self._restores and 0 < present <= self._most_fields and longest <= self._longest:
            stop = self._restore(out, present, need)
            if stop != LONG:
                return stop
        to = out.data + out.size
        if present:
            to = put(put_number(to, 42, 2 + 2 * present), b"$5\r\nHMSET\r\n", 11)
            to = put_bulk(to, self._key, key)
            for i in range(self._fields):
                text = &self._cell[self._field[i]]
                if text.data != NULL or self._nulls_empty:
                    to = put_bulk(put(to, self._name[i].data, self._name[i].size), text.data, text.size)
            out.replies += 1
        if present < self._fields:
            to = put(put_number(to, 42, 2 + self._fields - present), b"$4\r\nHDEL\r\n", 10)
            to = put_bulk(to, self._key, key)
            for i in range(self._fields):
                if self._cell[self._field[i]].data == NULL:
                    to = put(to, self._name[i].data, self._name[i].size)
            out.replies += 1
        out.size = to - out.data
        out.rows += 1
        if not present or not (self._has_ttl or self._checks_ttl) or self._expire(expires):
            return FOUND
        return NO_MEMORY

    cdef Stop _restore(self, Out* out, Py_ssize_t present, Py_ssize_t need) noexcept nogil:
        """Write the row as a ready-made hash of `present` fields; there is room in `out`. See `listpack.dump_of`.

        LONG: that is longer than Redis accepts.
        """
        cdef Py_ssize_t i, size, zeros
        cdef uint64_t crc
        cdef Text* text
        cdef unsigned char* listpack
        cdef unsigned char* start
        cdef unsigned char* to
        if not reserve(&self._dump, need, 4096):
            return NO_MEMORY
        listpack = start = self._dump.data + BEFORE
        to = listpack + 6
        for i in range(self._fields):
            text = &self._cell[self._field[i]]
            if text.data != NULL or self._nulls_empty:
                to = put_entry(put(to, self._entry[i].data, self._entry[i].size), text.data, text.size)
        to[0], to[1], to[2] = 0xFF, VERSION, 0
        size = to + 1 - listpack
        to += 3
        for i in range(4):
            listpack[i] = size >> (8 * i) & 0xFF
        listpack[4], listpack[5] = 2 * present & 0xFF, 2 * present >> 8
        if size < 64:
            start -= 1
            start[0] = <unsigned char>size
        elif size < 16384:
            start -= 2
            start[0], start[1] = <unsigned char>(0x40 | (size >> 8)), <unsigned char>(size & 0xFF)
        else:
            start -= 5
            start[0] = 0x80
            for i in range(4):
                start[1 + i] = size >> (8 * (3 - i)) & 0xFF
        start -= 1
        start[0] = KIND
        zeros = -(to - start) & 15  # in front, where they do not change the checksum
        memset(start - zeros, 0, zeros)
        crc = crc64_of(start - zeros, to - start + zeros)
        memcpy(to, &crc, 8)
        size = to + 8 - start
        if size > self._most:
            return LONG
        to = put_bulk(put(out.data + out.size, b"*5\r\n$7\r\nRESTORE\r\n", 17), self._key, self._key_size)
        to = put_decimal(to, 1000 * self._seconds() if self._has_ttl else 0)
        to = put(put_bulk(to, start, size), b"$7\r\nREPLACE\r\n", 13)
        out.size = to - out.data
        out.rows += 1
        out.replies += 1
        return FOUND

    cdef inline Py_ssize_t _seconds(self) noexcept nogil:
        """See `encoder.ttl_of`."""
        cdef Py_ssize_t spread = crc_of(self._key, self._key_size, 0)
        return self._ttl - self._jitter + (spread * (2 * self._jitter + 1) >> 16)

    cdef bint _expire(self, Out* out) noexcept nogil:
        """Write EXPIRE or TTL of the current key; false if there is no memory."""
        cdef Py_ssize_t key = self._key_size
        cdef unsigned char* to
        if not reserve(out, WORDS + key, self._first):
            return False
        if self._has_ttl:
            to = put(put(out.data + out.size, b"*3\r\n", 4), b"$6\r\nEXPIRE\r\n", 12)
            to = put_decimal(put_bulk(to, self._key, key), self._seconds())
        else:
            to = put_bulk(put(put(out.data + out.size, b"*2\r\n", 4), b"$3\r\nTTL\r\n", 9), self._key, key)
        out.size = to - out.data
        out.replies += 1
        return True


def count_replies(const unsigned char[::1] data not None):
    """See `resp.count_replies`."""
    cdef Py_ssize_t end = data.shape[0], replies
    if not end:
        return 0
    with nogil:
        replies = count_plain(&data[0], end)
    return replies


cdef Py_ssize_t count_plain(const unsigned char* at, Py_ssize_t size) noexcept nogil:
    cdef const unsigned char* end = at + size
    cdef Py_ssize_t replies = 0
    while at < end:
        if end - at >= 5 and memcmp(at, b"+OK\r\n", 5) == 0:
            at += 5
        elif at[0] == 58:
            at += 1
            if at < end and at[0] == 45:
                at += 1
            if at >= end or not 48 <= at[0] <= 57:
                return -1
            while at < end and 48 <= at[0] <= 57:
                at += 1
            if end - at < 2 or at[0] != 13 or at[1] != 10:
                return -1
            at += 2
        else:
            return -1
        replies += 1
    return replies


cdef struct Span:
    Py_ssize_t at
    Py_ssize_t size


cdef struct Spans:
    Span* span
    Py_ssize_t count
    Py_ssize_t room


cdef inline bint add(Spans* to, Span span) noexcept nogil:
    """Append; false if there is no memory."""
    cdef Py_ssize_t room
    cdef Span* larger
    if to.count == to.room:
        room = to.room * 2 + 64
        larger = <Span*>realloc(to.span, room * sizeof(Span))
        if larger == NULL:
            return False
        to.span, to.room = larger, room
    to.span[to.count] = span
    to.count += 1
    return True


cdef inline bint same(
    const unsigned char* one, Py_ssize_t one_size, const unsigned char* other, Py_ssize_t other_size
) noexcept nogil:
    return one_size == other_size and memcmp(one, other, one_size) == 0


cdef inline Py_ssize_t number_at(
    const unsigned char* data, Py_ssize_t at, Py_ssize_t end, unsigned char sign, Py_ssize_t* number
) noexcept nogil:
    """See `resp.number_at`; -1 if the line is malformed."""
    cdef Py_ssize_t first = at + 1, value = 0
    if at >= end:
        return end + 1
    if data[at] != sign:
        return -1
    at += 1
    while at < end and 48 <= data[at] <= 57:
        if at - first == 10 or (at > first and not value):  # no number begins with a nought
            return -1
        value = value * 10 + data[at] - 48
        at += 1
    if at == end:
        return end + 1
    if at == first or data[at] != 13:
        return -1
    if at + 1 == end:
        return end + 1
    if data[at + 1] != 10:
        return -1
    number[0] = value
    return at + 2


cdef inline Py_ssize_t bulk_at(
    const unsigned char* data, Py_ssize_t at, Py_ssize_t end, Span* text
) noexcept nogil:
    """Where the bulk string at `at` ends: beyond `end` if it is incomplete, -1 if it is malformed."""
    cdef Py_ssize_t size = 0
    at = number_at(data, at, end, 36, &size)
    if at < 0:
        return -1
    text.at, text.size = at, size
    at += size + 2
    if at <= end and (data[at - 2] != 13 or data[at - 1] != 10):
        return -1
    return at


cdef struct Command:
    Py_ssize_t start
    Py_ssize_t body  # where its first word after the key starts
    Py_ssize_t end
    Span key
    bint sets  # it is an HMSET
    Spans words  # those after the key


cdef Stop read_command(const unsigned char* data, Py_ssize_t end, Command* command) noexcept nogil:
    """Read the command that starts at `command.end`, of a batch of `end` bytes."""
    cdef Py_ssize_t at = command.end, count = 0, i
    cdef Span word
    if at == end:
        return ENDED
    command.start = at
    command.words.count = 0
    at = number_at(data, at, end, 42, &count)
    if not 0 <= at <= end or count < 2:
        return NO_BATCH
    for i in range(count):
        at = bulk_at(data, at, end, &word)
        if not 0 <= at <= end:
            return NO_BATCH
        if i == 0:
            command.sets = same(data + word.at, word.size, b"HMSET", 5)
        elif i == 1:
            command.key, command.body = word, at
        elif not add(&command.words, word):
            return NO_MEMORY
    if command.sets and count % 2:
        return NO_BATCH
    command.end = at
    return FOUND


cdef Stop next_row(const unsigned char* data, Py_ssize_t end, Command* command) noexcept nogil:
    """Read the first command of the next row; `command` is that of the row before. See `resp.number_rows`."""
    cdef bint follows = command.sets
    cdef Span key = command.key
    cdef Stop stop = read_command(data, end, command)
    if stop == FOUND and follows and not command.sets:
        if same(data + key.at, key.size, data + command.key.at, command.key.size):
            stop = read_command(data, end, command)
    return stop


def reads(const unsigned char[::1] data not None):
    """See `resp.reads`."""
    cdef Out out
    cdef Stop stop
    memset(&out, 0, sizeof(Out))
    try:
        if data.shape[0]:
            with nogil:
                stop = put_reads(&data[0], data.shape[0], &out)
            raise_for(stop)
        return (<const char*>out.data)[: out.size]
    finally:
        free(out.data)


cdef Stop put_reads(const unsigned char* data, Py_ssize_t end, Out* out) noexcept nogil:
    cdef Stop stop
    cdef Command command
    cdef unsigned char* to
    memset(&command, 0, sizeof(Command))
    while True:
        stop = next_row(data, end, &command)
        if stop != FOUND:
            break
        if not reserve(out, WORDS + command.key.size, 4096):
            stop = NO_MEMORY
            break
        to = put(out.data + out.size, b"*2\r\n$7\r\nHGETALL\r\n", 17)
        to = put_bulk(to, data + command.key.at, command.key.size)
        out.size = to - out.data
    free(command.words.span)
    return stop


cdef raise_for(Stop stop):
    if stop == BROKEN:
        raise no_reply()
    if stop == NO_BATCH:
        raise ValueError("the batch is not one of an encoder")
    if stop == NO_MEMORY:
        raise MemoryError


cdef inline uint64_t checksum(const unsigned char* key, Py_ssize_t size) noexcept nogil:
    """See `comparer.checksum`."""
    cdef uint64_t number = <uint64_t>0xCBF29CE484222325
    cdef Py_ssize_t i
    for i in range(size):
        number = (number ^ key[i]) * <uint64_t>0x100000001B3
    number = (number ^ (number >> 33)) * <uint64_t>0xFF51AFD7ED558CCD
    number = (number ^ (number >> 33)) * <uint64_t>0xC4CEB9FE1A85EC53
    return number ^ (number >> 33)


@final
cdef class SlotChecksums:
    """See `comparer.SlotChecksums`."""

    cdef uint64_t _counts[16384]
    cdef uint64_t _sums[16384]

    def add(self, list keys not None):
        """See `comparer.SlotChecksums.add`."""
        for key in keys:
            self._add(<bytes?>key, len(key))

    def of(self, unsigned int slot):
        """See `comparer.SlotChecksums.of`."""
        if slot >= 16384:
            raise IndexError(slot)
        return self._counts[slot], self._sums[slot]

    def differing(self, SlotChecksums other not None):
        """See `comparer.SlotChecksums.differing`."""
        cdef unsigned int slot
        return [
            slot
            for slot in range(16384)
            if self._counts[slot] != other._counts[slot] or self._sums[slot] != other._sums[slot]
        ]

    cdef void _add(self, const unsigned char* key, Py_ssize_t size) noexcept nogil:
        cdef unsigned int slot = slot_of(key, size)
        self._counts[slot] += 1
        self._sums[slot] += checksum(key, size)


cdef struct Field:
    Span name
    Py_ssize_t reply  # the last that named it, by how many were left
    Py_ssize_t guess  # the field that came at this place of the last reply looked at; -1: none yet


@final
cdef class Comparer:
    """See `comparer.Comparer`.

    A reply of just the bytes of its command is found so by one comparison. Else the reply's fields are looked up among
    the command's, by a hash table of their names that stands for as long as rows have the same names; each field is
    first guessed to be the one that came at its place before, as Redis sorts hashes of the same names alike.
    """

    cdef readonly Py_ssize_t left, wanted, present
    cdef readonly list differences
    cdef SlotChecksums _tally
    cdef Py_buffer _batch
    cdef bint _have_batch
    cdef Command _command  # that the next reply is compared with
    cdef bint _begun  # `_command` is that of the next reply, not of the last
    cdef Py_ssize_t _start  # of the next reply
    cdef Py_ssize_t _head  # bytes of its first line
    cdef Py_ssize_t _walked  # bytes of it that need not be scanned again
    cdef Py_ssize_t _bulks  # in it
    cdef Spans _got  # this many of them were scanned
    cdef Field* _field  # of the command that the table was made for
    cdef Py_ssize_t* _table  # number of a field, from 1, at the place of its name's checksum or behind it; 0: none
    cdef Py_ssize_t _fields, _names, _field_room, _mask

    def __cinit__(self, data, Py_ssize_t rows, SlotChecksums tally=None):
        self.left = rows
        self.differences = []
        self._tally = tally
        PyObject_GetBuffer(data, &self._batch, PyBUF_SIMPLE)
        self._have_batch = True

    def __dealloc__(self):
        if self._have_batch:
            PyBuffer_Release(&self._batch)
        free(self._command.words.span)
        free(self._got.span)
        free(self._field)
        free(self._table)

    def feed(self, buffer, Py_ssize_t start, Py_ssize_t end):
        """See `comparer.Comparer.feed`."""
        cdef Py_buffer view
        cdef Stop stop
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if not 0 <= start <= end <= view.len:
                raise ValueError("start and end lie outside the buffer")
            if start < end and not self.left:
                raise too_many_replies()
            self._start = start
            while True:
                with nogil:
                    stop = self._run(<const unsigned char*>view.buf, end)
                if stop != DIFFERENT:
                    break
                self._keep(<const char*>view.buf)
        finally:
            PyBuffer_Release(&view)
        if stop == ENDED:
            raise ValueError("the batch has fewer rows than was said")
        raise_for(stop)
        return self._start

    cdef _keep(self, const char* buffer):
        """Note the row that differs, and continue after its reply."""
        cdef const char* batch = <const char*>self._batch.buf
        command = batch[self._command.start : self._command.end]
        self.differences.append((command, buffer[self._start : self._start + self._walked]))
        self._next()

    cdef Stop _run(self, const unsigned char* data, Py_ssize_t end) noexcept nogil:
        """Consume replies from `_start` on, until something stops it."""
        cdef Stop stop
        while self.left:
            self.wanted = max(1, self._walked)
            if end - self._start < self.wanted:
                return MORE
            if not self._begun:
                stop = next_row(<const unsigned char*>self._batch.buf, self._batch.len, &self._command)
                if stop != FOUND:
                    return stop
                if not self._command.sets:  # a row of NULLs alone has no hash
                    self._command.words.count, self._command.body = 0, self._command.end
                self._begun = True
            stop = self._reply(data + self._start, end - self._start)
            if stop != EQUAL:
                return stop
            self._next()
        self.wanted = 0
        return MORE

    cdef void _next(self) noexcept nogil:
        """Count a reply, and continue after it."""
        if self._bulks:
            self.present += 1
            if self._tally is not None:
                self._tally._add(<const unsigned char*>self._batch.buf + self._command.key.at, self._command.key.size)
        self._start += self._walked
        self._walked = self._bulks = self._got.count = 0
        self._begun = False
        self.left -= 1

    cdef Stop _reply(self, const unsigned char* reply, Py_ssize_t size) noexcept nogil:
        """Compare a reply of which `size` bytes have arrived; continue after the last call."""
        cdef Py_ssize_t at
        cdef Stop stop
        if reply[0] == 45:
            return self._walk_error(reply, size)
        if not self._walked:
            at = number_at(reply, 0, size, 42, &self._bulks)
            if at > size:
                self.wanted = at
                return MORE
            if at < 0 or self._bulks % 2:
                return BROKEN
            self._head = self._walked = at
            if self._is_plain(reply, size):
                self._walked += self._command.end - self._command.body
                return EQUAL
        stop = self._walk(reply, size)
        if stop != FOUND:
            return stop
        return EQUAL if self._is_plain(reply, self._walked) else self._match(reply)

    cdef bint _is_plain(self, const unsigned char* reply, Py_ssize_t size) noexcept nogil:
        """Whether the reply is exactly what the command sets."""
        cdef Py_ssize_t body = self._command.end - self._command.body
        return (
            self._bulks == self._command.words.count
            and body <= size - self._head
            and memcmp(reply + self._head, <const unsigned char*>self._batch.buf + self._command.body, body) == 0
        )

    cdef Stop _walk_error(self, const unsigned char* reply, Py_ssize_t size) noexcept nogil:
        """See `comparer.Comparer._walk_error`."""
        cdef const unsigned char* line_end
        line_end = <const unsigned char*>memchr(reply + self._walked, 10, size - self._walked)
        if line_end == NULL:
            self._walked = size
            self.wanted = size + 1
            return MORE
        if (line_end - 1)[0] != 13:
            return BROKEN
        self._walked = line_end + 1 - reply
        return DIFFERENT

    cdef Stop _walk(self, const unsigned char* reply, Py_ssize_t size) noexcept nogil:
        """See `comparer.Comparer._walk`."""
        cdef Py_ssize_t at
        cdef Span text
        while self._got.count < self._bulks:
            at = bulk_at(reply, self._walked, size, &text)
            if at > size:
                self.wanted = at
                return MORE
            if at < 0:
                return BROKEN
            if not add(&self._got, text):
                return NO_MEMORY
            self._walked = at
        return FOUND

    cdef Stop _match(self, const unsigned char* reply) noexcept nogil:
        """Find each field of the reply among the command's. See `comparer.is_hash_of`."""
        cdef const unsigned char* batch = <const unsigned char*>self._batch.buf
        cdef Py_ssize_t i, field
        cdef Span name, value, other
        if not self._got.count or self._got.count > self._command.words.count:
            return DIFFERENT
        if not self._index():
            return NO_MEMORY
        if self._got.count != 2 * self._names:
            return DIFFERENT
        for i in range(self._names):
            name, value = self._got.span[2 * i], self._got.span[2 * i + 1]
            field = self._field[i].guess
            if field >= 0:
                other = self._field[field].name
            if field < 0 or not same(reply + name.at, name.size, batch + other.at, other.size):
                field = self._table[self._place(reply + name.at, name.size)] - 1
                if field < 0:
                    return DIFFERENT
                self._field[i].guess = field
            if self._field[field].reply == self.left:
                return DIFFERENT
            self._field[field].reply = self.left
            other = self._command.words.span[2 * field + 1]
            if not same(reply + value.at, value.size, batch + other.at, other.size):
                return DIFFERENT
        return EQUAL

    cdef Py_ssize_t _place(self, const unsigned char* name, Py_ssize_t size) noexcept nogil:
        """The place in the table for a name."""
        cdef Py_ssize_t place = <Py_ssize_t>checksum(name, size) & self._mask
        cdef Span other
        while self._table[place]:
            other = self._field[self._table[place] - 1].name
            if same(name, size, <const unsigned char*>self._batch.buf + other.at, other.size):
                break
            place = (place + 1) & self._mask
        return place

    cdef bint _index(self) noexcept nogil:
        """Fill the table with the command's fields, if it has others; false if there is no memory."""
        cdef const unsigned char* batch = <const unsigned char*>self._batch.buf
        cdef Py_ssize_t i, place, fields = self._command.words.count // 2
        cdef Span name, other
        if fields == self._fields:
            for i in range(fields):
                name, other = self._command.words.span[2 * i], self._field[i].name
                if not same(batch + name.at, name.size, batch + other.at, other.size):
                    break
            else:
                return True
        self._fields = 0  # until the table is made
        if not self._make_room(fields):
            return False
        self._names = 0
        for i in range(fields):
            name = self._command.words.span[2 * i]
            self._field[i].name, self._field[i].reply, self._field[i].guess = name, 0, -1
            place = self._place(batch + name.at, name.size)
            self._names += self._table[place] == 0
            self._table[place] = i + 1  # of a name that is there twice, the last value holds
        self._fields = fields
        return True

    cdef bint _make_room(self, Py_ssize_t fields) noexcept nogil:
        """Empty the table, at least half of which must stay empty; false if there is no memory."""
        cdef Py_ssize_t room = 16
        while room < 2 * fields:
            room *= 2
        if room > self._field_room:
            free(self._field)
            free(self._table)
            self._field = <Field*>malloc(room // 2 * sizeof(Field))
            self._table = <Py_ssize_t*>malloc(room * sizeof(Py_ssize_t))
            self._field_room = room if self._field and self._table else 0
            if not self._field_room:
                return False
        self._mask = room - 1
        memset(self._table, 0, room * sizeof(Py_ssize_t))
        return True
