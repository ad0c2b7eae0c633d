# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled twin of `frames.Encoder`: the same commands from the same packets, without the GIL.

Every length that a packet states is checked against the packet's end before it is used, and a node's buffer grows
before a row is written to it. What is rare (a row of more than one packet, a NULL in the key) is done in Python.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint16_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy

from loader.errors import SourceError
from loader.frames import HEADER, PACKET_MAX, ROOM, is_last
from loader.model import Batch, Reject

cdef Py_ssize_t FULL_AT = ROOM
cdef Py_ssize_t FIRST = ROOM + ROOM // 4  # bytes that a node's buffer begins with: rarely too few
cdef Py_ssize_t ALL_FIRST = 8 << 20  # bytes that all nodes' buffers begin with together
cdef Py_ssize_t WORDS = 96  # bytes that a command takes beside its key and fields, and more
cdef Py_ssize_t BULK = 24  # bytes that a bulk string takes beside its text: `$`, 18 digits, two line ends

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


cdef enum Stop:
    MORE  # the next row is not all there
    ENDED  # the next packet ends the result
    FULL  # a node has ROOM bytes
    LONG  # the next row spans packets
    NAMELESS  # a row without a key was passed over; `_start` says where it is
    BROKEN  # cells that do not add up
    NO_MEMORY
    NO_NODE  # the slot's owner is none of the nodes


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
    """Bytes that one owner hands to the next without a copy; freed with the object."""

    cdef unsigned char* data
    cdef Py_ssize_t size

    def __dealloc__(self):
        free(self.data)

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 1, flags)


cdef object to_batch(Out* out, object then):
    cdef Block block = Block.__new__(Block)
    block.data, block.size = out.data, out.size
    batch = Batch(block, out.rows, out.replies, then)
    out.data = NULL
    out.size = out.room = out.rows = out.replies = 0
    return batch


cdef inline unsigned int crc_of(const unsigned char* text, Py_ssize_t size, unsigned int crc) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        crc = ((crc << 8) & 0xFFFF) ^ CRC[(crc >> 8) ^ text[i]]
    return crc


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
    if size:  # the text of a NULL is none, which memcpy must not be given
        memcpy(to, text, size)
    return to + size


cdef inline unsigned char* put_bulk(unsigned char* to, const unsigned char* text, Py_ssize_t size) noexcept nogil:
    to = put(put_number(to, 36, size), text, size)
    to[0], to[1] = 13, 10
    return to + 2


cdef inline bint reserve(Out* out, Py_ssize_t need, Py_ssize_t first) noexcept nogil:
    """Make room for `need` more bytes; `first` are the fewest. False where there is no memory."""
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


