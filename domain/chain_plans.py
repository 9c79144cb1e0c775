"""The chain of a tool, as data: tools that are called one after the other, and how the output of one becomes the input of the next.

Expressions stand over two values: `arguments`, of the call of the chain, and `steps`, the results of the steps before by name.
"""

from collections.abc import Iterator

from pydantic import Field

from domain.kernel import Json, Name, Value
from domain.tool_policy import ArgumentName, Expression

VARIABLES = ("arguments", "steps")
MOST_STEPS = 50
MOST_ARGUMENTS = 50
MOST_TOOLS = 60
"""Different tools of a chain, with those of the chains in it."""
MAX_DEPTH = 5
"""Chains in chains."""
MAX_BYTES = 64 * 1024
"""Bytes of a chain as JSON."""


class ChainStep(Value):
    name: Name | None = None
    """None: the name of the tool."""
    tool: Name
    arguments: dict[ArgumentName, Expression] = Field(default={}, max_length=MOST_ARGUMENTS)
    """Name of an argument → CEL expression."""
    when: Expression | None = None
    """A CEL expression that is true or false. False: the step is skipped."""

    @property
    def key(self) -> str:
        return self.name or self.tool

    def expressions(self) -> Iterator[tuple[str, str]]:
        """The JSON Pointers in the step, with the expressions."""
        for name, expression in self.arguments.items():
            yield f"/arguments/{_escaped(name)}", expression
        if self.when is not None:
            yield "/when", self.when


class ChainPlan(Value):
    steps: tuple[ChainStep, ...] = Field(min_length=1, max_length=MOST_STEPS)
    result: Expression | None = None
    """A CEL expression. None: the result of the last step that was not skipped."""


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def faults_of(tool: str, plan: ChainPlan) -> Iterator[tuple[str, str]]:
    """What a chain says wrongly beside the forms of its fields, as far as it is known without its tools and its expressions."""
    seen: set[str] = set()
    for number, step in enumerate(plan.steps):
        if step.tool == tool:
            yield f"/steps/{number}/tool", "a chain does not contain itself"
        if step.key in seen:
            field = "tool" if step.name is None else "name"
            yield f"/steps/{number}/{field}", f"another step is named '{step.key}' already: each has a `name` of its own"
        seen.add(step.key)
    if len(plan.model_dump_json()) > MAX_BYTES:
        yield "", f"a chain has at most {MAX_BYTES:,} bytes"


def fault_of_names(plan: ChainPlan, before: int, names: frozenset[str]) -> str | None:
    """Why an expression that names these values cannot stand where `before` steps have gone before."""
    for name in sorted(names):
        variable, _, step = name.partition(".")
        if variable == "steps" and step and step not in [each.key for each in plan.steps[:before]]:
            later = step in [each.key for each in plan.steps]
            return f"the step '{step}' comes later" if later else f"there is no step '{step}'"
    return None


def kept_by(plan: ChainPlan, names: frozenset[str]) -> tuple[str, ...]:
    """The steps whose results are needed. `names`: the values that all expressions of the plan name."""
    needed = {name.partition(".")[2] for name in names if name.startswith("steps.")}
    if "steps" in names:
        needed = {step.key for step in plan.steps}
    if plan.result is None:  # each of these may be the last one that is not skipped
        for step in reversed(plan.steps):
            needed.add(step.key)
            if step.when is None:
                break
    return tuple(step.key for step in plan.steps if step.key in needed)


def plan_of(stored: Json) -> ChainPlan:
    """A plan as an event holds it."""
    return ChainPlan.model_validate(stored)
