"""What taints a run, and what does not; chains that wait for the approval of their call."""

from typing import Any
from uuid import UUID

import pytest

from domain import chains, runs
from domain.approval_rules import ApprovalCheck, BoundRule, SeenCall
from domain.chains import CancelChain, ChainReleased, ChainStarted, ReleaseChain, StartChain
from domain.errors import NotFound
from domain.kernel import Event
from domain.runs import CheckUntainted, GotTainted, RunTainted, StartRun, TaintRun
from tests.kit import Given, given
from tests.kit.engine import FUNCTIONS

RUN, CALL, PROJECT, PARENT = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(4))
TAINT = TaintRun(run_id=RUN, invocation_id=CALL, key="web#1")
ABOVE = runs.Parent(run_id=PARENT, step="s", part=0)


def run(**more: Any) -> Given:
    return given(runs.DECIDER).after(StartRun(run_id=RUN, project_id=PROJECT, plan=runs.sequential(("alpha",)), **more))


def test_a_run_is_tainted_once() -> None:
    run().when(TAINT).then(RunTainted(invocation_id=CALL, key="web#1"))
    run(parent=ABOVE).when(TAINT).then(RunTainted(invocation_id=CALL, key="web#1", parent=ABOVE))
    tainted = run().after(TAINT)
    assert tainted.state.tainted and not run().state.tainted
    tainted.when(TAINT).then()
    given(runs.DECIDER).when(TAINT).then()


def test_the_end_of_a_run_is_its_last_event() -> None:
    over = run().after(runs.CancelRun(run_id=RUN))
    over.when(TAINT).then()
    goes_on = TAINT.model_copy(update={"goes_on": True})
    over.when(goes_on).then(RunTainted(invocation_id=CALL, key="web#1"))
    given(runs.DECIDER).when(goes_on).then()


def test_a_call_relies_on_a_run_without_taint() -> None:
    check = CheckUntainted(run_id=RUN)
    run().when(check).then()
    run().after(TAINT).when(check).refused(GotTainted, "^the run has got untrusted output meanwhile$")


def test_a_run_that_begins_tainted_says_so_in_a_version_of_its_own() -> None:
    begin = StartRun(run_id=RUN, project_id=PROJECT, plan=runs.sequential(("a",)))
    [started, *_] = given(runs.DECIDER).when(begin.model_copy(update={"tainted": True})).events()
    assert isinstance(started, runs.RunStarted) and started.tainted and started.stored_version == 4
    assert run(tainted=True).state.tainted
    [plain, *_] = given(runs.DECIDER).when(begin).events()
    assert plain.stored_version == 1
    for kind, tainted in (("webhook", True), ("trigger", False), ("schedule", False)):
        assert run(origin=runs.Origin(kind=kind, name="o")).state.tainted is tainted  # type: ignore[arg-type]


# --- chains ---------------------------------------------------------------------------------------------------------------------

PLAN = {"steps": [{"tool": "one", "arguments": {"n": "arguments.n"}}]}
TOOL = {"version": "1", "idempotent": True, "timeout_s": 1.0, "max_attempts": 1, "reconcile_timeout_s": None, "parameters": {}}


def start(tool: dict[str, Any] | None = None, **more: Any) -> StartChain:
    return StartChain(
        chain_id=RUN,
        run_id=RUN,
        invocation_id=CALL,
        tool="both",
        arguments={"n": 1},
        plan=PLAN,
        tools={"one": tool or TOOL},
        **more,
    )


def after(*commands: Any) -> tuple[chains.Chain, list[Event]]:
    state, events = chains.Chain(), list[Event]()
    for command in commands:
        events = chains.decide(state, command, FUNCTIONS)
        for event in events:
            state = chains.evolve(state, event)  # type: ignore[arg-type]
    return state, events


def test_a_held_chain_begins_when_it_is_released_and_once() -> None:
    state, [started] = after(start(held=True))
    assert isinstance(started, ChainStarted) and started.held and state.pending is None
    _, [released, step] = after(start(held=True), ReleaseChain(chain_id=RUN))
    assert released == ChainReleased() and isinstance(step, chains.ChainStepRequested) and step.arguments == {"n": 1}
    _, [released, step] = after(start(held=True), ReleaseChain(chain_id=RUN, arguments={"n": 2}))
    assert (
        released == ChainReleased(arguments={"n": 2}) and isinstance(step, chains.ChainStepRequested) and step.arguments == {"n": 2}
    )
    assert after(start(held=True), ReleaseChain(chain_id=RUN), ReleaseChain(chain_id=RUN))[1] == []
    assert after(start(), ReleaseChain(chain_id=RUN))[1] == []
    assert after(start(held=True), CancelChain(chain_id=RUN), ReleaseChain(chain_id=RUN))[1] == []
    with pytest.raises(NotFound):
        after(ReleaseChain(chain_id=RUN))


def test_a_step_says_what_its_approval_must_be_with_the_arguments_that_it_gets() -> None:
    check = ApprovalCheck(rules=(BoundRule(when="arguments.n > 0"),), seen=SeenCall(tool="one")).model_dump(mode="json")
    undo = {"compensation": {"tool": "undo", "idempotent": True, "timeout_s": 1, "retry": {}}}
    _, [_, step] = after(start({**TOOL, "approval": check, "options": undo}))
    assert isinstance(step, chains.ChainStepRequested)
    assert step.options["compensation"] == undo["compensation"]
    assert step.options["approval"]["because"] == [{"expression": "arguments.n > 0", "saw": {"arguments.n": 1}}]
    free = ApprovalCheck(rules=(BoundRule(when="arguments.n > 1"),), seen=SeenCall(tool="one")).model_dump(mode="json")
    for tool, options in (({**TOOL, "approval": free}, None), ({**TOOL, "approval": free, "options": undo}, undo), (TOOL, None)):
        _, [_, step] = after(start(tool))
        assert isinstance(step, chains.ChainStepRequested) and step.options == options
