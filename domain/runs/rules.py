"""What each command brings about. Every decision about the next step is taken here, and in the modules of the forms of steps."""

from typing import assert_never
from uuid import UUID

from domain.concurrency import KeyTurn
from domain.errors import AlreadyExists, InvalidState, NotFound, RunIsPaused, WorkOver
from domain.failures import Failure
from domain.kernel import Decider, Event, Functions, without_functions
from domain.runs.carrying_out import carry_on, look_at
from domain.runs.commands import (
    AbandonRun,
    AwaitSignal,
    BeginRun,
    CancelRun,
    ChangePriority,
    CheckRun,
    CheckUntainted,
    CompleteStep,
    EndAtDeadline,
    EndWait,
    ExpireSignalWait,
    FailStep,
    FinishChild,
    ForceStep,
    LeaveSignals,
    PauseRun,
    ResumeRun,
    RetryRun,
    RunCommand,
    SetDeadline,
    SignalRun,
    SkipStep,
    StartRun,
    StopRun,
    TaintRun,
)
from domain.runs.deadlines import is_reached, missed, set_deadline
from domain.runs.deciding import Decision, PlanFault, bounded
from domain.runs.events import RunCancelled, RunCompleted, RunFailed, RunStarted, RunTainted, StepFailed
from domain.runs.forcing import force
from domain.runs.forking import take_over
from domain.runs.outcomes import part_completed, part_failed, step_failed
from domain.runs.pausing import begin, pause, resume
from domain.runs.priorities import change_priority
from domain.runs.retrying import retry_child, retry_run
from domain.runs.signals import decide_on_signals
from domain.runs.state import OVER, Run, evolve
from domain.runs.steered import RunQueued

ON_FAILURE = frozenset({"on_failure", "on_failure_or_cancel"})
ON_CANCEL = frozenset({"on_cancel", "on_failure_or_cancel"})


class GotTainted(InvalidState):
    """The run is not as the caller looked at it. Look again."""


def decide_with(run: Run, command: RunCommand, functions: Functions) -> list[Event]:
    match command:
        case StartRun():
            return _start_or_go_on(run, command, functions)
        case BeginRun():
            d = Decision(command.run_id, run, functions)
            begin(d, command)
            return _and_what_follows(d)
        case CompleteStep() | FailStep():
            return _outcome(Decision(command.run_id, run, functions), command)
        case FinishChild():
            return _child_ended(Decision(command.run_id, run, functions), command)
        case EndWait():
            if not _is_running(run, command.run_id) or not run.waits(command.step):
                return []
            d = Decision(command.run_id, run, functions)
            d.complete(run.step(command.step), None)
            return _and_what_follows(d)
        case CancelRun():
            return _cancel(run, command)
        case AbandonRun() | StopRun():
            return _ended_from_outside(run, command)
        case TaintRun() | CheckUntainted() | CheckRun():
            return _condition(run, command)
        case PauseRun() | ResumeRun() | SkipStep() | ForceStep() | ChangePriority():
            return _steer(run, command, functions)
        case RetryRun():
            return _and_what_follows(retry_run(run, command, functions))
        case SetDeadline():
            return set_deadline(run, command)
        case EndAtDeadline():
            return [_failure(run, *missed(run))] if is_reached(run, command) else []
        case SignalRun() | AwaitSignal() | ExpireSignalWait() | LeaveSignals():
            return decide_on_signals(run, command)
        case _:
            assert_never(command)


def _condition(run: Run, command: TaintRun | CheckUntainted | CheckRun) -> list[Event]:
    """What other commands of the same append rest on."""
    match command:
        case TaintRun():
            if run.tainted or run.status == "absent":
                return []
            if run.status in OVER and not command.goes_on:  # the end of a run is its last event
                return []
            return [RunTainted(invocation_id=command.invocation_id, key=command.key, parent=run.parent)]
        case CheckUntainted():
            if run.tainted:
                raise GotTainted("the run has got untrusted output meanwhile")
        case CheckRun():
            if run.status in OVER:
                raise WorkOver(f"the run is {run.status}")
            if run.paused:
                raise RunIsPaused("the run is paused: nothing begins until it is resumed")
        case _:
            assert_never(command)
    return []


