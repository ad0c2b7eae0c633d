"""The daemon's pages for a browser."""

from collections.abc import Callable
from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from loader.web.dashboard import Dashboard
from loader.web.listing import Listing
from loader.web.server import NO_STORE
from loader.web.views import Action, JobPage, Overview, RejectsPage, Viewer

ACTIONS = frozenset(action.value for action in Action)
CHECKED = {"Cache-Control": "no-cache"}  # cached, but revalidated: the page may be of another version


class Pages(Protocol):
    """Renders the pages for a browser."""

    def overview(self, view: Overview, viewer: Viewer, listing: Listing | None = None) -> str:
        """The page of all jobs, or of those that are looked for."""

    def job(self, page: JobPage, viewer: Viewer) -> str:
        """The page of a job."""

    def rejects(self, page: RejectsPage, viewer: Viewer) -> str:
        """The page of a job's rejects."""

    def missing(self, what: str, viewer: Viewer) -> str:
        """The page for an unknown address."""

    def static(self, name: str) -> tuple[bytes, str] | None:
        """A file of the pages, with its media type."""


def site(dashboard: Dashboard, pages: Pages, viewer: Callable[[Request], Viewer]) -> list[Route]:
    """The routes of the pages."""

    def overview(request: Request) -> Response:
        return _html(pages.overview(dashboard.overview(), viewer(request), Listing.of(request.query_params)))

    def job(request: Request) -> Response:
        page = dashboard.job(request.path_params["job"])
        return _html(pages.job(page, viewer(request))) if page else missing(request)

    def rejects(request: Request) -> Response:
        who = viewer(request)
        shows_keys = who.signed_in and request.query_params.get("keys") == "shown"
        page = dashboard.rejects(request.path_params["job"], shows_keys=shows_keys)
        if page is None:  # the name of a part may end like this
            request.path_params["job"] += "/rejects"
            return job(request)
        return _html(pages.rejects(page, who))

    def missing(request: Request) -> Response:
        _, slash, last = request.path_params["job"].rpartition("/")
        if slash and last in ACTIONS:
            raise HTTPException(405, headers={"Allow": "POST"})
        return _html(pages.missing(request.path_params["job"], viewer(request)), 404)

    def refuse(request: Request) -> Response:
        name = request.path_params["job"].removesuffix("/rejects")
        raise HTTPException(405 if name in dashboard.jobs else 404)

    def static(request: Request) -> Response:
        found = pages.static(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        return Response(found[0], media_type=found[1], headers=CHECKED)

    return [
        Route("/", overview),
        Route("/jobs/{job:path}/rejects", rejects),
        Route("/jobs/{job:path}", job),
        Route("/jobs/{job:path}", refuse, methods=["POST"]),
        Route("/static/{name}", static),
    ]


def _html(text: str, status: int = 200) -> Response:
    return HTMLResponse(text, status, NO_STORE)
