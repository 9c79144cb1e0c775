"""The built files of the console: from a fixed list, compressed once, behind a strict policy, found behind every prefix."""

import gzip
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from api.http.app import create_app
from api.http.documents import console
from tests.integration.system_kit import BASE, OfOneClient, System
from tests.pace import ANSWER_S

SCRIPT = "const said = 'the console';\n" * 400
INDEX = """<!doctype html><html lang="en"><head><title>Tidelog</title><script type="module" src="/console/app.js"></script>
<link rel="stylesheet" href="./app.css"></head><body><div id="root"></div></body></html>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("built") / "console"
    (made / "assets").mkdir(parents=True)
    (made / "index.html").write_text(INDEX)
    (made / "app.js").write_text(SCRIPT)
    (made / "app.css").write_text("body{}")
    (made / "assets" / "icon.svg").write_text("<svg/>")
    (made / "README").write_text("no kind")
    (made.parent / "secret.js").write_text("outside")
    (made / "linked.js").symlink_to(made.parent / "secret.js")
    return made


@pytest_asyncio.fixture
async def http(shared: System, folder: Path) -> AsyncIterator[httpx2.AsyncClient]:
    transport = OfOneClient(create_app(shared.container, console_files=folder), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE, timeout=ANSWER_S) as client:
        yield client


async def test_files_come_compressed_and_are_not_sent_again(http: httpx2.AsyncClient) -> None:
    async with http.stream("GET", "/console/app.js") as response:
        packed = b"".join([piece async for piece in response.aiter_raw()])
    assert response.headers["content-encoding"] == "gzip" and gzip.decompress(packed).decode() == SCRIPT
    assert len(packed) * 10 < len(SCRIPT) and response.headers["vary"] == "Accept-Encoding"
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    plain = await http.get("/console/app.js", headers={"Accept-Encoding": "br, gzip;q=0"})
    assert plain.text == SCRIPT and "content-encoding" not in plain.headers
    assert plain.headers["etag"] != response.headers["etag"], "another representation"
    for found, accepts in ((response, "gzip"), (plain, "identity")):
        known = {"If-None-Match": found.headers["etag"], "Accept-Encoding": accepts}
        again = await http.get("/console/app.js", headers=known)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", found.headers["etag"])
    assert (await http.get("/console/app.css")).text == "body{}"
    assert (await http.get("/console/assets/icon.svg")).headers["content-type"] == "image/svg+xml"
    assert (await http.head("/console/app.js")).content == b""


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/console/", "./"), ("/console/runs", "./"), ("/console/runs/", "../"), ("/console/runs/1/events", "../../"),
        ("/console/tools/a%2Fb", "../"), ("/console/runs?status=failed&at=%00", "./"), ("/console/?link=a&link=b", "./"),
        ("/console//x", "../"), ("/console/index.html", "./"), ("/console/tools/fs.js", "../"),
    ],
)  # fmt: skip
async def test_every_path_that_is_no_file_is_the_page_and_refers_to_its_files(
    http: httpx2.AsyncClient, path: str, root: str
) -> None:
    response = await http.get(path)
    assert response.status_code == 200 and response.headers["content-type"] == "text/html; charset=utf-8"
    assert f'src="{root}app.js"' in response.text and f'href="{root}app.css"' in response.text
    assert (await http.get(path, headers={"If-None-Match": response.headers["etag"]})).status_code == 304


async def test_the_first_page_leads_there_behind_any_prefix(http: httpx2.AsyncClient) -> None:
    for path in ("/", "/console"):
        response = await http.get(path)
        assert (response.status_code, response.headers["location"]) == (307, "console/")


@pytest.mark.parametrize("path", ["/console/", "/console/app.js", "/console/runs/1"])
async def test_a_browser_is_told_to_take_nothing_from_elsewhere(http: httpx2.AsyncClient, path: str) -> None:
    headers = (await http.get(path)).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'self'", "connect-src": "'self'", "worker-src": "'self'", "form-action": "'self'", "object-src": "'none'",
        "base-uri": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert headers["cache-control"] == "no-cache" and headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize(
    "path",
    [
        "/console/nothing.js", "/console/assets/nothing.js", "/console/assets/icon", "/console/README.txt", "/console/linked.js",
        "/console/" + "a/" * 40, "/console/secret.js",
    ],
)  # fmt: skip
async def test_what_is_not_in_the_list_is_not_there(http: httpx2.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 404


@pytest.mark.parametrize(
    "path", ["../secret.js", "..%2Fsecret.js", "%2e%2e/secret.js", "assets/../../secret.js", "/etc/passwd", "a%00b"]
)
async def test_no_path_leads_to_another_file(http: httpx2.AsyncClient, path: str) -> None:
    response = await http.get(f"/console/{path}")
    assert "outside" not in response.text and "root:" not in response.text


async def test_files_are_read_once_and_stay_small_in_memory(http: httpx2.AsyncClient, folder: Path) -> None:
    files = console.Files(folder)
    file = await files.get("app.js")
    assert file is not None and len(file.packed) < len(SCRIPT) / 10
    (folder / "app.js").rename(folder / "moved")
    try:
        assert await files.get("app.js") is file and zlib.crc32(file.content()) == zlib.crc32(SCRIPT.encode())
    finally:
        (folder / "moved").rename(folder / "app.js")


async def test_without_built_files_the_page_says_so(shared: System, tmp_path: Path) -> None:
    for empty in (tmp_path, tmp_path / "missing"):
        transport = OfOneClient(create_app(shared.container, console_files=empty))
        async with httpx2.AsyncClient(transport=transport, base_url=BASE, timeout=ANSWER_S) as client:
            for path in ("/console/", "/console/runs/1"):
                response = await client.get(path)
                assert response.status_code == 200 and 'href="/docs"' in response.text
                assert "default-src 'none'" in response.headers["content-security-policy"]
