"""What people, and the service that fires schedules, may ask of a schedule. Each command says when it is given."""

from datetime import datetime
from typing import Any
from uuid import UUID

from domain.kernel import Command, ShortText
from domain.schedules.definition import Definition, Maker, Owner, ScheduleName


class CreateSchedule(Command):
    schedule_id: UUID
    name: ScheduleName
    project_id: UUID
    definition: Definition
    paused: bool = False
    at: datetime
    by: str
    on_behalf_of: str | None = None
    made_by: Maker | None = None


class ChangeSchedule(Command):
    schedule_id: UUID
    changes: dict[str, Any]
    """Fields of the definition with their new values. The others stay."""
    at: datetime
    by: str
    on_behalf_of: str | None = None
    owner: Owner | None = None
    """The agent that asks. None: a client of the API does, which may change each schedule that it sees."""


class PauseSchedule(Command):
    schedule_id: UUID
    reason: ShortText | None = None
    at: datetime
    by: str
    on_behalf_of: str | None = None


class ResumeSchedule(Command):
    schedule_id: UUID
    reason: ShortText | None = None
    at: datetime
    by: str
    on_behalf_of: str | None = None


class RemoveSchedule(Command):
    schedule_id: UUID
    reason: ShortText | None = None
    at: datetime
    by: str
    on_behalf_of: str | None = None
    owner: Owner | None = None
    """As of a change."""


class RunNow(Command):
    """A run out of turn, whose start is in the same append. The times of the schedule stay as they are."""

    schedule_id: UUID
    run_id: UUID
    at: datetime
    by: str


class FireSchedule(Command):
    """A time is due, and the start of its run is in the same append."""

    schedule_id: UUID
    due_at: datetime
    run_id: UUID
    at: datetime


class HoldSchedule(Command):
    """A time is due, and a run of before has not ended."""

    schedule_id: UUID
    due_at: datetime
    behind: UUID
    at: datetime


class RefuseSchedule(Command):
    """A time is due, and its run could not be started."""

    schedule_id: UUID
    due_at: datetime
    code: str
    message: str
    at: datetime


class PassSchedule(Command):
    """Times were missed, and none of them gets a run."""

    schedule_id: UUID
    at: datetime


ScheduleCommand = (
    CreateSchedule | ChangeSchedule | PauseSchedule | ResumeSchedule | RemoveSchedule | RunNow | FireSchedule | HoldSchedule
    | RefuseSchedule | PassSchedule
)  # fmt: skip
