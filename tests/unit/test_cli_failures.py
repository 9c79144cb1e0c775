"""Failures on the command line: class, message, file and line; the traceback and the causes where they are wanted."""

from pathlib import Path
from typing import Any

import pytest

from api.cli.failures import details, has_more, headline, place
from api.cli.phrases import agent_of, run_status
from api.cli.watching import outcome, warnings

TRACE = '  File "/srv/agents/classify.py", line 12, in execute\n    ticket = ctx.input["ticket"]\n'
ERROR: dict[str, Any] = {
    "type": "KeyError", "message": "'ticket'", "kind": "permanent", "file": "/srv/agents/classify.py", "line": 12,
    "traceback": TRACE,
    "causes": [{"relation": "cause", "type": "OSError", "message": "gone", "file": "/srv/agents/read.py", "line": 3}],
}  # fmt: skip
BEFORE: dict[str, Any] = {"type": "KeyError", "message": f"'ticket'\n{TRACE}", "kind": "permanent"}
STATED: dict[str, Any] = {"type": "StepTimeout", "message": "the step did not finish within 5 s", "kind": "timeout", "file": None}


def test_a_headline_has_class_message_file_and_line() -> None:
    assert headline(ERROR) == "KeyError: 'ticket' (/srv/agents/classify.py:12)"
    assert headline(BEFORE) == "KeyError: 'ticket' (/srv/agents/classify.py:12)", "the form of earlier releases"
    assert headline(STATED) == "StepTimeout: the step did not finish within 5 s"
    assert headline({**ERROR, "message": " ", "line": None}) == "KeyError (/srv/agents/classify.py)"
    assert headline({"type": "E", "message": "several\nlines", "kind": "permanent"}) == "E: several lines"


def test_a_long_message_does_not_hide_the_place() -> None:
    told = headline({**ERROR, "message": "x" * 1000}, 100)
    assert told.endswith("… (/srv/agents/classify.py:12)") and len(told) == 100


def test_a_file_below_the_current_folder_is_named_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place({**ERROR, "file": str(tmp_path / "agents" / "a.py")}) == "agents/a.py:12"
    assert place({**ERROR, "file": "…/agents/a.py"}) == "…/agents/a.py:12"


def test_details_are_the_traceback_the_whole_message_and_the_causes() -> None:
    told = f"Traceback (most recent call last):\n{TRACE}KeyError: 'ticket'"
    assert details(ERROR) == f"{told}\n  caused by: OSError: gone (/srv/agents/read.py:3)"
    assert details(BEFORE) == told
    assert details({**ERROR, "message": "two\nlines", "causes": []}).endswith("\nKeyError: two\nlines")
    assert details(STATED) == "StepTimeout: the step did not finish within 5 s"
    assert [has_more(error) for error in (ERROR, BEFORE, STATED)] == [True, True, False]


def run(**fields: Any) -> dict[str, Any]:
    return {"status": "completed", "degraded": False, "missing": [], "error": None, "steps": [], **fields}


def step(key: str, **fields: Any) -> dict[str, Any]:
    return {"key": key, "error": None, "unused_keys": [], **fields}


def test_a_degraded_run_names_the_missing_steps_and_their_reasons() -> None:
    degraded = run(degraded=True, missing=["classifier"], steps=[step("classifier", error=ERROR), step("writer")])
    assert outcome(degraded) == "completed, degraded: without classifier (KeyError: 'ticket' (/srv/agents/classify.py:12))"
    assert warnings(degraded) == [
        "the run is degraded: it was completed without classifier (KeyError: 'ticket' (/srv/agents/classify.py:12))"
    ]
    listed = {name: value for name, value in degraded.items() if name != "steps"}
    assert outcome(listed) == "completed, degraded: without classifier"
    assert "(degraded: without classifier)" in run_status(listed)
    many = run(degraded=True, missing=[f"m{number}" for number in range(9)], steps=[])
    assert outcome(many).endswith("m3, m4 and 4 more")
    assert outcome(run(status="failed", error=ERROR)) == "failed: KeyError: 'ticket' (/srv/agents/classify.py:12)"
    assert (outcome(run()), warnings(run(steps=[step("a")]))) == ("completed", [])


def test_unused_results_are_a_warning_of_the_run() -> None:
    told = warnings(run(steps=[step("counter", unused_keys=["s0", "s1", "s2", "s3"])]))
    assert told == [
        "counter: 4 recorded results were not used, so the agent's code was changed between its attempts: s0, s1, s2, s3"
    ]


def test_an_agent_is_shown_with_its_version_and_whether_the_version_was_asked_for() -> None:
    assert agent_of({"agent": "writer", "agent_version": None}) == "writer"
    assert agent_of({"agent": "writer", "agent_version": "2"}) == "writer v2"
    assert agent_of({"agent": "writer", "agent_version": "2", "version_asked": True}) == "writer v2 (asked for)"
