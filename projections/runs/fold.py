"""The fold of a run's events. The replay folds into the document that people see, the read model into rows, by the same rules.

So a replay to a position and the read model at that position cannot tell different stories. An event changes the run, one step or
one call; only the end of a run that did not complete changes all open steps. Its cost does not depend on the size of the run.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from application.views.runs import (
    NEWEST_CALLS,
    CallStatus,
    CallView,
    CompensationBrief,
    RunCallView,
    RunStatus,
    RunView,
    StepStatus,
    StepView,
)
from domain import agent_runs, compensations, invocations, runs
from domain.failures import Failure
from domain.kernel import RecordedEvent, who_asked
from projections.kernel import decoded
from projections.runs.values import Values, error_of_call, resolution_of_call

# --- what an event changes ----------------------------------------------------------------------------------------------


class FoldedRun(Protocol):
    """A run without its parts. Fields have the meaning of those of `RunView`."""

    status: RunStatus
    degraded: bool
    missing: list[str]
    finished_at: datetime | None
    updated_at: datetime
    version: int
    position: int
    event_count: int
    message_count: int
    call_count: int

    @property
    def cancel_reason(self) -> str | None: ...
    @cancel_reason.setter
    def cancel_reason(self, value: str | None) -> None: ...


class FoldedStep(Protocol):
    """A step. Fields have the meaning of those of `StepView`."""

    status: StepStatus
    agent_run_id: UUID | None
    attempt: int
    worker_id: str | None
    recorded_steps: int
    call_count: int
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def unused_keys(self) -> list[str]: ...
    @unused_keys.setter
    def unused_keys(self, value: list[str]) -> None: ...


class FoldedCall(Protocol):
    """A tool call. Fields have the meaning of those of `CallView`."""

    status: CallStatus
    attempts: int
    worker_id: str | None
    fallback: str | None
    cancel_requested: bool
    finished_at: datetime | None

    @property
    def effect(self) -> Any: ...
    @effect.setter
    def effect(self, value: Any) -> None: ...


class FoldedParts(Protocol):
    """The steps and calls of one run."""

    def step(self, key: str, agent_run_id: UUID | None) -> FoldedStep:
        """The step of the plan. `agent_run_id`: its agent run, if the event names one."""
        ...

    def step_of(self, agent_run_id: UUID) -> FoldedStep | None:
        """The step of an agent run; None if the step is not scheduled yet."""
        ...

    def call_of(self, invocation_id: UUID) -> FoldedCall | None: ...

    def start_call(self, event: agent_runs.CallStarted, recorded: RecordedEvent) -> None: ...

    def open_steps(self) -> Iterable[FoldedStep]:
        """Every step without an outcome that an event has changed before, and perhaps others."""
        ...

    # What may be large. `part`: the run, or a step or call that this object gave out.

    def keep_result(self, step: Any, event: runs.StepCompleted, recorded: RecordedEvent) -> None: ...
    def keep_error(self, part: Any, error: Failure | None, recorded: RecordedEvent) -> None: ...
    def keep_resolution(self, call: Any, event: invocations.InvocationResolved, recorded: RecordedEvent) -> None: ...
    def keep_compensation(self, run: Any, recorded: RecordedEvent) -> None: ...


def evolve(run: FoldedRun, parts: FoldedParts, recorded: RecordedEvent) -> None:
    """Changes a run by one more of its events, after the one that started it. Raises ValueError, UnknownEvent."""
    run.event_count += 1
    run.position, run.updated_at = recorded.position, recorded.recorded_at
    if recorded.stream_id == recorded.root_id:
        run.version = recorded.version
    change = _CHANGES.get(recorded.topic)
    if change is not None:
        change(run, parts, recorded)


# --- the run ------------------------------------------------------------------------------------------------------------


def _on_run_event(run: FoldedRun, parts: FoldedParts, recorded: RecordedEvent) -> None:
    at = recorded.recorded_at
    match event := decoded(recorded):
        case runs.StepScheduled():
            step = parts.step(event.step, event.agent_run_id)
            step.status, step.agent_run_id, step.scheduled_at = "scheduled", event.agent_run_id, at
        case runs.StepCompleted():
            step = parts.step(event.step, event.agent_run_id)
            step.status, step.finished_at = "completed", at
            parts.keep_result(step, event, recorded)
        case runs.StepFailed():
            step = parts.step(event.step, event.agent_run_id)
            step.status, step.finished_at = "failed", at
            parts.keep_error(step, event.error, recorded)
        case runs.RunCompleted():
            run.status, run.degraded, run.missing, run.finished_at = "completed", event.degraded, list(event.missing), at
        case runs.RunFailed():
            run.status, run.finished_at = "failed", at
            parts.keep_error(run, event.error, recorded)
            _call_off(parts, at)
        case runs.RunCancelled():
            run.status, run.cancel_reason, run.finished_at = "cancelled", event.reason, at
            _call_off(parts, at)


def _call_off(parts: FoldedParts, at: datetime) -> None:
    """Closes the steps of a run that has ended. An outcome that arrives later does not count."""
    for step in parts.open_steps():
        if step.status not in ("completed", "failed"):
            step.status = "cancelled"
            step.finished_at = at if step.started_at is not None else None


def _on_message(run: FoldedRun, parts: FoldedParts, recorded: RecordedEvent) -> None:
    run.message_count += 1


# --- its steps ----------------------------------------------------------------------------------------------------------


def _on_record(run: FoldedRun, parts: FoldedParts, recorded: RecordedEvent) -> None:
    if (step := parts.step_of(recorded.stream_id)) is not None:
        step.recorded_steps += 1


def _on_agent_run_event(run: FoldedRun, parts: FoldedParts, recorded: RecordedEvent) -> None:
    step = parts.step_of(recorded.stream_id)
    if step is None:
        return
    at = recorded.recorded_at
    match event := decoded(recorded):
        case agent_runs.AgentRunClaimed():
            step.attempt, step.worker_id, step.started_at = event.attempt, event.worker_id, step.started_at or at
            if run.status == "running":
                step.status = "running"
        case agent_runs.CallStarted():
            step.call_count += 1
            run.call_count += 1
            parts.start_call(event, recorded)
        case agent_runs.AgentRunRetryScheduled():
            parts.keep_error(step, event.error, recorded)
            if run.status == "running":
                step.status = "retrying"
        case agent_runs.AgentRunResumed():
            step.scheduled_at = at
            if event.lapsed is not None and run.status == "running":
                step.status = "scheduled"
        case agent_runs.AgentRunCompleted():
            step.unused_keys = list(event.unused_keys)
        case agent_runs.AgentRunCancelled():
            step.status, step.finished_at = "cancelled", at


# --- their calls --------------------------------------------------------------------------------------------------------


def _on_invocation_event(run: FoldedRun, parts: FoldedParts, recorded: RecordedEvent) -> None:
    call = parts.call_of(recorded.stream_id)
    if call is None:
        return
    at = recorded.recorded_at
    match event := decoded(recorded):
        case invocations.AttemptStarted():
            call.status, call.attempts, call.worker_id = "running", event.attempt, event.worker_id
        case invocations.InvocationRetryScheduled():
            call.status = "retrying"
            parts.keep_error(call, event.error, recorded)
        case invocations.InvocationRequeued() if event.lapsed is not None or event.reason is not None:
            call.status = "requested"
        case invocations.InvocationFellBack():
            call.status, call.fallback = "requested", event.tool
            parts.keep_error(call, event.error, recorded)
        case invocations.InvocationSucceeded():
            call.status, call.finished_at = "succeeded", at
            parts.keep_error(call, None, recorded)
        case invocations.InvocationFailed():
            call.status, call.finished_at = "failed", at
            parts.keep_error(call, event.error, recorded)
        case invocations.InvocationReconcileRequested():
            call.status = "reconciling"
        case invocations.InvocationBecameAmbiguous():
            call.status = "ambiguous"
        case invocations.InvocationResolved():
            call.status, call.finished_at = event.outcome, at
            parts.keep_error(call, event.error, recorded)
            parts.keep_resolution(call, event, recorded)
        case invocations.InvocationCancelRequested():
            call.cancel_requested = True
        case invocations.InvocationCancelled():
            call.status, call.effect, call.finished_at = "cancelled", event.effect, at


# --- its compensation ---------------------------------------------------------------------------------------------------


def _on_compensation(run: FoldedRun, parts: FoldedParts, recorded: RecordedEvent) -> None:
    parts.keep_compensation(run, recorded)


def compensation_brief(event: Any) -> CompensationBrief:
    """What an event of the compensation's beginning or end says of it."""
    if not isinstance(event, compensations.CompensationEnded):
        return CompensationBrief(status="running")
    return CompensationBrief(**event.model_dump(include={"status", "effects", "compensated", "failed", "skipped"}))


