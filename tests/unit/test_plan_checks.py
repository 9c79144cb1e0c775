"""All that is wrong with a plan, at once: each fault with its place and its cure."""

from typing import Any

import pytest

from adapters.expressions import CelExpressions
from application.plans.check import MOST_TOLD, PlanChecks
from application.plans.registry import FoundAgent, FoundWorkflow
from application.views.plans import CheckedPlanView
from domain.errors import Unavailable
from tests.kit.plans import MemoryRegistry, object_of

EXPRESSIONS = CelExpressions()
DRAFT = object_of({"title": {"type": "string"}, "words": {"type": "integer"}, "mood": {"enum": ["glad", "sad"]}}, "title")
REVIEW = object_of({"ok": {"type": "boolean"}, "note": {"type": "string"}}, "ok", closed=False)
TASK = object_of({"title": {"type": "string"}, "limit": {"type": "integer"}}, "title")
AGENTS = (
    FoundAgent("writer", ("1", "2"), None, DRAFT),
    FoundAgent("critic", ("1",), TASK, REVIEW),
    FoundAgent("plain", ("1",)),
)
DEEP: dict[str, Any] = {"steps": [{"key": "a", "run": {"workflow": "down"}}]}
WORKFLOWS = {
    "tell": FoundWorkflow(None, TASK, {"steps": [{"key": "a", "agent": "plain"}]}, 1),
    "old": FoundWorkflow("workflow 'old' is deprecated"),
    "down": FoundWorkflow(None, None, DEEP, 1),
    "around": FoundWorkflow(None, None, {"steps": [{"key": "a", "run": {"workflow": "around"}}]}, 1),
}


def registry() -> MemoryRegistry:
    return MemoryRegistry(AGENTS, {"writing": "writer", "reviewing": "critic"}, WORKFLOWS)


async def checked(document: Any, known: MemoryRegistry | None = None) -> CheckedPlanView:
    return await PlanChecks(EXPRESSIONS).check(document, known)


def told(found: CheckedPlanView) -> list[tuple[str, str, str]]:
    return [(fault.pointer, fault.detail, fault.cure) for fault in found.faults]


def warned(found: CheckedPlanView) -> list[tuple[str, str, str]]:
    return [(fault.pointer, fault.detail, fault.cure) for fault in found.warnings]


async def of(*steps: dict[str, Any], **plan: Any) -> list[tuple[str, str, str]]:
    """The faults of a plan. There are no warnings."""
    found = await checked({"steps": list(steps), **plan}, registry())
    assert (warned(found), found.valid) == ([], not found.faults)
    return told(found)


WRITER = {"key": "w", "agent": "writer"}
CRITIC = {"key": "c", "agent": "critic", "after": ["w"], "input": {"title": "x"}}


async def test_a_sound_plan_of_every_form_has_no_faults() -> None:
    plan = {
        "kind": "graph",
        "steps": [
            WRITER,
            {"key": "old", "agent": "writer@1", "fallbacks": ["critic", {"agent": "plain"}], "retry": {"max_attempts": 2}},
            {
                "key": "c", "agent": "critic", "after": ["w"], "when": "steps.w.result.words > 3 && steps.w.status == 'completed'",
                "input_from": {"title": "steps.w.result.title", "limit": "1 + 2"},
            },
            {"key": "list", "value": "[1, 2]", "after": ["c"]},
            {"key": "each", "agent": "plain", "after": ["list"], "each": {"over": "steps.list.result"}, "input_from": "item"},
            {"key": "rep", "agent": "writer", "repeat": {"times": 3, "until": "result.words > iteration"}, "input_from": "last"},
            {"key": "ad", "agent": "plain", "adaptive": {"agents": ["writer@2", {"agent": "critic", "agent_version": "1"}]}},
            {"key": "g", "gather": {"mode": "any", "count": 2}, "after": ["each", "rep", "ad"]},
            {"key": "v", "gather": {"mode": "vote", "by": "result.ok"}, "after": ["g"]},
            {"key": "f", "gather": {"mode": "first_good", "good": "result.ok && step == 'a'"}, "after": ["g"]},
            {"key": "nap", "wait": {"until": "timestamp(metadata.at)"}, "after": ["v"]},
            {"key": "cap", "capability": "writing", "timeout_s": 3},
            {"key": "run", "run": {"plan": {"steps": [{"key": "x", "capability": "reviewing"}]}}},
            {"key": "flow", "run": {"workflow": "tell", "version": 1}, "input": {"title": "x"}},
        ],
        "result": "steps.c.result.ok ? steps.flow.result : input",
    }  # fmt: skip
    found = await checked(plan, registry())
    assert (told(found), warned(found), found.valid, found.steps) == ([], [], True, 15)
    assert [(agent.name, agent.version, agent.capabilities) for agent in found.agents] == [
        ("critic", "1", ["reviewing"]), ("plain", "1", []), ("writer", "2", ["writing"]),
    ]  # fmt: skip


