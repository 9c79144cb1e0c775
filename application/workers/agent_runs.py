"""Loading one agent run of a tenant, and making the requests of a worker's commands for it."""

from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandRequest
from application.engine.ports.log_context import about
from domain import agent_runs
from domain.agent_runs import AgentRun
from domain.errors import NotFound
from domain.kernel import derive_id


async def load_agent_run(commands: CommandLoop, tenant_id: UUID, agent_run_id: UUID, *, fresh: bool = False) -> AgentRun:
    """The state of an agent run. `fresh`: with all events that other processes have recorded. Raises NotFound, Unavailable."""
    state: AgentRun = (await commands.load(agent_runs.DECIDER, tenant_id, agent_run_id, fresh=fresh)).state
    if state.requested is None and not fresh:  # a message came first, and another process has recorded the request since
        state = (await commands.load(agent_runs.DECIDER, tenant_id, agent_run_id)).state
    if state.requested is None:
        raise NotFound(f"there is no agent run {agent_run_id}")
    return state


async def request_for_agent_run(commands: CommandLoop, caller: Caller, agent_run_id: UUID, name: str) -> CommandRequest:
    """The request of a worker's command. Commands with the same `name` are repeats of one command. Raises NotFound."""
    state = await load_agent_run(commands, caller.tenant_id, agent_run_id)
    assert state.requested is not None
    run_id = state.requested.run_id
    about(run_id=run_id, agent_run_id=agent_run_id)
    return caller.reporting(derive_id(agent_run_id, name), run_id)