Change = Callable[[FoldedRun, FoldedParts, RecordedEvent], None]

_OF_RUNS = (
    runs.StepScheduled, runs.StepCompleted, runs.StepFailed, runs.RunCompleted, runs.RunFailed, runs.RunCancelled,
)  # fmt: skip
_OF_AGENT_RUNS = (
    agent_runs.AgentRunClaimed, agent_runs.CallStarted, agent_runs.AgentRunRetryScheduled, agent_runs.AgentRunResumed,
    agent_runs.AgentRunCompleted, agent_runs.AgentRunCancelled,
)  # fmt: skip
_OF_CALLS = (
    invocations.AttemptStarted, invocations.InvocationRetryScheduled, invocations.InvocationRequeued,
    invocations.InvocationSucceeded, invocations.InvocationFailed, invocations.InvocationBecameAmbiguous,
    invocations.InvocationResolved, invocations.InvocationCancelRequested, invocations.InvocationCancelled,
    invocations.InvocationReconcileRequested, invocations.InvocationFellBack,
)  # fmt: skip
_OF_COMPENSATIONS = (
    compensations.CompensationStarted, compensations.CompensationResumed, compensations.CompensationEnded,
)  # fmt: skip
CHANGES_A_STEP = frozenset(kind.TOPIC for kind in (*_OF_AGENT_RUNS, agent_runs.StepRecorded))
CHANGES_A_CALL = frozenset(kind.TOPIC for kind in _OF_CALLS)
_CHANGES: Mapping[str, Change] = {
    **{kind.TOPIC: _on_run_event for kind in _OF_RUNS},
    **{kind.TOPIC: _on_agent_run_event for kind in _OF_AGENT_RUNS},
    **{kind.TOPIC: _on_invocation_event for kind in _OF_CALLS},
    **{kind.TOPIC: _on_compensation for kind in _OF_COMPENSATIONS},
    agent_runs.StepRecorded.TOPIC: _on_record,
    "message.sent": _on_message,
}
"""What changes more of a run than its number of events and its last position. Other events are not decoded."""


