"""JSON values: depth and numbers as the door counts them, and reading values deeper than the parser accepts."""

import json
import math
from typing import Any

import pydantic_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from domain import deep_json, values
from domain.agent_runs import AgentRunCompleted, StepRecorded
from domain.context import ContextValueSet
from domain.kernel import Json
from domain.registry import REGISTRY
from domain.runs import Plan, RunStarted, Step
from tests.integration.system_kit import new_id

MARKS = '[]{}"\\,: a1'
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.text(MARKS),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(MARKS), inside, max_size=4),
    max_leaves=30,
)


def nested(levels: int, inside: Json = 1, shape: str = "[") -> Json:
    """`shape` is repeated: `[{` alternates arrays and objects."""
    value = inside
    for level in reversed(range(levels)):
        value = [value] if shape[level % len(shape)] == "[" else {"k": value}
    return value


def depth_of(value: Json) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


@settings(max_examples=500)
@given(documents, st.integers(0, 8), st.booleans(), st.sampled_from([None, 1]))
def test_depth_is_counted_without_parsing(document: Json, limit: int, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert values.is_deeper(text, limit) == (depth_of(document) > limit)


@given(st.integers(1, 250), st.sampled_from(["[", "{", "[{", "{[["]), st.sampled_from([1, [], {}, "]]]", [[], {"a": "}"}]]))
def test_depth_at_the_limits(levels: int, shape: str, inside: Json) -> None:
    value = nested(levels, inside, shape)
    for limit in (values.MAX_DEPTH, values.MAX_STORED_DEPTH):
        over = depth_of(value) > limit
        assert values.is_deeper(json.dumps(value).encode(), limit) == over
        recorded = StepRecorded(attempt=1, key="k", kind="step", result=value)
        assert values.too_deep(recorded, limit) == (("result",) if over else None)


def test_each_value_of_an_event_has_its_own_depth() -> None:
    """The event around the value does not count. The error names the value that is too deep."""
    full, over = nested(64), nested(65)
    steps = (Step(key="a", agent="x", input=full), Step(key="b", agent="x", input=over))
    started = RunStarted(project_id=new_id(), plan=Plan(steps=steps), input=full, metadata={"m": nested(63)})
    assert values.too_deep(started, 64) == ("plan", "steps", 1, "input")
    assert values.too_deep(started.model_copy(update={"plan": Plan(steps=steps[:1])}), 64) is None
    assert values.too_deep(RunStarted(project_id=new_id(), plan=Plan(steps=steps[:1]), metadata={"m": full}), 64) == ("metadata",)


@given(documents, st.sampled_from([math.inf, -math.inf, math.nan]))
def test_a_number_that_is_not_finite_is_found(document: Json, number: float) -> None:
    assert values.not_finite(document) is None
    assert values.not_finite([document, {"a/b": [0, number]}]) == (1, "a/b", 1)


NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,4})?", fullmatch=True, alphabet=st.characters(codec="ascii")
)


@settings(max_examples=500)
@given(NUMBERS | st.sampled_from(["NaN", "Infinity", "-Infinity", "9" * 310 + ".5", "9" * 250 + "e99", "1" + "0" * 400]), documents)
def test_what_is_surely_finite_is_finite(number: str, document: Json) -> None:
    text = f'{{"a": {json.dumps(document)}, "b": [{number}, 1]}}'.encode()
    finite = values.not_finite(pydantic_core.from_json(text)) is None
    assert finite or not values.is_surely_finite(text)
    assert values.is_surely_finite(b'{"a": [1, 2.5, -3e-4, 1e99, "hello"], "b": true}')


@settings(max_examples=300)
@given(documents, st.sampled_from([None, 2]))
def test_the_parser_for_deep_texts_gives_what_the_other_gives(document: Json, indent: int | None) -> None:
    text = json.dumps(document, indent=indent)
    assert deep_json.loads(text) == pydantic_core.from_json(text) == document
    assert deep_json.loads(text.encode()) == document


