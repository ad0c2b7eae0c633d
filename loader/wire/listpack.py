"""Ready-made hashes: the value of a RESTORE that leaves the same hash as an HMSET, for less of Redis's work.

The value is what DUMP gives: a type, the hash as a listpack, the version of the format and a checksum. See
https://github.com/antirez/listpack/blob/master/listpack.md and https://rdb.fnordig.de/file_format.html.
"""

import re
from collections.abc import Sequence

HASH_AS_LISTPACK, FORMAT = 16, 10  # of Redis 7, which newer ones and Valkey read too
LONGEST = 4095  # bytes of a name or value: of longer ones, Redis and Valkey write some sizes differently
MOST_FIELDS = 10_000  # a listpack does not count more than 65,534 elements, and is searched from its start
INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
POLYNOMIAL = 0x95AC9329AC4BC9B5  # of CRC-64/Jones, reflected


def crc64_table() -> list[int]:
    """The checksum of each byte."""
    table = []
    for byte in range(256):
        number = byte
        for _ in range(8):
            number = number >> 1 ^ (POLYNOMIAL if number & 1 else 0)
        table.append(number)
    return table


_CRC64 = crc64_table()


def crc64(data: bytes) -> int:
    """CRC-64/Jones, as Redis has it: it begins with 0."""
    number = 0
    for byte in data:
        number = _CRC64[(number ^ byte) & 0xFF] ^ number >> 8
    return number


def crc64_power(exponent: int) -> int:
    """The checksum's polynomial remainder of x to a power, in the bit order of the checksum: the first bit is x^63."""
    number = 1 << 63  # x^0
    for _ in range(exponent):
        number = number >> 1 ^ (POLYNOMIAL if number & 1 else 0)
    return number


def dump_of(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """What DUMP gives for a hash with these fields, in this order.

    There are 1 to `MOST_FIELDS`, whose names differ; names and values have `LONGEST` bytes at most.
    """
    entries = b"".join(entry(name) + entry(value) for name, value in fields)
    size, count = len(entries) + 7, 2 * len(fields)
    listpack = size.to_bytes(4, "little") + count.to_bytes(2, "little") + entries + b"\xff"
    data = bytes([HASH_AS_LISTPACK]) + _length(size) + listpack + FORMAT.to_bytes(2, "little")
    return data + crc64(data).to_bytes(8, "little")


def entry(text: bytes) -> bytes:
    """A text in a listpack: its kind and size in front, and the size of both behind, to be read backwards."""
    number = int(text) if INTEGER.fullmatch(text) else None
    body = _string(text) if number is None or not -(1 << 63) <= number < 1 << 63 else _integer(number)
    size = len(body)
    return body + (bytes([size]) if size < 1 << 7 else bytes([size >> 7, size & 0x7F | 0x80]))


def _integer(number: int) -> bytes:
    if 0 <= number < 1 << 7:
        return number.to_bytes(1)
    if -(1 << 12) <= number < 1 << 12:
        return (number & 0x1FFF | 0xC000).to_bytes(2)
    for mark, size in ((0xF1, 2), (0xF2, 3), (0xF3, 4)):
        if -(1 << 8 * size - 1) <= number < 1 << 8 * size - 1:
            return bytes([mark]) + number.to_bytes(size, "little", signed=True)
    return b"\xf4" + number.to_bytes(8, "little", signed=True)


def _string(text: bytes) -> bytes:
    size = len(text)
    return (bytes([0x80 | size]) if size < 1 << 6 else (0xE000 | size).to_bytes(2)) + text


def _length(size: int) -> bytes:
    """A length in front of a string in Redis's file format."""
    if size < 1 << 6:
        return size.to_bytes(1)
    if size < 1 << 14:
        return (size | 1 << 14).to_bytes(2)
    return b"\x80" + size.to_bytes(4)
