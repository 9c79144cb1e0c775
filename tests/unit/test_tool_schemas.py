"""Schemas of tools: a schema that cannot be checked in bounded time is refused; all others are checked by the standard."""

from typing import Any

import jsonschema
import pytest

from application import tool_schemas
from application.tool_schemas import ToolSchemas
from domain.errors import InvalidCommand
from domain.kernel import Json


def check(parameters: Json) -> None:
    ToolSchemas().check("odd", parameters, pointer="/parameters")


def arguments(parameters: Json, given: Json) -> None:
    ToolSchemas().check_arguments("odd", parameters, given)


def nested(levels: int, make: Any, inner: Json) -> Json:
    for _ in range(levels):
        inner = make(inner)
    return inner


def doubled(levels: int) -> Json:
    """A schema with 2^levels ways to its innermost part."""
    both = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i - 1}"}, {"$ref": f"#/$defs/d{i - 1}"}]} for i in range(1, levels)}
    return {"$defs": {"d0": {"type": "string"}, **both}, "$ref": f"#/$defs/d{levels - 1}"}


@pytest.mark.parametrize(
    ("parameters", "pointer", "said"),
    [
        ({"type": 7}, "/parameters", "no JSON Schema: /type: 7"),
        ({"properties": {"x": {"pattern": "(?=a)b"}}}, "/parameters/properties/x/pattern", '"(?=a)b"'),
        ({"properties": {"x": {"pattern": r"(a)\1"}}}, "/parameters/properties/x/pattern", "linear time"),
        ({"properties": {"x": {"pattern": "["}}}, "/parameters/properties/x/pattern", '"["'),
        ({"patternProperties": {"a(?!b)": {}}}, "/parameters/patternProperties", '"a(?!b)"'),
        ({"properties": {"x": {"pattern": "(\\w{1,500}x){1,200}"}}}, "/parameters/properties/x/pattern", "linear time"),
        ({"properties": {f"p{i}": {"pattern": "a"} for i in range(51)}}, "/parameters", "51 regular expressions"),
        ({"description": "x" * 70_000}, "/parameters", "bytes"),
        ({"$ref": "http://127.0.0.1:1/x"}, "/parameters", "leads out of the schema"),
        ({"$ref": "file:///etc/passwd"}, "/parameters", "leads out of the schema"),
        ({"$ref": "#/nowhere"}, "/parameters", "nowhere"),
        ({"$ref": "#"}, "/parameters", "without end"),
        ({"$defs": {"a": {"anyOf": [{}, {"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}, "/parameters", "without end"),
        (nested(400, lambda inner: {"properties": {"a": inner}}, {}), "/parameters", "deep"),
        (doubled(40), "/parameters", "places"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_cannot_be_checked_is_refused_and_says_where(parameters: Json, pointer: str, said: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        check(parameters)
    assert said in refused.value.message and refused.value.message.startswith("parameters of tool 'odd': ")
    assert (refused.value.pointer or "").startswith(pointer)


@pytest.mark.parametrize(
    ("parameters", "fits", "breaks", "pointer"),
    [
        ({"properties": {"x": {"pattern": r"^\p{L}+$"}}}, {"x": "Zürich"}, {"x": "7"}, "/x"),
        ({"properties": {"a/b": {"items": {"type": "integer"}}}}, {"a/b": [1]}, {"a/b": [1, "x"]}, "/a~1b/1"),
        ({"required": ["a"]}, {"a": None}, {}, ""),
        ({"properties": {"n": {"maximum": 10**40, "type": "integer"}}}, {"n": 10**40}, {"n": 10**400}, "/n"),
        ({"properties": {"n": {"enum": [10**300]}}}, {"n": 10**300}, {"n": 10**300 + 1}, "/n"),
        ({"$anchor": "n", "properties": {"next": {"$ref": "#n"}}, "type": "object"}, {"next": {"next": {}}}, {"next": 1}, "/next"),
        ({"$id": "x:y", "properties": {"a": {"$ref": "x:y#/$defs/i"}}, "$defs": {"i": {"maximum": 1}}}, {"a": 1}, {"a": 2}, "/a"),
        (nested(95, lambda inner: {"properties": {"a": inner}}, {"type": "integer"}),
         nested(95, lambda inner: {"a": inner}, 1), nested(95, lambda inner: {"a": inner}, "x"), "/a" * 95),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_arguments_are_checked_as_the_standard_says(parameters: Json, fits: Json, breaks: Json, pointer: str) -> None:
    if "\\p" not in str(parameters):  # unknown to Python's regular expressions
        reference = jsonschema.Draft202012Validator(parameters)
        assert reference.is_valid(fits) and not reference.is_valid(breaks)
    arguments(parameters, fits)
    with pytest.raises(InvalidCommand, match="arguments of tool 'odd'") as refused:
        arguments(parameters, breaks)
    assert refused.value.pointer == f"/arguments{pointer}"


TREE: Json = {"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}}


@pytest.mark.parametrize("both", ["anyOf", "allOf", "oneOf"])
@pytest.mark.parametrize("leaf", [1, {}])
def test_a_schema_that_refers_to_itself_twice_costs_no_power_of_the_depth(both: str, leaf: Json) -> None:
    """Sixty levels would take 10^18 steps."""
    parameters = {"type": "object", "properties": {"a": {both: [{"$ref": "#"}, {"$ref": "#"}]}}}
    deep = nested(60, lambda inner: {"a": inner}, leaf)
    if leaf == 1 or both == "oneOf":
        with pytest.raises(InvalidCommand, match="do not fit"):
            arguments(parameters, deep)
    else:
        arguments(parameters, deep)
    with pytest.raises(InvalidCommand, match="is not "):  # a shallow fault is described
        arguments(parameters, {"a": 1} if both == "allOf" else 1)


def test_a_pattern_that_backtracking_never_ends_on_is_answered() -> None:
    """Python's `re` would need 2^100,000 steps."""
    parameters = {"properties": {"x": {"pattern": "^(a+)+$"}}, "patternProperties": {"^(b+)+$": {"type": "integer"}}}
    with pytest.raises(InvalidCommand, match="does not match"):
        arguments(parameters, {"x": "a" * 100_000 + "!"})
    arguments(parameters, {"b" * 100_000 + "!": "x"})


def test_too_much_to_check_is_refused() -> None:
    parameters = {"items": {"anyOf": [{"const": i} for i in range(3_000)]}}
    arguments(parameters, [2_999] * 100)
    with pytest.raises(InvalidCommand, match="too much to check"):
        arguments(parameters, [2_999] * 100_000)


def test_what_is_kept_compiled_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_schemas, "CACHE_WEIGHT", 9)
    schemas = ToolSchemas()
    kept = [schemas.check("t", {"properties": {"x": {"pattern": f"a{i}"}}}, pointer="") for i in range(5)]
    again = [schemas.check("t", {"properties": {"x": {"pattern": f"a{i}"}}}, pointer="") for i in (4, 3, 2, 1)]
    assert again == kept[4:0:-1] and all(x is y for x, y in zip(again, kept[4:0:-1], strict=True))
    assert schemas.check("t", {"properties": {"x": {"pattern": "a0"}}}, pointer="") is not kept[0]
