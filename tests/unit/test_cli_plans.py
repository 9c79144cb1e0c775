"""Plans on the command line: files, the words of their events, and why each step ran or did not."""

from pathlib import Path
from typing import Any

import pytest

from api.cli import explain, phrases
from api.cli.output import CommandFailed
from api.cli.run_body import StartOptions, agents_of, body_of
from api.cli.timeline import Timeline

FAILURE = {"type": "E", "message": "broken", "kind": "permanent"}
TIME = "2026-01-31T12:00:00Z"


# --- files --------------------------------------------------------------------------------------------------------------


def test_a_plan_is_read_from_yaml_and_json(tmp_path: Path) -> None:
    yaml, json = tmp_path / "plan.yaml", tmp_path / "plan.json"
    yaml.write_text("steps:\n  - key: look\n    agent: critic@2\n    when: input.on\n    on_failure: continue\n")
    json.write_text('{"kind": "sequential", "agents": ["critic@2", "writer"]}')
    plan = body_of(StartOptions(plan=str(yaml)))["plan"]
    step = {"key": "look", "agent": "critic@2", "when": "input.on", "on_failure": "continue"}
    assert plan == {"kind": "graph", "steps": [step]}
    assert body_of(StartOptions(plan=f"@{yaml}"))["plan"] == plan
    assert body_of(StartOptions(plan=str(json)))["plan"] == body_of(StartOptions(plan=f"@{json}"))["plan"]
    assert agents_of(plan) == {"critic"} and agents_of(body_of(StartOptions(plan=str(json)))["plan"]) == {"critic", "writer"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- 1", "must hold one object"),
        ("a: [", "expected the node content"),
        ("a: .inf", "plan.yaml: "),
        ("a: 1\na: 2", "stands twice"),
    ],
)
def test_a_file_that_is_no_plan_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(CommandFailed) as raised:
        body_of(StartOptions(plan=str(path)))
    assert told in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(CommandFailed, match="No such file"):
        body_of(StartOptions(plan=str(tmp_path / "other.yml")))


# --- words of events ----------------------------------------------------------------------------------------------------

TOLD: list[tuple[str, dict[str, Any], str | None]] = [
    ("run.step_skipped", {"step": "s", "reason": "condition", "condition": "input.on", "value": False, "saw": {"input.on": False}},
     "s: skipped: its condition was false: input.on; it saw input.on = false"),
    ("run.step_skipped", {"step": "s", "reason": "condition", "condition": "false", "value": False, "saw": {}},
     "s: skipped: its condition was false: false"),
    ("run.step_skipped", {"step": "s", "reason": "upstream"}, "s: skipped: all steps before it were skipped"),
    ("run.step_skipped", {"step": "s", "reason": "not_needed", "by": "first"}, "s: skipped: first had enough results without it"),
    ("run.step_started", {"step": "s", "form": "each", "items": [1, 2]}, "s: begins: 2 items"),
    ("run.step_started", {"step": "s", "form": "each", "items": [1]}, "s: begins: 1 item"),
    ("run.step_started", {"step": "s", "form": "repeat"}, "s: begins to repeat"),
    ("run.step_started", {"step": "s", "form": "adaptive"}, "s: begins: its agent names the next steps"),
    ("run.step_started", {"step": "s", "form": "run"}, "s: begins"),
    ("run.step_started", {"step": "s", "form": "wait", "delay_s": 90}, "s: waits for 90 s"),
    ("run.step_started", {"step": "s", "form": "wait", "until": TIME}, f"s: waits until {TIME}"),
    ("run.part_scheduled", {"step": "s", "part": 0, "agent_run_id": "agent-run"}, None),
    ("run.part_scheduled", {"step": "s", "part": 1, "child_id": "child", "workflow": {"name": "w", "version": 2}},
     "s.1: starts run child of w@2"),
    ("run.part_completed", {"step": "s", "part": 0, "execution_id": "agent-run"}, None),
    ("run.part_completed", {"step": "s", "part": 1, "execution_id": "child"}, "s.1: its run completed in 0 ms"),
    ("run.part_failed", {"step": "s", "part": 0, "execution_id": "agent-run", "error": FAILURE, "tolerated": False}, None),
    ("run.part_failed", {"step": "s", "part": 0, "execution_id": "agent-run", "error": FAILURE, "tolerated": True},
     "s.0: the step goes on without it"),
    ("run.part_failed", {"step": "s", "part": 1, "execution_id": "child", "error": FAILURE, "tolerated": False},
     "s.1: its run did not complete: E: broken"),
    ("run.step_fell_back", {"step": "s", "agent": "b", "error": FAILURE}, "s: goes on with b: E: broken"),
    ("run.step_fell_back", {"step": "s", "part": 3, "agent": "b", "error": FAILURE}, "s.3: goes on with b: E: broken"),
    ("run.step_completed", {"step": "other", "agent_run_id": "agent-run"}, None),
    ("run.step_completed", {"step": "other", "agent_run_id": None}, "other: done"),
    ("run.step_completed", {"step": "s", "agent_run_id": None, "exhausted": True},
     "s: done in 0 ms: the loop was ended by its bound"),
    ("run.step_completed", {"step": "s", "agent_run_id": None, "without": [1, 4]}, "s: done in 0 ms, without 1, 4"),
]  # fmt: skip


