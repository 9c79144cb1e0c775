"""Short forms of plans, spelled out: `critic@2` for an agent and its version, `nightly@3` for a workflow and its version.

Every entrance spells a plan out before the plan is validated. Whatever is no such form stays as it is, for the validation to tell.
"""

from collections.abc import Callable, Mapping
from itertools import chain, count
from typing import Any

from domain.kernel import Json
from domain.plans import MAX_DEPTH, Gather, Plan, Step, parallel, sequential

AT = "@"
AGGREGATE = "aggregate"
"""Key of the step that gathers results without an agent."""


def name_and_version(text: str) -> tuple[str, str | None]:
    """`critic@2` is version 2 of `critic`; `critic` is whichever version is current."""
    name, at, version = text.partition(AT)
    return (name, version) if at else (text, None)


def spelled_plan(plan: Json, depth: int = 0) -> Json:
    """A plan with its steps spelled out, also those of plans inside it."""
    if not isinstance(plan, dict) or not isinstance(plan.get("steps"), list | tuple):
        return plan
    return {**plan, "steps": spelled_steps(plan["steps"], depth)}


def spelled_steps(steps: Any, depth: int = 0) -> Any:
    """Steps of a graph, as JSON."""
    return [spelled_step(step, depth) for step in steps] if isinstance(steps, list | tuple) else steps


def spelled_step(step: Any, depth: int = 0) -> Any:
    if not isinstance(step, dict):
        return step
    spelled = spelled_pair(step, "agent", "agent_version")
    if isinstance(step.get("fallbacks"), list | tuple):
        spelled["fallbacks"] = [_agent(ref) for ref in step["fallbacks"]]
    if isinstance(adaptive := step.get("adaptive"), dict) and isinstance(adaptive.get("agents"), list | tuple):
        spelled["adaptive"] = {**adaptive, "agents": [_agent(ref) for ref in adaptive["agents"]]}
    if isinstance(run := step.get("run"), dict):
        spelled["run"] = _child(run, depth)
    return spelled


def spelled_pair(said: Mapping[str, Any], name: str, version: str, of: Callable[[str], Any] = str) -> dict[str, Any]:
    """The object with `name@version` in the field `name` as two fields. An object that has both already stays as it is."""
    text = said.get(name)
    if not isinstance(text, str) or AT not in text or said.get(version) is not None:
        return dict(said)
    plain, given = name_and_version(text)
    try:
        return {**said, name: plain, version: of(given or "")}
    except ValueError:
        return dict(said)


def _agent(ref: Any) -> Any:
    """An agent that is named by a text or by an object."""
    if isinstance(ref, str):
        ref = {"agent": ref}
    return spelled_pair(ref, "agent", "agent_version") if isinstance(ref, dict) else ref


def _child(run: Mapping[str, Any], depth: int) -> dict[str, Any]:
    spelled = spelled_pair(run, "workflow", "version", int)
    if isinstance(plan := run.get("plan"), dict) and depth < MAX_DEPTH:
        spelled["plan"] = graph_of(plan, depth + 1)
    return spelled


def graph_of(plan: dict[str, Any], depth: int = 0) -> Any:
    """A plan of any kind as its steps, spelled out, without a word of its kind. What is no such plan stays as it is."""
    kind, rest = plan.get("kind"), {name: value for name, value in plan.items() if name != "kind"}
    if kind is None or kind == "graph":
        return spelled_plan(rest, depth)
    agents, aggregator, aggregate = rest.pop("agents", None), rest.pop("aggregator", None), rest.pop("aggregate", None)
    if rest or not isinstance(agents, list | tuple) or not all(isinstance(agent, str) for agent in agents):
        return plan
    try:
        if kind == "sequential" and aggregator is None and aggregate is None:
            made = of_versions(tuple(agents), sequential)
        elif kind == "parallel" and (aggregator is None or isinstance(aggregator, str)):
            made = side_by_side(tuple(agents), aggregator, None if aggregate is None else Gather.model_validate(aggregate))
        else:
            return plan
    except ValueError:  # also pydantic's
        return plan
    return made.model_dump(mode="json", exclude_defaults=True)


def side_by_side(agents: tuple[str, ...], aggregator: str | None, aggregate: Gather | None) -> Plan:
    """All agents side by side, then the aggregator with their results, or `aggregate`, which needs no agent.

    Raises ValueError, also pydantic's.
    """
    if aggregator is not None and aggregate is not None:
        raise ValueError("give either `aggregator` or `aggregate`")
    if aggregator is not None:
        return of_versions((*agents, aggregator), lambda names: parallel(names[:-1], names[-1]))
    plan = of_versions(agents, lambda names: parallel(names, None))
    if aggregate is None:
        return plan
    keys = tuple(step.key for step in plan.steps)
    own = next(key for key in chain((AGGREGATE,), (f"{AGGREGATE}-{number}" for number in count(2))) if key not in keys)
    return Plan(steps=(*plan.steps, Step(key=own, gather=aggregate, after=keys)))


def of_versions(agents: tuple[str, ...], constructor: Callable[[tuple[str, ...]], Plan]) -> Plan:
    """The plan of a constructor that gives each agent a step, in this order. An agent may be written with its version."""
    if not any(AT in agent for agent in agents):
        return constructor(agents)
    pairs = [name_and_version(agent) for agent in agents]
    plan = constructor(tuple(name for name, _ in pairs))
    steps = tuple(_of_version(step, version) for step, (_, version) in zip(plan.steps, pairs, strict=True))
    return Plan(steps=steps, result=plan.result)


def _of_version(step: Step, version: str | None) -> Step:
    return step if version is None else step.model_copy(update={"agent_version": version})
