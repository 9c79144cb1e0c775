"""What each command to a schedule brings about."""

from datetime import datetime
from typing import assert_never
from uuid import UUID

from pydantic import ValidationError

from domain.errors import AlreadyExists, InvalidCommand, InvalidState, NotFound, json_pointer
from domain.kernel import Decider, Event, derive_id
from domain.schedules.commands import (
    ChangeSchedule,
    CreateSchedule,
    FireSchedule,
    HoldSchedule,
    PassSchedule,
    PauseSchedule,
    RefuseSchedule,
    RemoveSchedule,
    ResumeSchedule,
    RunNow,
    ScheduleCommand,
)
from domain.schedules.definition import MOST_REFUSED, Definition, Maker
from domain.schedules.dueness import Due, due_of, next_due
from domain.schedules.events import (
    Reason,
    ScheduleChanged,
    ScheduleCreated,
    ScheduleFinished,
    ScheduleFired,
    SchedulePaused,
    ScheduleQueued,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSkipped,
)
from domain.schedules.state import Schedule, evolve

MOST_CHARACTERS = 500
"""Of the message of a refusal."""
_TIME_BITS = 0xFFFFFFFFFFFF << 80
_OF_TIMES = frozenset({"when", "start_at", "end_at"})
"""Fields of a definition that say when it is due."""


class ScheduleMoved(InvalidState):
    """What was due has been seen to, or is not due any more. Nobody but the service that fires schedules meets it."""


def schedule_id_of(tenant_id: UUID, name: str) -> UUID:
    return derive_id(tenant_id, f"schedule:{name}")


def run_id_of(schedule_id: UUID, life: int, due_at: datetime) -> UUID:
    """The id of the run of a time. It follows from the schedule and the time, so a time has one run, whoever starts it."""
    milliseconds = int(due_at.timestamp() * 1_000) << 80
    return derive_id(UUID(int=milliseconds & _TIME_BITS), f"schedule:{schedule_id}:{life}:{due_at.isoformat()}")


def decide(schedule: Schedule, command: ScheduleCommand) -> list[Event]:
    if isinstance(command, CreateSchedule):
        return _create(schedule, command)
    if not schedule.is_there:
        if schedule.status == "removed" and isinstance(command, RemoveSchedule):
            return []
        raise NotFound("there is no such schedule")
    if isinstance(command, ChangeSchedule | RemoveSchedule) and command.owner is not None and not schedule.is_of(command.owner):
        raise NotFound("there is no such schedule of this agent")
    match command:
        case ChangeSchedule():
            return _change(schedule, command)
        case PauseSchedule():
            return _pause(schedule, command)
        case ResumeSchedule():
            return _resume(schedule, command)
        case RemoveSchedule():
            return [ScheduleRemoved(**command.model_dump(exclude={"schedule_id", "owner"}))]
        case RunNow():
            fired = ScheduleFired(due_at=command.at, run_id=command.run_id, at=command.at, next_at=schedule.next_at, by=command.by)
            return [fired]
        case FireSchedule():
            due = _due(schedule, command)
            fired = ScheduleFired(
                due_at=command.due_at, run_id=command.run_id, at=command.at, next_at=due.next_at, caught_up=due.caught_up,
                missed=due.missed,
            )  # fmt: skip
            return [*_left_out(due, command.at), fired, *_end(due, command.at)]
        case HoldSchedule():
            return _hold(schedule, command)
        case RefuseSchedule():
            return _refuse(schedule, command)
        case PassSchedule():
            passed = next_due(command.schedule_id, schedule, command.at)
            if passed is None or passed.due_at is not None:
                raise ScheduleMoved("nothing was missed that gets no run")
            return [*_left_out(passed, command.at), *_end(passed, command.at, waits=schedule.waiting is not None)]
        case _:
            assert_never(command)


def _create(schedule: Schedule, command: CreateSchedule) -> list[Event]:
    definition = _anchored(command.definition, command.at)
    if schedule.is_there and schedule.created is not None:
        anchor = None if schedule.definition is None else schedule.definition.when.anchored_at
        asked = _anchored(command.definition, anchor or command.at)
        same = schedule.created.project_id == command.project_id and schedule.definition == asked
        if same and _maker(schedule.created.made_by) == _maker(command.made_by):
            return []
        raise AlreadyExists(f"a schedule '{command.name}' exists with other content")
    return [
        ScheduleCreated(
            name=command.name, project_id=command.project_id, definition=definition, next_at=_first(definition, command.at),
            at=command.at, by=command.by, on_behalf_of=command.on_behalf_of, paused=command.paused, made_by=command.made_by,
        )
    ]  # fmt: skip


def _maker(made_by: Maker | None) -> str | None:
    return None if made_by is None else made_by.agent


def _anchored(definition: Definition, at: datetime | None) -> Definition:
    """An interval without an anchor begins at a moment: it is due for the first time after one interval."""
    when = definition.when
    if when.every_s is None or when.anchored_at is not None or at is None:
        return definition
    return definition.model_copy(update={"when": when.model_copy(update={"anchored_at": at.replace(microsecond=0)})})


