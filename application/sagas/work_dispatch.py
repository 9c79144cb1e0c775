"""Work for workers: an agent run or an invocation that waits for a worker goes to the queue of its agent or tool.

An invocation whose effect is in doubt goes to a queue of its own, from which only workers pull that can ask about the effect.
"""

from application.engine.ports.queue import WorkItem
from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from domain import agent_runs, invocations
from domain.kernel import Priority


def _work(cause: ReactionCause, kind: str, pool: str, dispatch: int, priority: Priority) -> list[Reaction]:
    return [WorkItem(cause.tenant_id, kind, pool, cause.stream_id, dispatch, cause.root_id, priority)]


def on_agent_run_requested(event: agent_runs.AgentRunRequested, cause: ReactionCause) -> list[Reaction]:
    return _work(cause, "agent", event.agent, 1, event.priority)


def on_agent_run_resumed(event: agent_runs.AgentRunResumed, cause: ReactionCause) -> list[Reaction]:
    return _work(cause, "agent", event.agent, event.dispatch, event.priority)


def on_agent_run_reopened(event: agent_runs.AgentRunReopened, cause: ReactionCause) -> list[Reaction]:
    return _work(cause, "agent", event.agent, event.dispatch, event.priority)


def on_invocation_requested(event: invocations.InvocationRequested, cause: ReactionCause) -> list[Reaction]:
    # A chain carries it out, or it is answered or refused in the same append, or it waits for people.
    if event.chain_id is not None or event.cached_from is not None or event.refused:
        return []
    if event.approval is not None or event.unpaid is not None:
        return []
    return _work(cause, "tool", event.tool, 1, event.priority)


def on_invocation_requeued(event: invocations.InvocationRequeued, cause: ReactionCause) -> list[Reaction]:
    return _work(cause, "tool", event.tool, event.dispatch, event.priority)


def on_invocation_released(event: invocations.InvocationReleased, cause: ReactionCause) -> list[Reaction]:
    return [] if event.chain_id is not None else _work(cause, "tool", event.tool, event.dispatch, event.priority)


def on_invocation_fell_back(event: invocations.InvocationFellBack, cause: ReactionCause) -> list[Reaction]:
    if event.held:
        return []
    return _work(cause, "tool", event.tool, event.dispatch, event.priority)


def on_reconcile_requested(event: invocations.InvocationReconcileRequested, cause: ReactionCause) -> list[Reaction]:
    return _work(cause, "reconcile", event.tool, event.dispatch, event.priority)


REACTIONS: Reactions = {
    agent_runs.AgentRunRequested: on_agent_run_requested,
    agent_runs.AgentRunResumed: on_agent_run_resumed,
    agent_runs.AgentRunReopened: on_agent_run_reopened,
    invocations.InvocationRequested: on_invocation_requested,
    invocations.InvocationRequeued: on_invocation_requeued,
    invocations.InvocationFellBack: on_invocation_fell_back,
    invocations.InvocationReleased: on_invocation_released,
    invocations.InvocationReconcileRequested: on_reconcile_requested,
}
