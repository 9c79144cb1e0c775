"""A run and its agent runs: a scheduled step becomes an agent run, its outcome goes to the run, the end of a run goes to its agent
runs."""

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from domain import agent_runs, runs
from domain.agent_runs import CancelAgentRun, ReopenAgentRun, RequestAgentRun
from domain.runs import CompleteStep, FailStep


def on_step_scheduled(event: runs.StepScheduled, cause: ReactionCause) -> list[Reaction]:
    said = RequestAgentRun(
        agent_run_id=event.agent_run_id,
        run_id=cause.stream_id,
        step=event.step,
        agent=event.agent,
        agent_version=event.agent_version,
        timeout_s=event.timeout_s,
        retry=event.retry,
        version_asked=event.version_asked,
        priority=event.priority,
        on_behalf_of=cause.on_behalf_of,
        budgets=event.budgets,
    )
    return [requested(said, event)]


def requested(said: RequestAgentRun, event: runs.StepScheduled | runs.PartScheduled) -> RequestAgentRun:
    """The request of an agent run. Since a retry of the run, the agent run may be one that has ended, and goes on."""
    if not event.again:
        return said
    return ReopenAgentRun.model_construct(**dict(said), number=event.again, fresh=event.fresh)


def on_agent_run_completed(event: agent_runs.AgentRunCompleted, cause: ReactionCause) -> list[Reaction]:
    return [CompleteStep(run_id=event.run_id, step=event.step, agent_run_id=cause.stream_id, result=event.result)]


def on_agent_run_failed(event: agent_runs.AgentRunFailed, cause: ReactionCause) -> list[Reaction]:
    return [FailStep(run_id=event.run_id, step=event.step, agent_run_id=cause.stream_id, error=event.error)]


def on_run_failed(event: runs.RunFailed, cause: ReactionCause) -> list[Reaction]:
    return [CancelAgentRun(agent_run_id=agent_run_id, reason="the run failed") for agent_run_id in event.abandoned]


def on_run_cancelled(event: runs.RunCancelled, cause: ReactionCause) -> list[Reaction]:
    return [CancelAgentRun(agent_run_id=agent_run_id, reason="the run was cancelled") for agent_run_id in event.abandoned]


REACTIONS: Reactions = {
    runs.StepScheduled: on_step_scheduled,
    agent_runs.AgentRunCompleted: on_agent_run_completed,
    agent_runs.AgentRunFailed: on_agent_run_failed,
    runs.RunFailed: on_run_failed,
    runs.RunCancelled: on_run_cancelled,
}
