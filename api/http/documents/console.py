"""The built files of the console. The page takes everything from this server, and a browser is told so.

Which files there are is read once, at start; no path of a request comes near the file system. A file is read and compressed when it
is first asked for, and only the compressed bytes stay in memory: a page of the console costs a request what a small answer costs.
"""

import asyncio
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from api.http.conventions.answers import knows, tag_of
from api.http.conventions.permissions import public
from api.http.conventions.routing import DeepRoute, DirectRoute
from api.http.documents import openapi
from domain.errors import NotFound


class _Page(DirectRoute):
    """The query of a page is for the page's script: filters, the moment that is shown. Any query gets the page."""

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().respond({**scope, "query_string": b""}, receive, send)


class _AnyPage(_Page, DeepRoute):
    pass


router = APIRouter(tags=["documents"], route_class=_Page)
pages = APIRouter(tags=["documents"], route_class=_AnyPage)

FOLDER = Path(__file__).parents[1] / "console"
INDEX = "index.html"
ASSETS = "assets"
"""A folder of files. Nothing below it is a page."""
KINDS = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2", ".json": "application/json",
    ".webmanifest": "application/manifest+json", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
PACKED = frozenset({".png", ".woff2"})
"""Compressing them again gains nothing."""
DEEPEST = 32
POLICY = (
    "default-src 'self'; connect-src 'self'; worker-src 'self'; form-action 'self'; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
NOT_BUILT = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Tidelog</title>
<h1>The console is not in this installation</h1>
<p>Its files are made by <code>make console</code>, and come with each release. The server works without them.</p>
<p><a href="/docs">All routes</a>, to read and to try</p></html>"""


@dataclass(slots=True)
class File:
    path: Path
    kind: str
    tag: str = ""
    """Of the content. Empty: not read yet."""
    packed: bytes = b""
    """The content, compressed with gzip if that is worth while."""
    is_packed: bool = False

    def read(self) -> None:
        content = self.path.read_bytes()
        packed = content if self.path.suffix in PACKED else gzip.compress(content, 9, mtime=0)
        self.is_packed = len(packed) < len(content)
        self.packed, self.tag = (packed if self.is_packed else content), tag_of(content)

    def content(self) -> bytes:
        return gzip.decompress(self.packed) if self.is_packed else self.packed


class Files:
    """The files of a folder, as it was at start. An empty or missing folder has none."""

    def __init__(self, folder: Path) -> None:
        self._files = {name: File(folder / name, KINDS[path.suffix]) for name, path in _found(folder)}
        self._reading = asyncio.Lock()

    @property
    def built(self) -> bool:
        return INDEX in self._files

    async def get(self, name: str) -> File | None:
        file = self._files.get(name)
        if file is not None and not file.tag:
            async with self._reading:
                if not file.tag:
                    await asyncio.to_thread(file.read)
        return file


def _found(folder: Path) -> list[tuple[str, Path]]:
    places = [("", folder), (f"{ASSETS}/", folder / ASSETS)]
    return [
        (beginning + path.name, path)
        for beginning, place in places
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.suffix in KINDS and path.is_file() and not path.is_symlink()
    ]


_ANSWERED = (*HEADERS, "ETag", "Vary", "Content-Encoding")
_ANSWERS: dict[int | str, Any] = {
    200: openapi.gives_content(
        {"text/html": {"type": "string"}, "*/*": openapi.BINARY}, *_ANSWERED, description="The page, or a file"
    ),
    304: openapi.still_the_same(*_ANSWERED),
}
_TAKES = openapi.takes_headers("If-None-Match", "Accept-Encoding")


@router.get(
    "/console",
    summary="Leads to the console",
    status_code=307,
    response_class=RedirectResponse,
    responses={307: openapi.REDIRECT},
)
@public
async def get_console(request: Request) -> Response:
    return RedirectResponse("console/", 307)


@router.get("/console/", summary="The console", responses=_ANSWERS, openapi_extra=_TAKES)
@public
async def get_first_page(request: Request) -> Response:
    """Runs, events, approvals and health, for people. The page signs in by `POST /v1/sessions`."""
    return await _answer(request, INDEX)


@pages.get("/console/{place}", summary="A page of the console, or one of its files", responses=_ANSWERS, openapi_extra=_TAKES)
@public
async def get_page(request: Request, place: str) -> Response:
    """Any path that is no file is a page: the console itself knows its pages."""
    return await _answer(request, place)


async def _answer(request: Request, name: str) -> Response:
    """Raises NotFound."""
    files: Files = request.app.state.console
    if not files.built:
        return Response(NOT_BUILT, 200, {**HEADERS, "Content-Security-Policy": "default-src 'none'"}, KINDS[".html"])
    file = await files.get(name)
    if file is not None and name != INDEX:
        return await _file(request, file)
    if file is None and (name.startswith(f"{ASSETS}/") or ("/" not in name and Path(name).suffix in KINDS)):
        raise NotFound("the console has no such file")
    return await _page(request, files)


async def _file(request: Request, file: File) -> Response:
    packed = file.is_packed and _takes_gzip(request)
    tag = f'{file.tag[:-1]}-gzip"' if packed else file.tag
    headers = {**HEADERS, "ETag": tag, "Vary": "Accept-Encoding"}
    if knows(request, tag):
        return Response(status_code=304, headers=headers)
    if packed:
        return Response(file.packed, 200, {**headers, "Content-Encoding": "gzip"}, file.kind)
    return Response(await asyncio.to_thread(file.content), 200, headers, file.kind)


async def _page(request: Request, files: Files) -> Response:
    """The page, which refers to its files by where it stands: so it is found behind any prefix of a proxy. Raises NotFound."""
    file = await files.get(INDEX)
    assert file is not None
    depth = (request.scope.get("raw_path") or request.scope["path"].encode()).count(b"/") - 2
    if depth > DEEPEST:
        raise NotFound("the console has no such page")
    tag = f'{file.tag[:-1]}-{depth}"'
    headers = {**HEADERS, "ETag": tag}
    if knows(request, tag):
        return Response(status_code=304, headers=headers)
    root = b'"' + (b"../" * depth or b"./")
    return Response(file.content().replace(b'"/console/', root).replace(b'"./', root), 200, headers, file.kind)


def _takes_gzip(request: Request) -> bool:
    for said in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = said.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
