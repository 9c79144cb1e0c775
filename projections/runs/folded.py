"""A run folded from its events into the document that people see: the replay."""

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from application.views.runs import (
    FIRST_PARTS,
    NEWEST_CALLS,
    CallView,
    PartsView,
    ProgressView,
    RunCallView,
    RunView,
    StepView,
)
from domain import agent_runs, invocations, runs
from domain.failures import Failure
from domain.kernel import RecordedEvent, who_asked
from projections.kernel import decoded
from projections.runs.fold import compensation_brief, evolve, pause_view
from projections.runs.forms import brief_of, form_of, part_row, said_of, total_of, tried, why_of
from projections.runs.tables import PartRow
from projections.runs.values import Values, error_of_call, resolution_of_call


class StartedCall:
    """A call, and where it was started."""

    __slots__ = ("agent_run_id", "position", "step", "view")

    def __init__(self, position: int, step: StepView, view: CallView, agent_run_id: UUID | None) -> None:
        self.position, self.step, self.view, self.agent_run_id = position, step, view, agent_run_id


class ViewParts:
    """The parts of a document."""

    def __init__(self, view: RunView, keep: int | None, whole: bool) -> None:
        """`keep`: so many of the newest calls stay in the document. None: all. `whole`: large values stay in it, too."""
        self.values = Values(view.run_id, len(view.steps))
        self.whole = whole
        self._steps = {step.key: step for step in view.steps}
        self._of_agent_run = {step.agent_run_id: step for step in view.steps if step.agent_run_id is not None}
        self.keep = keep
        self._run = view
        self._planned: dict[str, runs.Step] | None = None
        self.executions: dict[UUID, PartRow] = {}
        """The part that an agent run or a child run is."""
        self.parts: dict[str, dict[int, PartRow]] = {}
        """Step → number → part."""
        self.touched: list[PartRow] = []
        """Parts that the newest event may have changed."""
        shown = [StartedCall(0, step, call, step.agent_run_id) for step in view.steps for call in step.calls]
        self.calls = deque(sorted(shown, key=lambda call: call.view.started_at))
        """The calls in the document, in the order of their start."""
        self._calls = {call.view.invocation_id: call.view for call in self.calls}

    def step(self, key: str, agent_run_id: UUID | None) -> StepView:
        step = self._steps[key]
        if agent_run_id is not None:
            self._of_agent_run[agent_run_id] = step
        return step

    def step_of(self, agent_run_id: UUID) -> StepView | None:
        return self._of_agent_run.get(agent_run_id)

    def planned(self, key: str) -> runs.Step:
        if self._planned is None:
            self._planned = {step.key: step for step in self._run.plan.steps}
        return self._planned[key]

    def part_of(self, execution_id: UUID) -> tuple[str, PartRow] | None:
        part = self.executions.get(execution_id)
        return None if part is None else (part.step, self.part(part.step, part.number))

    def part(self, key: str, number: int) -> PartRow:
        part = self.parts[key][number]
        self.touched.append(part)
        return part

    def known_part(self, key: str, number: int) -> PartRow | None:
        return self.parts.get(key, {}).get(number)

    def counts(self, key: str) -> PartsView:
        step = self._steps[key]
        if step.parts is None:
            step.parts = PartsView(total=total_of(self.planned(key)), first=[])
        return step.parts

    def schedule(self, step: StepView, event: runs.StepScheduled, recorded: RecordedEvent) -> None:
        step.agent_run_id = event.agent_run_id
        if event.mapped:
            self.values.input(step, event.input, recorded.position, 0 if self.whole else len(recorded.state))

    def schedule_part(self, event: runs.PartScheduled, recorded: RecordedEvent) -> bool:
        of_step = self.parts.setdefault(event.step, {})
        before = of_step.get(event.part)
        part = of_step[event.part] = part_row(event, recorded, before)
        if before is not None:
            self._forget(before.execution_id)
        self.executions[part.execution_id] = part
        self.touched.append(part)
        if not part.is_run:
            self._of_agent_run[part.execution_id] = self._steps[event.step]
        return before is None

    def _forget(self, execution_id: UUID) -> None:
        self.executions.pop(execution_id, None)
        self._of_agent_run.pop(execution_id, None)

    def fall_back(self, step: StepView, event: runs.StepFellBack, recorded: RecordedEvent) -> None:
        self._forget(event.execution_id)
        step.fallbacks = [*(step.fallbacks or []), tried(event, recorded.recorded_at)]
        self.keep_error(step, event.error, recorded)

    def take_over(self, step: StepView, event: runs.StepTakenOver, recorded: RecordedEvent) -> None:
        step.taken_over, step.agent_run_id = True, event.agent_run_id
        if self.whole:
            step.result = event.result
        else:
            self.values.measured_result(step, event.result, recorded.position)

    def keep_why(self, step: StepView, event: Any) -> None:
        said = said_of(event)
        if said is not None or step.why is None:
            step.why = why_of(self.planned(step.key), said)

    def show(self) -> None:
        """Brings the parts in the document up to date."""
        for part in self.touched:
            if part.number < FIRST_PARTS:
                counts = self.counts(part.step)
                others = [brief for brief in counts.first if brief.number != part.number]
                counts.first = sorted([*others, brief_of(part)], key=lambda brief: brief.number)
        self.touched.clear()

    def keep_wait(self, step: StepView, until: datetime) -> None:
        step.waits_until = until

    def keep_exhausted(self, step: StepView) -> None:
        step.exhausted = True

    def keep_progress(self, step: StepView, progress: ProgressView) -> None:
        step.progress = progress

    def call_of(self, invocation_id: UUID) -> CallView | None:
        return self._calls.get(invocation_id)

    def start_call(self, event: agent_runs.CallStarted, recorded: RecordedEvent) -> None:
        step = self._of_agent_run[recorded.stream_id]
        call = CallView(key=event.key, tool=event.tool, invocation_id=event.invocation_id, started_at=recorded.recorded_at)
        if (part := self.executions.get(recorded.stream_id)) is not None:
            call.part = part.number
        step.calls.append(call)
        self.calls.append(StartedCall(recorded.position, step, call, recorded.stream_id))
        self._calls[event.invocation_id] = call
        if self.keep is not None and len(self.calls) > self.keep:
            oldest = self.calls.popleft()
            del oldest.step.calls[0]
            del self._calls[oldest.view.invocation_id]

    def open_steps(self) -> Iterable[StepView]:
        return self._steps.values()

    def keep_result(self, step: StepView, event: runs.StepCompleted, recorded: RecordedEvent) -> None:
        if self.whole:
            step.result = event.result
        else:
            self.values.result(step, event.result, recorded.position, len(recorded.state))

    def keep_run_result(self, run: RunView, event: runs.RunCompleted, recorded: RecordedEvent) -> None:
        if run.plan.result is not None:
            self.values.result_of_run(run, event.result, recorded.position, 0 if self.whole else len(recorded.state))

    def keep_part_result(self, part: PartRow, event: runs.PartCompleted | runs.PartTakenOver, recorded: RecordedEvent) -> None:
        part.result_position = recorded.position

    def keep_error(self, part: RunView | StepView | PartRow | CallView, error: Failure | None, recorded: RecordedEvent) -> None:
        at = recorded.position, 0 if self.whole else len(recorded.state)
        match part:
            case RunView():
                self.values.error_of_run(part, error, *at)
            case StepView():
                self.values.error_of_step(part, error, *at)
            case PartRow():
                part.error_position = recorded.position
            case CallView():
                error_of_call(part, error, *at)

    def keep_resolution(self, call: CallView, event: invocations.InvocationResolved, recorded: RecordedEvent) -> None:
        resolution_of_call(call, event, recorded.recorded_at, recorded.position, 0 if self.whole else len(recorded.state))

    def keep_compensation(self, run: RunView, recorded: RecordedEvent) -> None:
        run.compensation = compensation_brief(decoded(recorded))

    def keep_pause(self, run: RunView, recorded: RecordedEvent | None) -> None:
        run.pause = None if recorded is None else pause_view(decoded(recorded), recorded.recorded_at)

    def is_paused(self, run: RunView) -> bool:
        return run.pause is not None

    def forget_end(self, run: RunView) -> None:
        run.forget_end()

    def forget_step(self, step: StepView, recorded: RecordedEvent) -> None:
        self.keep_error(step, None, recorded)
        step.why, step.waits_until, step.exhausted, step.progress = None, None, False, None


