"""Rules of agent runs: what each command brings about, which claim is valid, when a failure is retried; the decider."""

from typing import assert_never

from domain.agent_runs import purse, unpaid
from domain.agent_runs.commands import (
    AgentRunCommand,
    CancelAgentRun,
    ChangeAgentRunPriority,
    ClaimAgentRun,
    CompleteAgentRun,
    DeliverMail,
    DispatchAgentRun,
    FailAgentRun,
    FinishCall,
    FinishWait,
    GrantPortion,
    LapseClaim,
    PauseAgentRun,
    PayCall,
    ReceiveMail,
    RecordStep,
    RefuseCall,
    ReleasePortion,
    ReopenAgentRun,
    ReportProgress,
    RequestAgentRun,
    ResumeAgentRun,
    SettleCalls,
    SettleCancelled,
    StartCall,
    StartWait,
    SuspendAgentRun,
    TakeOverJournal,
    TimeOutAgentRun,
    UnpauseAgentRun,
    WakeAgentRun,
)
from domain.agent_runs.events import (
    AgentRunCancelled,
    AgentRunClaimed,
    AgentRunCompleted,
    AgentRunFailed,
    AgentRunProgressed,
    AgentRunReopened,
    AgentRunRequested,
    AgentRunResumed,
    AgentRunRetryScheduled,
)
from domain.agent_runs.journal import finish_call, record_step, start_call
from domain.agent_runs.mail import deliver, receive
from domain.agent_runs.pausing import change_priority, dispatch_again, is_waiting_in_line, pause, unpause
from domain.agent_runs.state import TERMINAL, AgentRun, evolve, fold
from domain.agent_runs.waits import finish_wait, is_awaited, start_wait, suspend
from domain.amounts import ONE_CALL, Amounts
from domain.errors import InvalidState, NotFound, RunIsPaused, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, RETRYABLE, Failure, backoff_s
from domain.kernel import Decider, Event


def decide(run: AgentRun, command: AgentRunCommand) -> list[Event]:
    match command:
        case (
            RecordStep()
            | StartCall()
            | ReceiveMail()
            | StartWait()
            | SuspendAgentRun()
            | ReportProgress()
            | GrantPortion()
            | CompleteAgentRun()
            | FailAgentRun()
        ):
            return _decide_for_worker(run, command)
        case RequestAgentRun() | TakeOverJournal():
            return _begin(run, command)
        case ClaimAgentRun():
            return _claim(run, command)
        case LapseClaim():
            return _lapse(run, command)
        case SettleCalls() | ReleasePortion() | SettleCancelled():
            return _told(run, command)
        case FinishCall() | FinishWait() | WakeAgentRun() | DeliverMail() | PayCall() | RefuseCall():
            return _settle(run, command)
        case ResumeAgentRun():
            if run.status != "waiting" or run.requested is None or command.dispatch != run.dispatch + 1:
                return []
            return [_resumed(run.requested, command.dispatch)]
        case TimeOutAgentRun():
            if run.requested is None or run.status in TERMINAL or run.paused or _is_of_before(run, command):
                return []
            why = f"the step did not finish within {run.requested.timeout_s:g} s"
            return _ended(run, _failed(run, Failure(type="StepTimeout", message=why, kind="timeout")))
        case CancelAgentRun():
            if run.requested is None:
                raise NotFound(f"there is no agent run {command.agent_run_id}")
            if run.status in TERMINAL:
                return []
            return _ended(run, AgentRunCancelled(reason=command.reason, abandoned=run.pending_calls, open_waits=run.open_waits))
        case PauseAgentRun() | UnpauseAgentRun() | DispatchAgentRun() | ChangeAgentRunPriority():
            return _steer(run, command)
        case _:
            assert_never(command)


def _settle(run: AgentRun, command: FinishCall | FinishWait | WakeAgentRun | DeliverMail | PayCall | RefuseCall) -> list[Event]:
    """What comes from outside. It wakes an agent run that is suspended, unless a call only begins."""
    match command:
        case FinishCall():
            cost = ONE_CALL if command.usage is None else command.usage + ONE_CALL
            return _late(run, command.key, cost) if run.status in TERMINAL else _and_wake(run, _pay(run, command))
        case FinishWait():
            return [] if run.status in TERMINAL else _and_wake(run, finish_wait(run, command))
        case WakeAgentRun():
            return _and_wake(run, [], woken=command.attempt == run.attempt)
        case DeliverMail():
            delivered = deliver(run.mailbox, command, ended=run.status if run.status in TERMINAL else None)
            return _and_wake(run, delivered) if delivered and is_awaited(run, command.sender) else delivered
        case PayCall():
            return [] if run.status in TERMINAL else unpaid.pay(run, command)
        case RefuseCall():
            return [] if run.status in TERMINAL else _refuse(run, command)
        case _:
            assert_never(command)


