"""A schedule, and how each event changes it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, assert_never
from uuid import UUID

from domain.kernel import replace
from domain.schedules.definition import Definition, Owner
from domain.schedules.events import (
    ScheduleChanged,
    ScheduleCreated,
    ScheduleEvent,
    ScheduleFinished,
    ScheduleFired,
    SchedulePaused,
    ScheduleQueued,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSkipped,
)

Status = Literal["absent", "active", "paused", "finished", "removed"]


@dataclass(frozen=True)
class Waiting:
    """A time that waits for the end of a run."""

    due_at: datetime
    caught_up: int
    missed: bool


@dataclass(frozen=True)
class Schedule:
    status: Status = "absent"
    life: int = 0
    """How often a schedule of this name was created."""
    created: ScheduleCreated | None = None
    definition: Definition | None = None
    next_at: datetime | None = None
    """The first time that nothing was decided about. While it is paused: that of before."""
    waiting: Waiting | None = None
    last_run_id: UUID | None = None
    refused: int = 0
    """Starts in a row that were refused."""

    @property
    def is_there(self) -> bool:
        return self.status not in ("absent", "removed")

    def is_of(self, owner: Owner) -> bool:
        """Whether an agent may change it."""
        created = self.created
        made_by = None if created is None else created.made_by
        return (
            created is not None and made_by is not None and (made_by.agent, created.project_id) == (owner.agent, owner.project_id)
        )


def evolve(schedule: Schedule, event: ScheduleEvent) -> Schedule:
    match event:
        case ScheduleCreated():
            return Schedule("paused" if event.paused else "active", schedule.life + 1, event, event.definition, event.next_at)
        case ScheduleChanged():
            status: Status = "active" if schedule.status == "finished" else schedule.status
            return replace(schedule, status=status, definition=event.definition, next_at=event.next_at, refused=0)
        case ScheduleFired(by=None):
            return replace(schedule, next_at=event.next_at, last_run_id=event.run_id, waiting=None, refused=0)
        case ScheduleFired():
            return replace(schedule, last_run_id=event.run_id)
        case ScheduleQueued():
            return replace(schedule, next_at=event.next_at, waiting=Waiting(event.due_at, event.caught_up, event.missed))
        case ScheduleSkipped():
            refused = schedule.refused + event.count if event.reason == "refused" else schedule.refused
            is_waiting = schedule.waiting is not None and schedule.waiting.due_at == event.due_at
            waiting = None if is_waiting else schedule.waiting
            return replace(schedule, next_at=event.next_at, waiting=waiting, refused=refused)
        case SchedulePaused():
            return replace(schedule, status="paused", waiting=None)
        case ScheduleResumed():
            return replace(schedule, status="active", next_at=event.next_at, refused=0)
        case ScheduleFinished():
            return replace(schedule, status="finished")
        case ScheduleRemoved():
            return replace(schedule, status="removed", next_at=None, waiting=None)
        case _:
            assert_never(event)