def evolve_view(
    view: RunView | None, recorded: RecordedEvent, keep: int | None = NEWEST_CALLS, *, whole: bool = False
) -> RunView | None:
    """The document after one more event of the run. Changes the given document in place; None before the run started.

    `keep`: so many of the newest calls stay in the document. None: all. `whole`: large values stay in it, too. Else references to
    them do.
    """
    if recorded.topic == runs.RunStarted.TOPIC:
        return started(decoded(recorded), recorded, whole=whole)
    if view is None:
        return None
    parts = parts_of(view, keep, whole=whole)
    evolve(view, parts, recorded)
    if parts.touched:
        parts.show()
    return view


def parts_of(view: RunView, keep: int | None = NEWEST_CALLS, *, whole: bool = False) -> ViewParts:
    """The parts of a document. They are kept with the document, as a cached property is: no field, so no part of its value."""
    parts: ViewParts | None = view.__dict__.get("_parts")
    if parts is None or (parts.keep, parts.whole) != (keep, whole):
        parts = view.__dict__["_parts"] = ViewParts(view, keep, whole)
    return parts


def calls_in(view: RunView) -> list[RunCallView]:
    """The calls of a document that was folded with all its calls, in the order of their start."""
    shown = []
    for call in parts_of(view, None).calls:
        assert call.agent_run_id is not None
        given = {name: getattr(call.view, name) for name in CallView.model_fields}
        shown.append(RunCallView(**given, step=call.step.key, agent_run_id=call.agent_run_id, position=call.position))
    return shown


