"""The fold of a run's events. The replay folds into the document that people see, the read model into rows, by the same rules.

So a replay to a position and the read model at that position cannot tell different stories. An event changes the run, one step,
one part of a step or one call; only the end of a run that did not complete changes all open steps, and the event names what it
abandons. Its cost does not depend on the size of the run.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from application.views.runs import GOING_ON, CallStatus, CompensationBrief, PartStatus, PauseView, RunStatus, StepStatus
from domain import agent_runs, compensations, invocations, runs
from domain.failures import Failure
from domain.kernel import RecordedEvent
from projections.kernel import decoded
from projections.runs.counted import COUNTED
from projections.runs.retries import on_key, on_priority, on_retry, uncount
from projections.runs.taken_over import TAKEN_OVER

STEPS_OVER = frozenset({"completed", "failed", "skipped"})  # else a step of a run that was called off is `cancelled`
PARTS_OVER = frozenset({"completed", "failed", "cancelled"})
TAKEN_BACK = frozenset({"scheduled", "running"})
"""What a pause of the run takes from workers."""

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
    retries: int
    deadline_at: datetime | None

    @property
    def cancel_reason(self) -> str | None: ...
    @cancel_reason.setter
    def cancel_reason(self, value: str | None) -> None: ...


class FoldedStep(Protocol):
    """A step. Fields have the meaning of those of `StepView`."""

    status: StepStatus
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


class FoldedPart(Protocol):
    """A part of a step. Fields have the meaning of those of `PartView`."""

    status: PartStatus
    attempt: int
    fallback: int
    worker_id: str | None
    started_at: datetime | None
    finished_at: datetime | None
    person: str | None
    """As JSON."""

    @property
    def scheduled_at(self) -> datetime | None: ...
    @scheduled_at.setter
    def scheduled_at(self, value: datetime) -> None: ...


class FoldedCounts(Protocol):
    """How many parts a step has. Fields have the meaning of those of `PartsView`."""

    total: int | None
    started: int
    completed: int
    failed: int
    cancelled: int


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
    """The steps, their parts, and the calls of one run."""

    def step(self, key: str, agent_run_id: UUID | None) -> FoldedStep:
        """The step of the plan. `agent_run_id`: its agent run, if the event names one."""
        ...

    def step_of(self, agent_run_id: UUID) -> FoldedStep | None:
        """The step of an agent run, which may be one of several; None if the step is not scheduled yet, or went on with another."""
        ...

    def part_of(self, execution_id: UUID) -> tuple[str, FoldedPart] | None:
        """The part that an agent run or a child run is, with the key of its step. None: it is the only one of its step."""
        ...

    def part(self, key: str, number: int) -> FoldedPart: ...
    def known_part(self, key: str, number: int) -> FoldedPart | None: ...

    def counts(self, key: str) -> FoldedCounts:
        """The parts of a step, to be counted."""
        ...

    def schedule(self, step: Any, event: runs.StepScheduled, recorded: RecordedEvent) -> None:
        """Notes the agent run of a step, and the input that was made for it."""
        ...

    def schedule_part(self, event: runs.PartScheduled, recorded: RecordedEvent) -> bool:
        """Adds a part, or gives a part another execution. Returns whether the part is new."""
        ...

    def fall_back(self, step: Any, event: runs.StepFellBack, recorded: RecordedEvent) -> None: ...

    def call_of(self, invocation_id: UUID) -> FoldedCall | None: ...

    def start_call(self, event: agent_runs.CallStarted, recorded: RecordedEvent) -> None: ...

    def open_steps(self) -> Iterable[FoldedStep]:
        """Every step without an outcome that an event has changed before, and perhaps others."""
        ...

    def keep_why(self, step: Any, event: Any) -> None:
        """Notes what a decision about a step saw, if anything."""
        ...

    def keep_wait(self, step: Any, until: datetime) -> None: ...
    def keep_exhausted(self, step: Any) -> None: ...
    def keep_progress(self, step: Any, progress: Any) -> None: ...

    # What may be large. `part`: the run, or a step, part or call that this object gave out.

    def keep_run_result(self, run: Any, event: runs.RunCompleted, recorded: RecordedEvent) -> None: ...
    def keep_result(self, step: Any, event: runs.StepCompleted, recorded: RecordedEvent) -> None: ...
    def take_over(self, step: Any, event: runs.StepTakenOver, recorded: RecordedEvent) -> None: ...
    def keep_part_result(self, part: Any, event: runs.PartCompleted | runs.PartTakenOver, recorded: RecordedEvent) -> None: ...
    def keep_error(self, part: Any, error: Failure | None, recorded: RecordedEvent) -> None: ...
    def keep_resolution(self, call: Any, event: invocations.InvocationResolved, recorded: RecordedEvent) -> None: ...
    def keep_compensation(self, run: Any, recorded: RecordedEvent) -> None: ...
    def keep_pause(self, run: Any, recorded: RecordedEvent | None) -> None:
        """Notes the event that says why the run is paused. None: it goes on."""

    def is_paused(self, run: Any) -> bool: ...
    def forget_end(self, run: Any) -> None:
        """The run goes on: it has neither an error nor a result, and was not cancelled."""

    def forget_step(self, step: Any, recorded: RecordedEvent) -> None:
        """The step begins once more: nothing is known of why it ran, and it has no error."""


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
            step.status, step.scheduled_at = "scheduled", at
            parts.schedule(step, event, recorded)
            parts.keep_why(step, event)
        case runs.StepCompleted():
            step = parts.step(event.step, event.agent_run_id)
            step.status, step.finished_at = "completed", at
            parts.keep_result(step, event, recorded)
            parts.keep_why(step, event)
            if event.exhausted:
                parts.keep_exhausted(step)
            _abandon(parts, event, at)
        case runs.StepFailed():
            step = parts.step(event.step, event.agent_run_id)
            step.status, step.finished_at = "failed", at
            parts.keep_error(step, event.error, recorded)
            if event.person is not None:
                parts.keep_why(step, event)
            _abandon(parts, event, at)
        case runs.DeadlineSet():
            run.deadline_at = None if event.deadline_s is None else at + timedelta(seconds=event.deadline_s)
        case runs.RunRetried():
            on_retry(run, parts, event, recorded)
        case runs.RunCompleted():
            run.status, run.degraded, run.missing, run.finished_at = "completed", event.degraded, list(event.missing), at
            parts.keep_run_result(run, event, recorded)
        case runs.RunFailed():
            run.status, run.finished_at = "failed", at
            parts.keep_error(run, event.error, recorded)
            _abandon(parts, event, at)
            _call_off(parts, at)
        case runs.RunCancelled():
            run.status, run.cancel_reason, run.finished_at = "cancelled", event.reason, at
            parts.keep_pause(run, None)
            _abandon(parts, event, at)
            _call_off(parts, at)


def _abandon(parts: FoldedParts, event: Any, at: datetime) -> None:
    """Closes the parts that the event abandons."""
    for execution_id in (*event.abandoned, *event.abandoned_runs):
        if (found := parts.part_of(execution_id)) is not None:
            _end_part(parts, *found, "cancelled", at)


def _end_part(
    parts: FoldedParts, key: str, part: FoldedPart, status: PartStatus, at: datetime, person: runs.ByPerson | None = None
) -> None:
    """`status`: `completed`, `failed` or `cancelled`."""
    if part.status in PARTS_OVER:
        return
    part.status, part.finished_at = status, at
    part.person = None if person is None else person.model_dump_json()
    counts = parts.counts(key)
    setattr(counts, status, getattr(counts, status) + 1)


# --- steps of several executions ----------------------------------------------------------------------------------------


def _on_form(run: FoldedRun, parts: FoldedParts, recorded: RecordedEvent) -> None:
    at = recorded.recorded_at
    event = decoded(recorded)
    match event:
        case runs.StepSkipped():
            step = parts.step(event.step, None)
            step.status, step.finished_at = "skipped", at
            parts.keep_why(step, event)
            _abandon(parts, event, at)
        case runs.StepStarted():
            step = parts.step(event.step, None)
            step.status, step.scheduled_at, step.started_at = "running", at, at
            parts.keep_why(step, event)
            if event.form == "wait":
                step.status = "waiting"
                parts.keep_wait(step, event.until or at + timedelta(seconds=event.delay_s or 0))
            else:
                counts = parts.counts(event.step)
                counts.total = len(event.items) if event.items is not None else counts.total
        case runs.PartScheduled():
            if (before := parts.known_part(event.step, event.part)) is not None and before.status in PARTS_OVER:
                uncount(parts.counts(event.step), before.status)
            if event.again:
                step = parts.step(event.step, None)
                step.status, step.started_at = "running", step.started_at or at
            if parts.schedule_part(event, recorded):
                parts.counts(event.step).started += 1
        case runs.PartCompleted():
            part = parts.part(event.step, event.part)
            parts.keep_part_result(part, event, recorded)
            _end_part(parts, event.step, part, "completed", at, event.person)
        case runs.PartFailed():
            part = parts.part(event.step, event.part)
            parts.keep_error(part, event.error, recorded)
            _end_part(parts, event.step, part, "failed", at, event.person)
        case runs.StepFellBack(part=None):
            parts.fall_back(parts.step(event.step, None), event, recorded)
        case runs.StepFellBack():
            assert event.part is not None
            part = parts.part(event.step, event.part)
            part.fallback = event.number
            parts.keep_error(part, event.error, recorded)


def _call_off(parts: FoldedParts, at: datetime) -> None:
    """Closes the steps of a run that has ended. An outcome that arrives later does not count."""
    for step in parts.open_steps():
        if step.status not in STEPS_OVER:
            step.status = "cancelled"
            step.finished_at = at if step.started_at is not None else None


# --- its steps ----------------------------------------------------------------------------------------------------------


def _on_agent_run_event(run: FoldedRun, parts: FoldedParts, recorded: RecordedEvent) -> None:
    step = parts.step_of(recorded.stream_id)
    if step is None:
        return
    if (part := parts.part_of(recorded.stream_id)) is not None:
        _on_part_event(run, parts, step, *part, recorded)
        return
    at = recorded.recorded_at
    match event := decoded(recorded):
        case agent_runs.AgentRunClaimed():
            step.attempt, step.worker_id, step.started_at = event.attempt, event.worker_id, step.started_at or at
            if run.status in GOING_ON:
                step.status = "running"
        case agent_runs.CallStarted():
            step.call_count += 1
            run.call_count += 1
            parts.start_call(event, recorded)
        case agent_runs.AgentRunRetryScheduled():
            parts.keep_error(step, event.error, recorded)
            step.status = "retrying" if run.status in GOING_ON else step.status
        case agent_runs.AgentRunSuspended():
            step.status = "suspended" if run.status in GOING_ON else step.status
        case agent_runs.AgentRunResumed():
            step.scheduled_at = at
            if _waits_anew(event) and run.status in GOING_ON:
                step.status = "scheduled"
        case agent_runs.AgentRunPaused():
            if step.status in TAKEN_BACK:
                step.status = "paused"
        case agent_runs.AgentRunCompleted():
            step.unused_keys = list(event.unused_keys)
        case agent_runs.AgentRunCancelled():
            if step.status not in STEPS_OVER:  # the step ended without it
                step.status, step.finished_at = "cancelled", at


def _waits_anew(event: agent_runs.AgentRunResumed) -> bool:
    """Whether a worker is waited for, and not just the delay of a retry is over."""
    return event.lapsed is not None or event.reason is not None


def _on_part_event(
    run: FoldedRun, parts: FoldedParts, step: FoldedStep, key: str, part: FoldedPart, recorded: RecordedEvent
) -> None:
    at, goes_on = recorded.recorded_at, run.status in GOING_ON and part.status not in PARTS_OVER
    match event := decoded(recorded):
        case agent_runs.AgentRunClaimed():
            part.attempt, part.worker_id, part.started_at = event.attempt, event.worker_id, part.started_at or at
            part.status = "running" if goes_on else part.status
        case agent_runs.CallStarted():
            step.call_count += 1
            run.call_count += 1
            parts.start_call(event, recorded)
        case agent_runs.AgentRunRetryScheduled():
            parts.keep_error(part, event.error, recorded)
            part.status = "retrying" if goes_on else part.status
        case agent_runs.AgentRunSuspended():
            part.status = "suspended" if goes_on else part.status
        case agent_runs.AgentRunResumed():
            part.scheduled_at = at
            if _waits_anew(event) and goes_on:
                part.status = "scheduled"
        case agent_runs.AgentRunPaused():
            if part.status in TAKEN_BACK:
                part.status = "paused"
        case agent_runs.AgentRunCancelled():
            _end_part(parts, key, part, "cancelled", at)


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
        case invocations.InvocationHeld():
            call.status = "held"
        case invocations.InvocationReleased():
            call.status = "requested"
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


# --- its pauses ---------------------------------------------------------------------------------------------------------


def _on_pause(run: FoldedRun, parts: FoldedParts, recorded: RecordedEvent) -> None:
    if run.status not in GOING_ON:
        return
    goes_on = recorded.topic == runs.RunResumed.TOPIC
    if run.status != "queued":
        run.status = "running" if goes_on else "paused"
    parts.keep_pause(run, None if goes_on else recorded)


def pause_view(event: runs.RunPaused | runs.RunPauseLifted, at: datetime) -> PauseView:
    cause = event.cause if isinstance(event, runs.RunPaused) else event.left
    return PauseView(**cause.model_dump(), at=at)


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
    runs.RunRetried, runs.DeadlineSet,
)  # fmt: skip
_OF_FORMS = (runs.StepSkipped, runs.StepStarted, runs.PartScheduled, runs.PartCompleted, runs.PartFailed, runs.StepFellBack)
_OF_AGENT_RUNS = (
    agent_runs.AgentRunClaimed, agent_runs.CallStarted, agent_runs.AgentRunRetryScheduled, agent_runs.AgentRunResumed,
    agent_runs.AgentRunCompleted, agent_runs.AgentRunCancelled, agent_runs.AgentRunPaused, agent_runs.AgentRunSuspended,
)  # fmt: skip
_OF_CALLS = (
    invocations.AttemptStarted, invocations.InvocationRetryScheduled, invocations.InvocationRequeued,
    invocations.InvocationSucceeded, invocations.InvocationFailed, invocations.InvocationBecameAmbiguous,
    invocations.InvocationResolved, invocations.InvocationCancelRequested, invocations.InvocationCancelled,
    invocations.InvocationReconcileRequested, invocations.InvocationFellBack, invocations.InvocationHeld,
    invocations.InvocationReleased,
)  # fmt: skip
_OF_PAUSES = (runs.RunPaused, runs.RunPauseLifted, runs.RunResumed)
_OF_COMPENSATIONS = (compensations.CompensationStarted, compensations.CompensationResumed, compensations.CompensationEnded)
CHANGES_A_STEP = frozenset(
    kind.TOPIC for kind in (*_OF_AGENT_RUNS, agent_runs.StepRecorded, agent_runs.AgentRunProgressed, agent_runs.EntryTakenOver)
)
CHANGES_A_CALL = frozenset(kind.TOPIC for kind in _OF_CALLS)
_CHANGES: Mapping[str, Change] = {
    **{kind.TOPIC: _on_run_event for kind in _OF_RUNS},
    **{kind.TOPIC: _on_form for kind in _OF_FORMS},
    **{kind.TOPIC: _on_agent_run_event for kind in _OF_AGENT_RUNS},
    **{kind.TOPIC: _on_invocation_event for kind in _OF_CALLS},
    **{kind.TOPIC: _on_compensation for kind in _OF_COMPENSATIONS},
    **{kind.TOPIC: _on_pause for kind in _OF_PAUSES},
    runs.RunQueued.TOPIC: on_key,
    runs.RunBegun.TOPIC: on_key,
    runs.RunPriorityChanged.TOPIC: on_priority,
    **TAKEN_OVER,
    **COUNTED,
}
"""What changes more of a run than its number of events and its last position. Other events are not decoded."""
