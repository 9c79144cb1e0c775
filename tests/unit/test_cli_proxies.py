"""The command line beside proxies of the environment: none for a server on this machine, one line about one that cannot be used."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from api.cli.main import app
from api.cli.output import FAILED, WRONG_USAGE

NAMES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "TIDELOG_PROXY")
UNUSABLE = "ftp://user:secret@proxy"


class Empty(BaseHTTPRequestHandler):
    """Has nothing."""

    def do_GET(self) -> None:
        body = json.dumps({"data": [], "next_cursor": None}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("TIDELOG_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDELOG_API_KEY", "tl_" + "k" * 43)


def test_a_server_on_this_machine_is_asked_whatever_proxies_are_named(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, UNUSABLE)
    app(["runs", "list", "--json", "--url", url], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == []
    with pytest.raises(SystemExit):
        app(["doctor", "--url", url], standalone_mode=False)
    assert f"{url} gives no sensible answer: KeyError(" in capsys.readouterr().out  # it is asked, and is no Tidelog server


@pytest.mark.parametrize("server", ["http://tidelog.test", "https://tidelog.test"])
def test_an_unusable_proxy_is_one_line(server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TIDELOG_PROXY", UNUSABLE)
    said = "TIDELOG_PROXY cannot be used as a proxy: it must be http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"
    with pytest.raises(SystemExit) as ended:
        app(["runs", "list", "--url", server], standalone_mode=False)
    assert (ended.value.code, capsys.readouterr()) == (WRONG_USAGE, ("", f"error: {said}\n"))
    with pytest.raises(SystemExit) as ended:
        app(["doctor", "--url", server], standalone_mode=False)
    told = capsys.readouterr()
    assert (ended.value.code, told.err) == (FAILED, "")
    assert [line.split(maxsplit=2)[1:] for line in told.out.splitlines() if said in line] == [["health", f"not looked at: {said}"]]


@pytest.mark.parametrize(
    "url", ["http://[::1", "tidelog.test", "ftp://tidelog.test", "http://tidelog.test:99999999", "http://a..b"]
)
def test_an_unusable_url_is_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["runs", "list"], ["doctor"]):
        with pytest.raises(SystemExit) as ended:
            app([*command, "--url", url], standalone_mode=False)
        told = capsys.readouterr()
        assert ended.value.code == FAILED
        assert [line for line in (told.out + told.err).splitlines() if "the server's URL cannot be used: " in line]
        assert len(told.err.splitlines()) == (0 if command == ["doctor"] else 1)
