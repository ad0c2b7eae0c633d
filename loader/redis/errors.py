"""What Redis's error replies mean, by their first word."""

import re

import redis

from loader.errors import Kind, TargetError
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
