"""The meaning of Redis's error replies, by their first word."""

import re
from collections.abc import Sequence

from loader.errors import Kind, LoaderError, TargetError, is_local
from loader.model import Node
from loader.net.tls import PLAIN, meaning
from loader.redis.driver import exceptions

# How to handle an error reply, by its first word.
REDIRECT = frozenset({"MOVED", "ASK", "TRYAGAIN"})
NODE = frozenset({"CLUSTERDOWN", "MASTERDOWN", "LOADING", "READONLY", "UNBLOCKED"})  # wait, and read the topology again
CAPACITY = frozenset({"OOM", "MISCONF", "NOREPLICAS", "BUSY"})  # wait until someone makes room
ACCESS = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "DENIED"})  # someone has to change the account
LOGIN = frozenset({"NOAUTH", "WRONGPASS"})  # another password may be the right one
DATA = frozenset({"WRONGTYPE"})  # the row cannot be written
# Any other error reply is a bug in this program, or comes from an unknown kind of server, and ends the run.
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
ANSWERED = (exceptions.AuthenticationError, exceptions.BusyLoadingError)
LOST = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)  # of a driver, once a connection is gone
ACCOUNT = "see the user in target.url, and target.password"
NAMELESS = "ERR without a message"  # for an error without any text
CLIENTS = "ERR max number of clients"  # as CAPACITY; nodes of a cluster go on with "+ cluster connections reached"
PROTOCOL = "ERR Protocol error"  # the bytes were too many or malformed: the connection ends
UNKNOWN = ("ERR unknown", "ERR Unknown")  # a command that this server does not have, or has renamed
NAMELY = re.compile(r"ERR [Uu]nknown (?:sub)?command ['`]([A-Za-z|]+)['`]")  # what follows may be a row
UNKNOWN_IN_SCRIPT = re.compile("Unknown (?:Redis )?command called from")  # Valkey leaves the name out
UNREACHED = re.compile(r"^Error (?:-?\d+|UNKNOWN) connecting to \S+ ")  # redis-py's words before the reason
UNNAME = "remove from redis.conf: rename-command"
RENAMED = "it is disabled or renamed there (see rename-command in redis.conf), but the loader needs it"


def error_text(error: Exception) -> str:
    """An error reply as the server wrote it: redis-py removes the first word."""
    if isinstance(error, MemoryError):
        return "a reply does not fit into this machine's memory, or the server is broken"
    code = getattr(error, "status_code", None)
    text = f"{code} {error}" if code else str(error).strip() or type(error).__name__
    return UNREACHED.sub("cannot connect: ", text)


def reason_of(error: Exception) -> str:
    """Why a node could not be connected to, as the system says it."""
    return error_text(error).removeprefix("cannot connect: ").removesuffix(".")


def failure_of(error: Exception | str, node: Node, *, reached: bool) -> TargetError:
    """What a driver's exception or an error reply means for the run; whether the node was `reached` before."""
    return unknown_command(error, node) or _meaning(error, node, reached=reached)


def _meaning(error: Exception | str, node: Node, *, reached: bool) -> TargetError:
    text = error_text(error) if isinstance(error, Exception) else error
    code = code_of(text)
    message = f"redis {node}: {text.removesuffix('.')}"
    if told := advice(error, code, text):
        return TargetError(f"{message}: {told}", kind=Kind.ACCESS if is_access(error, code) else Kind.REFUSED)
    if isinstance(error, exceptions.InvalidResponse):
        what = "the answer does not come from Redis" if reached else "no Redis server answers there"
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
    return TargetError(message if code in DATA else f"redis {node}: {' '.join(text.split()[:8])}")  # may contain a row


def unknown_command(error: Exception | str, node: Node) -> TargetError | None:
    """The error for a command that a node does not know; None if it knows it."""
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
    return isinstance(error, exceptions.AuthenticationError) or code in ACCESS


def is_login(error: LoaderError) -> bool:
    """Whether a node refuses the user or the password."""
    cause = error.__cause__
    return isinstance(cause, exceptions.AuthenticationError) or code_of(str(cause)) in LOGIN


def advice(error: Exception | str, code: str, text: str) -> str:
    """Advice for a person; empty if there is none."""
    if is_access(error, code):
        return ACCOUNT
    if isinstance(error, Exception) and (failed := meaning(error)):
        return f"{failed}: write redis:// in target.url" if failed == PLAIN else failed
    if text.startswith(NO_CLUSTER):
        return "see target.cluster, which may be auto"
    return "see the database in target.url" if text.startswith(DATABASE) else ""


def code_of(text: str) -> str:
    """The word that tells the meaning of an error reply; before Redis 7, a script's error contains it."""
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
