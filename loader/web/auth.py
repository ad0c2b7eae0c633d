"""Who may take actions: whoever knows the token, by a header or by a session of a browser. No I/O.

Guesses are slowed down by the address that they come from; who is signed in, or elsewhere, does not notice.
"""

import hmac
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

COOKIE = "loader_session"
LASTS = 12 * 3600.0  # seconds of a session
SESSIONS = 100  # at the same time: the oldest goes
ADDRESSES = 1000  # whose guesses are counted: the one that was heard of last is forgotten last
FREE = 5  # wrong tokens in a row that cost no wait
LONGEST = 30.0  # seconds of waiting at most
FORGET = 300.0  # seconds without a wrong token after which all is forgotten


@dataclass(frozen=True, slots=True)
class _Guesses:
    """Wrong tokens of one address, and until when none of it is looked at; on the monotonic clock."""

    wrong: int = 0
    last: float = float("-inf")
    until: float = float("-inf")


NONE = _Guesses()


class Auth:
    """The token, which may be replaced or taken away, and the sessions that it has opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token = b""
        self._sessions: dict[str, float] = {}  # their ends, on the monotonic clock
        self._guesses: dict[str, _Guesses] = {}  # by address, the latest last

    def configure(self, token: str | None) -> None:
        """Take this token from now on; another one than before ends all sessions. None: there are no actions."""
        given = (token or "").encode()
        with self._lock:
            if not hmac.compare_digest(given, self._token):
                self._token = given
                self._sessions.clear()
                self._guesses.clear()

    @property
    def exists(self) -> bool:
        """Whether there are actions at all."""
        return bool(self._token)

    def wait(self, address: str) -> int:
        """Whole seconds until a token from this address is looked at again; 0: now."""
        with self._lock:
            left = self._guesses.get(address, NONE).until - time.monotonic()
        return int(left) + 1 if left > 0 else 0

    def fits(self, token: str, address: str) -> bool:
        """Whether it is the token; a wrong one may cost its address a wait, see `wait`, in which none is right."""
        now = time.monotonic()
        with self._lock:
            before = self._guesses.pop(address, NONE)
            if not self._token or now < before.until:
                self._guesses[address] = before
                return False
            if hmac.compare_digest(token.encode(errors="surrogateescape"), self._token):
                return True
            wrong = before.wrong + 1 if now - before.last < FORGET else 1
            pause = min(LONGEST, 2.0 ** min(wrong - FREE, 9)) if wrong >= FREE else 0.0
            self._guesses[address] = _Guesses(wrong, now, now + pause)
            if len(self._guesses) > ADDRESSES:
                del self._guesses[next(iter(self._guesses))]
            return False

    def open(self) -> str:
        """A session for who has shown the token: its id, for a cookie."""
        session = secrets.token_urlsafe(32)
        with self._lock:
            now = time.monotonic()
            kept = [(each, end) for each, end in self._sessions.items() if end > now]
            self._sessions = dict([*kept[-SESSIONS + 1 :], (session, now + LASTS)])
        return session

    def has(self, session: str | None) -> bool:
        """Whether a session is open."""
        with self._lock:
            return bool(session) and self._sessions.get(session or "", 0.0) > time.monotonic()

    def close(self, session: str | None) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(session or "", None)


def bearer(headers: Mapping[str, str]) -> str | None:
    """The token that a program shows: `Authorization: Bearer …`."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip().encode("latin-1", "replace").decode("utf-8", "replace") if kind.lower() == "bearer" else None


def is_own_page(headers: Mapping[str, str]) -> bool:
    """Whether a page of ours has sent a form: browsers say so by Sec-Fetch-Site, those before 2023 by Origin alone."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in {"same-origin", "none"}:
        return False
    if origin is None:
        return site is not None
    return bool(origin) and urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""


def local(path: str) -> str:
    """Where to go after signing in: a path of ours, else the overview."""
    return path if re.fullmatch(r"/(?!/)[!-\[\]-~]*", path) else "/"
