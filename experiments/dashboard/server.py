"""The dashboard's server: a page, its JSON documents, and a stream of what changes. Every route only reads.

It listens on this machine alone, and tells of runs only who has the token of the printed link: other users of the machine
reach the same port.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdcda_flower.errors import BadInputError, CdcdaError
from experiments.dashboard import documents
from experiments.dashboard.catalog import Catalog
from experiments.dashboard.person import person

PAGE = Path(__file__).with_name("page")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
POLL_S = 1.0
# Plotly writes its own style element; it evaluates nothing.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    # What is private stays out of the browser's disk.
    b"cache-control": b"no-store",
}


def plotly_file() -> Path:
    """Returns Plotly's JavaScript, which its Python package carries."""
    return Path(str(files("plotly") / "package_data" / "plotly.min.js"))


def dashboard(catalog: Catalog, *, token: str, ending: Callable[[], bool] = lambda: False) -> Starlette:
    """Returns the application; `token` is what the printed link has and others do not know.

    `ending` says whether the server wants to end: an open event stream then ends too.
    """
    answers = _Answers(catalog, ending)
    routes = [
        Route("/", answers.page, methods=["GET"]),
        Route("/plotly.js", answers.plotly, methods=["GET"]),
        Route("/api/runs", answers.runs, methods=["GET"]),
        Route("/api/events", answers.events, methods=["GET"]),
        Route("/api/compare", answers.comparison, methods=["GET"]),
        Route("/api/runs/{run}/{document}", answers.of_run, methods=["GET"]),
        Route("/api/runs/{run}/people/{person}", answers.of_person, methods=["GET"]),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    return Starlette(
        routes=routes, middleware=[Middleware(Guard, token=token)], exception_handlers={CdcdaError: _refused}
    )


class _Answers:
    """The routes' endpoints."""

    def __init__(self, catalog: Catalog, ending: Callable[[], bool]) -> None:
        self._catalog, self._ending = catalog, ending

    async def page(self, request: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def plotly(self, request: Request) -> Response:
        # The browser keeps its compiled form too, which takes longer to make than to load.
        headers = {"cache-control": "private, max-age=86400"}
        return FileResponse(plotly_file(), media_type="text/javascript", headers=headers)

    async def runs(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(documents.runs, self._catalog))

    async def of_run(self, request: Request) -> Response:
        makers: Mapping[str, Callable[..., Any]] = {
            "run": documents.run,
            "costs": documents.costs,
            "people": documents.people,
            "filters": documents.filters,
        }
        make = makers.get(request.path_params["document"])
        if make is None:
            raise BadInputError(f"documents of a run: {', '.join(makers)}")
        given = {"against": request.query_params.get("against", "")} if make is documents.run else {}
        return await self._document(make, request.path_params["run"], **given)

    async def of_person(self, request: Request) -> Response:
        return await self._document(person, request.path_params["run"], user=request.path_params["person"], texts=True)

    async def comparison(self, request: Request) -> Response:
        asked = request.query_params
        one, other = (self._catalog.folder(asked.get(side, "")) for side in ("left", "right"))
        left, right = (one, asked.get("left-method", "")), (other, asked.get("right-method", ""))
        return JSONResponse(await run_in_threadpool(documents.compare, left, right, asked.get("metric", "")))

    async def events(self, request: Request) -> Response:
        return StreamingResponse(_changes(self._catalog, self._ending), media_type="text/event-stream")

    async def _document(self, make: Callable[..., Any], run: str, **arguments: object) -> Response:
        folder = self._catalog.folder(run)
        return JSONResponse(await run_in_threadpool(self._catalog.fresh, make, folder, **arguments))


class Guard:
    """Answers only this machine and this page, and tells of runs only who has the token; adds the security headers."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self._app = app
        # A header that the page sets goes to this port alone; a browser sends a cookie to every port of the machine.
        self._wanted = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = dict(message["headers"])
                message["headers"] = list({**_HEADERS, **own}.items())
            await send(message)

        answer = self._refusal(Request(scope)) or self._app
        await answer(scope, receive, guarded)

    def _refusal(self, request: Request) -> Response | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if _hostname(host) not in LOOPBACK:
            return PlainTextResponse("This dashboard answers its own machine only.", status_code=403)
        if origin is not None and origin != f"http://{host}":
            return PlainTextResponse("This dashboard answers its own page only.", status_code=403)
        given = request.headers.get("authorization", "").encode()
        # The page itself holds nothing of a run.
        if request.scope["path"].startswith("/api/") and not secrets.compare_digest(given, self._wanted):
            said = "Open the link that `cdcda dashboard` printed: it holds a token that other users of this machine do not know."
            return JSONResponse({"error": said}, status_code=403)
        return None


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


async def _changes(catalog: Catalog, ending: Callable[[], bool]) -> AsyncIterator[str]:
    """Yields a server-sent event with a run's `live` document whenever it has changed; a comment each second keeps the line."""
    told: dict[str, str] = {}
    while not ending():
        for state in await run_in_threadpool(documents.states, catalog):
            text = json.dumps(state)
            if told.get(state["run"]) != text:
                told[state["run"]] = text
                yield f"data: {text}\n\n"
        yield ": still here\n\n"
        await asyncio.sleep(POLL_S)


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=404 if isinstance(error, BadInputError) else 422)
