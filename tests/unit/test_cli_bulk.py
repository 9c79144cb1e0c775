"""Commands for many runs on the command line: which runs are meant, and what is asked before."""

from typing import Any

import pytest
import typer

from api.cli import bulk
from api.cli.bulk import Many, filter_of
from api.cli.output import WRONG_USAGE, CommandFailed


def test_what_is_meant_is_the_filter_of_the_server() -> None:
    given = [
        "agent=critic", "status=running", "status=paused", "for=user:ada", "since=2026-01-30", "until=2026-01-31T12:00:00Z",
        "schedule=nightly", "unmoved=10m", "metadata.ticket=T-1", "metadata.a.b=1=2", "project=p", "error=connection refused",
    ]  # fmt: skip
    assert filter_of(given) == {
        "agent": "critic", "status": ["running", "paused"], "on_behalf_of": "user:ada",
        "started_after": "2026-01-30T00:00:00+00:00", "started_before": "2026-01-31T12:00:00+00:00", "origin": "schedule:nightly",
        "unmoved_s": 600, "metadata": {"ticket": "T-1", "a.b": "1=2"}, "project_id": "p", "error": "connection refused",
    }  # fmt: skip
    assert filter_of(["trigger=t"]) == {"origin": "trigger:t"}
    assert filter_of(None) == filter_of([]) == {}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["agent"], "'agent' is not NAME=VALUE"),
        (["agent="], "'agent=' is not NAME=VALUE"),
        (["=x"], "there is no ''"),
        (["colour=red"], "there is no 'colour'; there are agent, workflow, status"),
        (["metadata.=x"], "there is no 'metadata.'"),
        (["agent=a", "agent=b"], "agent is given twice"),
        (["schedule=a", "trigger=b"], "origin is given twice"),
        (["since=yesterday"], "neither a day"),
        (["unmoved=long"], "is no duration"),
        (["a\x1b[31m=b"], "there is no 'a\\u001b"),
    ],
)
def test_what_cannot_be_meant_is_said(given: list[str], told: str) -> None:
    with pytest.raises(CommandFailed) as refused:
        filter_of(given)
    assert told in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert refused.value.exit_code == WRONG_USAGE


def test_it_is_one_run_or_many() -> None:
    assert Many().meant("0198c0de") is False
    assert Many(where=["agent=a"]).meant(None) is True
    assert Many(every=True, yes=True, detach=True, dry_run=True).meant(None) is True
    for many, run_id, told in (
        (Many(), None, "give the ID of a run, or --where"),
        (Many(where=["agent=a"]), "0198c0de", "either"),
        (Many(every=True), "0198c0de", "either"),
        (Many(dry_run=True), "0198c0de", "go with --where"),
        (Many(yes=True), "0198c0de", "go with --where"),
        (Many(detach=True), "0198c0de", "go with --where"),
    ):
        with pytest.raises(typer.BadParameter, match=told):
            many.meant(run_id)


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = {"matched": 1_234, "complete": True, "runs": []}
    for as_json, terminal in ((True, True), (False, False)):
        monkeypatch.setattr("sys.stdin.isatty", lambda terminal=terminal: terminal)
        with pytest.raises(CommandFailed, match=r"^the command would go to 1,234 runs: give --yes$"):
            bulk._confirmed("pause", found, as_json)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    asked: list[str] = []
    monkeypatch.setattr(typer, "confirm", lambda text, err: asked.append(text) or text.startswith("Pause"))
    assert bulk._confirmed("pause", found, False) is True
    assert bulk._confirmed("cancel", {**found, "matched": 1, "complete": False}, False) is False
    assert asked == ["Pause 1,234 runs?", "Cancel at least 1 run?"]
    assert bulk._confirmed("pause", {**found, "matched": 0}, False) is False
    assert capsys.readouterr().out == "No run is meant.\n"


def test_what_came_of_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    example = {"run_id": "r1", "code": "invalid-state", "message": "the run is\ncompleted\x1b[2J"}
    shown = {
        "action": "pause", "done": 9_998, "matched": 10_000, "unchanged": 1, "refused": [{"code": "invalid-state", "count": 1}],
        "examples": [example],
    }  # fmt: skip
    bulk.tell(shown)
    assert capsys.readouterr().out == (
        "Paused 9,998 of 10,000 runs; so already: 1\n  1 refused: invalid-state\n    r1: the run is completed\\u001b[2J\n"
    )
    bulk._tell({"matched": 3, "complete": False, "runs": ["a", "b"]}, as_json=False)
    assert capsys.readouterr().out == "The command would go to at least 3 runs.\n  a\n  b\n  … and 1 more\n"
