"""What a schedule is: when it is due, what it starts, and what becomes of the times that it misses."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, field_validator, model_validator

from domain.kernel import Name, ShortText, Value
from domain.schedules.times import Moment, When, last_until, next_after
from domain.starting import Target

CatchUp = Literal["skip", "last", "all"]
"""What becomes of times that were missed, because nothing worked then: no run, one run for all of them, or a run for each."""
Overlap = Literal["skip", "queue", "cancel", "allow"]
"""What a time does whose last run has not ended: it is left out; it waits (one at most); it cancels that run; it does not care."""

MOST_CAUGHT_UP = 100
"""Missed times for which `all` starts runs: the newest."""
MOST_COUNTED = 1_000
"""Times that are counted one by one."""
MOST_REFUSED = 20
"""Refused starts in a row, after which a schedule is paused."""

ScheduleName = Annotated[Name, StringConstraints(min_length=1)]


class Maker(Value):
    """The agent that made a schedule, and the run in which it did."""

    agent: Name
    run_id: UUID
    agent_run_id: UUID
    depth: int = Field(default=0, ge=0)
    """Triggers that led to that run. The runs of the schedule are as deep."""


class Owner(Value):
    """Whose schedules an agent may change: those that an agent of its name has made in the project of its run."""

    agent: Name
    project_id: UUID


class Definition(Value):
    when: When
    start: Target
    """What each run is. `input_from` sees `schedule`, the name, and `due_at`."""
    start_at: Moment | None = None
    """No time before this one counts."""
    end_at: Moment | None = None
    """No time after this one counts."""
    jitter_s: int = Field(default=0, ge=0, le=86_400)
    """Each run starts up to so many seconds after its time. How many follows from the schedule and the time."""
    catch_up: CatchUp = "last"
    catch_up_s: int = Field(default=86_400, ge=1, le=366 * 86_400)
    """Times that were missed by more seconds get no run, whatever `catch_up` says."""
    late_after_s: int = Field(default=60, ge=1, le=86_400)
    """A time counts as missed if so many seconds have passed."""
    overlap: Overlap = "skip"
    description: ShortText | None = None

    @field_validator("start")
    @classmethod
    def _starts_runs(cls, start: Target) -> Target:
        if start.tool is not None or start.signal is not None:
            raise ValueError("a schedule starts runs: give exactly one of `workflow`, `agent` and `plan`")
        return start

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> "Definition":
        if self.start_at is not None and self.end_at is not None and self.start_at > self.end_at:
            raise ValueError("`start_at` is later than `end_at`")
        return self

    def after(self, moment: datetime) -> datetime | None:
        """The first time later than a moment, within the bounds."""
        if self.start_at is not None and moment < self.start_at:
            moment = self.start_at - timedelta(microseconds=1)
        found = next_after(self.when, moment)
        return None if found is None or (self.end_at is not None and found > self.end_at) else found

    def until(self, moment: datetime) -> datetime | None:
        """The last time that is not later than a moment, within the bounds."""
        if self.end_at is not None and moment > self.end_at:
            moment = self.end_at
        found = last_until(self.when, moment)
        return None if found is None or (self.start_at is not None and found < self.start_at) else found


def starts_at(schedule_id: UUID, jitter_s: int, due_at: datetime) -> datetime:
    """When the run of a time starts: up to `jitter_s` seconds after it. For one schedule and one time this is always the same."""
    if not jitter_s:
        return due_at
    digest = hashlib.sha256(schedule_id.bytes + due_at.astimezone(UTC).isoformat().encode()).digest()
    return due_at + timedelta(milliseconds=int.from_bytes(digest[:8], "big") % (jitter_s * 1_000))
