"""Tool calls: the outcome of an invocation goes to the agent run that asked. Calls of an ended agent run are cancelled.

What another stream asked for is another saga's.

They are cancelled before the run hears of the end of its agent run (`application/catalog.py`). So when a run completes, each of its
calls has ended, or is in the middle of its last attempt.
"""

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from domain import agent_runs, invocations
from domain.agent_runs import FinishCall
from domain.invocations import CancelInvocation


def on_invocation_succeeded(event: invocations.InvocationSucceeded, cause: ReactionCause) -> list[Reaction]:
    return _finished(event, cause, succeeded=True)


def on_invocation_failed(event: invocations.InvocationFailed, cause: ReactionCause) -> list[Reaction]:
    return _finished(event, cause, succeeded=False, effect=event.effect is not None)


def on_invocation_resolved(event: invocations.InvocationResolved, cause: ReactionCause) -> list[Reaction]:
    return _finished(event, cause, succeeded=event.outcome == "succeeded")


def _finished(event: invocations.Outcome, cause: ReactionCause, *, succeeded: bool, effect: bool = False) -> list[Reaction]:
    """`effect`: of a call that failed, and had its effect all the same, or perhaps."""
    if event.asked_by != "agent_run":
        return []
    agent_run_id, key, call = event.agent_run_id, event.key, cause.stream_id
    return [
        FinishCall(
            agent_run_id=agent_run_id, key=key, invocation_id=call, succeeded=succeeded, effect=effect, usage=event.usage
        )
    ]  # fmt: skip


def on_agent_run_completed(event: agent_runs.AgentRunCompleted, cause: ReactionCause) -> list[Reaction]:
    return [CancelInvocation(invocation_id=i, reason="the agent run completed") for i in event.abandoned]


def on_agent_run_failed(event: agent_runs.AgentRunFailed, cause: ReactionCause) -> list[Reaction]:
    return [CancelInvocation(invocation_id=i, reason="the agent run failed") for i in event.abandoned]


def on_agent_run_cancelled(event: agent_runs.AgentRunCancelled, cause: ReactionCause) -> list[Reaction]:
    return [CancelInvocation(invocation_id=i, reason="the agent run was cancelled") for i in event.abandoned]


REACTIONS: Reactions = {
    invocations.InvocationSucceeded: on_invocation_succeeded,
    invocations.InvocationFailed: on_invocation_failed,
    invocations.InvocationResolved: on_invocation_resolved,
    agent_runs.AgentRunCompleted: on_agent_run_completed,
    agent_runs.AgentRunFailed: on_agent_run_failed,
    agent_runs.AgentRunCancelled: on_agent_run_cancelled,
}