cdef class Encoder:
    """See `frames.Encoder`."""

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
    cdef Text* _piece  # literals of the key; where data is NULL, size is a cell
    cdef Text* _name  # `$n name` of each field, ready to be sent
    cdef Py_ssize_t* _field  # cell of each field
    cdef unsigned char* _key
    cdef Py_ssize_t _key_room, _literal
    cdef bint _nulls_empty, _has_ttl
    cdef Py_ssize_t _ttl, _jitter, _start, _first
    cdef Out* _out
    cdef Out* _expires

    def __cinit__(self, layout, owners, Py_ssize_t nodes):
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
        if not (self._cell and self._piece and self._name and self._field and self._out and self._expires):
            raise MemoryError
        names = [b"$%d\r\n%b\r\n" % (len(name), name) for name, _ in layout.fields]
        self._keep = (names, layout)
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
        self._nulls_empty = layout.nulls_empty
        self._has_ttl = layout.ttl is not None
        self._ttl, self._jitter = layout.ttl or 0, layout.ttl_jitter
        PyObject_GetBuffer(owners, &self._owners, PyBUF_SIMPLE)
        self._have_owners = True
        if self._owners.len != 16384 * sizeof(uint16_t):
            raise ValueError("owners: 16384 two-byte numbers are wanted")

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

    def _check_cell(self, number):
        if not 0 <= number < self._cells:
            raise ValueError(f"cell {number} of {self._cells}")

    def feed(self, buffer, Py_ssize_t start, Py_ssize_t end):
        """See `frames.Encoder.feed`."""
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
                if stop == NAMELESS:
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
        """See `frames.Encoder.ready`."""
        cdef Py_ssize_t i
        return [i for i in range(self._nodes) if self._out[i].size >= least]

    def take(self, Py_ssize_t node):
        """See `frames.Encoder.take`."""
        if not 0 <= node < self._nodes:
            raise IndexError(node)
        then = to_batch(&self._expires[node], None) if self._expires[node].size else None
        return to_batch(&self._out[node], then)

    cdef _raise_for(self, Stop stop):
        if stop == BROKEN:
            raise SourceError("MySQL sent a row packet whose cells do not add up", transient=True)
        if stop == NO_MEMORY:
            raise MemoryError
        if stop == NO_NODE:
            raise IndexError("a slot's owner is none of the nodes")

    cdef _reject(self):
        """Note the row without a key that `_cell` still describes."""
        cdef Py_ssize_t i
        cdef Text* piece
        words = []
        for i in range(self._pieces):
            piece = &self._piece[i]
            if piece.data == NULL:
                piece = &self._cell[piece.size]
            words.append(b"NULL" if piece.data == NULL else (<const char*>piece.data)[: piece.size])
        self.rejects.append(Reject(b"".join(words), "a column of the key is NULL"))

    cdef Py_ssize_t _long_row(self, buffer, Py_ssize_t start, Py_ssize_t end) except -1:
        """Encode a row that spans packets; return where the next starts, or `start` where it is not all there."""
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
        stop = self._row(data, data + len(payload))
        if stop == NAMELESS:
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
            stop = self._row(row, row + length)
            if stop != MORE and stop != FULL and stop != NAMELESS:
                return stop
            self._start += 4 + length
            self.rows += 1
            if stop != MORE:
                return stop

    cdef Stop _row(self, const unsigned char* at, const unsigned char* end) noexcept nogil:
        """Encode one row; MORE: done, go on."""
        cdef Py_ssize_t i, present, node, need, size, total = 0, key = 0
        cdef unsigned int first
        cdef Text* text
        cdef Out* out
        cdef unsigned char* to
        cdef const unsigned char* tag
        cdef const unsigned char* close
        # Cells: a byte, or a mark and two, three or eight bytes, is the length; each is checked against the end.
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
                for key in range(8):
                    size |= <Py_ssize_t>(<uint64_t>at[key] << (8 * key))
                at += 8
            else:
                return BROKEN
            if size > end - at:
                return BROKEN
            text.data, text.size = at, size
            at += size
            total += size
        if at != end:
            return BROKEN
        # The key, in one piece.
        key = self._literal
        for i in range(self._pieces):
            if self._piece[i].data == NULL:
                text = &self._cell[self._piece[i].size]
                if text.data == NULL:
                    return NAMELESS
                key += text.size
        if key > self._key_room or self._key == NULL:
            free(self._key)
            self._key_room = key + 256
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
        # Its slot: of the first hash tag that is not empty, else of the whole key.
        tag = <const unsigned char*>memchr(self._key, 123, key)
        close = NULL
        if tag != NULL:
            close = <const unsigned char*>memchr(tag + 1, 125, key - (tag + 1 - self._key))
        if close != NULL and close > tag + 1:
            first = crc_of(tag + 1, close - tag - 1, 0)
        else:
            first = crc_of(self._key, key, 0)
        node = (<const uint16_t*>self._owners.buf)[first & 16383]
        if node >= self._nodes:
            return NO_NODE
        out = &self._out[node]
        # A field may be named more than once, so count its value each time.
        present, need = 0, 2 * (WORDS + key)
        for i in range(self._fields):
            text = &self._cell[self._field[i]]
            need += self._name[i].size + text.size + BULK
            if text.data != NULL or self._nulls_empty:
                present += 1
        if not reserve(out, need, self._first):
            return NO_MEMORY
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
        if self._has_ttl and present and not self._expire(node, key):
            return NO_MEMORY
        return FULL if out.size >= FULL_AT else MORE

    cdef bint _expire(self, Py_ssize_t node, Py_ssize_t key) noexcept nogil:
        """Write EXPIRE of the current key; false where there is no memory. See `frames.ttl_of`."""
        cdef Out* out = &self._expires[node]
        cdef unsigned char number[32]
        cdef unsigned char* to
        cdef Py_ssize_t seconds = crc_of(self._key, key, 0)
        seconds = self._ttl - self._jitter + (seconds * (2 * self._jitter + 1) >> 16)
        if not reserve(out, WORDS + key, self._first):
            return False
        to = put(put(out.data + out.size, b"*3\r\n", 4), b"$6\r\nEXPIRE\r\n", 12)
        to = put_bulk(to, self._key, key)
        # The number's own digits are what put_number writes between its sign and its line end.
        to = put_bulk(to, number + 1, put_number(number, 36, seconds) - number - 3)
        out.size = to - out.data
        out.replies += 1
        return True


def count_replies(const unsigned char[::1] data not None):
    """See `frames.count_replies`."""
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
