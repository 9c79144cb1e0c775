"""Schedules as people see them."""

from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import ListedRow, Timestamp
from domain.kernel import Json
from domain.schedules import CatchUp, Definition, Overlap, Reason, next_times, starts_at
from domain.starting import Target

ScheduleStatus = Literal["active", "paused", "finished"]
OutcomeKind = Literal["fired", "queued", "skipped"]


class OutcomeView(BaseModel):
    """What came of a time."""

    what: OutcomeKind
    due_at: Timestamp
    at: Timestamp
    """When it was decided."""
    run_id: UUID | None = None
    """The run that was started, or that had not ended."""
    caught_up: int | None = None
    """Missed times for which this run stands, too."""
    missed: bool | None = None
    until: Timestamp | None = None
    """The last of several times that get no run."""
    count: int | None = None
    """How many they are."""
    reason: Reason | None = None
    code: str | None = None
    message: str | None = None
    by: str | None = None
    """Who asked for a run out of turn."""


class MakerView(BaseModel):
    agent: str
    run_id: UUID
    agent_run_id: UUID


class ScheduleSummary(ListedRow):
    name: str
    schedule_id: UUID
    project_id: UUID
    status: ScheduleStatus
    starts: str
    """`workflow <name>`, `agent <name>` or `plan`."""
    when: Json
    description: str | None = None
    next_at: Timestamp | None = None
    """The next time, without its jitter. Null: none is left, or the schedule is paused."""
    waiting_at: Timestamp | None = None
    """A time that waits for the end of a run."""
    last: OutcomeView | None = None
    """What came of the last time."""
    fired: int = 0
    skipped: int = 0
    refused: int = 0
    """Starts in a row that were refused."""
    reason: str | None = None
    """Why it is paused."""
    version: int


class ScheduleView(ScheduleSummary):
    start: Json = None
    start_at: Timestamp | None = None
    end_at: Timestamp | None = None
    jitter_s: int = 0
    catch_up: CatchUp = "last"
    catch_up_s: int = 0
    late_after_s: int = 0
    overlap: Overlap = "skip"
    created_at: Timestamp | None = None
    created_by: str | None = None
    on_behalf_of: str | None = None
    made_by: MakerView | None = None
    """The agent that made it. Null: a client of the API did."""
    changed_at: Timestamp | None = None
    paused_at: Timestamp | None = None
    paused_by: str | None = None
    """Null although it is paused: it was paused by itself, after refused starts."""
    recent: list[OutcomeView] = []
    """What came of the last times, the newest first."""
    next_times: list[Timestamp] = []
    """When the next runs would start, with their jitter."""

    def times_after(self, moment: datetime, count: int) -> list[datetime]:
        """When the next runs would start. None, while it is paused or finished."""
        if self.status != "active" or self.next_at is None:
            return []
        definition = Definition(when=self.when, start=Target(agent="any"), start_at=self.start_at, end_at=self.end_at)
        place = max(moment, self.next_at - timedelta(microseconds=1))
        return [starts_at(self.schedule_id, self.jitter_s, due) for due in next_times(definition, place, count)]