def _steer(run: AgentRun, command: PauseAgentRun | UnpauseAgentRun | DispatchAgentRun | ChangeAgentRunPriority) -> list[Event]:
    if isinstance(command, PauseAgentRun):
        return list(pause(run, command))
    if isinstance(command, DispatchAgentRun):
        return list(dispatch_again(run, command))
    if isinstance(command, ChangeAgentRunPriority):
        changed = change_priority(run, command)
        if changed and is_waiting_in_line(run) and run.requested is not None and run.requested.priority != command.priority:
            requested = run.requested.model_copy(update={"priority": command.priority})
            return [*changed, _resumed(requested, run.dispatch + 1, reason="priority")]
        return list(changed)
    ended = unpause(run, command)
    if ended and run.status == "requested" and run.requested is not None:
        return [*ended, _resumed(run.requested, run.dispatch + 1, reason="unpaused")]
    return list(ended)


def _begin(run: AgentRun, command: RequestAgentRun | TakeOverJournal) -> list[Event]:
    if isinstance(command, TakeOverJournal):
        return [*command.mail, *command.entries] if not run.version else []
    if run.requested is not None:
        return _reopen(run, command) if isinstance(command, ReopenAgentRun) else []
    return [_requested(command)]


def _requested(command: RequestAgentRun) -> AgentRunRequested:
    return AgentRunRequested(
        run_id=command.run_id,
        step=command.step,
        agent=command.agent,
        agent_version=command.agent_version,
        timeout_s=command.timeout_s,
        retry=command.retry,
        version_asked=command.version_asked,
        priority=command.priority,
        on_behalf_of=command.on_behalf_of,
        budgets=command.budgets,
    )


def _reopen(run: AgentRun, command: ReopenAgentRun) -> list[Event]:
    """Nothing, for an agent run that is under way, or went on with this retry before."""
    if run.status not in TERMINAL or command.number <= run.reopened:
        return []
    return [
        *purse.forfeited(run.purses),
        AgentRunReopened(
            dispatch=run.dispatch + 1, **command.model_dump(exclude={"agent_run_id", "retry"}), retry=command.retry
        )
    ]  # fmt: skip


def _is_of_before(run: AgentRun, command: TimeOutAgentRun) -> bool:
    """Whether a time was set before the newest pause was over, or before the newest retry of the run."""
    return command.pause != run.unpaused or (not command.pause and command.number != run.reopened)


def _told(run: AgentRun, command: SettleCalls | ReleasePortion | SettleCancelled) -> list[Event]:
    """Outcomes of calls of an agent run that is over, or somebody needs what it holds and does not need."""
    if isinstance(command, SettleCancelled):
        return _late(run, command.key, command.cost)
    if isinstance(command, ReleasePortion):
        return [] if run.status in TERMINAL else purse.release(run.purses, command)
    if run.status not in TERMINAL:
        raise InvalidState(f"the agent run is {run.status}: its calls are its own")
    return [event for call in command.calls for event in finish_call(run.journal, call)]


def _pay(run: AgentRun, command: FinishCall) -> list[Event]:
    """A call has ended: its budgets count what it has cost."""
    reservation = run.reservations.get(command.key)
    if reservation is None:
        ended = finish_call(run.journal, command)
        return [*ended, *unpaid.dropped(run, command.key)] if ended else []
    cost, more = purse.paid(run.purses, run.newest_purse, reservation, command.usage)
    finished = finish_call(run.journal, command, cost)
    return [*finished, *more] if finished else []


def _late(run: AgentRun, key: str, cost: Amounts) -> list[Event]:
    """A call has ended that nobody waits for. Nothing, if its budgets know what it has cost, or none counts it."""
    reservation = run.reservations.get(key)
    return [] if reservation is None else [purse.late(run.purses, reservation, key, cost)]


def _ended(run: AgentRun, end: Event) -> list[Event]:
    """The end of an agent run, behind what its budgets are to know."""
    return [*purse.closing(run.purses), *unpaid.closing(run), end] if run.purses or run.unpaid else [end]


def _refuse(run: AgentRun, command: RefuseCall) -> list[Event]:
    """As a call that a budget refuses at once: the agent run fails, whatever its code would make of the failure."""
    waits = run.unpaid.get(command.key)
    if waits is None or waits.invocation_id != command.invocation_id:
        return []
    finish = FinishCall(agent_run_id=command.agent_run_id, key=command.key, invocation_id=command.invocation_id, succeeded=False)
    finished = finish_call(run.journal, finish)
    run = fold(run, finished)  # type: ignore[arg-type]  # they are events of this slice
    return [*finished, *_ended(run, _failed(run, command.error))]


def _claim(run: AgentRun, command: ClaimAgentRun) -> list[Event]:
    if run.requested is None:
        raise NotFound(f"there is no agent run {command.agent_run_id}")
    if run.status in TERMINAL:
        raise WorkOver(f"the agent run is {run.status}")
    if run.status in ("waiting", "suspended") or command.dispatch != run.dispatch:
        raise WorkOver(f"dispatch {command.dispatch} is over; {run.dispatch} is the newest")
    if run.paused:
        raise RunIsPaused(f"dispatch {command.dispatch} is paused with the run")
    if run.status == "running" and run.session_id is not None:
        raise WorkOver(f"dispatch {command.dispatch} is claimed by a session, as attempt {run.attempt}")
    if run.lost_claims >= MAX_LOST_CLAIMS:
        return _ended(run, _workers_lost(run))
    return [
        AgentRunClaimed(
            attempt=run.attempt + 1, worker_id=command.worker_id, dispatch=command.dispatch, session_id=command.session_id
        )
    ]


