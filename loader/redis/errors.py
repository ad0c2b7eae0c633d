"""What Redis's error replies mean, by their first word."""

import re
from collections.abc import Sequence

import redis

from loader.errors import Kind, TargetError, is_local
from loader.model import Node
from loader.net.tls import PLAIN, meaning

# What to do about an error reply, by its first word.
REDIRECT = frozenset({"MOVED", "ASK", "TRYAGAIN"})
NODE = frozenset({"CLUSTERDOWN", "MASTERDOWN", "LOADING", "READONLY", "UNBLOCKED"})  # wait, look at the cluster again
CAPACITY = frozenset({"OOM", "MISCONF", "NOREPLICAS", "BUSY"})  # wait, someone has to make room
ACCESS = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "DENIED"})  # someone has to change the account
DATA = frozenset({"WRONGTYPE"})  # the row cannot be written
# Any other error reply is a fault of this program, or of a server it does not know, and ends the run.
# Some errors have no word of their own.
SCRIPT = "ERR Error running script"
FORBIDDEN = ("ERR The user executing the script can't run", "ERR ACL failure in script")  # the latter from Redis 7.2 on
DATABASE = ("ERR SELECT is not allowed", "ERR DB index is out of range")  # the number in the url
NO_CLUSTER = (
    "ERR This instance has cluster support disabled",
    "ERR unknown command 'CLUSTER'",
    "ERR unknown command `CLUSTER`",
)
NO_MASTER = "ERR WAIT cannot be used with replica"  # as READONLY
ENCRYPTED = "the server speaks TLS there: write rediss:// in target.url"
ANSWERED = (redis.AuthenticationError, redis.BusyLoadingError)
LOST = (redis.ConnectionError, redis.TimeoutError, OSError)  # of a driver, once a connection is gone
ACCOUNT = "see the user in target.url, and target.password"
NAMELESS = "ERR without a word"  # what an error says that says nothing
CLIENTS = "ERR max number of clients reached"  # as CAPACITY
PROTOCOL = "ERR Protocol error"  # what came was too large, or nonsense: the connection ends
UNKNOWN = ("ERR unknown", "ERR Unknown")  # a command that this server does not have, or under another name
NAMELY = re.compile(r"ERR [Uu]nknown (?:sub)?command ['`]([A-Za-z|]+)['`]")  # what follows may be a row
UNKNOWN_IN_SCRIPT = re.compile("Unknown (?:Redis )?command called from")  # Valkey leaves the name out
UNNAME = "take out of redis.conf: rename-command"
RENAMED = "it is disabled or has another name there, see rename-command in redis.conf, and the loader needs it"


def error_text(error: Exception) -> str:
    """An error reply as the server wrote it: redis-py takes the first word away."""
    if isinstance(error, MemoryError):
        return "a reply does not fit into the memory of this machine, unless the server is broken"
    code = getattr(error, "status_code", None)
    return f"{code} {error}" if code else str(error).strip() or type(error).__name__


def failure_of(error: Exception | str, node: Node, *, reached: bool) -> TargetError:
    """What a driver's exception or an error reply means for the run; whether the node was `reached` before."""
    return unknown_command(error, node) or _meaning(error, node, reached=reached)


def _meaning(error: Exception | str, node: Node, *, reached: bool) -> TargetError:
    text = error_text(error) if isinstance(error, Exception) else error
    code = code_of(text)
    message = f"redis {node}: {text.removesuffix('.')}"
    if told := advice(error, code, text):
        return TargetError(f"{message}: {told}", kind=Kind.ACCESS if is_access(error, code) else Kind.REFUSED)
    if isinstance(error, redis.InvalidResponse):
        what = "the answer is none of Redis" if reached else "no Redis server answers there"
        return TargetError(
            f"redis {node}: {what} ({text.removesuffix('.')}): see target.url",
            kind=Kind.UNSETTLED if reached else Kind.REFUSED,
        )
    if isinstance(error, Exception) and is_local(error):
        return TargetError(message)
    if code in CAPACITY or text.startswith((CLIENTS, PROTOCOL)):
        return TargetError(message, kind=Kind.UNSETTLED)
    if isinstance(error, LOST) or code in NODE | REDIRECT or text.startswith(NO_MASTER):
        return TargetError(message, kind=Kind.UNAVAILABLE)
    return TargetError(message if code in DATA else f"redis {node}: {' '.join(text.split()[:8])}")  # may quote a row


def unknown_command(error: Exception | str, node: Node) -> TargetError | None:
    """What it means that a node does not know a command; None where it does."""
    text = error_text(error) if isinstance(error, Exception) else error
    named = NAMELY.match(text)
    if not named or text.startswith(NO_CLUSTER):
        return None
    command = named[1].upper()
    failure = TargetError(f"redis {node}: unknown command {command}: {RENAMED}", kind=Kind.REFUSED)
    failure.fix = f"{UNNAME} {command}"
    return failure


def is_access(error: Exception | str, code: str) -> bool:
    """Whether the account, its password or its rights are refused."""
    return isinstance(error, redis.AuthenticationError) or code in ACCESS


def advice(error: Exception | str, code: str, text: str) -> str:
    """What someone has to see to; empty where that is not known, or nothing."""
    if is_access(error, code):
        return ACCOUNT
    if isinstance(error, Exception) and (failed := meaning(error)):
        return f"{failed}: write redis:// in target.url" if failed == PLAIN else failed
    if text.startswith(NO_CLUSTER):
        return "see target.cluster, which may be auto"
    return "see the database in target.url" if text.startswith(DATABASE) else ""


def code_of(text: str) -> str:
    """The word that says what an error reply means; before Redis 7 it stands within that of a script."""
    if text.startswith(FORBIDDEN):
        return "NOPERM"
    inner = re.search(r"-([A-Z]{3,}) ", text) if text.startswith(SCRIPT) else None
    return inner[1] if inner else text.partition(" ")[0]


def refusal_in_script(text: str, words: Sequence[str | bytes | int]) -> str:
    """The refusal of a script, with the command that it may not or cannot send: Redis names only the script's line.

    Empty if the error is another one.
    """
    unknown = UNKNOWN_IN_SCRIPT.search(text)
    line = re.search(r"@user_script:\s*([0-9]+)", text) if unknown or text.startswith(FORBIDDEN) else None
    lines = str(words[1]).splitlines() if line and words[0] == "EVAL" else []
    named = re.findall(r"redis\.p?call\('(\w+)'", "".join(lines[int(line[1]) - 1 :][:1])) if line else []
    if unknown and named:
        return f"ERR unknown command '{named[0]}'"
    return f"NOPERM a script may not send {' or '.join(dict.fromkeys(named))}" if named else ""
