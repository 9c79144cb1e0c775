"""What a tool declares about its calls: forms, faults with their places, and how an event holds it."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from domain.errors import InvalidCommand
from domain.tool_policy import NO_POLICY, Breaker, Compensation, Rate, ToolPolicy, faults_of_policy, policy_of
from domain.tools import RegisterTool, ToolDefinition, ToolRegistered, decide, digest_of, tool_id_of

TENANT = UUID(int=1)
WHOLE = ToolPolicy(
    breaker=Breaker(failures=3, rate=0.5), max_parallel=4, rate=Rate(calls=10, per_s=60), fallbacks=("b",),
    compensation=Compensation(tool="undo", arguments={"orderId": "result.id"}), cache_s=5,
)  # fmt: skip


def register(policy: ToolPolicy | None, *, idempotent: bool = True) -> list[Any]:
    command = RegisterTool(
        tool_id=tool_id_of(TENANT, "a"), name="a", parameters={"type": "object"}, idempotent=idempotent, policy=policy
    )
    return decide(ToolDefinition(), command)


def test_a_declaration_carries_its_policy() -> None:
    [registered] = register(WHOLE)
    assert registered.rules == WHOLE == policy_of(ToolRegistered.model_validate_json(registered.model_dump_json()).policy)


def test_an_event_holds_a_policy_as_json_data() -> None:
    assert WHOLE.said() == {
        "breaker": {"failures": 3, "rate": 0.5}, "max_parallel": 4, "rate": {"calls": 10, "per_s": 60.0}, "fallbacks": ["b"],
        "compensation": {"tool": "undo", "arguments": {"orderId": "result.id"}}, "cache_s": 5.0,
    }  # fmt: skip


def test_a_policy_that_says_nothing_is_none() -> None:
    [empty], [none] = register(ToolPolicy()), register(None)
    assert empty.policy is None and empty == none and digest_of(empty) == digest_of(none)
    assert empty.rules == NO_POLICY == policy_of(None)


def test_a_policy_changes_what_a_version_declares() -> None:
    [one], [other] = register(WHOLE), register(None)
    assert digest_of(one) != digest_of(other)


def test_fields_of_a_later_release_are_left_out() -> None:
    stored = {"max_parallel": 2, "later": 1, "breaker": {"failures": 7, "later": True}, "rate": {"calls": 1, "later": 0}}
    assert policy_of(stored) == ToolPolicy(max_parallel=2, breaker=Breaker(failures=7), rate=Rate(calls=1))


@pytest.mark.parametrize(
    ("policy", "place", "text"),
    [
        ({"fallbacks": ("b", "a")}, "/policy/fallbacks", "a tool is no fallback of itself"),
        ({"fallbacks": ("b", "b")}, "/policy/fallbacks", "a fallback is named once"),
        ({"compensation": {"tool": "a"}}, "/policy/compensation/tool", "a tool does not take its own effect back"),
        ({"breaker": {"failures": None}}, "/policy/breaker", "a breaker needs `failures` or `rate`"),
    ],
)
def test_what_does_not_fit_together_is_told_with_its_place(policy: dict[str, Any], place: str, text: str) -> None:
    given = ToolPolicy.model_validate(policy)
    assert list(faults_of_policy("a", True, given)) == [(place, text)]
    with pytest.raises(InvalidCommand) as refused:
        register(given)
    assert (refused.value.pointer, refused.value.faults) == (place, ((place, text),))


def test_only_results_of_idempotent_tools_are_kept() -> None:
    given = ToolPolicy(cache_s=1)
    assert list(faults_of_policy("a", True, given)) == []
    [fault] = faults_of_policy("a", False, given)
    assert fault == ("/policy/cache_s", "only results of an idempotent tool may answer later calls")


@pytest.mark.parametrize(
    "policy",
    [
        {"max_parallel": 0}, {"max_parallel": 10_001}, {"rate": {"calls": 0}}, {"rate": {"calls": 1_000_001}}, {"cache_s": 0},
        {"rate": {"calls": 1, "per_s": 0}}, {"fallbacks": [f"t{n}" for n in range(6)]}, {"breaker": {"failures": 0}},
        {"breaker": {"rate": 0}}, {"breaker": {"rate": 1.01}}, {"breaker": {"open_s": float("inf")}}, {"breaker": {"probes": 0}},
        {"compensation": {"tool": "b", "arguments": {"x": ""}}}, {"compensation": {"tool": "b", "arguments": {"x": "a" * 2_001}}},
        {"unknown": 1}, {"compensation": {"tool": "b", "arguments": {f"a{n}": "1" for n in range(51)}}},
    ],
)  # fmt: skip
def test_values_out_of_their_bounds_are_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ToolPolicy.model_validate(policy)
