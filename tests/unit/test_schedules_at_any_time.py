"""Any schedule, looked at at any time, over days on which clocks are changed: each of its times gets one run, or a word why not."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.kernel import Event
from domain.schedules import (
    DECIDER,
    MOST_CAUGHT_UP,
    MOST_COUNTED,
    Definition,
    PassSchedule,
    Schedule,
    ScheduleFired,
    ScheduleQueued,
    ScheduleSkipped,
    When,
    decide,
    due_of,
    next_due,
    next_times,
    run_id_of,
)
from tests.unit.test_schedules import AT, HOUR, ID, after, create, defined, fire, hold, refuse

definitions = st.builds(
    defined,
    st.one_of(
        st.builds(When, every_s=st.sampled_from([50, 600, 3600]), anchored_at=st.just(AT)),
        st.builds(
            When,
            cron=st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0,30 2 * * *", "15 1,2,3 * * *", "*/30 1-2 * * *"]),
            time_zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
        ),
    ),
    catch_up=st.sampled_from(["skip", "last", "all"]),
    catch_up_s=st.sampled_from([60, 3_600, 86_400]),
    late_after_s=st.sampled_from([1, 60, 300]),
    overlap=st.sampled_from(["skip", "queue"]),
    jitter_s=st.sampled_from([0, 0, 30]),
    end_at=st.none() | st.just(AT + 3 * HOUR),
)
BEGINS = [
    datetime(2026, 3, 28, 23, 50, tzinfo=UTC), datetime(2026, 10, 25, 0, 10, tzinfo=UTC), datetime(2026, 11, 1, 5, tzinfo=UTC),
    datetime(2026, 4, 4, 14, 30, tzinfo=UTC), datetime(2026, 10, 3, 15, tzinfo=UTC), AT,
]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    definitions,
    st.sampled_from(BEGINS),
    st.lists(st.sampled_from([-3_600, -5, 1, 40, 61, 200, 4_000]), max_size=8),
    st.randoms(use_true_random=False),
)
def test_each_time_gets_one_run_or_a_word_why_not(
    definition: Definition, begin: datetime, pauses: list[int], random: Random
) -> None:
    """The service looks after pauses, some of them backward; a run may go on, a start may be refused."""
    definition = definition.model_copy(update={"end_at": definition.end_at and begin + 3 * HOUR})
    if definition.when.every_s is not None:
        definition = definition.model_copy(update={"when": definition.when.model_copy(update={"anchored_at": begin})})
    if definition.after(begin) is None:
        return
    schedule, events, at = after(create(definition, at=begin)), list[Event](), begin
    for seconds in pauses:
        at += timedelta(seconds=seconds)
        for _ in range(MOST_CAUGHT_UP + 700):
            due = due_of(ID, schedule, at)
            if due is not None and due.waited and random.random() < 0.5:
                due = next_due(ID, schedule, at)  # the run goes on
                choices = ["hold"]
            else:
                choices = ["hold"] if due is not None and not due.waited and len(events) % 5 == 4 else ["fire", "fire", "refuse"]
            if due is None:
                break
            command: Any = PassSchedule(schedule_id=ID, at=at)
            if due.due_at is not None:
                run_id = run_id_of(ID, schedule.life, due.due_at)
                command = {
                    "fire": fire(due.due_at, at, run_id), "hold": hold(due.due_at, at), "refuse": refuse(due.due_at, at),
                }[random.choice(choices)]  # fmt: skip
            new = decide(schedule, command)
            assert new
            events += new
            schedule = DECIDER.fold(schedule, new)
            if schedule.status == "paused":
                break
    assert_each_time_once(definition, begin, schedule, events)


def assert_each_time_once(definition: Definition, begin: datetime, schedule: Schedule, events: list[Event]) -> None:
    end = schedule.next_at or datetime.max.replace(tzinfo=UTC)
    times = list(takewhile(lambda each: each < end, next_times(definition, begin, 5_000)))
    fired = [event for event in events if isinstance(event, ScheduleFired)]
    assert len({event.run_id for event in fired}) == len({event.due_at for event in fired}) == len(fired)
    queued = [event for event in events if isinstance(event, ScheduleQueued)]
    left_out = [event for event in events if isinstance(event, ScheduleSkipped)]
    told = {event.due_at: event.caught_up for event in fired} | {event.due_at: event.caught_up for event in queued}
    seen: list[datetime] = []
    told |= {event.due_at: event.caught_up for event in left_out if event.reason != "missed"}
    for due_at, caught_up in told.items():
        place = times.index(due_at)
        seen += times[place - caught_up : place + 1] if caught_up < MOST_COUNTED else []
    counted = all(event.count < MOST_COUNTED for event in left_out) and all(n < MOST_COUNTED - 1 for n in told.values())
    if not counted:
        return
    for event in left_out:
        if event.reason != "missed":
            continue
        span = times[times.index(event.due_at) : times.index(event.until) + 1]
        assert len(span) == event.count
        seen += span
    assert len(seen) == len(set(seen)), "a time counts twice"
    assert sorted(seen) == times, "a time is lost"
    if definition.catch_up == "all":
        for event in left_out:
            if event.reason == "missed":  # the newest of them: too old, or one of more than a hundred
                too_old = (event.at - event.until).total_seconds() > definition.catch_up_s + definition.jitter_s
                late = [each for each in next_times(definition, event.until, 200) if each <= event.at]
                assert too_old or len(late) >= MOST_CAUGHT_UP
