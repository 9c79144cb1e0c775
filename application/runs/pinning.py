"""The agents that a plan names, in its steps and in the plans inside it, and the plan with the version of each of them."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from domain.plans import AgentRef, ChildRun, Plan, Step, body_of
from domain.runs import allowed_name, fallback_name


class NamedAgent(NamedTuple):
    step: int
    """Index of the step in the run's own plan."""
    place: str
    """Where the agent stands in the step, as a JSON pointer: `/agent`."""
    agent: str
    version: str | None
    """None: not asked for."""


def agents_of(plan: Plan) -> Iterator[NamedAgent]:
    """All agents, in the order in which `pinned` takes their versions."""
    for index, step in enumerate(plan.steps):
        if step.is_plain:
            assert step.agent is not None
            yield NamedAgent(index, "/agent", step.agent, step.agent_version)
        else:
            yield from (NamedAgent(index, *named) for named in _of_step(step, ""))


def _of_step(step: Step, at: str) -> Iterator[tuple[str, str, str | None]]:
    if step.agent is not None:
        yield f"{at}/agent", step.agent, step.agent_version
    for number, ref in enumerate(step.fallbacks):
        yield f"{at}/fallbacks/{number}/agent", ref.agent, ref.agent_version
    if step.adaptive is not None:
        for number, ref in enumerate(step.adaptive.agents):
            yield f"{at}/adaptive/agents/{number}/agent", ref.agent, ref.agent_version
    if step.has_body:
        for index, inner in enumerate(body_of(step).steps):
            yield from _of_step(inner, f"{at}/run/plan/steps/{index}")


def pinned(plan: Plan, versions: Iterator[str | None]) -> Plan:
    """The plan with a version for each of `agents_of`."""
    steps = tuple(_pinned(step, versions) for step in plan.steps)
    return Plan.model_construct(steps=steps, result=plan.result)  # a copy of the plan would keep its graph, with the other steps


def _pinned(step: Step, versions: Iterator[str | None]) -> Step:
    changes: dict[str, Any] = {}
    if step.agent is not None:
        changes["agent_version"] = next(versions)
    if step.fallbacks:
        changes["fallbacks"] = tuple(_ref(ref, versions) for ref in step.fallbacks)
    if step.adaptive is not None:
        refs = tuple(_ref(ref, versions) for ref in step.adaptive.agents)
        changes["adaptive"] = step.adaptive.model_copy(update={"agents": refs})
    if step.run is not None and step.has_body:
        body = body_of(step)
        plan = pinned(body, versions).model_dump(mode="json", exclude_defaults=True)
        changes["run"] = step.run.model_copy(update={"plan": plan, "versions_asked": asked_in(body)})
    return step.model_copy(update=changes) if changes else step


def _ref(ref: AgentRef, versions: Iterator[str | None]) -> AgentRef:
    return AgentRef(agent=ref.agent, agent_version=next(versions))


def unpinned(plan: Plan, asked: Collection[str]) -> Plan:
    """A started plan without the versions that its start has looked up. `asked`: `versions_asked` of the run."""
    wanted = frozenset(asked)
    steps = tuple(_unpinned(step, wanted) for step in plan.steps)
    return Plan.model_construct(steps=steps, result=plan.result)


def _unpinned(step: Step, asked: frozenset[str]) -> Step:
    changes: dict[str, Any] = {}
    if step.agent_version is not None and step.key not in asked:
        changes["agent_version"] = None
    if step.fallbacks:
        changes["fallbacks"] = tuple(
            ref if fallback_name(step.key, number) in asked else AgentRef(agent=ref.agent)
            for number, ref in enumerate(step.fallbacks, 1)
        )
    if step.adaptive is not None:
        refs = tuple(
            ref if allowed_name(step.key, number) in asked else AgentRef(agent=ref.agent)
            for number, ref in enumerate(step.adaptive.agents)
        )
        changes["adaptive"] = step.adaptive.model_copy(update={"agents": refs})
    if step.run is not None and step.has_body:
        body = unpinned(body_of(step), step.run.versions_asked).model_dump(mode="json", exclude_defaults=True)
        changes["run"] = step.run.model_copy(update={"plan": body, "versions_asked": ()})
    return step.model_copy(update=changes) if changes else step


def asked_in(plan: Plan) -> tuple[str, ...]:
    """What of a plan's own steps is asked for by version: `versions_asked` of the run that carries the plan out."""
    asked: list[str] = []
    for step in plan.steps:
        if step.agent_version is not None:
            asked.append(step.key)
        asked += [fallback_name(step.key, number) for number, ref in enumerate(step.fallbacks, 1) if ref.agent_version is not None]
        if step.adaptive is not None:
            refs = enumerate(step.adaptive.agents)
            asked += [allowed_name(step.key, number) for number, ref in refs if ref.agent_version is not None]
    return tuple(asked)


def is_asked_for(asked: Plan, started: Plan) -> bool:
    """Whether a plan is the started plan, apart from what the start has looked up: versions, agents with a capability, the plans of
    workflows."""
    if len(asked.steps) != len(started.steps) or asked.result != started.result:
        return False
    return all(a == (s if a is s else _as_asked(a, s)) for a, s in zip(asked.steps, started.steps, strict=True))


def _as_asked(asked: Step, started: Step) -> Step:
    """A started step without what the start has looked up."""
    looked_up: dict[str, Any] = {} if asked.agent_version else {"agent_version": None}
    if asked.agent is None and started.capability is not None:
        looked_up["agent"] = None
    if asked.fallbacks and len(asked.fallbacks) == len(started.fallbacks):
        looked_up["fallbacks"] = _refs(asked.fallbacks, started.fallbacks)
    one, other = asked.adaptive, started.adaptive
    if one is not None and other is not None and len(one.agents) == len(other.agents):
        looked_up["adaptive"] = other.model_copy(update={"agents": _refs(one.agents, other.agents)})
    if asked.run is not None and started.run is not None:
        looked_up["run"] = _run(asked, asked.run, started, started.run)
    return started.model_copy(update=looked_up) if looked_up else started


def _refs(asked: tuple[AgentRef, ...], started: tuple[AgentRef, ...]) -> tuple[AgentRef, ...]:
    pairs = zip(asked, started, strict=True)
    return tuple(s if a.agent_version else AgentRef(agent=s.agent) for a, s in pairs)


def _run(asked: Step, of: ChildRun, started: Step, child: ChildRun) -> ChildRun:
    if of.plan is None:
        return ChildRun(workflow=child.workflow or of.workflow, version=child.version if of.version is not None else None)
    same = child.plan is not None and is_asked_for(body_of(asked), body_of(started))
    return of if same and (of.workflow, of.version) == (child.workflow, child.version) else child
