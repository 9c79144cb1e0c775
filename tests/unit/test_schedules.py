"""The rules of schedules: what becomes of each time."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.errors import AlreadyExists, InvalidCommand, InvalidState, NotFound
from domain.kernel import derive_id
from domain.schedules import (
    DECIDER,
    MOST_CAUGHT_UP,
    MOST_COUNTED,
    MOST_REFUSED,
    ChangeSchedule,
    CreateSchedule,
    Definition,
    Due,
    FireSchedule,
    HoldSchedule,
    Missed,
    PassSchedule,
    PauseSchedule,
    RefuseSchedule,
    RemoveSchedule,
    ResumeSchedule,
    RunNow,
    Schedule,
    ScheduleChanged,
    ScheduleCreated,
    ScheduleFinished,
    ScheduleFired,
    ScheduleMoved,
    SchedulePaused,
    ScheduleQueued,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSkipped,
    When,
    decide,
    due_of,
    evolve,
    next_due,
    run_id_of,
    schedule_id_of,
    starts_at,
)
from domain.starting import Target

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TENANT, PROJECT, RUN, OTHER = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(4))
ID = schedule_id_of(TENANT, "nightly")


def defined(when: When | None = None, **more: Any) -> Definition:
    return Definition(when=when or When(every_s=60, anchored_at=AT), start=Target(agent="a"), **more)


def create(definition: Definition, at: datetime = AT, **more: Any) -> CreateSchedule:
    said: dict[str, Any] = {"schedule_id": ID, "name": "nightly", "project_id": PROJECT, "by": "key:a", **more}
    return CreateSchedule(definition=definition, at=at, **said)


def after(*commands: Any, schedule: Schedule | None = None) -> Schedule:
    schedule = Schedule() if schedule is None else schedule
    for command in commands:
        schedule = DECIDER.fold(schedule, decide(schedule, command))
    return schedule


def created(**more: Any) -> Schedule:
    return after(create(defined(**more)))


def fire(due_at: datetime, at: datetime | None = None, run_id: UUID = RUN) -> FireSchedule:
    return FireSchedule(schedule_id=ID, due_at=due_at, run_id=run_id, at=at or due_at)


def hold(due_at: datetime, at: datetime | None = None) -> HoldSchedule:
    return HoldSchedule(schedule_id=ID, due_at=due_at, behind=RUN, at=at or due_at)


def refuse(due_at: datetime, at: datetime | None = None, message: str = "m") -> RefuseSchedule:
    return RefuseSchedule(schedule_id=ID, due_at=due_at, code="c", message=message, at=at or due_at)


def pause(**more: Any) -> PauseSchedule:
    return PauseSchedule(schedule_id=ID, **{"at": AT, "by": "key:b", **more})


def resume(**more: Any) -> ResumeSchedule:
    return ResumeSchedule(schedule_id=ID, **{"at": AT, "by": "key:b", **more})


def skipped(due_at: datetime, at: datetime, next_at: datetime | None, reason: Any = "missed", **more: Any) -> ScheduleSkipped:
    said: dict[str, Any] = {"until": due_at, "count": 1, "reason": reason, **more}
    return ScheduleSkipped(due_at=due_at, at=at, next_at=next_at, **said)


# --- created, changed, removed ---


def test_a_new_schedule_knows_its_first_time() -> None:
    [made] = decide(Schedule(), create(defined(), on_behalf_of="ada", paused=True))
    assert made == ScheduleCreated(
        name="nightly", project_id=PROJECT, definition=defined(), next_at=AT + MINUTE, at=AT, by="key:a", on_behalf_of="ada",
        paused=True,
    )  # fmt: skip
    assert evolve(Schedule(), made).status == "paused" and created().status == "active"


def test_an_interval_begins_when_it_is_created() -> None:
    at = AT + timedelta(microseconds=1_500_000)
    [made] = decide(Schedule(), create(defined(When(every_s=60)), at=at))
    assert isinstance(made, ScheduleCreated)
    assert made.definition.when == When(every_s=60, anchored_at=AT + timedelta(seconds=1))
    assert made.next_at == AT + timedelta(seconds=61)


def test_the_same_once_more_is_nothing_new_and_another_of_the_name_is_refused() -> None:
    for when in (When(every_s=60), When(cron="0 0 * * *"), When(at=AT + DAY)):
        made = after(create(defined(when)))
        assert decide(made, create(defined(when), at=AT + MINUTE, by="key:b", paused=True)) == []
        assert decide(after(fire(made.next_at or AT), schedule=made), create(defined(when), at=AT + 2 * DAY)) == []
    for other in ({"project_id": OTHER}, {"definition": defined(overlap="allow")}):
        with pytest.raises(AlreadyExists) as refused:
            decide(created(), create(**{"definition": defined(), **other}))  # type: ignore[arg-type]
        assert refused.value.message == "a schedule 'nightly' exists with other content"


def test_what_would_never_be_due_is_refused() -> None:
    for definition, why in (
        (defined(When(at=AT)), "the time has passed"),
        (defined(end_at=AT + timedelta(seconds=59)), "no time is left"),
    ):
        with pytest.raises(InvalidCommand) as refused:
            decide(Schedule(), create(definition))
        assert (refused.value.message, refused.value.pointer) == (f"the schedule would never be due: {why}", "/when")


def change(changes: dict[str, Any], at: datetime = AT, **more: Any) -> ChangeSchedule:
    return ChangeSchedule(schedule_id=ID, changes=changes, at=at, by="key:b", **more)


def test_a_change_of_what_is_started_leaves_the_times_as_they_are() -> None:
    later = AT + 90 * MINUTE
    [changed] = decide(created(), change({"overlap": "allow"}, at=later, on_behalf_of="ada"))
    assert changed == ScheduleChanged(
        definition=defined(overlap="allow"), next_at=AT + MINUTE, at=later, by="key:b", on_behalf_of="ada"
    )
    assert after(change({"overlap": "allow"}), schedule=created()).definition == defined(overlap="allow")
    assert decide(created(), change({"overlap": "skip"})) == []


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"when": {"every_s": 3600}}, AT + 2 * HOUR),
        ({"when": {"cron": "0 0 * * *"}}, AT.replace(hour=0) + DAY),
        ({"start_at": "2027-01-01T00:00:30Z"}, datetime(2027, 1, 1, 0, 1, tzinfo=UTC)),
        ({"end_at": "2027-01-01T00:00:30Z"}, AT + HOUR + MINUTE),
    ],
)
def test_other_times_count_from_the_change_on(changes: dict[str, Any], first: datetime) -> None:
    [changed] = decide(created(), change(changes, at=AT + HOUR))
    assert isinstance(changed, ScheduleChanged) and changed.next_at == first


def test_a_change_that_makes_no_sense_is_refused_with_its_place() -> None:
    for changes, pointer, why in (
        ({"when": {"cron": "x"}}, "/when/cron", "a cron expression has five fields"),
        ({"start_at": AT + DAY, "end_at": AT}, "", "`start_at` is later than `end_at`"),
        ({"when": When(at=AT)}, "/when", "the schedule would never be due: the time has passed"),
    ):
        with pytest.raises(InvalidCommand) as refused:
            decide(created(), change(changes))
        assert refused.value.pointer == pointer and refused.value.message.startswith(why)


def test_a_change_begins_a_finished_schedule_again_and_forgets_refusals() -> None:
    once = after(create(defined(When(at=AT + MINUTE))), refuse(AT + MINUTE))
    assert (once.status, once.refused) == ("finished", 1)
    again = after(change({"when": {"at": "2026-04-01T00:00:00Z"}}, at=AT + HOUR), schedule=once)
    assert (again.status, again.refused, again.next_at) == ("active", 0, datetime(2026, 4, 1, tzinfo=UTC))
    paused = after(pause(), change({"overlap": "queue"}), schedule=created())
    assert paused.status == "paused"


def test_a_removed_schedule_is_not_there_and_its_name_can_be_given_again() -> None:
    remove = RemoveSchedule(schedule_id=ID, reason="r", at=AT, by="key:b", on_behalf_of="ada")
    assert decide(created(), remove) == [ScheduleRemoved(reason="r", at=AT, by="key:b", on_behalf_of="ada")]
    gone = after(remove, schedule=created())
    assert (gone.status, gone.next_at, gone.is_there) == ("removed", None, False)
    assert decide(gone, remove) == []
    for command in (pause(), resume(), change({}), fire(AT), RunNow(schedule_id=ID, run_id=RUN, at=AT, by="b")):
        for absent in (gone, Schedule()):
            with pytest.raises(NotFound, match="there is no such schedule"):
                decide(absent, command)
    with pytest.raises(NotFound):
        decide(Schedule(), remove)
    again = after(create(defined(overlap="allow")), schedule=gone)
    assert (again.status, again.life, again.last_run_id) == ("active", 2, None)
    assert run_id_of(ID, 1, AT) != run_id_of(ID, 2, AT)


# --- paused and resumed ---


def test_a_pause_and_its_end() -> None:
    assert decide(created(), pause(reason="r", on_behalf_of="ada")) == [
        SchedulePaused(at=AT, by="key:b", reason="r", on_behalf_of="ada")
    ]
    paused = after(pause(), schedule=created())
    assert paused.status == "paused" and decide(paused, pause(reason="another")) == []
    assert due_of(ID, paused, AT + DAY) is None and next_due(ID, paused, AT + DAY) is None
    resumed = ScheduleResumed(at=AT + DAY, next_at=AT + DAY + MINUTE, by="key:b", reason="r", on_behalf_of="ada")
    assert decide(paused, resume(at=AT + DAY, reason="r", on_behalf_of="ada")) == [resumed]
    assert decide(created(), resume()) == []
    assert after(resume(at=AT + DAY), schedule=paused).status == "active"


def test_a_pause_until_no_time_is_left() -> None:
    paused = after(create(defined(When(at=AT + MINUTE))), pause())
    assert decide(paused, resume(at=AT + HOUR)) == [
        ScheduleResumed(at=AT + HOUR, next_at=None, by="key:b"), ScheduleFinished(at=AT + HOUR)
    ]  # fmt: skip
    finished = after(resume(at=AT + HOUR), schedule=paused)
    assert finished.status == "finished" and decide(finished, resume()) == []
    with pytest.raises(InvalidState, match="the schedule is finished: no time is left"):
        decide(finished, pause())


# --- due ---


def test_a_time_is_due_when_it_has_come() -> None:
    schedule = created()
    assert due_of(ID, schedule, AT + MINUTE - timedelta(microseconds=1)) is None
    assert due_of(ID, schedule, AT + MINUTE) == Due(AT + MINUTE, AT + 2 * MINUTE)
    assert due_of(ID, Schedule(), AT) is None
    fired = ScheduleFired(due_at=AT + MINUTE, run_id=RUN, at=AT + MINUTE, next_at=AT + 2 * MINUTE)
    assert decide(schedule, fire(AT + MINUTE)) == [fired]
    done = after(fire(AT + MINUTE), schedule=schedule)
    assert (done.last_run_id, done.next_at) == (RUN, AT + 2 * MINUTE)


@pytest.mark.parametrize("command", [fire(AT + MINUTE, AT), hold(AT + MINUTE, AT), refuse(AT + MINUTE, AT), fire(AT, AT + MINUTE)])
def test_what_is_not_due_moved_on(command: Any) -> None:
    with pytest.raises(ScheduleMoved) as refused:
        decide(created(), command)
    assert refused.value.message == f"the schedule is not due at {command.due_at.isoformat()}"
    with pytest.raises(ScheduleMoved, match="nothing was missed that gets no run"):
        decide(created(), PassSchedule(schedule_id=ID, at=AT + MINUTE))


def test_the_last_time_finishes_a_schedule() -> None:
    once = after(create(defined(When(at=AT + MINUTE))))
    assert decide(once, fire(AT + MINUTE)) == [
        ScheduleFired(due_at=AT + MINUTE, run_id=RUN, at=AT + MINUTE), ScheduleFinished(at=AT + MINUTE)
    ]  # fmt: skip
    finished = after(fire(AT + MINUTE), schedule=once)
    assert finished.status == "finished" and due_of(ID, finished, AT + DAY) is None
    assert finished.is_there


def test_a_clock_that_is_set_back_meets_no_time_again() -> None:
    schedule = after(fire(AT + MINUTE, AT + MINUTE), schedule=created())
    for back in (AT, AT - DAY, AT + MINUTE):
        assert due_of(ID, schedule, back) is None


def test_jitter_puts_the_start_off_and_not_the_time() -> None:
    schedule = created(jitter_s=30)
    starts = starts_at(ID, 30, AT + MINUTE)
    assert starts > AT + MINUTE
    assert due_of(ID, schedule, starts - timedelta(milliseconds=1)) is None
    assert due_of(ID, schedule, starts) == Due(AT + MINUTE, AT + 2 * MINUTE)
    # it is missed a minute after it could have started at the latest
    assert due_of(ID, schedule, AT + MINUTE + timedelta(seconds=90)) == Due(AT + MINUTE, AT + 2 * MINUTE)
    late = due_of(ID, created(jitter_s=30, catch_up="skip"), AT + MINUTE + timedelta(seconds=90, microseconds=1))
    assert late is not None and late.left_out == Missed(AT + MINUTE, AT + MINUTE, 1)


# --- missed times: every minute, and looked at 10 minutes and 30 seconds later ---

LOOK = AT + timedelta(minutes=10, seconds=30)
NINTH, TENTH = AT + 9 * MINUTE, AT + 10 * MINUTE


def test_missed_times_without_a_run() -> None:
    schedule = created(catch_up="skip")
    left_out = Missed(AT + MINUTE, NINTH, 9)
    assert due_of(ID, schedule, LOOK) == Due(TENTH, AT + 11 * MINUTE, left_out=left_out)
    told = skipped(AT + MINUTE, LOOK, TENTH, until=NINTH, count=9)
    fired = ScheduleFired(due_at=TENTH, run_id=RUN, at=LOOK, next_at=AT + 11 * MINUTE)
    assert decide(schedule, fire(TENTH, LOOK)) == [told, fired]
    held = skipped(TENTH, LOOK, AT + 11 * MINUTE, "overlap", message=f"run {RUN} of the schedule had not ended")
    assert decide(schedule, hold(TENTH, LOOK)) == [told, held]
    assert decide(schedule, refuse(TENTH, LOOK))[0] == told


def test_one_run_for_all_missed_times() -> None:
    assert due_of(ID, created(), LOOK) == Due(TENTH, AT + 11 * MINUTE, caught_up=9)
    hourly = after(create(defined(When(every_s=3600, anchored_at=AT))))
    late = AT + 5 * HOUR + 30 * MINUTE
    assert due_of(ID, hourly, late) == Due(AT + 5 * HOUR, AT + 6 * HOUR, caught_up=4, missed=True)
    fired = ScheduleFired(due_at=AT + 5 * HOUR, run_id=RUN, at=late, next_at=AT + 6 * HOUR, caught_up=4, missed=True)
    assert decide(hourly, fire(AT + 5 * HOUR, late)) == [fired]


def test_a_run_for_each_missed_time() -> None:
    schedule = created(catch_up="all")
    for minute in range(1, 11):
        due = due_of(ID, schedule, LOOK)
        assert due == Due(AT + minute * MINUTE, AT + (minute + 1) * MINUTE, missed=minute < 10)
        schedule = after(fire(AT + minute * MINUTE, LOOK), schedule=schedule)
    assert due_of(ID, schedule, LOOK) is None


def test_the_newest_hundred_are_caught_up_with() -> None:
    late = AT + timedelta(minutes=500, seconds=30)
    due = due_of(ID, created(catch_up="all"), late)
    begin = 499 - MOST_CAUGHT_UP + 1  # the 500th is not late
    left_out = Missed(AT + MINUTE, AT + (begin - 1) * MINUTE, begin - 1)
    assert due == Due(AT + begin * MINUTE, AT + (begin + 1) * MINUTE, missed=True, left_out=left_out)


def test_what_was_missed_too_long_ago_gets_no_run() -> None:
    window = {"catch_up_s": 120, "late_after_s": 60}
    due = due_of(ID, created(catch_up="all", **window), LOOK)
    assert due == Due(NINTH, TENTH, missed=True, left_out=Missed(AT + MINUTE, AT + 8 * MINUTE, 8))
    daily = after(create(defined(When(every_s=86_400, anchored_at=AT), catch_up="last", catch_up_s=3600)))
    late = AT + DAY + 2 * HOUR
    assert due_of(ID, daily, late) == Due(None, AT + 2 * DAY, left_out=Missed(AT + DAY, AT + DAY, 1))
    assert decide(daily, PassSchedule(schedule_id=ID, at=late)) == [skipped(AT + DAY, late, AT + 2 * DAY)]
    edge = AT + DAY + HOUR
    assert due_of(ID, daily, edge) == Due(AT + DAY, AT + 2 * DAY, missed=True)


def test_a_missed_last_time_finishes_a_schedule() -> None:
    once = after(create(defined(When(at=AT + MINUTE), catch_up="skip")))
    late = AT + HOUR
    assert decide(once, PassSchedule(schedule_id=ID, at=late)) == [skipped(AT + MINUTE, late, None), ScheduleFinished(at=late)]


def test_missed_times_of_cron_are_counted_up_to_a_bound() -> None:
    minutely = after(create(defined(When(cron="* * * * *"), catch_up="skip")))
    due = due_of(ID, minutely, AT + 2_000 * MINUTE)
    assert due is not None and due.left_out == Missed(AT + MINUTE, AT + 1_998 * MINUTE, MOST_COUNTED)
    due = due_of(ID, minutely, AT + 20 * MINUTE)
    assert due is not None and due.left_out is not None and due.left_out.count == 18


# --- overlap ---


def test_a_time_that_meets_a_run_gets_none() -> None:
    why = f"run {RUN} of the schedule had not ended"
    assert decide(created(), hold(AT + MINUTE)) == [skipped(AT + MINUTE, AT + MINUTE, AT + 2 * MINUTE, "overlap", message=why)]
    once = after(create(defined(When(at=AT + MINUTE))))
    assert decide(once, hold(AT + MINUTE))[1] == ScheduleFinished(at=AT + MINUTE)


def test_a_time_waits_and_no_second_one() -> None:
    schedule = created(overlap="queue")
    queued = ScheduleQueued(due_at=AT + MINUTE, behind=RUN, at=AT + MINUTE, next_at=AT + 2 * MINUTE)
    assert decide(schedule, hold(AT + MINUTE)) == [queued]
    waiting = after(hold(AT + MINUTE), schedule=schedule)
    due = due_of(ID, waiting, AT + MINUTE)
    assert due == Due(AT + MINUTE, AT + 2 * MINUTE, waited=True) and next_due(ID, waiting, AT + MINUTE) is None
    [second] = decide(waiting, hold(AT + 2 * MINUTE))
    assert isinstance(second, ScheduleSkipped) and second.reason == "overlap"
    both = after(hold(AT + 2 * MINUTE), schedule=waiting)
    assert both.waiting == waiting.waiting
    begun = after(fire(AT + MINUTE, AT + 3 * MINUTE, OTHER), schedule=both)
    assert (begun.waiting, begun.last_run_id, begun.next_at) == (None, OTHER, AT + 3 * MINUTE)
    refused = after(refuse(AT + MINUTE, AT + 3 * MINUTE), schedule=both)
    assert (refused.waiting, refused.refused, refused.next_at) == (None, 1, AT + 3 * MINUTE)


def test_what_waits_keeps_what_it_stands_for() -> None:
    schedule = after(hold(TENTH, LOOK), schedule=created(overlap="queue"))
    [fired] = decide(schedule, fire(TENTH, LOOK + MINUTE))
    assert isinstance(fired, ScheduleFired) and (fired.caught_up, fired.missed) == (9, False)


def test_the_last_time_waits_before_a_schedule_is_finished() -> None:
    once = after(create(defined(When(at=AT + MINUTE), overlap="queue")), hold(AT + MINUTE))
    assert (once.status, once.next_at) == ("active", None)
    assert decide(once, fire(AT + MINUTE, AT + HOUR))[1] == ScheduleFinished(at=AT + HOUR)
    assert decide(once, refuse(AT + MINUTE, AT + HOUR))[1] == ScheduleFinished(at=AT + HOUR)
    two = after(create(defined(end_at=AT + 2 * MINUTE, overlap="queue")), hold(AT + MINUTE))
    assert len(decide(two, hold(AT + 2 * MINUTE))) == 1
    late = after(create(defined(end_at=AT + 2 * MINUTE, overlap="queue", catch_up="skip")), hold(AT + MINUTE))
    assert len(decide(late, PassSchedule(schedule_id=ID, at=AT + HOUR))) == 1


def test_a_pause_drops_what_waits_and_says_so() -> None:
    waiting = after(hold(AT + MINUTE), schedule=created(overlap="queue"))
    why = "the schedule was paused while this time waited"
    dropped, paused = decide(waiting, pause(at=AT + HOUR))
    assert dropped == skipped(AT + MINUTE, AT + HOUR, AT + 2 * MINUTE, "overlap", message=why)
    assert isinstance(paused, SchedulePaused) and after(pause(), schedule=waiting).waiting is None


def test_a_run_out_of_turn_leaves_the_times_as_they_are() -> None:
    now = RunNow(schedule_id=ID, run_id=OTHER, at=AT + timedelta(seconds=7), by="key:b")
    fired = ScheduleFired(due_at=now.at, run_id=OTHER, at=now.at, next_at=AT + MINUTE, by="key:b")
    assert decide(created(), now) == [fired]
    waiting = after(hold(AT + MINUTE), schedule=created(overlap="queue"))
    done = after(now, schedule=waiting)
    assert (done.last_run_id, done.next_at, done.waiting) == (OTHER, AT + 2 * MINUTE, waiting.waiting)
    refused = after(refuse(AT + MINUTE), now, schedule=created())
    assert refused.refused == 1


# --- refusals ---


def test_a_refused_start_is_told_and_the_schedule_goes_on() -> None:
    [told] = decide(created(), refuse(AT + MINUTE, message="x" * 600))
    assert told == skipped(AT + MINUTE, AT + MINUTE, AT + 2 * MINUTE, "refused", code="c", message="x" * 500)
    once = after(create(defined(When(at=AT + MINUTE))))
    assert decide(once, refuse(AT + MINUTE))[1] == ScheduleFinished(at=AT + MINUTE)


def test_refusals_in_a_row_pause_a_schedule() -> None:
    schedule = created()
    for number in range(1, MOST_REFUSED):
        schedule = after(refuse(AT + number * MINUTE), schedule=schedule)
    assert (schedule.status, schedule.refused) == ("active", MOST_REFUSED - 1)
    last = AT + MOST_REFUSED * MINUTE
    assert after(fire(last), schedule=schedule).refused == 0
    events = decide(schedule, refuse(last, message="no agent"))
    why = f"{MOST_REFUSED} starts in a row were refused, the last one because no agent"
    assert events[1:] == [SchedulePaused(at=last, reason=why)]
    paused = after(refuse(last, message="m" * 600), schedule=schedule)
    assert paused.status == "paused" and len(events) == 2
    again = after(resume(at=last + HOUR), schedule=paused)
    assert (again.status, again.refused) == ("active", 0)
    kept = after(hold(last), schedule=schedule)
    assert kept.refused == MOST_REFUSED - 1
    [*_, long] = decide(schedule, refuse(last, message="m" * 600))
    assert isinstance(long, SchedulePaused) and len(long.reason or "") == 500


def test_the_id_of_a_run_has_the_time_of_its_time() -> None:
    found = run_id_of(ID, 1, AT)
    assert found.int >> 80 == int(AT.timestamp() * 1_000)
    assert len({found, run_id_of(ID, 1, AT + MINUTE), run_id_of(OTHER, 1, AT), run_id_of(ID, 2, AT)}) == 4
    assert schedule_id_of(TENANT, "a") == derive_id(TENANT, "schedule:a")
