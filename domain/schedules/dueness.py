"""Which time of a schedule is due at a moment, and what becomes of those that were missed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from domain.schedules.definition import MOST_CAUGHT_UP, MOST_COUNTED, Definition, starts_at
from domain.schedules.state import Schedule

_LEAST = timedelta(microseconds=1)


@dataclass(frozen=True)
class Missed:
    """Times that get no run."""

    first: datetime
    last: datetime
    count: int


@dataclass(frozen=True)
class Due:
    due_at: datetime | None
    """The time that gets a run. None: none does."""
    next_at: datetime | None
    """The first time after those of which this says something."""
    caught_up: int = 0
    """Missed times before it, for which its run stands, too."""
    missed: bool = False
    left_out: Missed | None = None
    """Times before it that get no run."""
    waited: bool = False
    """It has waited for the end of a run."""


def due_of(schedule_id: UUID, schedule: Schedule, at: datetime) -> Due | None:
    """What is due at a moment. None: nothing. Where several times are due, the first of those that get a run."""
    if schedule.status != "active" or schedule.definition is None:
        return None
    if (waiting := schedule.waiting) is not None:
        return Due(waiting.due_at, schedule.next_at, waiting.caught_up, waiting.missed, waited=True)
    return next_due(schedule_id, schedule, at)


def next_due(schedule_id: UUID, schedule: Schedule, at: datetime) -> Due | None:
    """The same, whatever waits."""
    first, definition = schedule.next_at, schedule.definition
    if (
        schedule.status != "active"
        or definition is None
        or first is None
        or starts_at(schedule_id, definition.jitter_s, first) > at
    ):
        return None
    jitter = timedelta(seconds=definition.jitter_s)
    missed_until = at - timedelta(seconds=definition.late_after_s) - jitter - _LEAST
    late = None if missed_until < first else definition.until(missed_until)
    if late is None or late < first:
        return Due(first, definition.after(first))
    on_time = definition.after(late)
    if on_time is not None and starts_at(schedule_id, definition.jitter_s, on_time) > at:
        on_time = None
    oldest = at - timedelta(seconds=definition.catch_up_s) - jitter
    match definition.catch_up:
        case "last" if on_time is not None:
            return Due(on_time, definition.after(on_time), caught_up=_count(definition, first, late))
        case "last" if late >= oldest:
            return Due(late, definition.after(late), caught_up=_count(definition, first, late) - 1, missed=True)
        case "all" if late >= oldest:
            begin = _first_of_last(definition, late, max(first, oldest))
            before = definition.until(begin - _LEAST)
            left_out = None if before is None or before < first else Missed(first, before, _count(definition, first, before))
            return Due(begin, definition.after(begin), missed=True, left_out=left_out)
        case _:
            left_out = Missed(first, late, _count(definition, first, late))
            if on_time is None:
                return Due(None, definition.after(late), left_out=left_out)
            return Due(on_time, definition.after(on_time), left_out=left_out)


def _first_of_last(definition: Definition, last: datetime, least: datetime) -> datetime:
    """The first of the `MOST_CAUGHT_UP` last times up to `last` that are not before `least`."""
    found = last
    for _ in range(MOST_CAUGHT_UP - 1):
        before = definition.until(found - _LEAST)
        if before is None or before < least:
            break
        found = before
    return found


def _count(definition: Definition, first: datetime, last: datetime) -> int:
    """How many times there are from one to another. Of cron, no more than `MOST_COUNTED` are counted."""
    if definition.when.every_s is not None:
        return (last - first) // timedelta(seconds=definition.when.every_s) + 1
    count, place = 1, first
    while place < last and count < MOST_COUNTED:
        following = definition.after(place)
        if following is None:
            break
        place = following
        count += 1
    return count


def next_times(definition: Definition, after: datetime, count: int) -> Iterator[datetime]:
    """The next times later than a moment, at most so many."""
    for _ in range(count):
        found = definition.after(after)
        if found is None:
            return
        yield found
        after = found
