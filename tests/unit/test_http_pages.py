"""The pages for people: they load nothing from elsewhere, and know what the OpenAPI document has."""

import re
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest
from fastapi import Request
from starlette.responses import Response

from api.http.app import ROUTERS
from api.http.documents import pages
from api.http.documents.openapi import Document

Answer = Callable[[Request], Awaitable[Response]]
FILES = {"page.html": "/docs", "page.js": "/docs/page.js", "page.css": "/docs/page.css"}
ADDRESS = re.compile(r"(?:https?:|wss?:|ftp:)?//\w|@import|url\(", re.IGNORECASE)


class References(HTMLParser):
    """What a page refers to, and its texts that a browser would execute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        self.inline += [name for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._tag in ("script", "style") and data.strip():
            self.inline.append(data)


def request(path: str) -> Request:
    return Request({"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""})


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_host(name: str) -> None:
    text = (pages.STATIC / name).read_text()
    without_comments = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    assert len(text) > 500 and not ADDRESS.search(without_comments)


@pytest.mark.parametrize(("answer", "path"), [(pages.get_docs, "/docs"), (pages.error_page, "/docs/errors")])
async def test_a_page_refers_to_routes_of_this_server_alone(answer: Answer, path: str) -> None:
    response = await answer(request(path))
    page = References(bytes(response.body).decode())
    assert page.inline == [], "the policy of the page forbids scripts and styles in its text"
    known = {route.path for router in ROUTERS for route in router.routes}  # type: ignore[attr-defined]
    referred = {urljoin(path, reference).partition("#")[0] for reference in page.found if reference != "data:,"}
    assert referred and referred <= known
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "//" not in policy


async def test_files_are_read_for_each_request_and_may_be_cached() -> None:
    for answer, kind in ((pages.get_docs, "text/html"), (pages.get_script, "text/javascript"), (pages.get_style, "text/css")):
        response = await answer(request("/"))
        assert response.headers["content-type"].startswith(kind) and response.headers["x-content-type-options"] == "nosniff"
        again = Request({**request("/").scope, "headers": [(b"if-none-match", response.headers["etag"].encode())]})
        assert (await answer(again)).status_code == 304


async def test_the_first_page_leads_to_all_routes() -> None:
    response = await pages.get_root(request("/"))
    assert (response.status_code, response.headers["location"]) == (307, "console/")


def test_the_script_knows_the_elements_of_the_page_and_the_methods_of_the_document() -> None:
    script, page = (pages.STATIC / "page.js").read_text(), (pages.STATIC / "page.html").read_text()
    for name in re.findall(r'getElementById\("(\w+)"\)', script):
        assert f'id="{name}"' in page
    assert "innerHTML" not in script and "localStorage" not in script, "texts stay texts, and the key is not kept"
    methods = {method.lower() for router in ROUTERS for route in router.routes for method in route.methods}  # type: ignore[attr-defined]
    assert methods <= set(re.findall(r'"(\w+)"', script.partition("const METHODS = [")[2].partition("]")[0]))


def test_the_document_names_no_host() -> None:
    document = Document("0", [route for router in ROUTERS for route in router.routes]).rendered
    hosts = set(re.findall(rb"https?://([^/\"` ]+)", document))
    assert hosts - {b"api.example.com"} == set(), "the document is the same whatever the server is called"
