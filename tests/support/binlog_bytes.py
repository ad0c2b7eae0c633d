"""Events of a binlog, made byte by byte, and the packets that they come in."""

import struct
import zlib

HEADER = 19


def lenenc(number):
    if number < 0xFB:
        return bytes([number])
    if number < 1 << 16:
        return b"\xfc" + number.to_bytes(2, "little")
    return b"\xfd" + number.to_bytes(3, "little")


def event(kind, body, *, end=1000, time=1, server=1, flags=0):
    """An event without checksum."""
    return struct.pack("<IBIIIH", time, kind, server, HEADER + len(body), end, flags) + body


def checksummed(plain):
    """The same event with a checksum."""
    size = (len(plain) + 4).to_bytes(4, "little")
    whole = plain[:9] + size + plain[13:]
    return whole + zlib.crc32(whole).to_bytes(4, "little")


def packet(whole, number=0):
    """The packet that an event comes in."""
    return (len(whole) + 1).to_bytes(3, "little") + bytes([number]) + b"\0" + whole


def gtid(number=1, uuid=b"u" * 16, *, kind=33, time=1):
    return event(kind, b"\1" + uuid + struct.pack("<Q", number) + b"\2" + b"\0" * 16, time=time)


def mariadb_gtid(number=1, domain=0, server=1, flags=0):
    return event(162, struct.pack("<QIB", number, domain, flags) + b"\0" * 6, server=server)


def query(statement, schema=b"test", **options):
    body = struct.pack("<IIBHH", 7, 0, len(schema), 0, 3) + b"\0\1\2" + schema + b"\0" + statement
    return event(2, body, **options)


def xid(end=2000, time=1):
    return event(16, struct.pack("<Q", 99), end=end, time=time)


def table_map(types, metadata=b"", *, table=5, name=b"t", optional=b"", schema=b"test"):
    body = struct.pack("<IHH", table, 0, 1) + lenenc(len(schema)) + schema + b"\0" + lenenc(len(name)) + name + b"\0"
    nulls = bytes((len(types) + 7) // 8)
    return event(19, body + lenenc(len(types)) + bytes(types) + lenenc(len(metadata)) + metadata + nulls + optional)


def bitmap(places, count):
    bits = sum(1 << place for place in places)
    return bits.to_bytes((count + 7) // 8, "little")


def image(*cells):
    """A row image of cells that are present, as bytes with their lengths; None is NULL."""
    nulls = bitmap([place for place, cell in enumerate(cells) if cell is None], len(cells))
    return nulls + b"".join(cell for cell in cells if cell is not None)


def rows(kind, count, images, *, table=5, present=None, after=None, extra=b"", end=1000):
    """A rows event; `present` are the columns of its images, all by default, and `after` those after an update."""
    everything = range(count)
    body = table.to_bytes(6, "little") + b"\1\0"
    if kind >= 30:
        body += struct.pack("<H", 2 + len(extra)) + extra
    body += lenenc(count) + bitmap(everything if present is None else present, count)
    if kind in {24, 31, 39}:
        body += bitmap(everything if after is None else after, count)
    return event(kind, body + b"".join(images), end=end)
