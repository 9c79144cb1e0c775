"""Rules of chains: what each command brings about, what is mapped, and what a failure says."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from adapters.expressions import CelExpressions
from application.engine.sagas.reactions import ReactionCause
from application.functions import RuleFunctions
from application.sagas.chains import on_step_requested
from domain import chains
from domain.chain_plans import ChainPlan, fault_of_names, faults_of, kept_by
from domain.chains import (
    CancelChain,
    Chain,
    ChainCancelled,
    ChainCompleted,
    ChainFailed,
    ChainStarted,
    ChainStepFinished,
    ChainStepRequested,
    ChainStepSkipped,
    FinishChainStep,
    StartChain,
    chain_id_of,
)
from domain.errors import NotFound
from domain.failures import Failure
from domain.kernel import Command, Evaluated, Event, Json, Spent, derive_id

CHAIN, RUN, CALL = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(3))
FUNCTIONS = RuleFunctions(CelExpressions())
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {
    "version": "2", "idempotent": False, "timeout_s": 9.0, "max_attempts": 4, "reconcile_timeout_s": 3.0, "parameters": True,
}  # fmt: skip
TOOLS: dict[str, Any] = {name: TOOL for name in "abc"} | {"town": {**TOOL, "parameters": CITY}}


def start(*steps: Mapping[str, Json], result: str | None = None, kept: str = "abc", **arguments: Json) -> StartChain:
    plan = {"steps": list(steps), "result": result}
    return StartChain(
        chain_id=CHAIN, run_id=RUN, invocation_id=CALL, tool="chain", tool_version="7", arguments=arguments, plan=plan,
        kept=tuple(kept), tools=TOOLS, priority="high", on_behalf_of="user:ada",
    )  # fmt: skip


def decided(*commands: Command) -> tuple[Chain, list[Event]]:
    """The state after the commands, and the events of the last one."""
    chain, events = Chain(), []
    for command in commands:
        events = chains.DECIDER.events(chain, command, FUNCTIONS)
        for event in events:
            chain = chains.DECIDER.evolve(chain, event)
    return chain, events


def finish(step: str, result: Json = None, error: Failure | None = None) -> FinishChainStep:
    return FinishChainStep(chain_id=CHAIN, invocation_id=derive_id(CHAIN, f"step:{step}"), result=result, error=error)


def requested(step: str, tool: str | None = None, **arguments: Json) -> ChainStepRequested:
    return ChainStepRequested(
        run_id=RUN, step=step, tool=tool or step, tool_version="2", invocation_id=derive_id(CHAIN, f"step:{step}"),
        arguments=arguments, idempotent=False, timeout_s=9.0, max_attempts=4, reconcile_timeout_s=3.0, priority="high",
        on_behalf_of="user:ada",
    )  # fmt: skip


def failed(message: str, step: str | None, type: str = "ChainMappingError") -> ChainFailed:
    return ChainFailed(invocation_id=CALL, step=step, error=Failure.model_validate({"type": type, "message": message}))


def test_a_chain_begins_with_its_first_step() -> None:
    command = start({"tool": "a", "arguments": {"x": "arguments.n + 1"}}, n=1)
    chain, events = decided(command)
    assert events == [
        ChainStarted(
            run_id=RUN, invocation_id=CALL, tool="chain", tool_version="7", arguments={"n": 1}, plan=command.plan,
            kept=("a", "b", "c"), tools=TOOLS, priority="high", on_behalf_of="user:ada",
        ),
        requested("a", x=2),
    ]  # fmt: skip
    assert (chain.status, chain.next, chain.pending) == ("running", 0, derive_id(CHAIN, "step:a"))
    assert decided(command, command)[1] == [], "a repeat"


def test_results_go_into_the_arguments_of_later_steps() -> None:
    steps: list[dict[str, Json]] = [
        {"name": "a", "tool": "b", "arguments": {"x": "arguments.n"}},
        {"tool": "c", "arguments": {"y": "steps.a.z * 2", "all": "steps"}},
    ]
    _, events = decided(start(*steps, n=5), finish("a", {"z": 4}))
    assert events == [
        ChainStepFinished(step="a", invocation_id=derive_id(CHAIN, "step:a"), result={"z": 4}),
        requested("c", y=8, all={"a": {"z": 4}}),
    ]
    chain, events = decided(start(*steps, n=5), finish("a", {"z": 4}), finish("c", "end"))
    assert events[1:] == [ChainCompleted(invocation_id=CALL, result="end")]
    assert (chain.status, chain.pending, chain.next) == ("completed", None, 2)
    assert decided(start(*steps, n=5), finish("a", {"z": 4}), finish("c", "end"), finish("c", "again"))[1] == []


def test_results_that_nothing_names_are_not_kept() -> None:
    chain, events = decided(start({"tool": "a"}, {"tool": "b"}, kept="b"), finish("a", "large"))
    assert events[0] == ChainStepFinished(step="a", invocation_id=derive_id(CHAIN, "step:a"), result=None)
    assert dict(chain.results) == {}


def test_the_result_of_a_chain_can_be_an_expression() -> None:
    steps: list[dict[str, Json]] = [{"tool": "a"}, {"tool": "b", "when": "has(steps.c)"}]
    _, events = decided(start(*steps, result="{'sum': steps.a + arguments.n, 'b': has(steps.b)}", n=1), finish("a", 2))
    assert events[1:] == [
        ChainStepSkipped(step="b", condition="has(steps.c)", value=False),
        ChainCompleted(invocation_id=CALL, result={"sum": 3, "b": False}),
    ]
    _, events = decided(start(*steps), finish("a", 2))
    assert events[-1] == ChainCompleted(invocation_id=CALL, result=2), "of the last step that was not skipped"
    _, events = decided(start({"tool": "a", "when": "false"}))
    assert events[1:] == [
        ChainStepSkipped(step="a", condition="false"), ChainCompleted(invocation_id=CALL, result=None)
    ]  # fmt: skip


def test_a_step_whose_condition_is_true_is_called() -> None:
    steps: list[dict[str, Json]] = [
        {"tool": "a", "when": "arguments.n > 7"}, {"tool": "b", "when": "arguments.n > 1", "arguments": {"x": "arguments.n"}},
    ]  # fmt: skip
    chain, events = decided(start(*steps, n=5))
    assert events[1:] == [ChainStepSkipped(step="a", condition="arguments.n > 7"), requested("b", x=5)]
    assert chain.next == 1


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"tool": "a", "when": "arguments.m"}, '`when`: Key not found in map : "m"'),
        ({"tool": "a", "when": "arguments.n"}, "`when` is neither true nor false"),
        ({"tool": "a", "arguments": {"x": "1", "y": "arguments.n + 'a'"}}, "argument 'y': No matching overloads"),
        (
            {"tool": "town", "arguments": {"city": "arguments.n"}},
            "its arguments do not fit the tool 'town': /city: 1 is not",
        ),
        ({"tool": "town"}, "its arguments do not fit the tool 'town': \"city\" is a required property"),
        ({"tool": "a", "arguments": {"x": "arguments.long", "y": "arguments.long"}}, "its arguments are too large: 240,0"),
        ({"tool": "a", "arguments": {"x": "arguments.deep"}}, "its arguments are nested more than 64 levels deep"),
    ],
)
def test_a_step_that_cannot_begin_fails_the_chain(step: dict[str, Json], why: str) -> None:
    deep: Json = 1
    for _ in range(64):
        deep = [deep]
    chain, events = decided(start({"name": "c", **step}, n=1, long="x" * 120_000, deep=deep))
    assert chain.status == "failed"
    last = events[-1]
    assert isinstance(last, ChainFailed)
    assert (last.invocation_id, last.step, last.error.type, last.error.kind) == (CALL, "c", "ChainMappingError", "permanent")
    assert last.error.message.startswith(f"the step 'c' (tool '{step['tool']}') cannot begin: {why}"), last.error.message


def test_a_result_that_cannot_be_made_fails_the_chain() -> None:
    _, events = decided(start({"tool": "a"}, result="steps.a.missing"), finish("a", {}))
    assert events[1:] == [failed("the result of the chain 'chain': Key not found in map : \"missing\"", None)]
    _, events = decided(start({"tool": "a"}, result="[steps.a, steps.a]"), finish("a", "x" * 150_000))
    assert events[1:] == [
        failed("the result of the chain 'chain' is too large: 300,007 bytes of JSON, a chain can pass on 200,000", None)
    ]
    _, events = decided(start({"tool": "a"}), finish("a", "x" * 200_000))
    assert events == [
        failed("the result of the step 'a' (tool 'a') is too large: 200,002 bytes of JSON, a chain can pass on 200,000", "a")
    ]
    assert decided(start({"tool": "a"}, {"tool": "b"}, kept="b"), finish("a", "x" * 200_000))[0].status == "running"
    assert decided(start({"tool": "a"}), finish("a", "x" * 199_998))[0].status == "completed"


def test_a_failed_step_fails_the_chain_and_is_named() -> None:
    error = Failure(type="HTTPError", message="503", kind="transient", retry_after_s=2)
    chain, events = decided(start({"name": "first", "tool": "a"}, {"tool": "b"}), finish("first", error=error))
    why = Failure(type="ChainStepFailed", message="the step 'first' (tool 'a') failed: 503", kind="transient")
    assert events == [ChainFailed(invocation_id=CALL, step="first", error=why)]
    assert (chain.status, chain.pending) == ("failed", None)
    long = Failure(type="E", message="x" * 20_000)
    [event] = decided(start({"tool": "a"}), finish("a", error=long))[1]
    assert isinstance(event, ChainFailed)
    assert len(event.error.message) == 10_000


def test_only_the_step_under_way_can_finish() -> None:
    began = start({"tool": "a"}, {"tool": "b"})
    assert decided(began, finish("b"))[1] == []
    assert decided(began, finish("a"), finish("a"))[1] == []


def test_a_cancelled_chain_gives_its_step_up() -> None:
    cancel = CancelChain(chain_id=CHAIN, reason="enough")
    chain, events = decided(start({"tool": "a"}), cancel)
    assert events == [ChainCancelled(reason="enough", abandoned=(derive_id(CHAIN, "step:a"),))]
    assert (chain.status, chain.pending) == ("cancelled", None)
    for late in (cancel, finish("a", 1)):
        assert decided(start({"tool": "a"}), cancel, late)[1] == []
    for command in (cancel, finish("a")):
        with pytest.raises(NotFound, match=f"there is no chain {CHAIN}"):
            decided(command)


def test_a_step_that_is_a_chain_gets_what_it_needs() -> None:
    inner = {"steps": [{"tool": "a"}]}
    command = start({"tool": "inner", "arguments": {"x": "1"}})
    command = command.model_copy(update={"tools": {**TOOLS, "inner": {**TOOL, "plan": inner, "kept": ["a"]}}})
    _, [_, step] = decided(command)
    assert isinstance(step, ChainStepRequested)
    assert step.chain == {"plan": inner, "kept": ["a"], "tools": command.tools}


def test_a_step_is_requested_with_the_options_of_its_tool() -> None:
    command = start({"tool": "a"}).model_copy(update={"tools": {"a": {**TOOL, "options": {"cacheable": True}}}})
    _, [_, step] = decided(command)
    assert isinstance(step, ChainStepRequested)
    assert step.options == {"cacheable": True}
    cause = ReactionCause(CALL, CHAIN, 2, RUN, step.TOPIC, RUN)
    plain, chained = step.model_copy(update={"options": None}), step.model_copy(update={"options": {"chain_id": CALL}})
    assert [on_step_requested(each, cause)[0].chain_id for each in (plain, chained)] == [None, CALL]  # type: ignore[union-attr]


def test_the_expressions_of_a_decision_are_bounded_together() -> None:
    class Noting(RuleFunctions):
        def evaluate(self, expression: str, values: Mapping[str, Json], spent: Spent | None = None) -> Evaluated:
            assert spent is not None
            spent.units += 1
            units.append(spent.units)
            return super().evaluate(expression, values, Spent())

    units: list[float] = []
    functions = Noting(CelExpressions())
    skipped: dict[str, Json] = {"tool": "a", "when": "false"}
    chains.decide(Chain(), start(skipped, {"tool": "b", "arguments": {"x": "1", "y": "2"}, "when": "true"}), functions)
    assert units == [1, 2, 3, 4]
    units.clear()
    chains.decide(Chain(), start(skipped, result="1"), functions)
    assert units == [1, 2]


def test_rules_without_functions_fail_what_has_an_expression() -> None:
    events = chains.DECIDER.decide(Chain(), start({"tool": "a", "arguments": {"x": "1"}}))
    assert events[1:] == [failed("the step 'a' (tool 'a') cannot begin: argument 'x': no expression can be evaluated here", "a")]
    assert isinstance(chains.DECIDER.decide(Chain(), start({"tool": "a"}))[1], ChainStepRequested)


def test_the_id_of_a_chain_follows_from_its_call() -> None:
    assert chain_id_of(CALL) == derive_id(CALL, "chain")


# --- plans ------------------------------------------------------------------------------------------------------------------


def plan(*steps: dict[str, Json], result: str | None = None) -> ChainPlan:
    return ChainPlan.model_validate({"steps": list(steps), "result": result})


def test_faults_of_a_plan() -> None:
    assert list(faults_of("x", plan({"tool": "a"}, {"tool": "b"}))) == []
    assert list(faults_of("a", plan({"tool": "b"}, {"tool": "a"}))) == [("/steps/1/tool", "a chain does not contain itself")]
    assert list(faults_of("x", plan({"tool": "a"}, {"tool": "a"}, {"name": "a", "tool": "b"}))) == [
        ("/steps/1/tool", "another step is named 'a' already: each has a `name` of its own"),
        ("/steps/2/name", "another step is named 'a' already: each has a `name` of its own"),
    ]
    large = [{"name": f"s{number}", "tool": "a", "arguments": {"x": "x" * 1_900}} for number in range(36)]
    assert list(faults_of("x", plan(*large))) == [("", "a chain has at most 65,536 bytes")]
    assert list(faults_of("x", plan(*large[:30]))) == []
    fitting = large[:33]
    rest = 65_536 - len(plan(*fitting, {"tool": "b", "when": "x"}).model_dump_json())
    assert 0 < rest < 2_000
    assert list(faults_of("x", plan(*fitting, {"tool": "b", "when": "x" * (rest + 1)}))) == []
    assert list(faults_of("x", plan(*fitting, {"tool": "b", "when": "x" * (rest + 2)}))) != []


def test_expressions_of_a_step_have_places() -> None:
    step = plan({"tool": "a", "arguments": {"x/y~z": "1", "b": "2"}, "when": "true"}).steps[0]
    assert list(step.expressions()) == [("/arguments/x~1y~0z", "1"), ("/arguments/b", "2"), ("/when", "true")]
    assert list(plan({"tool": "a"}).steps[0].expressions()) == []


def test_an_expression_names_steps_that_went_before() -> None:
    chain = plan({"tool": "a"}, {"name": "n", "tool": "b"}, {"tool": "c"})
    assert fault_of_names(chain, 2, frozenset({"steps.a", "steps.n", "steps", "arguments.c"})) is None
    assert fault_of_names(chain, 1, frozenset({"steps.n"})) == "the step 'n' comes later"
    assert fault_of_names(chain, 1, frozenset({"steps.b"})) == "there is no step 'b'"


def test_what_is_kept_of_a_chain() -> None:
    last = plan({"tool": "a"}, {"tool": "b"}, {"tool": "c", "when": "true"}, {"tool": "d", "when": "true"})
    assert kept_by(last, frozenset()) == ("b", "c", "d"), "each may be the last one that is not skipped"
    assert kept_by(last, frozenset({"steps.a", "arguments.x"})) == ("a", "b", "c", "d")
    said = plan({"tool": "a"}, {"tool": "b"}, result="1")
    assert kept_by(said, frozenset({"arguments.steps"})) == ()
    assert kept_by(said, frozenset({"steps.b"})) == ("b",)
    assert kept_by(said, frozenset({"steps"})) == ("a", "b")
