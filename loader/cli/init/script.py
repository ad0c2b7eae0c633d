"""The statements and servers in a shell script that pastes SQL output into redis-cli. Pure.

Nothing is silently left out: each statement that is passed to mysql becomes a `Statement` or a fault with its line.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import pairwise
from urllib.parse import quote

from loader.cli.init.shell import HOLE, Command, Shell, Text, script_text
from loader.config.parsers import redis_address
from loader.config.statement import Statement, read_select, statements_in
from loader.records import dataclass

CLIENTS = {"mysql", "mariadb"}
VALUED = {"h": "host", "P": "port", "u": "user", "p": "password", "D": "database", "S": "socket", "e": "execute"}
OPTION = re.compile(r"--([\w-]+)(?:=(.*))?", re.DOTALL)
REDIS_CLI = re.compile(r"\bredis-cli\b([^|;&\n]*)")
REDIS_USER = re.compile(r"--user\s+([^\s\0]+)")
REDIS_OPTION = re.compile(r"(?:^|\s)-([hpnau])\s*([^\s-][^\s'\",;]*)")
WANTS_FILE = "takes its SQL from a file; name that file, called …sql, in place of this one"
# Programs that pass on all lines.
PASSES = {"redis-cli", "cat", "read", "xargs", "tee", "sh", "bash", "awk", "gawk", "mawk", "parallel"}
HEADINGS = re.compile(r"tail -n ?\+2|sed 1d|grep -v \^?concat.*", re.IGNORECASE)  # removes the title that mysql prints
EXPIRES = re.compile(r"\b(p?expire(?:at)?|setex)\b", re.IGNORECASE)
ELSEWHERE = {"defaults-file", "defaults-extra-file", "defaults-group-suffix", "login-path"}  # options in files


@dataclass(frozen=True, slots=True)
class Reach:
    """The server that a client of the script connects to; None for values that the script does not give."""

    host: str | None = None
    port: str | None = None
    user: str | None = None
    database: str | None = None
    socket: str | None = None
    password: bool = False  # whether the script has one
    known: bool = True  # or only known when the script runs
    tls: bool = False


@dataclass(slots=True)
class Script:
    """The contents of scripts: jobs, the servers, and faults, each `file:line: words`."""

    statements: list[Statement] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    mysql: Reach | None = None
    redis: Reach | None = None
    mysql_place: str = ""
    redis_place: str = ""  # empty: only a guess

    @property
    def databases(self) -> set[str]:
        """The databases that statements name."""
        return {statement.database for statement in self.statements if statement.database}

    @property
    def passwords(self) -> bool:
        """Whether the script contains a password."""
        return any(reach is not None and reach.password for reach in (self.mysql, self.redis))

    def urls(self) -> dict[str, str | None]:
        """The urls of both sides as the script reaches them."""
        return {"source": self.source_url(min(self.databases, default=None)), "target": self.target_url()}

    def source_url(self, database: str | None) -> str | None:
        """The url of MySQL as the script reaches it; None if the script does not have all of it."""
        reach = self.mysql
        if reach is None or not database or not reach.known:
            return None
        user = f"{quote(reach.user, safe='')}@" if reach.user else ""
        socket = f"?unix_socket={quote(reach.socket)}" if reach.socket else ""
        return f"mysql://{user}{_host(reach.host)}:{reach.port or 3306}/{quote(database, safe='')}{socket}"

    def target_url(self) -> str | None:
        """The url of Redis as the script reaches it."""
        reach = self.redis
        if reach is None or not reach.known:
            return None
        user = f"{quote(reach.user, safe='')}@" if reach.user else ""
        number = f"/{reach.database}" if reach.database and reach.database != "0" else ""
        return f"redis{'s' if reach.tls else ''}://{user}{_host(reach.host, '127.0.0.1')}:{reach.port or 6379}{number}"


def read_script(files: Mapping[str, str]) -> Script:
    """The contents of these files, by name and text; a file called `….sql` contains only statements."""
    script = Script()
    for name, text in files.items():
        before = len(script.statements), len(script.faults)
        if name.lower().endswith(".sql"):
            _statements(script, name, script_text(text), None)
        else:
            _shell(script, name, script_text(text), None)
        if before == (len(script.statements), len(script.faults)):
            script.faults.append(f"{name}:1: no mysql -e 'select concat(\"hmset …' is in it")
    return script


def _host(name: str | None, default: str = "localhost") -> str:
    return f"[{name}]" if name and ":" in name else quote(name or default, safe=".-_")


def _shell(script: Script, name: str, text: Text, remote: str | None) -> None:
    """Read commands; `remote` is the machine they run on, if ssh runs them there."""
    commands = Shell(text).read()
    for command in commands:
        words = command.words
        at = next((place for place, word in enumerate(words) if _program(word) in CLIENTS), None)
        for word in words:
            _redis(script, word.text)
        _redis_client(script, name, command)
        if at is not None and all(_program(word) not in {"echo", "command", "which", "type"} for word in words[:at]):
            _client(script, name, command, at, remote)
            _way(script, name, command, commands)
            continue
        on = _machine(words) or remote
        for word in words:
            if re.search(r"\b(mysql|mariadb)\s", word.text) and re.search(r"\s-", word.text):
                _shell(script, name, word, on)


def _way(script: Script, name: str, command: Command, commands: Sequence[Command]) -> None:
    """Refuse commands that change or drop lines between mysql and redis-cli."""
    while (after := next((each for each in commands if each.before is command), None)) is not None:
        said = " ".join(word.text for word in after.words)
        if after.words and _program(after.words[0]) not in PASSES and not HEADINGS.fullmatch(said):
            place = f"{name}:{after.words[0].line}"
            script.faults.append(
                f"{place}: the output of mysql goes through {_program(after.words[0])!r}, which may change it"
            )
        command = after


def _redis_client(script: Script, name: str, command: Command) -> None:
    """A call of redis-cli: the destination of rows, unless it does something else, like PING."""
    words = command.words
    at = next((place for place, word in enumerate(words) if _program(word) == "redis-cli"), None)
    if at is None:
        return
    place, text = f"{name}:{words[at].line}", " ".join(word.text for word in words[at:])
    if EXPIRES.search(text):
        script.faults.append(f"{place}: sets a time to live; remove the line from a copy, and add `ttl` to the job")
    reach = _options_of_redis(text)
    takes_rows = (
        command.before is not None or command.reads is not None or HOLE in words[-1].text or at == len(words) - 1
    )
    if script.redis is None or (takes_rows and not script.redis_place):
        script.redis, script.redis_place = reach, place if takes_rows else ""
    elif takes_rows and replace(reach, password=False) != replace(script.redis, password=False):
        script.faults.append(f"{place}: uses another Redis than {script.redis_place}; a config has one target")


def _program(word: Text) -> str:
    return word.text.rpartition("/")[2]


def _machine(words: Sequence[Text]) -> str | None:
    """The position of ssh's command, if this is ssh."""
    if not words or _program(words[0]) != "ssh":
        return None
    plain = [word.text for word in words[1:] if not word.text.startswith("-")]
    host = plain[0].rpartition("@")[2] if plain else ""
    return host if host and HOLE not in host and re.fullmatch(r"[\w.:-]+", host) else None


