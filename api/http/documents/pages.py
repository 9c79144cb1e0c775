"""Pages for people: the routes to read and to try, and the error codes, to which answers refer.

The pages load nothing from another server, so they work without a network. A browser is told so, too (`Content-Security-Policy`):
into these pages people type their keys.
"""

import asyncio
import html
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from api.http.conventions.answers import cached_document
from api.http.conventions.errors import status_of
from api.http.conventions.permissions import public
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from domain.errors import TidelogError

router = APIRouter(tags=["documents"], route_class=DirectRoute)

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
ERRORS = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Tidelog: errors</title>
<link rel="stylesheet" href="page.css"><main><h1>Errors</h1>
<p>Every error is a problem document (RFC 9457); <code>code</code> is stable. <a href="../docs">All routes</a></p>
<table><tr><th>code</th><th>status</th><th>try again</th><th>meaning</th></tr>{rows}</table></main></html>"""

_PAGE: dict[int | str, Any] = {
    200: openapi.gives_content(
        {"text/html": {"type": "string"}},
        "Content-Security-Policy",
        "X-Content-Type-Options",
        "Referrer-Policy",
        description="The page",
    )
}
_ASSET = ("ETag", "Cache-Control", "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy")
_TAKES = openapi.takes_headers("If-None-Match")


@router.get(
    "/",
    summary="Leads to the console",
    status_code=307,
    response_class=RedirectResponse,
    responses={307: openapi.REDIRECT},
)
@public
async def get_root(request: Request) -> Response:
    return RedirectResponse("console/", 307)


@router.get(
    "/docs",
    summary="The page of all routes",
    response_class=HTMLResponse,
    responses={200: openapi.gives_content({"text/html": {"type": "string"}}, *_ASSET), 304: openapi.NOT_MODIFIED},
    openapi_extra=_TAKES,
)
@public
async def get_docs(request: Request) -> Response:
    """All routes, to read and to try with a key."""
    return await _file(request, "page.html", "text/html; charset=utf-8")


@router.get(
    "/docs/page.js",
    summary="The script of the page of all routes",
    responses={200: openapi.gives_content({"text/javascript": {"type": "string"}}, *_ASSET), 304: openapi.NOT_MODIFIED},
    openapi_extra=_TAKES,
)
@public
async def get_script(request: Request) -> Response:
    return await _file(request, "page.js", "text/javascript; charset=utf-8")


@router.get(
    "/docs/page.css",
    summary="The style of the pages",
    responses={200: openapi.gives_content({"text/css": {"type": "string"}}, *_ASSET), 304: openapi.NOT_MODIFIED},
    openapi_extra=_TAKES,
)
@public
async def get_style(request: Request) -> Response:
    return await _file(request, "page.css", "text/css; charset=utf-8")


async def _file(request: Request, name: str, media_type: str) -> Response:
    """A file of this package. It is read for each request, and so takes no memory of the process."""
    response = cached_document(request, await asyncio.to_thread((STATIC / name).read_bytes), media_type)
    response.headers.update(HEADERS)
    return response


@router.get("/docs/errors", summary="The error codes", response_class=HTMLResponse, responses=_PAGE)
@public
async def error_page(request: Request) -> Response:
    """The `type` of a problem document is a link to this page."""
    return HTMLResponse(_error_page(), headers=HEADERS)


@cache
def _error_page() -> str:
    with_a_code = [error for error in _all_errors() if "code" in vars(error)]
    return ERRORS.format(rows="".join(_row(error) for error in sorted(with_a_code, key=lambda error: error.code)))


def _all_errors(base: type[TidelogError] = TidelogError) -> set[type[TidelogError]]:
    return {base, *(found for child in base.__subclasses__() for found in _all_errors(child))}


def _row(error: type[TidelogError]) -> str:
    status = status_of(error.__new__(error))
    meaning = html.escape((error.__doc__ or "").strip().split("\n\n")[0])
    retry = "yes" if error.retryable else "no"
    return f'<tr id="{error.code}"><td><code>{error.code}</code></td><td>{status}</td><td>{retry}</td><td>{meaning}</td></tr>'
