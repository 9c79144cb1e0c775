"""What the options and the text of a slash command are for a workflow: the input of its run."""

from typing import Any

import pytest

from application.slash_commands.line import BadLine, read_line
from application.slash_commands.parameters import input_of, value_of

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "ticket": {"type": "string"},
        "size": {"type": "integer", "default": 5},
        "max_rounds": {"type": "integer"},
    },
    "required": ["text", "size"],
}


def given(text: str, parameters: Any = PARAMETERS, of_text: str | None = "text") -> dict[str, Any]:
    return input_of(read_line(text), of_text, parameters)


def refused(text: str, parameters: Any = PARAMETERS, of_text: str | None = "text") -> list[str]:
    with pytest.raises(BadLine) as error:
        given(text, parameters, of_text)
    assert error.value.message == "; ".join(told for _, told in error.value.faults)
    assert {place for place, _ in error.value.faults} == {"/text"}
    return [told for _, told in error.value.faults]


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", None, 5),
        ("-0.5", None, -0.5),
        ("true", None, True),
        ("null", None, None),
        ("T-1", None, "T-1"),
        ("", None, ""),
        ('{"a": [1]}', None, {"a": [1]}),
        ('"5"', None, "5"),
        ("5", {"type": "string"}, "5"),
        ("null", {"type": "string"}, "null"),
        ('"a"', {"type": "string"}, "a"),
        ("5", {"type": ["string", "integer"]}, 5),
        ("5", True, 5),
        ("1e400", None, "1e400"),
        ("NaN", None, "NaN"),
        ("9" * 5_000, None, "9" * 5_000),
        ("[" * 300 + "]" * 300, None, "[" * 300 + "]" * 300),
        ("12345678901234567890123", None, 12345678901234567890123),
    ],
)
def test_a_value_is_json_or_text(text: str, schema: Any, value: Any) -> None:
    found = value_of(text, schema)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/task Write notes", {"text": "Write notes"}),
        ("/task Write size=7 ticket=17", {"text": "Write", "size": 7, "ticket": "17"}),
        ("/task --max-rounds 2 Write", {"text": "Write", "max_rounds": 2}),
        ("/task text='a b'", {"text": "a b"}),
    ],
)
def test_a_line_becomes_an_input(text: str, expected: Any) -> None:
    assert given(text) == expected


def test_without_a_schema_every_option_is_taken() -> None:
    assert given("/x a=1 b-c=2", None, None) == {"a": 1, "b-c": 2}
    assert given("/x a=1", {"type": "object"}, None) == {"a": 1}
    assert given("/x a=1", True, None) == {"a": 1}
    assert given("/x a=1", {"properties": {"b": {}}, "additionalProperties": True}, None) == {"a": 1}
    assert given("/x a=1", {"properties": {"b": {}}, "additionalProperties": {"type": "integer"}}, None) == {"a": 1}


def test_every_fault_is_told_with_its_place_and_a_cure() -> None:
    assert refused("/task sice=5 text=a size=1 --size 2 and more") == [
        "/task has no parameter 'sice' (at character 7); did you mean 'size'? (a word of the text? Then put the text in quotes)",
        "'size' is given twice, the second time at character 28",
        "the text is given twice: as text=… and as 'and more'",
    ]


@pytest.mark.parametrize(
    ("text", "parameters", "of_text", "told"),
    [
        ("/task", PARAMETERS, "text", "/task needs a text: write it after the command, as in `/task Write release notes`"),
        ("/go", {"required": ["to"]}, None, "/go needs 'to': write to=VALUE"),
        (
            "/go Write",
            {"properties": {"to": {}}},
            None,
            "/go takes no text, and 'Write' is some: it takes to",
        ),
        (
            "/go zzz=1",
            {"properties": {"to": {}}},
            None,
            "/go has no parameter 'zzz' (at character 5): it takes to (a word of the text? Then put the text in quotes)",
        ),
        (
            "/go a=1",
            {"properties": {}, "additionalProperties": False},
            None,
            "/go has no parameter 'a' (at character 5): it takes no options (a word of the text? Then put the text in quotes)",
        ),
        (
            "/go zzz=1",
            {"properties": {f"long_name_{n:02}": {} for n in range(22)}},
            None,
            "/go has no parameter 'zzz' (at character 5): it takes "
            + ", ".join(f"long_name_{n:02}" for n in range(20))
            + " and 2 more (a word of the text? Then put the text in quotes)",
        ),
    ],
)
def test_a_refusal(text: str, parameters: Any, of_text: str | None, told: str) -> None:
    assert refused(text, parameters, of_text) == [told]


def test_a_value_is_no_deeper_than_an_input_may_be() -> None:
    deepest = "[" * 63 + "]" * 63
    assert given(f"/x a={deepest}", None, None)["a"] != deepest
    assert refused(f"/x a=[{deepest}]", None, None) == ["'a' at character 4: a value may be nested 63 levels deep"]
