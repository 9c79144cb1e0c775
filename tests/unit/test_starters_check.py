"""The check of what starts by itself (tests/chaos/checks/starters.py) sees what is missing and what is there twice."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from domain import runs, schedules, triggers
from domain.kernel import Event, RecordedEvent
from tests.chaos.checks.snapshot import Fact, Snapshot
from tests.chaos.checks.starters import check_schedules, check_triggers, count, started_by
from tests.kit.waiting import TENANT, new_id

AT = datetime(2026, 1, 1, tzinfo=UTC)
SCHEDULE, TRIGGER = new_id(), new_id()


class Log:
    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def add(self, stream: UUID, event: Event) -> str:
        version = 1 + sum(fact.recorded.stream_id == stream for fact in self.facts)
        recorded = RecordedEvent(len(self.facts) + 1, TENANT, stream, version, stream, event.TOPIC, 1, b"", "", AT)
        self.facts.append(Fact(recorded, event))
        return recorded.name

    def run(self, **origin: Any) -> tuple[UUID, str]:
        run_id, plan = new_id(), runs.sequential(("a",))
        started = runs.RunStarted(project_id=TENANT, plan=plan, origin=runs.Origin(**origin) if origin else None)
        return run_id, self.add(run_id, started)

    def time(self, second: int) -> str:
        """A time of the schedule, with its run. Returns the name of the start."""
        due_at = AT + timedelta(seconds=second)
        run_id, name = self.run(kind="schedule", name="s", due_at=due_at)
        self.add(SCHEDULE, schedules.ScheduleFired(due_at=due_at, run_id=run_id, at=AT))
        return name

    def fire(self, event: str, **more: Any) -> None:
        run_id, _ = self.run(kind="trigger", name="t", event=event, depth=1)
        self.add(TRIGGER, triggers.TriggerFired(name="t", event=event, run_id=run_id, minute=0))

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot("", AT, len(self.facts), [], [], {}, [], {}, self.facts)


def rules(log: Log) -> list[str]:
    found = [*check_schedules(log.snapshot, 1), *check_triggers(log.snapshot, {"t": started_by("schedule", "s")}, {})]
    return [violation.rule for violation in found]


def right() -> Log:
    log = Log()
    created = triggers.TriggerCreated.model_construct(name="t", definition={}, hook_id=None, within=None)
    log.add(TRIGGER, created)
    for second in range(3):
        log.fire(log.time(second))
    return log


def test_what_is_right_is_no_violation() -> None:
    assert rules(right()) == [] and count(right().snapshot) == (3, 3)


def test_a_time_without_a_run_and_a_run_without_a_time() -> None:
    log = right()
    log.add(SCHEDULE, schedules.ScheduleFired(due_at=AT + timedelta(seconds=3), run_id=new_id(), at=AT))
    assert rules(log) == ["each-time-has-its-run"]
    log = right()
    log.fire(log.run(kind="schedule", name="s", due_at=AT)[1])
    assert rules(log) == ["each-run-has-its-time"]


def test_a_time_that_is_left_out_and_one_that_comes_twice() -> None:
    log = right()
    log.fire(log.time(4))
    assert rules(log) == ["each-time-once-and-in-order"]
    log = right()
    log.fire(log.time(2))
    assert rules(log) == ["each-time-once-and-in-order"]
    log = right()
    skipped = schedules.ScheduleSkipped(due_at=AT, until=AT, count=1, reason="missed", at=AT)
    log.add(SCHEDULE, skipped)
    assert rules(log) == ["no-time-is-left-out"]


def test_an_event_that_does_not_fire_one_that_fires_twice_and_one_that_is_none() -> None:
    log = right()
    event = log.time(3)
    assert rules(log) == ["each-event-fires-once"]
    log.fire(event)
    assert rules(log) == []
    log.fire(event)
    assert rules(log) == ["each-event-fires-once"]
    log = right()
    log.fire("another:1")
    assert rules(log) == ["each-event-fires-once"]
    log = right()
    log.add(TRIGGER, triggers.TriggerMisfired(name="t", event="e:1", code="loop", error="x", minute=0))
    assert rules(log) == ["each-event-fires"]
    log = right()
    log.run(kind="trigger", name="t", event="e:1", depth=1)
    assert rules(log) == ["each-run-has-its-firing"]
    log = right()
    log.add(TRIGGER, triggers.TriggerFired(name="t", event=log.time(3), run_id=new_id(), minute=0))
    assert rules(log) == ["each-firing-has-its-run"]


def test_deliveries_count_by_what_was_acknowledged() -> None:
    log = Log()
    created = triggers.TriggerCreated.model_construct(name="hook", definition={}, hook_id=new_id(), within=None)
    log.add(TRIGGER, created)
    run_id, _ = log.run(kind="webhook", name="hook", event="d-1", depth=1)
    log.add(TRIGGER, triggers.TriggerFired(name="hook", delivery="d-1", run_id=run_id, minute=0))
    assert list(check_triggers(log.snapshot, {}, {"hook": ["d-1"]})) == []
    [missing] = check_triggers(log.snapshot, {}, {"hook": ["d-1", "d-2"]})
    assert "d-2 fired 0 times, and should have 1" in missing.detail
    [more] = check_triggers(log.snapshot, {}, {"hook": []})
    assert "d-1 fired 1 times, and should have 0" in more.detail
