"""All that is wrong with a plan, or with a workflow, at once."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pydantic_core
from pydantic import BaseModel

from application.engine.ports.expressions import Expressions
from application.plans import expressions as texts
from application.plans.inputs import Inputs, results_of
from application.plans.likeness import bounded, similar_names
from application.plans.reading import ReadAgent, Reading, ReadPlan, ReadStep, faults_of_model
from application.plans.refusal import InvalidPlan
from application.plans.registry import FoundAgent, LookedUp, Registry, looked_up
from application.views.plans import CheckedPlanView, PlanAgentView, PlanFaultView
from domain.kernel import MAX_EVENT_BYTES, Json
from domain.plans import BASE, MAX_DEPTH, MAX_STEPS, OF_UNTIL, GraphOf, PlanFlaw, faults_of_graph, faults_of_reach, meant, shown

if TYPE_CHECKING:
    from application.tool_schemas import ToolSchemas

MOST_TOLD = 500
"""Faults, and warnings, that are told of one document."""
MAX_NAMED = 5
"""Versions of an agent that a fault names: the last ones."""
AT_ONCE = 20
"""Steps that are looked at before others get their turn."""


@dataclass
class _Findings:
    faults: list[PlanFlaw] = field(default_factory=list)
    warnings: list[PlanFlaw] = field(default_factory=list)

    def add(self, fault: PlanFlaw, is_certain: bool = True) -> None:
        (self.faults if is_certain else self.warnings).append(fault)


class PlanChecks:
    def __init__(self, expressions: Expressions, *, frame: type[BaseModel] | None = None) -> None:
        """`frame`: what a workflow says around its plan."""
        self._expressions = expressions
        self._frame = frame
        self._schemas: ToolSchemas | None = None

    @property
    def schemas(self) -> "ToolSchemas":
        if self._schemas is None:
            from application.tool_schemas import ToolSchemas  # its library is large, and few processes check a plan

            self._schemas = ToolSchemas()
        return self._schemas

    async def check(self, document: Json, registry: Registry | None = None) -> CheckedPlanView:
        """`document`: a plan, or a workflow with its plan in `plan`. Without a registry no agent, capability and workflow is looked
        up.

        Pointers lead into the document. Raises Unavailable, and nothing about the document.
        """
        with bounded():
            return await self._check(document, registry)

    async def must_be_valid(self, plan: Json, registry: Registry | None, *, at: str) -> None:
        """Raises InvalidPlan, which has all faults of a plan that is a part of something. `at`: its place there. Unavailable."""
        found = await self.check(plan, registry)
        if not found.valid:
            raise InvalidPlan(found.faults, at=at)

    async def _check(self, document: Json, registry: Registry | None) -> CheckedPlanView:
        found = _Findings()
        found.faults += _faults_of_size(document)
        parameters: Json = None
        is_workflow = isinstance(document, dict) and "plan" in document
        if is_workflow:
            parameters = self._checked_frame(document, found)
        reading = Reading(found.faults)
        plan = reading.plan(document["plan"] if is_workflow else document, "/plan" if is_workflow else "")
        plans = list(plan.all())
        steps = [step for each in plans for step in each.steps]
        if reading.is_over or len(steps) > MAX_STEPS:
            found.add(_too_many(f"{plan.pointer}/steps"))
        known = LookedUp() if registry is None else await looked_up(registry, *_named_in(steps))
        inputs = Inputs(self, known)
        for each in plans:
            await self._check_plan(each, known, inputs, parameters if each is plan else None, found)
        if registry is not None and known.workflows is not None:
            for each in plans:
                await self._check_depths(each, known, registry, found)
        return CheckedPlanView(
            valid=not found.faults,
            faults=_shown(found.faults),
            warnings=_shown(found.warnings),
            steps=len(steps),
            agents=_agents_of(known),
        )

    def _checked_frame(self, document: Mapping[str, Any], found: _Findings) -> Json:
        """Checks what stands around the plan of a workflow. The JSON Schema of its input, if that can be used."""
        if self._frame is not None:
            plain = {**document, "plan": {"steps": [{"key": "a", "agent": "a"}]}}
            if "name" not in self._frame.model_fields:
                plain.pop("name", None)
            found.faults += faults_of_model(self._frame, plain, "", document)
        parameters = document.get("parameters")
        if not isinstance(parameters, dict):
            return None
        fault = self.schemas.fault_of_schema(parameters)
        if fault is None:
            return parameters
        found.add(PlanFlaw(f"/parameters{fault[0]}", fault[1], "write a JSON Schema (2020-12) of the run's input"))
        return None

    async def _check_plan(self, plan: ReadPlan, known: LookedUp, inputs: "Inputs", parameters: Json, found: _Findings) -> None:
        graph = GraphOf([step.node for step in plan.steps])
        found.faults += faults_of_graph(graph, similar_names)
        studied = texts.Studied(self._expressions)
        results = results_of(plan.steps, known, studied)
        scope = texts.Scope(plan, graph, results, inputs.schema(parameters))
        never: dict[int, str] = {}
        for place, step in enumerate(plan.steps):
            if not place % AT_ONCE:
                await asyncio.sleep(0)
            for placed in texts.expressions_of(step):
                study = studied.of(placed)
                for fault, is_certain in texts.check(placed, study, scope, place):
                    found.add(fault, is_certain)
                if study.always is False and placed.pointer == f"{step.pointer}/when":
                    never[place] = placed.pointer
                if placed.variables == OF_UNTIL and study.fault is None and not texts.names_the_turn(study):
                    found.add(_never_ends(placed.pointer), False)
            found.faults += _faults_of_agents(step, known)
            for fault, is_certain in inputs.check(step, scope, studied):
                found.add(fault, is_certain)
        found.faults += faults_of_reach(graph, never)
        if plan.result is not None:
            placed = texts.PlacedExpression(f"{plan.pointer}/result", plan.result, BASE)
            for fault, is_certain in texts.check(placed, studied.of(placed), scope, None):
                found.add(fault, is_certain)

    async def _check_depths(self, plan: ReadPlan, known: LookedUp, registry: Registry, found: _Findings) -> None:
        """Whether child runs of workflows lie too deep. A workflow that starts itself does."""
        for step in plan.steps:
            if step.workflow is None or known.workflows is None:
                continue
            child = known.workflows.get(step.workflow)
            if child is None or child.refusal is not None:
                continue
            way = await _too_deep(registry, child.plan, plan.depth + 1, (step.workflow[0],))
            if way is not None:
                detail = f"plans may be {MAX_DEPTH} levels deep, the outermost one counted, and these are deeper: {' → '.join(way)}"
                if len(set(way)) < len(way):
                    detail = f"the workflow starts itself: {' → '.join(way)}"
                found.add(
                    PlanFlaw(f"{step.pointer}/run/workflow", detail, "start another workflow, or put its steps into the plan")
                )


async def _too_deep(registry: Registry, document: Json, depth: int, way: tuple[str, ...]) -> tuple[str, ...] | None:
    """The workflows that lead too deep, or around. None: none do."""
    if depth >= MAX_DEPTH:
        return way
    plan = Reading([]).plan(document, "", depth)
    for each in plan.all():
        for step in each.steps:
            if step.workflow is None:
                continue
            further = (*way, step.workflow[0])
            if step.workflow[0] in way:
                return further
            child = await registry.workflow(*step.workflow)
            if child is not None and child.refusal is None:
                found = await _too_deep(registry, child.plan, each.depth + 1, further)
                if found is not None:
                    return found
    return None


def _faults_of_size(document: Json) -> Iterator[PlanFlaw]:
    try:
        size = len(pydantic_core.to_json(document))
    except ValueError:
        return  # it is nested too deeply, which is told where that is
    if size > MAX_EVENT_BYTES:
        detail = f"it has {size:,} bytes as JSON, {MAX_EVENT_BYTES:,} are allowed"
        yield PlanFlaw("", detail, "put large inputs into blobs, and parts of the plan into workflows")


def _too_many(pointer: str) -> PlanFlaw:
    detail = f"the plan has more than {MAX_STEPS:,} steps with those of the plans in it; some were not looked at"
    return PlanFlaw(pointer, detail, "start parts of it as workflows, or go over a list with `each`")


def _named_in(steps: Sequence[ReadStep]) -> tuple[list[str], list[str], list[tuple[str, int | None]]]:
    agents = [named.name for step in steps for named in (*((step.agent,) if step.agent else ()), *step.others)]
    capabilities = [step.capability for step in steps if step.capability is not None]
    return agents, capabilities, [step.workflow for step in steps if step.workflow is not None]


def _faults_of_agents(step: ReadStep, known: LookedUp) -> Iterator[PlanFlaw]:
    """Agents, capabilities and workflows that are not there."""
    if known.agents is not None:
        for named in (*((step.agent,) if step.agent else ()), *step.others):
            fault = _fault_of_agent(named, known.agents[named.name], known.agent_names)
            if fault is not None:
                yield fault
    if step.capability is not None and known.capabilities is not None and step.capability not in known.capabilities:
        cure = meant(similar_names(step.capability, known.capability_names), "start a worker with an agent that announces it")
        yield PlanFlaw(f"{step.pointer}/capability", f"no agent announces the capability {shown(step.capability)}", cure)
    if step.workflow is not None and known.workflows is not None:
        found = known.workflows.get(step.workflow)
        if found is None:
            cure = meant(similar_names(step.workflow[0], known.workflow_names), "publish it first")
            yield PlanFlaw(f"{step.pointer}/run/workflow", f"there is no workflow {shown(step.workflow[0])}", cure)
        elif found.refusal is not None:
            cure = "name a version that may be used, or leave `version` out"
            yield PlanFlaw(f"{step.pointer}/run/workflow", found.refusal, cure)


def _fault_of_agent(named: ReadAgent, agent: FoundAgent, names: Sequence[str]) -> PlanFlaw | None:
    if not agent.versions:
        cure = meant(similar_names(named.name, names), "start a worker that has it, with `tidelog worker --agents FOLDER`")
        return PlanFlaw(named.pointer, f"no agent {shown(named.name)} is registered", cure)
    if named.version is not None and named.version not in agent.versions:
        registered = " and ".join(agent.versions[-MAX_NAMED:])
        many = "s" if len(agent.versions) > 1 else ""
        detail = f"agent {shown(named.name)} is registered in version{many} {registered}, not {named.version[:100]}"
        return PlanFlaw(named.pointer, detail, f"ask for version {agent.version}, or for none to get the current one")
    return None


def _never_ends(pointer: str) -> PlanFlaw:
    detail = "this names neither `result` nor `iteration`, so it says the same each time"
    return PlanFlaw(pointer, detail, "let it look at `result`, or leave `until` out: the loop then runs `times` times")


def _shown(faults: Sequence[PlanFlaw]) -> list[PlanFaultView]:
    """Each once, in the order of the document."""
    found = sorted(dict.fromkeys(faults), key=lambda fault: [_place_of(part) for part in fault.pointer.split("/")])
    if len(found) > MOST_TOLD:
        more = f"{len(found) - MOST_TOLD:,} more are not listed"
        found = [*found[:MOST_TOLD], PlanFlaw("", more, "mend these first, and check again")]
    return [PlanFaultView(pointer=fault.pointer, detail=fault.detail, cure=fault.cure) for fault in found]


def _place_of(part: str) -> tuple[bool, int, str]:
    """Numbers in their order, and before names."""
    return (False, int(part), "") if part.isdecimal() and part.isascii() and len(part) < 9 else (True, 0, part)


def _agents_of(known: LookedUp) -> list[PlanAgentView]:
    of: dict[str, list[str]] = {}
    for capability, agent in (known.capabilities or {}).items():
        of.setdefault(agent, []).append(capability)
    found = sorted((known.agents or {}).items())
    return [
        PlanAgentView(name=name, version=agent.version, capabilities=of.get(name, [])) for name, agent in found if agent.versions
    ]