GIVE_ONE = "give exactly one of `agent`, `capability`, `run`, `gather`, `value`, `wait`"
IS_A_LIST = "a plan has a list of steps, at least one"
ADD_STEPS = 'add `steps`, such as [{"key": "a", "agent": "a"}]'
FORMS: list[tuple[Any, list[tuple[str, str, str]]]] = [
    (7, [("", "a plan must be an object", 'write an object such as {"steps": [{"key": "a", "agent": "a"}]}')]),
    ({}, [("", IS_A_LIST, ADD_STEPS)]),
    ({"steps": []}, [("/steps", IS_A_LIST, ADD_STEPS)]),
    (
        {"steps": 7, "kind": "grph", "reslt": 1},
        [
            ("/kind", "`kind` must be one of sequential, parallel, graph", "did you mean 'graph'?"),
            ("/reslt", "there is no such field", "did you mean 'result'?"),
            ("/steps", IS_A_LIST, ADD_STEPS),
        ],
    ),
    (
        {"kind": "sequential", "agents": ["writer", "Cri tic", 7, "x" * 101], "steps": []},
        [
            (
                "/agents/1",
                "a name has lower-case letters, digits, _ and -, and dots between such words",
                "write it in lower case, with - between words, such as 'first-draft'",
            ),
            ("/agents/2", "must be a text", "write a name in quotes"),
            ("/agents/3", "the text may have at most 100 characters", "write a shorter text"),
            ("/steps", "there is no such field", "take it out; there are `kind`, `agents`"),
        ],
    ),
    (
        {"kind": "parallel", "agents": [], "aggregator": "critic"},
        [("/agents", "a parallel plan has a list of agents, at least one", 'add `agents`, such as ["writer", "critic"]')],
    ),
    (
        {"kind": "parallel", "agents": ["writer", "crtic"], "aggregator": "plian"},
        [
            ("/agents/1", "no agent 'crtic' is registered", "did you mean 'critic'?"),
            ("/aggregator", "no agent 'plian' is registered", "did you mean 'plain'?"),
        ],
    ),
    (
        {"steps": [7, {"agent": "writer"}, {"key": "A b", "agent": "writer"}], "result": 7},
        [
            ("/result", "must be a text", "write a text, in quotes"),
            ("/steps/0", "a step must be an object", 'write an object with a `key`, such as {"key": "a", "agent": "a"}'),
            ("/steps/1", "`key` is missing", "add `key`"),
            (
                "/steps/2/key",
                "a name has lower-case letters, digits, _ and -, and dots between such words",
                "write it in lower case, with - between words, such as 'first-draft'",
            ),
        ],
    ),
    (
        {"steps": [{"key": "a"}, {"key": "b", "agnt": "x"}, {"key": "c", "agent": "writer", "wait": {"s": 1}}]},
        [
            ("/steps/0", GIVE_ONE, "say what the step does, such as `agent` with the name of an agent"),
            ("/steps/1/agnt", "there is no such field", "did you mean 'agent'?"),
            ("/steps/2", f"{GIVE_ONE}, not `agent` and `wait`", "keep `agent`, and make steps of the others"),
        ],
    ),
    (
        {
            "steps": [
                {"key": "a", "agent": "plain", "each": {"over": "[1]"}, "repeat": {"times": 1}},
                {"key": "b", "value": "1", "each": {"over": "[1]"}},
                {"key": "c", "run": {"workflow": "tell"}, "input": {"title": "x"}, "adaptive": {"agents": ["plain"]}},
                {"key": "d", "agent": "plain", "input": 1, "input_from": "1"},
                {"key": "e", "wait": {"s": 1}, "input_from": "1", "fallbacks": ["plain"]},
                {"key": "f", "agent": "plain", "input": 1, "each": {"over": "[1]"}},
                {"key": "g", "run": {"workflow": "tell"}, "input": {"title": "x"}, "fallbacks": ["plain"]},
                {"key": "h", "gather": {"mode": "all"}, "after": ["a"], "when": "true"},
                {"key": "g.1", "agent": "plain"},
            ]
        },
        [
            (
                "/steps/0",
                "give at most one of `each`, `repeat`, `adaptive`",
                "keep `each`; put the inner one into a child run (`run`)",
            ),
            ("/steps/1/each", "`each` is for a step with an agent, a capability or a run", "take it out"),
            ("/steps/2/adaptive", "`adaptive` is for a step with an agent or a capability", "take it out, or name an agent"),
            (
                "/steps/3/input_from",
                "give either `input` or `input_from`",
                "keep `input` for a fixed value, `input_from` for one that is made of others",
            ),
            ("/steps/4/fallbacks", "`fallbacks` are for a step with an agent or a capability", "take it out"),
            ("/steps/4/input_from", "`input_from` is for a step with an agent, a capability or a run", "take it out"),
            (
                "/steps/5/input",
                "`input` is not for a step with `each`: the item is the input, or what `input_from` makes of it",
                "write `input_from`, in which `item` and `index` are there",
            ),
            ("/steps/6/fallbacks", "`fallbacks` are for a step with an agent or a capability", "take it out"),
            (
                "/steps/7/when",
                "`when` is not for a step with `gather`, which looks on while the steps before it run",
                "put the condition on a step after it",
            ),
            (
                "/steps/8/key",
                "'g.1' is the name of a part of the step 'g', which has `run`",
                "give it a key without the dot, such as 'g-1'",
            ),
        ],
    ),
    (
        {
            "steps": [
                {"key": "a", "agent": "plain", "timeout_s": -1, "on_failure": "contnue", "retry": {"max_attempts": 99, "mx": 1}},
                {"key": "b", "agent": "plain", "input_from": {"a": 3, "b": ""}, "priority": 1, "when": 1},
                {"key": "c", "agent": "plain", "input_from": 7, "after": "a", "each": {"over": "[1]", "max_parallel": 0}},
                {"key": "d", "gather": {"mode": "all", "good": "true"}, "after": ["a"]},
                {"key": "e", "gather": {"mode": "all", "count": 2, "by": "1"}, "after": ["a"]},
                {"key": "f", "wait": {}},
                {"key": "g", "run": {}},
                {"key": "h", "run": {"plan": {"steps": [{"key": "x", "agent": "plain"}]}, "version": 1}},
                {"key": "i", "agent": "plain", "fallbacks": ["plain"] * 6, "adaptive": {"agents": []}},
                {"key": "j", "agent": "plain", "agent_version": 7, "repeat": {"times": 1.5, "until": "x" * 2001}},
            ]
        },
        [
            ("/steps/0/on_failure", "must be 'fail', 'continue' or 'compensate'", "did you mean 'continue'?"),
            ("/steps/0/retry/max_attempts", "must be at most 20", "write a smaller number"),
            ("/steps/0/retry/mx", "there is no such field", "take it out; there are `max_attempts`, `initial_s`, `max_s`"),
            ("/steps/0/timeout_s", "must be greater than 0", "write a larger number"),
            ("/steps/1/input_from/a", "must be a text", "write a text, in quotes"),
            ("/steps/1/input_from/b", "the text must have at least 1 character", "write something, or leave the field out"),
            ("/steps/1/priority", "must be 'high', 'normal' or 'low'", "write one of high, normal, low"),
            ("/steps/1/when", "must be a text", "write a text, in quotes"),
            ("/steps/2/after", "must be an array", "write an object, or a list, where one belongs"),
            ("/steps/2/each/max_parallel", "must be at least 1", "write a larger number"),
            (
                "/steps/2/input_from",
                "must be an expression, or an object of expressions by name",
                "write a text, in quotes",
            ),
            (
                "/steps/3/gather",
                "`good` is for the mode `first_good`, which needs it",
                "write `good` beside the mode first_good, and nowhere else",
            ),
            ("/steps/4/gather", "`by` is for the mode `vote`", "take `by` out, or set the mode to vote"),
            ("/steps/5/wait", "give either `s` or `until`", "keep `s` for seconds, or `until` for a time"),
            (
                "/steps/6/run",
                "give either `plan` or `workflow`",
                "add `plan` with the steps of the run, or `workflow` with a name",
            ),
            ("/steps/7/run", "`version` is that of a `workflow`", "take `version` out, or name the `workflow`"),
            ("/steps/8/adaptive/agents", "at least 1 item must be given; none is given", "give more, or leave the field out"),
            ("/steps/8/fallbacks", "at most 5 items may be given; 6 are given", "give fewer"),
            ("/steps/9/agent_version", "must be a text", "write a text, in quotes"),
            ("/steps/9/repeat/times", "must be an integer", "write a number without a fraction"),
            ("/steps/9/repeat/until", "the text may have at most 2,000 characters", "write a shorter text"),
        ],
    ),
]


