"""Why a call went on with another tool, in its document and on the command line."""

import pytest

from api.cli.invocations import _show_one
from domain.failures import Failure, Retry
from domain.invocations import AttemptStarted, InvocationFellBack, InvocationRequested, InvocationSucceeded
from domain.kernel import Event
from projections.invocations.fold import MAX_BECAUSE, replay
from tests.unit.test_cli_history import AGENT_RUN, CALL, RUN, log

ASKED = InvocationRequested(
    run_id=RUN, agent_run_id=AGENT_RUN, key="k", tool="weather.now", arguments={}, idempotent=True, timeout_s=1, retry=Retry()
)
BEGUN = AttemptStarted(attempt=1, worker_id="w", dispatch=1)
DONE = InvocationSucceeded(agent_run_id=AGENT_RUN, key="k", attempt=1, result="rain")


def fell(from_tool: str, tool: str, message: str) -> InvocationFellBack:
    return InvocationFellBack(
        run_id=RUN, from_tool=from_tool, tool=tool, version="1", number=1, attempt=1, dispatch=2,
        error=Failure(type="ConnectionError", message=message),
    )  # fmt: skip


def shown(*events: Event) -> dict[str, object]:
    view = replay(log(*((CALL, event) for event in events)))
    assert view is not None
    return view.model_dump(mode="json")


def test_the_reason_outlives_the_success() -> None:
    call = shown(ASKED, BEGUN, fell("weather.now", "weather.guess", "no\nanswer"), BEGUN, DONE)
    assert (call["status"], call["error"], call["fallback"]) == ("succeeded", None, "weather.guess")
    assert call["fallback_because"] == "weather.now: ConnectionError: no\nanswer"
    assert shown(ASKED, BEGUN, DONE)["fallback_because"] is None


def test_it_is_that_of_the_tool_before_and_it_is_short() -> None:
    call = shown(ASKED, fell("weather.now", "weather.guess", "no"), fell("weather.guess", "weather.old", "x" * 1_000))
    told = str(call["fallback_because"])
    assert told.startswith("weather.guess: ConnectionError: xxx") and len(told) == MAX_BECAUSE


def test_the_command_line_shows_it_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _show_one(shown(ASKED, BEGUN, fell("weather.now", "weather.guess", "no\nanswer"), BEGUN, DONE), traceback=False)
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["answered", "by", "weather.guess"] in lines
    assert ["instead", "of", "weather.now: ConnectionError: no answer"] in lines
    without = shown(ASKED, BEGUN, DONE)
    del without["fallback_because"]  # of an earlier release
    _show_one(without, traceback=False)
    assert "instead of" not in capsys.readouterr().out
