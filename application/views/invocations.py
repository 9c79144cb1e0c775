"""Tool calls as people see them."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import Timestamp
from application.views.large import HoldsLarge, path_of_call, put_error, put_value
from domain.failures import Failure
from domain.invocations import AskedBy, Found
from domain.kernel import Json

Status = Literal["requested", "held", "running", "retrying", "succeeded", "failed", "ambiguous", "reconciling", "cancelled"]


class ResolutionView(HoldsLarge):
    """The resolution of an ambiguous call by a person, without the outcome."""

    by: str
    on_behalf_of: str | None = None
    """For whom `by` said it."""
    reason: str
    evidence: Json = None
    at: Timestamp


class ReconcileView(BaseModel):
    """BudgetAsking the tool's `reconcile` function about the last effect that came in doubt."""

    because: str
    """`lost`, `left`: the worker of the attempt vanished. `reported`: it had to stop the tool in the middle."""
    attempt: int
    """The attempt whose effect is in doubt."""
    since: Timestamp
    asked: int = 0
    """How often a worker began to ask."""
    failures: int = 0
    error: Failure | None = None
    """The last failure of the function."""
    outcome: Found | None = None
    """The answer. None: there is none yet, or there was none."""
    gave_up: str | None = None
    """Why a person is asked instead."""


class InvocationHead(BaseModel):
    """What the list and the single call show."""

    invocation_id: UUID
    run_id: UUID
    agent_run_id: UUID
    key: str
    tool: str
    status: Status
    since: Timestamp
    """Time of the change to this status."""
    attempt: int = 0
    fallback: str | None = None
    """The tool that is called, or that answered, instead of `tool`. None: no other one."""
    cancel_requested: bool = False
    """Whether the call was cancelled in the middle of an attempt. Such a call is not tried again."""
    asked_by: AskedBy = "agent_run"
    cached_from: UUID | None = None
    """The call whose result answered this one. None: the tool is called."""


class InvocationSummary(InvocationHead):
    arguments_preview: str | None = None
    """The beginning of the arguments as JSON, of a call that waits for a person. None: the call does not."""


class InvocationView(InvocationHead, HoldsLarge):
    arguments: dict[str, Json]
    idempotent: bool
    requested_at: Timestamp
    worker_id: str | None = None
    result: Json = None
    error: Failure | None = None
    fallback_because: str | None = None
    """The tool before `fallback`, and the beginning of its last failure. None: there is no fallback."""
    effect: Literal["unknown"] | None = None
    resolution: ResolutionView | None = None
    not_happened: ResolutionView | None = None
    """A person said last that an attempt had no effect, so that the tool could be called again."""
    reconcile: ReconcileView | None = None
    """None: the tool's `reconcile` function was not asked."""
    approval_id: UUID | None = None
    """The approval that it waits for, or waited for last. None: it needed none."""
    asked_arguments: dict[str, Json] | None = None
    """The arguments that were asked for, where a person approved the call with other ones."""
    version: int
    """Version of the call's stream."""

    def refer(self, position: int) -> None:
        """Puts references in the place of large values. `position`: of the call's last event."""
        path = path_of_call(self.invocation_id)
        put_value(self, "arguments", self.arguments, path, position, empty={})
        put_value(self, "result", self.result, path, position)
        put_error(self, self.error, path, position)
        if self.asked_arguments is not None and self.large:  # they are as large as the others, and stand in the first event
            self.asked_arguments = None
        if self.resolution is not None:
            put_value(self.resolution, "evidence", self.resolution.evidence, path, position)
        if self.not_happened is not None and self.resolution is None:
            put_value(self.not_happened, "evidence", self.not_happened.evidence, path, position)
