"""What the command line says of breakers."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rich.text import Text

from api.cli import breakers, output
from tidelog.errors import NotFoundError
from tidelog.models import BreakerInfo

POLICY = {"failures": 2, "rate": None, "calls": 20, "window_s": 30.0, "open_s": 60.0, "probes": 1}
OPEN = {
    "tool": "weather", "state": "open", "because": "failures", "failures": 2, "calls": 3, "error": "down", "policy": POLICY,
}  # fmt: skip


class Server:
    """A server with one tool, and its breaker."""

    def __init__(self) -> None:
        self.client, self.asked = self, list[str]()

    async def breaker(self, name: str) -> BreakerInfo:
        if name != "weather":
            raise NotFoundError(404, "not-found", "there is no tool")
        return BreakerInfo.model_validate(OPEN)

    async def force_breaker(self, name: str, state: str, *, reason: str) -> None:
        self.asked.append(state)
        await self.breaker(name)

    async def pages(self, path: str) -> AsyncIterator[dict[str, Any]]:
        yield {"name": "weather"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server()

    @contextlib.asynccontextmanager
    async def there(*_: object) -> AsyncIterator[Server]:
        yield found

    monkeypatch.setattr(breakers, "server_of", there)
    return found


def lines(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    breakers._show(found)
    return [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:]]


def test_each_line_of_a_breaker_has_a_label_and_the_policy_says_what_takes_effect(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(OPEN, capsys) == [
        ["calls", "nobody calls the tool"],
        ["because", "of      failures in a row (2 of 3 calls)"],
        ["last", "failure    down"],
        ["policy", "failures 2, open_s 60.0, probes 1"],
    ]
    shared = {"state": "half_open", "tool": "weather", "policy": POLICY | {"failures": None, "rate": 0.5}}
    assert lines(shared, capsys) == [
        ["calls", "some are tried"],
        ["policy", "rate 0.5, calls 20, window_s 30.0, open_s 60.0, probes 1"],
    ]


def test_what_opened_a_breaker_is_past_while_a_person_holds_it(capsys: pytest.CaptureFixture[str]) -> None:
    held = OPEN | {"state": "closed", "forced": "closed", "by": "key:1", "reason": "known", "policy": None}
    assert lines(held, capsys) == [
        ["calls", "go on"],
        ["opened", "before   failures in a row (2 of 3 calls)"],
        ["failure", "then    down"],
        ["held", "by         key:1"],
        ["reason", "known"],
        ["policy", "none: only a person opens it"],
    ]


def test_an_open_breaker_is_marked_in_brackets() -> None:
    assert [Text.from_markup(breakers.marked(state) + "Weather.").plain for state in (None, "open", "half_open")] == [
        "Weather.", "[breaker open] Weather.", "[breaker half-open] Weather.",
    ]  # fmt: skip


async def test_the_word_of_the_command_and_that_of_http_close_a_breaker(server: Server) -> None:
    for word in ("close", "closed", "open", "auto"):
        await breakers._breaker("weather", word, "known", None, None, True)
    assert server.asked == ["closed", "closed", "open", "auto"]
    with pytest.raises(SystemExit):
        breakers.breaker("weather", "shut", "known")


@pytest.mark.parametrize("change", [None, "open"])
async def test_a_misspelt_tool_is_told_its_likely_name(server: Server, change: str | None) -> None:
    with pytest.raises(output.CommandFailed, match="no tool 'wether' is registered; did you mean 'weather'"):
        await breakers._breaker("wether", change, "known", None, None, False)
