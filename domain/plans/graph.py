"""Plans: graphs of steps without cycles, and the constructors of the usual ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from graphlib import CycleError, TopologicalSorter
from itertools import count
from typing import Literal, NamedTuple
from uuid import UUID

from immutables import Map
from pydantic import Field, ValidationError, field_validator

from domain.failures import Failure
from domain.kernel import Json, Value, is_empty
from domain.plans.steps import MAX_DEPTH, Step, StepV3
from domain.tool_policy import Expression

MAX_STEPS = 1_000
MAX_STEPS_V1 = 200
"""Of a plan in version 1 of `run.started`."""

StepStatus = Literal["pending", "scheduled", "completed", "failed", "cancelled", "skipped"]


@dataclass(frozen=True, slots=True)
class StepState:
    status: StepStatus = "pending"
    """`scheduled`: it is under way, whatever its form."""
    agent_run_id: UUID | None = None
    result: Json = None
    error: Failure | None = None
    """Why it failed: type, message and kind."""


class Graph(NamedTuple):
    """A plan by its keys: what follows from the end of a step is found without a look at the other steps."""

    steps: Mapping[str, Step]
    """In the order of the plan."""
    places: Mapping[str, int]
    """Key of a step → its place in the plan."""
    after: Mapping[str, Sequence[str]]
    """Key of a step → the steps that come after it."""
    of_agent: Mapping[str, str]
    """Name of an agent → its first step."""
    compensates: bool
    """Whether the failure of a step takes the effects of the run back."""
    first: Sequence[str]
    """The steps that wait for none, in the order of the plan."""
    last: Sequence[str]
    """The steps that nothing comes after, in the order of the plan."""
    gathered: Mapping[str, Sequence[str]]
    """Key of a step → the steps that gather its result."""
    pending: "Map[str, StepState]"
    """The states of all steps at the start of a run."""
    waiting: Map[str, int]
    """Step → how many steps stand before it. Without those of `first`."""


def graph_of(steps: Sequence[Step]) -> Graph:
    after: dict[str, list[str]] = {}
    gathered: dict[str, list[str]] = {}
    of_agent: dict[str, str] = {}
    for step in steps:
        if step.agent is not None:
            of_agent.setdefault(step.agent, step.key)
        for before in set(step.after):
            after.setdefault(before, []).append(step.key)
            if step.gather is not None:
                gathered.setdefault(before, []).append(step.key)
    by_key, places = {step.key: step for step in steps}, {step.key: place for place, step in enumerate(steps)}
    first = [step.key for step in steps if not step.after]
    pending, waiting = (
        Map(dict.fromkeys(by_key, StepState())),
        Map({step.key: len(set(step.after)) for step in steps if step.after}),
    )
    last = [step.key for step in steps if step.key not in after]
    compensates = any(step.on_failure == "compensate" for step in steps)
    return Graph(by_key, places, after, of_agent, compensates, first, last, gathered, pending, waiting)


NO_STEPS = graph_of(())


def _check_forms(steps: Sequence[Step]) -> None:
    """What the steps of one plan must be to one another, beside a graph. Raises ValueError."""
    parted = {step.key for step in steps if step.has_parts}
    if parted:
        for step in steps:
            owner, _, part = step.key.rpartition(".")
            if owner in parted and part.isdigit():
                raise ValueError(f"the key '{step.key}' is that of a part of the step '{owner}'")
    depth, number = 1, len(steps)
    for step in steps:
        if step.run is not None and step.run.plan is not None:
            try:
                body = body_of(step)
            except ValidationError as error:
                fault = error.errors(include_url=False, include_input=False)[0]
                place = "".join(f"/{part}" for part in fault["loc"])
                raise ValueError(f"the plan of the step '{step.key}' is none: {place} {fault['msg']}".replace("  ", " ")) from None
            depth, number = max(depth, 1 + body.depth), number + body.number
    if depth > MAX_DEPTH:
        raise ValueError(f"plans are nested {depth} levels deep; {MAX_DEPTH} are the most")
    if number > MAX_STEPS:
        raise ValueError(f"the plan and those in it have {number:,} steps; {MAX_STEPS:,} are the most")


class Plan(Value):
    """A graph of steps without cycles. Sequential and parallel plans are constructors of a graph, not other engines."""

    steps: tuple[Step, ...] = Field(min_length=1, max_length=MAX_STEPS)
    result: Expression | None = Field(default=None, exclude_if=is_empty)
    """The run's result, as a CEL expression over `input`, `steps` and `metadata`. None: the result of the step that nothing comes
    after; of several such steps, their results by key."""

    @field_validator("steps")
    @classmethod
    def _is_a_graph(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        keys = {step.key for step in steps}
        if len(keys) < len(steps):
            raise ValueError("two steps have the same key")
        for step in steps:
            for upstream in step.after:
                if upstream not in keys:
                    raise ValueError(f"step '{step.key}' comes after '{upstream}', which is not a step of the plan")
        _check_forms(steps)
        before: set[str] = set()
        for step in steps:
            if not before.issuperset(step.after):
                break
            before.add(step.key)
        else:
            return steps  # each step comes after earlier ones only, so there is no cycle and nothing to sort
        try:
            TopologicalSorter({step.key: step.after for step in steps}).prepare()
        except CycleError as error:
            raise ValueError(f"the plan has a cycle: {' → '.join(error.args[1])}") from None
        return steps

    @cached_property
    def is_plain(self) -> bool:
        """Whether a release that knows only agents, their order and their inputs knows all of the plan."""
        return self.result is None and all(step.is_plain for step in self.steps)

    @cached_property
    def depth(self) -> int:
        """Levels of plans: 1 where no step has a plan of its own."""
        return 1 + max((body_of(step).depth for step in self.steps if step.has_body), default=0)

    @cached_property
    def number(self) -> int:
        """Steps of the plan, and of those in it."""
        return len(self.steps) + sum(body_of(step).number for step in self.steps if step.has_body)

    @cached_property
    def graph(self) -> Graph:
        """Made once for a plan, however many runs have it. A changed copy would keep it, so plans are made anew, not copied."""
        return graph_of(self.steps)


def body_of(step: Step) -> Plan:
    """The plan of a step's child runs, read once. Raises ValidationError."""
    assert step.run is not None
    known: tuple[Json, Plan] | None = step.__dict__.get("_body")
    if known is None or known[0] is not step.run.plan:  # a changed copy of a step takes everything over
        known = step.__dict__["_body"] = (step.run.plan, Plan.model_validate(step.run.plan))
    return known[1]