def _steer(run: Run, command: PauseRun | ResumeRun | SkipStep | ForceStep | ChangePriority, functions: Functions) -> list[Event]:
    """What people ask of a run that goes on."""
    match command:
        case PauseRun():
            return pause(run, command)
        case ChangePriority():
            return list(change_priority(run, command))
        case ResumeRun():
            d = Decision(command.run_id, run, functions)
            resume(d, command)
            return _and_what_follows(d)
        case SkipStep() | ForceStep():
            d = Decision(command.run_id, run, functions)
            force(d, command)
            return _and_what_follows(d)
        case _:
            assert_never(command)


def _start_or_go_on(run: Run, command: StartRun, functions: Functions) -> list[Event]:
    if run.status != "absent" and command.again:
        return _and_what_follows(retry_child(run, command, functions))
    if run.status != "absent":
        if command.parent is not None and run.parent == command.parent:
            return []  # the parent was forked, and the child with it
        raise AlreadyExists(f"run {command.run_id} was started before")
    return _start(Decision(command.run_id, run, functions), command)


def _start(d: Decision, command: StartRun) -> list[Event]:
    d.add(
        RunStarted(
            project_id=command.project_id,
            plan=command.plan,
            input=command.input,
            metadata=command.metadata,
            versions_asked=command.versions_asked,
            priority=command.priority,
            compensate=command.compensate,
            parent=command.parent,
            workflow=command.workflow,
            origin=command.origin,
            tainted=command.tainted,
            budget=command.budget,
            budgets=command.budgets if command.budget is None else (*command.budgets, command.run_id),
            forked_from=command.forked_from,
            on_behalf_of=command.on_behalf_of,
            concurrency=command.concurrency,
        )
    )
    if command.concurrency is not None and command.concurrency.on_busy != "reject":
        d.add(RunQueued(key=command.concurrency.key))
    if command.taken is not None:
        take_over(d, command.taken)
    graph = d.run.graph
    for key in () if d.run.queued else graph.first:
        if d.run.steps[key].status == "pending":
            look_at(d, graph.steps[key])
    return _and_what_follows(d)


def _is_running(run: Run, run_id: UUID) -> bool:
    """False for an outcome that comes after the run ended."""
    if run.status == "absent":
        raise NotFound(f"there is no run {run_id}")
    return run.status == "running"


def _outcome(d: Decision, command: CompleteStep | FailStep) -> list[Event]:
    """Of an agent run. Nothing follows from an outcome that comes twice, or that is not waited for any more."""
    run = d.run
    if not _is_running(run, command.run_id) or (place := run.place(command.step)) is None:
        return []
    key, part = place
    step, state, agent_run_id = run.step(key), run.steps[key], command.agent_run_id
    if part is None:
        if state.status != "scheduled" or state.agent_run_id != agent_run_id:
            return []
        if isinstance(command, CompleteStep):
            d.complete(step, command.result, agent_run_id)
        else:
            step_failed(d, step, agent_run_id, command.error)
    else:
        if not _awaits(run, key, part, agent_run_id):
            return []
        if isinstance(command, CompleteStep):
            part_completed(d, step, part, agent_run_id, command.result)
        else:
            part_failed(d, step, part, agent_run_id, command.error)
    return _and_what_follows(d)


def _awaits(run: Run, key: str, part: int, execution_id: UUID) -> bool:
    progress = run.progress.get(key)
    found = None if progress is None else progress.open.get(part)
    return found is not None and found.execution_id == execution_id


def _child_ended(d: Decision, command: FinishChild) -> list[Event]:
    if not _is_running(d.run, command.run_id) or not _awaits(d.run, command.step, command.part, command.child_id):
        return []
    step = d.run.step(command.step)
    if command.error is None:
        part_completed(d, step, command.part, command.child_id, command.result)
    else:
        part_failed(d, step, command.part, command.child_id, command.error)
    return _and_what_follows(d)


