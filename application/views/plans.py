"""What is told of a plan that was checked."""

from pydantic import BaseModel


class PlanFaultView(BaseModel):
    pointer: str
    """JSON Pointer into what was given."""
    detail: str
    """What is wrong."""
    cure: str
    """What to do about it."""


class PlanAgentView(BaseModel):
    name: str
    version: str | None
    """The current one."""
    capabilities: list[str]
    """Those of the plan for which a run would get this agent now."""


class CheckedPlanView(BaseModel):
    valid: bool
    faults: list[PlanFaultView]
    warnings: list[PlanFaultView]
    """What is perhaps not meant so. A run can be started with it."""
    steps: int
    """Steps of the plan, with those of its child runs."""
    agents: list[PlanAgentView]
    """Those of the plan that are registered, by name."""
