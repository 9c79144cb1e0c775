"""Steering a run: a pause, its end, and another priority go to the agent runs and child runs that were under way, and to calls
that wait; what a person ended is cancelled."""

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from domain import agent_runs, runs
from domain.agent_runs import CancelAgentRun, ChangeAgentRunPriority, PauseAgentRun, UnpauseAgentRun
from domain.invocations import ChangeInvocationPriority, UnpauseInvocation
from domain.runs import AbandonRun, ChangePriority, PauseRun, ResumeRun


def on_run_paused(event: runs.RunPaused, cause: ReactionCause) -> list[Reaction]:
    said = event.cause.model_dump(include={"by", "reason", "on_behalf_of"})
    return [
        *(PauseAgentRun(agent_run_id=each, number=event.number) for each in event.executions),
        *(PauseRun(run_id=each, parent_number=event.number, **said) for each in event.runs),
    ]


def on_run_resumed(event: runs.RunResumed, cause: ReactionCause) -> list[Reaction]:
    said = event.cause.model_dump(include={"by", "reason", "on_behalf_of"})
    return [
        *(UnpauseAgentRun(agent_run_id=each, number=event.number) for each in event.executions),
        *(ResumeRun(run_id=each, parent_number=event.number, **said) for each in event.runs),
    ]


def on_agent_run_paused(event: agent_runs.AgentRunPaused, cause: ReactionCause) -> list[Reaction]:
    """The runs that agents have started are no part of the plan: the run does not know of them."""
    return [PauseRun(run_id=each, parent_number=event.number) for each in event.children]


def on_agent_run_unpaused(event: agent_runs.AgentRunUnpaused, cause: ReactionCause) -> list[Reaction]:
    return [
        *(UnpauseInvocation(invocation_id=each) for each in event.calls),
        *(ResumeRun(run_id=each, parent_number=event.number) for each in event.children),
    ]


def on_priority_changed(event: runs.RunPriorityChanged, cause: ReactionCause) -> list[Reaction]:
    said = event.cause.model_dump(include={"by", "reason", "on_behalf_of"}) | {"priority": event.priority}
    return [
        *(ChangeAgentRunPriority(agent_run_id=each, number=event.number, priority=event.priority) for each in event.executions),
        *(ChangePriority(run_id=each, parent_number=event.number, **said) for each in event.runs),
    ]


def on_agent_run_priority_changed(event: agent_runs.AgentRunPriorityChanged, cause: ReactionCause) -> list[Reaction]:
    number, priority = event.number, event.priority
    return [
        *(ChangeInvocationPriority(invocation_id=each, number=number, priority=priority) for each in event.calls),
        *(ChangePriority(run_id=each, parent_number=number, priority=priority) for each in event.children),
    ]


def on_part_ended(event: runs.PartCompleted | runs.PartFailed, cause: ReactionCause) -> list[Reaction]:
    """What a person ended while it was under way."""
    if not event.abandoned and not event.abandoned_runs:
        return []
    reason = f"a person ended part {event.part} of step '{event.step}'"
    return [
        *(CancelAgentRun(agent_run_id=each, reason=reason) for each in event.abandoned),
        *(AbandonRun(run_id=each, reason=reason) for each in event.abandoned_runs),
    ]


REACTIONS: Reactions = {
    runs.RunPaused: on_run_paused,
    runs.RunResumed: on_run_resumed,
    agent_runs.AgentRunPaused: on_agent_run_paused,
    agent_runs.AgentRunUnpaused: on_agent_run_unpaused,
    runs.RunPriorityChanged: on_priority_changed,
    agent_runs.AgentRunPriorityChanged: on_agent_run_priority_changed,
    runs.PartCompleted: on_part_ended,
    runs.PartFailed: on_part_ended,
}
