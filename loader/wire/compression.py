"""Compressed events of the binlog: made plain, so that they are read as all others; no I/O."""

import zlib
from collections.abc import Iterator

import zstandard

from loader.errors import SourceError
from loader.wire.binlog import COMPRESSED_ROWS, HEADER, NO_LENGTH, EventType, Fields

ZSTD, NONE = 0, 255  # how a payload is compressed
PIECE = 256 * 1024  # bytes that are decompressed at a time


def plain_events(event: bytes) -> Iterator[bytes] | None:
    """The events that a compressed one stands for; None if it is not compressed."""
    match event[4]:
        case EventType.TRANSACTION_PAYLOAD:
            return payload_events(event)
        case EventType.QUERY_COMPRESSED:
            return iter([inflate_query(event)])
        case kind if kind in COMPRESSED_ROWS:
            return iter([inflate_rows(event)])
    return None


def inflate_query(event: bytes) -> bytes:
    """The QUERY that a compressed QUERY of MariaDB is: the text alone is compressed."""
    fields = Fields(event)
    fields.take(8)
    schema = fields.number(1)
    fields.take(2)
    fields.take(fields.number(2))
    fields.take(schema + 1)
    return _plain(event, EventType.QUERY, fields)


def inflate_rows(event: bytes) -> bytes:
    """The rows event that a compressed one of MariaDB is: what follows the bitmaps is compressed."""
    kind = COMPRESSED_ROWS[EventType(event[4])]
    fields = Fields(event)
    fields.take(8)
    if kind >= EventType.WRITE_ROWS:
        extra = fields.number(2)
        if extra < 2:
            raise fields.malformed(NO_LENGTH)
        fields.take(extra - 2)
    width = (fields.lenenc() + 7) // 8
    is_update = kind in {EventType.UPDATE_ROWS_V1, EventType.UPDATE_ROWS}
    fields.take(2 * width if is_update else width)
    return _plain(event, kind, fields)


def payload_events(event: bytes) -> Iterator[bytes]:
    """The events of a compressed transaction of MySQL; they have no checksums, and 0 as their ends.

    Fields of `type, length, value` up to type 0, then the events, compressed as a stream.
    """
    fields = Fields(event)
    compression, size = ZSTD, None
    while kind := fields.lenenc():
        value = fields.part(fields.lenenc())
        if kind == 2:
            compression = value.lenenc()
        elif kind == 3:
            size = value.lenenc()
    if compression not in {ZSTD, NONE}:
        raise SourceError(f"MySQL sent a transaction compressed in a way that is not known ({compression})")
    total, rest = 0, bytearray()
    for piece in _decompressed(fields) if compression == ZSTD else [fields.rest()]:
        total += len(piece)
        rest += piece
        events, taken = _whole_events(rest, fields)
        del rest[:taken]
        yield from events
    if rest or (size is not None and total != size):
        raise fields.malformed("has another size within than it says")


def _whole_events(data: bytearray, fields: Fields) -> tuple[list[bytes], int]:
    """The events that are all there, and their bytes together."""
    events, start = [], 0
    while len(data) - start >= HEADER:
        length = int.from_bytes(data[start + 9 : start + 13], "little")
        if length < HEADER:
            raise fields.malformed("has an event within that is too short")
        if len(data) - start < length:
            break
        events.append(bytes(data[start : start + length]))
        start += length
    return events, start


def _decompressed(fields: Fields) -> Iterator[bytes]:
    try:
        yield from zstandard.ZstdDecompressor().read_to_iter(fields.rest(), write_size=PIECE)
    except zstandard.ZstdError as error:
        raise fields.malformed("cannot be decompressed") from error


def _plain(event: bytes, kind: EventType, fields: Fields) -> bytes:
    """The event of another type, with what is left of it made plain: `0x80 | k`, k bytes of length, zlib."""
    before = bytearray(event[: fields.at])
    lead = fields.number(1)
    if lead & 0xF8 != 0x80 or not 1 <= lead & 7 <= 4:
        raise fields.malformed("is compressed in a way that is not known")
    size = int.from_bytes(fields.take(lead & 7))
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(fields.rest(), size) if size else b""
        more = inflater.decompress(inflater.unconsumed_tail, 1) if size else b""
    except zlib.error as error:
        raise fields.malformed("cannot be decompressed") from error
    if len(plain) != size or more:
        raise fields.malformed("has another size within than it says")
    before[4] = kind
    before[9:13] = (len(before) + size).to_bytes(4, "little")
    return bytes(before) + plain
