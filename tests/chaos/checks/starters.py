"""What starts by itself: each due time of a schedule has one run, and each event or delivery of a trigger has one firing.

What should have started is counted here anew, from the events alone. No rule of the product is asked.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from uuid import UUID

from domain import runs, schedules, triggers
from tests.chaos.checks.snapshot import Fact, Snapshot, Violation

Matches = Callable[[Fact], bool]


def check_schedules(snapshot: Snapshot, every_s: int) -> Iterator[Violation]:
    """Of schedules that catch up with all times and let their runs overlap: no time is left out, and each has its run."""
    started = _started(snapshot, "schedule")
    for schedule_id, facts in snapshot.streams("schedule.").items():
        times = []
        for fact in facts:
            event = fact.event
            if isinstance(event, schedules.ScheduleFired) and event.by is None:
                times.append(event.due_at)
                run = started.pop(event.run_id, None)
                if run is None or run.origin is None or run.origin.due_at != event.due_at:
                    yield Violation("each-time-has-its-run", str(schedule_id), f"{event.due_at}: {run}")
            elif isinstance(event, schedules.ScheduleSkipped | schedules.ScheduleQueued):
                yield Violation("no-time-is-left-out", str(schedule_id), str(event))
        for before, after in pairwise(times):
            if after - before != timedelta(seconds=every_s):
                yield Violation("each-time-once-and-in-order", str(schedule_id), f"{after} follows {before}")
    for run_id in started:
        yield Violation("each-run-has-its-time", str(run_id), "no schedule knows the run")


def check_triggers(snapshot: Snapshot, on: Mapping[str, Matches], delivered: Mapping[str, Collection[str]]) -> Iterator[Violation]:
    """`on`: trigger → whether it is about an event. `delivered`: webhook → ids of deliveries that were acknowledged."""
    started = {**_started(snapshot, "trigger"), **_started(snapshot, "webhook")}
    for trigger_id, facts in snapshot.streams("trigger.").items():
        created = facts[0]
        assert isinstance(created.event, triggers.TriggerCreated)
        name = created.event.name
        fired: Counter[str] = Counter()
        for fact in facts:
            event = fact.event
            if isinstance(event, triggers.TriggerFired):
                fired[event.event or event.delivery or ""] += 1
                run = None if event.run_id is None else started.pop(event.run_id, None)
                if run is None or run.origin is None or run.origin.event != (event.event or event.delivery):
                    yield Violation("each-firing-has-its-run", name, f"{event}: {run}")
            elif isinstance(event, triggers.TriggerMisfired | triggers.TriggerLimited | triggers.TriggerPaused):
                yield Violation("each-event-fires", name, str(event))
        matches = on.get(name)
        if matches is None:
            wanted = Counter(delivered[name])
        else:
            wanted = Counter(fact.recorded.name for fact in snapshot.facts if fact.position > created.position and matches(fact))
        for what in sorted(wanted.keys() | fired.keys()):
            if wanted[what] != fired[what]:
                told = f"{what} fired {fired[what]} times, and should have {wanted[what]} times"
                yield Violation("each-event-fires-once", f"{name} {trigger_id}", told)
    for run_id in started:
        yield Violation("each-run-has-its-firing", str(run_id), "no trigger knows the run")


def count(snapshot: Snapshot) -> tuple[int, int]:
    """Times that have fired, and firings of triggers."""
    fired = Counter(type(fact.event) for fact in snapshot.facts)
    return fired[schedules.ScheduleFired], fired[triggers.TriggerFired]


def _started(snapshot: Snapshot, kind: str) -> dict[UUID, runs.RunStarted]:
    return {
        fact.recorded.stream_id: fact.event
        for fact in snapshot.facts
        if isinstance(fact.event, runs.RunStarted) and fact.event.origin is not None and fact.event.origin.kind == kind
    }


def started_by(kind: str, name: str | None = None) -> Matches:
    """Whether an event is the start of a run by a schedule or a trigger."""

    def matches(fact: Fact) -> bool:
        origin = fact.event.origin if isinstance(fact.event, runs.RunStarted) else None
        return origin is not None and origin.kind == kind and (name is None or origin.name == name)

    return matches