@pytest.mark.parametrize(("document", "expected"), FORMS, ids=[str(n) for n in range(len(FORMS))])
async def test_forms(document: Any, expected: list[tuple[str, str, str]]) -> None:
    found = await checked(document, registry())
    assert (told(found), warned(found)) == (expected, [])


async def test_names_of_agents_versions_capabilities_and_workflows() -> None:
    assert await of(
        {"key": "a", "agent": "writr"},
        {"key": "b", "agent": "writer@3"},
        {"key": "c", "agent": "critic", "agent_version": "0", "input": {"title": "x"}},
        {"key": "d", "agent": "zzz", "fallbacks": ["zzz@1", "critc"]},
        {"key": "e", "agent": "plain", "adaptive": {"agents": ["plain", {"agent": "plane"}]}},
        {"key": "f", "capability": "writting"},
        {"key": "g", "capability": "dancing"},
        {"key": "h", "run": {"workflow": "tall"}},
        {"key": "i", "run": {"workflow": "old"}},
        {"key": "j", "run": {"plan": {"steps": [{"key": "x", "agent": "writr"}]}}},
    ) == [
        ("/steps/0/agent", "no agent 'writr' is registered", "did you mean 'writer'?"),
        (
            "/steps/1/agent",
            "agent 'writer' is registered in versions 1 and 2, not 3",
            "ask for version 2, or for none to get the current one",
        ),
        (
            "/steps/2/agent",
            "agent 'critic' is registered in version 1, not 0",
            "ask for version 1, or for none to get the current one",
        ),
        (
            "/steps/3/agent",
            "no agent 'zzz' is registered",
            "start a worker that has it, with `tidelog worker --agents FOLDER`",
        ),
        (
            "/steps/3/fallbacks/0",
            "no agent 'zzz' is registered",
            "start a worker that has it, with `tidelog worker --agents FOLDER`",
        ),
        ("/steps/3/fallbacks/1", "no agent 'critc' is registered", "did you mean 'critic'?"),
        ("/steps/4/adaptive/agents/1", "no agent 'plane' is registered", "did you mean 'plain'?"),
        ("/steps/5/capability", "no agent announces the capability 'writting'", "did you mean 'writing'?"),
        (
            "/steps/6/capability",
            "no agent announces the capability 'dancing'",
            "start a worker with an agent that announces it",
        ),
        ("/steps/7/run/workflow", "there is no workflow 'tall'", "did you mean 'tell'?"),
        (
            "/steps/8/run/workflow",
            "workflow 'old' is deprecated",
            "name a version that may be used, or leave `version` out",
        ),
        ("/steps/9/run/plan/steps/0/agent", "no agent 'writr' is registered", "did you mean 'writer'?"),
    ]


