"""Tool calls as people see them."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import Timestamp
from application.views.large import HoldsLarge, path_of_call, put_error, put_value
from domain.failures import Failure
from domain.kernel import Json

Status = Literal["requested", "running", "retrying", "succeeded", "failed", "ambiguous", "cancelled"]


class ResolutionView(HoldsLarge):
    """The resolution of an ambiguous call by a person, without the outcome."""

    by: str
    on_behalf_of: str | None = None
    """For whom `by` said it."""
    reason: str
    evidence: Json = None
    at: Timestamp


class InvocationSummary(BaseModel):
    invocation_id: UUID
    run_id: UUID
    agent_run_id: UUID
    key: str
    tool: str
    status: Status
    since: Timestamp
    """Time of the change to this status."""
    attempt: int = 0
    cancel_requested: bool = False
    """Whether the call was cancelled in the middle of an attempt. Such a call is not tried again."""


class InvocationView(InvocationSummary, HoldsLarge):
    arguments: dict[str, Json]
    idempotent: bool
    requested_at: Timestamp
    worker_id: str | None = None
    result: Json = None
    error: Failure | None = None
    effect: Literal["unknown"] | None = None
    resolution: ResolutionView | None = None
    version: int
    """Version of the call's stream."""

    def refer(self, position: int) -> None:
        """Puts references in the place of large values. `position`: of the call's last event."""
        path = path_of_call(self.invocation_id)
        put_value(self, "arguments", self.arguments, path, position, empty={})
        put_value(self, "result", self.result, path, position)
        put_error(self, self.error, path, position)
        if self.resolution is not None:
            put_value(self.resolution, "evidence", self.resolution.evidence, path, position)
