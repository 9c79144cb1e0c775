"""Tool calls: loading one call of a tenant, making the requests of its commands, and resolving an ambiguous call."""

from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome, CommandRequest
from application.engine.ports.log_context import about
from domain import invocations
from domain.errors import NotFound
from domain.kernel import derive_id


async def load_invocation(commands: CommandLoop, tenant_id: UUID, invocation_id: UUID) -> invocations.Invocation:
    """The present state of an invocation. A cached state is good enough if it has an outcome. Raises Unavailable."""
    loaded = await commands.load(invocations.DECIDER, tenant_id, invocation_id, fresh=False)
    state: invocations.Invocation = loaded.state
    if state.status not in ("succeeded", "failed"):
        state = (await commands.load(invocations.DECIDER, tenant_id, invocation_id)).state
    return state


async def request_for_invocation(commands: CommandLoop, caller: Caller, invocation_id: UUID, name: str) -> CommandRequest:
    """The request of a command for an invocation. Commands with the same `name` are repeats of one command. Raises NotFound."""
    loaded = await commands.load(invocations.DECIDER, caller.tenant_id, invocation_id, fresh=False)
    if loaded.state.requested is None:
        raise NotFound(f"there is no invocation {invocation_id}")
    run_id: UUID = loaded.state.requested.run_id
    about(run_id=run_id, invocation_id=invocation_id)
    return caller.named(derive_id(invocation_id, name), run_id)


async def resolve_invocation(commands: CommandLoop, caller: Caller, command: invocations.ResolveInvocation) -> CommandOutcome:
    """Records how an ambiguous call ended, as a person says.

    The first resolution counts. The same resolution again gets the first answer. Raises NotFound, AlreadyResolved for another
    resolution, InvalidState.
    """
    request = await request_for_invocation(commands, caller, command.invocation_id, "resolve")
    return await commands.execute(request, command)
