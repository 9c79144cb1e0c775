"""The rows of runs: a header, a row for each step whose work was requested, a row for each tool call.

What may be large stays in the log: a row holds the position of the event that has it. The fold reads none of these values.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from application.views.runs import CallStatus, RunStatus, StepStatus
from domain.kernel import Priority


@dataclass(slots=True)
class RunRow:
    run_id: UUID
    tenant_id: UUID
    project_id: UUID
    status: RunStatus
    degraded: bool
    position: int
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    start_position: int
    end_position: int | None
    version: int
    event_count: int
    message_count: int
    call_count: int
    priority: Priority
    missing_keys: str | None
    compensation_position: int | None
    agents: str | None = None
    """Written once, and not read with the other columns. The same holds for who started the run, and for whom."""
    actor: str | None = None
    on_behalf_of: str | None = None

    @property
    def missing(self) -> list[str]:
        return self.missing_keys.split(" ") if self.missing_keys else []

    @missing.setter
    def missing(self, keys: list[str]) -> None:
        self.missing_keys = " ".join(keys) or None

    @property
    def cancel_reason(self) -> str | None:
        raise NotStored("run.cancel_reason")

    @cancel_reason.setter
    def cancel_reason(self, value: str | None) -> None:
        self.end_position = self.position


@dataclass(slots=True)
class StepRow:
    run_id: UUID
    agent_run_id: UUID | None
    tenant_id: UUID
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    result_position: int | None
    error_position: int | None
    unused_position: int | None
    attempt: int
    recorded_steps: int
    call_count: int
    status: StepStatus
    step: str
    worker_id: str | None
    now: int = 0
    """Position of the event that changes the row."""

    @property
    def unused_keys(self) -> list[str]:
        raise NotStored("step.unused_keys")

    @unused_keys.setter
    def unused_keys(self, value: list[str]) -> None:
        self.unused_position = self.now if value else None


@dataclass(slots=True)
class CallRow:
    run_id: UUID
    invocation_id: UUID
    tenant_id: UUID
    agent_run_id: UUID
    position: int
    started_at: datetime
    finished_at: datetime | None
    error_position: int | None
    resolution_position: int | None
    attempts: int
    cancel_requested: bool
    status: CallStatus
    key: str
    tool: str
    worker_id: str | None
    effect: Any
    fallback: str | None = None


class NotStored(Exception):
    """A rule of the fold reads a value that rows do not hold: only the log has it."""


RUN_COLUMNS = """
r.run_id, r.tenant_id, r.project_id, r.status, r.degraded, r.position, r.created_at, r.updated_at, r.finished_at, r.start_position,
r.end_position, r.version, r.event_count, r.message_count, r.call_count, r.priority, r.missing,
r.compensation_position
"""
RUN_WIDTH = RUN_COLUMNS.count(",") + 1
STEP_COLUMNS = """
s.run_id, s.agent_run_id, s.tenant_id, s.scheduled_at, s.started_at, s.finished_at, s.result_position, s.error_position,
s.unused_position, s.attempt, s.recorded_steps, s.call_count, s.status, s.step, s.worker_id
"""
CALL_COLUMNS = """
c.run_id, c.invocation_id, c.tenant_id, c.agent_run_id, c.position, c.started_at, c.finished_at, c.error_position,
c.resolution_position, c.attempts, c.cancel_requested, c.status, c.key, c.tool, c.worker_id, c.effect,
c.fallback
"""