@settings(max_examples=500)
@given(st.text('[]{}",:1 tnul-\\', max_size=14))
def test_and_refuses_what_the_other_refuses(text: str) -> None:
    def parsed(read: Any) -> Json:
        try:
            return "ok", read(text)
        except ValueError:
            return "refused", None

    assert parsed(deep_json.loads) == parsed(pydantic_core.from_json)


@pytest.mark.parametrize("text", ["[}", "[1}", "{]", '{"a":1]', "[[1]}", '{"a":{]}', "[1,]", '{"a":1,}', "[,1]", "[]]", "1 2"])
def test_a_bracket_ends_what_it_began(text: str) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        deep_json.loads(text)


@pytest.mark.parametrize("levels", [1, 199, 200, 203, 254, 500, 990, 1_000])
@pytest.mark.parametrize("shape", ["[", "{", "[{"])
def test_what_is_stored_is_read_up_to_a_thousand_levels(levels: int, shape: str) -> None:
    big = 123456789012345678901234567890
    text = b"".join([b"[" if shape[n % len(shape)] == "[" else b'{"k":' for n in range(levels)]) + str(big).encode()
    text += b"".join([b"]" if shape[n % len(shape)] == "[" else b"}" for n in reversed(range(levels))])
    state = b'{"run_id":"%s","step":"s","attempt":1,"result":%s}' % (str(new_id()).encode(), text)
    event = REGISTRY.decode(AgentRunCompleted.TOPIC, 1, state)
    assert isinstance(event, AgentRunCompleted) and event.step == "s"
    value = event.result
    for _ in range(levels):
        [value] = value if isinstance(value, list) else value.values()
    assert value == big


def test_deeper_than_that_or_broken_is_an_error_and_not_a_crash() -> None:
    deep = b"[" * 1_025 + b"]" * 1_025
    for state in (b'{"value":%s}' % deep, b"{", b'{"value":%s}' % (b"[" * 300), b"", b"\xff"):
        with pytest.raises(ValueError):
            REGISTRY.decode(ContextValueSet.TOPIC, 1, state)


def test_a_deep_value_that_does_not_fit_its_class_says_so() -> None:
    with pytest.raises(ValueError, match="does not fit its class"):
        REGISTRY.decode(ContextValueSet.TOPIC, 1, b'{"value":%s}' % (b"[" * 300 + b"]" * 300))


def test_what_an_event_can_hold_is_read_again() -> None:
    """The writer ends at 254 levels, the event's own among them."""
    event = ContextValueSet(run_id=new_id(), agent_run_id=new_id(), name="n", value=nested(253), value_version=1)
    assert REGISTRY.decode(event.TOPIC, 1, REGISTRY.encode(event)) == event


def test_only_depth_is_beyond_the_parser() -> None:
    for text, beyond in ((b"[" * 300, True), (b"{", False), (b'{"x":1}', False), (b"[1]", False)):
        with pytest.raises(ValidationError) as caught:
            ContextValueSet.model_validate_json(text)
        assert values.is_beyond_parser(caught.value) == beyond


class Kept(BaseModel):
    value: Json


def test_a_model_is_read_as_deep_as_a_value() -> None:
    for levels in (1, 199, 250, 990):
        text = b'{"value":%s1%s}' % (b"[" * levels, b"]" * levels)
        assert depth_of_chain(values.read_model(Kept, text).value) == levels
    for broken in (b'{"value":', b'{"other":1}', b'{"value":%s}' % (b"[" * 300)):
        with pytest.raises(ValueError):
            values.read_model(Kept, broken)
    with pytest.raises(ValidationError, match="Field required"):
        values.read_model(Kept, b"{}")


def depth_of_chain(value: Json) -> int:
    """The depth of lists with one item each, counted without recursion."""
    levels = 0
    while isinstance(value, list):
        [value] = value
        levels += 1
    return levels
