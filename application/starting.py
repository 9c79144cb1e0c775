"""Reading what a schedule or a trigger starts (`domain.starting.Target`): as people write it, and the plan that it has."""

import json
from typing import Any

from pydantic import ValidationError

from application.plans.spelling import graph_of, spelled_pair
from application.wording import meant, told
from domain import runs
from domain.errors import InvalidCommand, json_pointer
from domain.kernel import Json
from domain.starting import Target

SHORT_FORMS = (b"@", b'"kind"')
"""Without one of these a definition has no short form."""
START = "/start"
"""Where a definition has its target."""


def spelled_start(definition: dict[str, Json]) -> dict[str, Json]:
    """A definition whose `start` is spelled out: `critic@2` for an agent or a workflow, and a plan of a kind as its steps."""
    start = definition.get("start")
    if not isinstance(start, dict):
        return definition
    spelled = spelled_pair(spelled_pair(start, "agent", "agent_version"), "workflow", "version", int)
    if isinstance(plan := spelled.get("plan"), dict):
        spelled["plan"] = graph_of(plan)
    return definition if spelled == start else {**definition, "start": spelled}


def plan_of(target: Target) -> runs.Plan:
    """The plan of a target that names no workflow. Raises InvalidCommand, with pointers into the definition."""
    if target.plan is not None:
        return _plan(target.plan)
    agent = target.agent or ""
    if target.agent_version is None:
        return runs.sequential((agent,))
    return runs.Plan(steps=(runs.Step(key=agent, agent=agent, agent_version=target.agent_version),))


def _plan(plan: dict[str, Any]) -> runs.Plan:
    try:  # as JSON: a number in quotes is no number, as in the plan of a run
        return runs.Plan.model_validate_json(json.dumps(plan), strict=True)
    except ValidationError as error:
        faults = [
            (json_pointer(("start", "plan", *(part for part in fault["loc"] if part != "[key]"))), told(fault))
            for fault in meant(error.errors(include_url=False, include_input=False))
        ]
        raise InvalidCommand(faults[0][1], pointer=faults[0][0], faults=faults) from None
