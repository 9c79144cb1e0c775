"""The texts of refused requests: every fault with its place, each said once, in words of the caller."""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from api.http.conventions.errors import InvalidBody, response_to
from api.http.routes.run_bodies import StartRunBody
from application.runs.start import UnknownAgent
from application.tool_schemas import ToolSchemas
from domain.errors import InvalidCommand, InvalidState, TidelogError
from domain.kernel import Json
from tidelog.errors import api_error

ADD: Json = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def refused_arguments(parameters: Json, arguments: Json) -> InvalidCommand:
    with pytest.raises(InvalidCommand) as refused:
        ToolSchemas().check_arguments("math.add", parameters, arguments)
    return refused.value


def problem_of(error: Exception) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(bytes(response_to({"path": "/x"}, error).body))
    return document


def refused_start(body: Mapping[str, Any]) -> dict[str, Any]:
    sent = json.dumps(body).encode()
    with pytest.raises(ValidationError) as refused:
        StartRunBody.model_validate_json(sent)
    return problem_of(InvalidBody(refused.value.errors(include_url=False), sent))


def test_every_faulty_argument_is_named() -> None:
    error = refused_arguments(ADD, {"a": "x", "c": 3})
    assert sorted(error.faults) == [
        ("/arguments", '"b" is a required property'),
        ("/arguments", "Additional properties are not allowed ('c' was unexpected)"),
        ("/arguments/a", '"x" is not of type "integer"'),
    ]
    assert error.message.startswith("arguments of tool 'math.add': ")
    for told in ('"b" is a required property', "('c' was unexpected)", '/a: "x" is not of type "integer"'):
        assert told in error.message
    assert [item["detail"] for item in problem_of(error)["errors"]] == [text for _, text in error.faults]


def test_many_faulty_arguments_are_named_in_part() -> None:
    error = refused_arguments({"items": {"type": "string"}}, list(range(100)))
    assert len(error.faults) == 10
    assert '/9: 9 is not of type "string"; and more' in error.message
    assert not refused_arguments({"items": {"type": "string"}}, list(range(10))).message.endswith("and more")


@pytest.mark.parametrize(
    "error",
    [
        refused_arguments(ADD, {"a": 1, "b": 2, "c": 3}),
        refused_arguments(ADD, {"a": "x", "c": 3}),
        UnknownAgent([(0, "/agent", "no agent 'x' is registered")]),
        InvalidState("the value is at version 3", pointer="/expect"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_a_refusal_reaches_the_agent_without_a_repetition(error: TidelogError) -> None:
    document = problem_of(error)
    refusal = api_error(document["status"], document)
    assert refusal.reason == error.message
    assert str(refusal) == f"{document['status']} {error.code}: {error.message}"


def test_faults_that_the_message_does_not_have_are_added() -> None:
    document = {"detail": "/to: must be a text (and 1 more)", "errors": [
        {"pointer": "/to", "detail": "must be a text"}, {"pointer": "/key", "detail": "this field is missing"},
    ]}  # fmt: skip
    assert api_error(422, document).reason == "/to: must be a text (and 1 more) (/key this field is missing)"
    many = {"detail": "17 faults", "errors": [{"pointer": f"/{number}", "detail": "odd"} for number in range(17)]}
    assert api_error(422, many).reason.endswith("; /9 odd; and 7 more)")


GRAPH: Mapping[str, Any] = {"kind": "graph"}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"plan": {"kind": "sequential", "agents": []}}, {"/plan/agents": "at least 1 item must be given; none is given"}),
        (
            {"plan": {"kind": "sequential", "agents": ["a"] * 1_001}},
            {"/plan/agents": "at most 1,000 items may be given; 1,001 are given"},
        ),
        (
            {"plan": {"kind": "sequential", "agents": ["A b", 3]}},
            {
                "/plan/agents/0": (
                    "a name has lower-case letters, digits, _ and -, and dots between such words; a version comes after an @"
                ),
                "/plan/agents/1": "must be a text",
            },
        ),
        ({"plan": {"kind": "x"}}, {"/plan": "'kind' must be one of 'sequential', 'parallel', 'graph', not 'x'"}),
        ({"plan": {}}, {"/plan": "the field 'kind' is missing"}),
        ({"agnet": "x"}, {"/agnet": "there is no such field"}),
        ({}, {"": "give exactly one of `plan`, `agent` and `workflow`"}),
        ({"agent": "x" * 101}, {"/agent": "the text may have at most 100 characters"}),
        ({"plan": {**GRAPH, "steps": [{"agent": "b"}]}}, {"/plan/steps/0/key": "this field is missing"}),
        (
            {"plan": {**GRAPH, "steps": [{"key": "a", "agent": "b", "on_failure": "x", "timeout_s": 0}]}},
            {
                "/plan/steps/0/on_failure": "must be 'fail', 'continue' or 'compensate'",
                "/plan/steps/0/timeout_s": "must be greater than 0",
            },
        ),
        (
            {"plan": {**GRAPH, "steps": [{"key": "a", "agent": "b", "after": ["c"]}]}},
            {"/plan/steps": "step 'a' comes after 'c', which is not a step of the plan"},
        ),
        ({"plan": {**GRAPH, "steps": [{"key": "A", "agent": "b"}] * 60}}, None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_faults_of_a_start_are_told_in_plain_words(body: Mapping[str, Any], told: Mapping[str, str] | None) -> None:
    document = refused_start(body)
    found = {item["pointer"]: item["detail"] for item in document["errors"]}
    if told is not None:
        assert found == told
    assert len(found) == 1 or f"(and {59 if told is None else len(found) - 1} more)" in document["detail"]
    for noise in ("Tuple", "Value error", "Input", "validation", "Extra inputs", "String should"):
        assert noise not in json.dumps(document)


def test_a_fault_without_words_of_ours_keeps_its_text() -> None:
    faults: list[dict[str, Any]] = [
        {"type": "decimal_parsing", "loc": ("a",), "msg": "Input should be a valid decimal"},
        {"loc": ("b",), "msg": "odd"},
        {"type": "too_short", "loc": ("c",), "msg": "too short", "ctx": {"min_length": 1, "actual_length": None}},
        {"type": "greater_than", "loc": ("d",), "msg": "too early", "ctx": {"gt": date(2026, 1, 1)}},
        {"type": "less_than", "loc": ("e",), "msg": "too much"},
    ]
    told = [item["detail"] for item in problem_of(InvalidBody([{"type": "x", **fault} for fault in faults], b"{}"))["errors"]]
    assert told == ["Input should be a valid decimal", "odd", "too short", "must be greater than 2026-01-01", "too much"]
