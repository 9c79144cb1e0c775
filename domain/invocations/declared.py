"""What a call keeps of the tools that were declared when it was requested: what is called instead, what takes its effect back."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from domain.amounts import MaxCost
from domain.approval_rules import ApprovalCheck, Demand
from domain.failures import Retry
from domain.kernel import unsaid


class CallCompensation(BaseModel):
    """The tool that takes the effect of a call back, as it was declared at the call."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tool: str
    tool_version: str | None = None
    idempotent: bool
    timeout_s: float
    retry: Retry
    reconcile_timeout_s: float | None = None
    arguments: dict[str, str] | None = None
    """Name of an argument → CEL expression. None: those of `takes`, as they are."""
    takes: tuple[str, ...] = ()
    """Which of `arguments`, `result` and `invocation_id` the tool declares as parameters."""
    on_failure: Literal["stop", "continue"] = "stop"
    approval: ApprovalCheck | None = Field(default=None, exclude_if=unsaid)
    """What says whether the call that takes the effect back needs an approval. None: it needs none."""
    max_cost: MaxCost | None = Field(default=None, exclude_if=unsaid)
    """What the tool costs at most."""


NOTHING_TAKES_IT_BACK = CallCompensation(tool="", idempotent=True, timeout_s=1, retry=Retry())
"""Of a fallback tool that names no compensation, where the tool before did: the run's compensation waits for the outcome."""


class Compensable(BaseModel):
    """What the compensation of a run keeps of an effect that can be taken back."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tool: str
    compensated_by: str
    """Empty: the tool that was called in the end names none, so there is nothing to take back."""
    on_failure: Literal["stop", "continue"] = "stop"


class FallbackTool(BaseModel):
    """A tool that is called instead, as it was declared when the call was requested."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tool: str
    tool_version: str
    idempotent: bool
    timeout_s: float
    max_attempts: int
    reconcile_timeout_s: float | None = None
    compensation: CallCompensation | None = None
    approval: Demand | None = Field(default=None, exclude_if=unsaid)
    """What the approval must be without which the tool is not called. None: it needs none."""
    untrusted: bool = Field(default=False, exclude_if=unsaid)
    """Its output holds text of strangers."""
    max_cost: MaxCost | None = Field(default=None, exclude_if=unsaid)
