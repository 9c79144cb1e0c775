"""What is known of an expression without any values."""

import pytest

from adapters.expressions import CelExpressions
from application.engine.ports.expressions import NO_EXPRESSIONS, Compared, ExpressionStudy, PathUse

EXPRESSIONS = CelExpressions()


def study(expression: str) -> ExpressionStudy:
    return EXPRESSIONS.study(expression, ["input", "steps"])


@pytest.mark.parametrize(
    ("expression", "uses"),
    [
        ("steps.a.result.x", [(("steps", "a", "result", "x"), 4)]),
        ("steps['a-b'].result[0].x", [(("steps", "a-b", "result"), 3)]),
        ("has(steps.a.result.x)", [(("steps", "a", "result", "x"), 3)]),
        ("steps.a.?result.?x.orValue(1)", [(("steps", "a", "result", "x"), 2)]),
        ("steps.?a.result.x.orValue(1)", [(("steps", "a", "result", "x"), 1)]),
        ("input", [(("input",), 1)]),
        ("input.a + input.a + steps.b", [(("input", "a"), 2), (("steps", "b"), 2)]),
        ("input.list.exists(input, input.x == steps.b)", [(("input", "list"), 2), (("steps", "b"), 2)]),
        ("{'a': input.a, 'b': [steps.b]}", [(("input", "a"), 2), (("steps", "b"), 2)]),
        ("1 + 2", []),
    ],
)
def test_the_values_that_it_names(expression: str, uses: list[tuple[tuple[str, ...], int]]) -> None:
    assert [*study(expression).uses] == [PathUse(path, firm) for path, firm in uses]


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("input.a == 1", "bool"), ("'a' + 'b'", "string"), ("1", "int"), ("1u", "uint"), ("1.5", "double"), ("null", "null"),
        ("[1]", "list"), ("{'a': 1}", "map"), ("timestamp('2026-01-01T00:00:00Z')", "timestamp"), ("duration('1s')", "duration"),
        ("b'x'", "bytes"), ("type(1)", "type"), ("input.a", ""), ("input.?a.orValue(1)", ""), ("input.a ? input.b : 1", ""),
        ("[1][0]", ""), ("dyn(1)", ""), ("input.list.map(x, x)", "list"), ("size(input)", "int"), ("-input.a", ""),
    ],
)  # fmt: skip
def test_the_kind_of_its_value(expression: str, kind: str) -> None:
    assert study(expression).kind == kind


@pytest.mark.parametrize(
    ("expression", "always"),
    [
        ("true", True), ("false", False), ("!true", False), ("false && input.a", False), ("input.a && false", False),
        ("true && true", True), ("true && input.a", None), ("input.a || true", True), ("false || false", False),
        ("false || input.a", None), ("true ? false : input.a", False), ("input.a ? true : true", True),
        ("input.a ? true : false", None), ("'a' == 'b'", False), ("'a' != 'b'", True), ("1 == 1", True), ("1 > 2", False),
        ("input.a == 'a'", None), ("size('abc') == 3", True), ("1", None), ("!input.a", None),
    ],
)  # fmt: skip
def test_what_a_condition_gives_whatever_the_values_are(expression: str, always: bool | None) -> None:
    assert study(expression).always is always


@pytest.mark.parametrize(
    ("expression", "compared"),
    [
        ("input.a == 'x'", [Compared(("input", "a"), "==", "string", "x")]),
        ("3 < input.a && input.b >= 1.5", [
            Compared(("input", "a"), ">", "int", None), Compared(("input", "b"), ">=", "double", None),
        ]),
        ("null != input.a || true == input.b", [
            Compared(("input", "a"), "!=", "null", None), Compared(("input", "b"), "==", "bool", None),
        ]),
        ("input.a == input.b", []),
        ("input.list.all(x, x == 1 && input.b == 2)", []),
        ("'a' == 'b'", []),
    ],
)  # fmt: skip
def test_what_it_compares_with_constants(expression: str, compared: list[Compared]) -> None:
    assert [*study(expression).comparisons] == compared


def test_whether_it_is_nothing_but_a_value() -> None:
    assert study("steps.a.result").path == ("steps", "a", "result")
    assert [study(text).path for text in ("has(input.a)", "input.?a", "input.a + 1", "'input'")] == [None] * 4


def test_one_that_cannot_be_used_tells_nothing_else() -> None:
    for expression in ("inptu", "1 +", "x" * 2_049, "nothing(1)"):
        found = study(expression)
        assert found.fault and found == ExpressionStudy(found.fault)
    assert NO_EXPRESSIONS.study("1", []).fault == "no expression can be used here"
