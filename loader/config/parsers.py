"""The small languages inside config values: urls, durations, percentages, key templates. Text in, values out.

Every function raises ValueError with a message for a person, which never repeats a url, because that may contain a
password.
"""

import re
from collections.abc import Mapping
from dataclasses import field, replace
from string import Formatter
from urllib.parse import parse_qsl, unquote, urlsplit

from loader.records import dataclass

KeyParts = tuple[tuple[str, str | None], ...]
"""A parsed key template: literal text, and the column that follows it (None if none does)."""

JOB_NAME = r"^\.*[\w-][\w.-]*$"  # not only dots: in the path of a url they mean other places

MYSQL_PORTS = {"mysql": 3306, "mariadb": 3306}
REDIS_PORTS = {"redis": 6379, "valkey": 6379, "rediss": 6379, "valkeys": 6379, "unix": 0}
TLS_SCHEMES = {"rediss", "valkeys"}

HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):([0-9]{1,5})")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LONGEST = 5200 * SECONDS["w"]  # a hundred years: every server and socket can still count that far
MOST_JITTER = 90  # percent; at 100 a key could expire at once


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server and the user to log in as."""

    host: str
    port: int
    user: str | None
    database: str
    unix_socket: str | None
    tls: bool
    password: str | None = field(default=None, repr=False)
    others: tuple[tuple[str, int], ...] = ()  # further hosts and ports of a cluster


def plain(text: str) -> str:
    """A text made safe for a terminal: control and direction characters are escaped."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def mysql_address(text: object) -> Address:
    """Read `mysql://user@host:3306/database`, also with `?unix_socket=/path` instead of the host."""
    address, query = _address(text, MYSQL_PORTS, "mysql://user@host:3306/database", "unix_socket")
    if not address.host and not query:
        raise ValueError("the url names no host: mysql://user@host:3306/database")
    if query and not query.startswith("/"):
        raise ValueError("unix_socket is a path that begins with /")
    if not address.database or "/" in address.database:
        raise ValueError("the url ends in the name of one database: mysql://user@host:3306/database")
    return Address(
        address.host or "localhost",
        address.port,
        address.user,
        address.database,
        query or None,
        address.tls,
        address.password,
    )


def redis_address(text: object) -> Address:
    """Read `redis://[user@]host:6379[/db]`, `rediss://…` for TLS, `unix:///path[?db=0]`; valkey(s) are the same.

    For a cluster, several nodes may be listed: `redis://host:7001,host:7002`.
    """
    whole = (
        re.fullmatch(r"([^/]*//(?:[^/@]*@)?)([^/?#@,]+(?:,[^/?#@,]+)+)(.*)", text) if isinstance(text, str) else None
    )
    if whole:
        first, *rest = (redis_address(whole[1] + host + whole[3]) for host in whole[2].split(","))
        return replace(first, others=tuple((other.host, other.port) for other in rest))
    address, query = _address(text, REDIS_PORTS, "redis://host:6379", "db")
    is_socket = not address.port
    if is_socket == bool(address.host):
        raise ValueError("the url names no host: redis://host:6379, or unix:///path for a socket")
    if is_socket and not address.database:
        raise ValueError("the url names no socket: unix:///path")
    database = query or ("" if is_socket else address.database) or "0"
    if not re.fullmatch("[0-9]{1,5}", database):
        raise ValueError("the database of Redis is a number: redis://host:6379/0")
    path = f"/{address.database}" if is_socket else None
    host = address.host or "localhost"
    return Address(host, address.port, address.user, str(int(database)), path, address.tls, address.password)


def _address(text: object, ports: Mapping[str, int], example: str, parameter: str) -> tuple[Address, str]:
    """Split a url; the database is the whole path, and the second value is that of the only query parameter allowed."""
    if not isinstance(text, str):
        raise ValueError(f"must be a url like {example}")  # noqa: TRY004  # pydantic collects ValueErrors only
    if any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError("a url holds no spaces and no control characters; percent-encode them")
    try:
        parts = urlsplit(text)
        port = parts.port
        user, password, path = (
            unquote(part or "", errors="strict") for part in (parts.username, parts.password, parts.path)
        )
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:  # its text may contain the password
        port, query = 0, {"": ""}
    if port == 0 or "#" in text or "" in query:
        raise ValueError(f"is not a url like {example}; in a user or a password, percent-encode : / ? # @ and %")
    if parts.scheme not in ports:
        raise ValueError(f"must be a url like {example}, beginning with one of {', '.join(ports)}")
    if unknown := query.keys() - {parameter}:
        raise ValueError(f"unknown url parameter {min(unknown)!r}; the only one is {parameter}")
    address = Address(
        host=parts.hostname or "",
        port=port or ports[parts.scheme],
        user=user or None,
        database=path.removeprefix("/"),
        unix_socket=None,
        tls=parts.scheme in TLS_SCHEMES,
        password=password or None,
    )
    return address, query.get(parameter, "")


def host_port(text: str) -> tuple[str, int]:
    """Read `host:6379` or `[::1]:6379`."""
    match = HOST_PORT.fullmatch(text)
    if match is None or not 1 <= int(match[2]) <= 65535:
        raise ValueError("must be a host and its port: 10.0.0.11:6379, or [::1]:6379")
    return match[1].strip("[]").lower(), int(match[2])


def seconds(text: object) -> int:
    """Read a duration: `30s`, `90m`, `12h`, `1d`, `2w`."""
    match = re.fullmatch("([0-9]{1,12})([smhdw])", text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("must be a number and its unit: 30s, 90m, 12h, 1d or 2w")
    amount = int(match[1]) * SECONDS[match[2]]
    if not 1 <= amount <= LONGEST:
        raise ValueError("must be from 1s to 5200w")
    return amount


def percent(text: object) -> int:
    """Read a percentage: `10%`."""
    match = re.fullmatch("([0-9]{1,3})%", text) if isinstance(text, str) else None
    if match is None or int(match[1]) > MOST_JITTER:
        raise ValueError(f"must be a percentage from 0% to {MOST_JITTER}%")
    return int(match[1])


def key_parts(template: str) -> KeyParts:
    """Parse a key template: `stu_{sid}` is `(("stu_", "sid"),)`; `{{` and `}}` are literal braces."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError:
        raise ValueError("unmatched brace; write {{ or }} for a literal one") from None
    parts: list[tuple[str, str | None]] = []
    literal = ""
    for text, column, specification, conversion in parsed:
        literal += text
        if column is None:
            continue
        if specification or conversion or not column.strip() or column.isdecimal() or set(column) & set("{}"):
            raise ValueError("braces must contain the name of a column, like {sid}")
        parts.append((literal, column))
        literal = ""
    if not parts:
        raise ValueError("names no column, so that all rows would share one key; write one in braces, like {sid}")
    return (*parts, (literal, None)) if literal else tuple(parts)