def _redis(script: Script, text: str) -> None:
    """The server that a redis-cli inside a word (of awk, for example) connects to."""
    for match in REDIS_CLI.finditer(text):
        if script.redis is None and match[1].strip():
            script.redis = _options_of_redis(match[1])


def _options_of_redis(text: str) -> Reach:
    found = {letter: value for letter, value in REDIS_OPTION.findall(text) if HOLE not in value}
    user = REDIS_USER.search(text)
    if "u" in found:
        try:
            address = redis_address(found["u"])
        except ValueError:
            return Reach(password=True)
        port, secret = str(address.port), bool(address.password)
        return Reach(address.host, port, address.user, address.database, password=secret)
    digits = {letter: re.match("[0-9]*", value) for letter, value in found.items()}
    return Reach(
        host=found.get("h"),
        port=match[0] if (match := digits.get("p")) else None,
        user=user[1] if user else None,
        database=match[0] if (match := digits.get("n")) else None,
        password="a" in found or "--pass" in text,
        known=not any(HOLE in value for letter, value in REDIS_OPTION.findall(text) if letter in "hpn"),
        tls=re.search(r"(?:^|\s)--tls\b", text) is not None,
    )


def _client(script: Script, name: str, command: Command, at: int, remote: str | None) -> None:
    """A call of mysql: its server and its statements."""
    place = f"{name}:{command.words[at].line}"
    given, statements = _options(command.words[at + 1 :])
    known = {key: value for key, value in given.items() if HOLE not in value}
    reach = Reach(
        host=known.get("host", remote if "host" not in given else None),
        port=known.get("port"),
        user=known.get("user"),
        database=known.get("database"),
        socket=known.get("socket"),
        password="password" in given,
        known=not _elsewhere(command) and not any(HOLE in given.get(name, "") for name in ("host", "port", "socket")),
    )
    if script.mysql is None:
        script.mysql, script.mysql_place = reach, place
    elif replace(reach, database=None, password=False) != replace(script.mysql, database=None, password=False):
        script.faults.append(
            f"{place}: uses another server or account than {script.mysql_place}; a config has one source"
        )
        return
    script.mysql = replace(script.mysql, password=script.mysql.password or reach.password)
    said = command.input
    if not statements and command.reads is not None:
        script.faults.append(f"{place}: {WANTS_FILE}")
    elif not statements and said is None:
        script.faults.append(f"{place}: mysql gets SQL that is not in the script")
    for text in statements or ([said] if said is not None else []):
        _statements(script, name, text, "" if HOLE in given.get("database", "") else reach.database)


