"""What `tidelog runs compensation` and its like say."""

from typing import Any

import pytest

from api.cli import compensations, run_view
from api.cli.output import CommandFailed
from projections.runs import replay
from tests.unit.test_cli_history import EVENTS, RUN
from tidelog.errors import ConflictError

CALLS = ("0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-000000000002")
FAILURE = {"type": "Down", "message": "the bank is closed", "kind": "permanent"}


def effect(number: int, **values: Any) -> dict[str, Any]:
    named = {"number": number, "invocation_id": CALLS[number - 1], "key": f"seat.reserve#{number}", "tool": "seat.reserve"}
    told = {"status": "compensated", "unknown": False, "compensated_by": "seat.undo", "error": None, "reason": None, "by": None}
    return named | told | values


def found(status: str, *effects: dict[str, Any], **values: Any) -> dict[str, Any]:
    counts = {"effects": len(effects), "compensated": len(effects), "failed": 0, "skipped": 0}
    return {"run_id": str(RUN), "status": status, **counts, "waits_for": [], "needs_person": False, "data": effects, **values}


def printed(document: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    compensations._print(document)
    return capsys.readouterr().out


def test_two_effects_of_one_tool_have_their_keys_and_success_has_no_empty_column(capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(found("compensated", effect(2), effect(1)), capsys)
    assert f"Compensation of run {RUN}  compensated" in told
    assert "seat.reserve#1" in told and "seat.reserve#2" in told
    assert "What" not in told


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"status": "failed", "error": FAILURE}, "Down: the bank is closed"),
        ({"status": "skipped", "by": "key:ann", "reason": "by hand"}, "skipped by key:ann: by hand"),
    ],
)
def test_an_effect_that_stays_says_why(values: dict[str, Any], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(found("partial", effect(2), effect(1, **values)), capsys)
    assert "What" in told and what in told


def test_what_nobody_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(found("none"), capsys)
    assert told.splitlines() == [
        f"Compensation of run {RUN}  nobody asked for it",
        "  No effect can be taken back: no tool whose call took effect names a compensation.",
    ]
    told = printed(found("none", effect(1, status="recorded")), capsys)
    assert f"  1 effect can be taken back: tidelog runs compensate {RUN} --reason TEXT" in told


def test_the_run_names_the_command_that_shows_its_effects(capsys: pytest.CaptureFixture[str]) -> None:
    view = replay(EVENTS)
    assert view is not None
    run = {**view.model_dump(mode="json"), "result": None}
    command = f"tidelog runs compensation {RUN}"
    run_view.show(run | {"compensation": None})
    assert command not in capsys.readouterr().out
    counts = {"effects": 2, "compensated": 2, "failed": 0, "skipped": 0}
    run_view.show(run | {"compensation": {"status": "compensated", **counts}})
    told = capsys.readouterr().out
    assert "2 of 2 taken back" in told and f"For the effects that are taken back: {command}" in told


class Refusing:
    """A server that has begun the compensation before."""

    def __init__(self, shown: dict[str, Any]) -> None:
        self.shown = shown

    async def __aenter__(self) -> "Refusing":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def post(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        raise ConflictError(409, "invalid-state", "Conflict", "it has begun before: it is partial")

    async def get(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        return self.shown


@pytest.mark.parametrize(
    ("waits", "command"), [(False, "runs compensation {}"), (True, "runs resume-compensation {} --reason TEXT")]
)
async def test_a_second_request_names_the_command_that_goes_on(waits: bool, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensations, "server_of", lambda *_, **__: Refusing(found("partial", needs_person=waits)))
    with pytest.raises(CommandFailed) as refused:
        await compensations._say(str(RUN), "", "why", (), False, None, None, None, False)
    first, second = str(refused.value).splitlines()
    assert first == "invalid-state: it has begun before: it is partial"
    assert second == f"  tidelog {command.format(RUN)}"


async def test_a_refusal_for_another_reason_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensations, "server_of", lambda *_, **__: Refusing(found("none")))
    with pytest.raises(ConflictError):
        await compensations._say(str(RUN), "", "why", (), False, None, None, None, False)
