"""Dispatching work of a step again, for a person: its agent run, the agent run of a part, or one of its calls."""

from collections.abc import Callable
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from domain import invocations, runs
from domain.agent_runs import DispatchAgentRun
from domain.errors import InvalidState, NotFound
from domain.invocations import DispatchInvocation, Invocation
from domain.kernel import Command
from domain.runs import ByPerson, Run


async def dispatch_again(
    commands: CommandLoop,
    request: CommandRequest,
    along: Callable[[CommandRequest], CommandRequest],
    *,
    run_id: UUID,
    step: str,
    call: UUID | None,
    person: ByPerson,
) -> tuple[CommandOutcome, UUID]:
    """Returns the outcome, and the stream that was changed. `along`: puts the entry of the audit trail beside.

    Raises NotFound, InvalidState, RepeatedDifferently, Unavailable.
    """
    run: Run = (await commands.load(runs.DECIDER, request.tenant_id, run_id)).state
    if run.status == "absent":
        raise NotFound(f"there is no run {run_id}")
    execution = _execution(run, run_id, step)
    said = {"by": person.by, "reason": person.reason, "on_behalf_of": person.on_behalf_of}
    if call is not None:
        state: Invocation = (await commands.load(invocations.DECIDER, request.tenant_id, call)).state
        if state.requested is None or state.requested.run_id != run_id or state.requested.agent_run_id != execution:
            raise NotFound(f"step '{step}' has no call {call}")
        command: Command = DispatchInvocation(invocation_id=call, **said)
        return await commands.execute(along(request), command), call
    command = DispatchAgentRun(agent_run_id=execution, **said)
    return await commands.execute(along(request), command), execution


def _execution(run: Run, run_id: UUID, step: str) -> UUID:
    """The agent run of a step, or of a part, that is under way."""
    if (place := run.place(step)) is None:
        raise NotFound(f"run {run_id} has no step '{step}'")
    key, part = place
    if run.status != "running" or run.steps[key].status != "scheduled":
        status = run.steps[key].status if run.status == "running" else f"part of a run that is {run.status}"
        raise InvalidState(f"step '{key}' is {status}: nothing of it waits for a worker")
    agent_runs, children = run.executions(key)
    progress = run.progress.get(key)
    if part is not None and progress is not None:
        one = progress.open.get(part)
        if one is None:
            raise InvalidState(f"'{step}' is not under way: nothing of it waits for a worker")
        agent_runs, children = ((), (one.execution_id,)) if one.is_run else ((one.execution_id,), ())
    if len(agent_runs) == 1:
        return agent_runs[0]
    if len(agent_runs) > 1:
        raise InvalidState(f"step '{key}' has {len(agent_runs)} parts under way: name one, as '{key}.0'")
    if children:
        raise InvalidState(f"'{step}' is run {children[0]}: dispatch its steps")
    raise InvalidState(f"step '{key}' waits for a clock, and for no worker")
