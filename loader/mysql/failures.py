"""The meaning of an error of PyMySQL, or of its socket, for a run: the culprit, whether it passes, and the fix."""

import re

from loader.errors import Kind, LoaderError, SourceError, StartOver, is_local
from loader.mysql.driver import MySQLError
from loader.mysql.errors import ADVICE, advice, code_of, kind_of, statement, text_of
from loader.mysql.login import LoginConnection
from loader.net.tls import PLAIN, meaning

# The activity that failed.
CONNECTING = "cannot connect"
ASKING = "query refused"
READING = "query ended early"

DENIED = 1045
LOGIN = frozenset({DENIED, 1698})  # another password may be the right one
NO_COLUMN = 1054
NO_SERVER, LOST = 2003, 2013


class Nonsense(Exception):
    """An answer that MySQL would not give."""


def failure_of(
    error: Exception, doing: str, address: str, user: str | None, login: LoginConnection | None
) -> LoaderError:
    """The error to raise for one that was caught during an activity on a connection, if there is one."""
    if not isinstance(error, OSError) and (code_of(error) is None or not isinstance(error, MySQLError)):
        return _nonsense(error, doing, address)
    code = code_of(error)
    kind = Kind.UNAVAILABLE if isinstance(error, OSError) else kind_of(code)
    lacking = login.lacks if login and code == DENIED else ""
    message = f"mysql {address}: {doing}: {_told(error, doing, kind)}"
    if refused := meaning(error):
        return SourceError(f"{message}: {refused}{': see source.tls' if refused == PLAIN else ''}", kind=Kind.REFUSED)
    fix = ADVICE[NO_SERVER] if doing == CONNECTING and code == LOST else advice(code, user or "")
    message += f": {fix}" if fix else ""
    message += f"; or the account {lacking}" if lacking else ""
    if code == NO_COLUMN:
        return StartOver(message)
    failure = SourceError(message, kind=Kind.FAULT if is_local(error) else kind)
    failure.fix = statement(code, user or "")
    return failure


def _told(error: Exception, doing: str, kind: Kind) -> str:
    """An error's text, without values of a row."""
    text = text_of(error)
    return re.sub(r"'[^']*'", "'…'", text) if doing == READING and kind is Kind.FAULT else text


def _nonsense(error: Exception, doing: str, address: str) -> SourceError:
    """The error for a malformed answer: another program, a broken server, or something in between."""
    message = f"mysql {address}: {doing}: "
    if "LOAD_LOCAL" in str(error):
        return SourceError(
            f"{message}the server asks for a file of this machine (LOAD DATA LOCAL), which is refused: see source.url",
            kind=Kind.REFUSED,
        )
    if isinstance(error, UnicodeError) and not isinstance(error, UnicodeDecodeError):  # an impossible host name
        return SourceError(f"{message}{error}: see source.url", kind=Kind.REFUSED)
    told = isinstance(error, MySQLError | Nonsense)
    why = " ".join(text_of(error).split()) if told else f"an unreadable packet, {type(error).__name__}"
    if doing == CONNECTING:
        return SourceError(f"{message}no MySQL server answers there ({why}): see source.url", kind=Kind.REFUSED)
    return SourceError(f"{message}the answer does not come from MySQL ({why}): see source.url", kind=Kind.UNSETTLED)


def is_login(error: LoaderError) -> bool:
    """Whether MySQL refuses the user or the password."""
    return code_of(error.__cause__) in LOGIN