async def test_each_thing_is_looked_up_once_and_names_only_where_one_is_missing() -> None:
    known = registry()
    steps = [{**WRITER, "key": f"a{n}"} for n in range(3)]
    steps += [{"key": f"c{n}", "capability": "writing"} for n in range(3)]
    steps += [{"key": f"r{n}", "run": {"workflow": "tell"}, "input": {"title": ""}} for n in range(2)]
    await checked({"steps": steps}, known)
    assert known.asked == ["capabilities writing", "agent writer", "workflow tell None"]
    known = registry()
    await checked(
        {"steps": [{"key": "a", "agent": "x"}, {"key": "b", "capability": "x"}, {"key": "c", "run": {"workflow": "x"}}]}, known
    )
    assert known.asked == ["capabilities x", "agent x", "agents", "capabilities", "workflow x None", "workflows"]


async def test_without_a_registry_nothing_is_said_of_names() -> None:
    steps = [
        {"key": "a", "agent": "nobody", "fallbacks": ["nobody"]}, {"key": "b", "capability": "nothing"},
        {"key": "c", "run": {"workflow": "none"}, "after": ["x"]},
    ]  # fmt: skip
    found = await checked({"steps": steps})
    assert told(found) == [("/steps/2/after/0", "there is no step 'x'", "name a step of the plan, or take it out of `after`")]
    assert found.agents == []


