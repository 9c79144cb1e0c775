"""The page of error codes, which answers refer to."""

import html
from functools import cache

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from api.http.conventions.errors import status_of
from api.http.conventions.routing import DirectRoute
from domain.errors import TidelogError

router = APIRouter(tags=["documents"], route_class=DirectRoute)

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Tidelog: errors</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
td, th {{ padding: .3rem .8rem; text-align: left; vertical-align: top }} :target {{ background: #ffc }}</style>
<h1>Errors</h1><p>Every error is a problem document (RFC 9457); <code>code</code> is stable.</p>
<table><tr><th>code</th><th>status</th><th>try again</th><th>meaning</th></tr>{rows}</table></html>"""


@router.get("/docs/errors", summary="The error codes", response_class=HTMLResponse)
async def error_page(request: Request) -> Response:
    """The `type` of a problem document is a link to this page."""
    return HTMLResponse(_error_page())


@cache
def _error_page() -> str:
    return PAGE.format(rows="".join(_row(error) for error in sorted(_all_errors(), key=lambda error: error.code)))


def _all_errors(base: type[TidelogError] = TidelogError) -> set[type[TidelogError]]:
    return {base, *(found for child in base.__subclasses__() for found in _all_errors(child))}


def _row(error: type[TidelogError]) -> str:
    status = status_of(error.__new__(error))
    meaning = html.escape((error.__doc__ or "").strip().split("\n\n")[0])
    retry = "yes" if error.retryable else "no"
    return f'<tr id="{error.code}"><td><code>{error.code}</code></td><td>{status}</td><td>{retry}</td><td>{meaning}</td></tr>'
