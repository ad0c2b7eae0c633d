"""Actions on jobs over HTTP, if the config has a token: run, pause, resume, retry; and signing in."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import parse_qs, quote

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from loader.errors import LoaderError
from loader.web.auth import COOKIE, LASTS, Auth, bearer, is_own_page, local
from loader.web.server import NO_STORE
from loader.web.views import Action, Notice, Viewer

MOST = 4096  # bytes of a form
SLOW = 10.0  # seconds in which a form must arrive
NOTICES = frozenset({*Action, Notice.BUSY, Notice.AWAY})  # that an address may carry
LOG = logging.getLogger(__name__)


class JobControl(Protocol):
    """Performs actions on jobs; `run` and `retry` return False if the job is in progress. Errors are `LoaderError`."""

    def knows(self, job: str) -> bool:
        """Whether there is such a job."""

    def act(self, job: str, action: Action, by: str) -> bool:
        """Perform an action; the log names its origin."""


class SignIn(Protocol):
    """Renders the sign-in page."""

    def sign_in(self, viewer: Viewer, onward: str = "/") -> str:
        """The page, which leads on to a path."""


class Actions:
    """The routes of actions, with their access control."""

    def __init__(self, access: Auth, hands: JobControl, pages: SignIn) -> None:
        self._access = access
        self._hands = hands
        self._pages = pages

    def viewer(self, request: Request) -> Viewer:
        """The viewer of a page."""
        notice = request.query_params.get("done", "")
        signed_in = self._access.exists and self._access.has(request.cookies.get(COOKIE))
        return Viewer(self._access.exists, signed_in, Notice(notice) if notice in NOTICES else None)

    def routes(self) -> list[Route]:
        """They answer 404 if the config has no token."""
        return [
            *(Route(f"/jobs/{{job:path}}/{action}", self._taker(action), methods=["POST"]) for action in Action),
            Route("/sign-in", self._ask, methods=["GET"]),
            Route("/sign-in", self._sign_in, methods=["POST"]),
            Route("/sign-out", self._sign_out, methods=["POST"]),
        ]

    def _taker(self, action: Action) -> Callable[[Request], Awaitable[Response]]:
        async def take(request: Request) -> Response:
            self._check()
            job = request.path_params["job"]
            token = bearer(request.headers)
            if token is not None:
                return await self._by_program(job, action, token, _address(request))
            await _form(request)
            page = f"/jobs/{quote(job, safe='')}"
            if not is_own_page(request.headers):
                return _refused("an action has to come from a page of this daemon, or with the token", 403)
            if not self._access.has(request.cookies.get(COOKIE)):
                return _go(f"/sign-in?next={quote(page, safe='')}")
            code, _ = await run_in_threadpool(self._act, job, action, "form")
            if code == 404:
                return _go(page)
            return _go(f"{page}?done={ {202: action, 409: Notice.BUSY}.get(code, Notice.AWAY) }")

        return take

    async def _by_program(self, job: str, action: Action, token: str, address: str) -> Response:
        if wait := self._access.wait(address):
            return _json({"error": f"too many wrong tokens: wait {wait} s"}, 429, {"Retry-After": str(wait)})
        if not self._access.fits(token, address):
            LOG.warning("a wrong token came from %s", address)
            return _json({"error": "that is not the token"}, 401, {"WWW-Authenticate": "Bearer"})
        code, error = await run_in_threadpool(self._act, job, action, "bearer")
        return _json({"error": error} if error else {"job": job, "done": action}, code)

    def _act(self, job: str, action: Action, by: str) -> tuple[int, str]:
        """The HTTP status for the outcome of an action, and the error if any."""
        if not self._hands.knows(job):
            return 404, f"no job {job!r} in the config"
        try:
            if not self._hands.act(job, action, by):
                return 409, f"job {job!r} is in progress or waiting for a place: try again when it has ended"
        except (LoaderError, OSError) as error:
            return 503, str(error)
        return 202, ""

    def _ask(self, request: Request) -> Response:
        self._check()
        return self._page(self.viewer(request), local(request.query_params.get("next", "/")))

    async def _sign_in(self, request: Request) -> Response:
        self._check()
        fields = await _form(request)
        if not is_own_page(request.headers):
            return _refused("signing in has to come from a page of this daemon", 403)
        onward = local(fields.get("next", "/"))
        address = _address(request)
        if wait := self._access.wait(address):
            return self._page(Viewer(actions=True, notice=Notice.WAIT), onward, 429, {"Retry-After": str(wait)})
        if not self._access.fits(fields.get("token", ""), address):
            LOG.warning("a wrong token came from %s", address)
            return self._page(Viewer(actions=True, notice=Notice.REFUSED), onward, 403)
        answer = _go(onward)
        answer.set_cookie(COOKIE, self._access.open(), int(LASTS), httponly=True, samesite="strict", path="/")
        return answer

    async def _sign_out(self, request: Request) -> Response:
        self._check()
        if not is_own_page(request.headers):
            return _refused("signing out has to come from a page of this daemon", 403)
        self._access.close(request.cookies.get(COOKIE))
        answer = _go("/")
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return answer

    def _page(self, viewer: Viewer, onward: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        return HTMLResponse(self._pages.sign_in(viewer, onward), status, NO_STORE | (headers or {}))

    def _check(self) -> None:
        if not self._access.exists:
            raise HTTPException(404)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form; of several with the same name the last."""
    body = b""
    try:
        async with asyncio.timeout(SLOW):
            async for part in request.stream():
                body += part
                if len(body) > MOST:
                    raise HTTPException(413, "the form is too large")
    except TimeoutError:
        raise HTTPException(408, "the form did not arrive") from None
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=None)
    return {name: values[-1] for name, values in fields.items()}


def _go(path: str) -> Response:
    return RedirectResponse(path, 303, NO_STORE)


def _json(document: dict[str, str], status: int, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(document, status, NO_STORE | (headers or {}))


def _refused(text: str, status: int) -> Response:
    return PlainTextResponse(text + "\n", status, NO_STORE)