def parts_of_step(view: RunView, step: str, *, limit: int, after: int) -> list[PartRow]:
    """The parts of a step in a document, in the order of their numbers, after a number."""
    found = parts_of(view, None).parts.get(step, {})
    return [found[number] for number in sorted(found) if number > after][:limit]


def started(event: runs.RunStarted, recorded: RecordedEvent, *, whole: bool) -> RunView:
    actor, on_behalf_of = who_asked(recorded.metadata)
    view = RunView(
        run_id=recorded.stream_id,
        project_id=event.project_id,
        status="running",
        missing=[],
        plan=event.plan,
        input=event.input,
        metadata=event.metadata,
        priority=event.priority,
        actor=actor,
        on_behalf_of=on_behalf_of,
        compensate=event.compensate,
        created_at=recorded.recorded_at,
        updated_at=recorded.recorded_at,
        version=recorded.version,
        position=recorded.position,
        event_count=1,
        steps=steps_of(event),
        parent=event.parent,
        workflow=event.workflow,
        origin=event.origin,
        forked_from=event.forked_from,
        concurrency=None if event.concurrency is None else event.concurrency.said,
    )
    if not whole:
        Values(view.run_id, len(view.steps)).start(view, event, recorded.position, len(recorded.state))
    return view


def steps_of(event: runs.RunStarted) -> list[StepView]:
    """The steps of a run that has just started. Lists are given, for pydantic makes deep copies of those in defaults."""
    asked = frozenset(event.versions_asked)
    return [
        StepView(
            key=s.key, agent=s.agent, agent_version=s.agent_version, version_asked=s.key in asked, after=list(s.after),
            unused_keys=[], calls=[], form=form_of(s),
        )
        for s in event.plan.steps
    ]  # fmt: skip


def replay(events: Iterable[RecordedEvent]) -> RunView | None:
    """The document after the given events of one run, in order."""
    view: RunView | None = None
    parts: ViewParts | None = None
    for recorded in events:
        if view is not None and parts is not None and recorded.topic != runs.RunStarted.TOPIC:
            evolve(view, parts, recorded)
            if parts.touched:
                parts.show()
        elif (view := evolve_view(view, recorded)) is not None:
            parts = parts_of(view)
    return view
