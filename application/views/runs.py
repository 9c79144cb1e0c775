"""Runs as people see them: the whole document, and an entry of a list."""

from typing import TYPE_CHECKING, Literal
from uuid import UUID

from pydantic import BaseModel, Field, computed_field

from application.engine.ports.views import ListedRow, Timestamp
from application.views.invocations import ResolutionView
from domain import runs
from domain.failures import Failure
from domain.kernel import Json, Priority

NEWEST_CALLS = 50
"""A run shows so many of its calls. All calls have a list of their own."""

RunStatus = Literal["running", "completed", "failed", "cancelled"]
StepStatus = Literal["pending", "scheduled", "running", "retrying", "completed", "failed", "cancelled"]
CallStatus = Literal["requested", "running", "retrying", "succeeded", "failed", "ambiguous", "cancelled"]


class Folded(BaseModel):
    """A document, or a part of one, that the events of a run change field by field.

    Its fields are set as those of a plain object: pydantic would look at each change, which was valid in the event.
    """

    if not TYPE_CHECKING:
        __setattr__ = object.__setattr__


class CallView(Folded):
    key: str
    tool: str
    invocation_id: UUID
    status: CallStatus = "requested"
    attempts: int = 0
    worker_id: str | None = None
    error: Failure | None = None
    cancel_requested: bool = False
    """Whether the call was cancelled in the middle of an attempt. Such a call is not tried again."""
    effect: Literal["unknown"] | None = None
    """For a cancelled call: `unknown` if the worker of its last attempt vanished."""
    resolution: ResolutionView | None = None
    started_at: Timestamp
    finished_at: Timestamp | None = None


class RunCallView(CallView):
    """A tool call in the list of a run's calls."""

    step: str
    agent_run_id: UUID
    position: int
    """Of the event that started the call. Calls are listed in this order."""


class LargeValue(BaseModel):
    """Where a value is that is too large for a list."""

    ref: str
    """Path of the event that holds the value."""
    bytes: int
    """Size of the event."""


class JournalEntryView(BaseModel):
    """Something that an agent has finished or begun, so that its next attempt does not repeat it."""

    position: int
    at: Timestamp
    step: str | None
    """None: the agent run belongs to no step of the plan."""
    agent_run_id: UUID
    attempt: int | None
    """The attempt that wrote the entry. Null for the end of a call, which comes by itself."""
    key: str
    kind: Literal["step", "send", "receive", "state_get", "state_set", "call", "call_finished"]
    """`call`: a call was started. `call_finished`: the call has an outcome."""
    result: Json = None
    """Of a step that was recorded, also of messages and shared values."""
    large: LargeValue | None = None
    """In place of a large result."""
    tool: str | None = None
    invocation_id: UUID | None = None
    succeeded: bool | None = None
    message_id: UUID | None = None


class StepView(Folded):
    key: str
    agent: str
    agent_version: str | None = None
    version_asked: bool = False
    """Whether the plan asked for the version. Otherwise it is the one that was registered when the run started."""
    after: list[str] = []
    status: StepStatus = "pending"
    agent_run_id: UUID | None = None
    attempt: int = 0
    worker_id: str | None = None
    result: Json = None
    error: Failure | None = None
    recorded_steps: int = 0
    """Local steps in the journal: finished work that is not repeated."""
    unused_keys: list[str] = []
    """Recorded results that the last execution did not use: the agent's code was changed in between."""
    scheduled_at: Timestamp | None = None
    """When the step's work was put into the queue of its agent, the last time."""
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    call_count: int = 0
    """Tool calls of the step."""
    calls: list[CallView] = Field(
        default=[], description=f"Those of the step's calls that are among the newest {NEWEST_CALLS} of the run"
    )


class RunView(Folded):
    run_id: UUID
    project_id: UUID
    status: RunStatus
    degraded: bool = False
    missing: list[str] = []
    plan: runs.Plan
    input: Json = None
    metadata: dict[str, Json] = {}
    priority: Priority = "normal"
    error: Failure | None = None
    cancel_reason: str | None = None
    created_at: Timestamp
    updated_at: Timestamp
    finished_at: Timestamp | None = None
    version: int
    """Version of the run's stream."""
    position: int
    """Position of the last event inside the run."""
    event_count: int = 0
    message_count: int = 0
    call_count: int = 0
    """Tool calls of the run. The steps show the newest of them."""
    steps: list[StepView] = []

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def result(self) -> Json:
        """The result of the only final step. With several final steps: their results by key."""
        upstream = {key for step in self.steps for key in step.after}
        final = [step for step in self.steps if step.key not in upstream]
        if len(final) == 1:
            return final[0].result
        return {step.key: step.result for step in final if step.status == "completed"}


DEGRADED = "degraded"
"""The filter of lists for completed runs without some of their steps. The status of such a run is `completed`."""


class RunSummary(ListedRow):
    run_id: UUID
    project_id: UUID
    status: str
    degraded: bool
    missing: list[str] = []
    """Steps that failed, though the run was completed."""
    priority: Priority = "normal"
    agents: list[str]
    created_at: Timestamp
    finished_at: Timestamp | None
    position: int
    event_count: int
