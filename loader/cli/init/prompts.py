"""Finds addresses, passwords and tables for `loader init`: in options and the environment, or by asking a person.

Questions go to stderr. Without a terminal, a missing answer is an error that says how to give it.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from getpass import getpass
from unicodedata import east_asian_width

from loader.cli.init.yaml_text import in_comment, size_text
from loader.config.parsers import Address, mysql_address, redis_address
from loader.config.servers import SourceConfig, TargetConfig
from loader.errors import ConfigError, Kind, LoaderError
from loader.model import TableSummary
from loader.mysql.connection import Connection
from loader.mysql.failures import is_login
from loader.redis.client import RedisClient

TRIES = 3  # passwords that were asked for
SOURCE_URL, TARGET_URL = "mysql://user@host:3306/database", "redis://host:6379"
READERS: Mapping[str, Callable[[object], Address]] = {"source": mysql_address, "target": redis_address}
EXAMPLES = {"source": SOURCE_URL, "target": TARGET_URL}
SERVERS = {"source": "MySQL", "target": "Redis"}
VARIABLES = {"source": "MYSQL", "target": "REDIS"}
SHOWN = 20  # tables named in a message
WIDTH = 80  # columns of a terminal
WIDEST = 28  # characters shown of a table's name


class Prompter:
    """Finds the answers that `loader init` needs; `tell` shows a line to the person who is asked."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def addresses(self, given: Mapping[str, str | None], found: Mapping[str, str | None]) -> dict[str, str]:
        """The urls of both sides without passwords: from the options, the environment, a script, or a person.

        A password in a url becomes that of the environment, where this process alone reads it.
        """
        urls: dict[str, str] = {}
        missing = []
        for side in READERS:
            variable = f"{VARIABLES[side]}_URL"
            url = given[side] or os.environ.get(variable) or found.get(side)
            if url:
                urls[side] = self._checked(side, url, f"--{side}" if given[side] else f"${variable}")
            elif is_attended():
                urls[side] = self._asked(side)
            else:
                missing.append(f"--{side} {EXAMPLES[side]} (or ${variable})")
        if missing:
            raise ConfigError(f"there is no terminal to ask on; give {' and '.join(missing)}")
        return urls

    def open_source(self, url: str) -> Connection:
        """Connect to MySQL; asks for the password if the server refuses without."""
        tries = TRIES if is_attended() else 0
        while True:
            try:
                return Connection(SourceConfig.model_validate({"url": url, "password": password("source")}))
            except LoaderError as error:
                if not is_login(error):
                    raise
                if not tries:
                    raise ConfigError(f"{error}{_unasked('source')}") from error
                if password("source"):
                    self._tell(str(error))
            tries -= 1
            self._ask_password("source")

    def check_target(self, url: str) -> None:
        """Make sure that Redis answers; asks for the password if it refuses without."""
        tries = TRIES if is_attended() else 0
        while True:
            try:
                with RedisClient(TargetConfig.model_validate({"url": url, "password": password("target")})) as target:
                    target.refresh(force=True)
            except LoaderError as error:
                if error.kind is not Kind.ACCESS:
                    raise
                if not tries:
                    raise ConfigError(f"{error}{_unasked('target')}") from error
                if password("target"):
                    self._tell(str(error))
            else:
                return
            tries -= 1
            self._ask_password("target")

    def tables(self, listing: Sequence[TableSummary], patterns: Sequence[str], database: str) -> list[TableSummary]:
        """The tables that were named, or that a person chooses; all if there is no terminal to ask on."""
        if not listing:
            raise ConfigError(
                f"database {database!r} has no tables that this account may see: see GRANT SELECT, or the url"
            )
        if patterns:
            return matching(listing, patterns)
        if not is_attended():
            return list(listing)
        self._tell(f"\nTables of {in_comment(database)}:")
        for line in listing_lines(listing):
            self._tell(line)
        while True:
            answer = self.ask("Which? Numbers (1,3-5) or names (stu*), all if empty: ")
            try:
                return matching(listing, [each.strip() for each in answer.split(",") if each.strip()], numbered=True)
            except ConfigError as error:
                self._tell(str(error))

    def ask(self, question: str) -> str:
        """Ask a person; the end of input is an error."""
        sys.stderr.write(question)
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer:
            self._tell("")
            raise ConfigError("the input ended; nothing was written")
        return answer.strip()

    def _asked(self, side: str) -> str:
        while True:
            answer = self.ask(f"Where is {SERVERS[side]}? {EXAMPLES[side]}: ")
            try:
                return self._checked(side, answer, SERVERS[side])
            except ConfigError as error:
                self._tell(str(error))

    def _checked(self, side: str, url: str, whence: str) -> str:
        """The url without its password, which moves into the environment."""
        try:
            address = READERS[side](url.strip())
        except ValueError as error:
            raise ConfigError(f"{whence}: {error}") from None
        if address.password:
            os.environ[f"{VARIABLES[side]}_PASSWORD"] = address.password
            self._tell(f"The password in the url of {SERVERS[side]} is used now, but not written: put it into .env.")
        return without_password(url.strip())

    def _ask_password(self, side: str) -> None:
        try:
            os.environ[f"{VARIABLES[side]}_PASSWORD"] = getpass(f"Password for {SERVERS[side]} (not shown): ")
        except (EOFError, ValueError):
            self._tell("")
            raise ConfigError("the input ended; nothing was written") from None


