"""What is wrong with the expressions of a plan, and with what goes from step to step: each fault with its place and its cure."""

import json
from typing import Any

import pytest

from tests.unit.test_plan_checks import CRITIC, WRITER, checked, of, registry, told, warned

UNDECLARED = "1:1: undeclared reference to '{0}' (in container '')\n | {0}\n | ^"
EXPRESSIONS_OF: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
    (
        {"when": "steps.wirter.status == 'completed'"},
        [("/when", "there is no step 'wirter'", "name a step of the plan")],
    ),
    ({"when": "steps.ww.result.x"}, [("/when", "there is no step 'ww'", "name a step of the plan")]),
    (
        {"when": "steps.late.result.x"},
        [("/when", "the step 'late' comes after 'c', so its result is not there yet", "name a step that stands before this one")],
    ),
    (
        {"when": "steps.side.result == 1"},
        [
            (
                "/when",
                "the step 'side' does not stand before 'c', so its result may not be there yet",
                "add 'side' to `after` of 'c'",
            )
        ],
    ),
    (
        {"when": "steps.c.result == 1"},
        [("/when", "the step 'c' names itself, and has no result before it runs", "name a step before it")],
    ),
    (
        {"when": "steps.w.reslt.x"},
        [("/when", "a step has no `reslt`", "did you mean 'result'?")],
    ),
    (
        {"when": "steps.w.titel == 'x'"},
        [
            (
                "/when",
                "a step has no `titel`",
                "a step has status, result, error: did you mean `steps.w.result.titel`?",
            )
        ],
    ),
    (
        {"when": "steps.w.result.titel == 'x' || has(steps.w.result.nothing)"},
        [("/when", "the result of 'w' has no `titel`", "did you mean 'title'?")],
    ),
    (
        {"when": "steps.w.result.zzz.y"},
        [("/when", "the result of 'w' has no `zzz`", "it has `title`, `words`, `mood`")],
    ),
    ({"when": "steps.w.?result.?zzz.orValue(false)"}, []),
    ({"when": "has(steps.w.result.zzz) && steps.w.result.zzz.y"}, []),
    (
        {"when": "steps.w.result.title.x == 'x'"},
        [("/when", "`title` of the result of 'w' is a text, so it has no `x`", "name the value itself")],
    ),
    (
        {"when": "steps.w.status == 'complete'"},
        [("/when", "`steps.w.status` is never 'complete'", "did you mean 'completed'?")],
    ),
    (
        {"when": "'xyz' != steps.w.status"},
        [("/when", "`steps.w.status` is never 'xyz'", "a step before this one is completed, failed, cancelled, skipped")],
    ),
    (
        {"when": "steps.w.status == true"},
        [("/when", "`steps.w.status` is a text, and is compared with a boolean", "compare it with a text in quotes")],
    ),
    (
        {"when": "steps.w.result.words == '3'"},
        [
            (
                "/when",
                "`steps.w.result.words` is an integer, and is compared with a text",
                "compare it with a value of its kind",
            )
        ],
    ),
    ({"when": "steps.w.result.words > 3.5 && steps.w.result.title != null"}, []),
    (
        {"when": "steps.w.result.mood == 'bad'"},
        [("/when", "`steps.w.result.mood` is never 'bad'", "it is one of 'glad', 'sad'")],
    ),
    (
        {"when": "steps.w.result.mood == 'gladd'"},
        [("/when", "`steps.w.result.mood` is never 'gladd'", "did you mean 'glad'?")],
    ),
    ({"when": "steps.w.result.mood > 'zzz' || steps.w.result.mood == 'sad'"}, []),
    (
        {"when": "'yes'"},
        [
            (
                "/when",
                "this must be true or false, and is a text",
                "compare it with something, such as `… == 'yes'` or `size(…) > 0`",
            )
        ],
    ),
    (
        {"when": "steps.w.result.title"},
        [
            (
                "/when",
                "this must be true or false, and is a text",
                "compare it with something, such as `… == 'yes'` or `size(…) > 0`",
            )
        ],
    ),
    (
        {"when": "type(1)"},
        [
            (
                "/when",
                "this must be true or false, and is a type",
                "compare it with something, such as `… == 'yes'` or `size(…) > 0`",
            )
        ],
    ),
    (
        {"when": "inptu"},
        [("/when", UNDECLARED.format("inptu"), "did you mean 'input'?")],
    ),
    (
        {"when": "w"},
        [("/when", UNDECLARED.format("w"), "the result of a step is `steps.w.result`, its status `steps.w.status`")],
    ),
    (
        {"when": "zzz"},
        [("/when", UNDECLARED.format("zzz"), "name one of `input`, `metadata`, `steps`, or put a text in quotes")],
    ),
    (
        {"when": "item"},
        [
            (
                "/when",
                UNDECLARED.format("item"),
                "`item` is there in `input_from` of a step with `each`: give the step one, or name something else",
            )
        ],
    ),
    (
        {"when": "last"},
        [
            (
                "/when",
                UNDECLARED.format("last"),
                "`last` is there in `input_from` of a step with `repeat`: give the step one, or name something else",
            )
        ],
    ),
    (
        {"when": "1 + 'x' == 2"},
        [
            (
                "/when",
                "1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'x' == 2\n | ..^",
                "make both sides of one kind, such as with `int(…)`, `double(…)` or `string(…)`",
            )
        ],
    ),
    (
        {"when": "nothing(1)"},
        [
            (
                "/when",
                "1:8: undeclared reference to 'nothing' (in container '')\n | nothing(1)\n | .......^",
                "there is no such function; the reference of expressions has all of them",
            )
        ],
    ),
    (
        {"when": "input.x == ,"},
        [
            (
                "/when",
                "1:12: Syntax error: mismatched input ',' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null',"
                " NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | input.x == ,\n | ...........^",
                "mend it at the place that is marked; the reference of expressions has all operators and functions",
            )
        ],
    ),
    (
        {"each": {"over": "'abc'"}},
        [("/each/over", "this must be a list, and is a text", "name a list, such as `input.items`, or write one: `[1, 2]`")],
    ),
    (
        {"each": {"over": "steps.w.result.words"}},
        [("/each/over", "this must be a list, and is an integer", "name a list, such as `input.items`, or write one: `[1, 2]`")],
    ),
    ({"each": {"over": "steps.w.result"}, "when": "steps.w.result.words == 3"}, [
        ("/each/over", "this must be a list, and is an object", "name a list, such as `input.items`, or write one: `[1, 2]`"),
    ]),
    (
        {"repeat": {"times": 2, "until": "item > 3"}},
        [
            (
                "/repeat/until",
                "1:1: undeclared reference to 'item' (in container '')\n | item > 3\n | ^",
                "name one of `input`, `metadata`, `steps`, `result`, `iteration`, or put a text in quotes",
            )
        ],
    ),
    ({"repeat": {"times": 2, "until": "input.enough < iteration"}}, []),
    (
        {"repeat": {"times": 2, "until": "iteration + 1"}},
        [
            (
                "/repeat/until",
                "this must be true or false, and is an integer",
                "compare it with something, such as `… == 'yes'` or `size(…) > 0`",
            )
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), EXPRESSIONS_OF, ids=[json.dumps(said) for said, _ in EXPRESSIONS_OF])
async def test_expressions(said: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    steps = [
        WRITER, {"key": "side", "agent": "plain"}, {"key": "c", "agent": "plain", "after": ["w"], **said},
        {"key": "late", "agent": "plain", "after": ["c"]},
    ]  # fmt: skip
    found = await of(*steps)
    assert found == [(f"/steps/2{place}", detail, cure) for place, detail, cure in expected]


async def test_expressions_of_steps_that_have_no_agent() -> None:
    time = "give a time with its zone, such as `timestamp('2026-12-01T08:00:00Z')`, or use `s` for seconds"
    condition = "compare it with something, such as `… == 'yes'` or `size(…) > 0`"
    assert await of(
        WRITER,
        {"key": "a", "value": "steps.w.result.titel", "after": ["w"]},
        {"key": "b", "wait": {"until": "duration('5s')"}},
        {"key": "c", "wait": {"until": "3"}},
        {"key": "d", "wait": {"until": "'2026-12-01T08:00:00Z'"}},
        {"key": "e", "gather": {"mode": "first_good", "good": "'x'"}, "after": ["a"]},
        {"key": "f", "gather": {"mode": "vote", "by": "item"}, "after": ["a"]},
        {"key": "f2", "gather": {"mode": "vote", "by": "steps.w.status == 'pending' || input.x"}, "after": ["w"]},
        {"key": "g", "value": "steps.text.result.x", "after": ["text"]},
        {"key": "text", "value": "'a' + 'b'"},
        {"key": "h", "value": "steps.items.result.x", "after": ["items"]},
        {"key": "items", "agent": "writer", "each": {"over": "[1]"}},
        result="steps.gone.result",
    ) == [
        ("/result", "there is no step 'gone'", "name a step of the plan"),
        ("/steps/1/value", "the result of 'w' has no `titel`", "did you mean 'title'?"),
        ("/steps/2/wait/until", "this must be a time, and is a duration", time),
        ("/steps/3/wait/until", "this must be a time, and is an integer", time),
        ("/steps/5/gather/good", "this must be true or false, and is a text", condition),
        (
            "/steps/6/gather/by",
            UNDECLARED.format("item"),
            "name one of `input`, `metadata`, `steps`, `result`, `step`, or put a text in quotes",
        ),
        ("/steps/8/value", "the result of 'text' is a text, so it has no `x`", "name the value itself"),
        ("/steps/10/value", "the result of 'items' is a list, so it has no `x`", "name the value itself"),
    ]


async def test_the_result_of_a_run_may_name_every_step() -> None:
    assert await of(WRITER, {"key": "v", "value": "1"}, result="steps.v.result + steps.w.result.words") == []


async def test_a_step_that_may_be_meant_by_an_edge_to_nothing_is_not_told_twice() -> None:
    found = await of(WRITER, {"key": "x", "value": "steps.w.result.title", "after": ["ww"]})
    assert [place for place, _, _ in found] == ["/steps/1/after/0"]


async def test_what_a_schema_only_does_not_tell_of_is_a_warning() -> None:
    steps = [
        CRITIC | {"after": []},
        {"key": "x", "value": "steps.c.result.nte", "after": ["c"]},
        {"key": "y", "value": "has(steps.c.result.zzz)", "after": ["c"]},
        {"key": "l", "agent": "plain", "repeat": {"times": 3, "until": "input.x"}},
    ]
    found = await checked({"steps": steps}, registry())
    assert (told(found), found.valid) == ([], True)
    assert warned(found) == [
        ("/steps/1/value", "the schema of the result of 'c' does not tell of `nte`", "did you mean 'note'?"),
        (
            "/steps/3/repeat/until",
            "this names neither `result` nor `iteration`, so it says the same each time",
            "let it look at `result`, or leave `until` out: the loop then runs `times` times",
        ),
    ]


async def test_a_condition_that_is_false_whatever_comes_in() -> None:
    cure = "let the condition name what it depends on, or take the step out"
    for condition in ("false", "1 == 2", "false && input.x", "!(true || input.x)", "'a' == 'b'"):
        found = await of({**WRITER, "when": condition}, {"key": "x", "value": "1", "after": ["w"]})
        assert (
            found
            == [
                (
                    "/steps/1",
                    "the step never runs: it comes only after 'w', which never runs",
                    "let it come after a step that runs, or give it a `when`",
                ),
                ("/steps/0/when", "this is false whatever comes in, so the step 'w' never runs", cure),
            ][::-1]
        ), condition
    for condition in ("true", "input.x || true", "1 == 1", "input.x && input.y"):
        assert await of({**WRITER, "when": condition}) == [], condition


INPUTS: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
    ({"input": {"title": "x", "limit": 3}}, []),
    (
        {"input": {"title": 7, "more": 1}},
        [
            (
                "/input",
                "the agent 'critic' does not take this: Additional properties are not allowed ('more' was unexpected)",
                "give what its input schema asks for",
            ),
            (
                "/input/title",
                "the agent 'critic' does not take this: 7 is not of type \"string\"",
                "give what its input schema asks for",
            ),
        ],
    ),
    (
        {"input_from": {"titel": "'x'", "limit": "'x'"}},
        [
            ("/input_from", "the agent 'critic' needs `title`, which is not given", "add `title` with an expression"),
            (
                "/input_from/limit",
                "the agent 'critic' does not take this: a text is given where an integer is wanted",
                "give a value of the right kind, such as with `int(…)` or `string(…)`",
            ),
            ("/input_from/titel", "the agent 'critic' takes no `titel`", "did you mean 'title'?"),
        ],
    ),
    (
        {"input_from": {"title": "steps.w.result.words", "zzz": "1"}},
        [
            (
                "/input_from/title",
                "the agent 'critic' does not take this: an integer is given where a text is wanted",
                "map it to another value, or make one of the right kind, such as with `int(…)` or `string(…)`",
            ),
            ("/input_from/zzz", "the agent 'critic' takes no `zzz`", "it takes `title`, `limit`"),
        ],
    ),
    ({"input_from": {"title": "string(steps.w.result.words)", "limit": "input.n"}}, []),
    (
        {"input_from": "steps.w.result.title"},
        [
            (
                "/input_from",
                "the agent 'critic' does not take this: a text is given where an object is wanted",
                "map it to another value, or make one of the right kind, such as with `int(…)` or `string(…)`",
            )
        ],
    ),
    (
        {"input_from": "[1]"},
        [
            (
                "/input_from",
                "the agent 'critic' does not take this: a list is given where an object is wanted",
                "give a value of the right kind, such as with `int(…)` or `string(…)`",
            )
        ],
    ),
    ({"input_from": "steps.w.result"}, []),
    ({"input_from": "{'title': 'x'}"}, []),
    ({"agent": "critic@1", "input_from": {"title": "1"}}, [
        ("/input_from/title", "the agent 'critic' does not take this: an integer is given where a text is wanted",
         "give a value of the right kind, such as with `int(…)` or `string(…)`"),
    ]),
    ({"agent": "plain", "input_from": {"title": "1"}}, []),
]  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), INPUTS, ids=[json.dumps(said) for said, _ in INPUTS])
async def test_inputs(said: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    found = await of(WRITER, {"key": "c", "agent": "critic", "after": ["w"], **said})
    assert found == [(f"/steps/1{place}", detail, cure) for place, detail, cure in expected]
