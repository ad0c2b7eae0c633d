"""Row packets of MySQL's text protocol: length, sequence number, length-encoded cells; no I/O."""

from loader.errors import Kind, SourceError
from loader.wire.resp import Buffer

PACKET_MAX = 0xFFFFFF  # a packet of this length is continued in the next
HEADER = 4


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
        raise SourceError("MySQL sent a row packet whose cells do not add up", kind=Kind.UNAVAILABLE)
    return cells