async def test_child_runs_may_not_lie_too_deep_and_a_workflow_not_start_itself() -> None:
    plan: dict[str, Any] = {"steps": [{"key": "a", "agent": "plain"}]}
    for _ in range(7):
        plan = {"steps": [{"key": "a", "run": {"plan": plan}}]}
    assert told(await checked(plan, registry())) == []
    [fault] = told(await checked({"steps": [{"key": "a", "run": {"plan": plan}}]}, registry()))
    assert fault == (
        "/steps/0" + "/run/plan/steps/0" * 7 + "/run/plan",
        "plans may be 8 levels deep, the outermost one counted, and this one is deeper",
        "put its steps into the plan around it",
    )
    cure = "start another workflow, or put its steps into the plan"
    assert await of({"key": "a", "run": {"workflow": "around"}}, {"key": "b", "run": {"workflow": "down"}}) == [
        ("/steps/0/run/workflow", "the workflow starts itself: around → around", cure),
        ("/steps/1/run/workflow", "the workflow starts itself: down → down", cure),
    ]
    long = {
        f"w{n}": FoundWorkflow(None, None, {"steps": [{"key": "a", "run": {"workflow": f"w{n + 1}"}}]}, 1) for n in range(8)
    } | {"w8": FoundWorkflow(None, None, {"steps": [{"key": "a", "agent": "plain"}]}, 1)}
    known = MemoryRegistry(AGENTS, workflows=long)
    [fault] = told(await checked({"steps": [{"key": "a", "run": {"workflow": "w1"}}]}, known))
    way = " → ".join(f"w{n}" for n in range(1, 9))
    assert fault == (
        "/steps/0/run/workflow",
        f"plans may be 8 levels deep, the outermost one counted, and these are deeper: {way}",
        cure,
    )
    assert told(await checked({"steps": [{"key": "a", "run": {"workflow": "w2"}}]}, known)) == []


async def test_the_input_of_a_child_workflow_fits_its_parameters() -> None:
    child = {"key": "c", "run": {"workflow": "tell"}}
    [(place, detail, _)] = await of({**child, "input_from": {"title": "3"}})
    assert (place, detail) == (
        "/steps/0/input_from/title",
        "the workflow 'tell' does not take this: an integer is given where a text is wanted",
    )
    assert [place for place, _, _ in await of({**child, "input": {}})] == ["/steps/0/input"]