def _cancel(run: Run, command: CancelRun) -> list[Event]:
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    if run.status == "cancelled":
        if command.reason not in (None, run.cancel_reason):
            raise InvalidState(f"the run was cancelled before, with another reason: {run.cancel_reason or 'none'}")
        return []
    if run.status != "running":
        raise InvalidState(f"the run is {run.status}; only a running one can be cancelled")
    compensate = run.compensate in ON_CANCEL if command.compensate is None else command.compensate
    return [_cancelled(run, command.reason, compensate=compensate)]


def _cancelled(run: Run, reason: str | None, *, compensate: bool) -> RunCancelled:
    return RunCancelled(
        reason=reason, abandoned=run.under_way, compensate=compensate, abandoned_runs=run.children, parent=run.parent,
        held=_held(run),
    )  # fmt: skip


def _ended_from_outside(run: Run, command: AbandonRun | StopRun) -> list[Event]:
    if run.status != "running":
        return []
    if isinstance(command, AbandonRun):
        if command.turn not in (None, run.turn):
            return []
        return [_cancelled(run, command.reason, compensate=run.compensate in ON_CANCEL)]
    under_way = (key for key in run.graph.steps if run.steps[key].status == "scheduled")
    return [_failure(run, next(under_way, run.graph.last[-1]), command.error)]


# --- what follows -------------------------------------------------------------------------------------------------------------


def _and_what_follows(d: Decision | None) -> list[Event]:
    """All events of a decision: steps that begin, steps that cannot run any more, the end of the run."""
    if d is None:
        return []
    carry_on(d)
    if d.run.stands or not d.events:
        return d.events
    if d.failed is not None:
        d.events.append(_failure(d.run, d.failed.step, d.failed.error, d.failed.compensate))
    elif d.run.ended == len(d.run.steps):
        d.events.append(_end(d))
    return d.events


def _failure(run: Run, step: str, error: Failure, compensate: bool = False) -> RunFailed:
    return RunFailed(
        step=step, error=error, abandoned=run.under_way, compensate=compensate or run.compensate in ON_FAILURE,
        abandoned_runs=run.children, parent=run.parent, held=_held(run),
    )  # fmt: skip


def _held(run: Run) -> KeyTurn | None:
    """The key of a run that ends."""
    return None if run.concurrency is None else KeyTurn(key_id=run.concurrency.key_id, turn=run.turn)


def _end(d: Decision) -> Event:
    run = d.run
    missing = run.missing
    if missing and not any(state.status == "completed" for state in run.steps.values()):
        last = next((e for e in reversed(d.events) if isinstance(e, StepFailed)), None)
        if last is not None:
            return _failure(run, last.step, last.error)
        error = run.steps[missing[-1]].error
        assert error is not None
        return _failure(run, missing[-1], error)
    try:
        result = _result(d)
    except PlanFault as fault:
        return _failure(run, run.graph.last[-1], fault.failure)
    return RunCompleted(degraded=bool(missing), missing=missing, result=result, parent=run.parent, held=_held(run))


def _result(d: Decision) -> object:
    """What the plan's `result` gives; of a child run without one, the results of the steps that nothing comes after."""
    run, plan = d.run, d.run.plan
    assert plan is not None
    if plan.result is not None:
        return bounded(d.value(plan.result, "the plan's `result`"), "the run's result")
    if run.parent is None:
        return None
    last = run.graph.last
    if len(last) == 1:
        return bounded(run.steps[last[0]].result, "the run's result")
    completed = {key: run.steps[key].result for key in last if run.steps[key].status == "completed"}
    return bounded(completed, "the run's result")


decide = without_functions(decide_with)
DECIDER: Decider[Run] = Decider("runs", Run, decide, evolve, decide_with=decide_with)