def _elsewhere(command: Command) -> bool:
    """Whether options come from a variable or from a file."""
    names = [long[1] for word in command.words if (long := OPTION.fullmatch(word.text))]
    texts = [word.text for word in command.words]
    alone = any(text == HOLE and not before.startswith("-") for before, text in pairwise(texts))
    return alone or any(name in ELSEWHERE for name in names)


def _options(words: Sequence[Text]) -> tuple[dict[str, str], list[Text]]:
    """The values of mysql's options, and the statements among them."""
    given: dict[str, str] = {}
    statements: list[Text] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, value = _option(word)
        if value is None and option and option != "password" and rest:
            value = rest.pop(0)
        if option == "execute" and value is not None:
            statements.append(value)
        elif option and value is not None:
            given[option] = value.text
        elif not word.text.startswith("-"):
            given["database"] = word.text
    return given, statements


def _option(word: Text) -> tuple[str, Text | None]:
    """The option in a word, and its value if that is in the same word; empty if it is not one of ours."""
    if long := OPTION.fullmatch(word.text):
        option = long[1] if long[1] in VALUED.values() else ""
        return option, None if long[2] is None else word.part(long.start(2))
    letter = next((place for place, sign in enumerate(word.text) if place and sign in VALUED), None)
    if not word.text.startswith("-") or letter is None:
        return "", None
    value = word.part(letter + 1)
    return VALUED[word.text[letter]], value if value.text else None


def _statements(script: Script, name: str, text: Text, database: str | None) -> None:
    """Each statement of some SQL; `database` is the current one, None if unknown."""
    for tokens in statements_in(text.text):
        if not tokens:
            continue
        start, end = tokens[0].start, tokens[-1].end
        place = f"{name}:{text.lines[start]}"
        if HOLE in text.text[start:end]:
            script.faults.append(f"{place}: has parts that are only known when the script runs, such as a variable")
        elif tokens[0].word == "use" and len(tokens) > 1:
            database = tokens[1].text.strip("`")
        elif tokens[0].word == "select":
            try:
                statement = read_select(text.text, tokens, place)
            except ValueError as error:
                script.faults.append(f"{place}: {error}")
            else:
                script.statements.append(replace(statement, database=statement.database or database))
        elif tokens[0].word != "set":
            script.faults.append(f"{place}: is not a SELECT but {tokens[0].text[:20].upper()}")


def stray_databases(script: Script, database: str) -> Iterator[str]:
    """Faults of statements that read another database than the url's."""
    for statement in script.statements:
        if statement.database and statement.database != database:
            yield f"{statement.place}: reads database {statement.database!r}, but the url names {database!r}"
