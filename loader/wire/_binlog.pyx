# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled twin of `row_images`: the same keys from the same packets.

Every length that an event states is checked against its end before it is used. What is rare, and what does not add up,
goes to the plain functions, which raise the errors.
"""

from cython cimport final
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize, PyBytes_Size
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from loader.wire.binlog import NO_LENGTH, PASSED_OVER, header_of, malformed, parse_gtid, unwrap
from loader.wire.packets import HEADER as PACKET_HEADER
from loader.wire.row_images import inside_transaction, lacks_key

cdef enum:
    HEADER = 19
    CHECKSUM = 4
    FIRST_BYTES = 4  # of a packet: its length and its number
    LONGEST = 0xFFFFFF
    DUMMY_TABLE = 0xFFFFFF
    JSON_PARTS = 1

cdef enum:  # types of events
    QUERY = 2, ROTATE = 4, FORMAT_DESCRIPTION = 15, XID = 16, TABLE_MAP = 19
    WRITE_ROWS_V1 = 23, UPDATE_ROWS_V1 = 24, DELETE_ROWS_V1 = 25
    WRITE_ROWS = 30, UPDATE_ROWS = 31, DELETE_ROWS = 32, PARTIAL_UPDATE_ROWS = 39
    GTID = 33, ANONYMOUS_GTID = 34, MARIADB_GTID = 162

cdef enum:  # how far a transaction is: see `row_images.Group`
    CLOSED = 0, OPENED = 1, BEGUN = 2

cdef enum State:
    ABSENT, NULL_CELL, PRESENT

cdef unsigned char IS_PASSED_OVER[256]
cdef uint32_t CRC[8][256]

assert PACKET_HEADER == FIRST_BYTES


cdef void make_tables():
    """The types that are passed over, and CRC32 of each byte with none to seven zero bytes behind it."""
    cdef uint32_t value
    cdef int byte, bit, behind
    for byte in range(256):
        IS_PASSED_OVER[byte] = byte in PASSED_OVER
        value = byte
        for bit in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
        CRC[0][byte] = value
    for byte in range(256):
        for behind in range(1, 8):
            CRC[behind][byte] = (CRC[behind - 1][byte] >> 8) ^ CRC[0][CRC[behind - 1][byte] & 0xFF]


make_tables()


cdef uint32_t crc_of(const unsigned char* data, Py_ssize_t size) noexcept nogil:
    """CRC32, eight bytes at a time."""
    cdef uint32_t crc = 0xFFFFFFFF
    cdef uint32_t low, high
    while size >= 8:
        low = number4(data) ^ crc
        high = number4(data + 4)
        crc = (
            CRC[7][low & 0xFF] ^ CRC[6][(low >> 8) & 0xFF] ^ CRC[5][(low >> 16) & 0xFF] ^ CRC[4][low >> 24]
            ^ CRC[3][high & 0xFF] ^ CRC[2][(high >> 8) & 0xFF] ^ CRC[1][(high >> 16) & 0xFF] ^ CRC[0][high >> 24]
        )
        data += 8
        size -= 8
    while size > 0:
        crc = (crc >> 8) ^ CRC[0][(crc ^ data[0]) & 0xFF]
        data += 1
        size -= 1
    return ~crc


cdef inline uint32_t number4(const unsigned char* data) noexcept nogil:
    return data[0] | <uint32_t>data[1] << 8 | <uint32_t>data[2] << 16 | <uint32_t>data[3] << 24


cdef inline uint64_t number(const unsigned char* data, int size) noexcept nogil:
    """A little-endian number of at most eight bytes."""
    cdef uint64_t value = 0
    cdef int i
    for i in range(size):
        value |= <uint64_t>data[i] << (8 * i)
    return value


cdef struct Cell:
    const unsigned char* data  # with the length before it
    Py_ssize_t size
    State state


cdef struct Event:
    const unsigned char* data
    const unsigned char* at
    const unsigned char* end
    int kind


cdef int broken(Event* event, str why="ends too early") except -1:
    raise malformed(event.kind, why)


cdef inline const unsigned char* take(Event* event, uint64_t size) except NULL:
    """Pass over `size` bytes, and return where they begin."""
    if size > <uint64_t>(event.end - event.at):
        broken(event)
    event.at += size
    return event.at - size


cdef uint64_t lenenc(Event* event) except? 0xFFFFFFFFFFFFFFFF:
    """A length-encoded number."""
    cdef unsigned char first = take(event, 1)[0]
    cdef int size
    if first < 0xFB:
        return first
    if first == 0xFB or first == 0xFF:
        broken(event, NO_LENGTH)
    size = 2 if first == 0xFC else 3 if first == 0xFD else 8
    return number(take(event, size), size)


cdef class Table:
    """A table map, and how the cells of its row images are read."""

    cdef bytes body
    cdef object followed
    cdef int columns
    cdef int keys
    cdef unsigned char* lead  # of each column: bytes of length before its cell
    cdef int* size  # of each column without
    cdef int* place  # of each column in the key, or -1
    cdef Cell* before
    cdef Cell* after
    cdef int json_bytes

    def __cinit__(self, bytes body, followed):
        cdef int i
        self.body, self.followed = body, followed
        if followed is None:
            return
        columns = followed.table.columns
        key = sorted(set(followed.key))
        self.columns, self.keys = len(columns), len(key)
        self.json_bytes = (followed.table.json_columns + 7) // 8
        self.lead = <unsigned char*>calloc(self.columns + 1, 1)
        self.size = <int*>calloc(self.columns + 1, sizeof(int))
        self.place = <int*>calloc(self.columns + 1, sizeof(int))
        self.before = <Cell*>calloc(self.keys + 1, sizeof(Cell))
        self.after = <Cell*>calloc(self.keys + 1, sizeof(Cell))
        if not (self.lead and self.size and self.place and self.before and self.after):
            raise MemoryError
        for i in range(self.columns):
            self.lead[i], self.size[i], self.place[i] = columns[i].lead, columns[i].size, -1
        for i in range(self.keys):
            if 0 <= key[i] < self.columns:
                self.place[key[i]] = i

    def __dealloc__(self):
        free(self.lead)
        free(self.size)
        free(self.place)
        free(self.before)
        free(self.after)

    cdef int keys_in(self, const unsigned char* present) noexcept:
        """How many columns of the key a bitmap has."""
        cdef int i, count = 0
        for i in range(self.columns):
            if self.place[i] >= 0 and present[i >> 3] >> (i & 7) & 1:
                count += 1
        return count

    cdef int walk(self, Event* event, const unsigned char* present, int shown, Cell* cells) except -1:
        """Pass over one row image, and note the cells of its key."""
        cdef const unsigned char* nulls = take(event, (shown + 7) // 8)
        cdef const unsigned char* start
        cdef int i, bit = 0, place, lead
        for i in range(self.columns):
            if not present[i >> 3] >> (i & 7) & 1:
                continue
            place = self.place[i]
            if nulls[bit >> 3] >> (bit & 7) & 1:
                if place >= 0:
                    cells[place].state = NULL_CELL
                bit += 1
                continue
            bit += 1
            lead = self.lead[i]
            start = take(event, lead)
            take(event, number(start, lead) if lead else self.size[i])
            if place >= 0:
                cells[place].data, cells[place].size, cells[place].state = start, event.at - start, PRESENT
        return 0

    cdef bytes key_of(self, Cell* cells):
        """The raw key of some cells; None if one is NULL."""
        cdef Py_ssize_t size = 0
        cdef int i
        cdef bytes key
        cdef char* to
        for i in range(self.keys):
            if cells[i].state != PRESENT:
                return None
            size += cells[i].size
        key = PyBytes_FromStringAndSize(NULL, size)
        to = PyBytes_AsString(key)
        for i in range(self.keys):
            if cells[i].size:
                memcpy(to, cells[i].data, cells[i].size)
            to += cells[i].size
        return key

    cdef bint is_same(self) noexcept:
        """Whether the cells after an update are those before it."""
        cdef int i
        for i in range(self.keys):
            if self.after[i].data == self.before[i].data:
                continue
            if self.after[i].state != PRESENT or self.before[i].state != PRESENT:
                return False
            if self.after[i].size != self.before[i].size:
                return False
            if memcmp(self.after[i].data, self.before[i].data, self.after[i].size):
                return False
        return True


cdef int count_bits(const unsigned char* bitmap, int columns) noexcept:
    cdef int i, count = 0
    for i in range(columns):
        count += bitmap[i >> 3] >> (i & 7) & 1
    return count


@final
cdef class KeyScanner:
    """See `row_images.KeyScanner`."""

    cdef public bint is_checksummed
    cdef public Py_ssize_t wanted
    cdef public bint stopped
    cdef public int group
    cdef public bytes source
    cdef public unsigned long long number
    cdef public unsigned long long offset
    cdef public unsigned int time
    cdef public Py_ssize_t ended
    cdef dict _tables
    cdef dict _open
    cdef dict _done
    cdef list _runs
    cdef bytes _last_source
    cdef uint64_t _last_id  # the table that the last TABLE_MAP or rows event is of
    cdef Table _last

    def __init__(self, offset=0):
        self.is_checksummed = True
        self.group = CLOSED
        self.source = self._last_source = b""
        self.offset = offset
        self._tables, self._open, self._done, self._runs = {}, {}, {}, []

    def feed(self, buffer, Py_ssize_t start, Py_ssize_t end):
        """See `row_images.KeyScanner.feed`."""
        cdef Py_buffer view
        cdef const unsigned char* packet
        cdef Py_ssize_t size
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            end = min(end, view.len)
            self.stopped = False
            while True:
                self.wanted = FIRST_BYTES
                if end - start < FIRST_BYTES:
                    return start
                packet = <const unsigned char*>view.buf + start
                size = packet[0] | packet[1] << 8 | packet[2] << 16
                if size == LONGEST:
                    self.stopped = True
                    return start
                self.wanted += size
                if end - start < self.wanted:
                    return start
                if not self._packet(packet + FIRST_BYTES, size):
                    self.stopped = True
                    return start
                start += FIRST_BYTES + size
        finally:
            PyBuffer_Release(&view)

    def take(self, bytes event, end=0):
        """See `row_images.KeyScanner.take`."""
        cdef const unsigned char* data = <const unsigned char*>PyBytes_AsString(event)
        if PyBytes_Size(event) < HEADER:
            header_of(event)
        return self._take(data, PyBytes_Size(event), end) != 0

    def define(self, bytes event, followed):
        """See `row_images.KeyScanner.define`."""
        cdef Event it
        it.data = <const unsigned char*>PyBytes_AsString(event)
        if PyBytes_Size(event) < HEADER:
            header_of(event)
        it.at, it.end, it.kind = it.data + HEADER, it.data + PyBytes_Size(event), it.data[4]
        self._last = None
        self._tables[number(take(&it, 6), 6)] = Table(event[HEADER:], followed)

    def forget(self):
        """See `row_images.KeyScanner.forget`."""
        self._tables.clear()
        self._last = None

    def open(self, bytes source, unsigned long long number, *, bint begun):
        """See `row_images.KeyScanner.open`."""
        self.source, self.number = source, number
        self.group = BEGUN if begun else OPENED

    def close(self, unsigned long long end, unsigned int time):
        """See `row_images.KeyScanner.close`."""
        self._close(end & 0xFFFFFFFF if end else 0, end != 0, time)

    def put(self, followed, keys):
        """See `row_images.KeyScanner.put`."""
        self._open.setdefault(followed, {}).update(dict.fromkeys(keys))

    @property
    def held(self):
        """See `row_images.KeyScanner.held`."""
        return sum(map(len, self._open.values()))

    def take_open(self):
        """See `row_images.KeyScanner.take_open`."""
        keys, self._open = self._open, {}
        return keys

    def drain(self):
        """See `row_images.KeyScanner.drain`."""
        drained = self._done, self._runs
        self._done, self._runs, self.ended = {}, [], 0
        return drained

    cdef int _packet(self, const unsigned char* packet, Py_ssize_t size) except -1:
        """Read the event in a packet; 0 if it is not one for this class."""
        cdef const unsigned char* event = packet + 1
        cdef bint is_whole
        size -= 1
        if size < HEADER or packet[0] or event[4] == FORMAT_DESCRIPTION or event[4] == ROTATE:
            return 0
        is_whole = number4(event + 9) == <uint64_t>size
        if is_whole and self.is_checksummed:
            size -= CHECKSUM
            is_whole = size >= HEADER and crc_of(event, size) == number4(event + size)
            if not is_whole:
                size += CHECKSUM
        if not is_whole:
            unwrap((<const char*>event)[:size], is_checksummed=self.is_checksummed)
        return self._take(event, size, 0)

    cdef int _take(self, const unsigned char* data, Py_ssize_t size, unsigned long long end) except -1:
        """Read an event without checksum, of a header at least; 0 if it is not one for this class."""
        cdef int kind = data[4]
        cdef Event event
        cdef unsigned long long own
        event.data, event.at, event.end, event.kind = data, data + HEADER, data + size, kind
        if kind == TABLE_MAP:
            return self._is_known(&event)
        if (WRITE_ROWS_V1 <= kind <= DELETE_ROWS_V1) or (WRITE_ROWS <= kind <= DELETE_ROWS) or (
            kind == PARTIAL_UPDATE_ROWS
        ):
            self._rows(&event)
            return 1
        if kind == XID:
            if self.group == CLOSED:
                raise inside_transaction()
            own = number4(data + 13)
            end = own if own else end
            self._close(end & 0xFFFFFFFF, end != 0, number4(data))
            return 1
        if kind == GTID or kind == ANONYMOUS_GTID or kind == MARIADB_GTID:
            self._gtid(&event)
            return 1
        if kind == QUERY and size >= 6 and memcmp(data + size - 6, b"\0BEGIN", 6) == 0:
            self.group = BEGUN
            return 1
        return IS_PASSED_OVER[kind]

    cdef int _is_known(self, Event* event) except -1:
        """Whether a TABLE_MAP says what it said before."""
        cdef uint64_t table = number(take(event, 6), 6)
        cdef Table known = self._find(table)
        cdef Py_ssize_t size = event.end - event.data - HEADER
        if known is None or PyBytes_Size(known.body) != size:
            return 0
        return memcmp(PyBytes_AsString(known.body), event.data + HEADER, size) == 0

    cdef Table _find(self, uint64_t table):
        if self._last is None or self._last_id != table:
            self._last = self._tables.get(table)
            self._last_id = table
        return self._last

    cdef int _gtid(self, Event* event) except -1:
        """Begin a transaction; see `binlog.parse_gtid` for the bytes."""
        cdef const unsigned char* data = event.at
        cdef Py_ssize_t left = event.end - event.at
        cdef unsigned char source[16]
        if event.kind == MARIADB_GTID:
            if left < 13:
                parse_gtid((<const char*>event.data)[: event.end - event.data])
            memcpy(source, data + 8, 4)
            memcpy(source + 4, event.data + 5, 4)
            self._remember(source, 8)
            self.number = number(data, 8)
            self.group = OPENED if data[12] & 1 else BEGUN
            return 0
        if left < 25:
            parse_gtid((<const char*>event.data)[: event.end - event.data])
        if event.kind == GTID:
            self._remember(data + 1, 16)
        else:
            self.source = b""
        self.number = number(data + 17, 8)
        self.group = OPENED
        return 0

    cdef int _remember(self, const unsigned char* source, Py_ssize_t size) except -1:
        """Note the source of a transaction: mostly the one before."""
        if PyBytes_Size(self._last_source) != size or memcmp(PyBytes_AsString(self._last_source), source, size):
            self._last_source = PyBytes_FromStringAndSize(<const char*>source, size)
        self.source = self._last_source
        return 0

    cdef int _close(self, unsigned long long low, bint is_told, unsigned int time) except -1:
        """End the open transaction, at the low 32 bits of its end if that is told."""
        cdef unsigned long long previous = self.offset
        cdef dict keys
        if is_told:
            self.offset = ((previous >> 32) << 32) + low
            if previous > self.offset:
                self.offset += <unsigned long long>1 << 32
        self.time = time
        self.ended += 1
        self.group = CLOSED
        if self._open:
            for followed, keys in self._open.items():
                done = self._done.get(followed)
                if done is None:
                    self._done[followed] = keys
                else:
                    (<dict>done).update(keys)
            self._open = {}
        if self.source:
            self._count()
            self.source = b""
        return 0

    cdef int _count(self) except -1:
        cdef Py_ssize_t end = len(self._runs) - 1
        if end >= 0:
            source, first, last = self._runs[end]
            if source == self.source and last + 1 == self.number:
                self._runs[end] = source, first, self.number
                return 0
        self._runs.append((self.source, self.number, self.number))
        return 0

    cdef int _rows(self, Event* event) except -1:
        """Take the keys out of a rows event; see `row_images.KeyScanner._rows`."""
        cdef uint64_t table, extra
        cdef Table known
        if self.group == CLOSED:
            raise inside_transaction()
        table = number(take(event, 6), 6)
        take(event, 2)
        if event.kind >= WRITE_ROWS:
            extra = number(take(event, 2), 2)
            if extra < 2:
                broken(event, NO_LENGTH)
            take(event, extra - 2)
        if table == DUMMY_TABLE:
            return 0
        known = self._find(table)
        if known is None:
            raise inside_transaction()
        if known.followed is not None:
            keys = self._open.get(known.followed)
            if keys is None:
                keys = self._open[known.followed] = {}
            self._keys(event, known, keys)
        return 0

    cdef int _keys(self, Event* event, Table table, dict keys) except -1:
        """The raw keys of a rows event, from the number of its columns on."""
        cdef const unsigned char* before
        cdef const unsigned char* after = NULL
        cdef int shown, shown_after = 0, width = (table.columns + 7) // 8
        cdef bint is_update = event.kind == UPDATE_ROWS_V1 or event.kind == UPDATE_ROWS
        cdef bint is_partial = event.kind == PARTIAL_UPDATE_ROWS
        cdef bint has_key_after = False
        cdef bytes key
        if lenenc(event) != <uint64_t>table.columns:
            broken(event, "has other columns than its table map")
        before = take(event, width)
        shown = count_bits(before, table.columns)
        if is_update or is_partial:
            after = take(event, width)
            shown_after = count_bits(after, table.columns)
            has_key_after = table.keys_in(after) > 0
        if not table.keys or table.keys_in(before) < table.keys:
            raise lacks_key(table.followed.table)
        while event.at < event.end:
            table.walk(event, before, shown, table.before)
            key = table.key_of(table.before)
            if key is not None:
                keys[key] = None
            if not (is_update or is_partial):
                continue
            if is_partial and lenenc(event) & JSON_PARTS:
                take(event, table.json_bytes)
            if has_key_after:
                memcpy(table.after, table.before, table.keys * sizeof(Cell))
            table.walk(event, after, shown_after, table.after)
            if has_key_after and not table.is_same():
                key = table.key_of(table.after)
                if key is not None:
                    keys[key] = None
        return 0
