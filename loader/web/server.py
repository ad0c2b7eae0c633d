"""The HTTP server for pages, metrics and health; the only module that imports Starlette and uvicorn."""

import asyncio
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from loader.errors import LoaderError
from loader.web.health import Health
from loader.web.metrics import CONTENT_TYPE, Metrics

STARTS = 10.0  # seconds that the server has to begin
CONNECTIONS = 200  # at the same time: idle connections must not use up the file descriptors of runs
BACKLOG = 64  # that wait to be accepted
SILENT = 10.0  # seconds in which a new connection must send a request
LEAVE = 3.0  # seconds for unfinished answers when it stops

NO_STORE = {"Cache-Control": "no-store"}
POLICY = (  # a page loads only its own files, and cannot be framed
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
GUARDS = {  # on every answer
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # without any, a form's Origin would be null
    "X-Content-Type-Options": "nosniff",
}


def routes(metrics: Metrics, health: Health) -> list[Route]:
    """`/metrics`, `/livez` and `/readyz`.

    `/livez` contacts no server: it answers while the process is running. `/readyz` checks both sides.
    """

    async def show_metrics(_: Request) -> Response:
        return Response(metrics.render(), media_type=None, headers={"Content-Type": CONTENT_TYPE})

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=NO_STORE)

    def readyz(_: Request) -> Response:
        reasons = health.reasons()
        document = {"status": "unready" if reasons else "ok", "reasons": reasons}
        return JSONResponse(document, status_code=503 if reasons else 200, headers=NO_STORE)

    return [Route("/metrics", show_metrics), Route("/livez", livez), Route("/readyz", readyz)]


class Web:
    """An HTTP server in its own thread, at `host:port`; without a host, at all addresses of this machine.

    It answers to IP addresses, localhost, this machine's name, and those in `hosts`, which may be replaced. Raises a
    `LoaderError` if it cannot listen there.
    """

    def __init__(self, listen: str, pages: Sequence[Route]) -> None:
        self.hosts: Collection[str] = ()
        self._socket = _listen(listen)
        config = uvicorn.Config(
            Starlette(routes=list(pages), middleware=[Middleware(_Called, web=self)]),
            log_config=None,
            access_log=False,
            log_level="error",  # clients' mistakes are not warnings: anybody could flood the log with them
            lifespan="off",
            server_header=False,
            proxy_headers=False,  # any client could claim that it used https
            headers=list(GUARDS.items()),
            loop="asyncio",
            http=_Patient,
            backlog=BACKLOG,
            ws="none",
            timeout_graceful_shutdown=int(LEAVE),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Start serving."""
        self._thread.start()
        end = time.monotonic() + STARTS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise LoaderError("the web server does not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop serving; unfinished answers have a moment."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(LEAVE + 1)
        self._socket.close()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))


class _Patient(H11Protocol):
    """HTTP with a limit on connections, each of which must send a request soon."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A connection came."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.close()
        else:
            self.loop.call_later(SILENT, self._lapse)

    def _lapse(self) -> None:
        if not getattr(self, "cycle", None) and not self.transport.is_closing():  # uvicorn has None before the first
            self.transport.close()


class _Called:
    """Refuses requests that use a host name that is not this server's own.

    Otherwise a foreign page whose name was made to resolve to this machine (DNS rebinding) could read everything.
    """

    def __init__(self, app: ASGIApp, web: Web) -> None:
        self._app = app
        self._web = web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by ASGI: answer, or refuse."""
        called = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        name = _name(called)
        if not called or name in OWN or name in map(_name, self._web.hosts) or _is_address(name):
            await self._app(scope, receive, send)
            return
        text = f"this daemon does not go by the name {name!r}: add it to daemon.hosts\n"
        await PlainTextResponse(text, 400, NO_STORE)(scope, receive, send)


def _name(called: str) -> str:
    """The name in a Host header: without port, brackets, and the dot at its end; in lower case."""
    name = called[: called.find("]") + 1] if called.startswith("[") else called.partition(":")[0]
    return name.strip("[]").removesuffix(".").lower()


def _is_address(name: str) -> bool:
    """Whether it is an IP address: others can point names at this machine, but not addresses."""
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False


OWN = frozenset({"localhost", _name(socket.gethostname())})


def _listen(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        if not host:
            if socket.has_dualstack_ipv6():
                return socket.create_server(("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("", int(port)))
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        why = os.strerror(number) if number and number > 0 else getattr(error, "strerror", None) or error
        raise LoaderError(f"daemon.listen: cannot listen at {listen}: {why}") from error
