"""Schedules: runs that begin by the clock.

times        when a schedule is due: cron in a time zone, an interval, once
definition   what a schedule is
dueness      which time is due at a moment, and what becomes of missed ones
events, commands, state, rules

A time is due, and three things can come of it: a run (`schedule.fired`, in one append with `run.started`), no run
(`schedule.skipped`, with the reason), or it waits for the end of the run before (`schedule.queued`).
"""

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
from domain.schedules.definition import (
    MOST_CAUGHT_UP,
    MOST_COUNTED,
    MOST_REFUSED,
    CatchUp,
    Definition,
    Maker,
    Overlap,
    Owner,
    ScheduleName,
    starts_at,
)
from domain.schedules.dueness import Due, Missed, due_of, next_due, next_times
from domain.schedules.events import (
    Reason,
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
from domain.schedules.rules import DECIDER, ScheduleMoved, decide, run_id_of, schedule_id_of
from domain.schedules.state import Schedule, Status, Waiting, evolve
from domain.schedules.times import Moment, When, last_until, next_after, zone_of

__all__ = [
    "DECIDER", "MOST_CAUGHT_UP", "MOST_COUNTED", "MOST_REFUSED", "CatchUp", "ChangeSchedule", "CreateSchedule",
    "Definition", "Due", "FireSchedule", "HoldSchedule", "Maker", "Missed", "Moment", "Overlap", "Owner",
    "PassSchedule", "PauseSchedule", "Reason", "RefuseSchedule", "RemoveSchedule", "ResumeSchedule", "RunNow", "Schedule",
    "ScheduleChanged", "ScheduleCommand", "ScheduleCreated", "ScheduleEvent", "ScheduleFinished", "ScheduleFired",
    "ScheduleMoved", "ScheduleName", "SchedulePaused", "ScheduleQueued", "ScheduleRemoved", "ScheduleResumed",
    "ScheduleSkipped", "Status", "Waiting", "When", "decide", "due_of", "evolve", "last_until", "next_after",
    "next_due", "next_times", "run_id_of", "schedule_id_of", "starts_at", "zone_of",
]  # fmt: skip
