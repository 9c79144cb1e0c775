"""Where a result becomes a reference in the document of a run, and what clients make of references."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from application.views.large import LARGE_BYTES, TOGETHER_BYTES, position_of
from application.views.runs import RunView
from domain import runs
from domain.failures import Failure
from domain.kernel import Event, Json, RecordedEvent
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID
from projections.runs import replay
from projections.runs.values import held
from tests.kit.waiting import new_id
from tidelog.errors import TidelogConnectionError
from tidelog.large import fill_run, value_of

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def recorded(run_id: UUID, position: int, event: Event) -> RecordedEvent:
    state = REGISTRY.encode(event)
    return RecordedEvent(position, DEFAULT_TENANT_ID, run_id, position, run_id, event.TOPIC, event.VERSION, state, "{}", AT)


def run_of(*results: Json, joined: bool = True, **given: Any) -> tuple[RunView, list[RecordedEvent]]:
    """A run whose steps have ended with these results, and its events. `joined`: a last step comes after all others."""
    run_id = new_id()
    keys = [f"s{number}" for number in range(len(results))]
    steps = [runs.Step(key=key, agent="a", after=tuple(keys[:-1]) if joined and key == keys[-1] else ()) for key in keys]
    started = runs.RunStarted(project_id=new_id(), plan=runs.Plan(steps=tuple(steps)), **given)
    ended = [
        runs.StepCompleted(step=key, agent_run_id=runs.agent_run_id_of(run_id, key), result=result)
        for key, result in zip(keys, results, strict=True)
    ]
    events = [recorded(run_id, position, event) for position, event in enumerate([started, *ended], start=1)]
    view = replay(events)
    assert view is not None
    return view, events


@pytest.mark.parametrize(("size", "is_large"), [(LARGE_BYTES, False), (LARGE_BYTES + 1, True)])
def test_the_limit_is_in_bytes_of_json(size: int, is_large: bool) -> None:
    result = "ü" * (size // 2 - 1) + "x" * (size % 2)
    view, events = run_of(result, input=result)
    [step] = view.steps
    if not is_large:
        assert (step.result, view.result, view.input, step.large, view.large) == (result, result, result, None, None)
        return
    assert step.result is None and view.result is None and view.input is None and step.large is not None and view.large is not None
    assert step.large["result"].bytes == view.large["result"].bytes == view.large["input"].bytes == size
    assert held(events[position_of(step.large["result"]) - 1], "result", "s0") == (result,)
    assert held(events[position_of(view.large["input"]) - 1], "input") == (result,)


@pytest.mark.parametrize("steps", [64, 65, 200, 1_000])
def test_the_results_of_a_run_have_a_bound_together(steps: int) -> None:
    most = min(LARGE_BYTES, TOGETHER_BYTES // steps)
    for size, is_large in ((most, False), (most + 1, True)):
        view, _ = run_of(*["x" * (size - 2)] * steps)
        assert {step.result is None for step in view.steps} == {is_large}
    assert len(view.model_dump_json()) < TOGETHER_BYTES


def test_a_long_plan_makes_no_reference_of_a_short_input() -> None:
    view, events = run_of(*[1] * 200, input={"q": 1}, metadata={"m": "x" * LARGE_BYTES})
    assert len(events[0].state) > LARGE_BYTES and view.input == {"q": 1}
    assert view.metadata == {} and view.large is not None and view.large.keys() == {"metadata"}


def test_what_looks_like_a_reference_is_a_value() -> None:
    mine = {"ref": "/v1/x", "bytes": 1, "large": {"result": {"ref": "/v1/y", "bytes": 2}}}
    view, _ = run_of(mine, input=mine)
    assert view.result == view.input == mine and view.large is None


def test_results_of_several_final_steps_are_one_value() -> None:
    small, _ = run_of("a", "b", joined=False)
    assert (small.result, small.large) == ({"s0": "a", "s1": "b"}, None)
    half = "x" * (LARGE_BYTES // 2)
    both, _ = run_of(half, half, joined=False)
    assert both.result is None and both.large is not None and [step.result for step in both.steps] == [half, half]
    assert both.large["result"].bytes == len(f'{{"s0":"{half}","s1":"{half}"}}')
    assert both.large["result"].ref == f"/v1/runs/{both.run_id}/result?as_of=3"
    one, _ = run_of("x" * LARGE_BYTES, "b", joined=False)
    assert one.result is None and [step.result for step in one.steps] == [None, "b"]


def test_a_large_error_keeps_what_readers_decide_by() -> None:
    run_id = new_id()
    error = Failure(type="E", message="m" * 2 * LARGE_BYTES, kind="invalid", traceback="t", file="a.py", line=3)
    plan = runs.Plan(steps=(runs.Step(key="s", agent="a"),))
    started = recorded(run_id, 1, runs.RunStarted(project_id=new_id(), plan=plan))
    failed = recorded(run_id, 2, runs.RunFailed(step="s", error=error))
    view = replay([started, failed])
    assert view is not None and view.error is not None and view.large is not None
    assert (view.error.type, view.error.kind, view.error.file, view.error.line) == ("E", "invalid", "a.py", 3)
    assert view.error.traceback is None and view.error.message == "m" * 2_000 + "…"
    assert held(failed, "error") == (error.model_dump(mode="json"),)
    assert held(failed, "error", "s") is None and held(started, "result", "s") is None


# --- clients ------------------------------------------------------------------------------------------------------------


async def test_a_client_reads_each_reference_once_and_looks_into_no_value() -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    async def read(path: str, query: Any) -> Any:
        asked.append((path, query))
        return path

    place = {"result": {"ref": "/v1/a?as_of=7", "bytes": 20_000}}
    mine = {"large": {"x": {"ref": "/v1/mine", "bytes": 1}}}
    run = {
        "input": mine,
        "result": None,
        "large": place,
        "plan": {"steps": [{"key": "s", "input": None}]},
        "steps": [{"key": "s", "result": None, "large": {**place, "input": {"ref": "/v1/b", "bytes": 1}}, "calls": []}],
    }
    await fill_run(run, read)
    assert asked == [("/v1/a", {"as_of": "7"}), ("/v1/b", {})]
    assert run == {
        "input": mine,
        "result": "/v1/a",
        "large": None,
        "plan": {"steps": [{"key": "s", "input": "/v1/b"}]},
        "steps": [{"key": "s", "result": "/v1/a", "large": None, "calls": []}],
    }
    await fill_run(old := {"steps": [{"key": "s", "result": 1}]}, read)
    assert old == {"steps": [{"key": "s", "result": 1}]} and len(asked) == 2, "a server that knows no references"


@pytest.mark.parametrize("ref", ["https://elsewhere/v1/a", "//elsewhere/v1/a", "/health/live", ""])
async def test_a_client_follows_no_reference_elsewhere(ref: str) -> None:
    async def read(path: str, query: Any) -> Any:
        raise AssertionError(path)

    with pytest.raises(TidelogConnectionError, match="no path of its API"):
        await value_of(ref, read)