def test_each_event_of_a_plan_has_words() -> None:
    line = Timeline()
    for position, (type_, data, told) in enumerate(TOLD, 1):
        found = line.feed({"type": type_, "subject": "run", "data": data, "time": TIME, "position": position})
        assert (None if found is None else found.sentence) == told, data
    claimed = {"attempt": 1, "worker_id": "w"}
    found = line.feed({"type": "agent_run.claimed", "subject": "agent-run", "data": claimed, "time": TIME, "position": 99})
    assert found is not None and found.actor == "s.0"


def test_a_start_names_the_workflow_and_what_started_it() -> None:
    data = {"plan": {"steps": [{"key": "a", "after": []}]}, "workflow": {"name": "w", "version": 2}}
    data["origin"] = {"kind": "schedule", "name": "nightly"}
    found = Timeline().feed({"type": "run.started", "subject": "run", "data": data, "time": TIME, "position": 1})
    assert found is not None and found.text == "started (w@2) by schedule nightly: a"


# --- why ----------------------------------------------------------------------------------------------------------------


def step(key: str = "s", status: str = "completed", **given: Any) -> dict[str, Any]:
    return {
        "key": key, "status": status, "after": [], "scheduled_at": TIME, "error": None, "form": "agent", "agent": "a", **given,
    }  # fmt: skip


def parts(form: str, total: int | None, started: int, completed: int, failed: int = 0, cancelled: int = 0) -> dict[str, Any]:
    counts = {"total": total, "started": started, "completed": completed, "failed": failed, "cancelled": cancelled}
    return {"form": form, "parts": counts}


CONDITION = {"condition": "input.on", "value": True, "saw": {"input.on": True}}
SKIPPED = {"reason": "condition", "condition": "input.on", "value": False, "saw": {}}
TRIED = [{"number": 1, "agent": "b", "error": FAILURE}]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (step(), "ran at once: no step comes before it"),
        (step(after=["x", "y"]), "ran after x (completed), y (failed)"),
        (step(why=CONDITION), "ran, because its condition was true: input.on, as it saw input.on = true"),
        (step(status="skipped", why=SKIPPED), "did not run: its condition was false: input.on"),
        (step(status="skipped", why={"reason": "upstream"}), "did not run: all steps before it were skipped"),
        (step(status="pending", after=["x", "z"], scheduled_at=None), "has not begun: it waits for z (running)"),
        (step(status="pending", scheduled_at=None), "has not begun"),
        (step(status="cancelled", scheduled_at=None), "did not run: the run ended before"),
        (step(status="failed", scheduled_at=None, error=FAILURE), "could not begin: E: broken"),
        (step(status="failed", error=FAILURE), "ran at once: no step comes before it; it failed: E: broken"),
        (step(status="running"), "ran at once: no step comes before it; it is running"),
        (step(input={"n": 1}), "ran at once: no step comes before it; its input was made: n: 1"),
        (step(fallbacks=TRIED), "ran at once: no step comes before it; it went on with b, because: E: broken"),
        (step(status="waiting", waits_until=TIME), f"ran at once: no step comes before it; it waits until {TIME}"),
        (step(waits_until=TIME), f"ran at once: no step comes before it; it waited until {TIME}"),
        (step(exhausted=True, **parts("repeat", 5, 5, 5)),
         "ran at once: no step comes before it; repeat 5 of at most 5 done; the loop was ended by its bound"),
        (step(**parts("each", 1000, 47, 37, 2)), "ran at once: no step comes before it; each 37/1,000 done, 2 failed"),
        (step(**parts("adaptive", None, 3, 1, 0, 1)),
         "ran at once: no step comes before it; adaptive 1 of 3 done, 1 cancelled"),
        (step(parts={"total": 2, "started": 2, "completed": 1, "failed": 0, "cancelled": 0, "first": [
            {"number": 0, "person": {"by": "key:ann", "on_behalf_of": None, "reason": "looked up"}}, {"number": 1}]}, form="each"),
         "ran at once: no step comes before it; each 1/2 done; s.0 was ended by key:ann because: looked up"),
        (step(taken_over=True), "was taken over from run r, and did not run again"),
        (step(status="failed", taken_over=True, error=FAILURE),
         "was taken over from run r, and did not run again; it failed: E: broken"),
    ],
)  # fmt: skip
def test_why_a_step_ran_or_did_not_is_one_sentence(given: dict[str, Any], told: str) -> None:
    run = {"steps": [given, step("x"), step("y", "failed"), step("z", "running")], "forked_from": {"run_id": "r"}}
    assert explain.why(given, run) == told


def test_what_a_step_is_stands_with_its_agent() -> None:
    assert phrases.agent_of(step()) == "a"
    assert phrases.agent_of(step(agent_version="2", version_asked=True)) == "a v2 (asked for)"
    assert phrases.agent_of(step(form="wait", agent=None)) == "wait"
    assert phrases.agent_of(step(form="each", fallbacks=TRIED)) == "each a → b"
