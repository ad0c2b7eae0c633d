"""Redis's replies to each command, by their kind: any other reply comes from a broken server or another program. Pure.

See https://redis.io/docs/latest/commands/ for each.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from loader.wire.slots import SLOTS

PORTS = 65536
NUMBERS = re.compile(
    rb"^(?:connected_slaves|maxmemory|used_memory|evicted_keys|total_connections_received)(?::([^\r\n]*))?\r?$",
    re.MULTILINE,
)
FIELDS = re.compile(r"^([^:\r\n]*):([^\r\n]*)", re.MULTILINE)

Kind = Callable[[Any], bool]


def is_plausible(command: str, reply: Any) -> bool:
    """Whether a command may get such a reply; errors are not checked, nor the results of scripts."""
    kind = KINDS.get(command.upper())
    return kind is None or kind(reply)


def _number(reply: Any) -> bool:
    return type(reply) is int


def _text(reply: Any) -> bool:
    return type(reply) is bytes


def _maybe(reply: Any) -> bool:
    return reply is None or _text(reply)


def _texts(reply: Any) -> bool:
    return type(reply) is list and all(map(_text, reply))


def _maybes(reply: Any) -> bool:
    return type(reply) is list and all(map(_maybe, reply))


def _pairs(reply: Any) -> bool:
    return _texts(reply) and len(reply) % 2 == 0


def _digits(reply: Any) -> bool:
    return _text(reply) and reply.isdigit()


def _time(reply: Any) -> bool:
    return type(reply) is list and len(reply) == 2 and all(map(_digits, reply))


def _lines(reply: Any) -> bool:
    """Text that can be decoded, with numbers where numbers belong."""
    if not _text(reply):
        return False
    try:
        reply.decode()
    except UnicodeDecodeError:
        return False
    return all(map(bytes.isdigit, NUMBERS.findall(reply)))


def _page_of(kind: Kind) -> Kind:
    """A cursor, and the elements it returns."""
    return lambda reply: type(reply) is list and len(reply) == 2 and _digits(reply[0]) and kind(reply[1])


def _slots(reply: Any) -> bool:
    return type(reply) is list and all(map(_range, reply))


def _range(reply: Any) -> bool:
    """First slot, last slot, nodes."""
    if type(reply) is not list or len(reply) < 3 or not all(map(_number, reply[:2])):
        return False
    return 0 <= reply[0] <= reply[1] < SLOTS and all(map(_node, reply[2:]))


def _node(reply: Any) -> bool:
    """Endpoint, port, id, and possibly metadata."""
    if type(reply) is not list or len(reply) < 2 or not (_maybe(reply[0]) and _number(reply[1])):
        return False
    return 0 < reply[1] < PORTS and all(map(_maybe, reply[2:3])) and all(map(_pairs, reply[3:4]))


KINDS: Mapping[str, Kind] = {
    "SET": _maybe,  # NX, if the key exists
    **dict.fromkeys(("PING", "TYPE", "ASKING", "SELECT", "LTRIM", "HMSET", "RESTORE"), _text),
    **dict.fromkeys(("HSET", "HDEL", "HLEN", "DEL", "UNLINK", "EXISTS", "DBSIZE", "WAIT", "LPUSH"), _number),
    **dict.fromkeys(("EXPIRE", "PEXPIRE", "PERSIST", "TTL", "PTTL"), _number),
    **dict.fromkeys(("GET", "HGET", "RANDOMKEY"), _maybe),
    "EVAL": lambda reply: _number(reply) or type(reply) is list,
    "HGETALL": _pairs,
    "HMGET": _maybes,
    "HSCAN": _page_of(_pairs),
    "SCAN": _page_of(_texts),
    "LRANGE": _texts,
    "INFO": _lines,
    "TIME": _time,
    "CLUSTER INFO": _lines,
    "CLUSTER SLOTS": _slots,
    "CLIENT LIST": _text,
    "CLIENT KILL": _number,
}


def info_of(text: bytes) -> dict[str, str]:
    """The fields of a reply to INFO, by name."""
    return dict(FIELDS.findall(text.decode()))


def field_of(text: bytes, name: bytes, default: str = "") -> str:
    """One field of a reply to INFO; a twentieth of the time that all of them take."""
    head = b"\n%s:" % name
    if (found := text.find(head)) < 0:
        return default
    start = found + len(head)
    end = text.find(b"\n", start)
    return text[start : end if end >= 0 else len(text)].rstrip(b"\r").decode()
