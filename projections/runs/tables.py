"""The rows of runs: a header, a row for each step that has begun, for each part of a step, for each tool call.

What may be large stays in the log: a row holds the position of the event that has it. The fold reads none of these values.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from application.views.runs import CallStatus, PartStatus, RunStatus, StepStatus
from domain.kernel import Json, Priority
from projections.kernel import dump_json, load_json

Said = dict[str, Json]
"""What an event says of a decision about a step: fields of `WhyView`."""
ALIAS = -1
"""In place of the number of a part: the step itself, since it fell back to another agent."""


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
    has_parts: bool | None
    """Whether the plan has more than agents that each run once."""
    stored_retries: int | None
    """None: the run was never retried."""
    deadline_at: datetime | None
    pause_position: int | None = None
    """Position of the event that says why the run is paused. None: it is not."""
    agents: str | None = None
    """Written once, and not read with the other columns. The same holds for the columns that follow."""
    actor: str | None = None
    on_behalf_of: str | None = None
    parent_id: UUID | None = None
    workflow: str | None = None
    origin: str | None = None

    @property
    def retries(self) -> int:
        return self.stored_retries or 0

    @retries.setter
    def retries(self, number: int) -> None:
        self.stored_retries = number

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
class StepForm:
    """What a row has of such a step. Numbers and small values only: what may be large is named by positions of events."""

    why: Said | None = None
    input: int | None = None
    """Position of the event with the input that was made for the step."""
    until: str | None = None
    """The time that the step waits for."""
    counted: bool = False
    """Whether the step has parts. The numbers are those of `PartsView`."""
    total: int | None = None
    started: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    exhausted: bool = False
    fallbacks: list[int] = field(default_factory=list)
    """Positions of the events that say that another agent is tried."""
    execution: str | None = None
    """The agent run that is not the first one."""
    progress: Said | None = None
    """How far its agent is, as it has said last: fields of `ProgressView`."""
    taken: str | None = None
    """The agent run of the run that the step was taken over from; empty if no single one gave its result."""

    @classmethod
    def parse(cls, text: str) -> "StepForm":
        """Raises ValueError."""
        found = load_json(text)
        return cls(**{name: found[name] for name in cls.__slots__ if name in found})

    def text(self) -> str | None:
        """None: nothing to say."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return dump_json({name: value for name, value in values.items() if value not in _NOTHING}) if self != StepForm() else None


_NOTHING: tuple[object, ...] = (None, False, 0, [])


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
    stored_form: str | None = None
    now: int = 0
    """Position of the event that changes the row."""
    parsed_form: StepForm | None = None

    @property
    def form(self) -> StepForm:
        """What the step has besides. Raises ValueError for a stored text that cannot be read."""
        if self.parsed_form is None:
            self.parsed_form = StepForm() if self.stored_form is None else StepForm.parse(self.stored_form)
        return self.parsed_form

    @property
    def has_form(self) -> bool:
        return self.stored_form is not None or self.parsed_form is not None

    @property
    def form_text(self) -> str | None:
        return self.stored_form if self.parsed_form is None else self.parsed_form.text()

    @property
    def unused_keys(self) -> list[str]:
        raise NotStored("step.unused_keys")

    @unused_keys.setter
    def unused_keys(self, value: list[str]) -> None:
        self.unused_position = self.now if value else None


@dataclass(slots=True)
class PartRow:
    """A part of a step. The replay has the same of each part."""

    run_id: UUID
    step: str
    number: int
    tenant_id: UUID
    execution_id: UUID
    is_run: bool
    agent: str | None
    agent_version: str | None
    status: PartStatus
    attempt: int
    fallback: int
    worker_id: str | None
    scheduled_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    scheduled_position: int
    result_position: int | None
    error_position: int | None
    person: str | None = None
    """Who skipped it or said how it ended: `PersonView` as JSON."""


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
    step: str | None = None
    """Missing where the agent run is the step's first."""
    part: int | None = None


class NotStored(Exception):
    """A rule of the fold reads a value that rows do not hold: only the log has it."""


RUN_COLUMNS = """
r.run_id, r.tenant_id, r.project_id, r.status, r.degraded, r.position, r.created_at, r.updated_at, r.finished_at, r.start_position,
r.end_position, r.version, r.event_count, r.message_count, r.call_count, r.priority, r.missing,
r.compensation_position, r.has_parts, r.retries, r.deadline_at, r.pause_position
"""
RUN_WIDTH = RUN_COLUMNS.count(",") + 1
STEP_COLUMNS = """
s.run_id, s.agent_run_id, s.tenant_id, s.scheduled_at, s.started_at, s.finished_at, s.result_position, s.error_position,
s.unused_position, s.attempt, s.recorded_steps, s.call_count, s.status, s.step, s.worker_id, s.form
"""
PART_COLUMNS = """
p.run_id, p.step, p.number, p.tenant_id, p.execution_id, p.is_run, p.agent, p.agent_version, p.status, p.attempt, p.fallback,
p.worker_id, p.scheduled_at, p.started_at, p.finished_at, p.scheduled_position, p.result_position, p.error_position, p.person
"""
CALL_COLUMNS = """
c.run_id, c.invocation_id, c.tenant_id, c.agent_run_id, c.position, c.started_at, c.finished_at, c.error_position,
c.resolution_position, c.attempts, c.cancel_requested, c.status, c.key, c.tool, c.worker_id, c.effect,
c.fallback, c.step, c.part
"""
