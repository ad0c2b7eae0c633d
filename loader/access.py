"""Who may take actions: whoever knows the token, by a header or by a session of a browser. No I/O.

Guesses are slowed down for all together, since whoever guesses has many addresses; who is signed in does not notice.
"""

import hmac
import re
import secrets
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

COOKIE = "loader_session"
LASTS = 12 * 3600.0  # seconds of a session
SESSIONS = 100  # at the same time: the oldest goes
FREE = 5  # wrong tokens in a row that cost no wait
LONGEST = 30.0  # seconds of waiting at most
FORGET = 300.0  # seconds without a wrong token after which all is forgotten


class Access:
    """The token, which may be replaced or taken away, and the sessions that it has opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token = b""
        self._sessions: dict[str, float] = {}  # their ends, on the monotonic clock
        self._wrong = 0
        self._last = float("-inf")  # when the last wrong token came
        self._until = float("-inf")  # when the next may be tried

    def configure(self, token: str | None) -> None:
        """Take this token from now on; another one than before ends all sessions. None: there are no actions."""
        given = (token or "").encode()
        with self._lock:
            if not hmac.compare_digest(given, self._token):
                self._token = given
                self._sessions.clear()

    @property
    def exists(self) -> bool:
        """Whether there are actions at all."""
        return bool(self._token)

    def wait(self) -> int:
        """Whole seconds until a token may be tried; 0: now."""
        with self._lock:
            left = self._until - time.monotonic()
        return max(0, int(left) + 1) if left > 0 else 0

    def fits(self, token: str) -> bool:
        """Whether it is the token; a wrong one may cost a wait, see `wait`, during which none is right."""
        now = time.monotonic()
        with self._lock:
            if not self._token or now < self._until:
                return False
            if hmac.compare_digest(token.encode(errors="surrogateescape"), self._token):
                self._wrong = 0
                return True
            self._wrong = self._wrong + 1 if now - self._last < FORGET else 1
            self._last = now
            if self._wrong >= FREE:
                self._until = now + min(LONGEST, 2.0 ** (self._wrong - FREE))
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
