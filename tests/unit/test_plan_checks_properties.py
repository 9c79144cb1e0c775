"""Whatever comes in as a plan: the check answers, and each pointer leads into the document."""

from typing import Any

import pydantic_core
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.expressions import CelExpressions
from application.plans.check import PlanChecks
from domain.plans import Plan, Step
from tests.kit.plans import MemoryRegistry
from tests.unit.test_plan_checks import AGENTS, CRITIC, WORKFLOWS, WRITER

EXPRESSIONS = CelExpressions()
KEYS = st.sampled_from(["a", "b", "c", "a.0", "A", "", "#0", "w"])
NAMES = st.sampled_from(["writer", "critic", "critic@1", "plain@9", "nobody", "x@", "writing", "tell", "around", "/~"])
TEXTS = st.sampled_from([
    "true", "false", "input", "steps.a.result", "steps.b.status == 'completed'", "item.x", "last", "result", "1 +", "steps", "[1]",
    "has(steps.c.result.title)", "steps.a.result.title.x", "steps.w.error", "[1].map(x, steps.a)", "steps[input.x]", "\x00",
    "a" * 2_001, "steps['/~'].result", "'\ud800'",
])  # fmt: skip
FIELDS = [
    *Plan.model_fields, *Step.model_fields, "kind", "agents", "aggregator", "plan", "workflow", "version", "over", "until", "times",
    "mode", "count", "good", "by", "s", "parameters", "type", "properties", "/", "~", "x/y~z", "",
]  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2_000), st.floats(allow_nan=False), KEYS, NAMES, TEXTS, st.integers(10**30, 10**31),
    st.sampled_from(["graph", "sequential", "parallel", "any", "all", "vote", "first_good", "object", "string", "continue"]),
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5), max_leaves=25
)
STEPS = st.fixed_dictionaries(
    {},
    optional={
        "key": KEYS, "agent": NAMES, "capability": NAMES, "after": st.lists(KEYS, max_size=3), "when": TEXTS,
        "input_from": TEXTS | st.dictionaries(NAMES, TEXTS, max_size=2), "input": ANYTHING, "value": TEXTS,
        "each": st.fixed_dictionaries({"over": TEXTS}), "repeat": st.fixed_dictionaries({"times": st.just(2), "until": TEXTS}),
        "gather": st.fixed_dictionaries({"mode": st.sampled_from(["any", "all", "vote"]), "count": st.integers(1, 4)}),
        "run": st.fixed_dictionaries({"workflow": NAMES}) | st.fixed_dictionaries({"plan": ANYTHING}), "fallbacks": st.lists(NAMES),
        "wait": st.fixed_dictionaries({"until": TEXTS}), "adaptive": st.fixed_dictionaries({"agents": st.lists(NAMES, max_size=2)}),
    },
)  # fmt: skip
PLANS = st.fixed_dictionaries({"steps": st.lists(STEPS | ANYTHING, max_size=6)}, optional={"result": TEXTS, "kind": LEAVES})
DOCUMENTS = st.one_of(ANYTHING, PLANS, st.fixed_dictionaries({"plan": PLANS}, optional={"parameters": ANYTHING}))


def lead_to(document: Any, pointer: str) -> Any:
    """What stands at a pointer. Raises LookupError."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(document, dict | list):
            raise LookupError(pointer)
        document = document[int(name)] if isinstance(document, list) else document[name]
    return document


@settings(max_examples=400, deadline=None)
@given(DOCUMENTS)
async def test_each_fault_has_a_place_in_the_document_and_a_cure(document: Any) -> None:
    for known in (None, MemoryRegistry(AGENTS, {"writing": "writer"}, WORKFLOWS)):
        found = await PlanChecks(EXPRESSIONS).check(document, known)
        assert found.valid is not bool(found.faults)
        for fault in (*found.faults, *found.warnings):
            lead_to(document, fault.pointer)
            assert fault.detail and fault.cure


KINDS_OF_TEXTS = (
    "steps.{0}.result != null", "steps.{0}.status == 'failed'", "has(steps.{0}.error) || string(steps.{1}.result) > 'a'",
    "input.x == {2}",
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Plans that are nearly sound: each step comes after some of those before it."""
    keys = [f"s{n}" for n in range(draw(st.integers(2, 6)))]
    steps: list[dict[str, Any]] = []
    for place, key in enumerate(keys):
        before = draw(st.lists(st.sampled_from(keys[:place]), unique=True)) if place else []
        text = draw(st.sampled_from(KINDS_OF_TEXTS)).format(draw(st.sampled_from(keys)), draw(st.sampled_from(keys)), place)
        step: dict[str, Any] = {"key": key, "after": before}
        step |= (
            {"value": text}
            if draw(st.booleans())
            else {"agent": "plain"}
            if draw(st.booleans())
            else {"agent": "plain", "when": text}
        )
        steps.append(step)
    return {"steps": steps}


@settings(max_examples=300, deadline=None)
@given(graphs())
async def test_what_the_expressions_of_a_sound_plan_name_is_there(document: dict[str, Any]) -> None:
    """A plan without faults is a plan, and no expression of it meets a step that has not ended."""
    found = await PlanChecks(EXPRESSIONS).check(document, MemoryRegistry(AGENTS))
    plan = Plan.model_validate_json(pydantic_core.to_json(document), strict=True)
    before: dict[str, set[str]] = {}
    ended: dict[str, Any] = {"status": "completed", "result": 3, "error": None}
    errors = []
    for step in plan.steps:
        before[step.key] = set(step.after).union(*(before[key] for key in step.after))
        values = {"input": {"x": 1}, "steps": dict.fromkeys(before[step.key], ended), "metadata": {}}
        errors += [EXPRESSIONS.evaluate(text, values).error for text in (step.when, step.value) if text is not None]
    assert not (found.valid and any(errors)), errors


async def test_values_nested_very_deeply() -> None:
    deep: Any = 1
    for _ in range(2_000):
        deep = [deep]
    for document in (deep, {"steps": [{**WRITER, "input": deep}]}, {"steps": deep}, {"steps": [{**CRITIC, "run": {"plan": deep}}]}):
        found = await PlanChecks(EXPRESSIONS).check(document, MemoryRegistry(AGENTS))
        assert not found.valid
    plan: Any = {"steps": [WRITER]}
    for _ in range(500):
        plan = {"steps": [{"key": "a", "run": {"plan": plan}}]}
    assert not (await PlanChecks(EXPRESSIONS).check(plan)).valid
