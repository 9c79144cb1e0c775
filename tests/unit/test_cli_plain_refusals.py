"""Refusals of the command line say what would be right, in plain words."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import typer

from api.cli import output, tool_calls
from api.cli.main import app
from api.http.routes.events import topics_of
from domain.errors import InvalidCommand
from tidelog.errors import NotFoundError


def test_a_refused_choice_says_nothing_of_the_library_that_checks_it() -> None:
    with pytest.raises(typer.BadParameter) as refused:
        app(["runs", "start", "writer", "--compensate", "always"], standalone_mode=False)
    assert refused.value.message.startswith("'always' is not one of 'on_failure'")


@pytest.mark.parametrize(
    ("types", "told"),
    [
        ("run.complete", "unknown event type: run.complete; did you mean 'run.completed'"),
        ("no.such", "unknown event type: no.such (GET /schemas lists all)"),
        ("run.complete,no.such", "unknown event type: no.such, run.complete (GET"),
    ],
)
def test_an_unknown_type_of_events_is_told_its_likely_name_and_where_the_types_are(types: str, told: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        topics_of(types)
    assert str(refused.value).startswith(told)
    assert str(refused.value).endswith("(GET /schemas lists all)")


class Server:
    temporary = False

    async def get(self, path: str) -> Any:
        if path.endswith("gone"):
            raise NotFoundError(404, "not-found", "there is no such tool")
        return {"parameters": {"properties": {"city": {}, "day": {}}, "required": ["city"]} if path.endswith("weather") else {}}


@contextlib.asynccontextmanager
async def there(*_: object, **__: object) -> AsyncIterator[Server]:
    yield Server()


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ("weather", "'Oslo' is not KEY=VALUE; weather has the parameters city, [day]"),
        ("now", "'Oslo' is not KEY=VALUE; now has no parameters"),
        ("gone", "'Oslo' is not KEY=VALUE"),
    ],
)
async def test_a_value_without_its_name_is_told_the_names(tool: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_calls, "server_of", there)
    given = tool_calls.CallOptions(tool, ["Oslo"])
    with pytest.raises(output.CommandFailed) as refused:
        await tool_calls._call(given, None, None, None, None, False)
    assert (str(refused.value), refused.value.exit_code) == (told, output.WRONG_USAGE)