class PlanV3(Value):
    """A plan in version 3 of `run.started`, and before."""

    steps: tuple[StepV3, ...] = Field(min_length=1, max_length=MAX_STEPS)


def unique_keys(agents: tuple[str, ...]) -> list[str]:
    keys: list[str] = []
    taken: set[str] = set()
    numbers: dict[str, Iterator[int]] = {}
    for agent in agents:
        key = agent
        while key in taken:
            key = f"{agent}-{next(numbers.setdefault(agent, count(2)))}"
        keys.append(key)
        taken.add(key)
    return keys


REMEMBERED_STEPS = 20
"""Plans of more steps are made anew each time: a thousand plans of a thousand steps would take a gigabyte."""


def sequential(agents: tuple[str, ...]) -> Plan:
    """Each agent runs after the one before. A failure ends the run."""
    return (_sequential if len(agents) <= REMEMBERED_STEPS else _sequential.__wrapped__)(agents)


@lru_cache(maxsize=1_000)
def _sequential(agents: tuple[str, ...]) -> Plan:
    keys = unique_keys(agents)
    return Plan(
        steps=tuple(
            Step(key=key, agent=agent, after=(keys[i - 1],) if i else ())
            for i, (key, agent) in enumerate(zip(keys, agents, strict=True))
        )
    )


def parallel(agents: tuple[str, ...], aggregator: str | None) -> Plan:
    """All agents run side by side, then the aggregator with their results. The failure of a member is tolerated and reported."""
    return (_parallel if len(agents) <= REMEMBERED_STEPS else _parallel.__wrapped__)(agents, aggregator)


@lru_cache(maxsize=1_000)
def _parallel(agents: tuple[str, ...], aggregator: str | None) -> Plan:
    keys = unique_keys((*agents, aggregator) if aggregator else agents)
    members = tuple(Step(key=key, agent=agent, on_failure="continue") for key, agent in zip(keys, agents, strict=False))
    if aggregator is None:
        return Plan(steps=members)
    return Plan(steps=(*members, Step(key=keys[-1], agent=aggregator, after=tuple(keys[:-1]))))
