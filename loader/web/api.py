"""The documents of the command line over HTTP: `/api/v1/status`, `runs`, `cluster`, `rejects`."""

import re
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loader.config.models import JobConfig
from loader.errors import LoaderError
from loader.report.documents import rejects_document
from loader.report.status import runs_document, status_document
from loader.web.dashboard import Dashboard
from loader.web.job_texts import masked
from loader.web.server import NO_STORE

RUNS, MOST_RUNS = 20, 1000  # of an answer


def api(dashboard: Dashboard) -> list[Route]:
    """The routes of `/api/v1/`: a document of one job, or a list of those of several."""

    def status(request: Request) -> Any:
        return [status_document(each) for each in dashboard.statuses(_named(dashboard, request))]

    def runs(request: Request) -> Any:
        return [runs_document(entry) for entry in dashboard.runs(_named(dashboard, request), _last(request))]

    def cluster(_: Request) -> Any:
        return dashboard.cluster()

    def rejects(request: Request) -> Any:
        (name,) = _named(dashboard, request)
        document = rejects_document(name, dashboard.rejected(name), {})
        return document if dashboard.shows_values else _masked(document, dashboard.jobs[name])

    def nothing(_: Request) -> Any:
        raise HTTPException(404, "there is nothing here: see /api/v1/status, runs, cluster, rejects/JOB")

    return [
        Route("/api/v1/status", _answer(status)),
        Route("/api/v1/status/{job:path}", _answer(lambda request: status(request)[0])),
        Route("/api/v1/runs", _answer(runs)),
        Route("/api/v1/runs/{job:path}", _answer(runs)),
        Route("/api/v1/cluster", _answer(cluster)),
        Route("/api/v1/rejects/{job:path}", _answer(rejects)),
        Route("/api/{rest:path}", _answer(nothing)),
    ]


def _answer(form: Callable[[Request], Any]) -> Callable[[Request], Response]:
    """An answer in JSON: the result of `form`, or why it failed."""

    def answer(request: Request) -> Response:
        try:
            return JSONResponse(form(request), headers=NO_STORE)
        except HTTPException as error:
            return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=NO_STORE)
        except (LoaderError, OSError) as error:
            return JSONResponse({"error": str(error)}, status_code=503, headers=NO_STORE)

    return answer


def _named(dashboard: Dashboard, request: Request) -> list[str]:
    """The job in the path, or all."""
    name = request.path_params.get("job")
    if name is None:
        return list(dashboard.jobs)
    if name not in dashboard.jobs:
        raise HTTPException(404, f"no job {name!r} in the config")
    return [name]


def _last(request: Request) -> int:
    text = request.query_params.get("last", str(RUNS))
    if not re.fullmatch("[0-9]{1,4}", text, re.ASCII) or not 1 <= int(text) <= MOST_RUNS:
        raise HTTPException(400, f"last: write a number from 1 to {MOST_RUNS}")
    return int(text)


def _masked(document: dict[str, Any], job: JobConfig) -> dict[str, Any]:
    """A copy without the keys of rows."""
    return document | {"masked": True, "rejects": [each | {"key": masked(job)} for each in document["rejects"]]}
