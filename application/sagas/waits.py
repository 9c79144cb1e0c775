"""Waits of agents: a wait for a signal stands in line at the run, and what the run decides goes back to the agent run.

So does the end of a run that an agent has started.
"""

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from domain import agent_runs, runs
from domain.agent_runs import FinishWait
from domain.approval_rules import question_id_of
from domain.approvals import WithdrawApproval
from domain.failures import Failure
from domain.kernel import Json
from domain.runs import AbandonRun, AwaitSignal, LeaveSignals


def on_wait_started(event: agent_runs.WaitStarted, cause: ReactionCause) -> list[Reaction]:
    if event.kind != "signal" or event.name is None:
        return []
    return [
        AwaitSignal(
            run_id=event.run_id, agent_run_id=cause.stream_id, key=event.key, step=event.step, name=event.name,
            timeout_s=event.delay_s, reopened=event.reopened,
        )
    ]  # fmt: skip


def on_run_signalled(event: runs.RunSignalled, cause: ReactionCause) -> list[Reaction]:
    to = event.received_by
    return [] if to is None else [FinishWait(agent_run_id=to.agent_run_id, key=to.key, result=event.payload)]


def on_signal_received(event: runs.SignalReceived, cause: ReactionCause) -> list[Reaction]:
    return [FinishWait(agent_run_id=event.agent_run_id, key=event.key, result=event.payload)]


def on_signal_wait_ended(event: runs.SignalWaitEnded, cause: ReactionCause) -> list[Reaction]:
    if event.reason != "timed_out":
        return []
    why = f"no signal '{event.name}' came within {event.timeout_s or 0.0:g} s"
    error = Failure(type="SignalTimeout", message=why, kind="timeout")
    return [FinishWait(agent_run_id=event.agent_run_id, key=event.key, error=error)]


def on_agent_run_ended(
    event: agent_runs.AgentRunCompleted | agent_runs.AgentRunFailed | agent_runs.AgentRunCancelled, cause: ReactionCause
) -> list[Reaction]:
    keys = tuple(wait.key for wait in event.open_waits if wait.kind == "signal")
    left: list[Reaction] = [LeaveSignals(run_id=cause.root_id, agent_run_id=cause.stream_id, keys=keys)] if keys else []
    children = [agent_runs.child_id_of(cause.stream_id, wait.key, wait.number) for wait in event.open_waits if wait.kind == "child"]
    left += [
        WithdrawApproval(approval_id=question_id_of(cause.stream_id, wait.key, wait.number), reason="the agent has ended")
        for wait in event.open_waits
        if wait.kind == "approval"
    ]
    return [*left, *(AbandonRun(run_id=child, reason="the agent that started it has ended") for child in children)]


def on_run_completed(event: runs.RunCompleted, cause: ReactionCause) -> list[Reaction]:
    return _child_ended(cause, event.parent, event.result, None)


def on_run_failed(event: runs.RunFailed, cause: ReactionCause) -> list[Reaction]:
    return _child_ended(cause, event.parent, None, event.error)


def on_run_cancelled(event: runs.RunCancelled, cause: ReactionCause) -> list[Reaction]:
    reason = "the child run was cancelled" + (f": {event.reason}" if event.reason else "")
    return _child_ended(cause, event.parent, None, Failure(type="ChildCancelled", message=reason))


def _child_ended(cause: ReactionCause, parent: runs.Parent | None, result: Json, error: Failure | None) -> list[Reaction]:
    if parent is None or parent.agent_run_id is None or parent.key is None:
        return []
    ended = FinishWait(
        agent_run_id=parent.agent_run_id, key=parent.key, result=result, error=error, child_id=cause.stream_id
    )  # fmt: skip
    return [ended]


REACTIONS: Reactions = {
    agent_runs.WaitStarted: on_wait_started,
    runs.RunSignalled: on_run_signalled,
    runs.SignalReceived: on_signal_received,
    runs.SignalWaitEnded: on_signal_wait_ended,
    agent_runs.AgentRunCompleted: on_agent_run_ended,
    agent_runs.AgentRunFailed: on_agent_run_ended,
    agent_runs.AgentRunCancelled: on_agent_run_ended,
    runs.RunCompleted: on_run_completed,
    runs.RunFailed: on_run_failed,
    runs.RunCancelled: on_run_cancelled,
}
