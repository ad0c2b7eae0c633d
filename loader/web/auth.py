"""Access control for actions: the token, in a header or in a browser's session. No I/O.

Guesses are slowed down per address; signed-in users and other addresses do not notice.
"""

import hmac
import re
import secrets
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from loader.records import dataclass

COOKIE = "loader_session"
LASTS = 12 * 3600.0  # seconds of a session
SESSIONS = 100  # at the same time: the oldest is dropped
ADDRESSES = 1000  # addresses whose guesses are counted: the least recent is forgotten first
FREE = 5  # wrong tokens in a row without a wait
LONGEST = 30.0  # seconds of waiting at most
FORGET = 300.0  # seconds without a wrong token after which all guesses are forgotten


@dataclass(frozen=True, slots=True)
class _Guesses:
    """Wrong tokens from one address, and until when its tokens are ignored; on the monotonic clock."""

    wrong: int = 0
    last: float = float("-inf")
    until: float = float("-inf")


NONE = _Guesses()


class Auth:
    """The token, which may be replaced or removed, and the sessions it has opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token = b""
        self._sessions: dict[str, float] = {}  # their ends, on the monotonic clock
        self._guesses: dict[str, _Guesses] = {}  # by address, the latest last

    def configure(self, token: str | None) -> None:
        """Accept this token from now on; a new one ends all sessions. None: no actions."""
        given = (token or "").encode()
        with self._lock:
            if not hmac.compare_digest(given, self._token):
                self._token = given
                self._sessions.clear()
                self._guesses.clear()

    @property
    def exists(self) -> bool:
        """Whether actions are enabled."""
        return bool(self._token)

    def wait(self, address: str) -> int:
        """Whole seconds until a token from this address is checked again; 0: now."""
        with self._lock:
            left = self._guesses.get(address, NONE).until - time.monotonic()
        return int(left) + 1 if left > 0 else 0

    def fits(self, token: str, address: str) -> bool:
        """Whether it is the token; a wrong one may cost its address a wait, see `wait`, in which none is accepted."""
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
        """Open a session for a user who gave the token: its id, for a cookie."""
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
    """The token from a program: `Authorization: Bearer …`."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip().encode("latin-1", "replace").decode("utf-8", "replace") if kind.lower() == "bearer" else None


def is_own_page(headers: Mapping[str, str]) -> bool:
    """Whether one of our pages sent a form: browsers say so by Sec-Fetch-Site, those before 2023 only by Origin."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in {"same-origin", "none"}:
        return False
    if origin is None:
        return site is not None
    return bool(origin) and urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""


def local(path: str) -> str:
    """The page to go to after signing in: one of our paths, else the overview."""
    return path if re.fullmatch(r"/(?!/)[!-\[\]-~]*", path) else "/"
