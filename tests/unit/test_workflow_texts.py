"""Workflows as people write them: YAML that is the same object, short forms of agents, and what differs between two of them."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from application.plans.spelling import spelled_plan
from application.workflows.differences import differences
from application.workflows.written import read_workflow, write_plan, write_workflow
from application.workflows.yaml_text import MAX_BYTES, MAX_DEPTH, YamlFault, dump, dump_part, load, load_with_places
from domain.workflows import WorkflowDefinition

HARD = [
    "no", "Yes", "1e3", "0123", "0x1F", "0o7", "1_000", "12:30", "2026-01-01", "~", "null", "true", "", ".inf", "-.INF", ".nan",
    "9" * 400, "1e999", "=", "<<", "y", "a\nb", "a\n\nb\n", "a\n\n", " a\nb", "a\n b", "\n",
    "a \nb", "a\t\nb", "\tx\ny", "- a\n- b",
    "a: b\nc: d", "# x\ny", "---\nx", "...\nx", "%a\nb", "😀\n😀", "a\rb\nc", "a\x85b\nc", "a\u2028b", "\ufeffa", "?", "?a", ": ",
    "a: b", "a #b", "@a", "`a", "!x", "&a", "*a", "[a", "{a", "'a", '"a', "|", ">", "%", "steps.b.status == 'failed'",
    "\x07", "key " * 400,
]  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=12)
TEXTS = TEXT | st.sampled_from(HARD) | st.lists(st.sampled_from(HARD), max_size=3).map("".join)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=10)


@settings(max_examples=300)
@given(JSON)
@example({text: text for text in HARD})
@example([HARD])
def test_what_is_written_is_read_again_without_loss(value: Any) -> None:
    text = dump(value)
    assert repr(load(text)) == repr(value)
    assert repr(load(text.encode())) == repr(value)
    assert repr(load("\ufeff" + text)) == repr(value)


def test_a_workflow_is_easy_to_read() -> None:
    text = dump(
        {
            "name": "digest",
            "description": "Reads.\n\nWrites.\n",
            "few": [1, 2],
            "none": [],
            "plan": {"steps": [{"key": "a", "on": "no"}]},
        }
    )
    assert text == (
        "name: digest\ndescription: |\n  Reads.\n\n  Writes.\nfew: [1, 2]\nnone: []\n"
        'plan:\n  steps:\n    - key: a\n      "on": "no"\n'
    )
    long = {"l": ["x" * 30] * 3, "m": [[1]], "t": ["a\nb"]}
    assert dump(long) == "l:\n" + f"  - {'x' * 30}\n" * 3 + "m:\n  - [1]\nt:\n  - |-\n    a\n    b\n"
    assert [dump_part(value) for value in (3, "no", {}, "a\nb", {"a": 1})] == ["3\n", '"no"\n', "{}\n", "|-\n  a\n  b\n", "a: 1\n"]


def test_only_what_json_has_is_read_and_as_yaml_1_2_says() -> None:
    text = "[no, 2026-01-01, 0123, 1e3, -1.5, 0x1F, 0o17, ~, null, true, False, 1_000, 12:30, 'x', \"\\u263a\", +3, .5, <<]"
    assert load(text) == [
        "no", "2026-01-01", 123, 1000.0, -1.5, 31, 15, None, None, True, False, "1_000", "12:30", "x", "☺", 3, 0.5, "<<",
    ]  # fmt: skip
    assert load('{"a": {"b": [1, 2.5, null]}}') == {"a": {"b": [1, 2.5, None]}}, "JSON is YAML"
    assert load("%YAML 1.2\n---\na: >\n  b\n  c\n...\n") == {"a": "b c\n"}
    assert load("a:\n") == {"a": None}


OF_PYTHON = "tag:yaml.org,2002:python/object:os.system"
QUOTED = "a text that begins with ! stands in quotes"


@pytest.mark.parametrize(
    ("text", "where", "told"),
    [
        ("a: &x [1]\nb: *x", (1, 4), "anchors (&x) are not allowed"),
        ("a: *x", (1, 4), "aliases (*x) are not allowed: write the value out"),
        ("- !!python/object:os.system x", (1, 3), f"tags ({OF_PYTHON}) are not allowed: {QUOTED}"),
        ("a:\n  - !mine x", (2, 5), f"tags (!mine) are not allowed: {QUOTED}"),
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3", (5, 3), "the key 'c' stands twice here, in line 3 first"),
        ("1: x", (1, 1), "a key is a text: put '1' in quotes"),
        ("? [a]\n: x", (1, 3), "a key is a text: put it in quotes"),
        ("%YAML 1.1\n---\na: no", (2, 1), "a text of YAML 1.2 without directives is expected"),
        ("a: 1\n---\nb: 2", (2, 1), "a second document begins here; one is allowed"),
        ("", (1, 1), "the text is empty"),
        ("# nothing", (1, 1), "the text is empty"),
        ("a: .inf", (1, 4), "the number is not finite: JSON has no NaN or infinity; put a text in quotes"),
        ("a: -.INF", (1, 4), "the number is not finite: JSON has no NaN or infinity; put a text in quotes"),
        ("a: 1e999", (1, 4), "the number is not finite: a double ends at 1.8e308"),
        ("a: " + "9" * 301, (1, 4), "a number has 300 characters at most; put a text in quotes"),
        ("a: x\x00", (1, 5), "the character U+0000 is not allowed"),
        ("a:\nb: \x07", (2, 4), "the character U+0007 is not allowed"),
        ('a: "\\0"', (1, 4), "a text must not contain a NUL character"),
        ('a: "\\ud800"', (1, 4), "half of a surrogate pair is no character"),
        ("a: [1, 2", (1, 9), "while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("a:\n\tb: 1", (2, 1), "while scanning for the next token, found character '\\t' that cannot start any token"),
        ("[" * (MAX_DEPTH + 1), (1, MAX_DEPTH + 1), "a value may be nested 64 levels deep, no deeper"),
        (b"a: b\nc: \xff", (2, 4), "the text is not UTF-8"),
        ("x" * (MAX_BYTES + 1), None, "the text has 262,145 bytes, 262,144 are allowed"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_with_line_and_column(text: str | bytes, where: tuple[int, int] | None, told: str) -> None:
    with pytest.raises(YamlFault) as caught:
        load(text)
    assert caught.value.where == where
    assert caught.value.message == (f"line {where[0]}, column {where[1]}: {told}" if where else told)


def test_what_cannot_be_read_again_is_not_written() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert load(dump(deep)) == deep
    for value in ([deep], float("nan"), float("inf"), 10**300, "\x00", {"\x00": 1}, "\ud800", {1: 2}, object()):
        with pytest.raises(YamlFault):
            dump(value)


def test_each_part_has_its_place() -> None:
    loaded = load_with_places("plan:\n  steps:\n    - key: a\n      agent: b\n    - {key: c,\n       agent: d}\n")
    assert loaded.places["/plan/steps/1/agent"] == (6, 8) and loaded.places["/plan/steps/0"] == (3, 7)
    assert loaded.place_of("/plan/steps/0/agent/x") == (4, 7), "the nearest thing around it"
    assert (loaded.place_of("/no"), loaded.place_of("/plan")) == ((1, 1), (1, 1))


# --- short forms --------------------------------------------------------------------------------------------------------------

FULL = {
    "steps": [
        {"key": "a", "agent": "critic", "agent_version": "2"},
        {"key": "b", "agent": "x", "fallbacks": [{"agent": "y"}, {"agent": "z", "agent_version": "1.0"}]},
        {"key": "c", "agent": "p", "adaptive": {"agents": [{"agent": "q", "agent_version": "3"}], "max_steps": 3}},
        {"key": "d", "run": {"plan": {"steps": [{"key": "e", "agent": "critic", "agent_version": "2"}]}}},
        {"key": "f", "run": {"workflow": "w", "version": 1}, "after": ["d"]},
    ]
}
SHORT = {
    "steps": [
        {"key": "a", "agent": "critic@2"},
        {"key": "b", "agent": "x", "fallbacks": ["y", "z@1.0"]},
        {"key": "c", "agent": "p", "adaptive": {"agents": ["q@3"], "max_steps": 3}},
        {"key": "d", "run": {"plan": {"steps": [{"key": "e", "agent": "critic@2"}]}}},
        {"key": "f", "run": {"workflow": "w", "version": 1}, "after": ["d"]},
    ]
}


def test_an_agent_and_its_version_are_written_as_one() -> None:
    assert write_plan(FULL) == SHORT and spelled_plan(SHORT) == FULL and spelled_plan(FULL) == FULL
    definition = WorkflowDefinition(plan=FULL, description="d")  # type: ignore[arg-type]
    written = write_workflow("digest", definition.said())
    assert list(written) == ["name", "description", "plan"]
    assert list(write_plan({"steps": [{"when": "x", "after": [], "agent": "a", "key": "k", "retry": {}}]})["steps"][0]) == [
        "key", "agent", "after", "when", "retry",
    ]  # fmt: skip
    again = read_workflow(load(dump(written)))
    assert again.pop("name") == "digest" and WorkflowDefinition.model_validate(again) == definition
    assert "name" not in write_workflow(None, definition.said())


@pytest.mark.parametrize(
    "wrong",
    [None, 3, [], {}, {"steps": 3}, {"steps": [3, None, {"agent": 3}, {"fallbacks": 3}, {"fallbacks": [3, {}]}, {"adaptive": []}]},
     {"steps": [{"run": 3}, {"run": {"plan": 3}}, {"adaptive": {"agents": 3}}, {"agent": "a@1", "agent_version": "2"}]}],
)  # fmt: skip
def test_what_is_no_plan_stays_as_it_is(wrong: Any) -> None:
    assert spelled_plan(wrong) == wrong
    assert read_workflow({"plan": wrong}) == {"plan": wrong} and read_workflow({"a": 1}) == {"a": 1}


# --- differences --------------------------------------------------------------------------------------------------------------


def told(before: Any, after: Any) -> list[tuple[Any, ...]]:
    return [(one.kind, one.pointer, one.step, one.before, one.after) for one in differences(before, after)]


def test_fields_are_compared_one_by_one() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "d/e": None}, "same": [{"x": 1}], "gone": {}}
    after = {"a": True, "b": {"c": [1, 3], "d/e": 0}, "same": [{"x": 1}], "new": None}
    assert told(before, after) == [
        ("changed", "/a", None, 1, True),
        ("changed", "/b/c", None, [1, 2], [1, 3]),
        ("changed", "/b/d~1e", None, None, 0),
        ("removed", "/gone", None, {}, None),
        ("added", "/new", None, None, None),
    ]
    assert told(before, before) == [] and told({"a": 1, "b": 2}, {"b": 2, "a": 1}) == []
    assert told(1, 2) == [("changed", "", None, 1, 2)] and told([], {}) == [("changed", "", None, [], {})]


def test_steps_are_compared_by_their_keys() -> None:
    a, b, c = ({"key": key, "agent": key} for key in "abc")
    new = {"key": "new", "agent": "x"}
    assert told({"steps": [a, b]}, {"steps": [new, a, b | {"agent": "y"}]}) == [
        ("changed", "/steps/2/agent", "b", "b", "y"),
        ("added", "/steps/0", "new", None, new),
    ]
    assert told({"steps": [a, b, c]}, {"steps": [a, c]}) == [("removed", "/steps/1", "b", b, None)]
    assert told({"steps": [a, b]}, {"steps": [b, a]}) == [("order", "/steps", None, ["a", "b"], ["b", "a"])]
    child = {"key": "r", "run": {"plan": {"steps": [a]}}}
    changed = {"key": "r", "run": {"plan": {"steps": [a | {"agent": "z"}]}}}
    assert told({"steps": [child]}, {"steps": [changed]}) == [("changed", "/steps/0/run/plan/steps/0/agent", "a", "a", "z")]
    assert told({"steps": [a, a]}, {"steps": [a]}) == [("changed", "/steps", None, [a, a], [a])], "no keys to go by"
    assert told({"steps": [a]}, {"steps": [3]}) == [("changed", "/steps", None, [a], [3])]


@settings(max_examples=200)
@given(JSON, JSON)
def test_only_what_differs_is_told(one: Any, other: Any) -> None:
    assert differences(one, one) == []
    assert bool(differences(one, other)) == (repr_of(one) != repr_of(other))


def repr_of(value: Any) -> str:
    import json

    return json.dumps(value, sort_keys=True)
