"""What is due later because of an event: the time-out of an agent run, the resumption after a retry's delay."""

from uuid import UUID

from domain.agent_runs.commands import ResumeAgentRun, TimeOutAgentRun
from domain.agent_runs.events import AgentRunReopened, AgentRunRequested, AgentRunRetryScheduled, AgentRunUnpaused
from domain.kernel import Event, Scheduled


def scheduled_by(event: Event, agent_run_id: UUID) -> Scheduled | None:
    """The command that an event of an agent run schedules; None for events that schedule nothing."""
    match event:
        case AgentRunRequested(timeout_s=timeout_s) if timeout_s is not None:
            return Scheduled(timeout_s, TimeOutAgentRun(agent_run_id=agent_run_id))
        case AgentRunUnpaused(timeout_s=timeout_s) if timeout_s is not None:
            return Scheduled(timeout_s, TimeOutAgentRun(agent_run_id=agent_run_id, pause=event.number))
        case AgentRunReopened(timeout_s=timeout_s, number=number) if timeout_s is not None:
            return Scheduled(timeout_s, TimeOutAgentRun(agent_run_id=agent_run_id, number=number))
        case AgentRunRetryScheduled():
            return Scheduled(event.delay_s, ResumeAgentRun(agent_run_id=agent_run_id, dispatch=event.dispatch))
        case _:
            return None