def _lapse(run: AgentRun, command: LapseClaim) -> list[Event]:
    """Nothing, for a claim that a session did not make, that has ended, or after which the agent run was claimed again."""
    if run.status != "running" or command.attempt != run.attempt or run.session_id is None or run.requested is None:
        return []
    if run.lost_claims >= MAX_LOST_CLAIMS and command.reason == "lost":
        return _ended(run, _workers_lost(run))
    return [_resumed(run.requested, run.dispatch + 1, lapsed=command.attempt, reason=command.reason)]


def _and_wake(run: AgentRun, events: list[Event], *, woken: bool = False) -> list[Event]:
    """Events that settle something, and the resumption of an agent run that is suspended. Where `events` settle nothing, and the
    time of a `receive` is not what has come, nothing."""
    if run.status != "suspended" or run.requested is None or not (events or woken):
        return events
    return [*events, _resumed(run.requested, run.dispatch + 1, reason="woken")]


def _resumed(
    requested: AgentRunRequested, dispatch: int, *, lapsed: int | None = None, reason: str | None = None
) -> AgentRunResumed:
    run_id, agent, priority = requested.run_id, requested.agent, requested.priority
    return AgentRunResumed(run_id=run_id, agent=agent, dispatch=dispatch, lapsed=lapsed, reason=reason, priority=priority)


def _decide_for_worker(
    run: AgentRun,
    command: RecordStep
    | StartCall
    | ReceiveMail
    | StartWait
    | SuspendAgentRun
    | ReportProgress
    | GrantPortion
    | CompleteAgentRun
    | FailAgentRun,
) -> list[Event]:
    if run.requested is None:
        raise NotFound(f"there is no agent run {command.agent_run_id}")
    if run.status in TERMINAL:
        raise WorkOver(f"the agent run is {run.status}")
    if run.status != "running" or command.attempt != run.attempt:
        raise StaleAttempt(f"attempt {command.attempt} lost its lease; {run.attempt} is the newest")
    match command:
        case RecordStep():
            return record_step(run.journal, command)
        case StartCall():
            if command.key not in run.journal:
                _check_paid(run, command)
            elif (
                command.refused or command.unpaid is not None
            ):  # the call was made before, and goes on: who refuses it has not seen it
                raise purse.PortionShort(f"the call '{command.key}' was made before", pointer="/key")
            return start_call(run.journal, command, run.reopened)
        case GrantPortion():
            return purse.grant(run.purses, run.newest_purse, command)
        case ReceiveMail():
            return receive(run.journal, run.mailbox, command)
        case StartWait():
            return start_wait(run, run.requested, command)
        case SuspendAgentRun():
            return suspend(run, command)
        case ReportProgress():
            said = AgentRunProgressed(**command.model_dump(exclude={"agent_run_id"}))
            return [] if said == run.progress else [said]
        case CompleteAgentRun():
            completed = AgentRunCompleted(
                run_id=run.requested.run_id,
                step=run.requested.step,
                attempt=command.attempt,
                result=command.result,
                unused_keys=command.unused_keys,
                abandoned=run.pending_calls,
                open_waits=run.open_waits,
            )
            return _ended(run, completed)
        case FailAgentRun():
            return _retry_or_fail(run, command)
        case _:
            assert_never(command)


def _check_paid(run: AgentRun, command: StartCall) -> None:
    """Raises PortionShort: a call of a run with a budget is paid for before it begins, or it is refused."""
    assert run.requested is not None
    if command.reserve is None and run.requested.budgets and not (command.refused or command.unpaid):
        raise purse.PortionShort("the run has a budget, and nothing was set aside for the call", pointer="/tool")
    purse.check(run.purses, run.newest_purse, command)


def _retry_or_fail(run: AgentRun, command: FailAgentRun) -> list[Event]:
    assert run.requested is not None
    retry = run.requested.retry
    if command.error.kind in RETRYABLE and run.failures + 1 < retry.max_attempts:
        delay = backoff_s(retry, command.agent_run_id, run.failures + 1, command.error)
        dispatch = run.dispatch + 1
        return [AgentRunRetryScheduled(attempt=command.attempt, error=command.error, delay_s=delay, dispatch=dispatch)]
    return _ended(run, _failed(run, command.error))


def _workers_lost(run: AgentRun) -> AgentRunFailed:
    why = f"{MAX_LOST_CLAIMS} workers in a row vanished while they ran this agent, without any progress"
    return _failed(run, Failure(type="WorkersLost", message=why, kind="lost"))


def _failed(run: AgentRun, error: Failure) -> AgentRunFailed:
    assert run.requested is not None
    requested = run.requested
    return AgentRunFailed(
        run_id=requested.run_id, step=requested.step, error=error, abandoned=run.pending_calls, open_waits=run.open_waits
    )  # fmt: skip


DECIDER: Decider[AgentRun] = Decider("agent_runs", AgentRun, decide, evolve, fold)