def is_attended() -> bool:
    """Whether there is a terminal to ask a person on."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def without_password(url: str) -> str:
    """A url with only the user in front of its host; the last @ ends them, as in `parsers`."""
    match = re.match(r"([^/]*//)([^/?#]*)@", url)
    if match is None:
        return url
    user = match[2].partition(":")[0]
    return match[1] + (f"{user}@" if user else "") + url[match.end() :]


def password(side: str) -> str:
    """The password from the environment; empty if it has none."""
    return os.environ.get(f"{VARIABLES[side]}_PASSWORD", "")


def _unasked(side: str) -> str:
    """Where the password is from, if nobody can be asked for it."""
    return "" if is_attended() else f"; the password is taken from ${VARIABLES[side]}_PASSWORD"


def listing_lines(listing: Sequence[TableSummary]) -> list[str]:
    """A line per table that fits a terminal: its number, name, size and key."""
    names = [in_comment(table.name, WIDEST) for table in listing]
    sizes = [size_text(table) for table in listing]
    name_width, size_width = max(map(_width, names)), max(map(len, sizes))
    lines = []
    for number, (table, name, size) in enumerate(zip(listing, names, sizes, strict=True), 1):
        key = "" if table.is_view else f"key {', '.join(table.primary_key)}" if table.primary_key else "no primary key"
        line = f"{number:4}  {name}{' ' * (name_width - _width(name))}  {size:{size_width}}"
        lines.append(f"{line}  {in_comment(key, max(WIDTH - _width(line) - 2, 8))}".rstrip())
    return lines


def _width(text: str) -> int:
    """Columns that a text takes on a terminal: two per character of Chinese and the like."""
    return sum(2 if east_asian_width(sign) in "WF" else 1 for sign in text)


def matching(listing: Sequence[TableSummary], patterns: Iterable[str], *, numbered: bool = False) -> list[TableSummary]:
    """The tables that patterns name, in the order of the list; all if there are no patterns."""
    patterns = list(patterns)
    meant: set[str] = set()
    names = [table.name for table in listing]
    for pattern in patterns:
        span = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", pattern) if numbered else None
        if pattern in names:
            found = {pattern}
        elif span:
            found = set(names[max(int(span[1]) - 1, 0) : int(span[2] or span[1])]) if int(span[1]) else set()
        else:
            found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            close = get_close_matches(pattern, names, 1)
            hint = f"did you mean {close[0]!r}?" if close else "there are " + ", ".join(map(in_comment, names[:SHOWN]))
            raise ConfigError(f"no table {pattern!r}: {hint}")
        meant |= found
    return [table for table in listing if table.name in meant or not patterns]
