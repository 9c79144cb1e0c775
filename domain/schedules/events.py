"""What happened to a schedule. Each time in these events was computed when the event was decided: reading them needs no clock."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from domain.kernel import Event
from domain.schedules.definition import Definition, Maker

Reason = Literal["overlap", "missed", "refused"]


class ScheduleCreated(Event):
    TOPIC = "schedule.created"
    name: str
    project_id: UUID
    definition: Definition
    next_at: datetime
    at: datetime
    by: str
    on_behalf_of: str | None = None
    """For whom it was created, and for whom its runs are."""
    paused: bool = False
    made_by: Maker | None = None
    """The agent that made it. None: a client of the API did."""


class ScheduleChanged(Event):
    TOPIC = "schedule.changed"
    definition: Definition
    next_at: datetime
    at: datetime
    by: str
    on_behalf_of: str | None = None


class ScheduleFired(Event):
    """A run was started, in the same append."""

    TOPIC = "schedule.fired"
    due_at: datetime
    run_id: UUID
    at: datetime
    next_at: datetime | None = None
    """None: no time is left."""
    caught_up: int = 0
    """Missed times before this one for which this run stands, too."""
    missed: bool = False
    """Whether this time itself was missed."""
    by: str | None = None
    """Who asked for a run out of turn. None: it was due."""


class ScheduleQueued(Event):
    """A time waits for the end of a run."""

    TOPIC = "schedule.queued"
    due_at: datetime
    behind: UUID
    at: datetime
    next_at: datetime | None = None
    caught_up: int = 0
    missed: bool = False


class ScheduleSkipped(Event):
    """Times that get no run."""

    TOPIC = "schedule.skipped"
    due_at: datetime
    """The first of them."""
    until: datetime
    """The last of them."""
    count: int
    reason: Reason
    at: datetime
    next_at: datetime | None = None
    code: str | None = None
    """The code of the error, where the start was refused."""
    message: str | None = None
    caught_up: int = 0
    """Missed times before it for which its run would have stood, too."""


class SchedulePaused(Event):
    TOPIC = "schedule.paused"
    at: datetime
    by: str | None = None
    """None: by itself, after refused starts."""
    on_behalf_of: str | None = None
    reason: str | None = None


class ScheduleResumed(Event):
    TOPIC = "schedule.resumed"
    at: datetime
    next_at: datetime | None
    """The first time that counts. Those that passed during the pause do not."""
    by: str
    on_behalf_of: str | None = None
    reason: str | None = None


class ScheduleFinished(Event):
    """No time is left."""

    TOPIC = "schedule.finished"
    at: datetime


class ScheduleRemoved(Event):
    TOPIC = "schedule.removed"
    at: datetime
    by: str
    on_behalf_of: str | None = None
    reason: str | None = None


ScheduleEvent = (
    ScheduleCreated | ScheduleChanged | ScheduleFired | ScheduleQueued | ScheduleSkipped | SchedulePaused | ScheduleResumed
    | ScheduleFinished | ScheduleRemoved
)  # fmt: skip
