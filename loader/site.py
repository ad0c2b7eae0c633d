"""What a browser and a program may read of the daemon: the status page, and the JSON documents of the command line."""

import re
from collections.abc import Callable
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from loader.board import runs_document, status_document
from loader.errors import LoaderError
from loader.report import rejects_document
from loader.settings import Job
from loader.survey import Survey, masked
from loader.view import JobPage, Overview, RejectsPage, Viewer

RUNS, MOST_RUNS = 20, 1000  # of an answer
NO_STORE = {"Cache-Control": "no-store"}
CHECKED = {"Cache-Control": "no-cache"}  # kept, and asked for again: the page may be of another version

Form = Callable[[Request], Any]


class Pages(Protocol):
    """Who draws what a browser is shown."""

    def overview(self, view: Overview, viewer: Viewer) -> str:
        """The page of all jobs."""

    def job(self, page: JobPage, viewer: Viewer) -> str:
        """The page of a job."""

    def rejects(self, page: RejectsPage, viewer: Viewer) -> str:
        """The page of a job's rejects."""

    def missing(self, what: str, viewer: Viewer) -> str:
        """The page that says that there is no such thing."""

    def static(self, name: str) -> tuple[bytes, str] | None:
        """A file of the pages, with its media type."""


def site(survey: Survey, pages: Pages, viewer: Callable[[Request], Viewer]) -> list[BaseRoute]:
    """The routes of the pages and of `/api/v1/`."""

    def overview(request: Request) -> Response:
        return _html(pages.overview(survey.overview(), viewer(request)))

    def job(request: Request) -> Response:
        page = survey.job(request.path_params["job"])
        return _html(pages.job(page, viewer(request))) if page else missing(request)

    def rejects(request: Request) -> Response:
        page = survey.rejects(request.path_params["job"])
        return _html(pages.rejects(page, viewer(request))) if page else missing(request)

    def missing(request: Request) -> Response:
        return _html(pages.missing(request.path_params["job"], viewer(request)), 404)

    def static(request: Request) -> Response:
        found = pages.static(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        return Response(found[0], media_type=found[1], headers=CHECKED)

    def api_status(request: Request) -> Any:
        return [status_document(status) for status in survey.statuses(_named(survey, request))]

    def api_runs(request: Request) -> Any:
        return [runs_document(entry) for entry in survey.runs(_named(survey, request), _last(request))]

    def api_cluster(_: Request) -> Any:
        return survey.cluster()

    def api_rejects(request: Request) -> Any:
        (name,) = _named(survey, request)
        document = rejects_document(name, survey.rejected(name), {})
        return document if survey.shows_values else _masked(document, survey.jobs[name])

    def api_nothing(_: Request) -> Any:
        raise HTTPException(404, "there is nothing here: see /api/v1/status, runs, cluster, rejects/JOB")

    return [
        Route("/", overview),
        Route("/jobs/{job}", job),
        Route("/jobs/{job}/rejects", rejects),
        Route("/static/{name}", static),
        Route("/api/v1/status", _api(api_status)),
        Route("/api/v1/status/{job}", _api(lambda request: api_status(request)[0])),
        Route("/api/v1/runs", _api(api_runs)),
        Route("/api/v1/runs/{job}", _api(api_runs)),
        Route("/api/v1/cluster", _api(api_cluster)),
        Route("/api/v1/rejects/{job}", _api(api_rejects)),
        Route("/api/{rest:path}", _api(api_nothing)),
    ]


def _api(form: Form) -> Callable[[Request], Response]:
    """An answer in JSON: what `form` makes, or why it cannot be had."""

    def answer(request: Request) -> Response:
        try:
            return JSONResponse(form(request), headers=NO_STORE)
        except HTTPException as error:
            return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=NO_STORE)
        except (LoaderError, OSError) as error:
            return JSONResponse({"error": str(error)}, status_code=503, headers=NO_STORE)

    return answer


def _html(text: str, status: int = 200) -> Response:
    return HTMLResponse(text, status, NO_STORE)


def _named(survey: Survey, request: Request) -> list[str]:
    """The job of the path, or all."""
    name = request.path_params.get("job")
    if name is None:
        return list(survey.jobs)
    if name not in survey.jobs:
        raise HTTPException(404, f"no job {name!r} in the config")
    return [name]


def _last(request: Request) -> int:
    text = request.query_params.get("last", str(RUNS))
    if not re.fullmatch("[0-9]{1,4}", text, re.ASCII) or not 1 <= int(text) <= MOST_RUNS:
        raise HTTPException(400, f"last: write a number from 1 to {MOST_RUNS}")
    return int(text)


def _masked(document: dict[str, Any], job: Job) -> dict[str, Any]:
    """The same without the keys of rows."""
    return document | {"masked": True, "rejects": [each | {"key": masked(job)} for each in document["rejects"]]}