# --- the document -------------------------------------------------------------------------------------------------------


class StartedCall:
    """A call, and where it was started."""

    __slots__ = ("position", "step", "view")

    def __init__(self, position: int, step: StepView, view: CallView) -> None:
        self.position, self.step, self.view = position, step, view


class ViewParts:
    """The parts of a document."""

    def __init__(self, view: RunView, keep: int | None, whole: bool) -> None:
        """`keep`: so many of the newest calls stay in the document. None: all. `whole`: large values stay in it, too."""
        self.values = Values(view.run_id, len(view.steps))
        self.whole = whole
        self._steps = {step.key: step for step in view.steps}
        self._of_agent_run = {step.agent_run_id: step for step in view.steps if step.agent_run_id is not None}
        self.keep = keep
        shown = [StartedCall(0, step, call) for step in view.steps for call in step.calls]
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

    def call_of(self, invocation_id: UUID) -> CallView | None:
        return self._calls.get(invocation_id)

    def start_call(self, event: agent_runs.CallStarted, recorded: RecordedEvent) -> None:
        step = self._of_agent_run[recorded.stream_id]
        call = CallView(key=event.key, tool=event.tool, invocation_id=event.invocation_id, started_at=recorded.recorded_at)
        step.calls.append(call)
        self.calls.append(StartedCall(recorded.position, step, call))
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
            self.values.result(step, event.result, event.agent_run_id, recorded.position, len(recorded.state))

    def keep_error(self, part: RunView | StepView | CallView, error: Failure | None, recorded: RecordedEvent) -> None:
        at = recorded.position, 0 if self.whole else len(recorded.state)
        match part:
            case RunView():
                self.values.error_of_run(part, error, *at)
            case StepView():
                self.values.error_of_step(part, error, *at)
            case CallView():
                error_of_call(part, error, *at)

    def keep_resolution(self, call: CallView, event: invocations.InvocationResolved, recorded: RecordedEvent) -> None:
        resolution_of_call(call, event, recorded.recorded_at, recorded.position, 0 if self.whole else len(recorded.state))

    def keep_compensation(self, run: RunView, recorded: RecordedEvent) -> None:
        run.compensation = compensation_brief(decoded(recorded))


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
    evolve(view, parts_of(view, keep, whole=whole), recorded)
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
        assert call.step.agent_run_id is not None
        given = {name: getattr(call.view, name) for name in CallView.model_fields}
        shown.append(RunCallView(**given, step=call.step.key, agent_run_id=call.step.agent_run_id, position=call.position))
    return shown


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
            unused_keys=[], calls=[],
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
        elif (view := evolve_view(view, recorded)) is not None:
            parts = parts_of(view)
    return view
