"""What a person does to an agent run: it is paused with its run, gets its priority, or is dispatched again.

Paused: its worker loses it, as with a lapsed claim, and none gets it before the run goes on. An agent run that waits for the delay
of a retry goes on waiting. What is due meanwhile is dispatched, and taken back where a worker asks for it. The time-out begins anew
at the end of the pause.
"""

from uuid import UUID

from domain.agent_runs.commands import ChangeAgentRunPriority, DispatchAgentRun, PauseAgentRun, UnpauseAgentRun
from domain.agent_runs.events import AgentRunPaused, AgentRunPriorityChanged, AgentRunResumed, AgentRunUnpaused
from domain.agent_runs.journal import child_id_of
from domain.agent_runs.state import TERMINAL, AgentRun
from domain.errors import InvalidState, NotFound


def pause(run: AgentRun, command: PauseAgentRun) -> list[AgentRunPaused]:
    """Nothing, for a pause that is over, or whose end has come before its beginning."""
    _must_exist(run, command)
    if run.status in TERMINAL or _is_over(run, command.number) or command.dispatch not in (None, run.dispatch):
        return []
    if run.paused and run.status != "running" and run.paused_dispatch == run.dispatch:
        return []
    attempt = run.attempt if run.status == "running" else None
    return [AgentRunPaused(number=command.number, attempt=attempt, children=_children(run, command.agent_run_id))]


def unpause(run: AgentRun, command: UnpauseAgentRun) -> list[AgentRunUnpaused]:
    _must_exist(run, command)
    if run.status in TERMINAL or _is_over(run, command.number) or run.requested is None:
        return []
    children = _children(run, command.agent_run_id)
    calls, timeout_s = run.pending_calls, run.requested.timeout_s
    return [AgentRunUnpaused(number=command.number, calls=calls, timeout_s=timeout_s, children=children)]


def _is_over(run: AgentRun, pause: int) -> bool:
    return pause <= max(run.unpaused, run.past_pause)


def _children(run: AgentRun, agent_run_id: UUID) -> tuple[UUID, ...]:
    """The runs that the agent has started and that have not ended."""
    return tuple(child_id_of(agent_run_id, wait.key, wait.number) for wait in run.open_waits if wait.kind == "child")


def change_priority(run: AgentRun, command: ChangeAgentRunPriority) -> list[AgentRunPriorityChanged]:
    """Nothing, for a change that a newer one has overtaken."""
    _must_exist(run, command)
    if run.status in TERMINAL or command.number <= run.priorities:
        return []
    children = _children(run, command.agent_run_id)
    return [AgentRunPriorityChanged(number=command.number, priority=command.priority, calls=run.pending_calls, children=children)]


def is_waiting_in_line(run: AgentRun) -> bool:
    """Whether its work is in the queue, and no worker has claimed it."""
    return run.status == "requested" and not run.paused


def dispatch_again(run: AgentRun, command: DispatchAgentRun) -> list[AgentRunResumed]:
    _must_exist(run, command)
    assert run.requested is not None
    if run.status in TERMINAL:
        raise InvalidState(f"the agent run is {run.status}: nothing waits for a worker")
    if run.paused:
        raise InvalidState("the run is paused: resume it, and its work is dispatched anew")
    requested, lapsed = run.requested, run.attempt if run.status == "running" else None
    return [
        AgentRunResumed(
            run_id=requested.run_id, agent=requested.agent, dispatch=run.dispatch + 1, lapsed=lapsed, reason="person",
            priority=requested.priority, by=command.by, because=command.reason, on_behalf_of=command.on_behalf_of,
        )
    ]  # fmt: skip


def _must_exist(run: AgentRun, command: PauseAgentRun | UnpauseAgentRun | DispatchAgentRun | ChangeAgentRunPriority) -> None:
    if run.requested is None:
        raise NotFound(f"there is no agent run {command.agent_run_id}")
