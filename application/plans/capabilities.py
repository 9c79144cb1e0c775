"""Agents by what they announce: a step names a capability, and the start of its run chooses an agent for it.

Of several agents the one is chosen that a connected worker offers, of several such the one that was registered last, of those of
the same moment the first by name. A run that goes on keeps the agents that it began with.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from application.plans.likeness import similar_names
from application.suggestions import KnownNames
from domain import runs
from domain.errors import InvalidCommand
from domain.kernel import Json
from domain.plans import meant, shown

Placed = tuple[str, str]
"""JSON Pointer in the plan, and the capability that stands there."""


class KnownAgents(KnownNames, Protocol):
    async def offering(self, tenant_id: UUID, capabilities: Sequence[str]) -> Mapping[str, str]:
        """Capability → the agent that is chosen for it. Without those that no agent announces. Raises Unavailable."""
        ...

    async def capabilities(self, tenant_id: UUID) -> Sequence[str]:
        """What agents announce, a bounded number of it. Raises Unavailable."""
        ...


class UnknownCapability(InvalidCommand):
    """A step asks for a capability that no agent announces."""

    code = "unknown-capability"


async def offering(known: KnownAgents, tenant_id: UUID, wanted: Iterable[str]) -> Mapping[str, str]:
    names = sorted(set(wanted))
    return await known.offering(tenant_id, names) if names else {}


async def with_capable_agents(known: KnownAgents, tenant_id: UUID, plan: runs.Plan) -> runs.Plan:
    """The plan with an agent for each capability, also in the plans of its child runs. The same object where it has none.

    Raises UnknownCapability, which has all of those that no agent announces; Unavailable.
    """
    if plan.is_plain:
        return plan
    asked = list(_of_plan(plan))
    if not asked:
        return plan
    found = await offering(known, tenant_id, [name for _, name in asked])
    if missing := [(pointer, name) for pointer, name in asked if name not in found]:
        others = await known.capabilities(tenant_id)
        faults = [(f"/plan{pointer}", unknown_capability(name, others)) for pointer, name in missing]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UnknownCapability(faults[0][1] + more, pointer=faults[0][0], faults=faults)
    steps = tuple(_with_agent(step, found) for step in plan.steps)
    return runs.Plan.model_construct(steps=steps, result=plan.result)


def unknown_capability(name: str, others: Sequence[str]) -> str:
    cure = meant(similar_names(name, others), "")
    return f"no agent announces the capability {shown(name)}{'; ' + cure if cure else ''}"


def _of_plan(plan: runs.Plan) -> Iterator[Placed]:
    for place, step in enumerate(plan.steps):
        if step.capability is not None and step.agent is None:
            yield f"/steps/{place}/capability", step.capability
        if step.run is not None:
            yield from _of_json(step.run.plan, f"/steps/{place}/run/plan")


def _of_json(plan: Json, pointer: str) -> Iterator[Placed]:
    """Of the plan of a child run, which is JSON in the plan around it."""
    steps = plan.get("steps") if isinstance(plan, dict) else None
    for place, step in enumerate(steps if isinstance(steps, list) else ()):
        if not isinstance(step, dict):
            continue
        capability, run = step.get("capability"), step.get("run")
        if isinstance(capability, str) and step.get("agent") is None:
            yield f"{pointer}/steps/{place}/capability", capability
        if isinstance(run, dict):
            yield from _of_json(run.get("plan"), f"{pointer}/steps/{place}/run/plan")


def _with_agent(step: runs.Step, found: Mapping[str, str]) -> runs.Step:
    changed: dict[str, object] = {}
    if step.capability is not None and step.agent is None:
        changed["agent"] = found[step.capability]
    if step.run is not None and step.run.plan is not None and any(_of_json(step.run.plan, "")):
        changed["run"] = step.run.model_copy(update={"plan": _in_json(step.run.plan, found)})
    return step.model_copy(update=changed) if changed else step


def _in_json(plan: Json, found: Mapping[str, str]) -> Json:
    if not isinstance(plan, dict) or not isinstance(plan.get("steps"), list):
        return plan
    return {**plan, "steps": [_in_step(step, found) for step in plan["steps"]]}


def _in_step(step: Json, found: Mapping[str, str]) -> Json:
    if not isinstance(step, dict):
        return step
    changed = dict(step)
    if isinstance(capability := step.get("capability"), str) and step.get("agent") is None:
        changed["agent"] = found[capability]
    if isinstance(run := step.get("run"), dict) and run.get("plan") is not None:
        changed["run"] = {**run, "plan": _in_json(run["plan"], found)}
    return changed
