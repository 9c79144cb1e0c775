"""What the command line says of calls in lists, and of a wrong resolution."""

from typing import Any

import pytest

from api.cli import invocations, options, output
from api.cli.main import app

CALL: dict[str, Any] = {
    "invocation_id": "0198c0de", "run_id": "0198c0df", "tool": "add", "status": "succeeded", "since": "2026-01-31T12:00:00Z",
    "attempt": 1, "key": "sum", "cancel_requested": False,
}  # fmt: skip


def cells(call: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    invocations.show_list([call], then=False)
    return capsys.readouterr().out.strip().splitlines()[-1].split()


def test_a_call_that_a_result_of_before_answered_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cached" not in cells(CALL, capsys)
    assert cells(CALL | {"cached_from": "0198c0dd", "attempt": 0}, capsys)[-3:] == ["cached", "0198c0df", "sum"]


def test_a_key_that_nobody_gave_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cells(CALL, capsys)[-1] == "sum"
    assert cells(CALL | {"key": "0198c0de"}, capsys)[-1] == "-"
    random = "01a22a54-dde2-7325-90d1-5677498e442b"
    assert cells(CALL | {"key": random, "asked_by": "client"}, capsys)[-1] == "-"
    assert cells(CALL | {"key": random, "asked_by": "agent_run"}, capsys)[-1] == random, "the agent gave it"
    assert cells(CALL | {"key": f"of {random}", "asked_by": "client"}, capsys)[-2:] == ["of", random], "a person gave it"
    assert invocations._key_of(CALL | {"key": random, "asked_by": "client"}) == random, "one call is shown with it"
    assert invocations._key_of(CALL | {"key": "0198c0de"}) == ""


@pytest.mark.parametrize(
    ("given", "told"),
    [([], "none is given"), (["--result", "1", "--not-happened"], "they contradict one another"),
     (["--result", "null", "--error", "no"], "they contradict one another")],
)  # fmt: skip
def test_a_resolution_says_one_thing(given: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["invocations", "resolve", "0198c0de", "--reason", "seen", *given], standalone_mode=False)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: give either --result or --error or --not-happened: {told}\n"


@pytest.mark.parametrize(
    ("given", "hint"),
    [("booked", """; a text has quotes: '"booked"'"""), ("seat 12A", """; a text has quotes: '"seat 12A"'"""),
     ("12A", ""), ("{booked}", ""), ("", ""), ("a" * 41, "")],
)  # fmt: skip
def test_a_word_that_is_not_json_is_told_with_its_quotes(given: str, hint: str) -> None:
    with pytest.raises(output.CommandFailed) as refused:
        options.json_of("--result", given)
    assert str(refused.value).startswith("--result: is not JSON: ") and str(refused.value).endswith(hint)
    assert ("a text has quotes" in str(refused.value)) is bool(hint)
    with pytest.raises(output.CommandFailed) as refused:
        options.object_of("--arguments", given)
    assert "a text has quotes" not in str(refused.value)
