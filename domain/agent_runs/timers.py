"""What is due later because of an event: the time-out of an agent run, the resumption after a retry's delay, the end of a sleep."""

from uuid import UUID

from domain.agent_runs.commands import FinishWait, ResumeAgentRun, TimeOutAgentRun, WakeAgentRun
from domain.agent_runs.events import (
    AgentRunReopened,
    AgentRunRequested,
    AgentRunRetryScheduled,
    AgentRunSuspended,
    AgentRunUnpaused,
    WaitStarted,
)
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
        case WaitStarted(kind="sleep", delay_s=delay_s) if delay_s != 0:
            over = FinishWait(agent_run_id=agent_run_id, key=event.key, reopened=event.reopened)
            return Scheduled(delay_s or 0.0, over, event.until)
        case AgentRunSuspended():
            times = [receive.until for receive in event.receives if receive.until is not None]
            return Scheduled(0.0, WakeAgentRun(agent_run_id=agent_run_id, attempt=event.attempt), min(times)) if times else None
        case _:
            return None
