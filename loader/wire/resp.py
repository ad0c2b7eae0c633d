"""Redis commands and replies as bytes; no I/O."""

import re
from collections.abc import Iterator, Sequence

from loader.errors import Kind, TargetError

PLAIN_REPLIES = re.compile(rb"(?:\+OK\r\n|:-?[0-9]+\r\n)*")
SET, NEVER = b":1", b":-1"  # EXPIRE's reply for an existing key, and TTL's for one that does not expire
# A line with a number, and an incomplete one. No size in Redis has more than ten digits.
NUMBER = rb"(0|[1-9][0-9]{0,9})"
NUMBER_LINE = {sign: re.compile(rb"\%c%b\r\n" % (sign, NUMBER)) for sign in b"*$"}
NUMBER_PART = {sign: re.compile(rb"\%c(?:%b\r?)?" % (sign, NUMBER)) for sign in b"*$"}
LINE_END = re.compile(rb"\n")
Buffer = bytes | bytearray | memoryview


def pack(command: list[bytes]) -> bytes:
    """RESP of one command."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        parts += b"$%d\r\n" % len(word), word, b"\r\n"
    return b"".join(parts)


def split_commands(data: Buffer) -> Iterator[list[bytes]]:
    """Words of each command of a batch, in order: the reverse of `pack`, for inspection."""
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
    """Number of replies in `data`, which ends with a line; -1 if not all are `+OK` or a number."""
    return data.count(b"\n") if PLAIN_REPLIES.fullmatch(data) else -1


def number_rows(batch: Sequence[list[bytes]]) -> list[int]:
    """For each command of a batch, which row of the batch it belongs to, from 0.

    A row's commands are adjacent, HMSET first, so a new row begins with every HMSET, with every RESTORE, which is all
    of its row, and with an HDEL that does not follow the HMSET of its own key.
    """
    numbers: list[int] = []
    row, begun = -1, None
    for name, key, *_ in batch:
        if name in {b"HMSET", b"RESTORE"} or key != begun:
            row += 1
        begun = key if name == b"HMSET" else None
        numbers.append(row)
    return numbers


def row_heads(batch: Buffer) -> Iterator[list[bytes]]:
    """The words of the first command of each row of a batch: its HMSET, or its HDEL if it has no other."""
    commands = list(split_commands(batch))
    last = -1
    for command, row in zip(commands, number_rows(commands), strict=True):
        if row != last:
            yield command
        last = row


def reads(data: Buffer) -> bytes:
    """The HGETALL of each row of a batch, in order."""
    return b"".join(pack([b"HGETALL", key]) for _, key, *_ in row_heads(data))


def number_at(view: memoryview, at: int, sign: bytes) -> tuple[int, int]:
    """Read the number of a `*n` or `$n` line of a reply; return it and where the next line starts.

    That is beyond the view if the line is incomplete.
    """
    line = NUMBER_LINE[sign[0]].match(view, at)
    if line:
        return int(line[1]), line.end()
    if at < len(view) and not NUMBER_PART[sign[0]].fullmatch(view, at):
        raise no_reply()
    return 0, len(view) + 1


def no_reply() -> TargetError:
    """The error of a reply that is neither an array of pairs nor an error."""
    return TargetError("Redis sent a reply that does not fit HGETALL", kind=Kind.UNAVAILABLE)


def too_many_replies() -> TargetError:
    """The error for a reply without a row."""
    return TargetError("Redis sent more replies than it was asked for", kind=Kind.UNAVAILABLE)


def _length(raw: bytes, position: int) -> tuple[int, int]:
    """Read the number of a `*n` or `$n` line; return it and where the next line starts."""
    end = raw.index(b"\r\n", position)
    return int(raw[position + 1 : end]), end + 2