async def test_a_workflow_is_checked_with_its_parameters() -> None:
    def workflow(properties: Any, *steps: dict[str, Any], closed: bool = True) -> dict[str, Any]:
        return {"name": "x", "parameters": object_of(properties, closed=closed), "plan": {"steps": list(steps)}}

    text = {"text": {"type": "string"}}
    found = await checked(workflow(text, {"key": "v", "value": "input.txt"}, {"key": "t", "value": "input.text == 1"}), registry())
    assert told(found) == [
        ("/plan/steps/0/value", "the input has no `txt`", "did you mean 'text'?"),
        ("/plan/steps/1/value", "`input.text` is a text, and is compared with an integer", "compare it with a value of its kind"),
    ]
    critic = {"key": "c", "agent": "critic"}
    cure = "map its input with `input_from`, or change `parameters`"
    takes = "the agent 'critic' gets the input of the run, and does not take it: "
    assert told(await checked(workflow(text, critic), registry())) == [
        ("/plan/steps/0", f"{takes}`title` is wanted, and is not among what is given", cure)
    ]
    assert told(await checked(workflow({"title": {"type": "array"}}, critic), registry())) == [
        ("/plan/steps/0", f"{takes}`title`: a list is given where a text is wanted", cure)
    ]
    found = await checked(workflow(text, critic, closed=False), registry())
    assert (told(found), [fault.detail for fault in found.warnings]) == (
        [], [f"{takes}`title` is wanted, and is not among what is given"],
    )  # fmt: skip
    for step in ({**critic, "each": {"over": "[1]"}}, {**critic, "input": {"title": "x"}}):
        assert told(await checked(workflow(text, step), registry())) == []
    broken = {"parameters": {"type": "strng"}, "plan": {"steps": [WRITER]}}
    [(place, _, cure)] = told(await checked(broken, registry()))
    assert (place, cure) == ("/parameters", "write a JSON Schema (2020-12) of the run's input")


async def test_a_plan_may_be_large_up_to_a_bound() -> None:
    step = {"agent": "plain"}
    steps = [{"key": f"s{n}", **step} for n in range(1_001)]
    steps[0]["after"] = ["s1000"]
    assert [place for place, _, _ in await of(*steps[:1000])] == ["/steps/0/after/0"]
    assert await of(*steps) == [
        (
            "/steps",
            "a plan has at most 1,000 steps, this one has 1,001; those after them were not looked at",
            "put a part of them into a child run, or go over a list with `each`",
        )
    ]
    found = await of({**WRITER, "input": "x" * 256 * 1024})
    assert found == [
        (
            "",
            "it has 262,195 bytes as JSON, 262,144 are allowed",
            "put large inputs into blobs, and parts of the plan into workflows",
        )
    ]
    found = await of(*({"key": f"s{n}", "agent": "plain", "x": 1, "y": 1} for n in range(300)))
    assert (len(found), found[-1]) == (MOST_TOLD + 1, ("", "100 more are not listed", "mend these first, and check again"))


async def test_the_plans_in_a_plan_count_too() -> None:
    inner = {"steps": [{"key": f"s{n}", "agent": "plain"} for n in range(500)]}
    steps = [{"key": "a", "run": {"plan": inner}}, {"key": "b", "run": {"plan": {"steps": inner["steps"][1:]}}}]
    assert [place for place, _, _ in await of(steps[0])] == []
    assert await of(*steps) == [
        (
            "/steps",
            "the plan has more than 1,000 steps with those of the plans in it; some were not looked at",
            "start parts of it as workflows, or go over a list with `each`",
        )
    ]


async def test_work_is_bounded_whatever_is_given() -> None:
    """Plans in plans are not read once there are too many steps, and of many misspelt names only the first get suggestions."""
    inner = {"steps": [{"key": f"s{n}", "agent": "plain"} for n in range(900)]}
    found = await checked({"steps": [{"key": f"r{n}", "run": {"plan": inner}} for n in range(20)]}, registry())
    assert (found.steps, [fault.pointer for fault in found.faults]) == (1_018, ["", "/steps"])
    names = [FoundAgent(f"agent-number-{n}", ("1",)) for n in range(200)]
    steps = [{"key": f"s{n}", "agent": f"agent-nummer-{n}"} for n in range(100)]
    faults = (await checked({"steps": steps}, MemoryRegistry(names))).faults
    meant = [fault.cure.startswith("did you mean") for fault in faults]
    assert meant == [True] * 20 + [False] * 80


async def test_an_outage_is_no_fault_of_the_plan() -> None:
    class Away(MemoryRegistry):
        async def agent(self, name: str) -> FoundAgent:
            raise Unavailable("the database is away")

    with pytest.raises(Unavailable):
        await checked({"steps": [WRITER]}, Away())