def _first(definition: Definition, at: datetime) -> datetime:
    """The first time. Raises InvalidCommand if there is none."""
    found = definition.after(at)
    if found is None:
        what = "the time has passed" if definition.when.at is not None else "no time is left"
        raise InvalidCommand(f"the schedule would never be due: {what}", pointer="/when")
    return found


def _change(schedule: Schedule, command: ChangeSchedule) -> list[Event]:
    was = schedule.definition
    assert was is not None
    try:
        definition = Definition.model_validate({**dict(was), **command.changes})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidCommand(first["msg"].removeprefix("Value error, "), pointer=json_pointer(first["loc"])) from None
    definition = _anchored(definition, command.at)
    if definition == was:
        return []
    same_times = all(getattr(definition, name) == getattr(was, name) for name in _OF_TIMES)
    kept = schedule.next_at if same_times else None
    return [
        ScheduleChanged(
            definition=definition, next_at=kept or _first(definition, command.at), at=command.at, by=command.by,
            on_behalf_of=command.on_behalf_of,
        )
    ]  # fmt: skip


def _pause(schedule: Schedule, command: PauseSchedule) -> list[Event]:
    if schedule.status == "paused":
        return []
    if schedule.status == "finished":
        raise InvalidState("the schedule is finished: no time is left")
    paused = SchedulePaused(**command.model_dump(exclude={"schedule_id"}))
    if (waiting := schedule.waiting) is None:
        return [paused]
    why = "the schedule was paused while this time waited"
    dropped = _skipped(waiting.due_at, "overlap", command.at, schedule.next_at, message=why, caught_up=waiting.caught_up)
    return [dropped, paused]


def _resume(schedule: Schedule, command: ResumeSchedule) -> list[Event]:
    if schedule.status != "paused":
        return []
    assert schedule.definition is not None
    next_at = schedule.definition.after(command.at)
    resumed = ScheduleResumed(next_at=next_at, **command.model_dump(exclude={"schedule_id"}))
    return [resumed] if next_at is not None else [resumed, ScheduleFinished(at=command.at)]


def _due(schedule: Schedule, command: FireSchedule | RefuseSchedule) -> Due:
    """What a command is about. Raises ScheduleMoved."""
    due = due_of(command.schedule_id, schedule, command.at)
    if due is None or due.due_at != command.due_at:
        raise ScheduleMoved(f"the schedule is not due at {command.due_at.isoformat()}")
    return due


def _hold(schedule: Schedule, command: HoldSchedule) -> list[Event]:
    due = next_due(command.schedule_id, schedule, command.at)
    if due is None or due.due_at != command.due_at:
        raise ScheduleMoved(f"the schedule is not due at {command.due_at.isoformat()}")
    assert schedule.definition is not None
    if schedule.definition.overlap == "queue" and schedule.waiting is None:
        queued = ScheduleQueued(
            due_at=command.due_at, behind=command.behind, at=command.at, next_at=due.next_at, caught_up=due.caught_up,
            missed=due.missed,
        )  # fmt: skip
        return [*_left_out(due, command.at), queued]
    why = f"run {command.behind} of the schedule had not ended"
    skipped = _skipped(command.due_at, "overlap", command.at, due.next_at, message=why, caught_up=due.caught_up)
    return [*_left_out(due, command.at), skipped, *_end(due, command.at, waits=schedule.waiting is not None)]


def _refuse(schedule: Schedule, command: RefuseSchedule) -> list[Event]:
    due = _due(schedule, command)
    message = command.message[:MOST_CHARACTERS]
    skipped = _skipped(
        command.due_at, "refused", command.at, due.next_at, code=command.code, message=message, caught_up=due.caught_up
    )
    events: list[Event] = [*_left_out(due, command.at), skipped]
    if schedule.refused + 1 >= MOST_REFUSED and due.next_at is not None:
        why = f"{schedule.refused + 1} starts in a row were refused, the last one because {message}"[:MOST_CHARACTERS]
        return [*events, SchedulePaused(at=command.at, reason=why)]
    return [*events, *_end(due, command.at)]


def _left_out(due: Due, at: datetime) -> list[Event]:
    """The times before the due one that get no run."""
    missed = due.left_out
    if missed is None:
        return []
    following = due.due_at or due.next_at
    return [
        ScheduleSkipped(
            due_at=missed.first, until=missed.last, count=missed.count, reason="missed", at=at, next_at=following
        )
    ]  # fmt: skip


def _skipped(
    due_at: datetime, reason: Reason, at: datetime, next_at: datetime | None, *, code: str | None = None,
    message: str | None = None, caught_up: int = 0,
) -> ScheduleSkipped:  # fmt: skip
    return ScheduleSkipped(
        due_at=due_at, until=due_at, count=1, reason=reason, at=at, next_at=next_at, code=code, message=message,
        caught_up=caught_up,
    )  # fmt: skip


def _end(due: Due, at: datetime, *, waits: bool = False) -> list[Event]:
    return [ScheduleFinished(at=at)] if due.next_at is None and not waits else []


DECIDER: Decider[Schedule] = Decider("schedules", Schedule, decide, evolve)
