"""The part of `Client` that checks plans before a run has them."""

from collections.abc import Mapping
from typing import Any

from tidelog.bodies import object_of, plan_of
from tidelog.models import Model
from tidelog.requests import Requests, parse
from tidelog.transport import json_of


class PlanFault(Model):
    """`pointer`: JSON Pointer of a place in the plan. `detail`: what is wrong. `cure`: what to do about it."""

    pointer: str
    detail: str
    cure: str


class PlanAgent(Model):
    name: str
    version: str | None = None
    """The current one."""
    capabilities: tuple[str, ...] = ()
    """Those of the plan for which a run would get this agent now."""


class CheckedPlan(Model):
    valid: bool
    faults: tuple[PlanFault, ...] = ()
    warnings: tuple[PlanFault, ...] = ()
    """What is perhaps not meant so. A run can be started with it."""
    steps: int = 0
    """Of the plan, with those of its child runs."""
    agents: tuple[PlanAgent, ...] = ()
    """Those of the plan that are registered."""


class PlanChecks(Requests):
    """Checks of plans. Use it as a part of `Client`."""

    async def check_plan(self, plan: Mapping[str, Any]) -> CheckedPlan:
        """All that is wrong with a plan, at once, without any effect. A workflow, with its plan in `plan`, is checked, too."""
        if "plan" in plan:
            body = {"workflow": {**object_of({name: value for name, value in plan.items() if name != "plan"}, "the workflow")}}
            body["workflow"]["plan"] = plan_of(plan["plan"])
        else:
            body = {"plan": plan_of(plan)}
        return parse(CheckedPlan, json_of(await self._request("POST", "/v1/plans:check", body=body)))
