"""The facts of a run."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.failures import Failure, Retry
from domain.kernel import Event, Json, Priority
from domain.runs.plan import MAX_STEPS_V1, Plan, Step

Compensate = Literal["on_failure", "on_cancel", "on_failure_or_cancel", "never"]
"""When the effects of a run are taken back, in reverse order, by the tools that their tools name."""


class RunStarted(Event):
    TOPIC = "run.started"
    VERSION = 3
    project_id: UUID
    plan: Plan
    input: Json = None
    metadata: dict[str, Json] = {}
    versions_asked: tuple[str, ...] = ()
    """Keys of the steps whose version was asked for. The versions of the other steps are only noted."""
    priority: Priority = "normal"
    compensate: Compensate = "never"
    """When the run's effects are taken back."""

    @property
    def stored_version(self) -> int:
        if self.compensate != "never":
            return 3
        return 1 if len(self.plan.steps) <= MAX_STEPS_V1 else 2


class PlanV1(Plan):
    steps: tuple[Step, ...] = Field(min_length=1, max_length=MAX_STEPS_V1)


class RunStartedV2(RunStarted):
    """A run whose effects stay, whatever becomes of it. Such a run is still stored as version 1 or 2, so that older readers know
    it."""

    VERSION = 2


class RunStartedV1(RunStarted):
    """A plan of up to 200 steps. Such a plan is still stored as this version, so that older readers know it."""

    VERSION = 1
    plan: PlanV1


class StepScheduled(Event):
    TOPIC = "run.step_scheduled"
    step: str
    agent: str
    agent_version: str | None
    agent_run_id: UUID
    timeout_s: float | None = None
    retry: Retry = Retry()
    version_asked: bool = False
    """Whether the version was asked for. Otherwise it is the one that was registered when the run started."""
    priority: Priority = "normal"
    """The priority of the run."""


class StepCompleted(Event):
    TOPIC = "run.step_completed"
    step: str
    agent_run_id: UUID
    result: Json = None


class StepFailed(Event):
    TOPIC = "run.step_failed"
    step: str
    agent_run_id: UUID | None
    error: Failure
    tolerated: bool


class RunCompleted(Event):
    TOPIC = "run.completed"
    degraded: bool = False
    missing: tuple[str, ...] = ()
    """Steps that failed and were tolerated."""


class RunFailed(Event):
    TOPIC = "run.failed"
    step: str
    error: Failure
    abandoned: tuple[UUID, ...] = ()
    """Agent runs that were under way and must be cancelled."""
    compensate: bool = False
    """Whether the run's effects are taken back."""


class RunCancelled(Event):
    TOPIC = "run.cancelled"
    reason: str | None = None
    abandoned: tuple[UUID, ...] = ()
    compensate: bool = False


ENDS = frozenset({RunCompleted.TOPIC, RunFailed.TOPIC, RunCancelled.TOPIC})
"""Topics of the events that end a run. Each run has one of them, as its last event."""


RunEvent = RunStarted | StepScheduled | StepCompleted | StepFailed | RunCompleted | RunFailed | RunCancelled
