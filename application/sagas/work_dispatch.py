"""Work for workers: an agent run or an invocation that waits for a worker goes to the queue of its agent or tool."""

from application.engine.ports.queue import WorkItem
from application.engine.sagas.reactions import Reaction, Reactions
from domain import agent_runs, invocations
from domain.kernel import RecordedEvent


def _work(recorded: RecordedEvent, kind: str, pool: str, dispatch: int) -> list[Reaction]:
    return [WorkItem(recorded.tenant_id, kind, pool, recorded.stream_id, dispatch, recorded.root_id)]


def on_agent_run_requested(event: agent_runs.AgentRunRequested, recorded: RecordedEvent) -> list[Reaction]:
    return _work(recorded, "agent", event.agent, 1)


def on_agent_run_resumed(event: agent_runs.AgentRunResumed, recorded: RecordedEvent) -> list[Reaction]:
    return _work(recorded, "agent", event.agent, event.dispatch)


def on_invocation_requested(event: invocations.InvocationRequested, recorded: RecordedEvent) -> list[Reaction]:
    return _work(recorded, "tool", event.tool, 1)


def on_invocation_requeued(event: invocations.InvocationRequeued, recorded: RecordedEvent) -> list[Reaction]:
    return _work(recorded, "tool", event.tool, event.dispatch)


REACTIONS: Reactions = {
    agent_runs.AgentRunRequested: on_agent_run_requested,
    agent_runs.AgentRunResumed: on_agent_run_resumed,
    invocations.InvocationRequested: on_invocation_requested,
    invocations.InvocationRequeued: on_invocation_requeued,
}
